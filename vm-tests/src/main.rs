//! Does the product hold what it promises, on a real kernel?
//!
//! One program that runs inside a test machine, as root, where agentd is installed and answers. It has four faces:
//!
//! ```text
//! vm-tests list --json          which scenarios are there, and on which kernels do they make sense
//! vm-tests run NAME             one of them; 0 if all held, 1 with the list of what did not
//! vm-tests attempt CASE ARGS…   one thing that somebody may try; without arguments: a line of words each, until the end
//! vm-tests power FILE [--last]  one machine's part of a power cut, see `scenario/worlds/power.rs`
//! ```
//!
//! A scenario starts agents with `agentctl spawn -- vm-tests attempt` and tells them over their pipes what to try. The same
//! program, started beside every agent as the same user, tries the same thing first: there it must succeed, or the
//! refusal inside would prove nothing. Each refusal also has a twin that must succeed inside.
//!
//! Not here: how machines are made and started (`cargo xtask test`), and what is cheaper to show without one.

mod attempt;
mod clock;
mod harness;
mod scenario;
mod sys;
mod ui;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["list"] => scenario::list(false),
        ["list", "--json"] => scenario::list(true),
        ["run", name] => scenario::run(name),
        ["power", told] => scenario::power(told, false),
        ["power", told, "--last"] => scenario::power(told, true),
        ["attempt"] => attempt::serve(),
        ["attempt", words @ ..] => attempt::once(words),
        ["burn", words @ ..] => attempt::burn(words),
        _ => {
            ui::complain("usage: vm-tests list [--json] | run NAME | power FILE [--last] | attempt [CASE ARGS…]");
            ExitCode::from(2)
        }
    }
}
