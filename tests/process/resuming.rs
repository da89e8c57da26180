//! Going on where it stopped, whatever stopped it and whoever has the rest.

use crate::kit::command::signal;
use crate::kit::hub::{Fault, Host, MIB, Repo, TestHub, unique};
use crate::kit::node::Node;
use crate::kit::{secs, until};

/// What a kill may cost: the ranges that were on their way. (They are counted where they are sent.)
const IN_FLIGHT: u64 = 12 << 20;

struct Interrupted {
    weights: bytes::Bytes,
    hub: TestHub,
    a: Node,
    /// What the Hub had sent when it was interrupted.
    sent: u64,
}

/// A download of 40 MiB over a slow line that has come half way when `stop` strikes.
fn interrupted(stop: impl FnOnce(&Node)) -> Interrupted {
    let weights = unique(40 * MIB);
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    hub.fault(Fault::Rate { bytes_per_sec: 10 << 20 });
    let a = Node::local("a").hub(&hub);
    a.start();
    let adding = a.start_adding(&["org/m"]);
    until("half of it has come", secs(60), || hub.sent("w.bin") > 24 << 20);
    stop(&a);
    adding.ends();
    let sent = crate::kit::settle("the Hub is no longer asked", secs(20), || hub.sent("w.bin"));
    assert!(a.lacks("org/m", "w.bin"), "it was faster than the line allows");
    Interrupted { weights, hub, a, sent }
}

#[test]
fn a_killed_download_goes_on_and_refetches_only_what_was_on_its_way() {
    let Interrupted { weights, hub, a, .. } = interrupted(Node::kill9);
    hub.heal();
    a.start();
    let added = a.add(&["org/m"]);
    a.holds("org/m", "w.bin", &weights);
    let sent = hub.sent("w.bin");
    assert!(sent <= (40 << 20) + IN_FLIGHT, "40 MiB were sent as {sent} bytes");
    // The daemon goes on by itself, so it may have finished before it was asked.
    assert!(added.all_cached() || added.resumed_bytes() + added.hub_bytes() >= 40 << 20, "{added:#?}");
}

#[test]
fn an_unfinished_download_goes_on_by_itself_at_the_next_start() {
    let Interrupted { weights, hub, a, .. } = interrupted(Node::kill9);
    hub.heal();
    a.start();
    until("the file is there, and nobody asked again", secs(60), || !a.lacks("org/m", "w.bin"));
    a.holds("org/m", "w.bin", &weights);
}

#[test]
fn an_add_that_failed_for_now_goes_on_by_itself_at_the_next_start() {
    let weights = unique(MIB);
    let mut hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    let a = Node::local("a").hub(&hub);
    a.start();
    hub.refuse(Host::Api);
    let failed = a.start_adding(&["org/m"]).ends().fails(1);
    failed.says("so does the daemon when it starts again").hints();
    hub.restore(Host::Api);
    a.stop();
    a.start();
    until("the file is there, and nobody asked again", secs(60), || !a.lacks("org/m", "w.bin"));
    a.holds("org/m", "w.bin", &weights);
    until("the order is forgotten", secs(10), || orders(&a) == 0);
}

#[test]
fn an_add_that_can_never_work_is_forgotten() {
    let hub = TestHub::local().with(Repo::model("org/m").file("a.json", "{}"));
    let a = Node::local("a").hub(&hub);
    a.start();
    a.start_adding(&["org/other"]).ends().fails(1);
    a.start_adding(&["org/m", "b.json"]).ends().fails(1);
    assert_eq!(orders(&a), 0);
}

#[test]
fn a_download_that_goes_on_by_itself_is_shown_and_stopped_by_interrupting_the_same_add() {
    let Interrupted { hub, a, .. } = interrupted(Node::kill9);
    hub.heal();
    hub.fault(Fault::Rate { bytes_per_sec: 1 << 20 });
    a.start();
    let before = hub.sent("w.bin");
    until("it goes on", secs(30), || hub.sent("w.bin") > before);
    assert_eq!(orders(&a), 1);
    let add = |name: &str| {
        let talk = a.dir().join(name);
        let file = std::fs::File::create(&talk).unwrap();
        let child = a.command(&["model", "add", "org/m"]).stderr(file).spawn().unwrap();
        until("it says what else runs", secs(30), || {
            std::fs::read_to_string(&talk).unwrap().contains("also running: org/m (")
        });
        child
    };
    let interrupt = |mut child: std::process::Child| {
        signal(child.id(), "INT");
        assert_eq!(child.wait().unwrap().code(), Some(130));
    };
    let [first, second] = ["first", "second"].map(add);
    interrupt(first);
    assert_eq!(orders(&a), 1, "somebody else still waits for the same");
    interrupt(second);
    assert_eq!(orders(&a), 0);
    crate::kit::settle("the Hub is no longer asked", secs(20), || hub.sent("w.bin"));
    assert!(a.lacks("org/m", "w.bin"), "it was faster than the line allows");
}

