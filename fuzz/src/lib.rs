//! What do bytes that nobody has written do?
//!
//! One function for each decoder of bytes that come from a disk, a network, a person or a reducer. It takes any bytes, and
//! returns: a panic, an overflow, endless work or a broken claim is what is looked for. The claims go further than "it does
//! not fall over": what is read is written back to the same bytes, what is refused leaves nothing behind, two ways of reading
//! agree.
//!
//! The functions are run in three ways:
//!
//! ```text
//! cargo test --manifest-path fuzz/Cargo.toml      seeds, and mutations of them from a seeded generator; FUZZ_ROUNDS=… for longer
//! cargo +nightly fuzz run air_value fuzz/corpus-seeds/air_value      libFuzzer; RUSTC_BOOTSTRAP=1 instead of +nightly will do
//! cargo run --manifest-path fuzz/Cargo.toml --bin air_value FILE     one input again, without a fuzzer
//! ```
//!
//! Seeds are in `corpus-seeds/<target>/` and are made by `cargo run --manifest-path fuzz/Cargo.toml --example seeds`.
//!
//! Not here: bundles of worlds, whose reader is in `agentd` (`worlds/bundle.rs`, with a test of its own), and WASM, whose
//! parser is wasmtime's.

mod definition;
mod draw;
mod journal;
mod mutate;
mod outside;
mod value;
mod world;

pub use definition::air_definition;
pub use journal::journal_record;
pub use mutate::Mutator;
pub use outside::{profile, protocol_line};
pub use value::{air_json, air_value};
pub use world::{receipt, reducer_output, saved_state, seeds};

/// A function that takes any bytes.
pub type Target = fn(&[u8]);

/// Every target by name, with the rounds that it gets in a test: about as many as it does in a second.
pub const TARGETS: &[(&str, Target, u32)] = &[
    ("journal_record", journal_record, 200_000),
    ("air_value", air_value, 200_000),
    ("air_json", air_json, 100_000),
    ("air_definition", air_definition, 30_000),
    ("receipt", receipt, 20_000),
    ("saved_state", saved_state, 20_000),
    ("reducer_output", reducer_output, 10_000),
    ("protocol_line", protocol_line, 200_000),
    ("profile", profile, 30_000),
];

/// The program of a target: libFuzzer's under `cargo fuzz`, otherwise one that runs it over the files that it is given.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::$name(data));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            std::env::args_os().skip(1).try_for_each(|file| std::fs::read(file).map(|bytes| $crate::$name(&bytes)))
        }
    };
}
