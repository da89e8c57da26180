//! A whole lab in one process: many plans, their lines and their faults, in simulated time.
//!
//! Knows how lines are shared and what machines hear of each other. Does not know how plans decide.
//! A range gets the smallest of its shares of the lines that it crosses, each shared evenly among the ranges on it: what
//! TCP does, roughly.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::*;
use crate::digest::Digest;
use crate::limits::MIB;

const STEP: f64 = 0.05;
const HUB: &str = "https://hub";
const MIRROR: &str = "https://mirror";

/// What a lab is like. Speeds are in MiB a second, times in seconds.
#[derive(Clone, Debug)]
struct Lab {
    pieces: u32,
    /// The line that all machines share to the Hub; 0: there is none.
    wan: f64,
    /// Each machine's own line.
    lan: f64,
    /// The line that all machines share to a mirror; 0: there is none.
    mirror: f64,
    machines: Vec<Machine>,
    /// The line of a peer that has the file, if there is one.
    seeder: Option<f64>,
    seed: u64,
}

#[derive(Clone, Debug, Default)]
struct Machine {
    joins: f64,
    /// From then on it is gone.
    dies: Option<f64>,
    /// From then on nothing comes to it any more, and it goes on talking.
    stalls: Option<f64>,
    /// What its own way to the Hub takes at most.
    own_wan: Option<f64>,
    /// It says that it is bringing pieces, and never has one.
    lies: bool,
}

struct Seen {
    /// How many of its pieces are known.
    pieces: usize,
    next: f64,
}

struct Node {
    id: PeerId,
    places: Rc<BTreeMap<PeerId, usize>>,
    plan: Option<Plan>,
    /// What it may pass on, in the order in which it came.
    proven: Vec<u32>,
    running: Vec<Flow>,
    fellows: BTreeMap<usize, Seen>,
    done: Option<f64>,
    from_hub: f64,
    from_mirror: f64,
    received: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Hub,
    Mirror,
    Seeder,
    Node(usize),
}

struct Flow {
    range: RangeId,
    from: From,
    pieces: Range<u32>,
    got: f64,
}

/// What came of it.
#[derive(Debug)]
struct Outcome {
    /// When the last machine that lived had the file; `None`: it never had.
    secs: Option<f64>,
    /// Bytes from the Hub, over the size.
    hub: f64,
    /// The same from the mirror.
    mirror: f64,
    /// Bytes that machines got and had already, over all that they had to get.
    twice: f64,
    /// The most bytes that one machine got from the Hub, over the size.
    most: f64,
    /// The machine that got them.
    first: usize,
}

fn id(n: usize) -> PeerId {
    let letter = |n: usize| char::from(b"abcdefghijkmnopqrstuvwxyz"[n % 25]);
    format!("12D3KooWMachine{}{}{}", letter(n / 625), letter(n / 25), letter(n)).parse().unwrap()
}

fn file(seed: u64) -> Digest {
    format!("{seed:064x}").parse().unwrap()
}

impl Lab {
    fn of(machines: usize, pieces: u32) -> Self {
        Self {
            pieces,
            wan: 5.0,
            mirror: 0.0,
            lan: 100.0,
            machines: vec![Machine::default(); machines],
            seeder: None,
            seed: 1,
        }
    }

