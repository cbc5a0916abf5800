//! What can go wrong with the network programs.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::pin::PinError;
use aya::programs::ProgramError;

use super::{CgroupError, MapMismatch, OffsetsError};

/// An error of one of several kinds, for the chain of causes only.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the network programs are not in place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The parent cgroup cannot be used.
    #[error("cannot use {} as the cgroup of the agents", .path.display())]
    Cgroup {
        /// The cgroup.
        path: PathBuf,
        /// Why.
        source: CgroupError,
    },
    /// A folder in bpffs cannot be made, listed, renamed or removed.
    #[error("cannot keep links and maps in {}", .path.display())]
    Bpffs {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A pinned map cannot be read.
    #[error("cannot read the pinned map {}", .path.display())]
    Map {
        /// The pin.
        path: PathBuf,
        /// Why.
        source: MapError,
    },
    /// A pinned map is not as the contract has it.
    #[error("the pinned map {} is of another build", .path.display())]
    Mismatch {
        /// The pin.
        path: PathBuf,
        /// What differs.
        source: MapMismatch,
    },
    /// The object or its maps were refused.
    #[error("cannot load the network programs")]
    Object(#[source] Box<EbpfError>),
    /// One program was refused.
    #[error("cannot load the program {name}")]
    Program {
        /// The program.
        name: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
    /// One program cannot be attached.
    #[error("cannot attach the program {name}")]
    Attach {
        /// The program.
        name: &'static str,
        /// Why.
        source: BoxError,
    },
    /// A link or map cannot be pinned.
    #[error("cannot pin {}", .path.display())]
    Pin {
        /// The pin.
        path: PathBuf,
        /// Why.
        source: Box<PinError>,
    },
}

/// Why processes are not reported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The kernel does not say how its structures look.
    #[error("cannot find the fields of a task")]
    Offsets(#[from] OffsetsError),
    /// The kernel's types cannot be read.
    #[error("cannot read the kernel's types")]
    Btf(#[source] Box<aya::BtfError>),
    /// One program cannot be loaded, attached or pinned.
    #[error("cannot put the program {name} in place")]
    Program {
        /// The program.
        name: &'static str,
        /// Why.
        source: BoxError,
    },
}

/// Why this host cannot confine the network of agents.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetProbeError {
    /// There is no cgroup v2 file system to attach to.
    #[error("cannot make a cgroup to try the network programs on")]
    Cgroup(#[source] CgroupError),
    /// The programs were refused.
    #[error("this host refuses the network programs")]
    Refused(#[source] LoadError),
}
