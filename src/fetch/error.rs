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
    /// A name that this system cannot give to a file.
    #[error("`{name}` cannot be had here: {why}")]
    Unfit { name: String, why: String },
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
    Several { failed: usize, files: usize, first: Box<Error>, lasting: Lasting },
    /// The user has had enough.
    #[error("the add was cancelled; what has come is kept, and the next add goes on from there")]
    Cancelled,
    /// The daemon is ending, or a part of it broke.
    #[error("the daemon is shutting down; the add goes on when it starts again")]
    Interrupted,
    /// The download of another add that this one waited for failed.
    #[error("{text}")]
    Shared { text: String, hint: Option<String>, lasting: Lasting },
}

/// Whether a failure stays until the user changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    MayPass,
    Stays,
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
            Error::Unfit { .. } => Some("a machine with Linux can have it".to_owned()),
            Error::NothingSelected { .. } => Some("check `--include` and `--exclude`".to_owned()),
            Error::NoSource { offline: true, .. } => Some(
                "no peer holds it and hffs is offline: unset HF_HUB_OFFLINE, or start a machine that has it".to_owned(),
            ),
            Error::NoSource { .. } => Some("what has come is kept until a source is back".to_owned()),
            Error::Wrong { .. } => Some("add it again with another endpoint (HF_ENDPOINT)".to_owned()),
            Error::Partial(error) => error.hint().map(str::to_owned),
            Error::Cache(error) => error.hint().map(str::to_owned),
            Error::Several { first, .. } => first.hint(),
            Error::Shared { hint, .. } => hint.clone(),
            Error::BadGlob { .. } | Error::NeverWhole { .. } | Error::Cancelled | Error::Interrupted => None,
        }
    }

    /// Whether trying again later without a change by the user may work.
    pub fn may_pass(&self) -> bool {
        match self {
            Error::Hub(error) => !error.is_final(),
            Error::NoName { .. } | Error::NoSource { .. } | Error::Interrupted => true,
            Error::Partial(_) | Error::Cache(_) => true,
            Error::Several { lasting, .. } | Error::Shared { lasting, .. } => *lasting == Lasting::MayPass,
            Error::NoFile { .. }
            | Error::NothingSelected { .. }
            | Error::Unfit { .. }
            | Error::BadGlob { .. }
            | Error::Wrong { .. }
            | Error::NeverWhole { .. }
            | Error::Cancelled => false,
        }
    }

    /// Whether the Hub wants a token that this add has not got, or another one.
    pub fn wants_token(&self) -> bool {
        use hub::Error as H;
        matches!(self, Error::Hub(H::NeedsToken { .. } | H::Gated { .. } | H::BadToken { .. }))
    }

    /// The same failure, told to whoever waited for the file. That one of them has had enough is nothing
    /// that stays for the others.
    pub(super) fn retold(&self) -> Error {
        let lasting =
            if self.may_pass() || matches!(self, Error::Cancelled) { Lasting::MayPass } else { Lasting::Stays };
        Error::Shared { text: self.to_string(), hint: self.hint(), lasting }
    }

    /// What an add of so many files fails with, if any of them failed. Trying again may help if it may
    /// help with any.
    pub(super) fn of_several(errors: Vec<Error>, files: usize) -> Option<Error> {
        let failed = errors.len();
        let lasting = if errors.iter().any(Error::may_pass) { Lasting::MayPass } else { Lasting::Stays };
        let first = errors.into_iter().next()?;
        let alone = failed == 1 && files == 1;
        Some(if alone { first } else { Error::Several { failed, files, first: Box::new(first), lasting } })
    }
}

fn list(reasons: &[String]) -> String {
    if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> RepoPath {
        "a.bin".parse().unwrap()
    }

    fn wrong() -> Error {
        Error::Wrong { path: path(), sources: Vec::new(), found: Digest::Sha256([0; 32]) }
    }

    fn no_source() -> Error {
        Error::NoSource { path: path(), reasons: Vec::new(), offline: false }
    }

    #[test]
    fn a_failure_that_is_retold_is_as_lasting_as_it_was() {
        assert!(no_source().retold().may_pass());
        assert!(!wrong().retold().may_pass());
        assert!(!wrong().retold().retold().may_pass());
        assert!(!Error::Cancelled.may_pass() && Error::Cancelled.retold().may_pass());
        assert_eq!(no_source().retold().to_string(), no_source().to_string());
        assert_eq!(no_source().retold().hint(), no_source().hint());
    }

    #[test]
    fn several_failures_may_pass_if_one_of_them_may() {
        let several = |errors| Error::of_several(errors, 3).unwrap();
        assert!(!several(vec![wrong(), wrong()]).may_pass());
        assert!(several(vec![wrong(), no_source()]).may_pass());
        assert!(Error::of_several(Vec::new(), 3).is_none());
        assert!(matches!(Error::of_several(vec![wrong()], 1), Some(Error::Wrong { .. })));
    }
}
