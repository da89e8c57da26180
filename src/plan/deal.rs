//! Dealing: who is asked for what next.
//!
//! Knows the state of a plan at one moment. Does not know what led to it.
//! Invariant: no source has more than `RANGES_PER_SOURCE` ranges, and no piece is asked of more than
//! two sources at once.
//!
//! Free pieces go first, lowest number first, because the file is hashed in order while it arrives.
//! When none is free, an idle source takes over the end of the range that would take longest.

use std::ops::Range;
use std::time::Instant;

use super::source::SourceState;
use super::{Action, Offer, Plan, RangeId, Running, Source};
use crate::limits;

/// Whether endpoints are to help.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wan {
    /// With everything.
    Helps,
    /// Only with what no peer can give: the peers are fast enough for the rest.
    FillsGaps,
}

/// A speed that stands for "not known" where only proportions matter.
const UNKNOWN_RATE: f64 = 1.0e6;

impl Plan {
    /// Gives every source with a free hand something to do.
    pub(super) fn deal(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let wan = self.wan(now);
        if wan == Wan::FillsGaps {
            self.call_off_wan(now, actions);
        }
        // One range a round, so that a small file is spread over all before anyone gets a second.
        loop {
            let mut anyone = false;
            for source in self.idle_sources(now) {
                let asked = match self.free_run(&source, wan, now) {
                    Some(pieces) => Some(self.open(&source, pieces, now)),
                    None => self.take_over(&source, wan, now, actions),
                };
                if let Some(action) = asked {
                    actions.push(action);
                    anyone = true;
                }
            }
            if !anyone {
                return;
            }
        }
    }

    /// The sources that may be asked for one more range, peers first, the fastest first.
    fn idle_sources(&self, now: Instant) -> Vec<Source> {
        let mut idle: Vec<(&Source, f64, usize)> = self
            .sources
            .iter()
            .filter(|(_, state)| {
                let depth = if state.offer == Offer::FromStart { 1 } else { self.depth() };
                state.running() < depth && state.rests_until(now).is_none()
            })
            .map(|(source, state)| (source, state.rate().unwrap_or(UNKNOWN_RATE), state.place))
            .collect();
        idle.sort_by(|(a, a_rate, a_place), (b, b_rate, b_place)| {
            let is_wan = |source: &Source| matches!(source, Source::Endpoint(_));
            is_wan(a).cmp(&is_wan(b)).then(b_rate.total_cmp(a_rate)).then(a_place.cmp(b_place))
        });
        idle.into_iter().map(|(source, ..)| source.clone()).collect()
    }

    /// How many ranges one source gets at once: fewer for a small file.
    fn depth(&self) -> usize {
        ((self.cut.count() / limits::PIECES_PER_RANGE_MIN) as usize).clamp(1, limits::RANGES_PER_SOURCE)
    }

    fn wan(&self, now: Instant) -> Wan {
        let peers = || {
            self.sources.iter().filter(|(source, state)| {
                matches!(source, Source::Peer(_)) && state.is_well(now) && self.gives_something(state)
            })
        };
        if peers().next().is_none() {
            return Wan::Helps;
        }
        let wan_rate: Option<f64> = self
            .sources
            .iter()
            .filter(|(source, _)| matches!(source, Source::Endpoint(_)))
            .filter_map(|(_, state)| state.rate())
            .reduce(|a, b| a + b);
        let lan = self.lan_rate();
        let left = self.cut.piece_bytes() * u64::from(self.cut.count() - self.have.len());
        let nearly_done = left as f64 / lan.max(1.0) < limits::LAN_HEAD_START.as_secs_f64();
        // Peers that were slow for other files need not show it again.
        let known: Option<f64> = peers().map(|(_, state)| state.known()).sum();
        let known_slow = known.is_some_and(|known| known * limits::LAN_OVER_WAN < limits::LAN_FULL_BYTES_PER_SEC);
        let is_slow =
            self.lan_slow_since.is_some_and(|since| now.saturating_duration_since(since) >= limits::LAN_HEAD_START);
        let fills_gaps =
            !(is_slow || known_slow) || nearly_done || wan_rate.is_some_and(|wan| lan >= wan * limits::LAN_OVER_WAN);
        if fills_gaps { Wan::FillsGaps } else { Wan::Helps }
    }

    /// Notes whether the peers give full LAN speed. One look is not believed: a request on its way, or a
    /// disk that writes back what it took, makes a fast line look slow for a moment.
    pub(super) fn watch_lan(&mut self, now: Instant) {
        if self.lan_rate() + self.lan_elsewhere >= limits::LAN_FULL_BYTES_PER_SEC {
            self.lan_slow_since = None;
        } else {
            self.lan_slow_since.get_or_insert(now);
        }
    }

