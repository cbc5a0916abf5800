//! Places in the kernel's table of agents.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Which slots are taken. Slot 0 is never given out, so that a zeroed identity is nobody.
#[derive(Debug, Default)]
pub struct Slots {
    taken: Mutex<BTreeSet<u32>>,
}

impl Slots {
    /// Takes the lowest free slot; `None`: the table is full.
    pub fn take(&self) -> Option<u32> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (1..agentd_abi::MAX_AGENTS).find(|slot| !taken.contains(slot))?;
        taken.insert(free);
        Some(free)
    }

    /// Takes a slot that an adopted agent has.
    pub fn adopt(&self, slot: u32) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(slot);
    }

    /// Gives a slot back.
    pub fn give_back(&self, slot: u32) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_run_out_and_come_back() {
        let slots = Slots::default();
        slots.adopt(2);
        let all: Vec<u32> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!((all.len(), all[0], all[1]), (agentd_abi::MAX_AGENTS as usize - 2, 1, 3));
        slots.give_back(7);
        assert_eq!((slots.take(), slots.take()), (Some(7), None));
    }
}