/// The adds that would go on at the next start.
fn orders(node: &Node) -> usize {
    std::fs::read_dir(node.home().join("hffs/unfinished")).map_or(0, |entries| entries.count())
}

#[test]
fn a_stopped_download_loses_nothing_that_was_written() {
    let Interrupted { weights, hub, a, sent } = interrupted(|a| drop(a.stop()));
    hub.heal();
    a.start();
    a.add(&["org/m"]);
    a.holds("org/m", "w.bin", &weights);
    assert!(hub.sent("w.bin") <= (40 << 20) + IN_FLIGHT, "{sent} before, {} after", hub.sent("w.bin"));
}

#[test]
fn what_the_hub_began_a_mirror_ends() {
    let Interrupted { weights, mut hub, a, .. } = interrupted(|a| drop(a.stop()));
    hub.refuse(Host::Api);
    hub.refuse(Host::Data);
    let mirror = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    let a = a.mirror(&mirror);
    a.start();
    let added = a.add(&["org/m"]);
    a.holds("org/m", "w.bin", &weights);
    let sent = mirror.sent("w.bin");
    assert!(
        sent < (40 << 20) - (12 << 20),
        "the mirror sent {sent} bytes of 40 MiB, of which half were here: {added:#?}"
    );
}

#[test]
fn what_the_hub_began_a_peer_ends() {
    let Interrupted { weights, mut hub, a, .. } = interrupted(Node::kill9);
    hub.heal();
    let b = Node::local("b").hub(&hub);
    b.start();
    b.add(&["org/m"]);
    hub.forget();
    hub.refuse(Host::Data);
    a.start();
    a.pair(&b);
    let added = a.add(&["org/m"]);
    a.holds("org/m", "w.bin", &weights);
    assert_eq!(hub.sent("w.bin"), 0);
    assert!(added.peer_bytes() <= (40 << 20) - (12 << 20), "{added:#?}");
}

#[test]
fn a_spoilt_unfinished_file_costs_its_spoilt_pieces_only() {
    let Interrupted { weights, hub, a, .. } = interrupted(Node::kill9);
    let folder = a.repo("org/m").join(".hffs");
    let largest = std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path());
    let largest =
        largest.max_by_key(|path| path.metadata().map_or(0, |about| about.len())).expect("an unfinished file");
    let mut bytes = std::fs::read(&largest).unwrap();
    let middle = 5 * MIB;
    bytes[middle..middle + 100].fill(0xAA);
    std::fs::write(&largest, bytes).unwrap();
    hub.heal();
    a.start();
    a.add(&["org/m"]);
    a.holds("org/m", "w.bin", &weights);
    assert!(hub.sent("w.bin") <= (40 << 20) + IN_FLIGHT + (4 << 20));
}

#[test]
fn ten_kills_at_any_moment_cost_no_wrong_byte_and_few_right_ones() {
    let weights = unique(24 * MIB);
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    hub.fault(Fault::Rate { bytes_per_sec: 6 << 20 });
    let a = Node::local("a").hub(&hub);
    for round in 0..10u64 {
        a.start();
        let adding = a.start_adding(&["org/m"]);
        let before = hub.sent_in_all();
        // A different moment each time: some before the first byte, some in the last piece, some in between.
        until("it gets somewhere", secs(30), || {
            hub.sent_in_all() >= before + round * 600_000 || !a.lacks("org/m", "w.bin")
        });
        a.kill9();
        adding.ends();
        if !a.lacks("org/m", "w.bin") {
            a.holds("org/m", "w.bin", &weights);
        }
    }
    hub.heal();
    a.start();
    a.add(&["org/m"]);
    a.holds("org/m", "w.bin", &weights);
    let sent = hub.sent("w.bin");
    assert!(sent <= (24 << 20) + 10 * IN_FLIGHT, "24 MiB were sent as {sent} bytes");
}
