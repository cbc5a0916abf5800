//! Who lives and dies with whom: program, init, shim, daemon; many at once.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use agentd::launch::{LaunchRequest, Pace, Place, Shim, ShimEvent, Spare, launch, read_exit_record};
use agentd_model::ExitStatus;
use agentd_protocol::attach::Frame;

use crate::lab::{Client, Lab, SHIM, code, kill, wait_for};

#[test]
fn signals_reach_the_programs_group() {
    // The shell waits for its child; both are in the group.
    let lab = Lab::sh("trap 'echo trapped; exit 5' TERM; echo ready; sleep 1000 & wait; wait");
    let mut running = lab.start();
    running.client.hear_until("ready");
    running.shim.signal(15).unwrap();
    let outcome = running.finish();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (code(5), "ready\ntrapped\n"));

    // By a frame, and the child does not hear of it from its parent.
    let lab = Lab::python(
        "import os, signal\nsignal.signal(2, signal.SIG_DFL)\npid = os.fork()\nif pid == 0:\n    print('ready', flush=True)\n    signal.pause()\n\
         signal.signal(2, lambda *a: None)\nos.write(1, b'steady')\nprint('child', os.waitpid(pid, 0)[1])",
    );
    let mut running = lab.start();
    running.client.hear_until("ready");
    running.client.hear_until("steady");
    running.client.say(&Frame::Signal(2));
    let outcome = running.finish();
    assert!(outcome.stdout.ends_with("child 2\n"), "{outcome:?}");
    assert_eq!(outcome.status, code(0));
}

#[test]
fn orphans_are_reaped_and_nothing_outlives_the_program() {
    let lab = Lab::sh(
        "for i in 1 2 3 4 5; do (sh -c 'exit 0' &) ; done; sleep 0.3; \
         ps -e -o stat= 2>/dev/null | grep -c Z; (setsid sleep 1000 >/dev/null 2>&1 &); trap '' TERM; exit 7",
    );
    let running = lab.start();
    let outcome = running.finish();
    assert_eq!(outcome.status, code(7));
    assert_eq!(outcome.stdout, "0\n", "no zombies: {outcome:?}");
    assert!(lab.cgroup_is_empty());
}

#[test]
fn the_agent_cannot_harm_its_init() {
    let outcome = Lab::sh(
        "kill -KILL 1; kill -TERM 1; kill -STOP 1; (exec 3</proc/1/mem) 2>/dev/null || echo no mem; \
         cat /proc/1/environ 2>/dev/null || echo no environ; sleep 0.1; echo alive; exit 4",
    )
    .run();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (code(4), "no mem\nno environ\nalive\n"));
    let outcome = Lab::python(
        "import ctypes,os\nlibc=ctypes.CDLL(None,use_errno=True)\nr=libc.ptrace(16,1,0,0)\nprint(r,os.strerror(ctypes.get_errno()))",
    )
    .run();
    assert_eq!(outcome.stdout, "-1 Operation not permitted\n", "{outcome:?}");
}

#[test]
fn a_killed_shim_takes_the_agent_with_it() {
    let lab = Lab::sh("echo ready; sleep 1000");
    let mut running = lab.start();
    running.client.hear_until("ready");
    assert!(!lab.cgroup_is_empty());
    kill(running.shim_pid, libc::SIGKILL);
    wait_for("all of the agent is dead", || lab.cgroup_is_empty());
    wait_for("init is dead", || running.init_is_dead());
    let mut watch = running.shim.watch().unwrap();
    assert!(watch.all(|event| matches!(event, Ok(ShimEvent::Started))), "and nothing but the end is told");
    running.shim.reap().unwrap();
    assert_eq!(read_exit_record(&lab.place.state_dir).unwrap(), None);
}

#[test]
fn a_killed_init_is_told_from_an_exit() {
    let lab = Lab::sh("echo ready; sleep 1000");
    let mut running = lab.start();
    running.client.hear_until("ready");
    kill(running.init_pid, libc::SIGKILL);
    let outcome = running.finish();
    assert_eq!(outcome.status, ExitStatus::Signal { signal: 9 });
    assert!(!outcome.record.witnessed);
    assert!(lab.cgroup_is_empty());
}

#[test]
fn a_dropped_gate_leaves_nothing() {
    let lab = Lab::sh("echo ran > ran");
    let gate = lab.launch();
    let shim = gate.shim_pid();
    assert!(!lab.cgroup_is_empty());
    drop(gate);
    assert!(lab.cgroup_is_empty(), "dead when the drop returns");
    assert!(!Path::new(&format!("/proc/{shim}")).exists());
    assert!(!lab.work().join("ran").exists());
}

