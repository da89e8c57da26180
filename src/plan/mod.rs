//! Plans: which piece from which source next, for one file.
//!
//! Knows pieces, sources and how fast each has been. Does not know files, sockets or clocks: events
//! and `now` come in, actions go out, and whoever holds the plan performs them. So a thousand
//! schedules can be tried in a second.
//! Invariant: a piece that is missing is free, or in at least one running range, never neither;
//! so as long as one usable source offers it, it arrives.

mod deal;
mod fellows;
#[cfg(test)]
mod lab;
mod source;
mod takeover;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::limits;
use crate::names::PeerId;
use crate::piece::{Cut, PieceSet};
use fellows::Crew;
pub use fellows::{Seat, Word};
use source::SourceState;

/// Where bytes come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    Peer(PeerId),
    /// A Hub endpoint or mirror, by its base URL.
    Endpoint(String),
}

impl Source {
    /// Reads back what `Display` wrote, say in a journal.
    pub fn read(text: &str) -> Self {
        let peer = text.strip_prefix("peer ").and_then(|peer| peer.parse().ok());
        match peer {
            Some(peer) => Source::Peer(peer),
            None => Source::Endpoint(text.strip_prefix("endpoint ").unwrap_or(text).to_owned()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Peer(peer) => write!(f, "peer {peer}"),
            Source::Endpoint(url) => write!(f, "endpoint {url}"),
        }
    }
}

/// What a source can give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    Whole,
    Pieces(PieceSet),
    /// The whole file, but only from its first byte on: an endpoint that ignores ranges. It is asked
    /// only for what nobody else has.
    FromStart,
}

/// Whether what a source gives may be passed on before the whole file is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It is the Hub, or there is a piece list to hold it against.
    Proven,
    Unproven,
}

/// One range that was asked for; numbers are never used twice within a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RangeId(u64);

/// How a range came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Everything that was asked, or still wanted, has come.
    Complete,
    /// The source is alive but wants to be left alone for a while.
    Busy(Duration),
    /// The connection broke, timed out, or the answer was no answer.
    Failed,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A source can be asked, with what it gave lately in bytes a second, if that is known. Also
    /// changes the offer of a source that is there already.
    Joined { source: Source, offer: Offer, proof: Proof, rate: Option<f64> },
    /// A peer with a part of the file has more of it.
    Gained { peer: PeerId, pieces: Vec<u32> },
    /// A fellow, which brings the same file, says how it stands.
    Heard { peer: PeerId, word: Word },
    /// A fellow is none any more.
    Parted(PeerId),
    /// A source must not be asked any more; its running ranges are dropped.
    Left(Source),
    /// Payload arrived in a range.
    Received { range: RangeId, bytes: u64 },
    /// A piece is complete and written. It may come from any range that covered it.
    Piece(u32),
    /// A piece of a range is not what it should be; it is fetched anew.
    Refused { range: RangeId, piece: u32 },
    /// Pieces are not to be asked of a source, whether it has joined or not: what it gave for them is in
    /// doubt.
    Doubted { source: Source, pieces: Vec<u32> },
    /// There is nobody else, so everybody may be asked for everything again.
    Pardoned,
    /// What peers give for other files at this time, in bytes a second: the wire is shared.
    LanElsewhere(f64),
    /// How many other downloads of this machine draw on which sources.
    Others(BTreeMap<Source, usize>),
    /// Pieces that were complete are not any more: the file is being repaired.
    Reopened(Vec<u32>),
    /// A range is over.
    Ended { range: RangeId, how: Ended },
    /// Sources of the whole file are not asked before this time: who else is bringing it is being asked.
    Hold(Instant),
    /// A reader waits for the bytes from this piece on.
    WantedNext(u32),
    /// Time passed.
    Tick,
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask `source` for `pieces`.
    Ask { range: RangeId, source: Source, pieces: Range<u32> },
    /// Let a running range end before piece `end`: somebody else brings the rest.
    Shorten { range: RangeId, end: u32 },
    /// Give a running range up.
    Drop { range: RangeId },
}

/// What the plan can do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// Every piece is there.
    Done,
    /// Ranges are running, or will be at the next tick.
    Working,
    /// The sources that could give what is missing are backing off; the first may be asked again then.
    Waiting(Instant),
    /// No source offers what is missing.
    NoSource,
}

/// A running range.
#[derive(Debug, Clone)]
struct Running {
    source: Source,
    pieces: Range<u32>,
    /// Bytes that have come, to tell how far the range is.
    received: u64,
    started: Instant,
    last_byte: Instant,
}

/// Who may have something to do after an event. Most events concern one source, and with fifty of them there
/// are many events.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Concerns {
    Nobody,
    One(Source),
    All,
    /// All, and time has passed: what needs a look at every piece is done now.
    Tick,
}

