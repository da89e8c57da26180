//! Who sees whom, how soon, and how soon no longer.

use std::time::{Duration, Instant};

use crate::kit::hub::{MIB, Repo, unique};
use crate::kit::lab::Lab;
use crate::kit::node::Node;
use crate::kit::{secs, until};

/// A command needs its own time on a busy machine, on top of what is promised.
const COMMAND: Duration = secs(2);

/// Waits until two daemons see each other.
#[track_caller]
fn meet(one: &Node, other: &Node, deadline: Duration) -> Duration {
    let (first, second) = (one.peer_id(), other.peer_id());
    until("both see each other", deadline, || one.sees_active(&second) && other.sees_active(&first))
}

/// Two machines whose switch drops multicast, with the first added at the second.
fn added_by_hand(lab: &mut Lab) -> (Node, Node) {
    lab.drop_multicast();
    let (a, b) = (lab.node("a"), lab.node("b"));
    a.start();
    b.start();
    b.pair(&a);
    meet(&a, &b, secs(10) + COMMAND);
    (a, b)
}

#[test]
fn two_fresh_daemons_on_one_lan_see_each_other_within_three_seconds() {
    let Some(mut lab) = Lab::new() else { return };
    let (a, b) = (lab.node("a"), lab.node("b"));
    a.start();
    b.start();
    let took = meet(&a, &b, secs(3) + COMMAND);
    println!("they met after {took:?}");
    let seen = a.peer(&b.peer_id()).expect("b in a's list");
    assert!(seen["via"].to_string().contains("mdns") && seen["rtt"].is_number(), "{seen:#}");
    assert!(seen["address"].as_str().is_some_and(|address| address.starts_with(&b.ip.to_string())), "{seen:#}");
}

#[test]
fn ten_daemons_see_each_other() {
    let Some(mut lab) = Lab::new() else { return };
    let nodes: Vec<Node> = (0..10).map(|n| lab.node(&format!("n{n}"))).collect();
    for node in &nodes {
        node.start();
    }
    until("all see all", secs(30), || {
        nodes.iter().all(|node| {
            let peers = node.json(&["peer", "ls"]);
            peers.as_array().unwrap().iter().filter(|peer| peer["active"] == true).count() == 9
        })
    });
}

#[test]
fn without_multicast_they_meet_once_either_side_adds_the_other() {
    let Some(mut lab) = Lab::new() else { return };
    let (a, b) = added_by_hand(&mut lab);
    let seen = a.peer(&b.peer_id()).expect("b in a's list");
    assert!(seen["via"].to_string().contains("inbound"), "{seen:#}");
}

#[test]
fn a_pairing_outlives_restarts_whichever_side_starts_first() {
    let Some(mut lab) = Lab::new() else { return };
    let (a, b) = added_by_hand(&mut lab);
    for (first, second) in [(&a, &b), (&b, &a)] {
        a.stop();
        b.stop();
        first.start();
        second.start();
        meet(&a, &b, secs(10) + COMMAND);
    }
}

#[test]
fn a_peer_may_be_added_before_its_daemon_runs() {
    let Some(mut lab) = Lab::new() else { return };
    lab.drop_multicast();
    let (a, b) = (lab.node("a"), lab.node("b"));
    b.start();
    b.cli(&["peer", "add", &a.ip.to_string()]).ok();
    a.start();
    meet(&a, &b, secs(10) + COMMAND);
}

#[test]
fn peers_are_added_by_ipv6_address_and_by_name_too() {
    let Some(mut lab) = Lab::new() else { return };
    lab.drop_multicast();
    let (a, b, c) = (lab.node("a"), lab.node("b"), lab.node("c"));
    // A process sees the hosts file that was there when it started.
    lab.name(&c, "machine-a", a.ip);
    for node in [&a, &b, &c] {
        node.start();
    }
    b.cli(&["peer", "add", &lab.ip6_of(&a).to_string()]).ok();
    meet(&a, &b, secs(10) + COMMAND);
    c.cli(&["peer", "add", "machine-a"]).ok();
    meet(&a, &c, secs(10) + COMMAND);
}

#[test]
fn a_peer_that_goes_away_is_inactive_in_fifteen_seconds_and_back_in_ten() {
    let Some(mut lab) = Lab::new() else { return };
    let (a, b) = added_by_hand(&mut lab);
    let id = a.peer_id();
    let gone = |how: &str| {
        let took = until(&format!("{how}: no longer active"), secs(15) + COMMAND, || !b.sees_active(&id));
        println!("{how}: inactive after {took:?}");
    };
    let back = |how: &str| {
        let took = until(&format!("{how}: active again"), secs(10) + COMMAND, || b.sees_active(&id));
        println!("{how}: active again after {took:?}");
    };

    a.kill9();
    gone("killed");
    a.start();
    back("killed");

    a.freeze();
    gone("frozen");
    a.thaw();
    back("frozen");

    lab.unplug(&a);
    gone("unplugged");
    lab.plug(&a);
    back("unplugged");

    lab.part(&a, &b);
    gone("cut off");
    lab.unblock();
    back("cut off");
}

#[test]
fn a_changed_identity_at_a_paired_address_is_shown_and_not_trusted() {
    let Some(mut lab) = Lab::new() else { return };
    let (a, b) = added_by_hand(&mut lab);
    let old = a.peer_id();
    a.stop();
    std::fs::remove_file(a.home().join("hffs/identity.key")).expect("an identity");
    let new = a.start().peer_id();
    assert_ne!(old, new);
    until("the change is shown", secs(20), || {
        let shown = b.cli(&["peer", "ls"]).ok();
        format!("{}{}", shown.stdout, shown.stderr).to_lowercase().contains("identity")
    });
    assert!(!b.sees_active(&old));
    let pinned = b.peer(&old).expect("the pairing is not forgotten");
    assert!(pinned["via"].to_string().contains("manual"), "{pinned:#}");
}

