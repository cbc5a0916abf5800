//! The program `agentd`: the daemon, and, as `agentd shim`, the small process that stays with each agent.

use std::process::ExitCode;

use agentd::{places::Places, run, shim, worlds};

const HELP: &str = "\
The daemon that agents are spawned, confined, counted and explained by

Usage: agentd [OPTIONS]
       agentd replay FILE [--verify] [--state HASH]

`replay` verifies a world's bundle and runs every input again; it needs no daemon and no rights.

Options:
      --state DIR     Journal, logs and exit records [default: /var/lib/agentd]
      --runtime DIR   Socket and locks [default: /run/agentd]
      --bpffs DIR     Pins of the kernel programs [default: /sys/fs/bpf/agentd]
      --profiles DIR  Profiles of this host [default: /etc/agentd/profiles]
      --cgroup NAME   Cgroup that all agents are in, below the root of the tree [default: agentd]
      --probe         Print what this host can enforce, one line of JSON a domain, and exit
      --unload        Take the kernel programs out and exit; refused while agents run
  -h, --help          Print help
  -V, --version       Print version

The log goes to standard error; AGENTD_LOG=debug shows more.

Examples:
  systemctl start agentd
  agentd &
";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.peek().is_some_and(|first| first == "shim") {
        return shim::main();
    }
    if arguments.peek().is_some_and(|first| first == "replay") {
        return worlds::offline::main(arguments.skip(1));
    }
    let (mut places, mut action) = (Places::default(), run::run as fn(&Places) -> ExitCode);
    while let Some(argument) = arguments.next() {
        let place = match argument.to_str() {
            Some("--state") => &mut places.state,
            Some("--runtime") => &mut places.runtime,
            Some("--bpffs") => &mut places.bpffs,
            Some("--profiles") => &mut places.profiles,
            Some("--cgroup") => match arguments.next().and_then(|name| name.into_string().ok()) {
                Some(name) if !name.is_empty() && !name.contains('/') => {
                    places.cgroup = name;
                    continue;
                }
                _ => return usage("--cgroup needs a name without a slash"),
            },
            Some("--probe") => {
                action = run::probe;
                continue;
            }
            Some("--unload") => {
                action = run::unload;
                continue;
            }
            Some("-h" | "--help") => {
                run::say(HELP);
                return ExitCode::SUCCESS;
            }
            Some("-V" | "--version") => {
                run::say(concat!("agentd ", env!("CARGO_PKG_VERSION"), "\n"));
                return ExitCode::SUCCESS;
            }
            _ => return usage(&format!("{} is not an option", argument.to_string_lossy())),
        };
        match arguments.next() {
            Some(value) => *place = value.into(),
            None => return usage(&format!("{} needs a directory", argument.to_string_lossy())),
        }
    }
    action(&places)
}

fn usage(what: &str) -> ExitCode {
    run::complain("error", what);
    run::complain("hint ", "agentd --help");
    ExitCode::from(2)
}
