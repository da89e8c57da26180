//! Input that is wrong, from users and from files: a clear word, the right code, and nothing lost.

use std::fs;

use crate::kit::hub::{MIB, Repo, TestHub, note, unique};
use crate::kit::node::Node;

#[test]
fn malformed_names_are_refused_before_anything_is_asked() {
    let hub = TestHub::local();
    let a = Node::local("a").hub(&hub);
    a.start();
    let (long, long_path) = ("x".repeat(100), "d/".repeat(600));
    for id in ["..", "../m", "org/..", "a/b/c", "/etc", "C:/x", "org/m\u{7}", "-x/y", "org//m", &long] {
        let refused = a.cli(&["model", "add", "--", id]);
        assert!(matches!(refused.code, Some(1 | 2)) && !refused.stderr.is_empty(), "{id:?}: {refused:#?}");
    }
    for path in ["../x", "/etc/passwd", "a/../b", "C:/x", "a\\b", "a\nb", "", &long_path] {
        let refused = a.cli(&["model", "add", "org/m", "--", path]);
        assert!(matches!(refused.code, Some(1 | 2)) && !refused.stderr.is_empty(), "{path:?}: {refused:#?}");
    }
    for revision in ["..", "../main", "a b", "/main", "x\u{1b}[31m", "main.lock"] {
        let refused = a.cli(&["model", "add", "org/m", "--revision", revision]);
        assert!(
            matches!(refused.code, Some(1 | 2)) && !refused.stderr.contains('\u{1b}'),
            "{revision:?}: {refused:#?}"
        );
    }
    assert_eq!(hub.seen().len(), 0, "{:#?}", hub.seen());
}

#[test]
fn ports_and_hosts_that_cannot_be_are_refused() {
    let a = Node::local("a");
    a.start();
    for port in ["0", "70000", "-1", "http"] {
        a.cli(&["peer", "add", "127.0.0.1", "--port", port]).fails(2);
        a.cli(&["daemon", "start", "--port", port]).fails(2);
    }
    a.cli(&["peer", "add", "no-such-host.invalid"]).fails(1).says("no-such-host.invalid");
    a.cli(&["nonsense"]).fails(2);
    a.cli(&["model", "add"]).fails(2);
    a.cli(&["model", "add", "org/m", "--repo-type", "kernel"]).fails(2);
}

#[test]
fn a_missing_work_directory_is_named() {
    let a = Node::local("a");
    let missing = a.dir().join("missing/deeper");
    let missing = missing.to_str().unwrap();
    a.cli(&["conf", "cache", "set", missing]).fails(1).says("missing/deeper");
    let a = a.without("HFFS_HOME");
    a.cli(&["conf", "cache", "set", missing]).fails(1).says("missing/deeper");
}

#[test]
fn the_work_directory_can_be_set_shown_and_reset() {
    let a = Node::local("a").without("HFFS_HOME");
    let (default, chosen) = (a.dir().join("user/.cache/huggingface"), a.dir().join("chosen"));
    fs::create_dir(&chosen).unwrap();
    let get = |a: &Node| a.json(&["conf", "cache", "get"]);
    assert_eq!((get(&a)["home"].as_str(), get(&a)["from"].as_str()), (default.to_str(), Some("default")));
    a.cli(&["conf", "cache", "set", chosen.to_str().unwrap()]).ok();
    assert_eq!((get(&a)["home"].as_str(), get(&a)["from"].as_str()), (chosen.to_str(), Some("conf")));
    assert_eq!(get(&a)["hub_cache"].as_str(), chosen.join("hub").to_str());
    let other = a.dir().join("other");
    fs::create_dir(&other).unwrap();
    let shown = a.cli_with(&[("HFFS_HOME", other.to_str().unwrap())], &["--json", "conf", "cache", "get"]).ok().json();
    assert_eq!((shown["home"].as_str(), shown["from"].as_str()), (other.to_str(), Some("env")));
    a.cli(&["conf", "cache", "reset"]).ok();
    assert_eq!(get(&a)["from"], "default");
}

