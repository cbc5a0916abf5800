//! One line for each kind of event, as `audit` and `why` tell it.

use agentd_model::{Denial, DenialReason, DeniedObject, Event, Hook, Origin, Rights, Tier, Tiers};
use agentd_protocol::RecordView;

use crate::text::{clean, command_line, count, cpu};
use crate::ui::Tone;
use crate::{clock, signal};

/// Characters that a name usually fits in; longer ones push the rest to the right.
const NAME_WIDTH: usize = 12;

/// A record as one line: number, time, agent, what happened.
pub(crate) fn line(record: &RecordView) -> String {
    let name = record.name.as_deref().unwrap_or(if record.event.agent().is_some() { "?" } else { "agentd" });
    let seq = Tone::Dim.paint(format!("{:>6}", record.seq));
    let time = Tone::Dim.paint(clock::local(record.stamp));
    let name = Tone::Heading.paint(format!("{:<NAME_WIDTH$}", clean(name)));
    format!("{seq}  {time}  {name}  {}", tone(&record.event).paint(sentence(&record.event)))
}

fn tone(event: &Event) -> Tone {
    match event {
        Event::AccessDenied { .. } | Event::DenialsSuppressed { .. } | Event::BudgetKilled { .. } => Tone::Bad,
        Event::AgentFailed { .. } | Event::AgentLost { .. } => Tone::Bad,
        Event::OperatorsTold { .. }
        | Event::BudgetWarned { .. }
        | Event::BudgetExhausted { .. }
        | Event::CapabilityRevoked { .. }
        | Event::AgentPaused { .. } => Tone::Warn,
        Event::AgentStarted { .. }
        | Event::AgentResumed { .. }
        | Event::CapabilityGranted { .. }
        | Event::BudgetToppedUp { .. } => Tone::Good,
        Event::ProgramRun { .. } => Tone::Dim,
        _ => Tone::Plain,
    }
}

/// What happened, without when and to whom.
pub(crate) fn sentence(event: &Event) -> String {
    match event {
        Event::DaemonStarted { version, kernel, tiers: on, .. } => {
            format!("agentd {} came up on {}; {}", clean(version), clean(kernel), tiers(on))
        }
        Event::AgentRequested { spec, by, .. } => {
            let budget =
                if spec.budget == Default::default() { String::new() } else { format!(", budget {}", spec.budget) };
            format!("asked for by {by}: {} (profile {}{budget})", command_line(&spec.argv), clean(&spec.profile))
        }
        Event::AgentStarted { init_pid, kernel_rules, gaps, .. } => {
            let given_up: Vec<String> = gaps.iter().map(ToString::to_string).collect();
            let given_up = if gaps.is_empty() { String::new() } else { format!(", without {}", given_up.join(", ")) };
            format!("started as process {init_pid} under {}{given_up}", count(u64::from(*kernel_rules), "kernel rule"))
        }
        Event::AgentFailed { reason, .. } => format!("did not start: {}", clean(reason)),
        Event::AccessDenied { denial, .. } => denied(denial),
        Event::BudgetWarned { spent, limit, .. } => format!("has used {spent} of its {limit} of CPU time"),
        Event::BudgetExhausted { spent, limit, .. } => format!("budget spent: {spent} of {limit} of CPU time; frozen"),
        Event::BudgetToppedUp { added, limit, by, .. } => {
            format!("{by} gave {added} more CPU time; the limit is {limit}")
        }
        Event::CapabilityGranted { grant, by, .. } => {
            let until = grant.until_wall_ns.map_or_else(|| "it ends".to_owned(), clock::local_ns);
            format!("{by} lent it {} until {until} (capability {})", clean(&grant.rights()), grant.capability)
        }
        Event::CapabilityRevoked { capability, reason, by, .. } => {
            let reason = if reason.is_empty() { String::new() } else { format!(": {}", clean(reason)) };
            format!("{by} took capability {capability} back{reason}")
        }
        Event::BudgetKilled { spent, .. } => {
            format!("killed by the kernel after {spent} of CPU time, beyond its budget")
        }
        Event::AgentPaused { by, .. } => format!("paused by {by}"),
        Event::AgentResumed { by, .. } => format!("resumed by {by}"),
        Event::AgentSignalled { signal: Some(number), by, .. } => format!("{} sent by {by}", signal::name(*number)),
        Event::AgentSignalled { signal: None, by, .. } => format!("everything in it killed by {by}"),
        Event::AgentExited { status, spent, .. } => format!("ended with {status} after {spent} of CPU time"),
        Event::AgentLost { reason, .. } => format!("lost: {}", clean(reason)),
        Event::AgentAdopted { .. } => "found running and adopted".to_owned(),
        Event::ProgramRun { pid, path, .. } => format!("runs {} as process {pid}", clean(path)),
        Event::JournalBegun { world, key } => format!("journal {world} begins; heads are signed with {key}"),
        Event::KeyRotated { key } => format!("from here on heads are signed with {key}"),
        Event::StateSaved { state, .. } => format!("state saved as {state}"),
        Event::OperatorsTold { subject, body, by, .. } => format!("{by} tells: {}: {}", clean(subject), clean(body)),
        Event::DenialsSuppressed { count: n, .. } => {
            format!("{} refused, but not reported one by one", count(*n, "more attempt"))
        }
    }
}