    /// Ends the endpoints' running ranges after their current piece, where a peer offers the rest.
    fn call_off_wan(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let long: Vec<(RangeId, u32)> = self
            .ranges
            .iter()
            .filter(|(_, running)| {
                matches!(running.source, Source::Endpoint(_))
                    && self.sources.get(&running.source).is_some_and(|state| state.offer != Offer::FromStart)
            })
            .map(|(id, running)| (*id, self.next_of(running) + 1, running.pieces.end))
            .filter(|(_, keep, end)| keep < end && (*keep..*end).all(|piece| self.a_peer_offers(piece, now)))
            .map(|(id, keep, _)| (id, keep))
            .collect();
        for (range, end) in long {
            actions.extend(self.shorten(range, end));
        }
    }

    fn gives_something(&self, state: &SourceState) -> bool {
        // The common case first: looking through the pieces of a large file takes a while.
        state.offer == Offer::Whole || self.missing().any(|piece| state.offers(piece))
    }

    fn a_peer_offers(&self, piece: u32, now: Instant) -> bool {
        let mut peers = self.sources.iter().filter(|(source, _)| matches!(source, Source::Peer(_)));
        peers.any(|(_, state)| state.is_well(now) && state.offers(piece))
    }

    fn is_free(&self, piece: u32) -> bool {
        !self.have.contains(piece) && self.covered.get(piece as usize).is_some_and(|count| *count == 0)
    }

    /// The next run of free pieces for a source.
    fn free_run(&self, source: &Source, wan: Wan, now: Instant) -> Option<Range<u32>> {
        let state = self.sources.get(source)?;
        if state.offer == Offer::FromStart {
            return self.last_resort(now);
        }
        let gaps_only = matches!(source, Source::Endpoint(_)) && wan == Wan::FillsGaps;
        let suits =
            |piece: u32| self.is_free(piece) && state.offers(piece) && !(gaps_only && self.a_peer_offers(piece, now));
        let count = self.cut.count();
        let from_wan = matches!(source, Source::Endpoint(_)) && self.wanted_next == 0;
        let wanted = if from_wan { self.wan_from } else { self.wanted_next }.min(count);
        let start = (wanted..count).chain(0..wanted).find(|piece| suits(*piece))?;
        let longest = self.range_pieces(source);
        let end = (start + 1..count.min(start.saturating_add(longest))).find(|piece| !suits(*piece));
        Some(start..end.unwrap_or_else(|| count.min(start.saturating_add(longest))))
    }

    /// How many pieces one range of a source should have: about `RANGE_TIME` of its speed, and no more
    /// than its fair part of what is free, so that all sources end together.
    fn range_pieces(&self, source: &Source) -> u32 {
        let Some(state) = self.sources.get(source) else { return 1 };
        let most = match source {
            Source::Peer(_) => limits::PEER_RANGE_BYTES,
            Source::Endpoint(_) => limits::ENDPOINT_RANGE_BYTES,
        };
        let depth = self.depth() as f64;
        let by_speed = state
            .rate()
            .map_or(limits::FIRST_RANGE_BYTES, |rate| (rate / depth * limits::RANGE_TIME.as_secs_f64()) as u64);
        let free = (0..self.cut.count()).filter(|piece| self.is_free(*piece) && state.offers(*piece)).count();
        let total: f64 = self.sources.values().map(|other| other.rate().unwrap_or(UNKNOWN_RATE)).sum();
        let part = state.rate().unwrap_or(UNKNOWN_RATE) / total.max(1.0);
        let fair = (free as f64 * part / depth).ceil() as u32;
        let in_pieces = |bytes: u64| u32::try_from(bytes / self.cut.piece_bytes()).unwrap_or(u32::MAX);
        // A fair part shrinks with what is left, down to ranges that cost more to ask for than to send.
        let fair = if self.sources.len() == 1 { fair.max(in_pieces(limits::FIRST_RANGE_BYTES)) } else { fair };
        in_pieces(by_speed.min(most)).min(fair).max(1)
    }

    /// The range for an endpoint that ignores ranges: everything from the first missing piece on, when
    /// nobody else can bring it.
    fn last_resort(&self, now: Instant) -> Option<Range<u32>> {
        let first = self.missing().next()?;
        let others_can = self
            .sources
            .values()
            .any(|state| state.offer != Offer::FromStart && state.rests_until(now).is_none() && state.offers(first));
        (!others_can && self.ranges.is_empty()).then(|| first..self.cut.count())
    }

