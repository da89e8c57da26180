//! Bytes on the wire: from the fast first, and never more than needed.

use std::time::Instant;

use crate::kit::hub::{MIB, Repo, TestHub, note, unique};
use crate::kit::lab::Lab;
use crate::kit::node::Node;
use crate::kit::{secs, until};

/// Machines that all know each other, on a lab with a Hub that has `org/m`.
pub(crate) fn lab_with(weights: &bytes::Bytes, names: &[&str]) -> Option<(Lab, TestHub, Vec<Node>)> {
    let mut lab = Lab::new()?;
    let hub = lab.hub().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    let nodes: Vec<Node> = names.iter().map(|name| lab.node(name).hub(&hub)).collect();
    all_see_all(&nodes);
    Some((lab, hub, nodes))
}

/// Starts the machines' daemons, and waits until each has found all the others.
pub(crate) fn all_see_all(nodes: &[Node]) {
    for node in nodes {
        node.start();
    }
    until("all see all", secs(20), || {
        nodes.iter().all(|node| {
            let peers = node.json(&["peer", "ls"]);
            peers.as_array().unwrap().iter().filter(|peer| peer["active"] == true).count() == nodes.len() - 1
        })
    });
}

#[test]
fn a_lab_takes_a_file_over_the_wan_once_and_counts_truly() {
    let weights = unique(32 * MIB);
    let Some((lab, _hub, nodes)) = lab_with(&weights, &["a", "b", "c"]) else { return };
    let size = weights.len() as u64;
    lab.count(&nodes[0], &nodes[1]);
    let start = lab.carried_by_hub().sent;
    nodes[0].add(&["org/m"]);
    let first = lab.carried_by_hub().sent - start;
    assert!((size..size + size / 10).contains(&first), "the Hub's line carried {first} bytes");

    let start = lab.carried_by_hub().sent;
    let added = nodes[1].add(&["org/m"]);
    let second = lab.carried_by_hub().sent - start;
    assert!(second < 200_000, "the Hub's line carried {second} bytes though a peer had the file");
    let wire = lab.counted(&nodes[0], &nodes[1]);
    let told = added.peer_bytes();
    assert!((size..size + size / 10).contains(&wire) && told <= wire, "told {told}, on the wire {wire}");

    let start = lab.carried_by_hub().sent;
    let added = nodes[2].add(&["org/m"]);
    assert!(lab.carried_by_hub().sent - start < 200_000);
    assert_eq!(added.peer_bytes(), size);
    for node in &nodes[..2] {
        assert!(added.peer_bytes_from(&node.peer_id()) > size / 10, "both holders give: {added:#?}");
    }
    nodes[2].holds("org/m", "w.bin", &weights);
}

#[test]
fn a_slow_peer_does_not_hold_up_what_the_hub_gives_fast() {
    let weights = unique(32 * MIB);
    let Some((lab, _hub, nodes)) = lab_with(&weights, &["a", "b"]) else { return };
    nodes[0].add(&["org/m"]);
    lab.rate(&nodes[0], "8mbit");
    let added = nodes[1].add(&["org/m"]);
    nodes[1].holds("org/m", "w.bin", &weights);
    let took = added.file("w.bin")["seconds"].as_f64().unwrap();
    assert!(took < 15.0, "1 MB/s and a fast Hub took {took} s for 32 MiB");
}

#[test]
fn a_slow_hub_and_a_slow_peer_add_up() {
    let weights = unique(24 * MIB);
    let Some((lab, _hub, nodes)) = lab_with(&weights, &["a", "b"]) else { return };
    nodes[0].add(&["org/m"]);
    lab.rate(&nodes[0], "24mbit");
    lab.hub_rate("24mbit");
    let added = nodes[1].add(&["org/m"]);
    let took = added.file("w.bin")["seconds"].as_f64().unwrap();
    // One of them alone takes more than eight seconds.
    assert!(added.hub_bytes() > 4 << 20 && added.peer_bytes() > 4 << 20, "{added:#?}");
    assert!(took < 7.5, "twice 3 MB/s took {took} s for 24 MiB");
}

