//! A plan against simulated sources: lines with a speed, and faults at a given time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::limits::MIB;

/// How a simulated source behaves.
#[derive(Clone, Debug)]
struct Line {
    bytes_per_sec: f64,
    /// From this second on nothing comes.
    stalls_at: Option<f64>,
    /// From this second on every range fails.
    dies_at: Option<f64>,
    has: Option<PieceSet>,
}

impl Line {
    fn of(mib_per_sec: f64) -> Self {
        Self { bytes_per_sec: mib_per_sec * MIB as f64, stalls_at: None, dies_at: None, has: None }
    }
}

struct Outcome {
    secs: f64,
    done: bool,
    bytes: BTreeMap<Source, u64>,
}

impl Outcome {
    fn from(&self, source: &Source) -> f64 {
        *self.bytes.get(source).unwrap_or(&0) as f64
    }

    fn total(&self) -> u64 {
        self.bytes.values().sum()
    }
}

fn peer(n: usize) -> Source {
    Source::Peer(format!("12D3KooWPeerNumber{}", "abcdefghijkmnopq".chars().nth(n).unwrap()).parse().unwrap())
}

fn hub(n: usize) -> Source {
    Source::Endpoint(format!("https://hub{n}"))
}

/// Runs a plan until it is done or a simulated hour has passed.
fn simulate(size: u64, lines: &[(Source, Line)]) -> Outcome {
    const STEP: f64 = 0.02;
    let cut = Cut::new(size);
    let begin = Instant::now();
    let mut plan = Plan::new(None, cut, PieceSet::none(cut.count()), begin);
    let mut outcome = Outcome { secs: 0.0, done: false, bytes: BTreeMap::new() };
    // Range, source, pieces, bytes so far.
    let mut running: Vec<(RangeId, Source, Range<u32>, f64)> = Vec::new();
    let mut queue: Vec<Event> = lines
        .iter()
        .map(|(source, line)| {
            let offer = line.has.clone().map_or(Offer::Whole, Offer::Pieces);
            Event::Joined { source: source.clone(), offer, proof: Proof::Proven, rate: None }
        })
        .collect();
    let mut time = 0.0;
    while time < 3600.0 {
        let now = begin + Duration::from_secs_f64(time);
        queue.push(Event::Tick);
        for event in std::mem::take(&mut queue) {
            for action in plan.step(event, now) {
                match action {
                    Action::Ask { range, source, pieces } => {
                        let twice = running.iter().filter(|r| r.2.contains(&pieces.start)).count();
                        assert!(twice < 2, "piece {} is asked for a third time", pieces.start);
                        running.push((range, source, pieces, 0.0));
                    }
                    Action::Shorten { range, end } => {
                        if let Some(r) = running.iter_mut().find(|r| r.0 == range) {
                            r.2.end = end;
                        }
                    }
                    Action::Drop { range } => running.retain(|r| r.0 != range),
                }
            }
        }
        if plan.outlook(now) == Outlook::Done {
            return Outcome { secs: time, done: true, ..outcome };
        }
        for (source, line) in lines {
            let alive = line.stalls_at.is_none_or(|at| time < at);
            let dead = line.dies_at.is_some_and(|at| time >= at);
            let mine = running.iter().filter(|r| r.1 == *source).count();
            for (range, _, pieces, got) in running.iter_mut().filter(|r| r.1 == *source) {
                if dead {
                    queue.push(Event::Ended { range: *range, how: Ended::Failed });
                    continue;
                }
                if !alive {
                    continue;
                }
                let bytes = cut.bytes(pieces);
                let whole = (bytes.end - bytes.start) as f64;
                // A range may have been shortened to less than it has brought.
                let before = got.min(whole);
                *got = (*got + line.bytes_per_sec * STEP / mine as f64).min(whole);
                let payload = *got as u64 - before as u64;
                *outcome.bytes.entry(source.clone()).or_default() += payload;
                queue.push(Event::Received { range: *range, bytes: payload });
                let reached = |got: f64| {
                    if got >= whole { pieces.end } else { cut.at(bytes.start + got as u64) }
                };
                queue.extend((reached(before)..reached(*got)).map(Event::Piece));
                if *got >= whole {
                    queue.push(Event::Ended { range: *range, how: Ended::Complete });
                }
            }
            running.retain(|(_, s, pieces, got)| {
                let bytes = cut.bytes(pieces);
                s != source || (!dead && *got < (bytes.end - bytes.start) as f64)
            });
        }
        time += STEP;
    }
    outcome
}

