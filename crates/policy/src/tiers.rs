//! Can this host keep what the agent is promised?
//!
//! A promise that cannot be kept is a [`Gap`]. Which gaps there are depends on the host and on the request: where no
//! memory is budgeted, nothing is missing if memory cannot be limited. A gap is refused at spawn, by name, unless the
//! caller accepted that gap; what is accepted and not there costs nothing, so one script can serve several hosts.
//!
//! Judged by the text of the rules. Two paths that lead to the same place through a link look different here, which
//! can hide a denial inside something allowed; every built-in profile has plain ones, so the gap is named all the same.

use agentd_model::{AgentSpec, Domain, Gap, NetRule, PathRule, Rights, Tier, Tiers};

use crate::path::{Pattern, is_within};

/// The gaps between what the request promises and what the host can enforce, in order, each once.
pub fn gaps(spec: &AgentSpec, tiers: &Tiers) -> Vec<Gap> {
    let mut gaps = Vec::new();
    match tiers.of(Domain::Files) {
        Tier::Lsm => {}
        Tier::Landlock => {
            gaps.push(Gap::DenialEvents);
            if spec.paths.iter().any(|denial| inside_allowed(denial, &spec.paths)) {
                gaps.push(Gap::DenyInsideAllow);
            }
        }
        _ => gaps.push(Gap::Files),
    }
    match tiers.of(Domain::Guard) {
        Tier::Lsm => {}
        Tier::Landlock => gaps.push(Gap::UnixSockets),
        _ => gaps.extend([Gap::UnixSockets, Gap::Guard]),
    }
    if !matches!(tiers.of(Domain::Network), Tier::CgroupBpf | Tier::Lsm) && !spec.nets.iter().any(allows_everything) {
        gaps.push(Gap::Network);
    }
    if spec.budget.cpu.is_some() {
        match tiers.of(Domain::Cpu) {
            Tier::Tracepoint => {}
            Tier::Polling => gaps.push(Gap::CpuExact),
            _ => gaps.push(Gap::Cpu),
        }
    }
    if spec.budget.memory.is_some() && tiers.of(Domain::Memory) != Tier::Controller {
        gaps.push(Gap::Memory);
    }
    if spec.budget.pids.is_some() && tiers.of(Domain::Pids) != Tier::Controller {
        gaps.push(Gap::Pids);
    }
    gaps.sort();
    gaps
}

/// What the caller demands of the host's tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Every promise is kept, except those whose gaps the request accepts.
    Promises,
    /// `--require lsm`: the best tier everywhere; no gap can be accepted.
    Lsm,
}

/// Why an agent cannot be spawned on this host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TierError {
    /// Promises that would not be kept.
    #[error("this host cannot enforce {}", listed(.gaps))]
    Gaps {
        /// All of them that were not accepted.
        gaps: Vec<Gap>,
    },
    /// Another tier than the demanded one.
    #[error("{domain} is enforced by {tier} on this host, and lsm is required{}", because(.reason.as_deref()))]
    Fallback {
        /// Which domain.
        domain: Domain,
        /// What enforces it.
        tier: Tier,
        /// What the probe met.
        reason: Option<String>,
    },
}

fn listed(gaps: &[Gap]) -> String {
    gaps.iter().map(|gap| gap.meaning()).collect::<Vec<_>>().join("; nor ")
}

fn because(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(" ({reason})"))
}

impl TierError {
    /// What to type to have the agent run all the same, where that is possible.
    pub fn hint(&self, spec: &AgentSpec) -> Option<String> {
        let TierError::Gaps { gaps } = self else { return Some("agentctl doctor".to_owned()) };
        let mut all: Vec<Gap> = gaps.iter().chain(&spec.accepted_gaps).copied().collect();
        all.sort();
        all.dedup();
        let names: Vec<String> = all.iter().map(ToString::to_string).collect();
        Some(format!("agentctl spawn --profile {} --degraded {} -- COMMAND", spec.profile, names.join(",")))
    }
}

/// Checks a request against the host. Gives the gaps that are there and were accepted, which the journal records.
pub fn check(spec: &AgentSpec, tiers: &Tiers, demand: Demand) -> Result<Vec<Gap>, TierError> {
    let gaps = gaps(spec, tiers);
    if demand == Demand::Lsm {
        for domain in [Domain::Files, Domain::Guard] {
            let tier = tiers.of(domain);
            if tier != Tier::Lsm {
                let reason = tiers.reason(domain).map(str::to_owned);
                return Err(TierError::Fallback { domain, tier, reason });
            }
        }
    }
    let accepts = |gap: &Gap| demand == Demand::Promises && spec.accepted_gaps.contains(gap);
    let open: Vec<Gap> = gaps.iter().copied().filter(|gap| !accepts(gap)).collect();
    if open.is_empty() { Ok(gaps) } else { Err(TierError::Gaps { gaps: open }) }
}

/// Whether a denial takes something away that another rule, on the same place or above it, gives.
fn inside_allowed(denial: &PathRule, rules: &[PathRule]) -> bool {
    let takes = |rule: &&PathRule| !rule.allow.intersection(denial.deny).is_empty();
    let above = |rule: &PathRule| Pattern::of(&denial.path).is_some() || is_within(&denial.path, &rule.path);
    denial.deny != Rights::NONE && rules.iter().filter(takes).any(above)
}

fn allows_everything(rule: &NetRule) -> bool {
    let ops = rule.ops;
    let ports = (rule.first_port, rule.last_port) == (0, u16::MAX);
    rule.prefix == 0 && ports && ops.connect && ops.bind && ops.tcp && ops.udp
}
