//! A foreground session against a shim that a test plays: bytes, signals, the terminal, and every end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use agentd_model::ExitStatus;
use agentd_protocol::attach::{Decoder, Frame};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::{Value, json};
use support::{Answer, Fake, agent, eventually, record};

/// The agent's end of a session.
struct Shim {
    stream: UnixStream,
    decoder: Decoder,
}

impl Shim {
    fn say(&mut self, frames: &[Frame]) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next frame from the client; none: it hung up.
    fn hear(&mut self) -> Option<Frame> {
        self.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes).unwrap() {
                0 => return None,
                read => self.decoder.push(&bytes[..read]),
            }
        }
    }
}

/// A daemon whose spawn and attach give the other end of a shim, and whose journal says what it is told.
fn daemon(journal: Vec<Value>) -> (Fake, Shim) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let theirs = Mutex::new(Some(OwnedFd::from(theirs)));
    let fake = Fake::new(move |method, _| match method {
        "agent.spawn" => {
            Answer::File(json!({"agent": 7, "name": "optimizer", "gaps": []}), theirs.lock().unwrap().take().unwrap())
        }
        "agent.attach" => Answer::File(Value::Null, theirs.lock().unwrap().take().unwrap()),
        "agent.show" => Answer::Result(agent(json!({"detail": {
            "terminal": {"pty": {"rows": 24, "columns": 80}}, "budget": {"cpu": null, "memory": null, "pids": null}, "paths": [], "nets": []}}))),
        "audit.follow" => Answer::Series(json!([]), journal.clone()),
        other => panic!("{other} is not asked in a session"),
    });
    (fake, Shim { stream: ours, decoder: Decoder::new() })
}

fn exit(code: u8) -> Frame {
    Frame::Exit(ExitStatus::Code { code })
}

fn spawn(fake: &Fake, words: &[&str]) -> Child {
    let mut command = fake.command(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(fake: &Fake, child: Child) -> String {
    fake.show(&child.wait_with_output().unwrap())
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

#[test]
fn pipes_are_kept_apart_and_the_status_is_the_agents() {
    let (fake, mut shim) = daemon(vec![]);
    let mut child = spawn(&fake, &["spawn", "--name", "optimizer", "--budget", "cpu:1h", "--", "cat", "-n"]);
    child.stdin.take().unwrap().write_all(b"hello").unwrap();
    assert_eq!(shim.hear(), Some(Frame::Stdin(b"hello".to_vec())));
    assert_eq!(shim.hear(), Some(Frame::StdinEof));
    let long = vec![b'x'; 300_000];
    shim.say(&[
        Frame::Stderr(b"oh\n".to_vec()),
        Frame::Stdout(long.clone()),
        Frame::Notice("\u{1b}[2Jwatch out".into()),
        exit(42),
    ]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, long, "all that was said before the end is printed");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "oh\nagentctl: \\u{1b}[2Jwatch out\n");
    assert_eq!(output.status.code(), Some(42));
    let asked = &fake.asked("agent.spawn")[0];
    assert_eq!((&asked["argv"], &asked["terminal"]), (&json!(["cat", "-n"]), &json!("pipes")));
    assert_eq!((&asked["attach"], &asked["cwd"]), (&json!(true), &json!(fake.dir)));
    assert!(asked["env"].as_array().unwrap().contains(&json!(["TZ", "UTC"])));
}

#[test]
fn what_is_asked_for_reaches_the_daemon_as_typed() {
    let (fake, mut shim) = daemon(vec![]);
    std::fs::write(fake.dir.join("p.toml"), "name = \"p\"\n").unwrap();
    let words = [
        "spawn",
        "-p",
        "./p.toml",
        "--allow",
        "read,exec:data",
        "--deny",
        "change:**/Cargo.lock",
        "--net",
        "loopback:80",
        "-e",
        "A=b=c",
        "-u",
        "zoe",
        "--degraded",
        "files,denial-events",
        "make",
        "--jobs",
        "4",
        "--name",
    ];
    shim.say(&[exit(0)]);
    assert_eq!(end(&fake, spawn(&fake, &words)), "── stderr\n── exit 0");
    let mut asked = fake.asked("agent.spawn").remove(0);
    asked["env"] = json!("…");
    asked["cwd"] = json!("…");
    insta::assert_snapshot!("spawn-params", serde_json::to_string_pretty(&asked).unwrap());
}

#[test]
fn signals_are_passed_on_to_an_agent_with_pipes() {
    let (fake, mut shim) = daemon(vec![]);
    let mut child = spawn(&fake, &["spawn", "--", "sleep", "9"]);
    let stdin = child.stdin.take();
    shim.say(&[Frame::Stdout(b"up".to_vec())]);
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 2]).unwrap();
    for (signal, number) in [(Signal::INT, 2), (Signal::TERM, 15), (Signal::HUP, 1), (Signal::QUIT, 3)] {
        kill_process(pid(&child), signal).unwrap();
        assert_eq!(shim.hear(), Some(Frame::Signal(number)));
    }
    shim.say(&[Frame::Exit(ExitStatus::Signal { signal: 15 })]);
    assert_eq!(end(&fake, child), "── stderr\n── exit 143");
    drop(stdin);
}

