//! Bandwidth limits: kept to, changed while bytes flow, and never taken for a fault.
//!
//! That nothing flows faster than a limit is held to its 5 %. That it flows as fast is held to less, because a
//! machine that runs many tests at once may itself be too slow.

use std::time::Instant;

use serde_json::{Value, json};

use crate::kit::hub::{Host, MIB, Repo, TestHub, note, unique};
use crate::kit::node::{Added, Node};
use crate::kit::{secs, until};

/// A file took as long as its bytes must at the rate.
#[track_caller]
fn kept_to(bytes_per_sec: f64, added: &Added, path: &str) {
    let file = added.file(path);
    let (size, took) = (file["size"].as_f64().unwrap(), file["seconds"].as_f64().unwrap());
    let least = size / bytes_per_sec;
    println!("{path}: {size} bytes at {bytes_per_sec} a second took {took:.2} s, {:.3} of the limit", least / took);
    assert!(took >= least * 0.95, "{size} bytes at {bytes_per_sec} a second took only {took} s");
    assert!(took <= least * 1.05 + 2.0, "{size} bytes at {bytes_per_sec} a second took {took} s");
}

#[test]
fn an_add_keeps_to_the_rate_that_its_command_names_over_all_its_files() {
    let (one, two) = (unique(4 * MIB), unique(4 * MIB));
    let hub = TestHub::local().with(Repo::model("org/m").lfs("one.bin", one.clone()).lfs("two.bin", two.clone()));
    let a = Node::local("a").hub(&hub);
    a.start();
    let added = a.add(&["org/m", "--limit-rate", "2MB"]);
    a.holds("org/m", "one.bin", &one).holds("org/m", "two.bin", &two);
    let took = |path| added.file(path)["seconds"].as_f64().unwrap();
    let longest = took("one.bin").max(took("two.bin"));
    let least = (8 * MIB) as f64 / 2e6;
    assert!((least * 0.95..least * 1.05 + 2.0).contains(&longest), "8 MiB at 2 MB/s took {longest} s");
    // The next one has no limit.
    hub.push("org/m", |repo| repo.lfs("three.bin", unique(8 * MIB)));
    let added = a.add(&["org/m", "three.bin"]);
    assert!(added.file("three.bin")["seconds"].as_f64().unwrap() < least);
}

#[test]
fn what_comes_from_the_hub_keeps_to_the_limit_in_the_settings_and_to_a_changed_one_at_once() {
    let content = || unique(8 * MIB);
    let hub = TestHub::local().with(Repo::model("org/m").lfs("one.bin", content()).lfs("two.bin", content()));
    let a = Node::local("a").hub(&hub).config("[limit]\ndown = \"16Mbit\"\n");
    a.start();
    kept_to(2e6, &a.add(&["org/m", "one.bin"]), "one.bin");

    let begun = Instant::now();
    let adding = a.start_adding(&["org/m", "two.bin"]);
    until("bytes flow", secs(30), || hub.sent("two.bin") > 0);
    a.cli(&["conf", "limit", "set", "--down", "1MB"]).ok();
    let before = 2e6 * (begun.elapsed().as_secs_f64() + 0.15);
    let added = adding.done();
    let took = added.file("two.bin")["seconds"].as_f64().unwrap();
    let least = ((8 * MIB) as f64 - before) / 1e6;
    assert!(least > 4.5, "this machine is too busy to tell anything");
    assert!(took >= least * 0.95, "after {before} bytes at most, the rest at 1 MB/s took only {took} s");
}

#[test]
fn the_hub_is_asked_for_little_more_than_the_limit_lets_in() {
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", unique(64 * MIB)));
    let a = Node::local("a").hub(&hub);
    a.start();
    a.cli(&["conf", "limit", "set", "--down", "2MB"]).ok();
    let adding = a.start_adding(&["org/m"]);
    until("bytes flow", secs(30), || hub.sent("w.bin") > 0);
    let begun = Instant::now();
    std::thread::sleep(secs(4));
    let (sent, took) = (hub.sent("w.bin") as f64, begun.elapsed().as_secs_f64());
    // What four ranges have asked for ahead.
    assert!(sent <= 2e6 * (took + 0.5) + 4.0 * 600e3, "{sent} bytes in {took} s at 2 MB/s");
    adding.signal("INT");
    adding.ends();
}

