//! Sentences about hffs and the real `huggingface_hub` on one cache.
//!
//! Goal: what hffs writes, Hugging Face's own client reads without a complaint, and what that client writes, hffs
//! lists, shares and does not fetch again. Method: the client from the package registry in a virtual environment, the
//! real binary, the test Hub; the client also reads from the test Hub, so its shapes are not our opinion alone.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test ends where its expectation does, and tells what it measured"
)]

mod kit;

use std::fs;

use kit::hub::{Fault, MIB, Repo, TestHub, note, unique};
use kit::node::Node;
use kit::python::Python;
use kit::{secs, until};

const OFFLINE: [(&str, &str); 1] = [("HF_HUB_OFFLINE", "1")];

fn hub_with(weights: &bytes::Bytes) -> TestHub {
    TestHub::local().with(
        Repo::model("org/m")
            .lfs("w.bin", weights.clone())
            .file("config.json", note("config"))
            .file("deep/er/a b+c.txt", note("deep")),
    )
}

/// How the client reaches a test Hub.
fn online(hub: &TestHub) -> Vec<(&'static str, String)> {
    vec![("HF_ENDPOINT", hub.url()), ("HF_HUB_DISABLE_XET", "1".to_owned())]
}

fn borrowed<'a>(env: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    env.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[test]
fn an_offline_client_finds_all_that_hffs_added_and_warns_of_nothing() {
    let Some(python) = Python::new() else { return };
    let weights = unique(9 * MIB);
    let hub = hub_with(&weights).with(Repo::dataset("org/d").lfs("train.parquet", unique(MIB)));
    let a = Node::local("a").hub(&hub);
    a.start();
    a.add(&["org/m"]);
    a.add(&["org/d", "--repo-type", "dataset"]);
    let script = "
scan = scan_cache_dir()
print(json.dumps({
    'folder': snapshot_download('org/m'),
    'file': hf_hub_download('org/m', 'deep/er/a b+c.txt'),
    'dataset': snapshot_download('org/d', repo_type='dataset'),
    'known': try_to_load_from_cache('org/m', 'w.bin'),
    'warnings': [str(warning) for warning in scan.warnings],
    'repos': sorted(repo.repo_id for repo in scan.repos),
    'refs': sorted(ref for repo in scan.repos for ref in repo.refs),
}))";
    let read = python.script(a.home(), &OFFLINE, script).ok().json();
    assert_eq!(read["warnings"], serde_json::json!([]), "{read:#}");
    assert_eq!(read["repos"], serde_json::json!(["org/d", "org/m"]));
    assert_eq!(read["refs"], serde_json::json!(["main", "main"]));
    assert_eq!(read["known"].as_str(), a.path("org/m", "w.bin").to_str());
    assert!(fs::read(format!("{}/w.bin", read["folder"].as_str().unwrap())).unwrap() == weights);
    assert!(fs::metadata(read["file"].as_str().unwrap()).is_ok());
}

#[test]
fn every_revision_that_was_added_is_found_offline_by_its_name() {
    let Some(python) = Python::new() else { return };
    let repo = Repo::model("org/m").file("a.json", note("old")).tag("v1.0").branch("feature/x").pr(3);
    let hub = TestHub::local().with(repo.file("a.json", note("new")));
    let a = Node::local("a").hub(&hub);
    a.start();
    for revision in ["main", "v1.0", "feature/x", "refs/pr/3"] {
        a.add(&["org/m", "--revision", revision]);
        let script = format!("print(json.dumps(snapshot_download('org/m', revision='{revision}')))");
        let found = python.script(a.home(), &OFFLINE, &script).ok().json();
        assert!(found.as_str().unwrap().ends_with(&hub.commit("org/m", revision)), "{revision}: {found}");
    }
    let scan = "print(json.dumps([str(w) for w in scan_cache_dir().warnings]))";
    assert_eq!(python.script(a.home(), &OFFLINE, scan).ok().json(), serde_json::json!([]));
}