#[test]
fn three_interrupts_leave_an_agent_that_does_not_listen() {
    let (fake, mut shim) = daemon(vec![]);
    let mut child = spawn(&fake, &["spawn", "--", "sleep", "9"]);
    let stdin = child.stdin.take();
    shim.say(&[Frame::Stdout(b"up".to_vec())]);
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 2]).unwrap();
    for _ in 0..3 {
        kill_process(pid(&child), Signal::INT).unwrap();
        assert_eq!(shim.hear(), Some(Frame::Signal(2)));
    }
    let said = end(&fake, child);
    assert!(said.contains("optimizer has not ended; once more leaves it running; agentctl kill optimizer"), "{said}");
    assert!(said.ends_with("── exit 130"), "{said}");
    drop(stdin);
}

#[test]
fn a_reader_that_goes_away_is_told_to_the_agent() {
    let (fake, mut shim) = daemon(vec![]);
    let mut child = spawn(&fake, &["spawn", "--", "yes"]);
    let stdin = child.stdin.take();
    drop(child.stdout.take());
    shim.say(&[Frame::Stdout(b"y\n".to_vec())]);
    assert_eq!(shim.hear(), Some(Frame::Signal(13)));
    shim.say(&[Frame::Stdout(b"y\n".to_vec()), Frame::Exit(ExitStatus::Signal { signal: 13 })]);
    assert_eq!(end(&fake, child), "── stderr\n── exit 0");
    drop(stdin);
}

#[test]
fn a_spent_budget_is_told_while_the_agent_stands_still() {
    let exhausted = json!({"event": "budget_exhausted", "agent": 7, "spent": 50_000_000, "limit": 50_000_000});
    let (fake, mut shim) = daemon(vec![record(9, Some("optimizer"), exhausted)]);
    let mut child = spawn(&fake, &["spawn", "--", "spin"]);
    let stdin = child.stdin.take();
    let mut said = [0; 100];
    let read = child.stderr.as_mut().unwrap().read(&mut said).unwrap();
    let told =
        "agentctl: optimizer has used its CPU budget of 50ms and is frozen; agentctl budget topup optimizer cpu:50ms\n";
    let mut said = String::from_utf8_lossy(&said[..read]).into_owned();
    shim.say(&[exit(0)]);
    let output = child.wait_with_output().unwrap();
    said += &String::from_utf8_lossy(&output.stderr);
    assert_eq!((said.as_str(), output.status.code()), (told, Some(0)));
    drop(stdin);
}

#[test]
fn the_end_of_the_daemon_is_not_the_end_of_a_session() {
    let (fake, mut shim) = daemon(vec![]);
    let mut child = spawn(&fake, &["spawn", "--", "work"]);
    let stdin = child.stdin.take();
    eventually("the second connection", || !fake.asked("audit.follow").is_empty());
    std::fs::remove_file(fake.socket()).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    shim.say(&[Frame::Stdout(b"done\n".to_vec()), exit(0)]);
    assert_eq!(end(&fake, child), "done\n── stderr\n── exit 0");
    drop(stdin);
}