#[test]
fn a_limit_that_is_lifted_frees_what_waits_for_it() {
    let weights = unique(8 * MIB);
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    let a = Node::local("a").hub(&hub);
    a.cli(&["conf", "limit", "set", "--down", "100kB"]).ok();
    a.start();
    let adding = a.start_adding(&["org/m"]);
    until("bytes flow", secs(30), || hub.sent("w.bin") > 0);
    a.cli(&["conf", "limit", "reset"]).ok();
    let took = adding.done().file("w.bin")["seconds"].as_f64().unwrap();
    assert!(took < 30.0, "what takes 84 s at 100 kB/s took {took} s with the limit gone");
    a.holds("org/m", "w.bin", &weights);
}

/// Two machines that know each other, of which the first has the repo, and a Hub that gives no more bytes.
fn holder_and_taker(repo: Repo) -> (TestHub, Node, Node) {
    let mut hub = TestHub::local().with(repo);
    let (a, b) = (Node::local("a").hub(&hub), Node::local("b").hub(&hub).env("HFFS_LOG", "hffs=debug"));
    a.start();
    b.start();
    b.pair(&a);
    a.add(&["org/m"]);
    let id = a.peer_id();
    until("b sees a", secs(15), || b.sees_active(&id));
    hub.refuse(Host::Data);
    (hub, a, b)
}

#[test]
fn peers_on_a_local_network_keep_to_its_limits_and_to_no_others() {
    let content = || unique(8 * MIB);
    let repo = Repo::model("org/m").lfs("far.bin", content()).lfs("up.bin", content()).lfs("down.bin", content());
    let (_hub, a, b) = holder_and_taker(repo);
    a.cli(&["conf", "limit", "set", "--up", "10kB", "--down", "10kB"]).ok();
    b.cli(&["conf", "limit", "set", "--up", "10kB", "--down", "10kB"]).ok();
    let took = b.add(&["org/m", "far.bin"]).file("far.bin")["seconds"].as_f64().unwrap();
    assert!(took < 20.0, "limits for far lines held up a near one: {took} s");

    a.cli(&["conf", "limit", "set", "--lan-up", "2MB"]).ok();
    kept_to(2e6, &b.add(&["org/m", "up.bin"]), "up.bin");

    a.cli(&["conf", "limit", "reset"]).ok();
    b.cli(&["conf", "limit", "set", "--lan-down", "2MB"]).ok();
    kept_to(2e6, &b.add(&["org/m", "down.bin"]), "down.bin");
}

#[test]
fn many_transfers_under_a_low_limit_are_neither_stalled_nor_asked_for_twice() {
    const FILES: usize = 10;
    let file = |set: &str, n: usize| format!("{set}-{n}.bin");
    let repo = ["give", "take"].iter().fold(Repo::model("org/m"), |repo, set| {
        (0..FILES).fold(repo, |repo, n| repo.lfs(&file(set, n), unique(100_000)))
    });
    let (_hub, a, b) = holder_and_taker(repo);
    for (node, limit, set) in [(&a, "--lan-up", "give"), (&b, "--lan-down", "take")] {
        node.cli(&["conf", "limit", "set", limit, "100kB"]).ok();
        let asked = |log: String| log.matches("asking for pieces source=peer").count();
        let before = asked(b.log());
        let begun = Instant::now();
        let added = b.add(&["org/m", "--include", &format!("{set}-*")]);
        let took = begun.elapsed().as_secs_f64();
        assert!(took >= 9.5, "1 MB at 100 kB/s took {took} s");
        assert_eq!(added.peer_bytes(), 1_000_000, "{added:#?}");
        assert_eq!(asked(b.log()) - before, FILES, "one request for each file");
        assert!(!b.log().contains("a transfer failed"));
        node.cli(&["conf", "limit", "reset"]).ok();
    }
}

