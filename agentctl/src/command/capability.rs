//! `agentctl capability`

use agentd_model::{Duration, DurationError, Rights, RightsError};
use agentd_protocol::{CapabilityView, GrantParams, Method};
use clap::{Args, Subcommand};

use crate::cli::Context;
use crate::clock;
use crate::failure::Failure;
use crate::table::Table;
use crate::terminal;
use crate::text::clean;
use crate::ui::Tone;

/// Lend rights to an agent while it runs, and take them back
///
/// A capability is a right on a file, or on a directory and everything below it, that an agent has for a time. The kernel
/// ends it by its own clock, whether agentd runs or not. Taken back, it is refused with the next call, also on what is open.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  agentctl capability grant optimizer --path src/parser/mod.rs --ops read,write --duration 1h\n  \
                  agentctl capability list\n  agentctl capability revoke 3"
)]
pub(crate) struct CapabilityArgs {
    #[command(subcommand)]
    command: CapabilityCommand,
}

#[derive(Subcommand)]
enum CapabilityCommand {
    Grant(Grant),
    List(List),
    Inspect(Inspect),
    Revoke(Revoke),
}

/// Lend rights
///
/// On objects that exist: the right stays on the file, whatever its name becomes. A directory lends what will be below it.
/// What a rule denies on the very same place stays denied.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  agentctl capability grant optimizer --path src --ops read,write,create --duration 1h\n  \
                  agentctl capability grant 7 --path /srv/data --path /srv/more --ops read"
)]
struct Grant {
    /// Name or number
    agent: String,
    /// File or directory, absolute or from the agent's working directory
    #[arg(long = "path", value_name = "PATH", required = true)]
    paths: Vec<String>,
    /// Rights: read, write, exec, create, delete, change, all
    #[arg(long, value_name = "RIGHTS", value_parser = ops)]
    ops: String,
    /// How long, as 90s, 10m, 1h; without it until the agent ends
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<String>,
}

/// Show what is lent
///
/// To one agent or to all, with what has ended as long as its agent is remembered.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl capability list\n  agentctl capability list --json optimizer")]
struct List {
    /// Name or number; without one, every agent
    agent: Option<String>,
}

/// Show one capability: the signed statement, and what it was compiled to
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl capability inspect 3")]
struct Inspect {
    /// Its number
    capability: u32,
}

/// Take back what was lent
///
/// Returns when the kernel refuses. A mapping that the agent has made before stays; pause or kill the agent if that matters.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  agentctl capability revoke 3\n  agentctl capability revoke 3 4 --reason 'review is over'"
)]
struct Revoke {
    /// Their numbers
    #[arg(value_name = "CAPABILITY", required = true)]
    capabilities: Vec<u32>,
    /// Why, for the journal
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

fn ops(text: &str) -> Result<String, RightsError> {
    text.parse::<Rights>().map(|_| text.to_owned())
}

fn duration(text: &str) -> Result<String, DurationError> {
    text.parse::<Duration>().map(|_| text.to_owned())
}

impl CapabilityArgs {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        match self.command {
            CapabilityCommand::Grant(Grant { agent, paths, ops, duration }) => {
                let method = Method::CapabilityGrant(GrantParams { agent, paths, ops, duration });
                let view: CapabilityView = context.ask(&mut client, &method, "lending")?;
                if context.ui.is_json() {
                    context.ui.object(&view)?;
                } else {
                    context.ui.line(format!("capability {}", view.capability))?;
                    context.ui.note(format!("{} until {}", lent(&view), until(&view)));
                }
            }
            CapabilityCommand::List(List { agent }) => {
                let views: Vec<CapabilityView> =
                    context.ask(&mut client, &Method::CapabilityList { agent }, "asking")?;
                if context.ui.is_json() {
                    views.iter().try_for_each(|view| context.ui.object(view))?;
                } else if views.is_empty() {
                    context.ui.note("nothing is lent");
                } else {
                    context.ui.answer(&table(&views).print(terminal::columns()))?;
                }
            }
            CapabilityCommand::Inspect(Inspect { capability }) => {
                let view: CapabilityView =
                    context.ask(&mut client, &Method::CapabilityShow { capability }, "asking")?;
                if context.ui.is_json() {
                    context.ui.object(&view)?;
                } else {
                    context.ui.answer(&page(&view))?;
                }
            }
            CapabilityCommand::Revoke(Revoke { capabilities, reason }) => {
                let mut failure = None;
                for capability in capabilities {
                    let method = Method::CapabilityRevoke { capability, reason: reason.clone() };
                    // One that is over already is no reason to leave the others.
                    let view: CapabilityView = match context.ask(&mut client, &method, "taking back") {
                        Ok(view) => view,
                        Err(error) => {
                            failure.get_or_insert(error);
                            continue;
                        }
                    };
                    if context.ui.is_json() {
                        context.ui.object(&view)?;
                    } else {
                        context.ui.note(format!("{}: {} is refused from now on", clean(&view.name), lent(&view)));
                    }
                }
                if let Some(failure) = failure {
                    return Err(failure.into());
                }
            }
        }
        Ok(0)
    }
}

fn lent(view: &CapabilityView) -> String {
    let each = view.loans.iter().map(|loan| format!("{} on {}", loan.rights, clean(&loan.path)));
    each.collect::<Vec<_>>().join("; ")
}

fn until(view: &CapabilityView) -> String {
    view.until_wall_ns.map_or_else(|| "it ends".to_owned(), clock::local_ns)
}

fn tone(view: &CapabilityView) -> Tone {
    match view.state.as_str() {
        "in force" => Tone::Good,
        "unknown" => Tone::Bad,
        _ => Tone::Dim,
    }
}

fn table(views: &[CapabilityView]) -> Table {
    let mut table = Table::new(&["NUMBER", "AGENT", "STATE", "UNTIL", "LENDS"]);
    for view in views {
        table.row([
            (view.capability.to_string(), Tone::Plain),
            (clean(&view.name).into_owned(), Tone::Heading),
            (view.state.clone(), tone(view)),
            (until(view), Tone::Plain),
            (lent(view), Tone::Plain),
        ]);
    }
    table
}

fn page(view: &CapabilityView) -> String {
    let mut out = format!("{}\n", Tone::Heading.paint(format!("capability {}", view.capability)));
    let mut fact = |name: &str, value: String| out += &format!("  {}{value}\n", Tone::Dim.paint(format!("{name:<11}")));
    fact("agent", format!("{} (agent {})", clean(&view.name), view.agent));
    fact("state", tone(view).paint(&view.state));
    fact("until", until(view));
    fact("granted", format!("{} by {} (record {})", clock::local(view.at), view.by, view.granted));
    if let Some(record) = view.revoked {
        fact("taken back", format!("record {record}"));
    }
    match &view.token {
        Some(token) => {
            fact("signed with", token.key.clone());
            fact("says", format!("host {} lends agent {}", clean(&token.issuer), clean(&token.holder)));
            for (path, rights) in &token.rights {
                fact("", format!("{rights} on {}", clean(path)));
            }
        }
        None => fact("signed with", Tone::Bad.paint("no key of this host")),
    }
    for loan in &view.loans {
        let (major, minor) = (loan.dev >> 20, loan.dev & 0xf_ffff);
        let what = if loan.directory { "directory and below" } else { "file" };
        fact("kernel", format!("{} on device {major}:{minor} inode {} ({what})", loan.rights, loan.ino));
    }
    out
}
