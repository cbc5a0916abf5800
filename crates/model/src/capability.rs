//! Capabilities: rights that are lent to an agent while it runs, for a time, and that can be taken back.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::Rights;

/// The number of a capability: given once, never used again while the journal lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct CapabilityNumber(#[n(0)] pub u32);

impl fmt::Display for CapabilityNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for CapabilityNumber {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(CapabilityNumber)
    }
}

/// What is lent, and what that was compiled to for the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Grant {
    /// Its number.
    #[n(0)]
    pub capability: CapabilityNumber,
    /// What may be done where.
    #[n(1)]
    pub loans: Vec<Loan>,
    /// Nanoseconds since 1970 at which it ends; `None`: with its agent.
    #[n(2)]
    pub until_wall_ns: Option<u64>,
    /// The same by the kernel's monotonic clock, which is the one that counts; comparable within the agent's boot only.
    #[n(3)]
    pub until_mono_ns: Option<u64>,
    /// Its slot in the kernel's table.
    #[n(4)]
    pub slot: u32,
    /// The signed statement: see `agentd_capability`. Not shown with events.
    #[cbor(n(5), with = "minicbor::bytes")]
    #[serde(skip)]
    pub token: Vec<u8>,
}

/// Rights on one file, or on a directory and everything below it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Loan {
    /// Where, in the agent's view of the files, when it was granted.
    #[n(0)]
    pub path: String,
    /// What.
    #[n(1)]
    pub rights: Rights,
    /// The object's device, kernel encoding. The right is on the object, whatever its name becomes.
    #[n(2)]
    pub dev: u32,
    /// Its inode.
    #[n(3)]
    pub ino: u64,
    /// Whether it is a directory.
    #[n(4)]
    pub directory: bool,
}

impl Grant {
    /// Everything it lends, in a line.
    pub fn rights(&self) -> String {
        let each: Vec<String> = self.loans.iter().map(|loan| format!("{} on {}", loan.rights, loan.path)).collect();
        each.join("; ")
    }
}
