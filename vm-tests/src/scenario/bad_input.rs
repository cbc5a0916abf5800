//! What cannot be: a clear error that names it, the exit code of the manual, and nothing changed.

use std::fs;

use anyhow::Result;

use crate::harness::{Test, agentctl, json, program};

pub(super) fn run(test: &mut Test) -> Result<()> {
    fs::create_dir_all("/srv/x")?;
    fs::write("/srv/x/typo.toml", "name = \"x\"\nabout = \"y\"\n\n[[files]]\npath = \"/usr\"\nalow = \"read\"\n")?;
    fs::write("/srv/x/right.toml", "name = \"x\"\nabout = \"y\"\n[[files]]\npath = \"/usr\"\nallow = \"raed\"\n")?;
    fs::write("/srv/x/syntax.toml", "name = \"x\"\nabout = \n")?;
    let before = json(&["audit", "-n", "all"])?.len();
    for (options, status, part) in CASES {
        let user = if options.starts_with("--user") { "" } else { "--user dev " };
        let line = format!("spawn --cwd /srv {user}{options} -- true");
        let words: Vec<&str> = line.split(' ').collect();
        let output = agentctl(&words)?;
        test.check(output.status == *status, || {
            format!("{options}: status {} instead of {status}: {}", output.status, output.stderr.trim())
        });
        test.contains(options, &output.stderr, part);
        test.check(!output.stderr.contains("panicked"), || format!("{options}: {}", output.stderr));
    }
    // The few that come as far as the journal are recorded as failed; the rest left nothing.
    let records = json(&["audit", "-n", "all"])?;
    let begun = records[before.min(records.len())..].iter().filter(|record| record["event"] == "agent_started").count();
    test.same("agents that were started", begun, 0);
    test.check(json(&["ps"])?.is_empty(), || "something runs".into());
    for (words, status, part) in OTHERS {
        let words: Vec<&str> = words.split(' ').collect();
        let output = agentctl(&words)?;
        test.check(output.status == *status, || {
            format!("{words:?}: status {} instead of {status}: {}", output.status, output.stderr.trim())
        });
        test.contains(&format!("{words:?}"), &format!("{}{}", output.stderr, output.stdout), part);
    }
    // No daemon at that socket: said with the command that starts it.
    let output = agentctl(&["--socket", "/run/none.sock", "ps"])?;
    test.same("no daemon", output.status, 4);
    test.contains("no daemon", &output.stderr, "hint:");
    // A reader that has seen enough.
    let output = program(
        std::process::Command::new("bash")
            .args(["-c", "agentctl audit -n all | head -1 >/dev/null; echo ${PIPESTATUS[0]}"]),
    )?;
    test.same("a closed pipe", output.stdout.trim(), "0");
    let output =
        agentctl(&["spawn", "--user", "dev", "--cwd", "/srv", "--require", "lsm", "--profile", "base", "--", "true"])?;
    test.same("--require lsm where there is one", output.status, 0);
    for file in ["typo.toml", "right.toml", "syntax.toml"] {
        fs::remove_file(format!("/srv/x/{file}"))?;
    }
    Ok(())
}

/// Options of spawn, its exit code, and what the error has to say.
const CASES: &[(&str, i32, &str)] = &[
    ("--budget gpu:1", 2, "dimensions are cpu, mem, pids"),
    ("--budget cpu:1parsec", 2, "\"1parsec\" is not an amount of cpu"),
    ("--budget cpu:1h,cpu:2h", 2, "cpu is given twice"),
    ("--budget cpu", 2, "is not a budget"),
    ("--budget mem:4Q", 2, "mem:512M"),
    ("--budget pids:0", 2, "pids:512"),
    ("--allow read:/srv/none", 125, "/srv/none does not exist (--allow read:/srv/none)"),
    ("--allow raed:/srv", 2, "\"raed\" is not a right"),
    ("--allow /srv", 2, "RIGHTS:PATH"),
    ("--allow read:**/x", 2, "**/x"),
    ("--allow read:../x/..", 2, ".."),
    ("--deny read:/srv/*.key", 2, "has a * inside"),
    ("--deny read:**/a/b/c", 2, "names after **/"),
    ("--net 10.0.0.0/33", 2, "/33 is longer"),
    ("--net example.org:80", 2, "is not an address"),
    ("--net 10.0.0.1:99999", 2, "is not a port"),
    ("--user nobody-such", 2, "there is no user nobody-such"),
    ("--user root", 3, "never runs as root"),
    ("--profile nope", 2, "there is no profile \"nope\""),
    ("--profile /srv/none.toml", 2, "/srv/none.toml"),
    ("--profile /srv/x/typo.toml", 2, "line 6, column 1: unknown key \"alow\""),
    ("--profile /srv/x/right.toml", 2, "line 5"),
    ("--profile /srv/x/syntax.toml", 2, "line 2"),
    ("--name UPPER", 2, "is not a name"),
    ("--require landlock", 2, "lsm"),
    ("--degraded nothing-such", 2, "gaps are"),
    ("--env NOVALUE", 2, "NAME=VALUE"),
];

const OTHERS: &[(&str, i32, &str)] = &[
    ("frobnicate", 2, "frobnicate"),
    ("spawn", 2, "COMMAND"),
    ("why 999999", 1, "999999"),
    ("budget topup nobody cpu:1h", 1, "there is no agent nobody"),
    ("budget topup nobody cpu:soon", 2, "is not an amount"),
    ("kill --signal SOON nobody", 2, "SOON"),
    ("logs --json nobody", 2, "no JSON form"),
    ("profile check /srv/x/typo.toml", 1, "typo.toml:6:1"),
    ("profile show nope", 1, "nope"),
];
