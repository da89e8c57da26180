//! How a command ends: its exit code, and what it tells the user who can do something about it.
//!
//! Knows every room's errors, to find the hint in them. Does not know the commands.
//! Invariant: each way to end has the one code that the command line promises.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::names::clean;
use crate::{cache, config, control, daemon, partial};

/// The ways a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Done,
    Failed,
    NoDaemon,
    Interrupted,
}

/// What a command comes to.
pub(super) type Outcome = anyhow::Result<Exit>;

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        // 2, a wrong command line, is given by the parser itself.
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::NoDaemon => 3,
            Exit::Interrupted => 130,
        })
    }
}

/// What is wrong in the words of a command itself, and what the user can do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Wrong {
    message: String,
    hint: Option<String>,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Tells an outcome on stderr, as far as there is something to tell, and gives its code.
pub(super) fn report(outcome: Outcome) -> ExitCode {
    let error = match outcome {
        Ok(exit) => return exit.into(),
        Err(error) => error,
    };
    // Whoever reads our stdout has enough of it: `hffs model ls | head -1`.
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return Exit::Done.into();
    }
    let mut text = format!("error: {}\n", one_line(&error));
    if let Some(hint) = hint_of(&error) {
        text.push_str(&format!("hint: {}\n", clean(&hint, 1_000)));
    }
    // Where even stderr is closed, the code has to do.
    let _ = io::stderr().lock().write_all(text.as_bytes());
    let no_daemon = matches!(error.downcast_ref(), Some(control::Error::NoDaemon { .. }));
    if no_daemon { Exit::NoDaemon.into() } else { Exit::Failed.into() }
}

/// The error and its causes; a cause that its effect already quotes is not told twice.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    clean(&text, 2_000)
}

fn hint_of(error: &anyhow::Error) -> Option<String> {
    let wrong = error.downcast_ref::<Wrong>().and_then(|error| error.hint.clone());
    let config = || error.downcast_ref::<config::Error>().and_then(config::Error::hint);
    let control = || error.downcast_ref::<control::Error>().and_then(control::Error::hint);
    let daemon = || error.downcast_ref::<daemon::Error>().and_then(daemon::Error::hint);
    let cache = || error.downcast_ref::<cache::Error>().and_then(cache::Error::hint).map(str::to_owned);
    let partial = || error.downcast_ref::<partial::Error>().and_then(partial::Error::hint).map(str::to_owned);
    wrong.or_else(config).or_else(control).or_else(daemon).or_else(cache).or_else(partial)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_causes_and_no_escapes() {
        let source = io::Error::other("\u{1b}[2Jdisk on fire");
        let error = config::Error::Write { path: "/x".into(), source };
        assert_eq!(one_line(&error.into()), "could not write `/x`: \\u{1b}[2Jdisk on fire");
        // `Broken` quotes its cause already.
        let error = control::Error::Broken(io::Error::other("cut"));
        assert_eq!(one_line(&error.into()), "the daemon went away: cut");
    }

    #[test]
    fn hints_are_found_in_every_rooms_errors() {
        let no_daemon = || control::Error::NoDaemon { home: "/x".into() };
        assert_eq!(hint_of(&no_daemon().into()).as_deref(), Some("hffs daemon start"));
        assert_eq!(hint_of(&daemon::Error::Control(no_daemon()).into()).as_deref(), Some("hffs daemon start"));
        assert!(hint_of(&config::Error::NoHome.into()).is_some());
        assert_eq!(hint_of(&Wrong::new("x").hint("do y").into()).as_deref(), Some("do y"));
        assert_eq!(hint_of(&Wrong::new("x").into()), None);
    }
}