/// The plan for one file.
#[derive(Debug)]
pub struct Plan {
    cut: Cut,
    have: PieceSet,
    /// How many running ranges still have to bring each piece.
    covered: Vec<u8>,
    /// The pieces that are neither there nor in a running range.
    free: PieceSet,
    sources: BTreeMap<Source, SourceState>,
    ranges: BTreeMap<RangeId, Running>,
    barred: BTreeMap<Source, Vec<u32>>,
    lan_elsewhere: f64,
    others: BTreeMap<Source, usize>,
    next_range: u64,
    wanted_next: u32,
    crew: Crew,
    begun: Instant,
    held_until: Instant,
    /// Bytes that came at first hand and may be passed on.
    drawn: u64,
    /// Since when we could bring what is others' to bring, and leave it to whoever comes before us.
    waits_since: Option<Instant>,
    /// Since when peers have given less than full LAN speed.
    lan_slow_since: Option<Instant>,
}

impl Plan {
    /// A plan for a file of which `have` is there already. `seat`: who we are among those that bring it, if
    /// others may do so at the same time.
    pub fn new(seat: Option<Seat>, cut: Cut, have: PieceSet, now: Instant) -> Self {
        Self::after(RangeId(0), seat, cut, have, now)
    }

    /// A plan that goes on where another ended: its ranges are numbered from `range` on, so that a late
    /// byte of an old range is not taken for one of a new range.
    pub fn after(range: RangeId, seat: Option<Seat>, cut: Cut, have: PieceSet, now: Instant) -> Self {
        let mut free = PieceSet::all(cut.count());
        free.remove_all(&have);
        Self {
            cut,
            covered: vec![0; cut.count() as usize],
            have,
            free,
            sources: BTreeMap::new(),
            ranges: BTreeMap::new(),
            barred: BTreeMap::new(),
            lan_elsewhere: 0.0,
            others: BTreeMap::new(),
            next_range: range.0,
            wanted_next: 0,
            crew: Crew::new(seat, cut),
            begun: now,
            held_until: now,
            drawn: 0,
            waits_since: None,
            lan_slow_since: Some(now),
        }
    }

