//! What agents are for: git, a compiler, Python, in a workspace of the user under the profile `coding`, unhindered, and
//! nothing of it was refused in silence. What it may not touch stays as it was.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::harness::{DEV, Output, Test, json, program};
use crate::ui;

const HOME: &str = "/home/dev";
const WORK: &str = "/home/dev/work";

pub(super) fn run(test: &mut Test) -> Result<()> {
    prepare()?;
    let done = all(test);
    fs::remove_dir_all(WORK)?;
    fs::remove_dir_all(format!("{HOME}/origin.git"))?;
    done
}

fn all(test: &mut Test) -> Result<()> {
    for (name, script) in JOBS {
        let output = work(name, script)?;
        test.check(output.status == 0, || {
            format!("{name}: status {}: {}{}", output.status, output.stdout, output.stderr)
        });
        test.contains(name, &output.stdout, "done");
    }
    for (tool, script) in [
        ("cargo", "cargo new --vcs none c && cd c && cargo test --offline && echo done"),
        (
            "npm",
            "mkdir -p n/dep && cd n && echo '{\"name\":\"dep\",\"version\":\"1.0.0\"}' >dep/package.json && npm init -y && npm install ./dep && echo done",
        ),
    ] {
        if Path::new("/usr/bin").join(tool).exists() {
            let output = work(tool, script)?;
            test.contains(tool, &output.stdout, "done");
        } else {
            ui::line(&format!("{tool} is not in this machine"));
        }
    }
    harm(test)
}

fn as_dev(script: &str) -> Result<Output> {
    program(Command::new("setpriv").args([
        "--reuid=1000",
        "--regid=1000",
        "--init-groups",
        "env",
        "-i",
        "PATH=/usr/bin:/bin",
        "HOME=/home/dev",
        "bash",
        "-ec",
        script,
    ]))
}

/// The user's home as it is: settings of git, a key, a repository to clone from.
fn prepare() -> Result<()> {
    fs::create_dir_all(WORK)?;
    chown(WORK, Some(DEV), Some(DEV))?;
    as_dev(
        "cd; git config --global user.name Dev; git config --global user.email dev@localhost
         git config --global init.defaultBranch main
         mkdir -p .ssh; echo KEY >.ssh/id_ed25519
         git init -q --bare origin.git; git clone -q origin.git work/first 2>/dev/null; cd work/first
         printf 'int main(void) { return 0; }\\n' >main.c; printf 'all: main\\ntest: main\\n\\t./main\\n' >Makefile
         printf 'def add(a, b):\\n    return a + b\\n' >calc.py
         printf 'from calc import add\\n\\ndef test_add():\\n    assert add(1, 2) == 3\\n' >test_calc.py
         git add .; git commit -qm first; git push -q origin HEAD",
    )?
    .ok("preparing the home")
    .map(drop)
}

/// Runs a script under `coding`, and says what was refused meanwhile.
fn work(name: &str, script: &str) -> Result<Output> {
    let mut command = Command::new("agentctl");
    command.args(["spawn", "--user", "dev", "--profile", "coding", "--name", &format!("work-{name}"), "--cwd", WORK]);
    // The repository to clone from lies beside the workspace.
    command.args(["--allow", &format!("read:{HOME}/origin.git"), "--", "bash", "-ec", script]);
    let output = program(command.env("HOME", HOME))?;
    for record in json(&["audit", "--agent", &format!("work-{name}"), "-n", "all"])? {
        if record["event"] == "access_denied" {
            ui::line(&format!("refused in {name}: {}", record["denial"]));
        }
    }
    Ok(output)
}

const JOBS: &[(&str, &str)] = &[
    ("git", "git clone -q /home/dev/origin.git cloned; cd cloned; git switch -qc topic; echo >>main.c; git commit -qam change
             git init -q ../new; cd ../new; git status -s; echo x >f; git add f; git commit -qm x; git log --oneline; git stash list
             git branch other; git switch -q other; git merge -q main; git gc -q; echo done"),
    ("make", "git clone -q /home/dev/origin.git c; cd c; make; make test; gcc -O2 -shared -fPIC -o libx.so main.c; echo done"),
    ("python", "git clone -q /home/dev/origin.git p; cd p; python3 -m pytest -q; python3 -m compileall -q .; echo done"),
    ("venv", "python3 -m venv --without-pip v; . v/bin/activate; python -c 'import sys; print(sys.prefix)'; echo done"),
    ("shell", "printf '#!/bin/sh\\necho hi\\n' >s; chmod +x s; ./s; mkdir -p a/b; mv s a/b; cp -r a c2; rm -r c2; ln -s a l; ls -l; find . | wc -l
              tar c a | tar t; sed -i s/hi/ho/ a/b/s; ./a/b/s; mktemp; sort </etc/passwd >/dev/null; ps ax | head -3; id; date; echo done"),
    ("threads", "python3 -c 'import concurrent.futures as f, multiprocessing as m
with f.ThreadPoolExecutor(4) as p: print(list(p.map(len, [\"a\"] * 9)))
with m.Pool(2) as p: print(p.map(abs, [-1, 2]))'; echo done"),
    ("loopback", "python3 - <<'X'
import socket, threading
s = socket.create_server(('127.0.0.1', 0)); t = threading.Thread(target=lambda: s.accept()[0].sendall(b'hello')); t.start()
print(socket.create_connection(s.getsockname()).recv(9)); t.join()
a, b = socket.socketpair(); a.send(b'x'); print(b.recv(1))
X
echo done"),
];

/// What an agent may do by mistake, in the same place.
fn harm(test: &mut Test) -> Result<()> {
    let output = work(
        "harm",
        "set +e; cd first; rm -rf ~/.ssh ~/.profile ~/origin.git; cat ~/.ssh/id_ed25519; echo evil >.git/hooks/pre-commit; mkdir .git/hooks
         echo evil >>~/.bashrc; echo evil >>~/.gitconfig; mkdir .claude; echo evil >.claude/settings.json; echo evil >../.mcp.json
         curl -s -m 2 http://10.9.9.9/; echo evil >/etc/profile.d/x.sh; mv .git .got; mkdir .got/hooks2; mv .got .git; echo done",
    )?;
    test.contains("harm", &output.stdout, "done");
    test.check(!output.stdout.contains("KEY"), || "the key was read".into());
    for (path, content) in [
        (".ssh/id_ed25519", "KEY"),
        (".profile", ""),
        (".bashrc", ""),
        (".gitconfig", "dev@localhost"),
        ("origin.git/HEAD", "main"),
    ] {
        let found = fs::read_to_string(format!("{HOME}/{path}")).with_context(|| format!("{path} is gone"))?;
        test.check(found.contains(content) && !found.contains("evil"), || format!("{path} was changed"));
    }
    for path in ["first/.git/hooks/pre-commit", "first/.claude/settings.json", ".mcp.json"] {
        let found = fs::read_to_string(format!("{WORK}/{path}")).unwrap_or_default();
        test.check(!found.contains("evil"), || format!("{path} was written"));
    }
    Ok(())
}