#[test]
fn a_download_that_two_adds_wait_for_goes_as_fast_as_one_of_them_may_have_it() {
    let weights = unique(16 * MIB);
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    let a = Node::local("a").hub(&hub);
    a.start();
    let slow = a.start_adding(&["org/m", "--limit-rate", "100kB"]);
    until("bytes flow", secs(30), || hub.sent("w.bin") > 0);
    let added = a.add(&["org/m", "w.bin", "--limit-rate", "4MB"]);
    let took = added.file("w.bin")["seconds"].as_f64().unwrap();
    slow.done();
    // The slow one has had some time alone.
    assert!((3.5..30.0).contains(&took), "16 MiB at 4 MB/s took {took} s");
    a.holds("org/m", "w.bin", &weights);
}

#[test]
fn a_peer_that_gives_all_that_an_add_may_take_spares_the_hub() {
    let weights = unique(16 * MIB);
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    let (a, b) = (Node::local("a").hub(&hub), Node::local("b").hub(&hub));
    a.start();
    b.start();
    b.pair(&a);
    a.add(&["org/m"]);
    let id = a.peer_id();
    until("b sees a", secs(15), || b.sees_active(&id));
    hub.forget();
    let added = b.add(&["org/m", "--limit-rate", "4MB"]);
    kept_to(4e6, &added, "w.bin");
    assert_eq!((hub.sent("w.bin"), added.peer_bytes()), (0, weights.len() as u64));
}

#[test]
fn limits_are_stored_shown_and_removed_with_and_without_a_daemon() {
    let a = Node::local("a").config("# mine\nport = 4242\n");
    let config = || std::fs::read_to_string(a.home().join("hffs/config.toml")).unwrap();
    let get = || a.json(&["conf", "limit", "get"]);
    let none = json!({"up": null, "down": null, "lan_up": null, "lan_down": null});
    assert_eq!(get(), none);
    let set = a.json(&["conf", "limit", "set", "--up", "10MB", "--lan-down", "200Mbit"]);
    let two = json!({"up": 10_000_000, "down": null, "lan_up": null, "lan_down": 25_000_000});
    assert_eq!((&set, &get()), (&two, &two));
    let shown = a.cli(&["conf", "limit", "get"]).ok();
    assert_eq!(shown.lines(), ["up        10MB/s", "down      no limit", "lan-up    no limit", "lan-down  25MB/s"]);
    a.start();
    assert_eq!(get(), two);
    a.cli(&["conf", "limit", "set", "--up", "1.5MiB"]).ok();
    assert_eq!(get()["up"], 1_572_864);
    // Written by hand, it is in force as soon as it is looked at.
    std::fs::write(a.home().join("hffs/config.toml"), config().replace("25MB", "30MB")).unwrap();
    assert_eq!(get()["lan_down"], 30_000_000);
    assert!(a.log().contains("30000000") || a.log().contains("30MB"), "the daemon took note of it");
    assert_eq!(a.json(&["conf", "limit", "reset"]), none);
    assert_eq!((get(), config().as_str()), (none, "# mine\nport = 4242\n"));
}

#[test]
fn what_is_no_rate_is_refused_and_nothing_is_stored() {
    let hub = TestHub::local().with(Repo::model("org/m").file("a.json", note("a")));
    let a = Node::local("a").hub(&hub);
    a.start();
    for rate in ["0", "0MB", "-1MB", "fast", "10 parsecs", "20Mb", "1B", "\u{1b}[31m"] {
        for args in [&["conf", "limit", "set", "--up", rate][..], &["model", "add", "org/m", "--limit-rate", rate]] {
            let refused = a.cli(args).fails(2).hints();
            assert!(!refused.stderr.contains('\u{1b}'), "{refused:#?}");
        }
    }
    a.cli(&["conf", "limit", "set"]).fails(2);
    let limits = a.json(&["conf", "limit", "get"]);
    assert!(limits.as_object().unwrap().values().all(Value::is_null), "{limits}");
    std::fs::write(a.home().join("hffs/config.toml"), "[limit]\nup = \"quick\"\n").unwrap();
    a.cli(&["conf", "limit", "get"]).fails(1).says("line 2").says("quick");
}
