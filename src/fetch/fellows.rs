//! Fellows: asking those that bring the same file how they stand.
//!
//! Knows whom to ask, and how far each was followed. Does not know what the plan makes of the answers.
//! Invariant: each fellow has at most one question open, and after the first is asked no more often than
//! every `FELLOW_EVERY`.

use std::collections::BTreeMap;
use std::time::Instant;

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::limits;
use crate::names::PeerId;
use crate::piece::{Cut, PieceSet};
use crate::plan::Word;
use crate::swarm;
use crate::tree::Content;
use crate::wire::{Answer, Gained, Mark, Query, Stand};

/// Those that bring one file.
pub(super) struct Fellows {
    swarm: swarm::Handle,
    content: Content,
    known: BTreeMap<PeerId, Known>,
    asking: JoinSet<(PeerId, Option<Stand>)>,
}

struct Known {
    mark: Mark,
    asked: Instant,
    is_asked: bool,
    /// It said that it has all, and is asked no more until somebody says otherwise.
    is_whole: bool,
}

/// What a fellow said.
pub(super) enum Heard {
    Word {
        peer: PeerId,
        word: Word,
        pieces: News,
    },
    /// Somebody has the whole file by now.
    Whole,
    /// It has nothing of it any more.
    Gone(PeerId),
}

/// The pieces that a fellow can give.
pub(super) enum News {
    More(Vec<u32>),
    All(PieceSet),
}

impl Fellows {
    pub(super) fn new(swarm: swarm::Handle, content: Content) -> Self {
        Self { swarm, content, known: BTreeMap::new(), asking: JoinSet::new() }
    }

    /// Whether answers are under way.
    pub(super) fn is_asking(&self) -> bool {
        !self.asking.is_empty()
    }

    /// Follows a peer from here on; asks it at once, if it is new.
    pub(super) fn follow(&mut self, peer: &PeerId) {
        if let Some(known) = self.known.get_mut(peer) {
            known.is_whole = false;
            return;
        }
        let known = Known { mark: Mark::default(), asked: Instant::now(), is_asked: false, is_whole: false };
        self.known.insert(peer.clone(), known);
        self.ask(peer);
    }

    /// Follows a peer no longer; says whether it was followed.
    pub(super) fn leave(&mut self, peer: &PeerId) -> bool {
        self.known.remove(peer).is_some()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PeerId> {
        self.known.keys()
    }

    /// Asks those whose time has come.
    pub(super) fn ask_on(&mut self) {
        let is_due =
            |known: &Known| !known.is_asked && !known.is_whole && known.asked.elapsed() >= limits::FELLOW_EVERY;
        let due: Vec<PeerId> = self.known.iter().filter(|(_, k)| is_due(k)).map(|(peer, _)| peer.clone()).collect();
        due.iter().for_each(|peer| self.ask(peer));
    }

    fn ask(&mut self, peer: &PeerId) {
        let Some(known) = self.known.get_mut(peer) else { return };
        (known.asked, known.is_asked) = (Instant::now(), true);
        let query = Query::Stand { content: self.content, known: known.mark };
        let (swarm, peer) = (self.swarm.clone(), peer.clone());
        self.asking.spawn(async move {
            let answer = timeout(limits::PEER_ANSWER, swarm.query(&peer, query)).await;
            let stand = match answer {
                Ok(Ok(Answer::Stand(stand))) => Some(stand),
                _ => None,
            };
            (peer, stand)
        });
    }

    /// The next answer that says something. Waits for ever while nothing is asked. Cancel safe.
    pub(super) async fn next(&mut self) -> Heard {
        loop {
            let Some(Ok((peer, stand))) = self.asking.join_next().await else { std::future::pending().await };
            let Some(known) = self.known.get_mut(&peer) else { continue };
            known.is_asked = false;
            let progress = match stand {
                // Whoever is silent is asked again; the plan notices how long it has been so.
                None => continue,
                Some(Stand::Bringing(progress)) => progress,
                Some(Stand::Whole) => {
                    known.is_whole = true;
                    return Heard::Whole;
                }
                Some(Stand::Gone) => {
                    self.known.remove(&peer);
                    return Heard::Gone(peer);
                }
            };
            let pieces = match progress.gained {
                Gained::Since(pieces) => News::More(pieces),
                Gained::All(bytes) => match PieceSet::from_bytes(&bytes, Cut::new(self.content.size).count()) {
                    Some(set) => News::All(set),
                    None => continue,
                },
            };
            known.mark = progress.mark;
            let coming = progress.coming.into_iter().map(|(start, end)| start..end).collect();
            let word = Word { coming, drawn: progress.drawn, able: progress.able };
            return Heard::Word { peer, word, pieces };
        }
    }
}
