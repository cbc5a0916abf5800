//! What a step came to, and what it never came to.
//!
//! The line between the two types is the point of this crate. An [`Outcome`] follows from module, input and limits, and is
//! recorded; a [`HostError`] follows from the state of this host, and is not. Where wasmtime reports something that this
//! file has no name for, it is a [`HostError`]: a record must not hold what nobody understood.

use std::error::Error;
use std::fmt;

/// What one step came to: the same on every try.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It answered.
    Done {
        /// What it wrote.
        output: Vec<u8>,
        /// What it used, always less than its limit.
        fuel: u64,
    },
    /// It did something that ends a module.
    Trapped {
        /// What that was.
        why: Trap,
    },
    /// It used all its fuel.
    OutOfFuel,
    /// It asked for more memory, or for a longer table, than it may have, or the input alone is more than its memory.
    OutOfMemory,
    /// It wrote more than it may.
    OutputTooLong {
        /// How much.
        bytes: u32,
    },
    /// It named a place for the input, or a place of the output, that is not within its memory.
    BadPointer,
}

/// What ended a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trap {
    /// `unreachable`: what a panic becomes.
    Unreachable,
    /// An access outside of its memory.
    OutOfBoundsMemory,
    /// An access outside of a table.
    OutOfBoundsTable,
    /// A call through an empty element of a table.
    NullCall,
    /// A call of a function with another type than was meant.
    WrongCallType,
    /// A whole number divided by zero.
    DivisionByZero,
    /// A whole number that does not fit: the smallest one divided by -1, or a float converted.
    IntegerOverflow,
    /// A NaN made a whole number.
    BadConversion,
    /// Calls nested too deep.
    StackOverflow,
}

impl Trap {
    /// Its name by wasmtime; `None` for what cannot happen under our configuration.
    pub(crate) fn named(trap: wasmtime::Trap) -> Option<Self> {
        use wasmtime::Trap as T;
        Some(match trap {
            T::UnreachableCodeReached => Self::Unreachable,
            T::MemoryOutOfBounds => Self::OutOfBoundsMemory,
            T::TableOutOfBounds => Self::OutOfBoundsTable,
            T::IndirectCallToNull => Self::NullCall,
            T::BadSignature => Self::WrongCallType,
            T::IntegerDivisionByZero => Self::DivisionByZero,
            T::IntegerOverflow => Self::IntegerOverflow,
            T::BadConversionToInteger => Self::BadConversion,
            T::StackOverflow => Self::StackOverflow,
            _ => return None,
        })
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "it gave up",
            Self::OutOfBoundsMemory => "it reached outside of its memory",
            Self::OutOfBoundsTable => "it reached outside of a table",
            Self::NullCall => "it called a function that is not there",
            Self::WrongCallType => "it called a function of another type",
            Self::DivisionByZero => "it divided by zero",
            Self::IntegerOverflow => "a number did not fit",
            Self::BadConversion => "it made a number of what is none",
            Self::StackOverflow => "its calls were nested too deep",
        })
    }
}

/// What the host could not do for a step. It says nothing about the reducer and is never recorded as its outcome.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// No instance.
    #[error("cannot make an instance of a reducer")]
    Instance {
        /// What wasmtime says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// No memory, although it was the reducer's to have.
    #[error("cannot give a reducer memory within its limit")]
    Memory {
        /// What wasmtime says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Something that has no name here.
    #[error("cannot tell what ended a reducer")]
    Unknown {
        /// What wasmtime says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}