    fn run(&self) -> Outcome {
        let begin = Instant::now();
        let cut = Cut::new(u64::from(self.pieces) * MIB);
        let places: Rc<BTreeMap<PeerId, usize>> = Rc::new((0..self.machines.len()).map(|n| (id(n), n)).collect());
        let mut nodes: Vec<Node> = (0..self.machines.len())
            .map(|n| Node {
                id: id(n),
                places: Rc::clone(&places),
                plan: None,
                proven: Vec::new(),
                running: Vec::new(),
                fellows: BTreeMap::new(),
                done: None,
                from_hub: 0.0,
                from_mirror: 0.0,
                received: 0.0,
            })
            .collect();
        let mut time = 0.0;
        let limit =
            60.0 + 40.0 * f64::from(self.pieces) / (self.wan + self.mirror).max(self.seeder.unwrap_or(0.0) / 4.0);
        while time < limit {
            let now = begin + Duration::from_secs_f64(time);
            for n in 0..nodes.len() {
                self.join(&mut nodes, n, cut, time, now);
                self.listen(&mut nodes, n, time, now);
                let tick = (time / STEP) as u64 % 4 == n as u64 % 4;
                if tick && self.is_here(n, time) {
                    step(&mut nodes, n, Event::Tick, now);
                }
            }
            self.flow(&mut nodes, cut, time, now);
            let mut lasting = (0..nodes.len()).filter(|n| self.machines[*n].dies.is_none() && !self.is_hopeless(*n));
            if lasting.all(|n| nodes[n].done.is_some()) {
                break;
            }
            time += STEP;
        }
        self.outcome(&nodes, cut)
    }

    fn outcome(&self, nodes: &[Node], cut: Cut) -> Outcome {
        let size = cut.size() as f64;
        let lasting = (0..nodes.len()).filter(|n| self.machines[*n].dies.is_none() && !self.is_hopeless(*n));
        let ends: Option<Vec<f64>> = lasting.map(|n| nodes[n].done).collect();
        let honest = || nodes.iter().zip(&self.machines).filter(|(_, m)| !m.lies && m.stalls.is_none());
        let wanted: f64 = honest()
            .map(|(node, _)| node.plan.as_ref().map_or(0.0, |plan| f64::from(plan.have().len()) * MIB as f64))
            .sum();
        let got: f64 = honest().map(|(node, _)| node.received).sum();
        let partial: f64 = honest().flat_map(|(node, _)| &node.running).map(|flow| flow.got).sum();
        let first = (0..nodes.len()).max_by(|a, b| nodes[*a].from_hub.total_cmp(&nodes[*b].from_hub)).unwrap();
        Outcome {
            secs: ends.and_then(|ends| ends.into_iter().reduce(f64::max)),
            hub: nodes.iter().map(|node| node.from_hub).sum::<f64>() / size,
            mirror: nodes.iter().map(|node| node.from_mirror).sum::<f64>() / size,
            twice: (got - partial - wanted).max(0.0) / wanted.max(1.0),
            most: nodes[first].from_hub / size,
            first,
        }
    }

    fn is_hopeless(&self, n: usize) -> bool {
        self.machines[n].lies || self.machines[n].stalls.is_some()
    }

    fn is_here(&self, n: usize, time: f64) -> bool {
        let machine = &self.machines[n];
        time >= machine.joins && machine.dies.is_none_or(|dies| time < dies)
    }

    fn join(&self, nodes: &mut [Node], n: usize, cut: Cut, time: f64, now: Instant) {
        if nodes[n].plan.is_some() || !self.is_here(n, time) {
            return;
        }
        let seat = Seat::new(&nodes[n].id, file(self.seed));
        nodes[n].plan = Some(Plan::new(Some(seat), cut, PieceSet::none(cut.count()), now));
        step(nodes, n, Event::Hold(now + limits::FELLOW_FIRST), now);
        self.begin(nodes, n, now);
        // Who is there already hears of whoever asks, and so do they of it.
        for other in 0..nodes.len() {
            if other != n && nodes[other].plan.is_some() && self.is_here(other, time) {
                for (a, b) in [(n, other), (other, n)] {
                    meet(nodes, a, b, now);
                }
            }
        }
    }

    fn begin(&self, nodes: &mut [Node], n: usize, now: Instant) {
        if self.seeder.is_some() {
            let joined = Event::Joined { source: seeder(), offer: Offer::Whole, proof: Proof::Proven, rate: None };
            step(nodes, n, joined, now);
        }
        if self.wan > 0.0 && !self.machines[n].lies {
            let source = Source::Endpoint(HUB.to_owned());
            step(nodes, n, Event::Joined { source, offer: Offer::Whole, proof: Proof::Proven, rate: None }, now);
        }
        if self.mirror > 0.0 {
            let source = Source::Endpoint(MIRROR.to_owned());
            step(nodes, n, Event::Joined { source, offer: Offer::Whole, proof: Proof::Unproven, rate: None }, now);
        }
    }

