//! The command line as a whole: global options, the list of commands, and the way from arguments to an exit code.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::client::{CallError, Client};
use crate::command::*;
use crate::failure::{Exit, Failure};
use crate::ui::{Tone, Ui};

/// Runs agents on Linux under rules and budgets that the kernel enforces
///
/// An agent is a process tree with a name, its own cgroup and namespaces, rules on files and addresses, and a budget.
/// agentd keeps them; agentctl asks it.
#[derive(Parser)]
#[command(
    name = "agentctl",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Exit status:\n  0 done, 1 could not, 2 wrong usage, 3 refused by policy, 4 no agentd, 70 a bug of ours;\n  \
                  spawn, attach and wait end with the agent's own status.\n\n\
                  Examples:\n  agentctl doctor\n  agentctl spawn --budget cpu:1h -- claude\n  agentctl why --last"
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Everywhere")]
struct Global {
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    json: bool,
    /// Socket of agentd
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "AGENTD_SOCKET",
        hide_env_values = true,
        default_value = "/run/agentd/agentd.sock"
    )]
    socket: PathBuf,
    /// No colour, as with NO_COLOR=1
    #[arg(long, global = true)]
    no_color: bool,
    /// No notes and no progress; answers and errors only
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    Spawn(Box<spawn::Spawn>),
    Attach(attach::Attach),
    Logs(logs::Logs),
    Wait(wait::Wait),
    Ps(ps::Ps),
    Inspect(inspect::Inspect),
    Pause(pause::Pause),
    Resume(resume::Resume),
    Kill(kill::Kill),
    Budget(budget::BudgetArgs),
    Capability(capability::CapabilityArgs),
    Why(why::Why),
    Audit(audit::Audit),
    World(world::WorldArgs),
    Doctor(doctor::Doctor),
    Key(key::KeyArgs),
    Profile(profile::ProfileArgs),
    Completions(completions::Completions),
    Man(man::Man),
}

/// The commands in the order in which a person meets them.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Run an agent", &["spawn", "attach", "logs", "wait"]),
    ("See and steer", &["ps", "inspect", "pause", "resume", "kill", "budget", "capability"]),
    ("Ask what happened", &["why", "audit", "world"]),
    ("This host", &["doctor", "key", "profile"]),
    ("Setup", &["completions", "man"]),
];

/// What every command has at hand.
pub(crate) struct Context {
    /// Where to print.
    pub(crate) ui: Ui,
    /// Where the daemon listens.
    pub(crate) socket: PathBuf,
}

impl Context {
    /// Connects to the daemon.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.socket)?)
    }

    /// Asks the daemon one thing, with a line of progress if that takes its time.
    pub(crate) fn ask<R: serde::de::DeserializeOwned>(
        &self,
        client: &mut Client,
        method: &agentd_protocol::Method,
        what: impl Into<String>,
    ) -> Result<R, CallError> {
        let _waiting = self.ui.waiting(what);
        client.call(method)
    }
}

/// What describes the arguments of one command.
type Describe = fn(clap::Command) -> clap::Command;

/// The commands that scripts start again and again.
const ALONE: [(&str, Describe); 14] = [
    ("spawn", spawn::Spawn::augment_args),
    ("attach", attach::Attach::augment_args),
    ("logs", logs::Logs::augment_args),
    ("wait", wait::Wait::augment_args),
    ("ps", ps::Ps::augment_args),
    ("inspect", inspect::Inspect::augment_args),
    ("pause", pause::Pause::augment_args),
    ("resume", resume::Resume::augment_args),
    ("kill", kill::Kill::augment_args),
    ("budget", budget::BudgetArgs::augment_args),
    ("capability", capability::CapabilityArgs::augment_args),
    ("why", why::Why::augment_args),
    ("audit", audit::Audit::augment_args),
    ("world", world::WorldArgs::augment_args),
];

/// A command line that knows one command. To describe all of them takes ten times as long as to read the arguments of one.
fn alone(name: &str) -> Option<clap::Command> {
    let (name, arguments) = ALONE.into_iter().find(|(known, _)| *known == name)?;
    let command = arguments(clap::Command::new(name));
    Some(Global::augment_args(clap::Command::new("agentctl")).subcommand(command))
}

/// The command line as clap reads it and as manuals and completions tell it.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

/// The same with help as a terminal shows it: one kind of help, options a line each, commands in groups.
fn presented() -> clap::Command {
    let command = command();
    let list: String = GROUPS.iter().map(|(heading, names)| listed(&command, heading, names)).collect();
    with_help(command, &list)
}

/// Some subcommands under a heading.
fn listed(command: &clap::Command, heading: &str, names: &[&str]) -> String {
    let mut list = format!("{}\n", Tone::Heading.paint(format!("{heading}:")));
    for name in names {
        let about = command.find_subcommand(name).and_then(|c| c.get_about()).map(ToString::to_string);
        list += &format!("  {}{}\n", Tone::Good.paint(format!("{name:<13}")), about.unwrap_or_default());
    }
    list + "\n"
}

