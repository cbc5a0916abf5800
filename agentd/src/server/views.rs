//! State as it is shown.

use agentd_journal::{Hash, Record};
use agentd_model::{Domain, Spend, Tiers};
use agentd_protocol::{AgentDetail, AgentView, BudgetView, DaemonView, PROTOCOL_VERSION, RecordView, TierView};
use agentd_world::{Agent, End, State};

use super::Service;
use crate::journal::Reader;

pub(super) fn daemon_view(service: &Service) -> DaemonView {
    let state = service.world.state();
    let newest = Reader::open(&service.places.journal())
        .and_then(|reader| reader.list::<agentd_model::Event>(None, agentd_model::Seq(0), 1))
        .ok()
        .and_then(|mut records| records.pop());
    DaemonView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: PROTOCOL_VERSION,
        pid: std::process::id(),
        kernel: crate::boot::kernel_release(),
        tiers: state.tiers().map(tier_views).unwrap_or_default(),
        agents: state.agents().filter(|agent| agent.is_live()).count() as u32,
        journal_seq: newest.as_ref().map_or(0, |(record, _)| record.seq.0),
        journal_head: newest.map_or(Hash::ZERO, |(_, hash)| hash).to_string(),
    }
}

pub(super) fn tier_views(tiers: &Tiers) -> Vec<TierView> {
    let view = |(domain, tier, reason): &(Domain, agentd_model::Tier, Option<String>)| TierView {
        domain: domain.to_string(),
        tier: tier.to_string(),
        reason: reason.clone(),
    };
    tiers.rows.iter().map(view).collect()
}

/// CPU time used: from the kernel's ledger while it lives, from the record of its end afterwards.
fn spent(agent: &Agent, service: &Service) -> Spend {
    match &agent.end {
        Some(End::Exited { spent, .. }) => Spend { cpu_ns: spent.0 },
        Some(_) => Spend::default(),
        None => service.host.spent(agent),
    }
}

pub(super) fn budget_view(agent: &Agent, service: &Service) -> BudgetView {
    BudgetView {
        agent: agent.number,
        name: agent.name.to_string(),
        cpu_spent_ns: spent(agent, service).cpu_ns,
        cpu_limit_ns: agent.cpu_limit.map(|limit| limit.0),
        exhausted: agent.exhausted,
        limits: agent.spec.budget,
    }
}

pub(super) fn agent_view(agent: &Agent, service: &Service, detail: bool) -> AgentView {
    let state = service.world.state();
    let (status, reason) = match &agent.end {
        Some(End::Exited { status, .. }) => (Some(*status), None),
        Some(End::Failed { reason } | End::Lost { reason }) => (None, Some(reason.clone())),
        None => (None, None),
    };
    AgentView {
        agent: agent.number,
        name: agent.name.to_string(),
        phase: agent.phase(),
        argv: agent.spec.argv.clone(),
        cwd: agent.spec.cwd.clone(),
        uid: agent.spec.uid,
        profile: agent.spec.profile.clone(),
        by: agent.by,
        requested: agent.requested,
        init_pid: agent.started.as_ref().map(|started| started.init_pid),
        cgroup_id: agent.started.as_ref().map(|started| started.cgroup_id),
        cpu_spent_ns: spent(agent, service).cpu_ns,
        cpu_limit_ns: agent.cpu_limit.map(|limit| limit.0),
        denials: agent.denials.max(service.host.denials(agent)),
        last_denial: agent.last_denial.map(|seq| seq.0),
        tiers: state.tiers().map(tier_views).unwrap_or_default(),
        gaps: agent.started.as_ref().map(|started| started.gaps.clone()).unwrap_or_default(),
        status,
        reason,
        detail: detail.then(|| AgentDetail {
            terminal: agent.spec.terminal,
            paths: agent.spec.paths.clone(),
            nets: agent.spec.nets.clone(),
            budget: agent.spec.budget,
        }),
    }
}

pub(super) fn record_view(state: &State, record: &Record, hash: Hash) -> serde_json::Value {
    let view = record_struct(state, record, hash);
    serde_json::to_value(&view).unwrap_or_else(|error| unreachable!("a record is plain data: {error}"))
}

pub(super) fn record_struct(state: &State, record: &Record, hash: Hash) -> RecordView {
    let agent = record.event.agent().and_then(|agent| state.agent(agent));
    RecordView {
        seq: record.seq.0,
        hash: hash.to_string(),
        stamp: record.stamp,
        cause: record.cause.map(|seq| seq.0),
        name: agent.map(|agent| agent.name.to_string()),
        event: record.event.clone(),
    }
}
