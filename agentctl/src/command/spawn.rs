//! `agentctl spawn`

use std::path::{Path, PathBuf};

use agentd_model::{Budget, Gap, NetRule, Origin, Rights};
use agentd_protocol::{Method, ProfileChoice, SpawnParams, SpawnReply, TerminalChoice};
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use crate::cli::Context;
use crate::failure::{Exit, Failure};
use crate::session::{self, Setup};
use crate::terminal;
use crate::text::clean;

use super::attach;

/// env(1)'s status for "it never came to run the command".
const NOT_STARTED: u8 = 125;

/// Start an agent
///
/// Runs a command as an agent: in its own cgroup and namespaces, under the rules of a profile and within a budget, all
/// enforced by the kernel from its first instruction on. The working directory is its workspace.
///
/// Stays in front of it: on a terminal the agent gets a terminal of the same size, otherwise three pipes, and SIGINT,
/// SIGTERM, SIGHUP and SIGQUIT are passed on. Ctrl-] d leaves it running. A spent budget freezes it, and says how to go on.
#[derive(Args)]
#[command(after_help = "\
Exit status:
  The agent's own; 128 + the signal that ended it; as in env(1), 125 if it could not be started,
  126 if the command cannot be executed, 127 if there is no such command. Before there is an
  agent, 2 is wrong usage, 3 a refusal by policy, 4 no agentd.

Examples:
  agentctl spawn -- make test
  agentctl spawn --name optimizer --budget cpu:1h,mem:4G,pids:512 -- claude
  agentctl spawn --allow read:/srv/data --deny read:.env --net loopback:8080 -- ./agent.sh
  agentctl spawn --detach --name night -- codex exec 'fix the tests'
  agentctl spawn --profile ./strict.toml --require lsm -- sh")]
pub(crate) struct Spawn {
    /// Command to run
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    argv: Vec<String>,

    /// Name to call it by; without one, its number
    #[arg(short, long, value_name = "NAME", value_parser = name)]
    name: Option<String>,
    /// Return at once and print its name
    #[arg(short, long)]
    detach: bool,
    /// Working directory, which is its workspace
    #[arg(short = 'C', long, value_name = "DIR", help_heading = "What it is")]
    cwd: Option<PathBuf>,
    /// Set a variable in its environment
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = variable, help_heading = "What it is")]
    env: Vec<(String, String)>,
    /// User to run as; root must name one or gets a dedicated one, others run as themselves
    #[arg(short, long, value_name = "USER", help_heading = "What it is")]
    user: Option<String>,

    /// Profile by name, or a file (with a slash in it)
    #[arg(short, long, value_name = "NAME|FILE", default_value = "coding", help_heading = "What it may do")]
    profile: String,
    /// Allow rights on a path and below: read, write, exec, create, delete, change, all
    #[arg(long, value_name = "RIGHTS:PATH", value_parser = path_rule, help_heading = "What it may do")]
    allow: Vec<String>,
    /// Deny rights on a path and below; the nearest rule wins, a denial wins on the same path
    #[arg(long, value_name = "RIGHTS:PATH", value_parser = path_rule, help_heading = "What it may do")]
    deny: Vec<String>,
    /// Allow an address: [connect:|bind:][tcp:|udp:]ADDRESS[/PREFIX][:PORT[-PORT]], loopback, any
    #[arg(long, value_name = "RULE", value_parser = net_rule, help_heading = "What it may do")]
    net: Vec<String>,
    /// Budget: cpu:1h,mem:4G,pids:512
    #[arg(short, long, value_name = "BUDGET", value_parser = budget, help_heading = "What it may do")]
    budget: Option<String>,

    /// Refuse to start under anything weaker
    #[arg(long, value_name = "TIER", help_heading = "Where a host cannot keep every promise")]
    require: Option<Required>,
    /// Accept exactly these gaps, separated by commas
    #[arg(
        long,
        value_name = "GAP",
        value_delimiter = ',',
        value_parser = gap,
        help_heading = "Where a host cannot keep every promise",
        conflicts_with = "require"
    )]
    degraded: Vec<Gap>,
}

/// What `--require` takes.
#[derive(Clone, Copy)]
enum Required {
    Lsm,
}

impl ValueEnum for Required {
    fn value_variants<'a>() -> &'a [Required] {
        &[Required::Lsm]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new("lsm").help("eBPF LSM programs, which report and can be changed while it runs"))
    }
}