    /// Lets a machine hear its fellows, if it is time for that.
    fn listen(&self, nodes: &mut [Node], n: usize, time: f64, now: Instant) {
        if nodes[n].plan.is_none() || !self.is_here(n, time) {
            return;
        }
        let due: Vec<usize> = nodes[n].fellows.iter().filter(|(_, seen)| seen.next <= time).map(|(f, _)| *f).collect();
        for other in due {
            let peer = nodes[other].id.clone();
            if !self.is_here(other, time) {
                nodes[n].fellows.remove(&other);
                step(nodes, n, Event::Parted(peer.clone()), now);
                step(nodes, n, Event::Left(Source::Peer(peer)), now);
                continue;
            }
            if nodes[other].done.is_some() {
                nodes[n].fellows.remove(&other);
                let proof = if self.seeder.is_some() { Proof::Proven } else { Proof::Unproven };
                let joined = Event::Joined { source: Source::Peer(peer), offer: Offer::Whole, proof, rate: None };
                step(nodes, n, joined, now);
                continue;
            }
            let word = match self.machines[other].lies {
                false => nodes[other].plan.as_ref().unwrap().word(now),
                true => {
                    Word { coming: std::iter::once(0..self.pieces).collect(), drawn: (time * 1.0e6) as u64, able: true }
                }
            };
            let proven = nodes[other].proven.len();
            let Some(seen) = nodes[n].fellows.get_mut(&other) else { continue };
            let known = std::mem::replace(&mut seen.pieces, proven);
            // Jitter keeps the machines from asking in step.
            let jitter = ((n * 7 + other * 13) as u64 + self.seed) % 5;
            let every = limits::FELLOW_EVERY + limits::PLAN_TICK / 2;
            seen.next = time + every.as_secs_f64() + jitter as f64 * 0.02;
            // A liar tells one and the same piece again and again.
            let new = if self.machines[other].lies { vec![0] } else { nodes[other].proven[known..].to_vec() };
            step(nodes, n, Event::Heard { peer: peer.clone(), word }, now);
            if !new.is_empty() {
                step(nodes, n, Event::Gained { peer, pieces: new }, now);
            }
        }
    }

