//! What does a reducer see? The guest side of the contract between a world and its reducers.
//!
//! A reducer is a function from where it is, what it remembers and what happened, to what it remembers next and what it
//! wants. It has no clock, no files, no network, no imports at all, and each step runs in an instance of its own: what is
//! not in the [`Output`] is forgotten. `docs/reducers.md` is the page for whoever writes one.
//!
//! ```
//! use agentd_reducer::{Context, Decode, Encode, Event, Output, StepError, minicbor, reducer};
//!
//! #[derive(Encode, Decode)]
//! struct Count {
//!     #[n(0)]
//!     by: i64,
//! }
//!
//! #[derive(Encode, Decode)]
//! struct State {
//!     #[n(0)]
//!     total: i64,
//! }
//!
//! fn step(_: &Context, state: Option<State>, event: &Event) -> Result<Output, StepError> {
//!     let before = state.map_or(0, |state| state.total);
//!     match event.schema.as_str() {
//!         "demo/count@1" => Ok(Output::keep().set(&State { total: before + event.decode::<Count>()?.by })),
//!         _ => Err(event.unknown()),
//!     }
//! }
//!
//! reducer!(step);
//! # fn main() {}
//! ```
//!
//! The world uses [`abi`] of this crate too, so neither side has types of its own. The glue to a WASM engine is in one file
//! that exists on `wasm32` only; everything else is compiled and tested natively.

#![no_std]

extern crate alloc;

pub mod abi;
mod input;
mod or_null;
mod output;
mod run;
mod value;

#[cfg(target_arch = "wasm32")]
pub mod guest;

pub use minicbor::{self, Decode, Encode};

pub use abi::{Context, Event, Output};
pub use run::{StepError, run};

/// Makes a step function into a module: `reducer!(step)`, once, in the root of a `cdylib`.
///
/// The function is a `fn(&Context, Option<State>, &Event) -> Result<Output, StepError>`; `State` is any type that can be
/// decoded. On `wasm32` this makes the exports `alloc` and `step`. Elsewhere it checks the type and links `std`, which a
/// `no_std` library needs to be compiled for its tests.
#[macro_export]
macro_rules! reducer {
    ($step:path) => {
        // Exported under other names than they have here, so that `step` in the line below is the author's.
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            #[unsafe(export_name = "alloc")]
            extern "C" fn reducer_alloc(len: i32) -> i32 {
                $crate::guest::alloc(len)
            }
            #[unsafe(export_name = "step")]
            extern "C" fn reducer_step(ptr: i32, len: i32) -> i64 {
                $crate::guest::step(ptr, len, $step)
            }
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            extern crate std;
            const _: fn(&[u8]) -> Result<std::vec::Vec<u8>, $crate::StepError> = |input| $crate::run(input, $step);
        };
    };
}
