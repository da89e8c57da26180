//! Sentences about the program on one machine: its daemon, its commands, a Hub that has bad days, and what is on disk.
//!
//! Goal: what the command line promises, and that no fault of a Hub, a mirror, a peer, a disk or a user costs a wrong
//! byte. Method: the real binary with work directories of its own, a Hub with counters, and the cache read by the test
//! itself.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test ends where its expectation does, and tells what it measured"
)]

#[path = "../kit/mod.rs"]
mod kit;

mod adding;
mod bad_days;
mod bad_input;
mod daemon;
mod hub_itself;
mod limiting;
mod naming;
mod removing;
mod resuming;
mod sharing;
