//! Every target over its seeds, and over as many mutations of them as take about a second. `FUZZ_ROUNDS=30` makes it thirty
//! times as many, `FUZZ_SEED` others. An input that is too much for a target is printed as hex.

use std::path::{Path, PathBuf};
use std::{env, fs, thread};

use agentd_fuzz::{Mutator, TARGETS, Target};

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus-seeds").join(target);
    let files = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a seed").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("a seed"))).collect()
}

/// Says which input it was, if the target panics.
struct Shown<'a>(&'a str, &'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let hex: String = self.1.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("{} fails on\n{hex}", self.0);
        }
    }
}

fn run(name: &str, target: Target, bytes: &[u8]) {
    let _shown = Shown(name, bytes);
    target(bytes);
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|error| panic!("{variable}: {error}")))
}

fn check(name: &str) {
    let (name, target, rounds) = *TARGETS.iter().find(|(found, ..)| *found == name).expect("a target");
    let seeds: Vec<Vec<u8>> = seeds(name).into_iter().map(|(_, bytes)| bytes).collect();
    assert!(seeds.len() >= 3, "{name} has seeds");
    seeds.iter().for_each(|seed| run(name, target, seed));
    run(name, target, &[]);
    let mut mutator = Mutator::new(number("FUZZ_SEED").unwrap_or(0x5f1c));
    for _ in 0..u64::from(rounds) * number("FUZZ_ROUNDS").unwrap_or(1) {
        run(name, target, &mutator.mutated(&seeds));
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        #[test]
        fn every_target_is_tested() {
            let tested = [$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|(name, ..)| *name).collect::<Vec<_>>(), tested);
        }
    };
}

targets! {
    journal_record
    air_value
    air_json
    air_definition
    receipt
    saved_state
    reducer_output
    protocol_line
    profile
}

#[test]
fn the_seeds_are_those_that_this_program_makes() {
    for (target, name, bytes) in agentd_fuzz::seeds() {
        let found = seeds(target).into_iter().find(|(path, _)| path.file_name().unwrap() == name);
        let same = found.is_some_and(|(_, committed)| committed == bytes);
        assert!(same, "{target}/{name} is another; cargo run --manifest-path fuzz/Cargo.toml --example seeds");
    }
}
