//! The clocks and the random numbers, read in one place.
//!
//! Everything that wants to know the time takes a [`Clock`], so that tests set it and replay repeats it.

use agentd_model::{Entropy, Stamp};
use nix::time::{ClockId, clock_gettime};

/// Tells the time, and draws what chance there is in an input.
pub trait Clock: Send + Sync {
    /// Both clocks, now, and random bytes.
    fn stamp(&self) -> Stamp;
}

/// The host's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostClock;

impl Clock for HostClock {
    fn stamp(&self) -> Stamp {
        let mut entropy = Entropy::default();
        // Fails only where the kernel has no random numbers at all; then zeros are what the record says, truthfully.
        if let Err(error) = getrandom::fill(&mut entropy.0) {
            tracing::error!(%error, "there are no random numbers");
        }
        Stamp { wall_ns: read(ClockId::CLOCK_REALTIME), mono_ns: read(ClockId::CLOCK_MONOTONIC), entropy }
    }
}

fn read(clock: ClockId) -> u64 {
    match clock_gettime(clock) {
        Ok(time) => time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64,
        Err(error) => unreachable!("every Linux has this clock: {error}"),
    }
}
