//! Small beside huge: who wants little does not wait for who wants much.
//!
//! The thin line is the taker's. A giver's kernel lets a connection keep two packets in a queue of its own machine, and
//! while others fill that queue, a new connection would get next to nothing: no line elsewhere knows of such a rule.

use std::time::{Duration, Instant};

use crate::kit::hub::{MIB, Repo, TestHub, unique};
use crate::kit::lab::Lab;
use crate::kit::node::Node;
use crate::kit::{secs, until};

/// What nine megabytes may take that share 5 MB/s with three huge files: eight seconds are their quarter of it, which is
/// dealt out by connections that do not all get the same.
const MEDIUM: Duration = secs(20);
const HUGE: [&str; 4] = ["1.bin", "2.bin", "3.bin", "4.bin"];

/// Forty files of 10 KB.
fn small(id: &str) -> Repo {
    (0..40).fold(Repo::model(id), |repo, n| repo.lfs(&format!("{n:02}.bin"), unique(10_000)))
}

/// A Hub with something huge, something in between and two of something small.
fn hub_with_all_sizes(lab: &mut Lab) -> TestHub {
    let huge = HUGE.iter().fold(Repo::model("org/huge"), |repo, name| repo.lfs(name, unique(64 * MIB)));
    let medium = Repo::model("org/medium").lfs("m.bin", unique(9 * MIB));
    [huge, medium, small("org/small1"), small("org/small2")].into_iter().fold(lab.hub(), TestHub::with)
}

/// How long small adds take alone, and how long they and one of nine megabytes take beside a huge one that has
/// taken all it can, and fills the line with three files to the end.
fn measured(lab: &Lab, node: &Node) -> [Duration; 3] {
    let took = |id: &str| {
        let start = Instant::now();
        node.add(&[id]);
        start.elapsed()
    };
    let alone = took("org/small1");
    let before = lab.carried(node).received;
    let huge = node.start_adding(&["org/huge"]);
    until("the huge add runs at full speed", secs(30), || lab.carried(node).received > before + (8 << 20));
    let beside = took("org/small2");
    let medium = took("org/medium");
    println!("alone {alone:?}, beside a huge one {beside:?}, and 9 MiB beside it {medium:?}");
    assert!(HUGE.iter().all(|name| node.lacks("org/huge", name)), "the huge add was half over before all was measured");
    huge.signal("INT");
    huge.ends();
    [alone, beside, medium]
}

/// What a small add may take beside a huge one: a few times its own time, and what its `trips` take behind what waits on
/// the line already.
fn fair(alone: Duration, trips: Duration) -> Duration {
    3 * alone + trips
}

#[test]
fn a_small_add_is_not_starved_by_a_huge_one_from_the_same_peer() {
    let Some(mut lab) = Lab::new() else { return };
    let hub = hub_with_all_sizes(&mut lab);
    let [giver, taker] = ["a", "b"].map(|name| lab.node(name).hub(&hub));
    giver.start();
    ["org/huge", "org/medium", "org/small1", "org/small2"].iter().for_each(|id| drop(giver.add(&[id])));
    lab.unplug_hub();
    lab.rate(&taker, "40mbit");
    taker.start().pair(&giver);
    let [alone, beside, medium] = measured(&lab, &taker);
    assert!(beside < fair(alone, secs(2)), "{beside:?} beside a huge add, {alone:?} alone");
    assert!(medium < MEDIUM, "{medium:?}");
}

#[test]
fn a_small_add_is_not_starved_by_a_huge_one_from_the_hub() {
    let Some(mut lab) = Lab::new() else { return };
    let hub = hub_with_all_sizes(&mut lab);
    let node = lab.node("a").hub(&hub);
    node.start();
    lab.rate(&node, "40mbit");
    let [alone, beside, medium] = measured(&lab, &node);
    // Each file is two of them, one to the Hub and one to where its bytes are.
    assert!(beside < fair(alone, secs(3)), "{beside:?} beside a huge add, {alone:?} alone");
    assert!(medium < MEDIUM, "{medium:?}");
}
