//! One source, as a plan sees it: what it offers, what it gives, and when it may be asked again.
//!
//! Knows one source's past within one file. Does not know the other sources.
//! Invariant: a source that failed is not asked again before its waiting time is over.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{Offer, Proof, Source};
use crate::limits;
use crate::piece::PieceSet;

/// How much the newest measurement counts. At five looks a second, old speed is forgotten in about
/// two seconds.
const NEWEST_WEIGHT: f64 = 0.3;

/// Why a source is left alone until a certain time.
#[derive(Debug, Clone, Copy)]
struct Rest {
    until: Instant,
    why: Why,
}

/// What has come since the last look, and in how much time. Only time in which something was asked for
/// counts, so that a source that seldom has news is not taken for a slow one.
#[derive(Debug, Default)]
struct Window {
    bytes: u64,
    busy: Duration,
    /// Since when something runs, as far as that is not in `busy` yet.
    since: Option<Instant>,
}

impl Window {
    fn note(&mut self, running: usize, now: Instant) {
        if let Some(since) = self.since {
            self.busy += now.saturating_duration_since(since);
        }
        self.since = (running > 0).then_some(now);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It is alive and asked for it.
    Busy,
    Failed,
}

/// What a source is to a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A peer with a part of the file, which it got from elsewhere.
    Part,
    /// A peer with the whole file.
    Holder,
    Endpoint,
    /// An endpoint that ignores ranges.
    Stream,
}

#[derive(Debug)]
pub(super) struct SourceState {
    pub(super) kind: Kind,
    pub(super) offer: Offer,
    pub(super) proof: Proof,
    /// Sources that joined earlier stand before those that joined later, where nothing else tells
    /// them apart: the user's order of endpoints.
    pub(super) place: usize,
    /// The most pieces that it ever offered.
    most: u32,
    /// Pieces that came from it and were wrong: not asked of it again.
    refused: BTreeSet<u32>,
    rate: Option<f64>,
    /// What it gave before this file, as far as that is known.
    known: Option<f64>,
    /// Bytes that it gave for this file.
    gave: u64,
    window: Window,
    running: usize,
    failures: u32,
    rest: Option<Rest>,
    last_byte: Option<Instant>,
}

impl SourceState {
    pub(super) fn new(source: &Source, offer: Offer, proof: Proof, rate: Option<f64>, place: usize) -> Self {
        let most = if let Offer::Pieces(set) = &offer { set.len() } else { 0 };
        Self {
            kind: kind(source, &offer),
            offer,
            proof,
            place,
            most,
            refused: BTreeSet::new(),
            rate,
            known: rate,
            gave: 0,
            window: Window::default(),
            running: 0,
            failures: 0,
            rest: None,
            last_byte: None,
        }
    }

    /// Changes what it offers; says whether that is more than it ever offered.
    pub(super) fn set_offer(&mut self, source: &Source, offer: Offer, proof: Proof) -> bool {
        self.kind = kind(source, &offer);
        (self.offer, self.proof) = (offer, proof);
        self.offers_more()
    }

    /// Whoever tells the same pieces again and again, or takes some back and tells them anew, offers no more.
    fn offers_more(&mut self) -> bool {
        let Offer::Pieces(set) = &self.offer else { return false };
        let more = set.len() > self.most;
        self.most = self.most.max(set.len());
        more
    }

    /// Whether it has the whole file, and what it gives may be passed on.
    pub(super) fn is_first_hand(&self) -> bool {
        matches!(self.kind, Kind::Holder | Kind::Endpoint) && self.proof == Proof::Proven
    }

    /// Whether it is an endpoint whose pieces may not be passed on.
    pub(super) fn is_mirror(&self) -> bool {
        self.kind == Kind::Endpoint && self.proof == Proof::Unproven
    }

    /// Adds pieces to what it offers; says whether that is more than it ever offered.
    pub(super) fn gain(&mut self, pieces: &[u32]) -> bool {
        if let Offer::Pieces(set) = &mut self.offer {
            pieces.iter().for_each(|piece| {
                set.insert(*piece);
            });
        }
        self.offers_more()
    }

    /// Leaves of some pieces those that it can be asked for.
    pub(super) fn keep_offered(&self, pieces: &mut PieceSet) {
        if let Offer::Pieces(set) = &self.offer {
            pieces.keep_all(set);
        }
        for piece in &self.refused {
            pieces.remove(*piece);
        }
    }