#[test]
fn the_client_verifies_what_hffs_added_against_the_hub_and_fetches_nothing() {
    let Some(python) = Python::new() else { return };
    let hub = hub_with(&unique(4 * MIB));
    let a = Node::local("a").hub(&hub);
    a.start();
    a.add(&["org/m"]);
    hub.forget();
    let env = online(&hub);
    let script = "
report = HfApi().verify_repo_checksums('org/m')
snapshot_download('org/m')
print(json.dumps({'checked': report.checked_count, 'wrong': len(report.mismatches)}))";
    let read = python.script(a.home(), &borrowed(&env), script).ok().json();
    assert_eq!((read["checked"].as_u64(), read["wrong"].as_u64()), (Some(3), Some(0)));
    assert_eq!(hub.sent_in_all(), 0);
}

#[test]
fn what_the_client_downloaded_is_listed_shared_and_not_fetched_again() {
    let Some(python) = Python::new() else { return };
    let weights = unique(12 * MIB);
    let hub = hub_with(&weights);
    let (a, b) = (Node::local("a").hub(&hub), Node::local("b").hub(&hub));
    let env = online(&hub);
    python.script(a.home(), &borrowed(&env), "snapshot_download('org/m')").ok();
    a.start();
    b.start();
    let repos = a.json(&["model", "ls"]);
    assert_eq!((repos[0]["repo_id"].as_str(), repos[0]["files"].as_u64()), (Some("org/m"), Some(3)));
    hub.forget();
    assert!(a.add(&["org/m"]).all_cached());
    assert_eq!(hub.sent_in_all(), 0);

    b.pair(&a);
    let id = a.peer_id();
    until("b sees a", secs(15), || b.sees_active(&id));
    let added = b.add(&["org/m"]);
    b.holds("org/m", "w.bin", &weights);
    assert_eq!((hub.sent("w.bin"), added.file("w.bin")["hub_bytes"].as_u64()), (0, Some(0)));
}

#[test]
fn blobs_in_the_clients_shared_store_are_shared_under_their_true_digest() {
    let Some(python) = Python::new() else { return };
    let weights = unique(6 * MIB);
    let hub = hub_with(&weights);
    let (a, b) = (Node::local("a").hub(&hub), Node::local("b").hub(&hub));
    let env = online(&hub);
    python.script(a.home(), &borrowed(&env), "snapshot_download('org/m')").ok();
    // What a download by way of Xet leaves: the blob is a link into a store that names files by another hash.
    let store = a.home().join("hub/blobs");
    let stored = store.join("ab").join("ab".repeat(32));
    let blob = a.repo("org/m").join("blobs").join(hub.etag("org/m", "w.bin"));
    fs::create_dir_all(stored.parent().unwrap()).unwrap();
    fs::write(store.join(".huggingface-shared-blobs"), "1\n").unwrap();
    fs::rename(&blob, &stored).unwrap();
    std::os::unix::fs::symlink(format!("../../blobs/ab/{}", "ab".repeat(32)), &blob).unwrap();

    a.start();
    b.start();
    hub.forget();
    assert!(a.add(&["org/m"]).all_cached());
    b.pair(&a);
    let id = a.peer_id();
    until("b sees a", secs(15), || b.sees_active(&id));
    b.add(&["org/m"]);
    b.holds("org/m", "w.bin", &weights);
    assert_eq!(hub.sent("w.bin"), 0);
    // Taking the repo away leaves the store, which is not ours.
    a.cli(&["model", "rm", "org/m"]).ok();
    assert!(stored.exists());
}

#[test]
fn a_half_finished_repo_is_not_taken_for_a_whole_one() {
    let Some(python) = Python::new() else { return };
    let weights = unique(32 * MIB);
    let hub = hub_with(&weights);
    hub.fault(Fault::Rate { bytes_per_sec: 6 << 20 });
    let a = Node::local("a").hub(&hub);
    a.start();
    let adding = a.start_adding(&["org/m"]);
    until("bytes flow", secs(30), || hub.sent("w.bin") > 6 << 20);
    a.kill9();
    adding.ends();
    let read = python.script(a.home(), &OFFLINE, "print(snapshot_download('org/m'))");
    assert_ne!(read.code, Some(0), "the client was handed half a model: {read:#?}");
    let scan = "print(json.dumps([str(w) for w in scan_cache_dir().warnings]))";
    assert_eq!(python.script(a.home(), &OFFLINE, scan).ok().json(), serde_json::json!([]));
    // The client may end what hffs began, and hffs finds it done.
    hub.heal();
    let env = online(&hub);
    python.script(a.home(), &borrowed(&env), "snapshot_download('org/m')").ok();
    a.start();
    hub.forget();
    a.add(&["org/m"]);
    a.holds("org/m", "w.bin", &weights);
    assert_eq!(hub.sent("w.bin"), 0);
}

