//! Claims: what peers say the pieces of one file are, and who turned out to be wrong.
//!
//! Knows piece lists, who made them, and which bytes came from whom. Does not know the bytes.
//! Invariant: nobody is convicted before the whole file was verified, because only then the truth is
//! known; until then a contradiction only decides who is asked next.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::PieceHash;
use crate::names::PeerId;
use crate::piece::PieceList;
use crate::plan::Source;

/// What to do with a piece that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    Accepted,
    /// It came from the Hub, or is what a piece list says it is: it may be passed on.
    Proven,
    /// A claim contradicts it and somebody better can be asked.
    Refused,
}

/// Whether the word of a source is what others are measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The endpoint that the user named as the Hub.
    Hub,
    Other,
}

/// The claims about one file.
#[derive(Debug, Default)]
pub(super) struct Claims {
    lists: BTreeMap<PeerId, PieceList>,
    /// What came from whom and was not kept, or is in doubt.
    doubtful: Vec<(u32, PieceHash, Source)>,
    /// Peers that pass pieces on before they have the whole file: what they send may be somebody else's
    /// lie, so it is fetched anew but not held against them.
    relays: BTreeSet<PeerId>,
    /// Whether an endpoint can settle a dispute.
    arbiter: bool,
}

impl Claims {
    /// Takes in what a peer says the pieces are.
    pub(super) fn add(&mut self, maker: PeerId, list: PieceList) {
        self.lists.insert(maker, list);
    }

    /// Notes that a peer has only a part of the file.
    pub(super) fn passes_on(&mut self, peer: PeerId) {
        self.relays.insert(peer);
    }

    /// The makers of lists that say a piece is something else.
    pub(super) fn contradicting(&self, piece: u32, hash: PieceHash) -> Vec<PeerId> {
        let others = self.lists.iter().filter(|(_, list)| list.get(piece).is_some_and(|claimed| claimed != hash));
        others.map(|(maker, _)| maker.clone()).collect()
    }

    /// Whether these very bytes of this source were fetched anew before.
    pub(super) fn is_doubted(&self, piece: u32, hash: PieceHash, source: &Source) -> bool {
        self.doubtful.iter().any(|(p, h, s)| *p == piece && *h == hash && s == source)
    }

    /// Tells whether an endpoint can be asked for disputed pieces.
    pub(super) fn set_arbiter(&mut self, available: bool) {
        self.arbiter = available;
    }

    /// Decides about a piece that has arrived.
    ///
    /// An endpoint's bytes are taken: it is the one that would be asked to settle a dispute. A peer's
    /// bytes that a list contradicts are taken only if another source brought the same, or if there is
    /// nobody to ask who knows better.
    pub(super) fn judge(&mut self, piece: u32, hash: PieceHash, source: &Source, standing: Standing) -> Judgement {
        let disputed = self.is_disputed(piece, hash);
        // A list counts for its maker's own pieces too. Should both be a lie, it is on this list that the lie
        // was passed on, so it is its maker who is convicted.
        let listed = || self.lists.values().filter_map(|list| list.get(piece)).any(|claimed| claimed == hash);
        if standing == Standing::Hub || (!disputed && listed()) {
            return Judgement::Proven;
        }
        if matches!(source, Source::Endpoint(_)) || !disputed {
            return Judgement::Accepted;
        }
        let confirmed = self.doubtful.iter().any(|(p, h, s)| *p == piece && *h == hash && s != source);
        if confirmed || !self.arbiter {
            return Judgement::Accepted;
        }
        self.doubt(piece, hash, source.clone());
        Judgement::Refused
    }

    /// Whether any list says that the piece is something else.
    pub(super) fn is_disputed(&self, piece: u32, hash: PieceHash) -> bool {
        self.lists.values().any(|list| list.get(piece).is_some_and(|claimed| claimed != hash))
    }

    pub(super) fn has_list_of(&self, maker: &PeerId) -> bool {
        self.lists.contains_key(maker)
    }

    /// Remembers bytes that are fetched anew, to tell at the end whether they were wrong.
    pub(super) fn doubt(&mut self, piece: u32, hash: PieceHash, source: Source) {
        if !self.is_doubted(piece, hash, &source) {
            self.doubtful.push((piece, hash, source));
        }
    }

    /// Everybody who sent or claimed something else than what the verified file has.
    pub(super) fn convict(&self, truth: &PieceList) -> BTreeSet<Source> {
        let liars = self.lists.iter().filter(|(_, list)| !list.disputed(truth).is_empty());
        let senders = self.doubtful.iter().filter(|(piece, hash, _)| truth.get(*piece) != Some(*hash));
        let senders =
            senders.filter(|(.., source)| !matches!(source, Source::Peer(peer) if self.relays.contains(peer)));
        liars.map(|(maker, _)| Source::Peer(maker.clone())).chain(senders.map(|(.., source)| source.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MIB;
    use crate::piece::Cut;

    fn peer(name: &str) -> PeerId {
        format!("12D3KooWNumber{name}").parse().unwrap()
    }

    fn list(bytes: [u8; 4]) -> PieceList {
        PieceList::new(bytes.iter().map(|b| PieceHash([*b; 32])).collect(), Cut::new(4 * MIB)).unwrap()
    }

    #[test]
    fn a_contradicted_piece_is_left_to_the_arbiter_and_the_liar_is_convicted() {
        let mut claims = Claims::default();
        claims.set_arbiter(true);
        claims.add(peer("honest"), list([1, 2, 3, 4]));
        let liar = Source::Peer(peer("Liar"));
        assert_eq!(claims.judge(0, PieceHash([1; 32]), &liar, Standing::Other), Judgement::Proven);
        assert_eq!(claims.judge(1, PieceHash([9; 32]), &liar, Standing::Other), Judgement::Refused);
        let hub = Source::Endpoint("https://hub".to_owned());
        assert_eq!(claims.judge(1, PieceHash([2; 32]), &hub, Standing::Hub), Judgement::Proven);
        assert_eq!(claims.convict(&list([1, 2, 3, 4])), BTreeSet::from([liar]));
    }

    #[test]
    fn a_false_list_convicts_its_maker_and_nobody_else() {
        let mut claims = Claims::default();
        claims.set_arbiter(true);
        claims.add(peer("maker"), list([1, 2, 3, 9]));
        let honest = Source::Peer(peer("honest"));
        assert_eq!(claims.judge(3, PieceHash([4; 32]), &honest, Standing::Other), Judgement::Refused);
        // A second source with the same bytes settles it without an endpoint.
        assert_eq!(
            claims.judge(3, PieceHash([4; 32]), &Source::Peer(peer("other")), Standing::Other),
            Judgement::Accepted
        );
        assert_eq!(claims.convict(&list([1, 2, 3, 4])), BTreeSet::from([Source::Peer(peer("maker"))]));
    }

    #[test]
    fn without_an_arbiter_a_disputed_piece_is_taken_and_the_whole_file_decides() {
        let mut claims = Claims::default();
        claims.add(peer("maker"), list([1, 2, 3, 9]));
        assert_eq!(
            claims.judge(3, PieceHash([4; 32]), &Source::Peer(peer("honest")), Standing::Other),
            Judgement::Accepted
        );
    }
}
