//! An event becomes a new state and the effects that follow from it.

use std::sync::Arc;

use agentd_model::{AgentNumber, Duration, Effect, Event, Seq, Stamp};

use crate::state::{Agent, Capability, ENDED_KEPT, End, Started, State};

impl State {
    /// Takes in one event. The effects are what is wanted now; on replay the caller drops them and reconciles instead.
    pub fn apply(&mut self, seq: Seq, stamp: Stamp, event: &Event) -> Vec<Effect> {
        match event {
            Event::JournalBegun { world, .. } => {
                self.world = Some(*world);
                vec![]
            }
            Event::DaemonStarted { tiers, boot_id, .. } => {
                self.tiers = Some(tiers.clone());
                self.boot_id.clone_from(boot_id);
                vec![]
            }
            Event::AgentRequested { agent, name, spec, by } => {
                self.last_number = self.last_number.max(agent.0);
                let agent = Agent {
                    number: *agent,
                    name: name.clone(),
                    spec: Arc::new(spec.as_ref().clone()),
                    by: *by,
                    requested: stamp,
                    request: seq,
                    started: None,
                    paused: false,
                    exhausted: false,
                    cpu_limit: spec.budget.cpu,
                    denials: 0,
                    last_denial: None,
                    end: None,
                };
                let effect = Effect::Launch { agent: agent.number };
                self.agents.insert(agent.number, Arc::new(agent));
                vec![effect]
            }
            Event::AgentStarted { agent, init_pid, shim_pid, cgroup_id, slot, gaps, boot_id, .. } => {
                let started = Started {
                    init_pid: *init_pid,
                    shim_pid: *shim_pid,
                    cgroup_id: *cgroup_id,
                    slot: *slot,
                    gaps: gaps.clone(),
                    boot_id: boot_id.clone(),
                    at: stamp,
                };
                self.change(*agent, |agent| agent.started = Some(started));
                vec![]
            }
            Event::AgentFailed { agent, reason } => self.end(*agent, End::Failed { reason: reason.clone() }),
            Event::AccessDenied { agent, .. } => {
                self.last_denial = Some(seq);
                self.change(*agent, |agent| {
                    agent.denials += 1;
                    agent.last_denial = Some(seq);
                });
                vec![]
            }
            Event::DenialsSuppressed { agent, count } => {
                self.change(*agent, |agent| agent.denials += count);
                vec![]
            }
            Event::BudgetExhausted { agent, .. } => {
                self.change(*agent, |agent| agent.exhausted = true);
                vec![Effect::Freeze { agent: *agent }]
            }
            Event::BudgetToppedUp { agent, limit, .. } => self.top_up(*agent, *limit),
            Event::AgentPaused { agent, .. } => {
                self.change(*agent, |agent| agent.paused = true);
                vec![Effect::Freeze { agent: *agent }]
            }
            Event::AgentResumed { agent, .. } => {
                self.change(*agent, |agent| agent.paused = false);
                self.thaw_if_free(*agent)
            }
            Event::AgentSignalled { agent, signal: Some(signal), .. } => {
                vec![Effect::Signal { agent: *agent, signal: *signal }]
            }
            Event::AgentSignalled { agent, signal: None, .. } => vec![Effect::Kill { agent: *agent }],
            Event::CapabilityGranted { agent, grant, by } => {
                let (number, grant) = (grant.capability, grant.as_ref().clone());
                self.last_capability = self.last_capability.max(number.0);
                let capability = Capability { agent: *agent, grant, by: *by, granted: seq, at: stamp, revoked: None };
                self.capabilities.insert(number, Arc::new(capability));
                vec![Effect::PutInForce { capability: number }]
            }
            Event::CapabilityRevoked { capability, .. } => {
                if let Some(found) = self.capabilities.get_mut(capability) {
                    Arc::make_mut(found).revoked = Some(seq);
                }
                vec![Effect::TakeBack { capability: *capability }]
            }
            Event::AgentExited { agent, status, spent } => {
                self.end(*agent, End::Exited { status: *status, spent: *spent, at: stamp })
            }
            Event::AgentLost { agent, reason } => self.end(*agent, End::Lost { reason: reason.clone() }),
            Event::BudgetWarned { .. }
            | Event::BudgetKilled { .. }
            | Event::AgentAdopted { .. }
            | Event::ProgramRun { .. }
            | Event::OperatorsTold { .. }
            | Event::KeyRotated { .. }
            | Event::StateSaved { .. } => vec![],
        }
    }

    fn change(&mut self, number: AgentNumber, change: impl FnOnce(&mut Agent)) {
        if let Some(agent) = self.agents.get_mut(&number) {
            change(Arc::make_mut(agent));
        }
    }

    fn top_up(&mut self, number: AgentNumber, limit: Duration) -> Vec<Effect> {
        self.change(number, |agent| {
            agent.cpu_limit = Some(limit);
            agent.exhausted = false;
        });
        let mut effects = vec![Effect::SetCpuLimit { agent: number, limit }];
        effects.extend(self.thaw_if_free(number));
        effects
    }

    /// An agent is frozen for two reasons that do not know of each other; it runs when neither holds.
    fn thaw_if_free(&self, number: AgentNumber) -> Vec<Effect> {
        match self.agents.get(&number) {
            Some(agent) if !agent.paused && !agent.exhausted => vec![Effect::Thaw { agent: number }],
            _ => vec![],
        }
    }

    fn end(&mut self, number: AgentNumber, end: End) -> Vec<Effect> {
        self.change(number, |agent| agent.end = Some(end));
        let ended: Vec<_> =
            self.agents.values().filter(|agent| agent.end.is_some()).map(|agent| agent.number).collect();
        for number in ended.iter().take(ended.len().saturating_sub(ENDED_KEPT)) {
            self.agents.remove(number);
            self.capabilities.retain(|_, capability| capability.agent != *number);
        }
        vec![Effect::Release { agent: number }]
    }
}
