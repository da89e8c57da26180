//! How Unix ends a process: by SIGTERM.
//!
//! Knows that signal. Does not know what is to end; `windows.rs` is its twin.
//! Invariant: a signal that cannot be heard ends nothing.

use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;

/// Waits until the system tells this process to end.
pub(super) async fn told_to_end() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => drop(terminate.recv().await),
        Err(error) => {
            warn!(%error, "SIGTERM cannot be heard");
            std::future::pending().await
        }
    }
}
