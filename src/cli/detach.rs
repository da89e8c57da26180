//! Starting the daemon as a process of its own.
//!
//! Knows processes, their standard streams and their environment. Does not know what the daemon does.
//! Invariant: whoever called the command and waits for its output never waits for the daemon's.

#[cfg_attr(unix, path = "detach/unix.rs")]
#[cfg_attr(windows, path = "detach/windows.rs")]
mod system;

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};

use super::exit::{Exit, Wrong};
use crate::control::docs;
use crate::limits;

fn missing_tuning() -> impl Iterator<Item = (&'static str, &'static str)> {
    system::TUNING.iter().copied().filter(|(name, _)| std::env::var_os(name).is_none())
}

/// Starts this program once more, in this process, with the allocator's settings in its environment.
/// Returns when they are there already, and where it cannot be done: it is only about speed.
pub(super) fn tune_this_process() {
    if missing_tuning().next().is_some()
        && let Some(error) = system::become_again(missing_tuning())
    {
        super::printer::tell(&format!("warning: could not tune the memory allocator: {error}"));
    }
}

/// Lets the closing of the terminal that a daemon was started from pass by.
pub(super) fn outlive_terminal() {
    system::outlive_terminal();
}

/// The command line that ends a process that does not end by itself.
pub(super) fn how_to_kill(pid: u32) -> String {
    format!("{} {pid}", system::KILL)
}

/// Starts the daemon in the background with these arguments, and waits until it says that it is ready.
/// When it ends instead, what it said on stderr is passed on.
pub(super) fn start(args: impl IntoIterator<Item = OsString>) -> anyhow::Result<Result<docs::Status, Exit>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(args).envs(missing_tuning());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = system::spawn_apart(&mut command)?;
    match first_word(&mut child) {
        Ok(Some(status)) => Ok(Ok(status)),
        Ok(None) => {
            let mut said = String::new();
            if let Some(stderr) = child.stderr.take() {
                // What cannot be read is not passed on; the code says that it failed.
                let _ = stderr.take(limits::STARTUP_WORDS_MAX).read_to_string(&mut said);
            }
            let ended = child.wait()?;
            if said.is_empty() {
                return Err(Wrong::new(format!("the daemon ended while it started: {ended}")).into());
            }
            let _ = io::stderr().lock().write_all(said.as_bytes());
            Ok(Err(Exit::Failed))
        }
        Err(_) => {
            child.kill()?;
            child.wait()?;
            Err(Wrong::new(format!("the daemon was not ready after {} s", limits::STARTUP.as_secs())).into())
        }
    }
}

/// The daemon's status, when it gets ready, or `None` when it ends without that.
fn first_word(child: &mut Child) -> Result<Option<docs::Status>, RecvTimeoutError> {
    let Some(stdout) = child.stdout.take() else { return Ok(None) };
    let (sender, receiver) = sync_channel(1);
    // A pipe has no read with a deadline, so a thread waits for it; it ends with the daemon's first line.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(stdout.take(limits::STARTUP_WORDS_MAX)).read_line(&mut line);
        let status = read.ok().and_then(|_| serde_json::from_str(&line).ok());
        let _ = sender.send(status);
    });
    receiver.recv_timeout(limits::STARTUP)
}
