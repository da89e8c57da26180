//! Others' requests to us that are being worked on.
//!
//! Knows how many each peer has, and runs the rooms that answer them. Does not know what is asked.
//! Invariant: no peer has more than `REQUESTS_PER_PEER_MAX` requests of one kind worked on, all together no more
//! than `REQUESTS_MAX`, and none is thought about for longer than `SERVE_WAIT`. Beyond that we are busy.

use std::collections::HashMap;
use std::sync::Arc;

use libp2p::request_response::{InboundRequestId, ResponseChannel};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::query::Reply;
use super::transfer::Outcome;
use super::{Asker, Body, Refusal, Serve};
use crate::limits;
use crate::names::PeerId;
use crate::pace::Toll;
use crate::wire::{Answer, PieceRequest, Query};

/// Names a request of either protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Incoming {
    Query(InboundRequestId),
    Pieces(InboundRequestId),
}

/// The protocols. Each has its places, so that whoever fetches much can still ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Query,
    Pieces,
}

impl Incoming {
    fn kind(self) -> Kind {
        match self {
            Incoming::Query(_) => Kind::Query,
            Incoming::Pieces(_) => Kind::Pieces,
        }
    }
}

/// What is to be sent back.
pub(super) enum Ready {
    Answer(ResponseChannel<Reply>, Answer),
    Stretch(ResponseChannel<Outcome>, Result<(Body, Toll), Refusal>),
}

pub(super) struct Serving {
    serve: Arc<dyn Serve>,
    tasks: JoinSet<Ready>,
    /// From the first thought until the last byte was sent.
    open: HashMap<Incoming, PeerId>,
    of_peer: HashMap<(PeerId, Kind), usize>,
}

impl Serving {
    pub(super) fn new(serve: Arc<dyn Serve>) -> Self {
        Self { serve, tasks: JoinSet::new(), open: HashMap::new(), of_peer: HashMap::new() }
    }

    /// Takes a place for a request, if there is one; `ended` gives it back.
    pub(super) fn admit(&mut self, peer: &PeerId, request: Incoming) -> Option<()> {
        let asker = (peer.clone(), request.kind());
        let of_peer = self.of_peer.get(&asker).copied().unwrap_or(0);
        if of_peer >= limits::REQUESTS_PER_PEER_MAX || self.open.len() >= limits::REQUESTS_MAX {
            return None;
        }
        self.of_peer.insert(asker, of_peer + 1);
        self.open.insert(request, peer.clone());
        Some(())
    }

    /// The response was sent, or never will be.
    pub(super) fn ended(&mut self, request: Incoming) {
        let Some(peer) = self.open.remove(&request) else { return };
        let asker = (peer, request.kind());
        match self.of_peer.get_mut(&asker) {
            Some(left) if *left > 1 => *left -= 1,
            _ => {
                self.of_peer.remove(&asker);
            }
        }
    }

    pub(super) fn answer(&mut self, from: Asker, query: Query, channel: ResponseChannel<Reply>) {
        let serve = Arc::clone(&self.serve);
        self.tasks.spawn(async move {
            let answer = timeout(limits::SERVE_WAIT, async { serve.answer(from, query).await }).await;
            Ready::Answer(channel, answer.unwrap_or(Answer::Busy))
        });
    }

    pub(super) fn open(&mut self, from: Asker, request: PieceRequest, channel: ResponseChannel<Outcome>, toll: Toll) {
        let serve = Arc::clone(&self.serve);
        self.tasks.spawn(async move {
            let opened = timeout(limits::SERVE_WAIT, async { serve.open(from, request).await }).await;
            let stretch = match opened.unwrap_or(Err(Refusal::Busy(limits::BUSY_RETRY))) {
                Ok(body) if body.offset == request.start && body.len == request.len => Ok((body, toll)),
                Ok(body) => {
                    tracing::error!(?request, ?body, "another stretch was opened than asked for");
                    Err(Refusal::Missing)
                }
                Err(refusal) => Err(refusal),
            };
            Ready::Stretch(channel, stretch)
        });
    }

    /// The next response that is ready. Waits for ever while there is none. Cancel safe.
    pub(super) async fn next(&mut self) -> Ready {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(ready)) => return ready,
                // The panic dropped the channel, which the peer sees as an ended stream.
                Some(Err(error)) => tracing::error!(%error, "answering a peer failed"),
                None => std::future::pending().await,
            }
        }
    }

    /// Drops all requests.
    pub(super) fn clear(&mut self) {
        self.tasks.abort_all();
        self.tasks = JoinSet::new();
        self.open.clear();
        self.of_peer.clear();
    }
}
