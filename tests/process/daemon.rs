//! The daemon: one per work directory, found by its commands, gone when told.

use std::net::{Ipv4Addr, TcpListener};

use crate::kit::hub::{MIB, Repo, TestHub, unique};
use crate::kit::node::{Node, free_port};
use crate::kit::{secs, until};

#[test]
fn a_daemon_starts_once_says_where_it_is_and_stops() {
    let a = Node::local("a");
    a.start();
    let status = a.status();
    assert_eq!(status["running"], true);
    assert_eq!(status["home"], a.home().to_str().unwrap());
    assert_eq!(status["hub_cache"], a.home().join("hub").to_str().unwrap());
    assert!(!status["listen"].as_array().unwrap().is_empty() && status["version"].is_string(), "{status:#}");
    assert!(a.processes().contains(&a.pid()));

    let again = a.cli(&["daemon", "start"]);
    assert!(format!("{}{}", again.stdout, again.stderr).contains("already"), "{again:#?}");
    assert_eq!(a.pid(), status["pid"]);

    let took = a.stop().took;
    assert!(took < secs(5), "stopping took {took:?}");
    until("no process is left", secs(5), || a.processes().is_empty());
    let gone = a.cli(&["--json", "daemon", "status"]);
    assert_eq!((gone.code, gone.json()["running"].as_bool()), (Some(3), Some(false)));
}

#[test]
fn the_peer_id_stays_the_same_across_restarts() {
    let a = Node::local("a");
    let first = a.start().peer_id();
    a.stop();
    assert_eq!(a.start().peer_id(), first);
    a.kill9();
    assert_eq!(a.start().peer_id(), first);
}

#[test]
fn commands_that_need_a_daemon_say_that_none_runs_and_how_to_start_one() {
    let a = Node::local("a");
    for args in [&["model", "add", "org/m"][..], &["model", "search", "org/m"], &["peer", "ls"], &["daemon", "stop"]] {
        a.cli(args).fails(3).says("hffs daemon start");
    }
    for args in [&["model", "ls"][..], &["conf", "cache", "get"], &["peer", "add", "127.0.0.1"]] {
        a.cli(args).ok();
    }
}

#[test]
fn a_work_directory_with_a_very_long_path_has_a_daemon_too() {
    let a = Node::local("a").home_at(format!("{0}/{0}/{0}", "long".repeat(25)));
    a.start();
    assert!(a.home().display().to_string().len() > 300);
    a.stop();
}

#[test]
fn work_directories_have_daemons_of_their_own() {
    let (a, b) = (Node::local("a"), Node::local("b"));
    a.start();
    b.start();
    assert_ne!(a.peer_id(), b.peer_id());
    a.stop();
    assert_eq!(b.status()["running"], true);
}

#[test]
fn a_taken_port_is_refused_when_it_was_named() {
    let holder = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let a = Node::local("a");
    a.cli(&["daemon", "start", "--port", &port]).fails(1).says(&port);
    until("no process is left", secs(5), || a.processes().is_empty());
}

#[test]
fn a_taken_default_port_is_left_alone_and_another_one_told() {
    // Whoever holds it, this test or another program of this machine: it is taken.
    let _holder = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 9009));
    let a = Node::local("a");
    let started = a.cli(&["daemon", "start"]).ok();
    assert_ne!(a.port(), 9009);
    assert!(format!("{}{}", started.stdout, started.stderr).contains(&a.port().to_string()), "{started:#?}");
}

#[test]
fn ctrl_c_ends_a_daemon_in_the_foreground_and_sigterm_one_in_the_background() {
    let a = Node::local("a");
    let port = free_port().to_string();
    let foreground = a.spawn(&["daemon", "start", "--foreground", "--port", &port]);
    until("the daemon answers", secs(20), || a.cli(&["daemon", "status"]).code == Some(0));
    foreground.signal("INT");
    let ended = foreground.wait(secs(60));
    assert!(matches!(ended.code, Some(0 | 130)), "{ended:#?}");

    a.start();
    a.signal("TERM");
    until("the daemon is gone", secs(5), || a.processes().is_empty());
    a.start();
}

#[test]
fn a_daemon_under_load_stops_within_five_seconds_and_goes_on_after_its_next_start() {
    let weights = unique(48 * MIB);
    let hub = TestHub::local().with(Repo::model("org/m").lfs("a.bin", weights.clone()).lfs("b.bin", unique(16 * MIB)));
    hub.fault(crate::kit::hub::Fault::Rate { bytes_per_sec: 12 << 20 });
    let a = Node::local("a").hub(&hub);
    a.start();
    let adding = a.start_adding(&["org/m"]);
    until("bytes flow", secs(30), || hub.sent_in_all() > 8 << 20);
    let took = a.stop().took;
    assert!(took < secs(5), "stopping took {took:?}");
    assert_ne!(adding.ends().code, Some(0));
    hub.heal();
    a.start();
    until("the download went on by itself", secs(60), || !a.lacks("org/m", "a.bin") && !a.lacks("org/m", "b.bin"));
    a.holds("org/m", "a.bin", &weights);
}

#[test]
fn the_log_never_grows_without_bound_and_names_no_secret() {
    let a = Node::local("a").env("HF_TOKEN", crate::kit::hub::TOKEN);
    a.start();
    until("there is a log", secs(10), || !a.log().is_empty());
    assert!(!a.log().contains(crate::kit::hub::TOKEN));
}
