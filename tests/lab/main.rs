//! Sentences about machines on a network: discovery, partitions, rates and bytes on the wire.
//!
//! Goal: what hffs promises a lab, measured at the cables and not asked of the program. Method: network namespaces
//! on a bridge (`kit::lab`), the real binary in each, a Hub with counters.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test ends where its expectation does, and tells what it measured"
)]

#[path = "../kit/mod.rs"]
mod kit;

mod bad_lines;
mod discovery;
mod fairness;
mod itself;
mod together;
mod transfer;
mod without_hub;
