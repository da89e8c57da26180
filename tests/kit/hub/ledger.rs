//! What the test Hub saw and sent: the independent count that a test believes.

use std::collections::{BTreeMap, BTreeSet};

use super::Host;

/// One request and what it got.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Seen {
    pub host: Host,
    pub method: String,
    /// The kind of route: `info`, `revision`, `tree`, `paths-info`, `refs`, `resolve`, `resolve-cache`, `data`,
    /// `xet` or `other`.
    pub route: &'static str,
    /// The URL's path and query.
    pub target: String,
    pub file: Option<String>,
    pub range: Option<String>,
    pub authorization: Option<String>,
    pub user_agent: Option<String>,
    /// Whether the client took this address for its proxy.
    pub proxied: bool,
    pub status: u16,
}

#[derive(Default, serde::Serialize)]
pub struct Ledger {
    pub seen: Vec<Seen>,
    sent: BTreeMap<String, u64>,
}

impl Ledger {
    pub(super) fn note_sent(&mut self, path: &str, bytes: u64) {
        *self.sent.entry(path.to_owned()).or_default() += bytes;
    }

    pub fn sent(&self, path: &str) -> u64 {
        self.sent.get(path).copied().unwrap_or_default()
    }

    pub fn sent_in_all(&self) -> u64 {
        self.sent.values().sum()
    }

    /// Requests of a route, or of a method and a route, say `HEAD resolve`.
    pub fn requests(&self, label: &str) -> usize {
        let (method, route) = label.split_once(' ').map_or((None, label), |(method, route)| (Some(method), route));
        self.seen.iter().filter(|seen| seen.route == route && method.is_none_or(|method| seen.method == method)).count()
    }

    pub fn tokens(&self, host: Host) -> BTreeSet<String> {
        self.seen.iter().filter(|seen| seen.host == host).filter_map(|seen| seen.authorization.clone()).collect()
    }
}
