//! A launched agent is what the launcher says it is: run as root on a Linux host, with cgroups of its own making.
//!
//! Nothing is skipped: a host that cannot do what a test is about fails it.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy takes for something else")]

mod confinement;
mod lab;
mod life;
mod program;
mod streams;
mod view;