impl Spawn {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        let detach = self.detach;
        self.start(context).map_err(|failure| match failure.exit {
            // In the foreground 1 would be taken for the agent's own status.
            Exit::Failed if !detach => Failure { exit: Exit::Status(NOT_STARTED), ..failure },
            _ => failure,
        })
    }

    fn start(self, context: &Context) -> Result<u8, Failure> {
        let pty = !self.detach && terminal::is_interactive();
        let method = Method::AgentSpawn(Box::new(self.params(pty)?));
        let mut client = context.client()?;
        if self.detach {
            let reply: SpawnReply = context.ask(&mut client, &method, "starting the agent")?;
            if context.ui.is_json() {
                context.ui.object(&reply)?;
            } else {
                tell_gaps(context, &reply);
                context.ui.line(clean(&reply.name))?;
            }
            return Ok(0);
        }
        let (reply, stream) = {
            let _waiting = context.ui.waiting("starting the agent");
            client.call_for_file::<SpawnReply>(&method)?
        };
        tell_gaps(context, &reply);
        // Nothing more to ask: an idle connection of each session would count against the daemon's limit.
        drop(client);
        let name = clean(&reply.name);
        let setup = Setup { ui: context.ui, name: &name, socket: &context.socket, pty, ours: true };
        let end = session::run(stream, &setup)?;
        attach::status(context, &name, end)
    }

    fn params(&self, pty: bool) -> Result<SpawnParams, Failure> {
        let (rows, columns) = terminal::size();
        // A variable that is no text cannot be passed on; nothing that an agent needs is.
        let env =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Ok(SpawnParams {
            argv: self.argv.clone(),
            name: self.name.clone(),
            cwd: directory(self.cwd.as_deref())?,
            env: env.collect(),
            set_env: self.env.clone(),
            profile: profile(&self.profile)?,
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            net: self.net.clone(),
            budget: self.budget.clone(),
            user: self.user.clone(),
            terminal: if pty { TerminalChoice::Pty { rows, columns } } else { TerminalChoice::Pipes },
            attach: !self.detach,
            require_lsm: matches!(self.require, Some(Required::Lsm)),
            degraded: self.degraded.iter().map(ToString::to_string).collect(),
        })
    }
}

fn tell_gaps(context: &Context, reply: &SpawnReply) {
    for gap in &reply.gaps {
        context.ui.note(format!("agentctl: {} runs without {}", clean(&reply.name), clean(gap)));
    }
}

/// The working directory, absolute and without links, so that the daemon's rules mean the same place.
fn directory(given: Option<&Path>) -> Result<String, Failure> {
    let path = given.unwrap_or(Path::new("."));
    let cannot = |what: String| Failure::new(Exit::Usage, format!("cannot work in {}", path.display())).cause(what);
    let full = path.canonicalize().map_err(|error| cannot(crate::text::os_error(&error)))?;
    if !full.is_dir() {
        return Err(cannot("it is not a directory".into()));
    }
    full.into_os_string().into_string().map_err(|path| cannot(format!("{} is not UTF-8", Path::new(&path).display())))
}

/// A profile by name, or the text of a file.
fn profile(given: &str) -> Result<ProfileChoice, Failure> {
    if !given.contains('/') {
        if given.ends_with(".toml") && Path::new(given).is_file() {
            return Err(Failure::new(Exit::Usage, format!("{given} is a file, not the name of a profile"))
                .hint(format!("agentctl spawn --profile ./{given} …")));
        }
        return Ok(ProfileChoice::Name(given.to_owned()));
    }
    std::fs::read_to_string(given).map(ProfileChoice::Text).map_err(|error| Failure {
        exit: Exit::Usage,
        ..Failure::io(format!("cannot read the profile {given}"), &error)
    })
}

fn name(text: &str) -> Result<String, agentd_model::NameError> {
    text.parse::<agentd_model::AgentName>().map(String::from)
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

fn budget(text: &str) -> Result<String, agentd_model::BudgetError> {
    text.parse::<Budget>().map(|_| text.to_owned())
}

fn path_rule(text: &str) -> Result<String, String> {
    let (rights, path) = text.split_once(':').ok_or("write RIGHTS:PATH, for example read,exec:/opt/tools")?;
    rights.parse::<Rights>().map_err(|error| error.to_string())?;
    if path.is_empty() { Err("there is no path after the colon".to_owned()) } else { Ok(text.to_owned()) }
}

fn net_rule(text: &str) -> Result<String, agentd_model::NetRuleError> {
    NetRule::parse(text, &Origin::BuiltIn).map(|_| text.to_owned())
}

fn gap(text: &str) -> Result<Gap, String> {
    text.parse().map_err(|error: agentd_model::GapError| {
        let all: Vec<String> = Gap::ALL.iter().map(ToString::to_string).collect();
        format!("{error}; gaps are {}", all.join(", "))
    })
}
