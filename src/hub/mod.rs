//! The Hub: what a revision means, what a commit holds, and the bytes.
//!
//! Knows HTTP, the Hub's API, its mirrors and their faults. Does not know peers, disks or the cache.
//! Invariant: the token goes to the endpoint that the user named as the Hub and nowhere else: not to
//! a mirror, not past a redirect to another origin, not into a log.

mod address;
mod answer;
mod body;
mod data;
mod entry;
mod error;
mod health;
mod line;
mod listing;
mod resolve;
mod round;
#[cfg(test)]
mod tests;
mod transport;
mod ways;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use body::RangeBody;
pub use error::{Attempt, Error, Failure};
use health::{Health, Purpose, Route};
use transport::{Patience, Transport};
use ways::Ways;

use crate::config::{Access, Endpoint};
use crate::names::{BadName, Commit, Repo, RepoPath, Revision, Visibility};
use crate::tree::{self, Tree};

/// The way to the Hub and its mirrors. Clones share connections and what is known of the endpoints.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

/// Whether the token is needed to read a repo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grant {
    /// Anybody may read it, so the token is not sent.
    Anonymous,
    /// Only the token opens it, so only the Hub is asked.
    Token,
}

/// What a revision means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    pub commit: Commit,
    pub visibility: Visibility,
    pub grant: Grant,
    /// Who said so.
    pub endpoint: Endpoint,
}

/// All files of a commit, and the entries that no cache may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    pub tree: Tree,
    pub refused: Vec<Refusal>,
}

/// Why an entry of a listing was left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Name(#[from] BadName),
    #[error("`{path}` has no usable digest")]
    Digest { path: RepoPath },
    #[error(transparent)]
    TooLarge(#[from] tree::TooLarge),
}

/// What one file is, as `/resolve` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub commit: Commit,
    pub content: tree::Content,
    pub grant: Grant,
    pub endpoint: Endpoint,
}

/// Where a file's bytes are to be had, and what they have to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub repo: Repo,
    pub commit: Commit,
    pub path: RepoPath,
    pub content: tree::Content,
    pub grant: Grant,
}

/// What to do with an endpoint that ignores ranges and sends the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Read it from its first byte; the caller uses what it wants.
    FromStart,
    /// Only the bytes that were asked for are wanted.
    Exact,
}

impl Hub {
    /// Sets up the HTTPS machinery; connections are made when they are needed.
    pub fn new() -> Self {
        Self::with_patience(Patience::default())
    }

    fn with_patience(patience: Patience) -> Self {
        // It fails only when a provider is installed already, and then there is one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let transport = Transport::new(patience);
        Self { shared: Arc::new(Shared { transport, health: Mutex::default(), ways: Ways::default() }) }
    }

    /// Asks what a revision means, endpoint after endpoint.
    pub async fn resolve(&self, access: &Access, repo: &Repo, revision: &Revision) -> Result<Resolved, Error> {
        resolve::resolve(&self.shared, access, repo, revision).await
    }

    /// Asks for all files of a commit.
    pub async fn tree(&self, access: &Access, repo: &Repo, commit: &Commit, grant: Grant) -> Result<Listing, Error> {
        listing::tree(&self.shared, access, repo, commit, grant).await
    }

    /// Asks `/resolve` what one file is: the last resort with endpoints that serve files but no API.
    pub async fn entry(
        &self,
        access: &Access,
        repo: &Repo,
        revision: &Revision,
        path: &RepoPath,
    ) -> Result<Entry, Error> {
        entry::entry(&self.shared, access, repo, revision, path).await
    }

    /// The endpoints that are believed good for the bytes of a repo that is read so, in the user's order.
    pub fn endpoints_for_data(&self, access: &Access, grant: Grant, now: Instant) -> Vec<Endpoint> {
        if access.offline {
            return Vec::new();
        }
        let health = self.shared.health();
        let good = |endpoint: &&Endpoint| {
            let route = Route::new(endpoint, &access.proxies);
            round::may_be_asked(endpoint, grant) && health.failure(&route, Purpose::Bytes, now).is_none()
        };
        access.endpoints.iter().filter(good).cloned().collect()
    }

    /// Asks one endpoint for a part of a file. What lies beyond the file's end is not asked for.
    pub async fn range(
        &self,
        access: &Access,
        endpoint: &Endpoint,
        place: &Place,
        bytes: Range<u64>,
        reading: Reading,
    ) -> Result<RangeBody, Error> {
        data::range(&self.shared, access, endpoint, place, bytes, reading).await
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self::new()
    }
}

/// What all clones of a `Hub` have in common.
struct Shared {
    transport: Transport,
    health: Mutex<Health>,
    ways: Ways,
}

impl Shared {
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
