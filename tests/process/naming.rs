//! Whose word for a name is taken: the Hub's, or a paired peer's that has just heard it from there.

use crate::kit::hub::{MIB, Repo, TOKEN, TestHub, note, unique};
use crate::kit::node::Node;
use crate::kit::{secs, until};

/// Two machines, the second of which has added the first as a peer.
fn pair(hub: &TestHub, token: Option<&str>) -> (Node, Node) {
    let node = |name| {
        let node = Node::local(name).hub(hub);
        match token {
            Some(token) => node.env("HF_TOKEN", token),
            None => node,
        }
    };
    let (a, b) = (node("a"), node("b"));
    a.start();
    b.start();
    meet(&b, &a);
    (a, b)
}

/// `b` adds `a`, and sees it.
fn meet(b: &Node, a: &Node) {
    b.pair(a);
    let id = a.peer_id();
    until("it sees the other", secs(15), || b.sees_active(&id));
}

/// Questions for names that the Hub got.
fn asked(hub: &TestHub) -> usize {
    ["info", "revision", "tree", "paths-info", "refs"].iter().map(|route| hub.requests(route)).sum()
}

#[test]
fn what_the_hub_has_just_told_a_paired_peer_it_is_not_asked_again() {
    let weights = unique(2 * MIB);
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()).file("a.json", note("a")));
    let (a, b) = pair(&hub, None);
    a.add(&["org/m", "w.bin"]);
    hub.forget();
    b.add(&["org/m"]);
    b.holds("org/m", "w.bin", &weights);
    assert_eq!(asked(&hub), 0);
    assert_eq!(hub.requests("resolve"), 1, "for the file that nobody has");
}

#[test]
fn a_word_that_is_not_fresh_is_not_taken_while_the_hub_answers_but_a_commits_files_are() {
    let hub = TestHub::local().with(Repo::model("org/m").file("a.json", note("old")));
    let (a, b) = pair(&hub, None);
    a.add(&["org/m"]);
    let old = hub.commit("org/m", "main");
    // What it said before it ended is a ref on the disk, of any age.
    a.stop();
    a.start();
    let c = Node::local("c").hub(&hub);
    c.start();
    meet(&c, &a);
    drop(b);
    let new = note("new");
    hub.push("org/m", |repo| repo.file("a.json", new.clone()));
    hub.forget();
    let added = c.add(&["org/m"]);
    assert_eq!(added.0["commit"], hub.commit("org/m", "main"));
    c.holds("org/m", "a.json", new.as_bytes());
    assert!(hub.requests("revision") > 0);

    hub.forget();
    let added = c.add(&["org/m", "--revision", &old]);
    assert_eq!((added.0["commit"].as_str(), added.hub_bytes()), (Some(old.as_str()), 0));
    assert_eq!(asked(&hub), 0, "what a commit is, never changes");
}

#[test]
fn the_word_of_a_peer_that_the_user_did_not_add_counts_for_nothing() {
    let hub = TestHub::local().with(Repo::model("org/m").file("a.json", note("old")));
    let (a, b) = (Node::local("a").hub(&hub), Node::local("b").hub(&hub));
    a.start();
    b.start();
    meet(&a, &b);
    let id = a.peer_id();
    until("b sees who has added it", secs(15), || b.sees_active(&id));
    a.add(&["org/m"]);
    let new = note("new");
    hub.push("org/m", |repo| repo.file("a.json", new.clone()));
    hub.forget();
    b.add(&["org/m"]);
    b.holds("org/m", "a.json", new.as_bytes());
    assert_eq!((hub.requests("revision"), hub.requests("tree")), (1, 1));
}

#[test]
fn a_paired_peer_that_answers_nothing_is_hardly_waited_for() {
    let weights = unique(2 * MIB);
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    let (a, b) = pair(&hub, None);
    a.freeze();
    hub.forget();
    let adding = b.start_adding(&["org/m"]);
    until("the Hub is asked instead", secs(3), || hub.requests("tree") > 0);
    adding.done();
    b.holds("org/m", "w.bin", &weights);
}

#[test]
fn another_hubs_word_is_not_taken() {
    let weights = unique(MIB);
    let ours = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    let theirs = TestHub::local().with(Repo::model("org/m").lfs("w.bin", unique(MIB)));
    let (a, b) = (Node::local("a").hub(&theirs), Node::local("b").hub(&ours));
    a.start();
    b.start();
    meet(&b, &a);
    a.add(&["org/m"]);
    b.add(&["org/m"]);
    b.holds("org/m", "w.bin", &weights);
}

#[test]
fn what_only_a_token_opens_each_machine_asks_for_with_its_own() {
    let weights = unique(2 * MIB);
    let hub = TestHub::local().with(Repo::model("org/secret").private().lfs("w.bin", weights.clone()));
    let (a, b) = pair(&hub, Some(TOKEN));
    meet(&a, &b);
    a.add(&["org/secret"]);
    hub.forget();
    let added = b.add(&["org/secret"]);
    b.holds("org/secret", "w.bin", &weights);
    assert!(hub.requests("revision") > 0);
    assert_eq!(hub.requests("tree"), 0, "a paired peer knows the commit's files");
    assert_eq!(added.hub_bytes(), 0);
}

#[test]
fn what_a_paired_peer_named_is_shared_with_strangers_once_the_hub_says_that_anybody_may_have_it() {
    let weights = unique(4 * MIB);
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    let (a, b) = pair(&hub, None);
    a.add(&["org/m"]);
    hub.forget();
    b.add(&["org/m"]);
    assert_eq!(asked(&hub), 0);
    a.kill9();
    // To b, c is a stranger; for c, b's word for a name counts, and b has none of its own.
    let c = Node::local("c").hub(&hub);
    c.start();
    meet(&c, &b);
    let added = c.add(&["org/m"]);
    c.holds("org/m", "w.bin", &weights);
    assert_eq!((added.peer_bytes(), hub.sent("w.bin")), (weights.len() as u64, 0));
    assert_eq!(hub.requests("revision"), 2, "c asks for the name, and b who may have it");
}

#[test]
fn what_a_paired_peer_named_is_not_shared_with_strangers_when_the_hub_says_that_not_everybody_may_have_it() {
    let weights = unique(4 * MIB);
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    let (a, b) = pair(&hub, None);
    a.add(&["org/m"]);
    b.add(&["org/m"]);
    a.kill9();
    hub.put(Repo::model("org/m").private().lfs("w.bin", weights.clone()));
    let c = Node::local("c").hub(&hub).env("HF_TOKEN", TOKEN);
    c.start();
    meet(&c, &b);
    hub.forget();
    let added = c.add(&["org/m"]);
    assert_eq!((added.peer_bytes(), hub.sent("w.bin")), (0, weights.len() as u64));
}
