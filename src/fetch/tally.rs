//! Tallies: what one file has cost so far, and how far it is.
//!
//! Knows numbers of bytes and where they came from. Does not know the file.
//! Invariant: a byte is counted when it crossed the network, whether it was of use or not.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::landing::lock;
use crate::names::PeerId;
use crate::plan::Source;

/// The counters of one file. All counts are bytes of payload.
#[derive(Debug, Default)]
pub struct Tally {
    hub: AtomicU64,
    peers: Mutex<BTreeMap<PeerId, u64>>,
    done: AtomicU64,
    resumed: AtomicU64,
    busy_peers: AtomicUsize,
    busy_endpoints: AtomicUsize,
}

impl Tally {
    pub(super) fn received(&self, source: &Source, bytes: u64) {
        match source {
            Source::Endpoint(_) => {
                self.hub.fetch_add(bytes, Ordering::Relaxed);
            }
            Source::Peer(peer) => *lock(&self.peers).entry(peer.clone()).or_default() += bytes,
        }
    }

    pub(super) fn resumed(&self, bytes: u64) {
        self.resumed.store(bytes, Ordering::Relaxed);
        self.done.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn done(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn undone(&self, bytes: u64) {
        self.done.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn busy(&self, (peers, endpoints): (usize, usize)) {
        self.busy_peers.store(peers, Ordering::Relaxed);
        self.busy_endpoints.store(endpoints, Ordering::Relaxed);
    }

    /// What came from endpoints.
    pub fn hub_bytes(&self) -> u64 {
        self.hub.load(Ordering::Relaxed)
    }

    /// What came from each peer.
    pub fn peer_bytes(&self) -> BTreeMap<PeerId, u64> {
        lock(&self.peers).clone()
    }

    /// What is complete and in its place, with what an earlier run brought.
    pub fn done_bytes(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// What an earlier run had brought and was found good.
    pub fn resumed_bytes(&self) -> u64 {
        self.resumed.load(Ordering::Relaxed)
    }

    /// How many peers and endpoints are bringing pieces now.
    pub fn busy_sources(&self) -> (usize, usize) {
        (self.busy_peers.load(Ordering::Relaxed), self.busy_endpoints.load(Ordering::Relaxed))
    }
}