#[test]
fn sources_of_all_speeds_add_up() {
    let lines = [(peer(0), Line::of(8.0)), (peer(1), Line::of(8.0)), (peer(2), Line::of(3.0)), (hub(0), Line::of(6.0))];
    let outcome = simulate(512 * MIB, &lines);
    assert!(outcome.done);
    let ideal = 512.0 / 25.0;
    assert!(outcome.secs < ideal * 1.15 + 1.0, "took {} s, ideal {ideal} s", outcome.secs);
    assert!(outcome.total() < 512 * MIB * 102 / 100, "{} bytes for {}", outcome.total(), 512 * MIB);
}

#[test]
fn a_fast_lan_leaves_the_wan_alone() {
    let outcome = simulate(1024 * MIB, &[(peer(0), Line::of(100.0)), (hub(0), Line::of(10.0))]);
    assert!(outcome.done);
    assert_eq!(outcome.from(&hub(0)), 0.0);
}

#[test]
fn a_lan_that_many_files_share_leaves_the_wan_alone_too() {
    let cut = Cut::new(1024 * MIB);
    let begin = Instant::now();
    let mut plan = Plan::new(None, cut, PieceSet::none(cut.count()), begin);
    let mut asked = Vec::new();
    for source in [peer(0), hub(0)] {
        asked.extend(plan.step(Event::Joined { source, offer: Offer::Whole, proof: Proof::Proven, rate: None }, begin));
    }
    // A tenth of a full line comes for this file, and the rest of it for others.
    for tick in 1..40 {
        let now = begin + limits::PLAN_TICK * tick;
        let ranges = asked.iter().filter_map(|action| match action {
            Action::Ask { range, source: Source::Peer(_), .. } => Some(*range),
            _ => None,
        });
        for range in ranges.take(4).collect::<Vec<_>>() {
            plan.step(Event::Received { range, bytes: 200_000 }, now);
        }
        plan.step(Event::LanElsewhere(limits::LAN_FULL_BYTES_PER_SEC), now);
        asked.extend(plan.step(Event::Tick, now));
    }
    assert!(!asked.iter().any(|action| matches!(action, Action::Ask { source: Source::Endpoint(_), .. })));
    // When the others are done, this file's share shows how slow the line is.
    let now = begin + limits::PLAN_TICK * 40;
    plan.step(Event::LanElsewhere(0.0), now);
    let asked = plan.step(Event::Tick, now);
    assert!(!asked.iter().any(|action| matches!(action, Action::Ask { source: Source::Endpoint(_), .. })));
    let asked = plan.step(Event::Tick, now + limits::LAN_HEAD_START);
    assert!(asked.iter().any(|action| matches!(action, Action::Ask { source: Source::Endpoint(_), .. })));
}

#[test]
fn downloads_that_draw_on_one_source_share_its_ranges() {
    let cut = Cut::new(1024 * MIB);
    let of_peer =
        [(0, 4), (1, 2), (2, 2), (3, 1), (9, 1)].map(|(others, ranges)| (peer as fn(usize) -> Source, others, ranges));
    let of_hub =
        [(0, 4), (1, 4), (2, 3), (3, 2), (9, 1)].map(|(others, ranges)| (hub as fn(usize) -> Source, others, ranges));
    for (source, others, ranges) in of_peer.into_iter().chain(of_hub) {
        let begin = Instant::now();
        let mut plan = Plan::new(None, cut, PieceSet::none(cut.count()), begin);
        plan.step(Event::Others([(source(0), others)].into()), begin);
        let mut joined =
            |source| plan.step(Event::Joined { source, offer: Offer::Whole, proof: Proof::Proven, rate: None }, begin);
        assert_eq!((joined(source(0)).len(), joined(source(1)).len()), (ranges, 4), "{others} others");
        // When the others are done, there is more to ask for.
        plan.step(Event::Others(BTreeMap::new()), begin);
        assert_eq!(plan.step(Event::Tick, begin).len(), 4 - ranges);
    }
}

#[test]
fn a_fast_peer_is_asked_for_more_at_once_and_downloads_share_that_too() {
    let cut = Cut::new(1024 * MIB);
    let fast = limits::LAN_FULL_BYTES_PER_SEC;
    for (rate, others, ranges) in [(fast, 0, 12), (fast, 1, 6), (fast, 3, 3), (fast - 1.0, 0, 4)] {
        let now = Instant::now();
        let mut plan = Plan::new(None, cut, PieceSet::none(cut.count()), now);
        plan.step(Event::Others([(peer(0), others)].into()), now);
        let (source, rate) = (peer(0), Some(rate));
        let asked = plan.step(Event::Joined { source, offer: Offer::Whole, proof: Proof::Proven, rate }, now);
        assert_eq!(asked.len(), ranges, "{rate:?}, {others} others");
    }
}