#[test]
fn the_default_place_follows_hugging_faces_own_variables() {
    let a = Node::local("a").without("HFFS_HOME");
    let home = a.dir().join("hf");
    fs::create_dir(&home).unwrap();
    let a = a.env("HF_HOME", home.to_str().unwrap());
    let shown = a.json(&["conf", "cache", "get"]);
    assert_eq!((shown["home"].as_str(), shown["hub_cache"].as_str()), (home.to_str(), home.join("hub").to_str()));
    let moved = a.dir().join("elsewhere");
    let shown =
        a.cli_with(&[("HF_HUB_CACHE", moved.to_str().unwrap())], &["--json", "conf", "cache", "get"]).ok().json();
    assert_eq!(shown["hub_cache"].as_str(), moved.to_str());
}

#[test]
fn the_work_directory_is_not_changed_under_a_running_daemon() {
    let a = Node::local("a").without("HFFS_HOME");
    let chosen = a.dir().join("chosen");
    fs::create_dir(&chosen).unwrap();
    a.start();
    let before = a.json(&["conf", "cache", "get"])["home"].clone();
    a.cli(&["conf", "cache", "set", chosen.to_str().unwrap()]).fails(1).hints();
    assert_eq!(a.json(&["conf", "cache", "get"])["home"], before);
    assert_eq!(a.status()["running"], true);
    a.stop();
}

#[test]
fn broken_settings_are_named_with_their_file_and_unknown_keys_only_warned_of() {
    let a = Node::local("a").config("port = [");
    a.cli(&["daemon", "start"]).fails(1).says("config.toml");
    let a = a.config("colour = \"blue\"\n");
    let started = a.cli(&["daemon", "start"]).ok();
    assert!(format!("{}{}", started.stderr, a.log()).contains("colour"), "{started:#?}");
}

#[test]
fn a_broken_identity_is_told_and_not_replaced() {
    let a = Node::local("a");
    a.start();
    a.stop();
    let key = a.home().join("hffs/identity.key");
    fs::write(&key, b"not a key").unwrap();
    a.cli(&["daemon", "start"]).fails(1).says("identity.key");
    assert_eq!(fs::read(&key).unwrap(), b"not a key");
}

#[test]
fn whatever_state_of_ours_is_broken_the_models_stay() {
    let weights = unique(4 * MIB);
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()).file("a.json", note("a")));
    let a = Node::local("a").hub(&hub);
    a.start();
    a.add(&["org/m"]);
    a.stop();
    let state = a.home().join("hffs");
    for path in files_below(&state) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "identity.key" || name == "config.toml" || name.contains("log") || name.ends_with(".sock") {
            continue;
        }
        fs::write(&path, b"\0\xffgarbage[[[").unwrap();
    }
    a.start();
    assert!(a.add(&["org/m"]).all_cached());
    a.holds("org/m", "w.bin", &weights);
}

/// Every file below a folder.
fn files_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn a_read_only_work_directory_is_told_as_such() {
    if !crate::kit::is_root() {
        println!("skipped: needs root to become another user");
        return;
    }
    let a = Node::local("a").run_by(65_534);
    fs::set_permissions(a.home(), std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
    a.cli(&["daemon", "start"]).fails(1).says(a.home().to_str().unwrap());
    fs::set_permissions(a.home(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn a_full_disk_fails_the_file_and_nothing_else() {
    if !crate::kit::is_root() {
        println!("skipped: needs root to make a small disk");
        return;
    }
    let small = note("small");
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", unique(48 * MIB)).file("a.json", small.clone()));
    let disk = crate::kit::node::SmallDisk::new("24m");
    let a = Node::local("a").home_at(disk.path()).hub(&hub);
    a.start();
    a.cli(&["model", "add", "org/m", "w.bin"]).fails(1).says("space");
    assert_eq!(a.status()["running"], true);
    a.add(&["org/m", "a.json"]);
    a.holds("org/m", "a.json", small.as_bytes());
    drop(a);
}