/// What a host enforces with what; domains in one tier stand together.
fn tiers(tiers: &Tiers) -> String {
    let mut groups: Vec<(Tier, Vec<String>)> = Vec::new();
    for (domain, tier, _) in &tiers.rows {
        match groups.iter_mut().find(|(t, _)| t == tier) {
            Some((_, domains)) => domains.push(domain.to_string()),
            None => groups.push((*tier, vec![domain.to_string()])),
        }
    }
    groups.iter().map(|(tier, domains)| format!("{} by {tier}", domains.join(", "))).collect::<Vec<_>>().join("; ")
}

/// A refusal.
pub(crate) fn denied(denial: &Denial) -> String {
    let right = if denial.right == Rights::NONE { String::new() } else { format!(" ({})", denial.right) };
    let what = format!("{}{right}", attempt(denial));
    format!("{}[{}] may not {what}: {}", clean(&denial.comm), denial.pid, because(denial.reason))
}

/// What was tried, from its verb on.
fn attempt(denial: &Denial) -> String {
    let verb = denial.hook.verb();
    match (&denial.object, denial.hook) {
        (DeniedObject::File { path, .. }, _) => format!("{verb} {}", clean(path)),
        (DeniedObject::Address { text }, _) => format!("{verb} {}", clean(text)),
        (DeniedObject::Other { detail }, Hook::Ptrace | Hook::Scheduler) => format!("{verb} process {detail}"),
        (DeniedObject::Other { detail }, Hook::Signal) => {
            let name = u8::try_from(*detail).map_or_else(|_| detail.to_string(), signal::name);
            format!("send {name} to another's process")
        }
        (DeniedObject::Other { detail }, Hook::Socket) => format!("{verb} family {detail}"),
        (DeniedObject::Other { detail: 0 }, hook) if !takes_object(hook) => verb.to_owned(),
        (DeniedObject::Other { detail }, hook) if !takes_object(hook) => format!("{verb} ({detail})"),
        (DeniedObject::Other { .. }, _) => format!("{verb} something without a path"),
    }
}

/// Whether the hook's verb wants an object after it.
fn takes_object(hook: Hook) -> bool {
    use Hook::*;
    !matches!(hook, Fork | Mount | UserNamespace | Bpf | Perf | IoUring | Keys | Module | MprotectExec)
}

fn because(reason: DenialReason) -> String {
    match reason {
        DenialReason::NothingFound => "no rule allows it".to_owned(),
        DenialReason::Rule { rule } => format!("rule {rule} denies it"),
        DenialReason::Exhausted => "the CPU budget is spent".to_owned(),
        DenialReason::TooDeep => "it lies deeper than rules are looked for".to_owned(),
        DenialReason::NoPlace => "it has no place in a tree of files".to_owned(),
        DenialReason::Guard => "never allowed inside an agent".to_owned(),
        DenialReason::Stranger => "not a process of this agent".to_owned(),
        DenialReason::Expired => "the rule that allowed it has expired".to_owned(),
        DenialReason::Capability { capability, because } => format!("capability {capability} {because}"),
        DenialReason::NamesVary => "names there have many spellings".to_owned(),
    }
}

/// Where a rule was written.
pub(crate) fn origin(origin: &Origin) -> String {
    clean(&origin.to_string()).into_owned()
}

/// CPU time, and how near the limit it is.
pub(crate) fn cpu_tone(spent_ns: u64, limit_ns: Option<u64>) -> Tone {
    match limit_ns {
        Some(limit) if spent_ns >= limit => Tone::Bad,
        Some(limit) if u128::from(spent_ns) * 5 >= u128::from(limit) * 4 => Tone::Warn,
        _ => Tone::Plain,
    }
}

/// CPU time as a share of its limit, where there is one.
pub(crate) fn cpu_share(spent_ns: u64, limit_ns: Option<u64>) -> String {
    match limit_ns {
        Some(limit) if limit > 0 => {
            format!("{} of {} ({} %)", cpu(spent_ns), cpu(limit), u128::from(spent_ns) * 100 / u128::from(limit))
        }
        _ => format!("{} of no limit", cpu(spent_ns)),
    }
}
