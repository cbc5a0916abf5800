//! Clocks: one that people set, which jumps and goes back, and one that only goes on.

use agentd_model::{Entropy, Stamp};

use crate::rng::Rng;

/// Both clocks, and where stamps get their random bytes from.
pub(crate) struct Clock {
    wall_ns: u64,
    mono_ns: u64,
    rng: Rng,
}

/// When stories begin: 2026-11-21.
const BEGIN_NS: u64 = 1_795_219_200_000_000_000;

impl Clock {
    /// At the beginning.
    pub(crate) fn new(rng: Rng) -> Clock {
        Clock { wall_ns: BEGIN_NS, mono_ns: 1, rng }
    }

    /// Some time goes by.
    pub(crate) fn pass(&mut self) {
        let by = 1 + self.rng.below(2_000_000_000);
        self.mono_ns += by;
        self.wall_ns += by;
    }

    /// Somebody sets the clock: an hour on, a day on, or back.
    pub(crate) fn jump(&mut self) -> i64 {
        let seconds = [3600, 86_400, -1, -3600, -86_400][self.rng.index(5)];
        self.wall_ns = self.wall_ns.saturating_add_signed(seconds * 1_000_000_000);
        seconds
    }

    /// Both clocks now, with new random bytes.
    pub(crate) fn stamp(&mut self) -> Stamp {
        Stamp { wall_ns: self.wall_ns, mono_ns: self.mono_ns, entropy: Entropy(self.rng.bytes()) }
    }

    /// What the wall says.
    pub(crate) fn wall_ns(&self) -> u64 {
        self.wall_ns
    }
}
