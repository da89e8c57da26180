//! Fellows: the other machines that bring the same file at the same time.
//!
//! Knows what each of them said last, and works out which of us is to bring which piece at first hand: from
//! the Hub, or from a peer that has the whole file. Does not know how they are asked.
//! Invariant: machines that know the same fellows agree on who brings a piece without a word about it; and
//! nobody is waited for who has brought nothing for a bounded time.
//!
//! The agreement is rendezvous hashing: each machine has a number for each stretch of pieces, made of its
//! peer id, the file's digest and the stretch; the highest one brings it. When a machine comes or goes, only
//! stretches that it takes or leaves change hands, and there is nobody to elect and nothing to configure.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::digest::{self, Digest};
use crate::limits;
use crate::names::PeerId;
use crate::piece::{Cut, PieceSet};

/// How much the newest measurement of a fellow's speed counts.
const NEWEST_WEIGHT: f64 = 0.3;

/// Who we are among those who bring a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    file: Digest,
    own: u64,
}

impl Seat {
    pub fn new(me: &PeerId, file: Digest) -> Self {
        Self { file, own: number(me, &file) }
    }
}

fn number(peer: &PeerId, file: &Digest) -> u64 {
    digest::spread(format!("{peer} {file}").as_bytes())
}

/// The weight of a machine for a stretch (the finalizer of SplitMix64, as a hash of two numbers).
fn weight(machine: u64, stretch: u32) -> u64 {
    let mut mixed = machine ^ u64::from(stretch).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What a machine tells its fellows of a file that it is bringing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Word {
    /// Pieces that are on their way to it at first hand.
    pub coming: Vec<Range<u32>>,
    /// Bytes that it got at first hand so far: whoever waits for it sees that it goes on.
    pub drawn: u64,
    /// Whether it can get pieces at first hand that it may pass on.
    pub able: bool,
}

/// One of them.
#[derive(Debug)]
struct Fellow {
    number: u64,
    coming: PieceSet,
    /// How many ranges bring them, side by side.
    ranges: usize,
    drawn: u64,
    able: bool,
    heard: Instant,
    /// When it last got bytes at first hand, or had nothing to do.
    moved: Instant,
    /// When it last had a new piece for us, or had nothing to do.
    gained: Instant,
    /// Bytes a second that it gets at first hand.
    rate: Option<f64>,
    /// Pieces that are its to bring and that nobody has or brings yet.
    owes: u32,
}

impl Fellow {
    fn is_idle(&self) -> bool {
        self.coming.is_empty() && self.owes == 0
    }

    /// Whether others may leave its pieces to it.
    fn counts(&self, piece_bytes: u64, now: Instant) -> bool {
        let within = |since: Instant, time: Duration| now.saturating_duration_since(since) <= time;
        self.able
            && within(self.heard, limits::FELLOW_SILENT)
            && within(self.moved, limits::FELLOW_STALL)
            && within(self.gained, self.patience(piece_bytes))
    }

    /// How long it may get bytes without having a piece: twice what a piece of each range takes.
    fn patience(&self, piece_bytes: u64) -> Duration {
        let pieces = u32::try_from(self.ranges.min(limits::RANGES_PER_SOURCE)).unwrap_or_default();
        let due = self.secs(pieces, piece_bytes).unwrap_or_default() * 2.0;
        Duration::try_from_secs_f64(due).unwrap_or(Duration::MAX).clamp(limits::FELLOW_PIECE, limits::FELLOW_PIECE_MAX)
    }

    fn is_far_below(&self, rate: f64) -> bool {
        self.rate.is_some_and(|theirs| theirs * limits::FELLOW_SLOWER < rate)
    }

    /// How long it needs for so many pieces; `None` while that is not known.
    fn secs(&self, pieces: u32, piece_bytes: u64) -> Option<f64> {
        Some((u64::from(pieces) * piece_bytes) as f64 / self.rate?.max(1.0))
    }
}

/// How we stand with one stretch.
#[derive(Debug, Clone, Copy)]
struct Rank {
    /// How many come before us.
    before_us: u16,
    /// Whose it is: a place among those who count, or none for us.
    owner: Option<u16>,
}

/// All of them, and us.
#[derive(Debug)]
pub(super) struct Crew {
    seat: Option<Seat>,
    cut: Cut,
    fellows: BTreeMap<PeerId, Fellow>,
    /// Those who count, by whom the ranks were made.
    counted: Vec<PeerId>,
    ranks: Vec<Rank>,
    mine: PieceSet,
    /// Whether we were able when the ranks were made.
    able: bool,
}

impl Crew {
    pub(super) fn new(seat: Option<Seat>, cut: Cut) -> Self {
        Self {
            seat,
            cut,
            fellows: BTreeMap::new(),
            counted: Vec::new(),
            ranks: Vec::new(),
            mine: PieceSet::all(cut.count()),
            able: true,
        }
    }

    /// Whether there is nobody whose pieces we may leave alone.
    pub(super) fn is_empty(&self) -> bool {
        self.counted.is_empty()
    }

    /// Takes in what a fellow says of itself; says whether it is one that was not known.
    pub(super) fn hear(&mut self, peer: PeerId, word: &Word, now: Instant) -> bool {
        let Some(seat) = self.seat else { return false };
        let known = self.fellows.len();
        let counts = self.counted.contains(&peer);
        let mut coming = PieceSet::none(self.cut.count());
        for pieces in &word.coming {
            (pieces.start..pieces.end.min(self.cut.count())).for_each(|piece| {
                coming.insert(piece);
            });
        }
        let fellow = self.fellows.entry(peer).or_insert_with_key(|peer| Fellow {
            number: number(peer, &seat.file),
            coming: PieceSet::none(self.cut.count()),
            ranges: 0,
            drawn: word.drawn,
            able: word.able,
            heard: now,
            moved: now,
            gained: now,
            rate: None,
            owes: 0,
        });
        let was_idle = fellow.is_idle();
        fellow.coming = coming;
        fellow.ranges = word.coming.len();
        fellow.able = word.able;
        let secs = now.saturating_duration_since(fellow.heard).as_secs_f64();
        let drawn = word.drawn.saturating_sub(fellow.drawn);
        if !was_idle && secs > 0.0 {
            let newest = drawn as f64 / secs;
            fellow.rate = match fellow.rate {
                // Before the first byte there is a request on its way: that says nothing about the speed.
                None if drawn == 0 => None,
                None => Some(newest),
                Some(old) => Some(old + NEWEST_WEIGHT * (newest - old)),
            };
        }
        // Whoever counts no more owes nothing, and so looks idle; it has to bring something to count again.
        let is_free = fellow.is_idle() && counts;
        if drawn > 0 || is_free {
            fellow.moved = now;
        }
        if is_free {
            fellow.gained = now;
        }
        fellow.drawn = word.drawn;
        fellow.heard = now;
        self.fellows.len() > known
    }

    /// Notes that a fellow has pieces that it did not have.
    pub(super) fn gained(&mut self, peer: &PeerId, now: Instant) {
        if let Some(fellow) = self.fellows.get_mut(peer) {
            fellow.gained = now;
        }
    }

    /// A fellow is one no longer: it has the whole file, or gave it up, or is gone.
    pub(super) fn part(&mut self, peer: &PeerId) {
        self.fellows.remove(peer);
    }

    /// Looks who counts now, and works out anew what is whose if that has changed. `able`: whether we
    /// ourselves can get at first hand what we may pass on.
    pub(super) fn settle(&mut self, able: bool, now: Instant) {
        let piece_bytes = self.cut.piece_bytes();
        let counts = self.fellows.iter().filter(|(_, fellow)| fellow.counts(piece_bytes, now));
        let counted: Vec<PeerId> = counts.map(|(peer, _)| peer.clone()).collect();
        if counted != self.counted || able != self.able {
            self.counted = counted;
            self.able = able;
            self.rank();
        }
    }

    /// Tells what is still to be brought and on nobody's way, so that it is known who owes how much.
    pub(super) fn owe(&mut self, pieces: &PieceSet) {
        let mut owes = vec![0; self.counted.len()];
        for piece in pieces.iter() {
            let owner = self.rank_of(piece).and_then(|rank| rank.owner);
            if let Some(count) = owner.and_then(|owner| owes.get_mut(usize::from(owner))) {
                *count += 1;
            }
        }
        self.fellows.values_mut().for_each(|fellow| fellow.owes = 0);
        for (peer, count) in self.counted.iter().zip(owes) {
            if let Some(fellow) = self.fellows.get_mut(peer) {
                fellow.owes = count;
            }
        }
    }

    /// The pieces that are ours to bring.
    pub(super) fn mine(&self) -> &PieceSet {
        &self.mine
    }

    /// The pieces that are on their way to those who count.
    pub(super) fn coming(&self) -> PieceSet {
        let mut coming = PieceSet::none(self.cut.count());
        self.counted.iter().filter_map(|peer| self.fellows.get(peer)).for_each(|f| coming.add_all(&f.coming));
        coming
    }

    /// How many would bring a piece before us.
    pub(super) fn before_us(&self, piece: u32) -> usize {
        self.rank_of(piece).map_or(0, |rank| usize::from(rank.before_us))
    }

    /// How long it will be until the owner of a piece has brought what else it owes. Unless it is far slower than
    /// we are at `rate`, what it may begin with at any moment is left to it.
    pub(super) fn owed_for(&self, piece: u32, rate: f64) -> Option<f64> {
        let owner = self.counted.get(usize::from(self.rank_of(piece)?.owner?))?;
        let fellow = self.fellows.get(owner)?;
        let begins = if fellow.is_far_below(rate) { 0 } else { limits::RANGES_AMONG_FELLOWS };
        let others = fellow.owes.saturating_sub(u32::try_from(begins).unwrap_or(u32::MAX));
        fellow.secs(others, self.cut.piece_bytes())
    }

    /// Pieces that are on their way to a fellow that will need long for them, and will need several times as
    /// long as we would at `rate`. Each is on its way to nobody else.
    pub(super) fn slow(&self, rate: f64) -> PieceSet {
        let (mut slow, mut others) = (PieceSet::none(self.cut.count()), PieceSet::none(self.cut.count()));
        for fellow in self.counted.iter().filter_map(|peer| self.fellows.get(peer)) {
            let secs = fellow.secs(fellow.coming.len(), self.cut.piece_bytes());
            if fellow.is_far_below(rate) && secs.is_some_and(|secs| secs > limits::FELLOW_DOUBLE.as_secs_f64()) {
                let mut twice = slow.clone();
                twice.keep_all(&fellow.coming);
                others.add_all(&twice);
                slow.add_all(&fellow.coming);
            } else {
                others.add_all(&fellow.coming);
            }
        }
        slow.remove_all(&others);
        slow
    }

    /// How many pieces change hands together: one request's worth of a large file, and fewer of a small one,
    /// so that everybody has some.
    fn stretch_pieces(&self) -> u32 {
        (self.cut.count() / limits::STRETCHES_MIN).clamp(1, limits::STRETCH_PIECES)
    }

    fn rank_of(&self, piece: u32) -> Option<Rank> {
        self.ranks.get((piece / self.stretch_pieces()) as usize).copied()
    }

    fn rank(&mut self) {
        let Some(seat) = self.seat else { return };
        let stretch = self.stretch_pieces();
        let known = self.counted.iter().filter_map(|peer| self.fellows.get(peer)).map(|fellow| fellow.number);
        let others: Vec<u64> = known.collect();
        let rank = |at: u32| {
            let ours = weight(seat.own, at);
            let weights = (0u16..).zip(others.iter().map(|number| weight(*number, at)));
            let before_us = weights.clone().filter(|(_, theirs)| *theirs > ours).count();
            let first = weights.max_by_key(|(_, theirs)| *theirs).map(|(place, _)| place);
            let owner = if before_us == 0 && self.able { None } else { first };
            Rank { before_us: u16::try_from(before_us).unwrap_or(u16::MAX), owner }
        };
        self.ranks = (0..self.cut.count().div_ceil(stretch)).map(rank).collect();
        self.mine = PieceSet::none(self.cut.count());
        for (at, rank) in (0u32..).zip(&self.ranks) {
            if rank.owner.is_none() {
                (at * stretch..(at + 1) * stretch).for_each(|piece| {
                    self.mine.insert(piece);
                });
            }
        }
    }
}
