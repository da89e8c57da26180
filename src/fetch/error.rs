//! Why an add failed, and what the user can do about it.
//!
//! Knows the sentences and hints. Does not know how it came about.
//! Invariant: what stays on disk is told wherever something does.

use crate::digest::Digest;
use crate::names::{Repo, RepoPath, Revision};
use crate::{cache, hub, partial};

/// Why files could not be brought here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Hub(#[from] hub::Error),
    /// Nobody who may be believed says what the revision means.
    #[error("nobody can say what `{revision}` of `{}` is: {hub}", .repo.id)]
    NoName { repo: Repo, revision: Revision, hub: hub::Error },
    #[error("`{}` has no file `{path}` at `{revision}`", .repo.id)]
    NoFile { repo: Repo, revision: Revision, path: RepoPath },
    #[error("no file of `{}` is selected by {globs}", .repo.id)]
    NothingSelected { repo: Repo, globs: String },
    #[error("glob `{glob}` cannot be read: {why}")]
    BadGlob { glob: String, why: String },
    /// Nobody is left to bring the rest of a file.
    #[error("no source is left for `{path}`{}", list(.reasons))]
    NoSource { path: RepoPath, reasons: Vec<String>, offline: bool },
    /// The file came, and is not what it should be, whoever was asked.
    #[error("`{path}` has digest `{found}` and not the one it should have; it came from {}", .sources.join(", "))]
    Wrong { path: RepoPath, sources: Vec<String>, found: Digest },
    #[error("`{path}` does not become whole: its pieces change on disk while it is put together")]
    NeverWhole { path: RepoPath },
    #[error(transparent)]
    Partial(partial::Error),
    #[error(transparent)]
    Cache(#[from] cache::Error),
    #[error("{failed} of {files} files failed; first: {first}")]
    Several { failed: usize, files: usize, first: Box<Error> },
    /// The user has had enough.
    #[error("the add was cancelled; what has come is kept, and the next add goes on from there")]
    Cancelled,
    /// The daemon is ending, or a part of it broke.
    #[error("the daemon is shutting down; the add goes on when it starts again")]
    Interrupted,
    #[error("{0}")]
    Shared(String, Option<String>),
}

impl Error {
    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Hub(error) => error.hint(),
            Error::NoName { hub, .. } => Some(format!(
                "pair with a machine that has it (`hffs peer add IP`), or reach the Hub: {}",
                hub.hint().unwrap_or_else(|| "check the network".to_owned())
            )),
            Error::NoFile { .. } => Some("check the path as the Hub shows it; capitals matter".to_owned()),
            Error::NothingSelected { .. } => Some("check `--include` and `--exclude`".to_owned()),
            Error::NoSource { offline: true, .. } => Some(
                "no peer holds it and hffs is offline: unset HF_HUB_OFFLINE, or start a machine that has it".to_owned(),
            ),
            Error::NoSource { .. } => {
                Some("what has come is kept: `hffs model add` goes on from there when a source is back".to_owned())
            }
            Error::Wrong { .. } => Some("add it again with another endpoint (HF_ENDPOINT)".to_owned()),
            Error::Partial(error) => error.hint().map(str::to_owned),
            Error::Cache(error) => error.hint().map(str::to_owned),
            Error::Several { first, .. } => first.hint(),
            Error::Shared(_, hint) => hint.clone(),
            Error::BadGlob { .. } | Error::NeverWhole { .. } | Error::Cancelled | Error::Interrupted => None,
        }
    }

    /// Whether trying again later without a change by the user may work.
    pub fn may_pass(&self) -> bool {
        match self {
            Error::Hub(error) => !error.is_final(),
            Error::NoName { .. } | Error::NoSource { .. } | Error::Interrupted | Error::Shared(..) => true,
            Error::Partial(_) | Error::Cache(_) => true,
            Error::Several { first, .. } => first.may_pass(),
            Error::NoFile { .. }
            | Error::NothingSelected { .. }
            | Error::BadGlob { .. }
            | Error::Wrong { .. }
            | Error::NeverWhole { .. }
            | Error::Cancelled => false,
        }
    }

    /// The same failure, told to another add that waited for the same file.
    pub(super) fn retold(&self) -> Error {
        Error::Shared(self.to_string(), self.hint())
    }
}

fn list(reasons: &[String]) -> String {
    if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) }
}
