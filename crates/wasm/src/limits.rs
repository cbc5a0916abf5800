//! What one step may use.
//!
//! A limit is part of what a step is a function of, so it belongs into a world's definitions and not into a host's
//! configuration. Each one has a largest value, so that a definition cannot ask for more than a host is made for.

/// What one step may use, all within what any step may use.
///
/// | | usual | at most |
/// |---|---|---|
/// | fuel | 20 million | 500 million |
/// | memory | 16 MiB | 64 MiB |
/// | output | 1 MiB | 16 MiB |
///
/// Fuel bounds the time. On one core of a 2.5 GHz Xeon the usual 20 million units last 4 ms in a program that computes, and
/// less than 0.8 s in the worst one that we could write, which does nothing but miss every cache; all others that are made
/// to be slow stay below 0.1 s (`examples/worst.rs`). At most is 25 times that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    fuel: u64,
    memory_bytes: u64,
    output_bytes: u32,
}

/// Why a step may not have these limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitsError {
    /// More fuel than any step gets.
    #[error("a step cannot have {asked} units of fuel, at most {}", Limits::MAX.fuel)]
    Fuel {
        /// What was asked for.
        asked: u64,
    },
    /// More memory than any step gets.
    #[error("a step cannot have {asked} bytes of memory, at most {}", Limits::MAX.memory_bytes)]
    Memory {
        /// What was asked for.
        asked: u64,
    },
    /// More output than any step may have.
    #[error("a step cannot have {asked} bytes of output, at most {}", Limits::MAX.output_bytes)]
    Output {
        /// What was asked for.
        asked: u32,
    },
}

impl Limits {
    /// What a step gets when nobody says anything.
    pub const USUAL: Self = Self { fuel: 20_000_000, memory_bytes: 16 << 20, output_bytes: 1 << 20 };

    /// The most that a step can be given.
    pub const MAX: Self = Self { fuel: 500_000_000, memory_bytes: 64 << 20, output_bytes: 16 << 20 };

    /// Limits as they are asked for; refused where one is beyond [`Limits::MAX`].
    pub const fn new(fuel: u64, memory_bytes: u64, output_bytes: u32) -> Result<Self, LimitsError> {
        if fuel > Self::MAX.fuel {
            return Err(LimitsError::Fuel { asked: fuel });
        }
        if memory_bytes > Self::MAX.memory_bytes {
            return Err(LimitsError::Memory { asked: memory_bytes });
        }
        if output_bytes > Self::MAX.output_bytes {
            return Err(LimitsError::Output { asked: output_bytes });
        }
        Ok(Self { fuel, memory_bytes, output_bytes })
    }

    /// Units of fuel, shared by `alloc` and `step`; about one for each instruction. All of it used up is too much.
    pub const fn fuel(self) -> u64 {
        self.fuel
    }

    /// What the memory may grow to, beginning and all; it grows in pages of 64 KiB.
    pub const fn memory_bytes(self) -> u64 {
        self.memory_bytes
    }

    /// The longest output.
    pub const fn output_bytes(self) -> u32 {
        self.output_bytes
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::USUAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_given_beyond_the_most() {
        let Limits { fuel, memory_bytes, output_bytes } = Limits::MAX;
        assert_eq!(Limits::new(fuel, memory_bytes, output_bytes), Ok(Limits::MAX));
        assert_eq!(Limits::new(fuel + 1, 0, 0), Err(LimitsError::Fuel { asked: fuel + 1 }));
        assert_eq!(Limits::new(0, memory_bytes + 1, 0), Err(LimitsError::Memory { asked: memory_bytes + 1 }));
        assert_eq!(Limits::new(0, 0, output_bytes + 1), Err(LimitsError::Output { asked: output_bytes + 1 }));
    }
}
