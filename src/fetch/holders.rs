//! Holders: which peers have what.
//!
//! Knows how to ask all active peers at once, and remembers the answers for a few seconds. Does not
//! know what the answers are used for.
//! Invariant: a peer that does not answer in time delays nobody beyond `PEER_ANSWER`, and no add takes
//! up all the questions that a peer may be asked at once.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

use futures::future::join_all;
use futures::stream::{self, StreamExt};
use tracing::debug;

use super::landing::lock;
use crate::digest::Digest;
use crate::limits;
use crate::names::PeerId;
use crate::piece::{Cut, PieceList, PieceSet};
use crate::plan::Offer;
use crate::swarm;
use crate::tree::Content;
use crate::wire::{Answer, Hold, Query};

/// What peers offer of one content.
pub(super) type Offers = Vec<(PeerId, Offer)>;

pub(super) struct Holders {
    swarm: swarm::Handle,
    /// Answers to the question before an add, so that its many small files need not ask again.
    fresh: Mutex<HashMap<Digest, (Instant, Offers)>>,
}

impl Holders {
    pub(super) fn new(swarm: swarm::Handle) -> Self {
        Self { swarm, fresh: Mutex::default() }
    }

    /// Asks every active peer about all contents, a bounded number in each message and a bounded number
    /// of messages at a time.
    pub(super) async fn ask(&self, contents: &[Content]) -> HashMap<Digest, Offers> {
        let asked = self.swarm.active().into_iter().map(|peer| self.ask_all_of(peer.id, contents));
        let mut offers: HashMap<Digest, Offers> = HashMap::new();
        for (peer, holds) in join_all(asked).await {
            for (content, hold) in holds {
                if let Some(offer) = offer(content, hold) {
                    offers.entry(content.digest).or_default().push((peer.clone(), offer));
                }
            }
        }
        offers
    }

    /// What one peer holds of the contents, as far as it answers.
    async fn ask_all_of<'a>(&self, peer: PeerId, contents: &'a [Content]) -> (PeerId, Vec<(&'a Content, Hold)>) {
        let one = &peer;
        let questions: Vec<_> = contents
            .chunks(limits::HOLDS_MAX)
            .map(|some| async move { some.iter().zip(self.ask_one(one, some).await).collect::<Vec<_>>() })
            .collect();
        let answers = stream::iter(questions).buffer_unordered(limits::HOLDS_AT_ONCE).collect::<Vec<_>>();
        let holds = answers.await.into_iter().flatten().collect();
        (peer, holds)
    }

    /// Asks about all contents and keeps the answers for the downloads that are about to start.
    pub(super) async fn ask_ahead(&self, contents: &[Content]) {
        let mut offers = self.ask(contents).await;
        let now = Instant::now();
        let mut fresh = lock(&self.fresh);
        fresh.retain(|_, (asked, _)| now.saturating_duration_since(*asked) < limits::HOLDERS_KEPT);
        for content in contents {
            fresh.insert(content.digest, (now, offers.remove(&content.digest).unwrap_or_default()));
        }
    }

    /// What was answered about a content before, if it was asked at all.
    pub(super) fn known(&self, digest: &Digest) -> Option<Offers> {
        lock(&self.fresh).remove(digest).map(|(_, offers)| offers)
    }

    async fn ask_one(&self, peer: &PeerId, contents: &[Content]) -> Vec<Hold> {
        let question = self.swarm.query(peer, Query::Holds { contents: contents.to_vec() });
        match tokio::time::timeout(limits::PEER_ANSWER, question).await {
            Ok(Ok(Answer::Holds(holds))) if holds.len() == contents.len() => holds,
            Ok(Ok(other)) => {
                debug!(%peer, ?other, "no answer to who holds what");
                Vec::new()
            }
            Ok(Err(error)) => {
                debug!(%peer, %error, "could not ask who holds what");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }

    /// Asks a peer for the piece list of a content.
    pub(super) async fn piece_list(&self, peer: &PeerId, content: Content) -> Option<PieceList> {
        let question = self.swarm.query(peer, Query::PieceList { content });
        match tokio::time::timeout(limits::PEER_ANSWER, question).await {
            Ok(Ok(Answer::PieceList(bytes))) => PieceList::from_bytes(&bytes, Cut::new(content.size)),
            _ => None,
        }
    }
}

/// A peer that speaks of other pieces than the file has offers nothing.
fn offer(content: &Content, hold: Hold) -> Option<Offer> {
    match hold {
        Hold::No => None,
        Hold::Whole => Some(Offer::Whole),
        Hold::Pieces(bytes) => PieceSet::from_bytes(&bytes, Cut::new(content.size).count()).map(Offer::Pieces),
    }
}

/// How many bytes of a content an offer stands for.
pub(super) fn bytes_of(content: &Content, offer: &Offer) -> u64 {
    match offer {
        Offer::Whole | Offer::FromStart => content.size,
        Offer::Pieces(set) => {
            let cut = Cut::new(content.size);
            set.iter().map(|piece| cut.len_of(piece)).sum()
        }
    }
}