fn with_help(command: clap::Command, list: &str) -> clap::Command {
    let options = Tone::Heading.paint("Options:");
    let arguments = if list.is_empty() { "{all-args}".to_owned() } else { format!("{list}{options}\n{{options}}") };
    let about = command.get_long_about().or(command.get_about()).cloned().unwrap_or_default();
    command
        .mut_subcommands(|subcommand| {
            let names: Vec<&str> = subcommand.get_subcommands().map(clap::Command::get_name).collect();
            let list = if names.is_empty() { String::new() } else { listed(&subcommand, "Commands", &names) };
            with_help(subcommand, &list)
        })
        .about(about)
        .long_about(Resettable::Reset)
        .disable_help_flag(true)
        .arg(
            Arg::new("help").short('h').long("help").action(ArgAction::HelpShort).help("Print this").display_order(999),
        )
        .help_template(format!("{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{arguments}{{after-help}}"))
}

/// Runs what the arguments say.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    // Not a command for people, so neither help nor manuals nor completions know it.
    if arguments.get(1).is_some_and(|word| word == "canary") {
        return finish(Ui::new(true, true, true), canary::run(&arguments[1..]));
    }
    // Asked for by hand because wrong arguments are printed in colour or not as well.
    let no_color = arguments.iter().take_while(|a| *a != "--").any(|a| a == "--no-color");
    let early = Ui::new(no_color, false, false);
    let color = if no_color { ColorChoice::Never } else { ColorChoice::Auto };
    let parse = |command: clap::Command| {
        command.color(color).try_get_matches_from(&arguments).and_then(|matches| Cli::from_arg_matches(&matches))
    };
    // Everything else is described, and help is dressed, only for those who see it.
    let first = arguments.get(1).and_then(|word| alone(word.to_str()?));
    let parsed = first.map_or_else(|| parse(command()), parse).or_else(|_undressed| parse(presented()));
    let (ui, result) = match parsed {
        Ok(cli) => {
            let ui = Ui::new(cli.global.no_color, cli.global.quiet, cli.global.json);
            (ui, cli.command.run(&Context { ui, socket: cli.global.socket }))
        }
        Err(error) => (early, not_parsed(early, &error, &arguments)),
    };
    finish(ui, result)
}

fn finish(ui: Ui, result: Result<u8, Failure>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            ui.failure(&failure);
            ExitCode::from(failure.exit.code())
        }
    }
}

impl Command {
    fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Command::Spawn(args) => args.run(context),
            Command::Attach(args) => args.run(context),
            Command::Logs(args) => args.run(context),
            Command::Wait(args) => args.run(context),
            Command::Ps(args) => args.run(context),
            Command::Inspect(args) => args.run(context),
            Command::Pause(args) => args.run(context),
            Command::Resume(args) => args.run(context),
            Command::Kill(args) => args.run(context),
            Command::Budget(args) => args.run(context),
            Command::Capability(args) => args.run(context),
            Command::Why(args) => args.run(context),
            Command::Audit(args) => args.run(context),
            Command::World(args) => args.run(context),
            Command::Doctor(args) => args.run(context),
            Command::Key(args) => args.run(context),
            Command::Profile(args) => args.run(context),
            Command::Completions(args) => args.run(context),
            Command::Man(args) => args.run(context),
        }
    }
}

/// Help and version are answers; the rest is said in our own shape, not clap's.
fn not_parsed(ui: Ui, error: &clap::Error, arguments: &[OsString]) -> Result<u8, Failure> {
    let text = error.render();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return ui.answer(&text.ansi().to_string()).map(|()| 0),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            ui.pass_err(text.to_string().as_bytes());
            return Ok(Exit::Usage.code());
        }
        _ => {}
    }
    let text = text.to_string();
    let mut paragraphs = text.split("\n\n");
    let words = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let message = words(paragraphs.next().unwrap_or_default());
    let message = message.strip_prefix("error: ").unwrap_or(&message).to_owned();
    // The first tip of several is the nearest.
    let tip = paragraphs.map(words).find_map(|p| p.strip_prefix("tip: ")?.split(" tip: ").next().map(str::to_owned));
    let named = arguments.iter().skip(1).filter_map(|a| a.to_str());
    let subcommand = named.into_iter().find(|a| command().find_subcommand(a).is_some());
    let help = subcommand.map_or("agentctl --help".to_owned(), |name| format!("agentctl {name} --help"));
    let failure = Failure::new(Exit::Usage, message).hint(help);
    Err(match tip {
        Some(tip) => failure.cause(tip),
        None => failure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_finds_nothing_wrong_with_it() {
        presented().debug_assert();
    }

    #[test]
    fn every_command_stands_in_one_group() {
        let mut grouped: Vec<_> = GROUPS.iter().flat_map(|(_, names)| names.iter().map(|n| n.to_string())).collect();
        let mut shown: Vec<_> = command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
        grouped.sort();
        shown.sort();
        assert_eq!(grouped, shown);
    }

    #[test]
    fn a_command_alone_takes_what_it_takes_among_the_others() {
        let shape = |mut command: clap::Command, name: &str| {
            command.build();
            format!("{:?}", command.find_subcommand(name).map(|c| c.get_arguments().collect::<Vec<_>>()))
        };
        for (name, _) in ALONE {
            assert_eq!(shape(alone(name).unwrap(), name), shape(command(), name));
        }
    }

    #[test]
    fn every_command_has_examples() {
        for command in command().get_subcommands().filter(|c| !c.has_subcommands()) {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains("Example"), "{}", command.get_name());
        }
    }
}
