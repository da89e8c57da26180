//! Ways: how a file's bytes are reached at an endpoint, learnt once and used for all its ranges.
//!
//! Knows addresses, signed ones above all, and their age. Does not know ranges.
//! Invariant: at most one question for a file's address is under way at one time, because a lab
//! behind one address shares the Hub's limit for such questions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use reqwest::Url;

use super::health::Route;
use super::{Grant, Place};
use crate::limits;
use crate::names::{Commit, Repo, RepoPath};

/// What is known of the way to one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Way {
    #[default]
    Unknown,
    /// The endpoint sends the bytes itself.
    Direct,
    /// They are sent from an address that is good for a while.
    Leads { to: Address, since: Instant },
}

/// An address that `/resolve` gave out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// On the endpoint's own origin, where the token may be needed as well.
    Home(Url),
    /// On a data host, which needs no more than the signature in it.
    Abroad(Url),
}

impl Address {
    pub(super) fn url(&self) -> &Url {
        match self {
            Address::Home(url) | Address::Abroad(url) => url,
        }
    }
}

impl Way {
    /// A way to an address that was given out just now.
    pub(super) fn to(address: &Address) -> Self {
        Way::Leads { to: address.clone(), since: Instant::now() }
    }

    /// The address, while it is young enough.
    pub(super) fn address(&self, now: Instant) -> Option<Address> {
        match self {
            Way::Leads { to, since } if now.saturating_duration_since(*since) < limits::HUB_SIGNED_FOR => {
                Some(to.clone())
            }
            _ => None,
        }
    }

    /// Drops an address that did not work, unless somebody has learnt a newer one since.
    pub(super) fn forget(&mut self, bad: &Address) {
        if matches!(self, Way::Leads { to, .. } if to == bad) {
            *self = Way::Unknown;
        }
    }
}

/// A way, held by whoever is finding it out.
pub(super) type SharedWay = Arc<tokio::sync::Mutex<Way>>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    route: Route,
    repo: Repo,
    commit: Commit,
    path: RepoPath,
    grant: Grant,
}

/// The ways of the files that were asked for lately.
#[derive(Default)]
pub(super) struct Ways {
    known: Mutex<HashMap<Key, (Instant, SharedWay)>>,
}

impl Ways {
    /// The way to a file, shared by all its ranges. The one that was used least lately makes room.
    pub(super) fn to(&self, route: &Route, place: &Place, now: Instant) -> SharedWay {
        let key = Key {
            route: route.clone(),
            repo: place.repo.clone(),
            commit: place.commit.clone(),
            path: place.path.clone(),
            grant: place.grant,
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= limits::HUB_WAYS_MAX
            && !known.contains_key(&key)
            && let Some(oldest) = known.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone())
        {
            known.remove(&oldest);
        }
        let (used, way) = known.entry(key).or_insert_with(|| (now, SharedWay::default()));
        *used = now;
        way.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_address_is_used_while_it_is_young() {
        let since = Instant::now();
        let address = |text| Address::Abroad(Url::parse(text).unwrap());
        let young = address("https://cdn.test/x?sig=1");
        let mut way = Way::Leads { to: young.clone(), since };
        assert_eq!(way.address(since), Some(young.clone()));
        assert_eq!(way.address(since + limits::HUB_SIGNED_FOR), None);
        way.forget(&address("https://cdn.test/x?sig=0"));
        assert!(way.address(since).is_some(), "an older address failed, not this one");
        way.forget(&young);
        assert_eq!(way, Way::Unknown);
    }
}