    /// Adds what it can be asked for to some pieces.
    pub(super) fn add_offered(&self, pieces: &mut PieceSet) {
        match &self.offer {
            Offer::Pieces(set) if self.refused.is_empty() => pieces.add_all(set),
            _ => {
                let mut offered = PieceSet::all(pieces.count());
                self.keep_offered(&mut offered);
                pieces.add_all(&offered);
            }
        }
    }

    /// Whether it can be asked for a piece that is not there.
    pub(super) fn gives_more_than(&self, have: &PieceSet) -> bool {
        let mut offered = PieceSet::none(have.count());
        match &self.offer {
            Offer::Pieces(set) if self.refused.is_empty() => return set.has_more_than(have),
            Offer::Whole | Offer::FromStart if self.refused.is_empty() => return !have.is_full(),
            _ => self.add_offered(&mut offered),
        }
        offered.has_more_than(have)
    }

    pub(super) fn offers(&self, piece: u32) -> bool {
        if self.refused.contains(&piece) {
            return false;
        }
        match &self.offer {
            Offer::Whole | Offer::FromStart => true,
            Offer::Pieces(set) => set.contains(piece),
        }
    }

    pub(super) fn refuse(&mut self, piece: u32) {
        self.refused.insert(piece);
    }

    pub(super) fn pardon(&mut self) {
        self.refused.clear();
    }

    /// Whether it can be counted on: not failed, though it may be busy for a moment.
    pub(super) fn is_well(&self, now: Instant) -> bool {
        self.rest.is_none_or(|rest| rest.until <= now || rest.why == Why::Busy)
    }

    /// Bytes a second, as far as it was measured.
    pub(super) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Bytes that it gave for this file.
    pub(super) fn gave(&self) -> u64 {
        self.gave
    }

    /// Bytes a second that it gave before this file.
    pub(super) fn known(&self) -> Option<f64> {
        self.known
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// When the source may be asked again, if it is resting now.
    pub(super) fn rests_until(&self, now: Instant) -> Option<Instant> {
        self.rest.map(|rest| rest.until).filter(|until| *until > now)
    }

    /// How long nothing has come from it.
    pub(super) fn quiet_for(&self, now: Instant) -> Duration {
        self.last_byte.map_or(Duration::MAX, |last| now.saturating_duration_since(last))
    }

    pub(super) fn started(&mut self, now: Instant) {
        self.running += 1;
        self.window.note(self.running, now);
    }

    pub(super) fn finished(&mut self, now: Instant) {
        self.running = self.running.saturating_sub(1);
        self.window.note(self.running, now);
    }

    pub(super) fn received(&mut self, bytes: u64, now: Instant) {
        self.last_byte = Some(now);
        self.gave += bytes;
        self.window.bytes += bytes;
    }

    /// Takes a look at the speed.
    pub(super) fn measure(&mut self, now: Instant) {
        self.window.note(self.running, now);
        let Window { bytes, busy, .. } = self.window;
        if busy < limits::PLAN_TICK {
            return;
        }
        let newest = bytes as f64 / busy.as_secs_f64();
        // Before the first byte there is a request on its way: that says nothing about the speed.
        if bytes > 0 || self.rate.is_some() {
            self.rate = Some(self.rate.map_or(newest, |old| old + NEWEST_WEIGHT * (newest - old)));
        }
        self.window = Window { since: self.window.since, ..Window::default() };
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Ranges that ran at the same time fail together, when a line is cut; that is one failure.
    pub(super) fn failed(&mut self, now: Instant) {
        if self.rest.is_some_and(|rest| rest.until > now && rest.why == Why::Failed) {
            return;
        }
        let wait = limits::SOURCE_BACKOFF.saturating_mul(1 << self.failures.min(10)).min(limits::SOURCE_BACKOFF_MAX);
        self.failures += 1;
        self.rest_for(now, wait, Why::Failed);
    }

    pub(super) fn busy(&mut self, now: Instant, wait: Duration) {
        self.rest_for(now, wait, Why::Busy);
    }

    fn rest_for(&mut self, now: Instant, wait: Duration, why: Why) {
        let until = now + wait;
        let longer = self.rest.is_none_or(|old| old.until < until);
        if longer {
            self.rest = Some(Rest { until, why });
        }
    }
}

fn kind(source: &Source, offer: &Offer) -> Kind {
    match (source, offer) {
        (_, Offer::FromStart) => Kind::Stream,
        (Source::Endpoint(_), _) => Kind::Endpoint,
        (Source::Peer(_), Offer::Whole) => Kind::Holder,
        (Source::Peer(_), Offer::Pieces(_)) => Kind::Part,
    }
}