#[test]
fn five_machines_that_ask_at_once_share_one_slow_line() {
    let weights = unique(24 * MIB);
    let Some((lab, _hub, nodes)) = lab_with(&weights, &["a", "b", "c", "d", "e"]) else { return };
    lab.hub_rate("40mbit");
    let before = lab.carried_by_hub().sent;
    let adds: Vec<_> = nodes.iter().map(|node| node.start_adding(&["org/m"])).collect();
    adds.into_iter().for_each(|adding| drop(adding.done()));
    for node in &nodes {
        node.holds("org/m", "w.bin", &weights);
    }
    let carried = lab.carried_by_hub().sent - before;
    let files = carried as f64 / weights.len() as f64;
    println!("the line carried the file {files:.2} times for five machines");
    assert!(files < 2.5, "the line carried the file {files:.2} times for five machines");
}

#[test]
fn a_peer_at_lan_speed_leaves_the_wan_alone() {
    let weights = unique(256 * MIB);
    let Some((lab, hub, nodes)) = lab_with(&weights, &["a", "b"]) else { return };
    nodes[0].add(&["org/m"]);
    lab.hub_rate("50mbit");
    hub.forget();
    let added = nodes[1].add(&["org/m"]);
    nodes[1].holds("org/m", "w.bin", &weights);
    let took = added.file("w.bin")["seconds"].as_f64().unwrap();
    let rate = weights.len() as f64 / took / 1e6;
    println!("256 MiB took {took:.1} s: {rate:.0} MB/s");
    assert!(hub.sent("w.bin") < weights.len() as u64 / 4, "the Hub gave {} of {}", hub.sent("w.bin"), weights.len());
    // A machine that is busy with something else may be no LAN-speed peer for a moment.
    if rate > 35.0 {
        assert_eq!((hub.sent("w.bin"), added.hub_bytes()), (0, 0), "the Hub gave what a peer had");
        assert_eq!(added.peer_bytes(), weights.len() as u64);
    }
}

#[test]
fn a_model_in_many_files_leaves_the_wan_alone_too() {
    let Some(mut lab) = Lab::new() else { return };
    let shard = |n: u64| (format!("model-{n}.bin"), unique(64 * MIB));
    let shards: Vec<_> = (0..4).map(shard).collect();
    let files = shards.iter().fold(Repo::model("org/m"), |repo, (name, bytes)| repo.lfs(name, bytes.clone()));
    let hub =
        lab.hub().with((0..24).fold(files, |repo, n| repo.file(&format!("part/{n}.json"), note("some settings"))));
    let (a, b) = (lab.node("a").hub(&hub), lab.node("b").hub(&hub));
    a.start();
    b.start();
    a.add(&["org/m"]);
    let id = a.peer_id();
    until("b sees a", secs(10), || b.sees_active(&id));
    lab.hub_rate("50mbit");
    hub.forget();
    let started = Instant::now();
    let added = b.add(&["org/m"]);
    let rate = (shards.len() * 64 * MIB) as f64 / started.elapsed().as_secs_f64() / 1e6;
    for (name, bytes) in &shards {
        b.holds("org/m", name, bytes);
    }
    println!("four shards came with {rate:.0} MB/s");
    assert!(hub.sent_in_all() < 64 * MIB as u64, "the Hub gave {}", hub.sent_in_all());
    if rate > 35.0 {
        assert_eq!((hub.sent_in_all(), added.hub_bytes()), (0, 0), "the Hub gave what a peer had");
    }
}

#[test]
fn many_machines_take_from_one_at_the_same_time_and_hardly_from_the_hub() {
    let weights = unique(24 * MIB);
    let Some((lab, hub, nodes)) = lab_with(&weights, &["a", "b", "c", "d", "e", "f"]) else { return };
    let size = weights.len() as u64;
    nodes[0].add(&["org/m"]);
    lab.hub_rate("20mbit");
    hub.forget();
    let before: Vec<_> = nodes[1..].iter().map(|node| lab.carried(node).received).collect();
    // Three terminals on each machine want the same.
    let machines: Vec<_> = nodes[1..].iter().map(|node| [(); 3].map(|()| node.start_adding(&["org/m"]))).collect();
    for ((node, adds), before) in nodes[1..].iter().zip(machines).zip(before) {
        let bytes: u64 = adds.into_iter().map(|adding| adding.done()).map(|a| a.hub_bytes() + a.peer_bytes()).sum();
        let wire = lab.carried(node).received - before;
        node.holds("org/m", "w.bin", &weights);
        assert!(bytes >= size && bytes <= wire, "`{}` told of {bytes} bytes, its cable of {wire}", node.name);
        assert!(wire < size + size / 4, "`{}` took {wire} bytes for {size}", node.name);
    }
    assert!(hub.sent("w.bin") < size, "the Hub sent {} of {size} bytes, though a peer had all", hub.sent("w.bin"));
}
