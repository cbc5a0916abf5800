//! Jobs of one toolchain each: a script that any person would type, and a look at what it left.

use std::fs;

use anyhow::Result;

use super::{Job, Outcome, script};
use crate::sh;
use crate::work::ground::Ground;

const SUM_C: &str = "#include \"sum.h\"\nint sum(int a, int b) { return a + b; }\n";
const SUM_H: &str = "int sum(int a, int b);\n";
const MAIN_C: &str =
    "#include <stdio.h>\n#include \"sum.h\"\nint main(void) { return printf(\"%d\\n\", sum(20, 22)) < 0; }\n";
const MAKEFILE: &str = "CFLAGS = -O2 -g -Wall -pthread\nsum: main.o libsum.a\n\t$(CC) $(CFLAGS) -o $@ $^\nlibsum.a: sum.o\n\
     \t$(AR) rcs $@ $^\nmain.o sum.o: sum.h\ntest: sum\n\ttest \"$$(./sum)\" = 42\nclean:\n\trm -f *.o *.a sum\n";

/// init, clone, edit, commit, branch, merge, conflict, rebase, stash, worktree, tag, gc, push.
pub(super) fn git(ground: &Ground, job: &Job) -> Result<Outcome> {
    let upstream = ground.folder("upstream", &[("sum.c", SUM_C), ("sum.h", SUM_H), (".envrc", "use nothing\n")])?;
    for words in [vec!["init", "-q"], vec!["add", "-A"], vec!["commit", "-qm", "Start"]] {
        sh::quiet(ground.outside("git", &upstream).args(words))?;
    }
    let words = ["--allow".to_owned(), format!("read:{}", upstream.display())];
    let text = format!("UPSTREAM='{}'\n{}", upstream.display(), include_str!("git.sh"));
    let (dir, mut outcome) = script(ground, job, &[], &text, &words)?;
    let project = dir.join("project");
    let say = |words: &[&str]| sh::output(ground.outside("git", &project).args(words)).unwrap_or_default();
    let log = say(&["log", "--format=%s", "main"]);
    for subject in ["Start", "Add product", "Merge branch 'topic'", "Rebased"] {
        outcome.check(log.lines().any(|line| line == subject), format!("the log has no {subject:?}: {log:?}"));
    }
    outcome.check(say(&["tag"]).trim() == "v1", "there is no tag");
    outcome.check(say(&["status", "--porcelain"]).is_empty(), "the tree is not clean");
    let whole = sh::succeeds(ground.outside("git", &project).args(["fsck", "--strict"]));
    outcome.check(whole, "the repository is not whole");
    let pushed =
        sh::output(ground.outside("git", &dir.join("own.git")).args(["rev-parse", "main"])).unwrap_or_default();
    outcome.check(!pushed.is_empty() && pushed == say(&["rev-parse", "main"]), "the push did not arrive");
    Ok(outcome)
}