#[test]
fn a_slow_lan_is_helped_by_the_wan() {
    let outcome = simulate(256 * MIB, &[(peer(0), Line::of(2.0)), (hub(0), Line::of(6.0))]);
    assert!(outcome.done);
    assert!(outcome.from(&hub(0)) > 150.0 * MIB as f64, "{} bytes from the hub", outcome.from(&hub(0)));
    assert!(outcome.secs < 256.0 / 8.0 * 1.15 + 1.0, "took {} s", outcome.secs);
}

#[test]
fn the_wan_fills_what_no_peer_has() {
    let cut = Cut::new(64 * MIB);
    let mut half = PieceSet::none(cut.count());
    (0..32).for_each(|piece| {
        half.insert(piece);
    });
    let fast = Line { has: Some(half), ..Line::of(100.0) };
    let outcome = simulate(64 * MIB, &[(peer(0), fast), (hub(0), Line::of(10.0))]);
    assert!(outcome.done);
    let from_hub = outcome.from(&hub(0));
    assert!((31.0..36.0).contains(&(from_hub / MIB as f64)), "{from_hub} bytes from the hub");
}

#[test]
fn a_stalled_source_costs_no_more_than_its_pieces_in_flight() {
    let stalling = Line { stalls_at: Some(5.0), ..Line::of(10.0) };
    let outcome = simulate(300 * MIB, &[(peer(0), stalling), (peer(1), Line::of(10.0))]);
    assert!(outcome.done);
    let ideal = 5.0 + (300.0 - 100.0) / 10.0;
    assert!(outcome.secs < ideal * 1.1 + 2.0, "took {} s, ideal {ideal} s", outcome.secs);
}

#[test]
fn the_last_pieces_are_not_left_to_the_slowest() {
    let outcome = simulate(100 * MIB, &[(peer(0), Line::of(20.0)), (peer(1), Line::of(0.1))]);
    assert!(outcome.done);
    assert!(outcome.secs < 100.0 / 20.0 + 2.0, "took {} s", outcome.secs);
}

#[test]
fn a_small_file_is_asked_of_one_source_only() {
    for sources in [[hub(0), hub(1)], [peer(0), peer(1)]] {
        let lines: Vec<_> = sources.into_iter().map(|source| (source, Line::of(0.5))).collect();
        let outcome = simulate(10_000, &lines);
        assert!(outcome.done);
        assert_eq!(outcome.total(), 10_000);
    }
}

#[test]
fn doubted_pieces_come_from_somebody_else_even_if_that_one_joins_later() {
    let cut = Cut::new(2 * MIB);
    let now = Instant::now();
    let mut plan = Plan::new(None, cut, PieceSet::none(cut.count()), now);
    plan.step(Event::Doubted { source: peer(0), pieces: vec![0, 1] }, now);
    let asked =
        plan.step(Event::Joined { source: peer(0), offer: Offer::Whole, proof: Proof::Proven, rate: None }, now);
    assert!(asked.is_empty(), "{asked:?}");
    assert_eq!(plan.outlook(now), Outlook::NoSource);
    let asked = plan.step(Event::Pardoned, now);
    assert!(matches!(asked.as_slice(), [Action::Ask { pieces, .. }] if *pieces == (0..2)), "{asked:?}");
}

#[test]
fn a_peer_with_a_part_in_the_middle_takes_it_over_from_the_hub() {
    let cut = Cut::new(64 * MIB);
    let mut middle = PieceSet::none(cut.count());
    (20..40).for_each(|piece| {
        middle.insert(piece);
    });
    let late = Line { has: Some(middle), ..Line::of(20.0) };
    let outcome = simulate(64 * MIB, &[(hub(0), Line::of(2.0)), (peer(0), late)]);
    assert!(outcome.done);
    let from_peer = outcome.from(&peer(0)) / MIB as f64;
    assert!((18.0..21.0).contains(&from_peer), "{from_peer} MiB from the peer");
}

#[test]
fn ranges_that_fail_together_are_one_failure() {
    let cut = Cut::new(256 * MIB);
    let now = Instant::now();
    let mut plan = Plan::new(None, cut, PieceSet::none(cut.count()), now);
    let asked = plan.step(Event::Joined { source: hub(0), offer: Offer::Whole, proof: Proof::Proven, rate: None }, now);
    assert!(asked.len() > 1, "{asked:?}");
    for action in asked {
        let Action::Ask { range, .. } = action else { panic!("{action:?}") };
        plan.step(Event::Ended { range, how: Ended::Failed }, now);
    }
    assert_eq!(plan.outlook(now), Outlook::Waiting(now + limits::SOURCE_BACKOFF));
}

