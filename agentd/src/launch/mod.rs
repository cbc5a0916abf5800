//! How a specification becomes a confined process that waits at a gate.
//!
//! Three processes stand between the daemon and an agent's program:
//!
//! ```text
//!   agentd ──control socket── shim ──report socket── init (pid 1 of the agent) ── the agent's program
//!     │                        │                       │
//!     │ may die and come back  │ holds output, log,    │ own pid, mount and ipc namespaces, in the agent's
//!     │                        │ pty, exit status,     │ cgroup, all rights dropped; starts the program,
//!     │                        │ and every rule's file │ reaps everything, never execs
//! ```
//!
//! [`Spare::start`] starts shim and init, in the agent's cgroup; both wait. [`Spare::launch`] returns when init has made
//! the agent's view of the file system and opened whatever the rules name *in that view*. While the daemon loads the kernel's rules for those very objects, init gives up its rights;
//! [`Seen::wait`] returns when it has. Nothing of the agent's has run. The daemon marks init as the agent by its pidfd and
//! calls [`AtGate::open`]; the program is init's child and inherits the mark. Dropping a [`Seen`] or an [`AtGate`] instead
//! kills all that was made, and returns when it is dead.
//!
//! The shim keeps every rule's file open as long as the agent lives: an inode number that a rule names is then never
//! given to another file.
//!
//! Who may die when: the daemon at any time (before the gate that ends the launch, after it nothing changes); the shim,
//! and then init dies with it (`PR_SET_PDEATHSIG`) and the kernel kills all of the agent with init; init, and the shim
//! reports that.
//!
//! Not here: cgroups, BPF, the journal. The cgroup's directory is an argument, the rules are loaded by the caller.

mod at_gate;
mod handle;
pub(crate) mod landlock;
pub(crate) mod messages;
pub(crate) mod passing;
pub(crate) mod request;
pub(crate) mod seccomp;

pub use at_gate::{Anchor, AnchorKind, AnchorUse, AtGate, LaunchError, OpenError, Seen, Spare, Start, launch};
pub use handle::{ConnectError, Shim, ShimEvent, ShimWatch};
pub use messages::{ExitRecord, Pace, ShimStatus, read_exit_record};
pub use request::{Confinement, Landlock, LaunchRequest, Place, Seccomp, landlock_abi};

/// Name of the shim's socket in an agent's runtime directory.
pub const SHIM_SOCKET: &str = "shim.sock";
/// Name of the output log in an agent's state directory; the older half is `output.log.1`.
pub const OUTPUT_LOG: &str = "output.log";
/// Name of the exit record in an agent's state directory.
pub const EXIT_RECORD: &str = "exit.json";