/// Lists that name one peer, however long one looks.
#[track_caller]
fn list_one_peer_each(nodes: [&Node; 2]) {
    let until = Instant::now() + secs(4);
    while Instant::now() < until {
        for node in nodes {
            let peers = node.json(&["peer", "ls"]);
            assert_eq!(peers.as_array().unwrap().len(), 1, "{peers:#}");
        }
    }
}

#[test]
fn the_same_peer_on_two_cables_is_one_peer_and_one_cable_is_enough() {
    let Some(mut lab) = Lab::new() else { return };
    let (a, b) = (lab.node("a"), lab.node("b"));
    lab.second_cable(&a);
    lab.second_cable(&b);
    a.start();
    b.start();
    meet(&a, &b, secs(5) + COMMAND);
    list_one_peer_each([&a, &b]);
    // Whichever cable the connection runs over, the other one keeps them together, or brings them together again. A
    // connection that died with its cable is noticed by the time that this looks.
    lab.unplug(&a);
    let (id, noticed) = (a.peer_id(), Instant::now() + secs(12));
    until("b still, or again, sees a", secs(25) + COMMAND, || Instant::now() > noticed && b.sees_active(&id));
    list_one_peer_each([&a, &b]);
}

#[test]
fn a_peer_that_is_both_found_and_added_is_one_peer_and_outlives_the_pairing() {
    let Some(mut lab) = Lab::new() else { return };
    let (a, b) = (lab.node("a"), lab.node("b"));
    a.start();
    b.start();
    meet(&a, &b, secs(5) + COMMAND);
    b.pair(&a);
    let id = a.peer_id();
    let via = || b.peer(&id).expect("a in b's list")["via"].to_string();
    assert!(via().contains("manual") && via().contains("mdns"), "{}", via());
    list_one_peer_each([&a, &b]);
    b.cli(&["peer", "rm", &a.ip.to_string()]).ok();
    assert!(!via().contains("manual"), "{}", via());
    until("b still, or again, sees a", secs(10) + COMMAND, || b.sees_active(&id));
}

#[test]
fn a_machine_that_is_added_under_its_own_address_is_no_peer() {
    let Some(mut lab) = Lab::new() else { return };
    let (a, b) = (lab.node("a"), lab.node("b"));
    a.start();
    b.start();
    meet(&a, &b, secs(5) + COMMAND);
    a.cli(&["peer", "add", &a.ip.to_string()]).fails(1);
    list_one_peer_each([&a, &b]);
}

#[test]
fn peers_that_only_multicast_told_of_return_as_soon_as_added_ones() {
    let Some(mut lab) = Lab::new() else { return };
    let (a, b) = (lab.node("a"), lab.node("b"));
    a.start();
    b.start();
    meet(&a, &b, secs(5) + COMMAND);
    let id = a.peer_id();
    a.kill9();
    until("a is missed", secs(15) + COMMAND, || !b.sees_active(&id));
    a.start();
    meet(&a, &b, secs(10) + COMMAND);
    lab.unplug(&b);
    until("a is missed", secs(15) + COMMAND, || !b.sees_active(&id));
    lab.plug(&b);
    println!("back after {:?}", meet(&a, &b, secs(10) + COMMAND));
}

#[test]
fn a_daemon_that_started_without_its_cable_is_found_once_that_is_plugged_in() {
    let Some(mut lab) = Lab::new() else { return };
    let (a, b) = (lab.node("a"), lab.node("b"));
    a.start();
    lab.unplug(&b);
    b.start();
    lab.plug(&b);
    println!("met after {:?}", meet(&a, &b, secs(10) + COMMAND));
}

#[test]
fn an_address_where_no_daemon_is_is_not_active() {
    let Some(mut lab) = Lab::new() else { return };
    let (a, b) = (lab.node("a"), lab.node("b"));
    a.start();
    // Something else listens there and says nothing.
    let silence = "import socket, time; s = socket.socket(); s.bind(('', 9009)); s.listen(); time.sleep(600)";
    let mut other = crate::kit::command::start(&mut b.shell_command(&format!("exec python3 -c \"{silence}\"")));
    let listens = format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{}/9009'", b.ip);
    until("somebody listens", secs(10), || a.shell(&listens).code == Some(0));
    a.cli(&["peer", "add", &b.ip.to_string()]);
    let peers = a.json(&["peer", "ls"]);
    assert!(peers.as_array().unwrap().iter().all(|peer| peer["active"] == false), "{peers:#}");
    assert!(other.is_running());
    other.kill();
}

#[test]
fn a_second_daemon_elsewhere_gets_what_the_first_has_without_a_word() {
    let Some(mut lab) = Lab::new() else { return };
    let weights = unique(16 * MIB);
    let hub = lab.hub().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    let (a, b) = (lab.node("a").hub(&hub), lab.node("b").hub(&hub));
    a.start();
    b.start();
    a.add(&["org/m"]);
    meet(&a, &b, secs(5) + COMMAND);
    hub.forget();
    b.add(&["org/m"]);
    b.holds("org/m", "w.bin", &weights);
    assert_eq!(hub.sent("w.bin"), 0);
}
