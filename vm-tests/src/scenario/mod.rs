//! The scenarios, in the order of their worth.

mod bad_input;
mod budget;
mod daemon_death;
mod files_basic;
mod floods;
mod lifecycle;
mod network;
mod real_work;
mod rights;
mod ways_round_files;
mod ways_round_kernel;
mod ways_round_more;
mod worlds;

use std::process::ExitCode;

use anyhow::Result;

use crate::clock;
use crate::harness::Test;
use crate::ui;

/// A scenario: its name, what it shows, how.
struct Scenario {
    name: &'static str,
    about: &'static str,
    run: fn(&mut Test) -> Result<()>,
}

const KERNELS: [&str; 3] = ["6.1", "6.12", "7.2"];

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "files_basic",
        about: "each right on files allowed and denied, rules inside rules, names that do not exist yet",
        run: files_basic::run,
    },
    Scenario {
        name: "ways_round_files",
        about: "every known way round the rules on files is closed",
        run: ways_round_files::run,
    },
    Scenario {
        name: "ways_round_kernel",
        about: "mounts, namespaces, strangers and the kernel's own doors are closed",
        run: ways_round_kernel::run,
    },
    Scenario {
        name: "ways_round_more",
        about: "packets, subvolumes, spellings, links that move, and the daemon's doors are no way round either",
        run: ways_round_more::run,
    },
    Scenario {
        name: "rights",
        about: "lent while an agent runs, ended by the kernel's clock, taken back from what is open",
        run: rights::run,
    },
    Scenario { name: "network", about: "addresses, ports and families of sockets", run: network::run },
    Scenario { name: "budget", about: "warned, frozen, topped up, and killed where nobody freezes", run: budget::run },
    Scenario {
        name: "lifecycle",
        about: "statuses, streams, terminals, detached and attached, names, views",
        run: lifecycle::run,
    },
    Scenario {
        name: "daemon_death",
        about: "daemon, shim and client are killed; the journal is damaged; the disk is full",
        run: daemon_death::run,
    },
    Scenario { name: "floods", about: "a million refusals, a fork bomb, two hundred agents", run: floods::run },
    Scenario {
        name: "bad_input",
        about: "what cannot be is named, with its exit code, and changes nothing",
        run: bad_input::run,
    },
    Scenario {
        name: "real_work",
        about: "git, compilers and Python under the profile coding, and what they must not touch",
        run: real_work::run,
    },
    Scenario {
        name: "worlds",
        about: "worlds: rules, refusals, copies that verify, and a daemon that is killed in the middle of writes",
        run: worlds::run,
    },
];

/// Prints the scenarios.
pub(crate) fn list(json: bool) -> ExitCode {
    for scenario in SCENARIOS {
        ui::line(&if json {
            let kernels = KERNELS.to_vec();
            serde_json::json!({ "name": scenario.name, "kernels": kernels, "about": scenario.about }).to_string()
        } else {
            format!("{:<20} {}", scenario.name, scenario.about)
        });
    }
    ExitCode::SUCCESS
}

/// Runs one scenario.
pub(crate) fn run(name: &str) -> ExitCode {
    let Some(scenario) = SCENARIOS.iter().find(|scenario| scenario.name == name) else {
        ui::complain(&format!("there is no scenario {name}; see vm-tests list"));
        return ExitCode::from(2);
    };
    judge(name, scenario.run)
}

/// One machine's part of a power cut.
pub(crate) fn power(told: &str, last: bool) -> ExitCode {
    judge("power_cuts", |test| worlds::power::round(test, told, last))
}

fn judge(name: &str, run: impl FnOnce(&mut Test) -> Result<()>) -> ExitCode {
    let begin = clock::now();
    let mut test = Test::default();
    if let Err(error) = run(&mut test) {
        test.fail(format!("{error:#}"));
    }
    let (checks, failures) = test.result();
    let seconds = (clock::now() - begin).as_secs_f64();
    if failures.is_empty() {
        ui::line(&format!("{name}: {checks} claims hold ({seconds:.1} s)"));
        return ExitCode::SUCCESS;
    }
    ui::line(&format!("{name}: {} of {checks} claims do not hold ({seconds:.1} s):", failures.len()));
    for failure in &failures {
        ui::line(&format!("  {failure}"));
    }
    ExitCode::FAILURE
}