#[test]
fn with_no_source_left_the_plan_says_so() {
    let cut = Cut::new(4 * MIB);
    let now = Instant::now();
    let mut plan = Plan::new(None, cut, PieceSet::none(cut.count()), now);
    assert_eq!(plan.outlook(now), Outlook::NoSource);
    plan.step(Event::Joined { source: peer(0), offer: Offer::Whole, proof: Proof::Proven, rate: None }, now);
    assert_eq!(plan.outlook(now), Outlook::Working);
    plan.step(Event::Left(peer(0)), now);
    assert_eq!(plan.outlook(now), Outlook::NoSource);
}

#[test]
fn an_endpoint_that_ignores_ranges_is_the_last_resort() {
    let cut = Cut::new(4 * MIB);
    let now = Instant::now();
    let mut plan = Plan::new(None, cut, PieceSet::none(cut.count()), now);
    let asked =
        plan.step(Event::Joined { source: hub(0), offer: Offer::FromStart, proof: Proof::Proven, rate: None }, now);
    assert!(matches!(asked.as_slice(), [Action::Ask { pieces, .. }] if *pieces == (0..4)), "{asked:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_piece_arrives_while_one_source_is_left(
        size_mib in 1u64..80,
        speeds in proptest::collection::vec(0.5f64..40.0, 1..6),
        faults in proptest::collection::vec((any::<bool>(), 0.0f64..6.0), 5),
    ) {
        let mut lines = vec![(hub(0), Line::of(2.0))];
        for (n, speed) in speeds.iter().enumerate() {
            let mut line = Line::of(*speed);
            match faults.get(n) {
                Some((true, at)) => line.stalls_at = Some(*at),
                Some((false, at)) => line.dies_at = Some(*at),
                None => {}
            }
            lines.push((peer(n), line));
        }
        let outcome = simulate(size_mib * MIB - 7, &lines);
        prop_assert!(outcome.done);
        // Never slower than the one that is left alone, but for the time to notice.
        prop_assert!(outcome.secs < size_mib as f64 / 2.0 * 1.1 + 16.0, "took {} s", outcome.secs);
    }
}

#[test]
fn what_fellows_do_not_begin_with_is_brought_by_somebody_else() {
    let cut = Cut::new(64 * MIB);
    let begin = Instant::now();
    let [first, second, me] = [0, 1, 2].map(|n| match peer(n) {
        Source::Peer(peer) => peer,
        Source::Endpoint(_) => unreachable!(),
    });
    let file = "0".repeat(64).parse().unwrap();
    let mut plan = Plan::new(Some(Seat::new(&me, file)), cut, PieceSet::none(cut.count()), begin);
    // They could bring their parts at any moment, and say so all the time; what we ask for is here at once.
    let word = Word { coming: Vec::new(), drawn: 0, able: true };
    plan.step(Event::Heard { peer: first.clone(), word: word.clone() }, begin);
    let mut asked =
        plan.step(Event::Joined { source: hub(0), offer: Offer::Whole, proof: Proof::Proven, rate: None }, begin);
    let (mut now, mut before_its_time) = (begin, 0);
    while plan.outlook(now) != Outlook::Done {
        for action in std::mem::take(&mut asked) {
            let Action::Ask { range, pieces, .. } = action else { continue };
            for piece in pieces {
                asked.extend(plan.step(Event::Received { range, bytes: cut.len_of(piece) }, now));
                asked.extend(plan.step(Event::Piece(piece), now));
            }
            asked.extend(plan.step(Event::Ended { range, how: Ended::Complete }, now));
        }
        now += limits::PLAN_TICK;
        plan.step(Event::Heard { peer: first.clone(), word: word.clone() }, now);
        // They are not in step, so that one of them is always new.
        if now > begin + limits::FELLOW_STALL / 2 {
            plan.step(Event::Heard { peer: second.clone(), word: word.clone() }, now);
        }
        asked.extend(plan.step(Event::Tick, now));
        if now <= begin + limits::FELLOW_OWES {
            before_its_time = plan.have().len();
        }
        assert!(now < begin + limits::FELLOW_PIECE, "{} of {} pieces", plan.have().len(), cut.count());
    }
    assert!((1..64).contains(&before_its_time), "{before_its_time} pieces before others' time was over");
}
