//! What somebody may try: each a word with arguments, answered by `ok` or the kernel's error.
//!
//! `vm-tests attempt` reads a JSON list of words a line and answers each with a line
//! `{"name":"open","outcome":"ok","detail":"…"}`; the outcome is `ok`, the name of an errno, or `signal N`.
//! Every attempt runs in a process of its own, so that one which succeeds where it should not (a chroot, a new
//! namespace) leaves nothing behind for the next. Words that begin with `hold` are the exception: they keep a descriptor or a
//! mapping under a name, for attempts that are made of several steps.

mod exec;
mod files;
mod held;
mod kernel;
mod net;
mod process;

use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, alarm, pipe};
use serde_json::{Value, json};

use crate::{sys, ui};

pub(crate) use self::held::Held;
pub(crate) use self::process::burn;

/// What came of an attempt: something to say about it, or the kernel's error.
type Done = Result<String, Errno>;

/// An attempt that takes longer than so many seconds hangs.
const LIMIT_SECONDS: u32 = 20;

/// Tries one thing and prints what came of it.
pub(crate) fn once(words: &[&str]) -> ExitCode {
    let outcome = perform(words, &mut Held::default());
    ui::line(&answer(words, &outcome_text(&outcome), outcome.as_deref().unwrap_or_default()));
    ExitCode::from(u8::from(outcome.is_err()))
}

/// Tries what it is told, until there is nobody to tell it.
pub(crate) fn serve() -> ExitCode {
    // So that a scenario can see whom a signal to everybody reaches, and this process can tell it.
    let mut spared = SigSet::empty();
    spared.add(Signal::SIGUSR2);
    let _ = spared.thread_block();
    let mut held = Held::default();
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let words: Vec<String> = serde_json::from_str(&line).unwrap_or_else(|_| vec!["nonsense".into()]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (outcome, detail) = if words.first().is_some_and(|word| word.starts_with("hold")) {
            let done = perform(&words, &mut held);
            (outcome_text(&done), done.unwrap_or_default())
        } else {
            apart(&words, &mut held)
        };
        ui::line(&answer(&words, &outcome, &detail));
    }
    ExitCode::SUCCESS
}

fn answer(words: &[&str], outcome: &str, detail: &str) -> String {
    json!({ "name": words.join(" "), "outcome": outcome, "detail": detail }).to_string()
}

fn outcome_text(done: &Done) -> String {
    match done {
        Ok(_) => "ok".into(),
        Err(errno) => format!("{errno:?}"),
    }
}

/// Tries it in a child.
fn apart(words: &[&str], held: &mut Held) -> (String, String) {
    let said = pipe().and_then(|(read, write)| Ok((read, write, sys::fork()?)));
    let (read, write, fork) = match said {
        Ok(said) => said,
        Err(errno) => return (format!("{errno:?}"), "no child to try it in".into()),
    };
    match fork {
        ForkResult::Child => {
            drop(read);
            alarm::set(LIMIT_SECONDS);
            let done = perform(words, held);
            let text = json!([outcome_text(&done), done.unwrap_or_default()]).to_string();
            let _ = File::from(write).write_all(text.as_bytes());
            std::process::exit(0)
        }
        ForkResult::Parent { child } => {
            drop(write);
            let mut text = String::new();
            let _ = File::from(read).read_to_string(&mut text);
            let status = waitpid(child, None);
            match (serde_json::from_str::<[String; 2]>(&text), status) {
                (Ok([outcome, detail]), _) => (outcome, detail),
                (_, Ok(WaitStatus::Signaled(_, signal, _))) => (format!("signal {}", signal as i32), String::new()),
                (_, status) => (format!("ended: {status:?}"), text),
            }
        }
    }
}

fn perform(words: &[&str], held: &mut Held) -> Done {
    let [name, rest @ ..] = words else { return Err(Errno::EINVAL) };
    files::perform(name, rest)
        .or_else(|| exec::perform(name, rest))
        .or_else(|| kernel::perform(name, rest))
        .or_else(|| process::perform(name, rest))
        .or_else(|| net::perform(name, rest))
        .or_else(|| held::perform(name, rest, held))
        .unwrap_or_else(|| {
            ui::complain(&format!("vm-tests knows no attempt {words:?}"));
            Err(Errno::ENOTSUP)
        })
}

fn text(word: &str) -> CString {
    CString::new(word).unwrap_or_default()
}

fn number(word: &str) -> i64 {
    match word.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).unwrap_or(-1),
        None => word.parse().unwrap_or(-1),
    }
}

fn io_errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Done, with nothing to say.
fn silent<T>(done: Result<T, Errno>) -> Done {
    done.map(|_| String::new())
}

/// Reads an answer: outcome and detail.
pub(crate) fn parse_answer(line: &str) -> Option<(String, String)> {
    let value: Value = serde_json::from_str(line).ok()?;
    Some((value["outcome"].as_str()?.into(), value["detail"].as_str()?.into()))
}