    /// Lets an idle source take over a part of the running range that would take longest, or, when that
    /// is down to one piece and slow or silent, fetch this piece as well.
    fn take_over(&mut self, thief: &Source, wan: Wan, now: Instant, actions: &mut Vec<Action>) -> Option<Action> {
        let state = self.sources.get(thief)?;
        if state.offer == Offer::FromStart {
            return None;
        }
        let gaps_only = matches!(thief, Source::Endpoint(_)) && wan == Wan::FillsGaps;
        let victims = self.ranges.iter().filter(|(_, running)| running.source != *thief);
        let victims = victims.filter_map(|(id, running)| {
            let silent = now.saturating_duration_since(running.last_byte) >= limits::HEDGE_AFTER;
            let young = now.saturating_duration_since(running.started) < limits::HEDGE_AFTER;
            let secs = self.secs_left(running, silent);
            if gaps_only && !silent {
                return None;
            }
            Some((secs, self.loot(state, running, silent, young)?, *id, silent))
        });
        let (secs, loot, victim, silent) = victims.max_by(|(a, ..), (b, ..)| a.total_cmp(b))?;
        let own = state.rate().map(|rate| rate / (state.running() + 1) as f64);
        // What stands to be won must be worth a request.
        let piece_secs = own.map_or(secs / 2.0, |own| self.secs_for(1, own));
        if !silent && secs < (piece_secs * 2.0).max(limits::PLAN_TICK.as_secs_f64() * 2.0) {
            return None;
        }
        let running = self.ranges.get(&victim)?;
        let (next, end) = (self.next_of(running), running.pieces.end);
        if loot.start == next {
            // A second range for a piece that is on its way; whoever has it first wins.
            return Some(self.open(thief, loot.start..loot.start + 1, now));
        }
        let part = match own {
            _ if silent => 1.0,
            Some(own) => secs / (secs + self.secs_for(end - next, own)),
            None => 0.5,
        };
        let count = loot.end - loot.start;
        let give = ((f64::from(count) * part).ceil() as u32).clamp(1, self.range_limit(thief));
        // From the end of the range its end is taken; out of its middle, the first pieces, and what lies
        // behind them is free again.
        let mine = if loot.end == end {
            loot.end.saturating_sub(give).max(loot.start)..loot.end
        } else {
            loot.start..loot.start + give.min(count)
        };
        actions.extend(self.shorten(victim, mine.start));
        Some(self.open(thief, mine, now))
    }

    /// What a source could take over of a running range: the run of pieces at its end that the source
    /// has, or else the first run in it. The piece that is on its way stays, unless nothing comes.
    fn loot(&self, thief: &SourceState, running: &Running, silent: bool, young: bool) -> Option<Range<u32>> {
        let next = self.next_of(running);
        let end = running.pieces.end;
        let suits = |piece: u32| !self.have.contains(piece) && thief.offers(piece) && !self.is_doubled(piece);
        let from = next + 1;
        if let Some(start) = (from..end).rev().take_while(|piece| suits(*piece)).last() {
            return Some(start..end);
        }
        if let Some(start) = (from..end).find(|piece| suits(*piece)) {
            let stop = (start..end).find(|piece| !suits(*piece)).unwrap_or(end);
            return Some(start..stop);
        }
        ((silent || !young) && next < end && suits(next)).then_some(next..next + 1)
    }

    fn range_limit(&self, source: &Source) -> u32 {
        let bytes = match source {
            Source::Peer(_) => limits::PEER_RANGE_BYTES,
            Source::Endpoint(_) => limits::ENDPOINT_RANGE_BYTES,
        };
        u32::try_from(bytes / self.cut.piece_bytes()).unwrap_or(u32::MAX).max(1)
    }

    fn is_doubled(&self, piece: u32) -> bool {
        self.covered.get(piece as usize).is_some_and(|count| *count > 1)
    }

    /// How long a running range will take at its source's speed; a silent one takes for ever.
    fn secs_left(&self, running: &Running, silent: bool) -> f64 {
        if silent {
            return f64::MAX;
        }
        let Some(state) = self.sources.get(&running.source) else { return f64::MAX };
        let bytes = self.cut.bytes(&running.pieces);
        let left = (bytes.end - bytes.start).saturating_sub(running.received);
        let rate = state.rate().unwrap_or(UNKNOWN_RATE) / state.running().max(1) as f64;
        left as f64 / rate.max(1.0)
    }

    fn secs_for(&self, pieces: u32, rate: f64) -> f64 {
        let bytes = (u64::from(pieces) * self.cut.piece_bytes()) as f64;
        bytes / rate.max(1.0)
    }
}
