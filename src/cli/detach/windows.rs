//! A process apart, on Windows: without a console, and with no handle of ours but those it is given.
//!
//! Knows consoles, jobs and inherited handles. Does not know what the process does; `unix.rs` is its
//! twin.
//! Invariant: what was started apart has no window, hears no Ctrl-C, and keeps nobody waiting for the
//! end of this process's output.

use std::io;
use std::os::windows::process::CommandExt;
use std::process::{Child, Command};

use filedescriptor::{FileDescriptor, StdioDescriptor};

/// <https://learn.microsoft.com/windows/win32/procthread/process-creation-flags>
const DETACHED_PROCESS: u32 = 0x8;
const CREATE_BREAKAWAY_FROM_JOB: u32 = 0x0100_0000;

/// What ends a process whose id follows.
pub(super) const KILL: &str = "taskkill /F /PID";

/// What the allocator is told at the start of a daemon: the one of Windows listens to nobody.
pub(super) const TUNING: &[(&str, &str)] = &[];

/// Starts a command apart from this console.
///
/// A remote log-in and some terminals end all of a job when they end; where a job lets nobody out, the
/// command starts in it.
pub(super) fn spawn_apart(command: &mut Command) -> io::Result<Child> {
    keep_own_handles();
    command.creation_flags(DETACHED_PROCESS | CREATE_BREAKAWAY_FROM_JOB).spawn().or_else(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => command.creation_flags(DETACHED_PROCESS).spawn(),
        _ => Err(error),
    })
}

/// Lets no child inherit this process's own standard streams.
///
/// Windows gives a child every handle that can be inherited, and the ones that a caller gave us can be:
/// whoever reads our output to its end would wait for the daemon's. Their duplicates cannot, and take
/// their places; the originals close together, because two streams may share one.
fn keep_own_handles() {
    let streams = [StdioDescriptor::Stdin, StdioDescriptor::Stdout, StdioDescriptor::Stderr];
    let originals = streams.map(|stream| match stream {
        StdioDescriptor::Stdin => FileDescriptor::redirect_stdio(&io::stdin(), stream),
        StdioDescriptor::Stdout => FileDescriptor::redirect_stdio(&io::stdout(), stream),
        StdioDescriptor::Stderr => FileDescriptor::redirect_stdio(&io::stderr(), stream),
    });
    drop(originals);
}

/// Nothing of a process's own is changed by starting it once more: there is nothing to tune here.
pub(super) fn become_again(_: impl Iterator<Item = (&'static str, &'static str)>) -> Option<io::Error> {
    None
}

/// A process without a console is told nothing of one that ends.
pub(super) fn outlive_terminal() {}