    /// Lets bytes flow for one step.
    fn flow(&self, nodes: &mut [Node], cut: Cut, time: f64, now: Instant) {
        let (mut from_all, mut mirrored, mut seeded, mut up) = (0, 0, 0, vec![0; nodes.len()]);
        for flow in nodes.iter().flat_map(|node| &node.running) {
            match flow.from {
                From::Hub => from_all += 1,
                From::Mirror => mirrored += 1,
                From::Seeder => seeded += 1,
                From::Node(other) => up[other] += 1,
            }
        }
        for n in 0..nodes.len() {
            let mut events = Vec::new();
            let stalled = self.machines[n].stalls.is_some_and(|at| time >= at);
            let down = nodes[n].running.len();
            let to_hub = nodes[n].running.iter().filter(|flow| flow.from == From::Hub).count();
            let (mut from_hub, mut from_mirror) = (0.0, 0.0);
            let mut received = 0.0;
            let mut proven: Vec<u32> = Vec::new();
            for flow in &mut nodes[n].running {
                let share = |line: f64, flows: usize| line * MIB as f64 / flows.max(1) as f64;
                let theirs = match flow.from {
                    From::Hub => {
                        let own = self.machines[n].own_wan.map_or(f64::MAX, |own| share(own, to_hub));
                        share(self.wan, from_all).min(own)
                    }
                    From::Mirror => share(self.mirror, mirrored),
                    From::Seeder => share(self.seeder.unwrap_or(0.0), seeded),
                    From::Node(other) if !self.is_here(other, time) => {
                        events.push(Event::Ended { range: flow.range, how: Ended::Failed });
                        continue;
                    }
                    From::Node(other) if self.machines[other].stalls.is_some_and(|at| time >= at) => continue,
                    From::Node(other) => share(self.lan, up[other]),
                };
                if stalled {
                    continue;
                }
                let bytes = cut.bytes(&flow.pieces);
                let whole = (bytes.end - bytes.start) as f64;
                let before = flow.got.min(whole);
                flow.got = (flow.got + theirs.min(share(self.lan, down)) * STEP).min(whole);
                let payload = (flow.got as u64).saturating_sub(before as u64);
                received += payload as f64;
                match flow.from {
                    From::Hub => from_hub += payload as f64,
                    From::Mirror => from_mirror += payload as f64,
                    From::Seeder | From::Node(_) => {}
                }
                events.push(Event::Received { range: flow.range, bytes: payload });
                let reached = |got: f64| if got >= whole { flow.pieces.end } else { cut.at(bytes.start + got as u64) };
                let pieces: Vec<u32> = (reached(before)..reached(flow.got)).collect();
                // With a seeder there is a list to hold every piece against.
                if flow.from == From::Hub || self.seeder.is_some() {
                    proven.extend(&pieces);
                }
                events.extend(pieces.into_iter().map(Event::Piece));
                if flow.got >= whole {
                    events.push(Event::Ended { range: flow.range, how: Ended::Complete });
                }
            }
            let node = &mut nodes[n];
            node.from_hub += from_hub;
            node.from_mirror += from_mirror;
            node.received += received;
            node.proven.extend(proven);
            let over: BTreeSet<RangeId> = events
                .iter()
                .filter_map(|event| if let Event::Ended { range, .. } = event { Some(*range) } else { None })
                .collect();
            node.running.retain(|flow| !over.contains(&flow.range));
            for event in events {
                if self.is_here(n, time) {
                    step(nodes, n, event, now);
                }
            }
            let node = &mut nodes[n];
            if !self.is_here(n, time) {
                node.running.clear();
            }
            let full = node.plan.as_ref().is_some_and(|plan| plan.outlook(now) == Outlook::Done);
            if full && node.done.is_none() {
                node.done = Some(time);
                node.running.clear();
            }
        }
    }
}

fn seeder() -> Source {
    Source::Peer("12D3KooWTheSeeder".parse().unwrap())
}

fn meet(nodes: &mut [Node], n: usize, other: usize, now: Instant) {
    if nodes[n].done.is_some() {
        return;
    }
    let (peer, count) = (nodes[other].id.clone(), nodes[n].plan.as_ref().unwrap().have().count());
    let offer = if nodes[other].done.is_some() { Offer::Whole } else { Offer::Pieces(PieceSet::none(count)) };
    if nodes[other].done.is_none() {
        nodes[n].fellows.insert(other, Seen { pieces: 0, next: 0.0 });
        let word = nodes[other].plan.as_ref().unwrap().word(now);
        step(nodes, n, Event::Heard { peer: peer.clone(), word }, now);
    }
    step(nodes, n, Event::Joined { source: Source::Peer(peer), offer, proof: Proof::Unproven, rate: None }, now);
}

fn step(nodes: &mut [Node], n: usize, event: Event, now: Instant) {
    let node = &mut nodes[n];
    let Some(plan) = &mut node.plan else { return };
    for action in plan.step(event, now) {
        match action {
            Action::Ask { range, source, pieces } => {
                let from = match &source {
                    Source::Endpoint(url) if url == MIRROR => From::Mirror,
                    Source::Endpoint(_) => From::Hub,
                    Source::Peer(peer) => node.places.get(peer).map_or(From::Seeder, |other| From::Node(*other)),
                };
                node.running.push(Flow { range, from, pieces, got: 0.0 });
            }
            Action::Shorten { range, end } => {
                if let Some(flow) = node.running.iter_mut().find(|flow| flow.range == range) {
                    flow.pieces.end = end;
                }
            }
            Action::Drop { range } => node.running.retain(|flow| flow.range != range),
        }
    }
}

/// The time in which one machine alone gets the file.
fn alone(lab: &Lab) -> f64 {
    let machines = vec![Machine::default()];
    Lab { machines, ..lab.clone() }.run().secs.unwrap()
}

