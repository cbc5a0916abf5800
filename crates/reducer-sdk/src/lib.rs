//! What does a reducer see? The guest side of the contract between a world and its reducers.

#![no_std]

extern crate alloc;

pub mod abi;
