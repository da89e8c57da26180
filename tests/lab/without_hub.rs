//! With no Hub: a paired peer's word, the cache's own, or a clear no.

use crate::kit::hub::{MIB, Repo, TOKEN, note, unique};
use crate::kit::lab::Lab;
use crate::kit::{secs, until};

#[test]
fn a_paired_peers_word_is_taken_when_the_hub_is_silent() {
    let Some(mut lab) = Lab::new() else { return };
    let (weights, config) = (unique(8 * MIB), note("config"));
    let repo = Repo::model("org/m").lfs("w.bin", weights.clone()).file("a.json", config.clone());
    let hub = lab.hub().with(repo);
    let (a, b) = (lab.node("a").hub(&hub), lab.node("b").hub(&hub));
    a.start();
    b.start();
    a.add(&["org/m"]);
    b.pair(&a);
    let id = a.peer_id();
    until("b sees a", secs(10), || b.sees_active(&id));
    lab.unplug_hub();
    let added = b.cli(&["model", "add", "org/m"]).ok();
    assert!(added.took < secs(20), "a silent Hub cost {:?}", added.took);
    b.holds("org/m", "w.bin", &weights).holds("org/m", "a.json", config.as_bytes());
    assert!(added.stderr.contains("peer"), "whose word it was should be said: {added:#?}");
}

#[test]
fn a_strangers_word_for_a_name_is_never_taken() {
    let Some(mut lab) = Lab::new() else { return };
    let hub = lab.hub().with(Repo::model("org/m").lfs("w.bin", unique(4 * MIB)));
    // The stranger has the model, and is found by multicast only.
    let (stranger, b) = (lab.node("stranger").hub(&hub), lab.node("b"));
    stranger.start();
    b.start();
    stranger.add(&["org/m"]);
    let id = stranger.peer_id();
    until("b sees the stranger", secs(10), || b.sees_active(&id));
    b.cli(&["model", "add", "org/m"]).fails(1).hints();
    assert!(b.lacks("org/m", "w.bin"));
}

#[test]
fn a_strangers_bytes_are_taken_for_the_hubs_word() {
    let Some(mut lab) = Lab::new() else { return };
    let weights = unique(8 * MIB);
    let hub = lab.hub().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    let (stranger, b) = (lab.node("stranger").hub(&hub), lab.node("b").hub(&hub));
    stranger.start();
    b.start();
    stranger.add(&["org/m"]);
    let id = stranger.peer_id();
    until("b sees the stranger", secs(10), || b.sees_active(&id));
    hub.forget();
    b.add(&["org/m"]);
    b.holds("org/m", "w.bin", &weights);
    assert_eq!(hub.sent("w.bin"), 0);
}

#[test]
fn the_caches_own_word_is_taken_when_nobody_else_has_one() {
    let Some(mut lab) = Lab::new() else { return };
    let weights = unique(4 * MIB);
    let hub = lab.hub().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    let a = lab.node("a").hub(&hub);
    a.start();
    a.add(&["org/m"]);
    lab.unplug_hub();
    let added = a.cli(&["model", "add", "org/m"]).ok();
    assert!(added.stderr.contains("cache"), "whose word it was should be said: {added:#?}");
    a.cli(&["model", "add", "org/other"]).fails(1).hints();
    a.holds("org/m", "w.bin", &weights);
}

#[test]
fn offline_mode_asks_no_hub_at_all() {
    let Some(mut lab) = Lab::new() else { return };
    let hub = lab.hub().with(Repo::model("org/m").file("a.json", note("a")));
    let a = lab.node("a").hub(&hub).env("HF_HUB_OFFLINE", "1");
    a.start();
    a.cli(&["model", "add", "org/m"]).fails(1).hints();
    assert_eq!(hub.seen().len(), 0);
}

#[test]
fn the_token_reaches_the_hub_alone_and_is_in_no_file() {
    let Some(mut lab) = Lab::new() else { return };
    let weights = unique(4 * MIB);
    let hub = lab.hub().with(Repo::model("org/secret").private().lfs("w.bin", weights.clone()));
    let a = lab.node("a").hub(&hub).env("HF_TOKEN", TOKEN);
    let b = lab.node("b").hub(&hub).env("HF_TOKEN", TOKEN);
    a.start();
    b.start();
    a.pair(&b);
    b.pair(&a);
    let id = a.peer_id();
    until("b sees a", secs(10), || b.sees_active(&id));
    a.add(&["org/secret"]);
    b.add(&["org/secret"]);
    b.holds("org/secret", "w.bin", &weights);
    assert!(hub.tokens_seen(crate::kit::hub::Host::Data).is_empty());
    for node in [&a, &b] {
        node.stop();
        assert_eq!(node.files_with(TOKEN.as_bytes()), Vec::<std::path::PathBuf>::new());
    }
}