/// How many machines to try: a few, or with `SEEDS` set, which scripts/curves.sh does, many.
fn crowd<'a>(few: &'a [usize], many: &'a [usize]) -> impl Iterator<Item = usize> + 'a {
    let all = if std::env::var_os("SEEDS").is_some() { many } else { few };
    all.iter().copied()
}

/// The machine that has fetched most from the Hub dies at half time.
fn half_dead(machines: usize, pieces: u32) -> Outcome {
    let mut lab = Lab::of(machines, pieces);
    let clean = lab.run();
    lab.machines[clean.first].dies = Some(clean.secs.unwrap() / 2.0);
    lab.run()
}

#[test]
fn the_wan_carries_a_file_once_however_many_want_it() {
    let one = alone(&Lab::of(1, 256));
    for machines in crowd(&[2, 3, 8, 16], &[2, 3, 4, 5, 8, 13, 16, 32, 64]) {
        let outcome = Lab::of(machines, 256).run();
        assert!(outcome.hub <= 1.05, "{machines} machines: {outcome:?}");
        assert!(outcome.secs.unwrap() <= one * 1.1 + 1.0, "{machines} machines: {outcome:?}, alone {one}");
        assert!(outcome.twice <= 0.01, "{machines} machines: {outcome:?}");
        // Everybody fetches about as much as everybody else.
        assert!(outcome.most <= 2.5 / machines as f64, "{machines} machines: {outcome:?}");
    }
}

#[test]
fn a_machine_that_dies_costs_what_was_on_its_way() {
    let one = alone(&Lab::of(1, 256));
    for machines in crowd(&[2, 6], &[2, 4, 8, 16, 32]) {
        let outcome = half_dead(machines, 256);
        assert!(outcome.hub <= 1.10, "{machines} machines: {outcome:?}");
        assert!(outcome.secs.unwrap() <= one * 1.15 + 4.0, "{machines} machines: {outcome:?}, alone {one}");
    }
}

#[test]
fn takers_of_one_slow_seeder_serve_each_other() {
    let lab = Lab { wan: 0.0, seeder: Some(10.0), ..Lab::of(1, 256) };
    let one = alone(&lab);
    for machines in crowd(&[2, 8], &[2, 8, 30]) {
        let outcome = Lab { machines: vec![Machine::default(); machines], ..lab.clone() }.run();
        assert!(outcome.secs.unwrap() <= one * 1.2, "{machines} machines: {outcome:?}, alone {one}");
    }
}

#[test]
fn a_mirror_helps_where_it_gives_more_than_the_hub_shared_by_all() {
    let lab = Lab { wan: 0.5, mirror: 10.0, ..Lab::of(4, 256) };
    let outcome = lab.run();
    // Each for itself they would have a quarter of both.
    assert!(outcome.secs.unwrap() <= 256.0 / (10.5 / 4.0) * 1.15 + 10.0, "{outcome:?}");
    // One no faster than the Hub is tried with a piece each, and then left alone.
    let outcome = Lab { wan: 2.0, mirror: 2.0, ..Lab::of(4, 512) }.run();
    assert!(outcome.hub <= 1.05 && outcome.mirror <= 4.0 / 512.0, "{outcome:?}");
}

#[test]
fn a_machine_with_a_faster_line_of_its_own_brings_more() {
    let mut lab = Lab { wan: 100.0, ..Lab::of(4, 128) };
    for (machine, own) in lab.machines.iter_mut().zip([8.0, 0.5, 0.5, 0.5]) {
        machine.own_wan = Some(own);
    }
    let outcome = lab.run();
    assert_eq!(outcome.first, 0);
    assert!(outcome.secs.unwrap() <= 128.0 / 9.5 * 2.0 + 4.0, "{outcome:?}");
    assert!(outcome.hub <= 1.1, "{outcome:?}");
}

