//! Why the daemon cannot run.
//!
//! Knows the rooms that can refuse to start. Does not know why they do.
//! Invariant: every one of them tells the user what to do, where there is something.

use std::io;
use std::path::PathBuf;

use crate::{cache, config, control, hub, partial, swarm};

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Control(#[from] control::Error),
    #[error(transparent)]
    Cache(#[from] cache::Error),
    #[error(transparent)]
    Partial(#[from] partial::Error),
    #[error(transparent)]
    Hub(#[from] hub::Error),
    #[error(transparent)]
    Swarm(#[from] swarm::Error),
    #[error("could not use `{}`", path.display())]
    Unfinished { path: PathBuf, source: io::Error },
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Config(error) => error.hint(),
            Error::Control(error) => error.hint(),
            Error::Cache(error) => error.hint().map(str::to_owned),
            Error::Partial(error) => error.hint().map(str::to_owned),
            Error::Hub(error) => error.hint(),
            Error::Swarm(error) => error.hint(),
            Error::Unfinished { .. } => Some("give yourself the right to read and write there".to_owned()),
        }
    }
}