#[test]
fn a_stream_that_breaks_off_is_asked_after() {
    let (fake, shim) = daemon(vec![]);
    let ended = Fake::new(|_, _| Answer::Result(agent(json!({"phase": "lost", "reason": "its shim was killed"}))));
    drop(fake);
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop((shim, ended));
    let theirs = Mutex::new(Some(OwnedFd::from(theirs)));
    let fake = Fake::new(move |method, _| match method {
        "agent.spawn" => {
            Answer::File(json!({"agent": 7, "name": "optimizer", "gaps": []}), theirs.lock().unwrap().take().unwrap())
        }
        _ => Answer::Result(agent(json!({"phase": "lost", "reason": "its shim was killed"}))),
    });
    let child = spawn(&fake, &["spawn", "--", "work"]);
    eventually("the spawn", || !fake.asked("agent.spawn").is_empty());
    drop(ours);
    insta::assert_snapshot!("lost", end(&fake, child));
}

#[test]
fn a_shim_that_speaks_nonsense_ends_the_session() {
    let (fake, mut shim) = daemon(vec![]);
    shim.stream.write_all(&[99; 64]).unwrap();
    insta::assert_snapshot!("nonsense", end(&fake, spawn(&fake, &["spawn", "--", "work"])));
}

/// A terminal with agentctl in it, and the person's end of it.
struct Person {
    keyboard: File,
    screen: File,
    line: OwnedFd,
}

impl Person {
    fn sit_down(fake: &Fake, words: &[&str]) -> (Person, Child) {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap().into_string().unwrap();
        let line: OwnedFd = File::options().read(true).write(true).open(name).unwrap().into();
        tcsetwinsize(&line, Winsize { ws_row: 33, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let end = || Stdio::from(line.try_clone().unwrap());
        let child = fake.command(words).stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let keyboard = File::from(keyboard);
        (Person { screen: keyboard.try_clone().unwrap(), keyboard, line }, child)
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(self.line.as_fd()).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    /// Everything on the screen; the client must have ended.
    fn look(mut self) -> String {
        drop(self.line);
        let mut seen = Vec::new();
        // A terminal without a program reads as an error in the end.
        let _ = self.screen.read_to_end(&mut seen);
        String::from_utf8_lossy(&seen).into_owned()
    }
}

#[test]
fn a_terminal_gets_a_terminal_and_is_given_back() {
    let (fake, mut shim) = daemon(vec![]);
    let (mut person, mut child) = Person::sit_down(&fake, &["spawn", "--", "sh"]);
    assert_eq!(shim.hear(), Some(Frame::Resize { rows: 33, columns: 99 }));
    assert_eq!(fake.asked("agent.spawn")[0]["terminal"], json!({"pty": {"rows": 33, "columns": 99}}));
    assert!(person.is_raw());
    person.keyboard.write_all(b"ls\x03").unwrap();
    assert_eq!(shim.hear(), Some(Frame::Stdin(b"ls\x03".to_vec())));
    tcsetwinsize(&person.line, Winsize { ws_row: 10, ws_col: 20, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    kill_process(pid(&child), Signal::WINCH).unwrap();
    assert_eq!(shim.hear(), Some(Frame::Resize { rows: 10, columns: 20 }));
    shim.say(&[Frame::Stdout(b"\x1b[1mhi\x1b[0m\r\n".to_vec()), exit(3)]);
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert!(!person.is_raw());
    assert!(person.look().contains("\x1b[1mhi\x1b[0m"));
}

#[test]
fn keys_and_signals_leave_the_agent_running_and_the_terminal_whole() {
    for (leave, status) in [(None, 0), (Some(Signal::TERM), 143), (Some(Signal::HUP), 129)] {
        let (fake, mut shim) = daemon(vec![]);
        let (mut person, mut child) = Person::sit_down(&fake, &["attach", "optimizer"]);
        assert!(matches!(shim.hear(), Some(Frame::Resize { .. })));
        match leave {
            None => person.keyboard.write_all(b"q\x1dd").unwrap(),
            Some(signal) => kill_process(pid(&child), signal).unwrap(),
        }
        if leave.is_none() {
            assert_eq!(shim.hear(), Some(Frame::Stdin(b"q".to_vec())));
        }
        assert_eq!(shim.hear(), None, "the client hangs up and sends nothing more");
        let ended = child.wait().unwrap();
        assert_eq!((ended.code(), ended.signal()), (Some(status), None));
        assert!(!person.is_raw());
        let screen = person.look();
        assert!(screen.contains("optimizer runs on; agentctl attach optimizer"), "{screen}");
    }
}