/// Not a test of its own: what a daemon does, in a process that can be killed. Does nothing unless asked.
#[test]
fn as_another_daemon() {
    let Some(request) = std::env::var_os("AGENTD_TEST_REQUEST") else { return };
    let (place, request): (Place, LaunchRequest) = serde_json::from_slice(&fs::read(request).unwrap()).unwrap();
    let gate = launch(Path::new(SHIM), &place, &request).unwrap();
    let _shim = match std::env::var("AGENTD_TEST_OPEN").is_ok() {
        true => Some(gate.open().unwrap()),
        false => {
            std::mem::forget(gate);
            None
        }
    };
    fs::write(place.state_dir.join("reached"), "").unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

/// Starts another daemon, waits until it has launched, and kills it.
fn launch_and_die(lab: &Lab, open: bool) {
    let file = lab.root.join("request.json");
    fs::write(&file, serde_json::to_vec(&(&lab.place, &lab.request)).unwrap()).unwrap();
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "life::as_another_daemon"]).env("AGENTD_TEST_REQUEST", file);
    command.stdout(std::process::Stdio::null());
    if open {
        command.env("AGENTD_TEST_OPEN", "1");
    }
    let mut daemon = command.spawn().unwrap();
    wait_for("the other daemon has launched", || lab.place.state_dir.join("reached").exists());
    assert!(!lab.cgroup_is_empty());
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn a_daemon_that_dies_at_the_gate_leaves_nothing() {
    let lab = Lab::sh("echo ran > ran");
    launch_and_die(&lab, false);
    wait_for("nothing is left", || lab.cgroup_is_empty());
    wait_for("its socket is gone", || !lab.place.runtime_dir.join("shim.sock").exists());
    assert!(!lab.work().join("ran").exists());
}

#[test]
fn an_agent_outlives_its_daemon_and_is_found_again() {
    let mut lab = Lab::sh("echo before; cat; exit 9");
    lab.request.stdin = true;
    launch_and_die(&lab, true);
    assert!(!lab.cgroup_is_empty());
    let mode = fs::metadata(lab.place.runtime_dir.join("shim.sock")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut shim = Shim::connect(&lab.place.runtime_dir).unwrap();
    shim.ask_status().unwrap();
    let mut watch = shim.watch().unwrap();
    let Some(Ok(ShimEvent::Status(status))) = watch.next() else { panic!("no status") };
    assert_eq!((status.agent, status.exit), (lab.place.agent, None));
    let mut client = Client::new(shim.attach(Pace::ClientDrops).unwrap());
    client.type_in("hello");
    client.say(&Frame::StdinEof);
    assert_eq!(client.hear_all(), code(9));
    assert_eq!(client.stdout, b"hello");
    let Some(Ok(ShimEvent::Exited(record))) = watch.next() else { panic!("no exit") };
    assert_eq!(record.status, code(9));
    shim.taken().unwrap();
    assert_eq!(watch.by_ref().last().unwrap().unwrap(), ShimEvent::Gone);
    assert!(Shim::connect(&lab.place.runtime_dir).is_err());
    assert_eq!(read_exit_record(&lab.place.state_dir).unwrap(), Some(record));
    assert_eq!(fs::read_to_string(lab.place.state_dir.join("output.log")).unwrap(), "before\nhello");
}

#[test]
fn an_exit_that_no_daemon_saw_is_on_disk() {
    let lab = Lab::sh("while ! test -e go; do sleep 0.05; done; exit 11");
    launch_and_die(&lab, true);
    fs::write(lab.work().join("go"), "").unwrap();
    wait_for("the shim has gone", || !lab.place.runtime_dir.join("shim.sock").exists());
    let record = read_exit_record(&lab.place.state_dir).unwrap().unwrap();
    assert_eq!((record.status, record.witnessed), (code(11), true));
}

#[test]
fn a_spare_shim_serves_and_an_unused_one_ends() {
    let lab = Lab::sh("exit 6");
    let spare = Spare::start(Path::new(SHIM), &lab.place).unwrap();
    wait_for("its init waits", || !lab.cgroup_is_empty());
    drop(spare);
    wait_for("nothing is left", || lab.cgroup_is_empty());
    let spare = Spare::start(Path::new(SHIM), &lab.place).unwrap();
    let mut gate = spare.launch(&lab.request, |_| ()).unwrap().wait().unwrap();
    let mut client = Client::new(gate.attach(Pace::AgentWaits).unwrap());
    let (shim, _) = gate.open().unwrap();
    assert_eq!(client.hear_all(), code(6));
    shim.taken().unwrap();
}

#[test]
fn a_hundred_at_once() {
    let labs: Vec<Lab> = (0..100).map(|n| Lab::sh(&format!("echo {n}; exit {n}"))).collect();
    std::thread::scope(|scope| {
        for (number, lab) in labs.iter().enumerate() {
            scope.spawn(move || {
                let outcome = lab.run();
                assert_eq!((outcome.status, outcome.stdout), (code(number as u8), format!("{number}\n")));
            });
        }
    });
}

#[test]
fn a_fork_bomb_ends_with_its_program() {
    let lab = Lab::python(
        "import os, time\nfor _ in range(6):\n    os.fork()\nif os.getpid() != 2:\n    time.sleep(1000)\ntime.sleep(0.2)\nos._exit(8)",
    );
    let outcome = lab.run();
    assert_eq!(outcome.status, code(8), "{outcome:?}");
    assert!(lab.cgroup_is_empty());
}
