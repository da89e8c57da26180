//! Our requests to others that are under way.
//!
//! Knows which request belongs to which waiting caller. Does not know what is asked.
//! Invariant: each caller is answered once, or finds its channel closed; and no peer has more than
//! `REQUESTS_PER_PEER_MAX` requests of one kind from us, nor large ones in all of these places.

use std::collections::HashMap;
use std::time::Instant;

use libp2p::request_response::{OutboundFailure, OutboundRequestId};
use tokio::sync::oneshot;

use super::Error;
use crate::limits;
use crate::names::PeerId;

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// Requests of one kind.
pub(super) struct Calls<T> {
    waiting: HashMap<OutboundRequestId, Waiting<T>>,
}

/// How long a request keeps its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    Small,
    Large,
}

struct Waiting<T> {
    peer: PeerId,
    weight: Weight,
    reply: Reply<T>,
    since: Instant,
}

impl<T> Calls<T> {
    pub(super) fn new() -> Self {
        Self { waiting: HashMap::new() }
    }

    /// Whether the peer may be asked one thing more.
    ///
    /// What has no room is `Busy` at once and does not queue here: a request in a queue looks like one
    /// under way that moves no byte, so its caller would take the peer for stuck. Whoever asks can give a
    /// request that is busy to another source, or ask for something else first.
    pub(super) fn has_room(&self, peer: &PeerId, weight: Weight) -> bool {
        let of_peer = || self.waiting.values().filter(|waiting| waiting.peer == *peer);
        let large = || of_peer().filter(|waiting| waiting.weight == Weight::Large).count();
        of_peer().count() < limits::REQUESTS_PER_PEER_MAX
            && (weight == Weight::Small || large() < limits::LARGE_REQUESTS_PER_PEER_MAX)
    }

    pub(super) fn sent(
        &mut self,
        id: OutboundRequestId,
        (peer, weight): (PeerId, Weight),
        reply: Reply<T>,
        now: Instant,
    ) {
        self.waiting.insert(id, Waiting { peer, weight, reply, since: now });
    }

    /// Hands an outcome to whoever waits for it; a caller that left is none.
    pub(super) fn ended(&mut self, id: OutboundRequestId, outcome: Result<T, Error>) {
        if let Some(waiting) = self.waiting.remove(&id) {
            let _ = waiting.reply.send(outcome);
        }
    }

    /// Forgets callers that left long ago. Their requests end by themselves, with an event, unless their
    /// connection's task died; then nothing else would ever free their place.
    pub(super) fn forget_the_left(&mut self, now: Instant) {
        let lasts = |waiting: &Waiting<T>| now.saturating_duration_since(waiting.since) < limits::CALL_LEFT;
        self.waiting.retain(|_, waiting| !waiting.reply.is_closed() || lasts(waiting));
    }

    /// Drops all requests: their callers learn that the peer is gone.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

/// Why a request failed, in our words.
pub(super) fn failure(failure: OutboundFailure) -> Error {
    match failure {
        OutboundFailure::Timeout => Error::Timeout,
        OutboundFailure::UnsupportedProtocols => Error::Unsupported,
        OutboundFailure::DialFailure | OutboundFailure::ConnectionClosed | OutboundFailure::Io(_) => Error::Gone,
    }
}
