//! How does a reducer run?
//!
//! A reducer is a WASM core module without imports, and one step of it is a function from bytes to bytes: the same module,
//! the same input and the same [`Limits`] give the same [`Outcome`], on every try, on every thread, on every host of one
//! architecture. Everything that the module does wrong is such an outcome, to be recorded. What the host does wrong is a
//! [`HostError`], which must never be recorded as what a reducer did, since on the next try it may not happen.
//!
//! ```text
//! wasm bytes ──compile──▶ Module ──step(input, limits)──▶ Ok(Outcome)    what the reducer did: recorded, replayed
//!      │                     ▲                       └──▶ Err(HostError) what the host could not do: tried again
//!      └──▶ ModuleError      └──from_cache── bytes that to_cache made
//! ```
//!
//! How a module is called, in this order, all on one portion of fuel:
//!
//! ```text
//! alloc(len: i32) -> i32              where the input is to be put
//! step(ptr: i32, len: i32) -> i64     ptr << 32 | len of the output; it is read, and the instance is gone
//! ```
//!
//! What makes it a function:
//!
//! - There are no imports, so there is no clock, no randomness and no other world.
//! - Every step has an instance of its own, out of a pool that is reset in between. A memory that lasts is the host's to keep.
//! - Time is counted as fuel, never read from a clock. Work over a length (`memory.fill`, `table.grow`) pays by the length.
//! - NaNs have one bit pattern; threads and relaxed SIMD, the only other instructions that may differ, are off.
//! - Code is made for an architecture, not for the processor at hand, so frames on the stack are of one size everywhere.
//! - A memory's whole reservation is there from the beginning: growth within the limit works, or the host is at fault. Growth
//!   beyond it ends the step. No reducer ever sees `memory.grow` answer -1 and goes on differently.
//!
//! What is *not* promised: that two architectures, or two versions of wasmtime, count the same fuel or overflow the stack
//! at the same depth, and that two builds of this crate do at the very edge of the stack (host frames below the first one
//! of the module differ by some hundred bytes). A world opens from recorded outcomes and is none the worse; a replay that
//! differs says where.
//!
//! How long a step may take, its fuel says: [`Limits`] has it in milliseconds. What a step costs, `examples/steps.rs` says:
//! 5.5 µs with 512 bytes in and 64 out, 180,000 a second on one core, nine tenths of what wasmtime alone does.
//!
//! For the process: wasmtime installs handlers for SIGSEGV, SIGBUS, SIGILL and SIGFPE and passes on what is not its own. A
//! thread that calls [`Module::step`] needs [`STACK_BYTES`] of stack and 256 KiB more. Compiling takes 40 ms for each 100 KiB
//! of an ordinary module, and took 40 times that for one that was made to be slow, and half a GiB of memory for the largest
//! ones. So it belongs where a module is proposed, never between two events.
//!
//! Not here: what the bytes mean (`agentd-reducer`), what follows from them (`agentd-engine`), where they are kept (`agentd`).

#![deny(unsafe_code)]

mod cache;
mod engine;
mod limits;
mod module;
mod outcome;
mod settings;
mod slots;
mod step;

pub use cache::{CacheError, CacheKey};
pub use engine::{Engine, EngineError};
pub use limits::{Limits, LimitsError};
pub use module::{MODULE_BYTES, Module, ModuleError};
pub use outcome::{HostError, Outcome, Trap};
pub use settings::{SLOTS, STACK_BYTES, TABLE_ELEMENTS};
