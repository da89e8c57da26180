//! How Windows ends a process with a console: its window is closed, its user logs off, or all shuts down.
//!
//! Knows what consoles tell. Does not know what is to end; `unix.rs` is its twin.
//! Invariant: an event that cannot be heard ends nothing.
//!
//! A daemon in the background has no console and is ended at log-off without a word, which costs it no
//! more than a power cut would.

use std::io;

use tokio::signal::windows::{ctrl_break, ctrl_close, ctrl_logoff, ctrl_shutdown};
use tracing::warn;

/// Waits until the system tells this process to end.
pub(super) async fn told_to_end() {
    if let Err(error) = first_event().await {
        warn!(%error, "the end of the console cannot be heard");
        std::future::pending().await
    }
}

async fn first_event() -> io::Result<()> {
    let (mut broken, mut closed) = (ctrl_break()?, ctrl_close()?);
    let (mut logged_off, mut shut_down) = (ctrl_logoff()?, ctrl_shutdown()?);
    tokio::select! {
        _ = broken.recv() => {}
        _ = closed.recv() => {}
        _ = logged_off.recv() => {}
        _ = shut_down.recv() => {}
    }
    Ok(())
}