    /// Takes in what happened and says what to do about it.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut concerns = Concerns::All;
        match event {
            Event::Joined { source, offer, proof, rate } => {
                concerns = Concerns::One(source.clone());
                self.joined(source, offer, proof, rate, now);
                self.crew.settle(self.is_able(now), now);
            }
            Event::Gained { peer, pieces } => {
                let source = Source::Peer(peer.clone());
                if self.sources.get_mut(&source).is_some_and(|state| state.gain(&pieces)) {
                    self.crew.gained(&peer, now);
                }
                concerns = Concerns::One(source);
            }
            Event::Heard { peer, word } => {
                let is_new = self.crew.hear(peer, &word, now);
                if is_new {
                    self.crew.settle(self.is_able(now), now);
                }
                // The next tick makes use of the rest.
                concerns = Concerns::Nobody;
            }
            Event::Parted(peer) => {
                self.crew.part(&peer);
                self.crew.settle(self.is_able(now), now);
            }
            Event::Left(source) => {
                self.sources.remove(&source);
                let orphaned: Vec<RangeId> =
                    self.ranges.iter().filter(|(_, r)| r.source == source).map(|(id, _)| *id).collect();
                for range in orphaned {
                    self.close(range, now);
                    actions.push(Action::Drop { range });
                }
            }
            Event::Received { range, bytes } => {
                if let Some(running) = self.ranges.get_mut(&range) {
                    running.received += bytes;
                    running.last_byte = now;
                    if let Some(state) = self.sources.get_mut(&running.source) {
                        state.received(bytes, now);
                        self.drawn += if state.is_first_hand() { bytes } else { 0 };
                    }
                }
                // Bytes alone change nothing in the deal; the next tick looks at the rates.
                concerns = Concerns::Nobody;
            }
            Event::Piece(piece) => {
                self.have.insert(piece);
                self.free.remove(piece);
                concerns = Concerns::Nobody;
                let useless: Vec<RangeId> =
                    self.ranges.iter().filter(|(_, r)| !self.still_wants(r)).map(|(id, _)| *id).collect();
                for range in useless {
                    // A range that has brought all that it was asked for ends by itself; one whose last
                    // pieces somebody else brought is told to stop.
                    let brought_all = self.ranges.get(&range).is_some_and(|r| self.next_of(r) >= r.pieces.end);
                    if !brought_all {
                        self.close(range, now);
                        actions.push(Action::Drop { range });
                        concerns = Concerns::All;
                    }
                }
            }
            Event::Refused { range, piece } => {
                if let Some(state) = self.ranges.get(&range).and_then(|r| self.sources.get_mut(&r.source)) {
                    state.refuse(piece);
                }
            }
            Event::Doubted { source, pieces } => {
                if let Some(state) = self.sources.get_mut(&source) {
                    pieces.iter().for_each(|piece| state.refuse(*piece));
                }
                self.barred.entry(source).or_default().extend(pieces);
            }
            Event::Pardoned => {
                self.barred.clear();
                self.sources.values_mut().for_each(SourceState::pardon);
            }
            Event::LanElsewhere(rate) => self.lan_elsewhere = rate,
            Event::Others(others) => {
                self.others = others;
                // Whatever there is more to ask for is asked for at the next tick.
                concerns = Concerns::Nobody;
            }
            Event::Reopened(pieces) => {
                for piece in pieces {
                    self.have.remove(piece);
                    self.look_if_free(piece);
                }
            }
            Event::Ended { range, how } => {
                if let (Some(running), Ended::Complete) = (self.ranges.get(&range), &how) {
                    concerns = Concerns::One(running.source.clone());
                }
                self.ended(range, &how, now);
            }
            Event::Hold(until) => self.held_until = until,
            Event::WantedNext(piece) => self.wanted_next = piece,
            Event::Tick => {
                concerns = Concerns::Tick;
                for state in self.sources.values_mut() {
                    state.measure(now);
                }
                self.watch_crew(now);
                self.watch_lan(now);
                self.drop_stalled(now, &mut actions);
            }
        }
        self.deal(&concerns, now, &mut actions);
        actions
    }

    fn joined(&mut self, source: Source, offer: Offer, proof: Proof, rate: Option<f64>, now: Instant) {
        let offer = if self.fits(&offer) { offer } else { Offer::Pieces(PieceSet::none(self.cut.count())) };
        if let (Source::Peer(peer), Offer::Whole) = (&source, &offer) {
            self.crew.part(peer);
        }
        match self.sources.get_mut(&source) {
            Some(state) => {
                if let (true, Source::Peer(peer)) = (state.set_offer(&source, offer, proof), &source) {
                    self.crew.gained(peer, now);
                }
            }
            None => {
                let mut state = SourceState::new(&source, offer, proof, rate, self.sources.len());
                self.barred.get(&source).into_iter().flatten().for_each(|piece| state.refuse(*piece));
                self.sources.insert(source, state);
            }
        }
    }

    /// What fellows are to know of us.
    pub fn word(&self, now: Instant) -> Word {
        let first_hand = |running: &&Running| self.sources.get(&running.source).is_some_and(|s| s.is_first_hand());
        let ranges = self.ranges.values().filter(first_hand);
        let coming =
            ranges.map(|running| self.next_of(running)..running.pieces.end).filter(|pieces| !pieces.is_empty());
        Word { coming: coming.collect(), drawn: self.drawn, able: self.is_able(now) }
    }

    /// Whether we can get pieces at first hand that we may pass on.
    fn is_able(&self, now: Instant) -> bool {
        self.sources.values().any(|state| state.is_first_hand() && state.is_well(now))
    }

    /// What the plan can do next.
    pub fn outlook(&self, now: Instant) -> Outlook {
        if self.have.is_full() {
            return Outlook::Done;
        }
        if !self.ranges.is_empty() {
            return Outlook::Working;
        }
        let useful = self.sources.values().filter(|state| state.gives_more_than(&self.have));
        match useful.map(|state| state.rests_until(now)).min() {
            // What nobody offers may be on its way to a fellow.
            None if !self.crew.is_empty() => Outlook::Working,
            None => Outlook::NoSource,
            Some(None) => Outlook::Working,
            Some(Some(until)) => Outlook::Waiting(until),
        }
    }

    /// The sources that take part.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.keys()
    }

    /// The pieces that are there.
    pub fn have(&self) -> &PieceSet {
        &self.have
    }

    /// The number that the next range would get.
    pub fn next_range(&self) -> RangeId {
        RangeId(self.next_range)
    }

    /// What the peers give for this file, in bytes a second, as far as it was measured.
    fn lan_rate(&self) -> f64 {
        self.busy_rates().filter(|(source, ..)| matches!(source, Source::Peer(_))).map(|(.., rate)| rate).sum()
    }

    /// The sources that are bringing pieces now.
    pub fn busy(&self) -> BTreeSet<&Source> {
        self.ranges.values().map(|running| &running.source).collect()
    }

    /// How many they are: peers, and endpoints.
    pub fn busy_sources(&self) -> (usize, usize) {
        let busy = self.busy();
        let peers = busy.iter().filter(|source| matches!(source, Source::Peer(_))).count();
        (peers, busy.len() - peers)
    }

    /// What the sources that are bringing pieces now were measured to give, in bytes a second. A few bytes
    /// tell how long a request takes, and not how fast a line is.
    pub fn rates(&self) -> impl Iterator<Item = (&Source, f64)> {
        self.busy_rates()
            .filter(|(_, state, _)| state.gave() >= limits::FIRST_RANGE_BYTES)
            .map(|(s, _, rate)| (s, rate))
    }

    fn busy_rates(&self) -> impl Iterator<Item = (&Source, &SourceState, f64)> {
        let busy = self.sources.iter().filter(|(_, state)| state.running() > 0);
        busy.filter_map(|(source, state)| Some((source, state, state.rate()?)))
    }

    /// An offer about another number of pieces speaks of another file.
    fn fits(&self, offer: &Offer) -> bool {
        match offer {
            Offer::Whole | Offer::FromStart => true,
            Offer::Pieces(set) => set.count() == self.cut.count(),
        }
    }

    fn missing(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.cut.count()).filter(|piece| !self.have.contains(*piece))
    }

    /// The first piece of a range that has not come whole.
    fn next_of(&self, running: &Running) -> u32 {
        let begin = self.cut.bytes(&running.pieces).start;
        let reached = begin + running.received;
        if reached >= self.cut.bytes(&running.pieces).end {
            return running.pieces.end;
        }
        self.cut.at(reached)
    }

    fn still_wants(&self, running: &Running) -> bool {
        (self.next_of(running)..running.pieces.end).any(|piece| !self.have.contains(piece))
    }

    /// Notes that a range runs.
    fn open(&mut self, source: &Source, pieces: Range<u32>, now: Instant) -> Action {
        let range = RangeId(self.next_range);
        self.next_range += 1;
        self.cover(&pieces, |count| count.saturating_add(1));
        if let Some(state) = self.sources.get_mut(source) {
            state.started(now);
        }
        let running =
            Running { source: source.clone(), pieces: pieces.clone(), received: 0, started: now, last_byte: now };
        self.ranges.insert(range, running);
        Action::Ask { range, source: source.clone(), pieces }
    }

    /// Notes that a range runs no more.
    fn close(&mut self, range: RangeId, now: Instant) -> Option<Running> {
        let running = self.ranges.remove(&range)?;
        self.cover(&running.pieces, |count| count.saturating_sub(1));
        if let Some(state) = self.sources.get_mut(&running.source) {
            state.finished(now);
        }
        Some(running)
    }

    /// Ends a running range before piece `end`.
    fn shorten(&mut self, range: RangeId, end: u32) -> Option<Action> {
        let running = self.ranges.get_mut(&range)?;
        let cut_off = end..running.pieces.end;
        running.pieces.end = end;
        self.cover(&cut_off, |count| count.saturating_sub(1));
        Some(Action::Shorten { range, end })
    }

    fn cover(&mut self, pieces: &Range<u32>, change: impl Fn(u8) -> u8) {
        for piece in pieces.clone() {
            if let Some(count) = self.covered.get_mut(piece as usize) {
                *count = change(*count);
            }
            self.look_if_free(piece);
        }
    }

    fn look_if_free(&mut self, piece: u32) {
        let covered = self.covered.get(piece as usize).is_none_or(|count| *count > 0);
        if covered || self.have.contains(piece) {
            self.free.remove(piece);
        } else {
            self.free.insert(piece);
        }
    }

    fn ended(&mut self, range: RangeId, how: &Ended, now: Instant) {
        let Some(running) = self.close(range, now) else { return };
        let Some(state) = self.sources.get_mut(&running.source) else { return };
        match how {
            Ended::Complete => state.succeeded(),
            Ended::Busy(wait) => state.busy(now, *wait),
            Ended::Failed => state.failed(now),
        }
    }

    /// Gives up ranges whose source has gone silent.
    fn drop_stalled(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let stalled: Vec<RangeId> = self
            .ranges
            .iter()
            .filter(|(_, running)| {
                let patience = match running.source {
                    Source::Peer(_) => limits::PEER_STALL,
                    // It may wait for its turn at the endpoint, where others' ranges come first; how long
                    // the endpoint itself may keep silent is the Hub's room to say.
                    Source::Endpoint(_) if running.received == 0 => limits::ENDPOINT_TURN,
                    Source::Endpoint(_) => limits::ENDPOINT_STALL,
                };
                // One stream may wait behind the others of its source, so a source that is giving
                // anything at all gets more time for this one.
                let source_quiet =
                    self.sources.get(&running.source).is_none_or(|state| state.quiet_for(now) >= patience);
                let quiet = now.saturating_duration_since(running.last_byte);
                quiet >= patience * 3 || (quiet >= patience && source_quiet)
            })
            .map(|(id, _)| *id)
            .collect();
        for range in stalled {
            if let Some(running) = self.close(range, now)
                && let Some(state) = self.sources.get_mut(&running.source)
            {
                state.failed(now);
            }
            actions.push(Action::Drop { range });
        }
    }
}
