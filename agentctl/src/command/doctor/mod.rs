//! `agentctl doctor`
//!
//! Nothing here is inferred from a setting. The daemon says which mechanism it uses for each domain; a canary then runs as
//! an agent and tries what must be refused, and, as its twin, what must work; the same canary runs once outside, so that
//! a refusal inside is known to be ours.

mod trial;

use agentd_protocol::{DaemonView, Method, TierView};
use clap::Args;
use serde::Serialize;

use crate::cli::Context;
use crate::failure::{Exit, Failure};
use crate::table::Table;
use crate::terminal;
use crate::text::clean;
use crate::ui::Tone;

use trial::{Finding, Trial};

/// Prove what this host enforces
///
/// Shows for each domain what enforces it, and proves it with agents that try a forbidden open, exec, connect and
/// namespace (and an allowed one of each), use up a CPU budget, and go beyond a limit on processes and on memory. Exits
/// with 1 if any promise is not kept.
#[derive(Args)]
#[command(after_help = "Examples:\n  agentctl doctor\n  agentctl doctor --json | jq 'select(.verdict != \"kept\")'")]
pub(crate) struct Doctor {}

/// What was found out about a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// Tried, and it held.
    Kept,
    /// Tried, and it did not hold, or it could not be tried.
    Broken,
    /// Nothing is promised here, and `spawn` says so to whoever asks for it.
    NotPromised,
    /// Promised, but on this host the attempt would fail without us too.
    NotShown,
}

impl Verdict {
    fn word(self) -> (&'static str, Tone) {
        match self {
            Verdict::Kept => ("kept", Tone::Good),
            Verdict::Broken => ("BROKEN", Tone::Bad),
            Verdict::NotPromised => ("not promised", Tone::Warn),
            Verdict::NotShown => ("not shown", Tone::Warn),
        }
    }
}

/// One domain.
#[derive(Serialize)]
struct Row<'a> {
    domain: &'a str,
    tier: &'a str,
    verdict: Verdict,
    proof: String,
    reason: Option<&'a str>,
    better: Option<&'static str>,
}

impl Doctor {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut client = context.client()?;
        let daemon: DaemonView = client.call(&Method::DaemonInfo {})?;
        let findings = {
            let _waiting = context.ui.waiting("agents try what they may not");
            Trial::set_up()?.run(context, &daemon)
        };
        let rows: Vec<Row<'_>> = daemon.tiers.iter().map(|tier| row(tier, &findings)).collect();
        let broken = rows.iter().filter(|row| row.verdict == Verdict::Broken).count();
        if context.ui.is_json() {
            rows.iter().try_for_each(|row| context.ui.object(row))?;
        } else {
            context.ui.answer(&page(&daemon, &rows))?;
        }
        Ok(if broken == 0 { 0 } else { Exit::Failed.code() })
    }
}

fn row<'a>(view: &'a TierView, findings: &[Finding]) -> Row<'a> {
    let finding = findings.iter().find(|finding| finding.domain == view.domain);
    let (verdict, proof) = match finding {
        _ if view.tier == "nothing" => (Verdict::NotPromised, "agents that ask for it are refused".to_owned()),
        Some(finding) => (finding.verdict, finding.proof.clone()),
        None => (Verdict::Broken, "this agentctl does not know how to try it".to_owned()),
    };
    let better = better(&view.domain, &view.tier);
    Row { domain: &view.domain, tier: &view.tier, verdict, proof, reason: view.reason.as_deref(), better }
}

/// What to change on the host for a better tier.
fn better(domain: &str, tier: &str) -> Option<&'static str> {
    match (domain, tier) {
        (_, "lsm" | "cgroup-bpf" | "tracepoint" | "controller") => None,
        ("files" | "guard", _) => Some(
            "boot with bpf at the end of the lsm= list (cat /sys/kernel/security/lsm shows it), on a kernel with \
             CONFIG_BPF_LSM and CONFIG_DEBUG_INFO_BTF",
        ),
        ("network", _) => Some("run agentd as root with CAP_BPF and CAP_NET_ADMIN, with cgroup v2 at /sys/fs/cgroup"),
        ("cpu", _) => Some("run agentd as root with CAP_BPF and CAP_PERFMON, on a kernel with CONFIG_DEBUG_INFO_BTF"),
        ("mem", _) => Some("delegate the memory controller to agentd's cgroup: Delegate=yes in its unit"),
        ("pids", _) => Some("delegate the pids controller to agentd's cgroup: Delegate=yes in its unit"),
        _ => None,
    }
}

fn page(daemon: &DaemonView, rows: &[Row<'_>]) -> String {
    let mut table = Table::new(&["DOMAIN", "TIER", "PROMISE", "PROOF"]);
    for row in rows {
        let (word, tone) = row.verdict.word();
        table.row([
            (clean(row.domain).into_owned(), Tone::Heading),
            (clean(row.tier).into_owned(), Tone::Plain),
            (word.to_owned(), tone),
            (clean(&row.proof).into_owned(), Tone::Plain),
        ]);
    }
    let head = format!("agentd {} on {}\n\n", clean(&daemon.version), clean(&daemon.kernel));
    let mut out = format!("{head}{}", table.print(None));
    for row in rows.iter().filter(|row| row.reason.is_some() || row.better.is_some()) {
        out += &format!("\n{}", Tone::Heading.paint(format!("{} by {}", clean(row.domain), clean(row.tier))));
        if let Some(reason) = row.reason {
            out += &format!(": {}", clean(reason));
        }
        out.push('\n');
        if let Some(better) = row.better {
            out += &wrapped(&format!("to get better: {better}"));
        }
    }
    out
}

/// A paragraph, two characters in, as wide as the terminal.
fn wrapped(text: &str) -> String {
    let width = terminal::columns().unwrap_or(100).clamp(40, 120) - 2;
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last().map_or(0, |line| line.chars().count());
        match lines.last_mut() {
            Some(last) if line == 0 => last.push_str(word),
            Some(last) if line + 1 + word.chars().count() <= width => *last += &format!(" {word}"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines.iter().map(|line| format!("  {line}\n")).collect()
}
