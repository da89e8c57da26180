//! A process apart, on Unix: in a process group of its own.
//!
//! Knows process groups, `exec` and hang-ups. Does not know what the process does; `windows.rs` is its
//! twin.
//! Invariant: what the terminal tells its processes never reaches what was started apart.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use tokio::signal::unix::{SignalKind, signal};

/// What ends a process whose id follows.
pub(super) const KILL: &str = "kill -9";

/// Starts a command apart from this terminal: Ctrl-C in it is for what runs in it.
pub(super) fn spawn_apart(command: &mut Command) -> io::Result<Child> {
    command.process_group(0).spawn()
}

/// Starts this program once more in this very process, with more in its environment. Returns only when
/// that failed, or where nothing is known of this program.
pub(super) fn become_again(more: impl Iterator<Item = (&'static str, &'static str)>) -> Option<io::Error> {
    let mut again = Command::new(std::env::current_exe().ok()?);
    let mut args = std::env::args_os();
    if let Some(name) = args.next() {
        again.arg0(name);
    }
    Some(again.args(args).envs(more).exec())
}

/// Lets the end of the terminal pass by. Called where tasks can be spawned.
pub(super) fn outlive_terminal() {
    if let Ok(mut hangups) = signal(SignalKind::hangup()) {
        tokio::spawn(async move { while hangups.recv().await.is_some() {} });
    }
}
