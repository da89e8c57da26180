//! From one machine to the next: who gives what to whom, and what a wrong byte leads to.

use crate::kit::hub::{Fault, Host, MIB, Repo, TOKEN, TestHub, note, unique};
use crate::kit::node::Node;
use crate::kit::{secs, until};

/// Two machines, the second of which knows the first.
fn pair(hub: &TestHub) -> (Node, Node) {
    let (a, b) = (Node::local("a").hub(hub), Node::local("b").hub(hub));
    a.start();
    b.start();
    b.pair(&a);
    let id = a.peer_id();
    until("they see each other", secs(15), || b.sees_active(&id));
    (a, b)
}

#[test]
fn what_one_machine_has_the_next_gets_from_there_and_not_from_the_hub() {
    let (weights, config) = (unique(32 * MIB + 5), note("config"));
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()).file("a.json", config.clone()));
    let (a, b) = pair(&hub);
    a.add(&["org/m"]);
    hub.forget();
    let added = b.add(&["org/m"]);
    b.holds("org/m", "w.bin", &weights).holds("org/m", "a.json", config.as_bytes());
    assert_eq!(hub.sent("w.bin"), 0);
    assert_eq!(added.file("w.bin")["hub_bytes"], 0);
    assert_eq!(added.peer_bytes_from(&a.peer_id()), added.peer_bytes());
    assert!(added.peer_bytes() >= weights.len() as u64);
    assert_eq!(added.hub_bytes(), hub.sent_in_all());

    let found = b.json(&["model", "search", "org/m"]);
    assert_eq!(
        (found[0]["peer_id"].as_str(), found[0]["complete"].as_bool()),
        (Some(a.peer_id().as_str()), Some(true))
    );
}

#[test]
fn a_wrong_byte_on_a_peers_disk_is_found_repaired_and_its_owner_named() {
    let weights = unique(24 * MIB);
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    let (a, b) = pair(&hub);
    a.add(&["org/m"]);
    a.rot("org/m", "w.bin", 12_345_678);
    hub.forget();
    let talk = b.cli(&["-v", "model", "add", "org/m"]).ok();
    b.holds("org/m", "w.bin", &weights);
    let sent = hub.sent("w.bin");
    assert!(sent > 0 && sent <= 20 << 20, "one wrong byte of 24 MiB took {sent} bytes from the Hub");
    let told = format!("{}{}", talk.stderr, b.log());
    let id = a.peer_id();
    assert!(told.contains(&id) || told.contains(&id[id.len() - 8..]), "nobody says whose fault it was: {told}");
}

#[test]
fn with_no_hub_a_wrong_byte_is_never_handed_on() {
    let weights = unique(8 * MIB);
    let mut hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    let (a, b) = pair(&hub);
    a.add(&["org/m"]);
    a.rot("org/m", "w.bin", 1_000_000);
    hub.refuse(Host::Api);
    hub.refuse(Host::Data);
    b.cli(&["model", "add", "org/m"]).fails(1);
    assert!(b.lacks("org/m", "w.bin"));
}

#[test]
fn a_blob_that_another_tool_damaged_is_not_shared() {
    let weights = unique(8 * MIB);
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    let (a, b) = pair(&hub);
    a.add(&["org/m"]);
    let blob = std::fs::canonicalize(a.path("org/m", "w.bin")).unwrap();
    let mut bytes = weights.to_vec();
    bytes[7] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    b.add(&["org/m"]);
    b.holds("org/m", "w.bin", &weights);
}

#[test]
fn private_repos_go_only_to_peers_that_this_machines_user_added() {
    let weights = unique(4 * MIB);
    let hub = TestHub::local().with(Repo::model("org/secret").private().lfs("w.bin", weights.clone()));
    let a = Node::local("a").hub(&hub).env("HF_TOKEN", TOKEN);
    let b = Node::local("b").hub(&hub).env("HF_TOKEN", TOKEN);
    a.start();
    b.start();
    b.pair(&a);
    let id = a.peer_id();
    until("b sees a", secs(15), || b.sees_active(&id));
    a.add(&["org/secret"]);
    // a's user has not added b: to b, the repo is not on a at all.
    assert_eq!(b.json(&["model", "search", "org/secret"]).as_array().map(Vec::len), Some(0));
    hub.forget();
    let added = b.add(&["org/secret"]);
    assert_eq!((added.peer_bytes(), hub.sent("w.bin")), (0, weights.len() as u64));

    let c = Node::local("c").hub(&hub).env("HF_TOKEN", TOKEN);
    c.start();
    a.pair(&c);
    c.pair(&a);
    until("c sees a", secs(15), || c.sees_active(&id));
    hub.forget();
    let added = c.add(&["org/secret"]);
    c.holds("org/secret", "w.bin", &weights);
    assert_eq!((added.peer_bytes(), hub.sent("w.bin")), (weights.len() as u64, 0));
}

#[test]
fn a_slow_hub_and_a_peer_with_a_part_finish_together() {
    let weights = unique(32 * MIB);
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    hub.fault(Fault::Rate { bytes_per_sec: 4 << 20 });
    let (a, b) = pair(&hub);
    let first = a.start_adding(&["org/m"]);
    until("a has some of it", secs(30), || hub.sent("w.bin") > 8 << 20);
    let second = b.add(&["org/m"]);
    first.done();
    a.holds("org/m", "w.bin", &weights);
    b.holds("org/m", "w.bin", &weights);
    // What one has and has proven, the other takes from it while both are still downloading.
    let sent = hub.sent("w.bin");
    assert!(second.peer_bytes() > 0, "nothing came from the other machine; {second:#?}");
    assert!(sent < 64 << 20, "32 MiB for two machines were sent as {sent} bytes; {second:#?}");
}

#[test]
fn a_peer_that_dies_half_way_costs_its_pieces_in_flight() {
    let weights = unique(64 * MIB);
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    let (a, b) = pair(&hub);
    a.add(&["org/m"]);
    let adding = b.start_adding(&["org/m"]);
    a.kill9();
    adding.done();
    b.holds("org/m", "w.bin", &weights);
}

#[test]
fn removing_a_peer_ends_the_pairing() {
    let hub = TestHub::local();
    let (a, b) = pair(&hub);
    let port = a.port().to_string();
    let manual = |b: &Node| b.peer(&a.peer_id()).is_some_and(|peer| peer["via"].to_string().contains("manual"));
    assert!(manual(&b));
    b.cli(&["peer", "rm", "127.0.0.1", "--port", &port]).ok();
    assert!(!manual(&b));
    b.cli(&["peer", "rm", "127.0.0.1", "--port", &port]).fails(1);
}

#[test]
fn adding_oneself_as_a_peer_is_refused() {
    let a = Node::local("a");
    a.start();
    let port = a.port().to_string();
    a.cli(&["peer", "add", "127.0.0.1", "--port", &port]).fails(1);
    let id = a.peer_id();
    assert!(a.peer(&id).is_none());
}
