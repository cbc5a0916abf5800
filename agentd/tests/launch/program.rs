//! What the agent's program is: its status, what it inherits, whose rights it has, where it runs.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;

use agentd::launch::{Start, read_exit_record};
use agentd_model::ExitStatus;

use crate::lab::{GID, Lab, UID, code};

#[test]
fn the_exit_status_is_the_programs_own() {
    for (script, status) in [
        ("exit 0", code(0)),
        ("exit 3", code(3)),
        ("kill -TERM $$", ExitStatus::Signal { signal: 15 }),
        ("kill -KILL $$", ExitStatus::Signal { signal: 9 }),
        // A real-time signal, which not every library knows.
        ("kill -40 $$", ExitStatus::Signal { signal: 40 }),
    ] {
        let lab = Lab::sh(script);
        let outcome = lab.run();
        assert_eq!(outcome.status, status, "{script}");
        assert_eq!(outcome.start, Start::Running);
        assert!(outcome.record.witnessed);
        assert!(outcome.record.cpu_ns.is_some_and(|ns| ns > 0), "{:?}", outcome.record);
        assert_eq!(read_exit_record(&lab.place.state_dir).unwrap(), Some(outcome.record));
    }
}

#[test]
fn what_cannot_be_run_is_said_and_has_envs_status() {
    let lab = Lab::new(&["no-such-program"]);
    let outcome = lab.run();
    assert_eq!(outcome.status, code(127));
    assert_eq!(outcome.start, Start::NotRunning { errno: libc::ENOENT, program: "no-such-program".into() });
    assert_eq!(outcome.notices, ["cannot run \"no-such-program\": No such file or directory (os error 2)"]);

    let lab = Lab::new(&["/etc/passwd"]);
    let outcome = lab.run();
    assert_eq!((outcome.status, outcome.start), {
        (code(126), Start::NotRunning { errno: libc::EACCES, program: "/etc/passwd".into() })
    });

    // A script without #! is run by the shell, as execvp(3) has it.
    let lab = Lab::new(&["./script", "a b"]);
    fs::write(lab.work().join("script"), "echo \"<$1>\"").unwrap();
    fs::set_permissions(lab.work().join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(lab.run().stdout, "<a b>\n");
}

#[test]
fn the_program_finds_nothing_of_the_daemon() {
    let lab = Lab::sh("ls -l /proc/self/fd | awk '{print $9}' | sort | tr '\\n' ' '; echo; env | sort; umask");
    // Descriptors of this process, without close-on-exec, must not get through.
    let leak = fs::File::open("/etc/hostname").unwrap();
    set_inheritable(&leak);
    let outcome = lab.run();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    // 3 is the directory that ls itself reads.
    assert_eq!(lines[0].trim(), "0 1 2 3");
    let work = lab.work();
    let expected = ["GREETING=hello there", "PATH=/usr/bin:/bin", &format!("PWD={}", work.display())];
    let environment: Vec<&str> = lines[1..].iter().copied().filter(|l| !l.starts_with("_=")).collect();
    assert_eq!(&environment[..3], expected);
    assert_eq!(environment.last(), Some(&"0022"));
}

#[allow(unsafe_code, reason = "to leak a descriptor on purpose")]
fn set_inheritable(file: &fs::File) {
    // SAFETY: no memory is passed.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) };
}

fn status_of(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(key, value)| (key.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

#[test]
fn the_program_has_no_rights_but_its_users() {
    let script = "cat /proc/self/status; echo Limits:; cat /proc/self/limits; \
                  echo \"oom: $(cat /proc/self/oom_score_adj)\"";
    let outcome = Lab::sh(script).run();
    let status = status_of(&outcome.stdout);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!(status["NoNewPrivs"], "1");
    assert_eq!(status["Uid"], format!("{UID} {UID} {UID} {UID}"));
    assert_eq!(status["Gid"], format!("{GID} {GID} {GID} {GID}"));
    assert_eq!(status["Groups"], "111 222");
    assert_eq!(status["oom"], "100");
    assert_eq!(status["SigBlk"], "0000000000000000");
    assert_eq!(status["SigIgn"], "0000000000000000");
    let limit = |name: &str| {
        let line = outcome.stdout.lines().find(|line| line.starts_with(name)).unwrap();
        line[26..].split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    for name in ["Max core file size", "Max nice priority", "Max realtime priority"] {
        assert_eq!(limit(name), "0 0", "{name}");
    }
    let own = fs::read_to_string("/proc/self/limits").unwrap();
    let own = own.lines().find(|line| line.starts_with("Max open files")).unwrap()[26..].to_owned();
    assert_eq!(limit("Max open files"), own.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
}

#[test]
fn root_is_refused() {
    let mut lab = Lab::sh("true");
    lab.request.spec.uid = 0;
    assert!(lab.refused().contains("cannot run an agent as root"));
    assert!(lab.cgroup_is_empty());
}

#[test]
fn namespaces_are_its_own_and_proc_shows_only_itself() {
    let outcome = Lab::sh("readlink /proc/self/ns/pid /proc/self/ns/mnt /proc/self/ns/ipc /proc/self/ns/net; \
                           ls /proc | grep -c '^[0-9]'; echo $$; cat /proc/1/comm; ls /proc/1/fd; cat /proc/self/cgroup")
    .run();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    for (line, name) in lines.iter().zip(["pid", "mnt", "ipc"]) {
        let ours = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(*line, ours.to_str().unwrap(), "{name}");
    }
    assert_eq!(lines[3], fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap());
    let processes: u32 = lines[4].parse().unwrap();
    assert!(processes <= 4, "init, sh, ls, grep; not {processes}");
    assert_eq!(lines[5], "2");
    assert_eq!(lines[6], "agentd-init");
    assert!(outcome.stderr.contains("Permission denied"), "init's descriptors are out of reach: {}", outcome.stderr);
}

#[test]
fn the_cgroup_is_the_one_given() {
    let lab = Lab::sh("cat /proc/self/cgroup");
    let name = lab.place.cgroup.file_name().unwrap().to_str().unwrap().to_owned();
    let outcome = lab.run();
    assert!(outcome.stdout.lines().any(|line| line.starts_with("0::") && line.ends_with(&name)), "{}", outcome.stdout);
}
