//! Taking away: only what was named, and only what is ours.

use std::fs;

use crate::kit::hub::{MIB, Repo, TestHub, note, unique};
use crate::kit::node::Node;

#[test]
fn removing_a_repo_frees_only_blobs_that_nothing_else_refers_to() {
    let (old, new, kept) = (unique(2 * MIB), unique(3 * MIB), unique(MIB));
    let repo = Repo::model("org/m").lfs("w.bin", old.clone()).lfs("k.bin", kept.clone()).tag("v1");
    let hub = TestHub::local().with(repo.lfs("w.bin", new.clone()));
    let a = Node::local("a").hub(&hub);
    a.start();
    a.add(&["org/m"]);
    a.add(&["org/m", "--revision", "v1"]);
    let removed = a.json(&["model", "rm", "org/m", "--revision", "v1"]);
    assert_eq!(removed["freed"].as_u64(), Some(old.len() as u64));
    a.holds("org/m", "w.bin", &new).holds("org/m", "k.bin", &kept);
    let removed = a.json(&["model", "rm", "org/m", "w.bin"]);
    assert_eq!(removed["freed"].as_u64(), Some(new.len() as u64));
    assert!(a.lacks("org/m", "w.bin"));
    a.holds("org/m", "k.bin", &kept);
    a.cli(&["model", "rm", "org/m"]).ok();
    assert_eq!(a.json(&["model", "ls"]), serde_json::json!([]));
    a.cli(&["model", "rm", "org/m"]).fails(1).says("org/m");
}

#[test]
fn a_removed_file_can_be_added_again() {
    let weights = unique(4 * MIB);
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    let a = Node::local("a").hub(&hub);
    a.start();
    a.add(&["org/m"]);
    a.cli(&["model", "rm", "org/m"]).ok();
    a.add(&["org/m"]);
    a.holds("org/m", "w.bin", &weights);
}

#[test]
fn lists_say_what_is_here_and_where() {
    let weights = unique(2 * MIB);
    let repo = Repo::model("org/m").lfs("w.bin", weights.clone()).file("d/a.json", note("a"));
    let hub = TestHub::local().with(repo);
    let a = Node::local("a").hub(&hub);
    a.start();
    a.add(&["org/m"]);
    a.stop();
    // Without a daemon, too.
    let repos = a.json(&["model", "ls"]);
    assert_eq!((repos[0]["repo_id"].as_str(), repos[0]["files"].as_u64()), (Some("org/m"), Some(2)));
    assert_eq!(repos[0]["refs"]["main"].as_str(), Some(hub.commit("org/m", "main").as_str()));
    let files = a.json(&["model", "ls", "--repo_id", "org/m"]);
    let large = files.as_array().unwrap().iter().find(|file| file["path"] == "w.bin").unwrap();
    assert_eq!(
        (large["size"].as_u64(), large["etag"].as_str()),
        (Some(weights.len() as u64), Some(hub.etag("org/m", "w.bin").as_str()))
    );
    for option in ["--repo_id", "--repo-id"] {
        let path = a.cli(&["model", "ls", option, "org/m", "--file", "d/a.json"]).ok();
        assert_eq!(path.lines(), [a.path("org/m", "d/a.json").to_str().unwrap()]);
    }
    a.cli(&["model", "ls", "--repo_id", "org/other"]).fails(1).says("org/other");
}

#[test]
fn uninstall_takes_what_is_ours_and_leaves_what_another_tool_brought() {
    let weights = unique(2 * MIB);
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights));
    let a = Node::local("a").hub(&hub);
    a.start();
    a.add(&["org/m"]);
    a.stop();
    // A repo as another tool leaves it.
    let foreign = a.home().join("hub/models--other--tool");
    let commit = "1".repeat(40);
    fs::create_dir_all(foreign.join("snapshots").join(&commit)).unwrap();
    fs::create_dir_all(foreign.join("refs")).unwrap();
    fs::write(foreign.join("refs/main"), &commit).unwrap();
    fs::write(foreign.join("snapshots").join(&commit).join("a.json"), "{}").unwrap();

    let asked = a.cli(&["uninstall"]);
    assert_ne!(asked.code, Some(0), "nobody was there to say yes: {asked:#?}");
    assert!(a.repo("org/m").exists());
    a.cli(&["uninstall", "--yes"]).ok();
    assert!(!a.repo("org/m").exists() && !a.home().join("hffs").exists());
    assert!(foreign.join("snapshots").join(&commit).join("a.json").exists());
}

#[test]
fn uninstall_of_a_running_daemon_leaves_no_process() {
    let a = Node::local("a");
    a.start();
    a.cli(&["uninstall", "--yes"]);
    a.cli(&["daemon", "stop"]);
    crate::kit::until("no process is left", crate::kit::secs(10), || a.processes().is_empty());
}