/// Compiles a library and a program, runs it, cleans and does it again in parallel.
pub(super) fn make(ground: &Ground, job: &Job) -> Result<Outcome> {
    let files = [("sum.c", SUM_C), ("sum.h", SUM_H), ("main.c", MAIN_C), ("Makefile", MAKEFILE)];
    let text = "set -eu\nmake\nmake test\nmake clean\nmake -j4\nmake test\ngcc -shared -fPIC -o libsum.so sum.c\n";
    let (dir, mut outcome) = script(ground, job, &files, text, &[])?;
    let printed = sh::output(&mut ground.outside(&dir.join("sum").to_string_lossy(), &dir)).unwrap_or_default();
    outcome.check(printed.trim() == "42", format!("the program prints {printed:?}"));
    outcome.check(fs::read(dir.join("libsum.so")).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF")), "no library");
    Ok(outcome)
}

/// A virtual environment, pytest installed into it from a folder, a test run that has one failure and then none.
pub(super) fn python(ground: &Ground, job: &Job) -> Result<Outcome> {
    let files = [
        ("shop/__init__.py", "def total(prices):\n    return sum(prices) + 1\n"),
        (
            "tests/test_shop.py",
            "from shop import total\n\ndef test_total(tmp_path):\n    (tmp_path / 'x').write_text('1')\n    assert total([1, 2]) == 3\n\ndef test_empty():\n    assert total([]) == 0\n",
        ),
        ("pytest.ini", "[pytest]\npythonpath = .\n"),
    ];
    let wheels = ground.home().join("wheels");
    let words = ["--allow".to_owned(), format!("read:{}", wheels.display())];
    let text = format!("WHEELS='{}'\n{}", wheels.display(), include_str!("python.sh"));
    let (dir, mut outcome) = script(ground, job, &files, &text, &words)?;
    let report = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    outcome.check(report("before.xml").contains("failures=\"2\""), "the first run did not find both mistakes");
    let after = report("after.xml");
    outcome.check(after.contains("failures=\"0\"") && after.contains("tests=\"2\""), "the second run is not clean");
    outcome.check(dir.join("shop/__pycache__").is_dir(), "no compiled module was kept");
    Ok(outcome)
}

/// npm install from a local folder with an install script, a run script, node's own tests with a server on loopback.
pub(super) fn npm(ground: &Ground, job: &Job) -> Result<Outcome> {
    let files = [
        (
            "lib/package.json",
            "{\"name\":\"adder\",\"version\":\"1.0.0\",\"main\":\"index.js\",\"bin\":{\"adder\":\"cli.js\"}}\n",
        ),
        ("lib/index.js", "exports.sum = (a, b) => a + b;\n"),
        ("lib/cli.js", "#!/usr/bin/env node\nconsole.log(require('./index').sum(20, 22));\n"),
        (
            "app/package.json",
            "{\"name\":\"app\",\"version\":\"1.0.0\",\"private\":true,\"scripts\":{\"test\":\"node --test\",\"answer\":\"adder > answer\",\"postinstall\":\"node -e \\\"require('fs').writeFileSync('installed', '')\\\"\"}}\n",
        ),
        ("app/test/sum.test.js", include_str!("sum.test.js")),
    ];
    let (dir, mut outcome) = script(ground, job, &files, include_str!("npm.sh"), &[])?;
    let read = |name: &str| fs::read_to_string(dir.join("app").join(name)).unwrap_or_default();
    outcome
        .check(read("package-lock.json").contains("\"node_modules/adder\""), "the lock file does not name the library");
    outcome.check(read("node_modules/adder/index.js").contains("exports.sum"), "the library is not installed");
    outcome.check(dir.join("app/installed").exists(), "the install script did not run");
    outcome.check(read("answer").trim() == "42", "the program of the library does not run");
    outcome.check(read("tests").contains("pass 2"), "the tests did not pass");
    Ok(outcome)
}

/// A workspace with a build script, a procedural macro by path, and tests, built through rustup's own `cargo`.
pub(super) fn cargo(ground: &Ground, job: &Job) -> Result<Outcome> {
    let files = [
        ("Cargo.toml", "[workspace]\nmembers = [\"app\", \"mac\"]\nresolver = \"3\"\n"),
        (
            "mac/Cargo.toml",
            "[package]\nname = \"mac\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[lib]\nproc-macro = true\n",
        ),
        (
            "mac/src/lib.rs",
            "#[proc_macro]\npub fn answer(_: proc_macro::TokenStream) -> proc_macro::TokenStream {\n    \"42\".parse().unwrap()\n}\n",
        ),
        (
            "app/Cargo.toml",
            "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[dependencies]\nmac = { path = \"../mac\" }\n",
        ),
        (
            "app/build.rs",
            "fn main() {\n    let out = std::env::var(\"OUT_DIR\").unwrap();\n    std::fs::write(format!(\"{out}/two.rs\"), \"2\").unwrap();\n}\n",
        ),
        ("app/src/lib.rs", include_str!("app.rs")),
        ("app/src/main.rs", "fn main() {\n    println!(\"{}\", app::sum(20, 22));\n}\n"),
    ];
    let (dir, mut outcome) = script(ground, job, &files, include_str!("cargo.sh"), &[])?;
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    outcome.check(read("answer").trim() == "42", "the program was not built or does not run");
    let passed = read("tests").matches("test result: ok. 1 passed").count();
    outcome.check(passed >= 1, format!("{passed} test runs passed: {}", read("tests")));
    outcome.check(dir.join("target/debug/app").is_file(), "there is no program");
    outcome.check(dir.join("Cargo.lock").is_file(), "there is no lock file");
    Ok(outcome)
}
