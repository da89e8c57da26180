//! Dealing: who is asked for what next.
//!
//! Knows the state of a plan at one moment. Does not know what led to it.
//! Invariant: no source has more than `RANGES_PER_FAST_PEER` ranges, and no piece is asked of more than
//! two sources at once.
//!
//! Free pieces go first, lowest number first, because the file is hashed in order while it arrives. What
//! fellows have is asked of them, the rarest first. What nobody here has is brought at first hand by the one
//! whose it is; the others wait for it, as long as that is not much longer than to bring it themselves. When
//! nothing is free, an idle source takes over the end of the range that would take longest.

use std::ops::Range;
use std::time::Instant;

use super::source::{Kind, SourceState};
use super::{Action, Concerns, Plan, Proof, RangeId, Source};
use crate::limits;
use crate::piece::PieceSet;

/// Whether endpoints are to help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wan {
    /// With everything.
    Helps,
    /// Only with what no peer can give: the peers are fast enough for the rest.
    FillsGaps,
}

/// A speed that stands for "not known" where only proportions matter.
pub(super) const UNKNOWN_RATE: f64 = 1.0e6;

/// What the others have to do with the pieces, looked up once for all sources.
struct Survey {
    wan: Wan,
    /// What peers offer, all of them, and those that have a part.
    by_peers: PieceSet,
    by_parts: PieceSet,
    /// What is on its way to fellows.
    coming: PieceSet,
}

impl Plan {
    /// Gives those sources that are concerned and have a free hand something to do.
    pub(super) fn deal(&mut self, concerns: &Concerns, now: Instant, actions: &mut Vec<Action>) {
        let mut idle = self.idle_sources(concerns, now);
        if idle.is_empty() && *concerns != Concerns::Tick {
            return;
        }
        let survey = self.survey(now);
        if survey.wan == Wan::FillsGaps {
            self.call_off_wan(&survey, actions);
        }
        // One range a round, so that a small file is spread over all before anyone gets a second.
        while !idle.is_empty() {
            idle.retain(|source| match self.occupy(source, &survey, concerns, now, actions) {
                Some(action) => {
                    actions.push(action);
                    true
                }
                None => false,
            });
            idle.retain(|source| self.has_free_hand(source, now));
        }
    }

