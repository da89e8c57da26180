//! The kit that hffs is tested with: a Hub that can break, machines that can be cut off, and a clock on every wait.
//!
//! Each test binary takes what it needs of it, so what one of them leaves unused is not dead.
#![allow(dead_code, unused_imports, reason = "each test binary uses another part of the kit")]
#![allow(unreachable_pub, reason = "the kit is a module of several binaries, and its API is marked as such")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test ends where its expectation does"
)]

pub mod command;
pub mod hub;
pub mod lab;
pub mod node;
pub mod python;

use std::time::{Duration, Instant};

/// Waits until `holds`, and says how long that took. A test that waits longer than `deadline` has failed.
pub fn until(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    loop {
        if holds() {
            return start.elapsed();
        }
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Seconds, as tests speak of them.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Waits until a count no longer changes, and gives it.
pub fn settle(what: &str, deadline: Duration, mut count: impl FnMut() -> u64) -> u64 {
    let mut last = (count(), Instant::now());
    until(what, deadline, || {
        let now = count();
        if now != last.0 {
            last = (now, Instant::now());
        }
        // Half a second without a change, at rates that change it every few milliseconds.
        last.1.elapsed() > Duration::from_millis(500)
    });
    last.0
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
}