#[test]
fn nobody_waits_for_a_machine_that_only_says_that_it_is_bringing_pieces() {
    let mut lab = Lab::of(4, 64);
    lab.machines[1].lies = true;
    let outcome = lab.run();
    let one = alone(&Lab::of(1, 64));
    let wait = limits::FELLOW_PIECE.as_secs_f64();
    assert!(outcome.secs.unwrap() <= one * 1.15 + wait + 2.0, "{outcome:?}, alone {one}");
    assert!(outcome.hub <= 1.1, "{outcome:?}");
}

/// A lab that a seed describes: joins, deaths, stalls and lies at any time, and one machine at least that lasts.
fn some_lab(seed: u64) -> Lab {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    let count = 2 + below(5) as usize;
    let wan = [2.0, 8.0][below(2) as usize];
    let machines = (0..count).map(|n| {
        let at = |below: &mut dyn FnMut(u64) -> u64| below(80) as f64 / 10.0;
        let mut machine = Machine { joins: if below(2) == 0 { 0.0 } else { at(&mut below) }, ..Machine::default() };
        if n > 0 {
            match below(8) {
                0 => machine.dies = Some(machine.joins + at(&mut below)),
                1 => machine.stalls = Some(machine.joins + at(&mut below)),
                2 => machine.lies = true,
                3 => machine.own_wan = Some(0.3),
                _ => {}
            }
        }
        machine
    });
    let machines = machines.collect();
    let seeder = (below(4) == 0).then_some(4.0);
    Lab {
        pieces: 8 + below(56) as u32,
        wan,
        mirror: 0.0,
        lan: [20.0, 100.0][below(2) as usize],
        machines,
        seeder,
        seed,
    }
}

#[test]
fn every_piece_arrives_wherever_a_source_is_left_in_any_lab() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(60);
    for seed in 0..seeds {
        let lab = some_lab(seed);
        let outcome = lab.run();
        let slowest = alone(&lab) + lab.machines.iter().map(|m| m.joins).fold(0.0, f64::max);
        let patience = limits::FELLOW_PIECE.as_secs_f64();
        assert!(outcome.secs.is_some_and(|secs| secs <= slowest * 2.0 + patience * 3.0), "{seed}: {outcome:?} {lab:?}");
        // Lost with the dead and given to the stalled; the others share the rest.
        let honest = lab.machines.iter().all(|m| m.dies.is_none() && m.stalls.is_none() && !m.lies);
        // Of a few dozen pieces, two are a good part.
        let two = 2.0 / (f64::from(lab.pieces) * lab.machines.len() as f64);
        assert!(!honest || outcome.twice <= two.max(0.05), "{seed}: {outcome:?} {lab:?}");
    }
}

#[test]
#[ignore = "prints figures; scripts/curves.sh runs it"]
#[allow(clippy::print_stdout, reason = "printing is what it is for")]
fn curves() {
    let sizes = [1, 2, 4, 8, 16, 32, 64, 128];
    println!(
        "256 MiB over a shared line of 5 MiB/s, a LAN of 100 MiB/s; the same with the busiest dying at half time;"
    );
    println!("and from one seeder with a line of 10 MiB/s, without a Hub. Bytes over the size, times over one alone.");
    println!(
        "{:>8} | {:>6} {:>6} {:>7} | {:>6} {:>6} | {:>6}",
        "machines", "hub", "time", "twice", "hub", "time", "time"
    );
    let one = alone(&Lab::of(1, 256));
    let seeded = Lab { wan: 0.0, seeder: Some(10.0), ..Lab::of(1, 256) };
    let one_seeded = alone(&seeded);
    for machines in sizes {
        let all = Lab::of(machines, 256).run();
        let takers = Lab { machines: vec![Machine::default(); machines], ..seeded.clone() }.run();
        let (secs, taken) = (all.secs.unwrap() / one, takers.secs.unwrap() / one_seeded);
        let dead = if machines > 1 { half_dead(machines, 256) } else { Lab::of(1, 256).run() };
        let (hub, rest) = (dead.hub, dead.secs.unwrap() / one);
        println!(
            "{machines:>8} | {:>6.3} {secs:>6.3} {:>7.4} | {hub:>6.3} {rest:>6.3} | {taken:>6.3}",
            all.hub, all.twice
        );
    }
}
