//! Taking over: what a source does for which no piece is free.
//!
//! Knows the running ranges of a plan, and how long each will take. Does not know free pieces.
//! Invariant: a piece is asked of a second source only when it is the last of its range and slow, or
//! nothing comes of it; never of a third.

use std::ops::Range;
use std::time::Instant;

use super::deal::{UNKNOWN_RATE, Wan};
use super::source::{Kind, SourceState};
use super::{Action, Plan, Running, Source};
use crate::limits;

impl Plan {
    /// Lets an idle source take over a part of the running range that would take longest, or, when that
    /// is down to one piece and slow or silent, fetch this piece as well.
    pub(super) fn take_over(
        &mut self,
        thief: &Source,
        wan: Wan,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> Option<Action> {
        let state = self.sources.get(thief)?;
        let gaps_only = match state.kind {
            Kind::Stream => return None,
            Kind::Endpoint => wan == Wan::FillsGaps,
            Kind::Part | Kind::Holder => false,
        };
        let victims = self.ranges.iter().filter(|(_, running)| running.source != *thief);
        let victims = victims.filter_map(|(id, running)| {
            let silent = now.saturating_duration_since(running.last_byte) >= limits::HEDGE_AFTER;
            let young = now.saturating_duration_since(running.started) < limits::HEDGE_AFTER;
            // Where many machines share a line, each one's impatience is everybody's loss: there, a silent
            // peer is given up first.
            if gaps_only && (!silent || !self.crew.is_empty()) {
                return None;
            }
            let loot = self.loot(state, running, silent, young)?;
            Some((self.secs_left(running, silent), loot, *id, silent))
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
