//! Input and output: pipes, ptys, the log, clients that are slow or late.

use std::fs;
use std::time::Duration;

use agentd::launch::Pace;
use agentd_model::ExitStatus;
use agentd_protocol::attach::Frame;

use crate::lab::{Client, Lab, UID, code, wait_for};

#[test]
fn streams_stay_apart_and_input_comes_through() {
    let mut lab = Lab::sh("echo out; echo err >&2; cat; echo end > /dev/stderr");
    lab.request.stdin = true;
    let mut running = lab.start();
    running.client.type_in("typed ");
    running.client.type_in("in");
    running.client.say(&Frame::StdinEof);
    let outcome = running.finish();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (code(0), "out\ntyped in"));
    assert_eq!(outcome.stderr, "err\nend\n", "and /dev/stderr can be opened again");
}

#[test]
fn without_input_there_is_dev_null() {
    let outcome = Lab::sh("readlink /proc/self/fd/0; cat").run();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (code(0), "/dev/null\n"));
}

#[test]
fn a_pty_is_a_terminal_of_its_own() {
    let lab = Lab::sh(
        "test -t 0 && test -t 1 && test -t 2 && echo terminal; stty size; tty; ls /dev/pts; \
         stat -c %u $(tty); trap 'stty size; echo resized' WINCH; echo ready; until read line; do :; done; echo got $line; \
         echo through > /dev/tty; python3 -c 'import os; print(os.openpty()[1] > 0)'; sleep 60",
    )
    .pty(30, 97);
    let mut running = lab.start();
    running.client.hear_until("ready");
    let text = String::from_utf8_lossy(&running.client.stdout).into_owned();
    assert!(text.starts_with("terminal\r\n30 97\r\n/dev/pts/0\r\n"), "{text}");
    assert!(text.contains(&format!("\r\n{UID}\r\n")), "{text}");
    running.client.say(&Frame::Resize { rows: 50, columns: 60 });
    running.client.hear_until("50 60\r\nresized");
    running.client.type_in("some input\r");
    running.client.hear_until("got some input");
    running.client.hear_until("through");
    running.client.hear_until("True");
    // Ctrl-C is a byte; the terminal makes a signal of it.
    running.client.type_in("\x03");
    let outcome = running.finish();
    assert_eq!(outcome.status, ExitStatus::Signal { signal: 2 }, "{outcome:?}");
}

#[test]
fn no_output_is_lost_at_the_end_of_a_pty() {
    for round in 0..20 {
        let outcome = Lab::sh("seq 1 2000").pty(24, 80).run();
        assert!(outcome.stdout.ends_with("1999\r\n2000\r\n"), "round {round}: {:?}", outcome.stdout.len());
    }
}

#[test]
fn end_of_input_ends_a_reader_on_a_pty() {
    let lab = Lab::new(&["cat"]).pty(24, 80);
    let mut running = lab.start();
    running.client.type_in("line\r");
    running.client.hear_until("line\r\nline\r\n");
    running.client.say(&Frame::StdinEof);
    assert_eq!(running.finish().status, code(0));
}

#[test]
fn the_log_holds_both_outputs() {
    let lab = Lab::sh("echo one; echo two >&2; sleep 0.05; echo three");
    let outcome = lab.run();
    assert_eq!(outcome.record.log_lost_bytes, 0);
    let log = fs::read_to_string(lab.place.state_dir.join("output.log")).unwrap();
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["one", "three", "two"]);
}

#[test]
fn a_foreground_client_gets_every_byte_however_slow_it_is() {
    let lab = Lab::sh("head -c 6000000 /dev/zero; echo done >&2");
    let mut running = lab.start();
    std::thread::sleep(Duration::from_millis(300));
    // The agent waits meanwhile: nobody has read.
    assert!(!running.init_is_dead());
    let status = running.client.hear_all();
    assert_eq!((status, running.client.stdout.len()), (code(0), 6_000_000));
}

#[test]
fn a_late_client_that_does_not_read_is_dropped_and_the_agent_goes_on() {
    let lab = Lab::sh("read line; head -c 6000000 /dev/zero; echo end");
    let mut lab = lab;
    lab.request.stdin = true;
    let (shim, _) = lab.launch().open().unwrap();
    let mut slow = Client::new(shim.attach(Pace::ClientDrops).unwrap());
    slow.type_in("go\n");
    let log = lab.place.state_dir.join("output.log");
    wait_for("all output is logged", || fs::metadata(&log).is_ok_and(|log| log.len() == 6_000_004));
    while slow.hear() {}
    assert_eq!(slow.notices, ["detached: output came faster than it was read"]);
    assert_eq!(slow.exit, None);
    shim.taken().unwrap();
}
