//! Machines that want the same file at the same time: the WAN carries it once, and nobody waits for somebody who left.
//!
//! The figures of a lab in earnest are those of `scripts/swarm.sh`; these are what a busy machine with a debug build must
//! still reach, so a sentence that fails here is broken and not slow.

use std::time::Instant;

use bytes::Bytes;

use crate::kit::hub::{Fault, Host, MIB, Repo, TestHub, unique};
use crate::kit::lab::Lab;
use crate::kit::node::{Adding, Node};
use crate::kit::{secs, until};
use crate::transfer::{all_see_all, lab_with};

const FIVE: [&str; 5] = ["a", "b", "c", "d", "e"];

/// What the Hub's line carried for every byte of the file, headers and small files included.
fn share(carried: u64, weights: &Bytes) -> f64 {
    carried as f64 / weights.len() as f64
}

/// All of them begin; what they have is checked when they are done.
fn start_all(nodes: &[Node]) -> Vec<Adding> {
    nodes.iter().map(|node| node.start_adding(&["org/m"])).collect()
}

#[track_caller]
fn all_done(adds: Vec<Adding>, nodes: &[Node], weights: &Bytes) {
    adds.into_iter().for_each(|adding| drop(adding.done()));
    for node in nodes {
        node.holds("org/m", "w.bin", weights);
    }
}

fn pair_all(nodes: &[Node]) {
    for node in nodes {
        for other in nodes.iter().filter(|other| other.name != node.name) {
            node.pair(other);
        }
    }
}

/// Waits until the Hub's line has carried this much since its count stood at `before`.
#[track_caller]
fn hub_gave(lab: &Lab, before: u64, bytes: u64) {
    until("the Hub gives", secs(60), || lab.carried_by_hub().sent > before + bytes);
}

fn lab_on_a_thin_line(weights: &Bytes) -> Option<(Lab, TestHub, Vec<Node>)> {
    let (lab, hub, nodes) = lab_with(weights, &FIVE)?;
    lab.hub_rate("40mbit");
    hub.forget();
    Some((lab, hub, nodes))
}

#[test]
fn five_machines_that_start_together_take_the_file_over_the_wan_once() {
    let weights = unique(64 * MIB);
    let Some((lab, _hub, nodes)) = lab_on_a_thin_line(&weights) else { return };
    let (before, started) = (lab.carried_by_hub().sent, Instant::now());
    all_done(start_all(&nodes), &nodes, &weights);
    let (carried, took) = (share(lab.carried_by_hub().sent - before, &weights), started.elapsed());
    println!("the line carried the file {carried:.2} times for five machines, in {took:.1?}");
    assert!(carried < 1.15, "the line carried the file {carried:.2} times");
    // One alone takes 13.4 s for it. What is left over is for a machine that is busy with other tests.
    assert!(took < secs(24), "{took:?}");
}

#[test]
fn a_machine_that_is_killed_half_way_costs_the_others_its_pieces_in_flight() {
    let weights = unique(64 * MIB);
    let Some((lab, _hub, mut nodes)) = lab_on_a_thin_line(&weights) else { return };
    let (before, started) = (lab.carried_by_hub().sent, Instant::now());
    let mut adds = start_all(&nodes);
    hub_gave(&lab, before, weights.len() as u64 / 2);
    nodes.remove(0).kill9();
    let ended = adds.remove(0);
    all_done(adds, &nodes, &weights);
    let (carried, took) = (share(lab.carried_by_hub().sent - before, &weights), started.elapsed());
    assert_ne!(ended.ends().code, Some(0), "a command whose daemon died says so");
    println!("with one of five killed the line carried the file {carried:.2} times, in {took:.1?}");
    assert!(carried < 1.2, "the line carried the file {carried:.2} times");
    assert!(took < secs(28), "{took:?}");
}

#[test]
fn a_machine_that_freezes_half_way_is_not_waited_for() {
    let weights = unique(64 * MIB);
    let Some((lab, _hub, mut nodes)) = lab_on_a_thin_line(&weights) else { return };
    let (before, started) = (lab.carried_by_hub().sent, Instant::now());
    let mut adds = start_all(&nodes);
    hub_gave(&lab, before, weights.len() as u64 / 2);
    nodes[0].freeze();
    let (frozen, its_add) = (nodes.remove(0), adds.remove(0));
    all_done(adds, &nodes, &weights);
    let (carried, took) = (share(lab.carried_by_hub().sent - before, &weights), started.elapsed());
    println!("with one of five frozen the line carried the file {carried:.2} times, in {took:.1?}");
    assert!(carried < 1.2, "the line carried the file {carried:.2} times");
    assert!(took < secs(28), "{took:?}");
    // What it missed is here by now, so it needs the Hub for hardly anything.
    let before = lab.carried_by_hub().sent;
    frozen.thaw();
    all_done(vec![its_add], &[frozen], &weights);
    let carried = share(lab.carried_by_hub().sent - before, &weights);
    assert!(carried < 0.15, "the line carried {carried:.2} of the file for one that came back");
}

