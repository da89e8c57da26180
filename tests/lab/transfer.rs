//! Bytes on the wire: from the fast, around the dead, and never more than needed.

use crate::kit::hub::{MIB, Repo, TestHub, unique};
use crate::kit::lab::Lab;
use crate::kit::node::Node;
use crate::kit::{secs, until};

/// Machines that all know each other, on a lab with a Hub that has `org/m`.
fn lab_with(weights: &bytes::Bytes, names: &[&str]) -> Option<(Lab, TestHub, Vec<Node>)> {
    let mut lab = Lab::new()?;
    let hub = lab.hub().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    let nodes: Vec<Node> = names.iter().map(|name| lab.node(name).hub(&hub)).collect();
    for node in &nodes {
        node.start();
    }
    until("all see all", secs(20), || {
        nodes.iter().all(|node| {
            let peers = node.json(&["peer", "ls"]);
            peers.as_array().unwrap().iter().filter(|peer| peer["active"] == true).count() == nodes.len() - 1
        })
    });
    Some((lab, hub, nodes))
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
fn a_peer_cut_off_half_way_costs_seconds_and_no_byte() {
    let weights = unique(48 * MIB);
    let Some((mut lab, hub, nodes)) = lab_with(&weights, &["a", "b"]) else { return };
    nodes[0].add(&["org/m"]);
    lab.rate(&nodes[0], "100mbit");
    hub.forget();
    let before = lab.carried(&nodes[1]).received;
    let adding = nodes[1].start_adding(&["org/m"]);
    until("bytes flow", secs(30), || lab.carried(&nodes[1]).received > before + (8 << 20));
    lab.part(&nodes[0], &nodes[1]);
    let started = std::time::Instant::now();
    adding.done();
    let took = started.elapsed();
    nodes[1].holds("org/m", "w.bin", &weights);
    assert!(took < secs(25), "it took {took:?} to go on from the Hub");
    assert!(hub.sent("w.bin") <= weights.len() as u64, "what had come was fetched again");
}

#[test]
fn a_hub_cut_off_half_way_is_replaced_by_a_peer() {
    let weights = unique(32 * MIB);
    let Some((lab, hub, nodes)) = lab_with(&weights, &["a", "b"]) else { return };
    nodes[0].add(&["org/m"]);
    nodes[0].stop();
    lab.hub_rate("60mbit");
    hub.forget();
    let adding = nodes[1].start_adding(&["org/m"]);
    until("bytes flow", secs(30), || hub.sent("w.bin") > 6 << 20);
    lab.unplug_hub();
    nodes[0].start();
    adding.done();
    nodes[1].holds("org/m", "w.bin", &weights);
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
