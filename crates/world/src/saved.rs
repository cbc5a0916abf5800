//! The state as bytes, so that opening a journal need not read all of it.
//!
//! CBOR as `minicbor` derives it. Not a format for others: a program that cannot read it reads the records instead.

use std::collections::BTreeMap;
use std::sync::Arc;

use agentd_model::{Seq, Tiers, WorldId};
use minicbor::{Decode, Encode};

use crate::state::{Agent, Capability, State};

/// Version of this encoding; another one is not read.
const VERSION: u32 = 2;

#[derive(Encode, Decode)]
struct Saved {
    #[n(0)]
    version: u32,
    #[n(1)]
    agents: Vec<Agent>,
    #[n(2)]
    last_number: u32,
    #[n(3)]
    last_denial: Option<Seq>,
    #[n(4)]
    tiers: Option<Tiers>,
    #[n(5)]
    boot_id: String,
    #[n(6)]
    world: Option<WorldId>,
    #[n(7)]
    capabilities: Vec<Capability>,
    #[n(8)]
    last_capability: u32,
}

impl State {
    /// The state as bytes.
    pub fn save(&self) -> Vec<u8> {
        let saved = Saved {
            version: VERSION,
            agents: self.agents.values().map(|agent| agent.as_ref().clone()).collect(),
            last_number: self.last_number,
            last_denial: self.last_denial,
            tiers: self.tiers.clone(),
            boot_id: self.boot_id.clone(),
            world: self.world,
            capabilities: self.capabilities.values().map(|capability| capability.as_ref().clone()).collect(),
            last_capability: self.last_capability,
        };
        match minicbor::to_vec(&saved) {
            Ok(bytes) => bytes,
            Err(error) => unreachable!("writing to memory cannot be refused: {error}"),
        }
    }

    /// The state that was saved, if it is of this version.
    pub fn restore(bytes: &[u8]) -> Option<State> {
        let saved: Saved = minicbor::decode(bytes).ok().filter(|saved: &Saved| saved.version == VERSION)?;
        let agents: BTreeMap<_, _> = saved.agents.into_iter().map(|agent| (agent.number, Arc::new(agent))).collect();
        let capabilities =
            saved.capabilities.into_iter().map(|found| (found.grant.capability, Arc::new(found))).collect();
        let Saved { last_number, last_denial, tiers, boot_id, world, last_capability, .. } = saved;
        Some(State { world, agents, capabilities, last_capability, last_number, last_denial, tiers, boot_id })
    }
}
