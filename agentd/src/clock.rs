//! The clocks, read in one place.
//!
//! Everything that wants to know the time takes a [`Clock`], so that tests set it and replay repeats it.

use agentd_model::Stamp;
use nix::time::{ClockId, clock_gettime};

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Both clocks, now.
    fn stamp(&self) -> Stamp;
}

/// The host's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostClock;

impl Clock for HostClock {
    fn stamp(&self) -> Stamp {
        Stamp { wall_ns: read(ClockId::CLOCK_REALTIME), mono_ns: read(ClockId::CLOCK_MONOTONIC) }
    }
}

fn read(clock: ClockId) -> u64 {
    match clock_gettime(clock) {
        Ok(time) => time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64,
        Err(error) => unreachable!("every Linux has this clock: {error}"),
    }
}