    /// One more range for a source, if there is any use for one.
    fn occupy(
        &mut self,
        source: &Source,
        survey: &Survey,
        concerns: &Concerns,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> Option<Action> {
        let mut found = self.free_run(source, survey, now);
        if found.is_none() && *concerns == Concerns::Tick && self.sources.get(source).is_some_and(|s| self.is_shared(s))
        {
            found = self.beyond_ours(source, survey, now);
        }
        match found {
            Some(pieces) => Some(self.open(source, pieces, now)),
            // Among many, what a source could take over now is as good at the next tick.
            None if *concerns != Concerns::Tick && !self.crew.is_empty() => None,
            // What is on its way already may be passed on.
            None if self
                .sources
                .get(source)
                .is_some_and(|state| state.is_mirror() && !self.outdoes_the_crew(state, now)) =>
            {
                None
            }
            None => self.take_over(source, survey.wan, now, actions),
        }
    }

    /// The sources that may be asked for one more range, peers first, the fastest first.
    fn idle_sources(&self, concerns: &Concerns, now: Instant) -> Vec<Source> {
        let concerned = |source: &Source| match concerns {
            Concerns::Nobody => false,
            Concerns::One(one) => one == source,
            Concerns::All | Concerns::Tick => true,
        };
        let mut idle: Vec<(&Source, f64, usize)> = self
            .sources
            .iter()
            .filter(|(source, state)| concerned(source) && self.is_open(source, state, now))
            .map(|(source, state)| (source, state.rate().unwrap_or(UNKNOWN_RATE), state.place))
            .collect();
        idle.sort_by(|(a, a_rate, a_place), (b, b_rate, b_place)| {
            let is_wan = |source: &Source| matches!(source, Source::Endpoint(_));
            is_wan(a).cmp(&is_wan(b)).then(b_rate.total_cmp(a_rate)).then(a_place.cmp(b_place))
        });
        idle.into_iter().map(|(source, ..)| source.clone()).collect()
    }

    fn has_free_hand(&self, source: &Source, now: Instant) -> bool {
        self.sources.get(source).is_some_and(|state| self.is_open(source, state, now))
    }

    fn is_open(&self, source: &Source, state: &SourceState, now: Instant) -> bool {
        state.running() < self.depth(source, state)
            && state.rests_until(now).is_none()
            && (state.kind == Kind::Part || now >= self.held_until)
    }

    /// How many ranges one source gets at once: fewer for a small file, more of a fast one, and fewer of a source
    /// that fellows draw from as well, so that what one of them loses when it dies is little. Downloads of this
    /// machine that draw on the same source share them: a source gives each range the same, so a file that is begun
    /// late would be one against many.
    fn depth(&self, source: &Source, state: &SourceState) -> usize {
        let is_fast = state.rate().is_some_and(|rate| rate >= limits::LAN_FULL_BYTES_PER_SEC);
        let most = match state.kind {
            Kind::Stream => return 1,
            _ if self.is_shared(state) => limits::RANGES_AMONG_FELLOWS,
            Kind::Holder if is_fast => limits::RANGES_PER_FAST_PEER,
            _ => limits::RANGES_PER_SOURCE,
        };
        let all = match source {
            Source::Peer(_) => most.max(limits::RANGES_PER_SOURCE),
            Source::Endpoint(_) => limits::RANGES_PER_ENDPOINT,
        };
        let most = most.min(all.div_ceil(1 + self.others.get(source).copied().unwrap_or(0)));
        ((self.cut.count() / limits::PIECES_PER_RANGE_MIN) as usize).clamp(1, most)
    }

    /// Whether a source is one that fellows draw from as well.
    fn is_shared(&self, state: &SourceState) -> bool {
        matches!(state.kind, Kind::Holder | Kind::Endpoint) && !self.crew.is_empty()
    }

    fn survey(&self, now: Instant) -> Survey {
        let mut survey = Survey {
            wan: self.wan(now),
            by_peers: PieceSet::none(self.cut.count()),
            by_parts: PieceSet::none(self.cut.count()),
            coming: self.crew.coming(),
        };
        for state in self.sources.values().filter(|state| state.is_well(now)) {
            match state.kind {
                Kind::Part => state.add_offered(&mut survey.by_parts),
                Kind::Holder => state.add_offered(&mut survey.by_peers),
                Kind::Endpoint | Kind::Stream => {}
            }
        }
        survey.by_peers.add_all(&survey.by_parts);
        survey
    }

    fn wan(&self, now: Instant) -> Wan {
        let peers = || {
            self.sources.iter().filter(|(source, state)| {
                matches!(source, Source::Peer(_)) && state.is_well(now) && state.gives_more_than(&self.have)
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
        // Peers that were slow for other files need not show it again. What fellows give is as slow as it
        // comes to them, so of those it says nothing.
        let known: Option<f64> = peers().map(|(_, state)| state.known()).sum();
        let known_slow = self.crew.is_empty()
            && known.is_some_and(|known| known * limits::LAN_OVER_WAN < limits::LAN_FULL_BYTES_PER_SEC);
        let is_slow =
            self.lan_slow_since.is_some_and(|since| now.saturating_duration_since(since) >= limits::LAN_HEAD_START);
        let fills_gaps =
            !(is_slow || known_slow) || nearly_done || wan_rate.is_some_and(|wan| lan >= wan * limits::LAN_OVER_WAN);
        if fills_gaps { Wan::FillsGaps } else { Wan::Helps }
    }

    /// Notes whether the peers give full LAN speed. One look is not believed: a request on its way, or a
    /// disk that writes back what it took, makes a fast line look slow for a moment. And peers that have
    /// given all that they have are not slow: there is just no more of it yet.
    pub(super) fn watch_lan(&mut self, now: Instant) {
        let is_peer = |source: &Source| matches!(source, Source::Peer(_));
        let survey = self.survey(now);
        let mut peers = self.sources.iter().filter(|(source, state)| is_peer(source) && state.is_well(now));
        let leaves_some = peers.any(|(source, _)| !self.pool(source, &survey, now).is_empty());
        let takes_long = self.ranges.values().any(|running| {
            is_peer(&running.source) && now.saturating_duration_since(running.started) >= limits::LAN_HEAD_START / 2
        });
        let full = self.lan_rate() + self.lan_elsewhere >= limits::LAN_FULL_BYTES_PER_SEC;
        if full || !(leaves_some || takes_long) {
            self.lan_slow_since = None;
        } else {
            self.lan_slow_since.get_or_insert(now);
        }
    }

    /// Looks which fellows count, and what they still owe.
    pub(super) fn watch_crew(&mut self, now: Instant) {
        self.crew.settle(self.is_able(now), now);
        if self.crew.is_empty() {
            self.waits_since = None;
            return;
        }
        let survey = self.survey(now);
        let mut open = self.free.clone();
        open.remove_all(&survey.by_parts);
        open.remove_all(&survey.coming);
        self.crew.owe(&open);
    }

    /// Ends the endpoints' running ranges after their current piece, where peers offer the rest.
    fn call_off_wan(&mut self, survey: &Survey, actions: &mut Vec<Action>) {
        let long: Vec<(RangeId, u32)> = self
            .ranges
            .iter()
            .filter(|(_, running)| self.sources.get(&running.source).is_some_and(|s| s.kind == Kind::Endpoint))
            .filter_map(|(id, running)| {
                let keep = self.next_of(running) + 1;
                let offered = (keep..running.pieces.end).rev().take_while(|piece| survey.by_peers.contains(*piece));
                offered.last().map(|end| (*id, end))
            })
            .collect();
        for (range, end) in long {
            actions.extend(self.shorten(range, end));
        }
    }

    /// The free pieces that a source is to be asked for, now and as its own affair.
    fn pool(&self, source: &Source, survey: &Survey, now: Instant) -> PieceSet {
        let mut pool = self.free.clone();
        let Some(state) = self.sources.get(source) else { return PieceSet::none(self.cut.count()) };
        state.keep_offered(&mut pool);
        match state.kind {
            Kind::Part => {}
            Kind::Stream => return PieceSet::none(self.cut.count()),
            Kind::Holder if self.is_worth_waiting(now) => {
                pool.remove_all(&survey.by_parts);
                self.keep_ours(&mut pool, survey);
            }
            // Those who have a part can give nothing else; whoever has everything leaves that to them.
            Kind::Holder => {
                let mut rest = pool.clone();
                rest.remove_all(&survey.by_parts);
                if !rest.is_empty() {
                    pool = rest;
                }
            }
            Kind::Endpoint => {
                if survey.wan == Wan::FillsGaps {
                    pool.remove_all(&survey.by_peers);
                }
                match state.proof {
                    _ if self.crew.is_empty() => {}
                    Proof::Proven => self.keep_ours(&mut pool, survey),
                    Proof::Unproven if self.outdoes_the_crew(state, now) => self.keep_others(&mut pool, survey),
                    Proof::Unproven => return PieceSet::none(self.cut.count()),
                }
            }
        }
        pool
    }

    /// Whether an endpoint is worth asking although its pieces cannot be passed on, so that beside fellows each byte
    /// of it crosses the WAN for us alone. It is so where the Hub, shared among all, brings less. Where that is not
    /// known, one piece tells.
    fn outdoes_the_crew(&self, state: &SourceState, now: Instant) -> bool {
        if self.crew.is_empty() {
            return true;
        }
        let secs = now.saturating_duration_since(self.begun).as_secs_f64();
        let passed_on = self.sources.values().filter(|source| !source.is_mirror()).map(SourceState::gave).sum::<u64>();
        let inflow = passed_on as f64 / secs.max(1.0);
        match state.rate() {
            Some(rate) => rate > inflow * limits::MIRROR_OVER_CREW,
            None => {
                let left = self.cut.piece_bytes() * u64::from(self.cut.count() - self.have.len());
                let is_slow = left as f64 / inflow.max(1.0) > limits::MIRROR_FROM.as_secs_f64();
                is_slow && secs > limits::MIRROR_AFTER.as_secs_f64() && state.running() == 0
            }
        }
    }

    /// Leaves what would come last: what others are to bring; without that what is ours, and then what is on its way
    /// to others.
    fn keep_others(&self, pool: &mut PieceSet, survey: &Survey) {
        for sooner in [&survey.coming, self.crew.mine()] {
            let mut later = pool.clone();
            later.remove_all(sooner);
            if !later.is_empty() {
                *pool = later;
            }
        }
    }

    fn keep_ours(&self, pool: &mut PieceSet, survey: &Survey) {
        pool.keep_all(self.crew.mine());
        pool.remove_all(&survey.coming);
    }

    /// Whether it is better to let fellows bring what is theirs than to take everything from those peers that
    /// have the whole file: when their line is slow, because everybody draws on it.
    fn is_worth_waiting(&self, now: Instant) -> bool {
        if self.crew.is_empty() {
            return false;
        }
        let left = self.cut.piece_bytes() * u64::from(self.cut.count() - self.have.len());
        let holders = self.sources.values().filter(|state| state.kind == Kind::Holder && state.is_well(now));
        match holders.map(SourceState::rate).reduce(|a, b| Some(a? + b?)).flatten() {
            Some(rate) => left as f64 / rate.max(1.0) > limits::LAN_HEAD_START.as_secs_f64(),
            None => left > limits::FIRST_RANGE_BYTES,
        }
    }

    /// The next run of free pieces for a source.
    fn free_run(&self, source: &Source, survey: &Survey, now: Instant) -> Option<Range<u32>> {
        let state = self.sources.get(source)?;
        if state.kind == Kind::Stream {
            return self.last_resort(now);
        }
        let pool = self.pool(source, survey, now);
        if state.is_mirror() && !self.crew.is_empty() {
            // Fellows work from the front.
            let last = pool.iter().last()?;
            let longest = if state.rate().is_none() { 1 } else { self.range_pieces(source, pool.len()) };
            let start = (last.saturating_sub(longest - 1)..last).rev().take_while(|piece| pool.contains(*piece)).last();
            return Some(start.unwrap_or(last)..last + 1);
        }
        let start = match state.kind {
            Kind::Part => self.rarest(&pool, now),
            _ => pool.next(self.wanted_next).or_else(|| pool.next(0)),
        }?;
        let longest = self.range_pieces(source, pool.len());
        let end = (start + 1..start.saturating_add(longest)).find(|piece| !pool.contains(*piece));
        Some(start..end.unwrap_or_else(|| self.cut.count().min(start.saturating_add(longest))))
    }

    /// The piece that the fewest peers have, of the next ones: what only one has is gone with it.
    fn rarest(&self, pool: &PieceSet, now: Instant) -> Option<u32> {
        let first = pool.next(self.wanted_next).or_else(|| pool.next(0))?;
        let next = std::iter::successors(Some(first), |piece| pool.next(piece + 1)).take(limits::RAREST_OF);
        let parts: Vec<&SourceState> =
            self.sources.values().filter(|state| state.kind == Kind::Part && state.is_well(now)).collect();
        next.min_by_key(|piece| parts.iter().filter(|state| state.offers(*piece)).count())
    }

    /// Pieces to bring that are others' to bring: such as their owner will not come to for a while, and such
    /// as are on their way to somebody far slower than we are.
    ///
    /// Whoever is next in the ranks takes them at once, and the others by turns in which they hear of it. The
    /// owner works from the front, so what is taken off it is taken from the back.
    fn beyond_ours(&mut self, source: &Source, survey: &Survey, now: Instant) -> Option<Range<u32>> {
        let state = self.sources.get(source)?;
        if state.proof == Proof::Unproven && self.sources.values().any(SourceState::is_first_hand) {
            return None;
        }
        let mut pool = self.free.clone();
        state.keep_offered(&mut pool);
        pool.remove_all(&survey.by_parts);
        let mut owed = pool.clone();
        owed.remove_all(&survey.coming);
        let patience = limits::FELLOW_OWES.as_secs_f64();
        let rate = state.rate().unwrap_or_default();
        let is_late = |piece: &u32| self.crew.owed_for(*piece, rate).is_some_and(|secs| secs > patience);
        let mut late = PieceSet::none(self.cut.count());
        owed.iter().filter(is_late).for_each(|piece| {
            late.insert(piece);
        });
        let mut slow = self.crew.slow(rate);
        slow.keep_all(&pool);
        let longest = if late.is_empty() { 1 } else { self.range_pieces(source, late.len()) };
        let open = if late.is_empty() { slow } else { late };
        if open.is_empty() {
            self.waits_since = None;
            return None;
        }
        let waited = now.saturating_duration_since(*self.waits_since.get_or_insert(now)).as_secs_f64();
        let turn = 1 + (waited / limits::FELLOW_TURN.as_secs_f64()) as usize;
        let rank = |piece: u32| self.crew.before_us(piece);
        let last = open.iter().min_by_key(|piece| (rank(*piece), u32::MAX - piece)).filter(|p| rank(*p) <= turn)?;
        let fits = |piece: &u32| open.contains(*piece) && rank(*piece) == rank(last);
        let from = (last.saturating_sub(longest - 1)..last).rev().take_while(fits).last().unwrap_or(last);
        self.waits_since = Some(now);
        Some(from..last + 1)
    }

    /// How many pieces one range of a source should have: about `RANGE_TIME` of its speed, and no more
    /// than its fair part of the `free` ones, so that all sources end together.
    fn range_pieces(&self, source: &Source, free: u32) -> u32 {
        let Some(state) = self.sources.get(source) else { return 1 };
        let most = match source {
            Source::Peer(_) => limits::PEER_RANGE_BYTES,
            Source::Endpoint(_) => limits::ENDPOINT_RANGE_BYTES,
        };
        let depth = self.depth(source, state) as f64;
        let by_speed = state
            .rate()
            .map_or(limits::FIRST_RANGE_BYTES, |rate| (rate / depth * limits::RANGE_TIME.as_secs_f64()) as u64);
        let shares = |other: &&SourceState| self.is_shared(state) == self.is_shared(other);
        let others: Vec<&SourceState> = self.sources.values().filter(shares).collect();
        let total: f64 = others.iter().map(|other| other.rate().unwrap_or(UNKNOWN_RATE)).sum();
        let part = state.rate().unwrap_or(UNKNOWN_RATE) / total.max(1.0);
        let fair = (f64::from(free) * part / depth).ceil() as u32;
        let in_pieces = |bytes: u64| u32::try_from(bytes / self.cut.piece_bytes()).unwrap_or(u32::MAX);
        // A fair part shrinks with what is left, down to ranges that cost more to ask for than to send.
        let fair = if others.len() == 1 { fair.max(in_pieces(limits::FIRST_RANGE_BYTES)) } else { fair };
        in_pieces(by_speed.min(most)).min(fair).max(1)
    }

    /// The range for an endpoint that ignores ranges: everything from the first missing piece on, when
    /// nobody else can bring it.
    fn last_resort(&self, now: Instant) -> Option<Range<u32>> {
        let first = self.missing().next()?;
        let others_can = self
            .sources
            .values()
            .any(|state| state.kind != Kind::Stream && state.rests_until(now).is_none() && state.offers(first));
        (!others_can && self.ranges.is_empty()).then(|| first..self.cut.count())
    }
}
