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

/// What glibc's allocator is told at the start of a daemon, where the user has not told it otherwise.
///
/// yamux and noise allocate a buffer for each frame. As glibc comes, it gives the larger ones back to the
/// system at once and faults them in again for the next frame: a hundred thousand page faults for each
/// GiB, a third of all CPU time of a transfer. With these it keeps them. The last one makes `memcpy`
/// avoid `rep movsb`, which on some processors is half as fast for buffers that do not begin at a page.
/// All of it is read before `main`, so it can only come from the environment.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) const TUNING: &[(&str, &str)] = &[
    ("MALLOC_MMAP_THRESHOLD_", "1073741824"),
    ("MALLOC_TRIM_THRESHOLD_", "1073741824"),
    ("MALLOC_TOP_PAD_", "67108864"),
    ("MALLOC_ARENA_MAX", "2"),
    #[cfg(target_arch = "x86_64")]
    ("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=1073741824"),
];
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) const TUNING: &[(&str, &str)] = &[];

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