#[test]
fn the_client_and_hffs_may_fetch_the_same_repo_at_the_same_time() {
    let Some(python) = Python::new() else { return };
    let weights = unique(16 * MIB);
    let hub = hub_with(&weights);
    hub.fault(Fault::Rate { bytes_per_sec: 12 << 20 });
    let a = Node::local("a").hub(&hub);
    a.start();
    let adding = a.start_adding(&["org/m"]);
    let env = online(&hub);
    python.script(a.home(), &borrowed(&env), "snapshot_download('org/m')").ok();
    adding.done();
    a.holds("org/m", "w.bin", &weights);
    let scan = "print(json.dumps([str(w) for w in scan_cache_dir().warnings]))";
    assert_eq!(python.script(a.home(), &OFFLINE, scan).ok().json(), serde_json::json!([]));
}

#[test]
fn the_client_takes_the_test_hub_for_a_hub() {
    let Some(python) = Python::new() else { return };
    let repo = Repo::model("org/m").file("a.json", note("old")).tag("v1.0").branch("feature/x").pr(3);
    let hub = TestHub::local()
        .with(repo.file("d/b.json", note("b")).lfs("w.bin", unique(3 * MIB)))
        .with(Repo::model("org/private").private().file("a.json", "{}"))
        .with(Repo::model("org/gated").gated().file("a.json", "{}"));
    hub.rename("old/name", "org/m");
    hub.page(2);
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let script = "
from huggingface_hub import errors
def name(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__
api = HfApi()
refs = api.list_repo_refs('org/m', include_pull_requests=True)
print(json.dumps({
    'tree': [entry.path for entry in api.list_repo_tree('org/m', recursive=True)],
    'top': [entry.path for entry in api.list_repo_tree('org/m')],
    'below': [entry.path for entry in api.list_repo_tree('org/m', 'd')],
    'siblings': [(s.rfilename, s.size) for s in api.model_info('org/m', files_metadata=True).siblings][0][0],
    'paths': [entry.path for entry in api.get_paths_info('org/m', ['w.bin', 'nothing'])],
    'refs': [ref.name for ref in refs.branches + refs.tags + refs.pull_requests],
    'exists': [api.file_exists('org/m', 'd/b.json'), api.file_exists('org/m', 'nothing')],
    'moved': snapshot_download('old/name'),
    'slashes': snapshot_download('org/m', revision='feature/x'),
    'missing': name(lambda: snapshot_download('org/nothing')),
    'private': name(lambda: hf_hub_download('org/private', 'a.json')),
    'gated': name(lambda: hf_hub_download('org/gated', 'a.json')),
    'revision': name(lambda: hf_hub_download('org/m', 'a.json', revision='v9')),
    'entry': name(lambda: hf_hub_download('org/m', 'nothing')),
    'allowed': hf_hub_download('org/private', 'a.json', token='TOKEN'),
}))"
    .replace("TOKEN", kit::hub::TOKEN);
    let env = online(&hub);
    let read = python.script(home.path(), &borrowed(&env), &script).ok().json();
    assert_eq!(read["tree"], serde_json::json!(["a.json", "d", "d/b.json", "w.bin"]));
    assert_eq!(read["top"], serde_json::json!(["a.json", "d", "w.bin"]));
    assert_eq!((&read["below"], &read["paths"]), (&serde_json::json!(["d/b.json"]), &serde_json::json!(["w.bin"])));
    assert_eq!(read["refs"], serde_json::json!(["feature/x", "main", "v1.0", "3"]));
    assert_eq!((&read["exists"], &read["siblings"]), (&serde_json::json!([true, false]), &serde_json::json!("a.json")));
    assert!(read["slashes"].as_str().unwrap().ends_with(&hub.commit("org/m", "feature/x")));
    for (what, error) in [
        ("missing", "RepositoryNotFoundError"),
        ("private", "RepositoryNotFoundError"),
        ("gated", "GatedRepoError"),
        ("revision", "RevisionNotFoundError"),
        ("entry", "RemoteEntryNotFoundError"),
    ] {
        assert_eq!(read[what], error);
    }
    assert!(hub.tokens_seen(kit::hub::Host::Data).is_empty());
}