#[test]
fn a_machine_that_joins_half_way_makes_the_wan_carry_nothing_twice() {
    let weights = unique(64 * MIB);
    let Some((lab, _hub, nodes)) = lab_on_a_thin_line(&weights) else { return };
    let (late, early) = nodes.split_last().unwrap();
    let (before, started) = (lab.carried_by_hub().sent, Instant::now());
    let mut adds = start_all(early);
    hub_gave(&lab, before, weights.len() as u64 / 2);
    adds.push(late.start_adding(&["org/m"]));
    all_done(adds, &nodes, &weights);
    let (carried, took) = (share(lab.carried_by_hub().sent - before, &weights), started.elapsed());
    println!("with a late one the line carried the file {carried:.2} times, in {took:.1?}");
    assert!(carried < 1.15, "the line carried the file {carried:.2} times");
    assert!(took < secs(24), "{took:?}");
}

#[test]
fn takers_of_one_seeder_with_a_limited_line_serve_each_other() {
    let weights = unique(32 * MIB);
    let Some((lab, hub, nodes)) = lab_with(&weights, &FIVE) else { return };
    let (seeder, takers) = nodes.split_first().unwrap();
    seeder.add(&["org/m"]);
    // With no Hub, nobody knows what is public: a machine gives to those whom its user named.
    pair_all(&nodes);
    lab.unplug_hub();
    lab.rate(seeder, "40mbit");
    hub.forget();
    let (before, started) = (lab.carried(seeder).sent, Instant::now());
    all_done(start_all(takers), takers, &weights);
    let (given, took) = (lab.carried(seeder).sent - before, started.elapsed());
    println!("the seeder gave the file {:.2} times to four takers, in {took:.1?}", share(given, &weights));
    assert!(share(given, &weights) < 1.5, "the seeder gave the file {:.2} times", share(given, &weights));
    // One taker alone needs 6.7 s, and a Hub that is silent costs each of them some more.
    assert!(took < secs(20), "{took:?}");
    assert_eq!(hub.sent_in_all(), 0);
}

#[test]
fn a_fast_mirror_is_used_beside_others_where_the_hub_is_slow() {
    let weights = unique(96 * MIB);
    let Some(mut lab) = Lab::new() else { return };
    let repo = Repo::model("org/m").lfs("w.bin", weights.clone());
    let (hub, mirror) = (lab.hub().with(repo.clone()), lab.mirror().with(repo));
    let nodes = ["a", "b", "c"].map(|name| lab.node(name).hub(&hub).mirror(&mirror));
    all_see_all(&nodes);
    hub.fault(Fault::Rate { bytes_per_sec: 100_000 }.at(Host::Data));
    let started = Instant::now();
    all_done(start_all(&nodes), &nodes, &weights);
    let (took, share) = (started.elapsed(), share(mirror.sent("w.bin"), &weights));
    println!("the mirror gave the file {share:.2} times to three machines, in {took:.1?}");
    // Six connections to the Hub, of which each carries 100 kB/s, would need 168 s.
    assert!(took < secs(60), "{took:?}");
    assert!(share > 0.5, "the mirror gave the file {share:.2} times");
}

/// Questions that the Hub got, for names and for addresses of bytes.
fn questions(hub: &TestHub) -> (usize, usize) {
    let of = |routes: &[&str]| routes.iter().map(|route| hub.requests(route)).sum();
    (of(&["info", "revision", "tree", "paths-info", "refs"]), of(&["resolve", "resolve-cache"]))
}

#[test]
fn questions_to_the_hub_do_not_multiply_with_paired_machines() {
    let weights = unique(24 * MIB);
    let Some((_lab, hub, nodes)) = lab_on_a_thin_line(&weights) else { return };
    pair_all(&nodes);
    all_done(vec![nodes[0].start_adding(&["org/m"])], &nodes[..1], &weights);
    let one = questions(&hub);
    all_done(start_all(&nodes[1..]), &nodes, &weights);
    let all = questions(&hub);
    println!("one machine asked the Hub {one:?} times, and five {all:?} times");
    assert_eq!(all.0, one.0, "for names: left five machines, right the first of them alone");
    // Where the LAN is slow for a second, the Hub is asked to help, and for that each needs an address.
    assert!(all.1 <= nodes.len(), "{} questions for the address of one file", all.1);
}

#[test]
fn paired_machines_that_start_together_ask_the_hub_for_names_once() {
    let weights = unique(24 * MIB);
    let Some((_lab, hub, nodes)) = lab_on_a_thin_line(&weights) else { return };
    pair_all(&nodes);
    let small = |repo: Repo, n: usize| repo.lfs(&format!("{n}.bin"), unique(20_000));
    hub.put((0..100).fold(Repo::model("org/m").lfs("w.bin", weights.clone()), small));
    all_done(start_all(&nodes), &nodes, &weights);
    let (names, addresses) = questions(&hub);
    let large = hub.seen().iter().filter(|seen| seen.route == "resolve" && seen.target.ends_with("w.bin")).count();
    println!(
        "five machines that start together asked the Hub {names} times for names, {large} for where one large file \
              is, and {} for 100 small ones",
        addresses - large
    );
    assert_eq!(names, 2, "what `main` is, and which files that has");
    // Each of the five draws its own part of the large file, for which it needs an address.
    assert!(large <= nodes.len(), "{large} questions for the address of one file");
    // Where every machine is slow to answer, as here, one now and then does not wait for another.
    assert!(addresses - large <= 200, "{} questions for the addresses of 100 small files", addresses - large);
}
