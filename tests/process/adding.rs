//! `model add` with a Hub in good health.

use std::path::Path;

use crate::kit::hub::{Fault, Host, Kind, MIB, Repo, TOKEN, TOKEN_WITHOUT_LICENCE, TestHub, note, unique};
use crate::kit::node::Node;
use crate::kit::{secs, until};

#[test]
fn a_repo_comes_from_the_hub_byte_for_byte_and_once() {
    let (config, weights) = (note("config"), unique(24 * MIB + 7));
    let repo = Repo::model("org/m")
        .file("config.json", config.clone())
        .file("deep/er/a b+c.txt", "")
        .lfs("model.safetensors", weights.clone())
        .lfs("empty.bin", "");
    let hub = TestHub::local().with(repo);
    let a = Node::local("a").hub(&hub);
    a.start();

    let added = a.add(&["org/m"]);
    a.holds("org/m", "config.json", config.as_bytes()).holds("org/m", "deep/er/a b+c.txt", b"");
    a.holds("org/m", "model.safetensors", &weights).holds("org/m", "empty.bin", b"");
    assert_eq!(added.0["commit"], hub.commit("org/m", "main"));
    assert_eq!(added.file("model.safetensors")["etag"], hub.etag("org/m", "model.safetensors"));
    assert_eq!(added.hub_bytes(), (config.len() + weights.len()) as u64);
    assert_eq!(added.hub_bytes(), hub.sent_in_all());
    assert_eq!((added.peer_bytes(), hub.requests("xet")), (0, 0));

    let sent = hub.sent_in_all();
    let again = a.cli(&["model", "add", "org/m"]).ok();
    assert_eq!(hub.sent_in_all(), sent, "nothing is fetched twice");
    assert_eq!(again.lines().len(), 4);
    assert!(again.lines().iter().all(|line| Path::new(line).is_absolute() && Path::new(line).exists()), "{again:#?}");
    assert!(a.add(&["org/m"]).all_cached());
}

#[test]
fn the_file_asked_for_is_the_only_one_that_comes() {
    let hub = TestHub::local().with(Repo::model("org/m").file("a.json", note("a")).lfs("b/c.bin", unique(MIB)));
    let a = Node::local("a").hub(&hub);
    a.start();
    let added = a.cli(&["model", "add", "org/m", "b/c.bin"]).ok();
    assert_eq!(added.lines(), [a.path("org/m", "b/c.bin").to_str().unwrap()]);
    assert_eq!(hub.sent("a.json"), 0);
    assert!(a.lacks("org/m", "a.json"));
}

#[test]
fn globs_choose_what_comes() {
    let names = ["config.json", "tokenizer/vocab.json", "README.md", "w.safetensors", "old/w.bin"];
    let repo = names.iter().fold(Repo::model("org/m"), |repo, name| repo.file(name, note(name)));
    let hub = TestHub::local().with(repo);
    let a = Node::local("a").hub(&hub);
    a.start();
    let added = a.add(&["org/m", "--include", "*.json", "--include", "*.safetensors", "--exclude", "tokenizer/*"]);
    assert_eq!(added.paths(), ["config.json", "w.safetensors"]);
    a.cli(&["model", "add", "org/m", "--include", "*.nothing"]).fails(1).says("*.nothing");
}

#[test]
fn datasets_and_spaces_come_too_and_lie_where_their_readers_look() {
    let (rows, app) = (unique(MIB), note("app"));
    let hub = TestHub::local()
        .with(Repo::dataset("org/d").lfs("data/train.parquet", rows.clone()))
        .with(Repo::space("org/s").file("app.py", app.clone()));
    let a = Node::local("a").hub(&hub);
    a.start();
    let added = a.add(&["org/d", "--repo-type", "dataset"]);
    let path = added.file("data/train.parquet")["local_path"].as_str().unwrap();
    assert!(path.contains("/hub/datasets--org--d/snapshots/"), "{path}");
    assert!(std::fs::read(path).unwrap() == rows);
    let added = a.add(&["org/s", "--repo-type", "space"]);
    let path = added.file("app.py")["local_path"].as_str().unwrap();
    assert!(path.contains("/hub/spaces--org--s/"), "{path}");
    assert_eq!(std::fs::read_to_string(path).unwrap(), app);
}

#[test]
fn tags_branches_with_slashes_pull_requests_and_commits_are_revisions() {
    let (old, new) = (note("old"), note("new"));
    let repo = Repo::model("org/m").file("a.json", old.clone()).tag("v1.0").branch("feature/x").pr(7);
    let hub = TestHub::local().with(repo.file("a.json", new.clone()));
    let a = Node::local("a").hub(&hub);
    a.start();
    let commit = hub.commit("org/m", "v1.0");
    for revision in ["v1.0", "feature/x", "refs/pr/7", &commit] {
        let added = a.add(&["org/m", "a.json", "--revision", revision]);
        assert_eq!(added.0["commit"], commit, "{revision}");
        assert_eq!(std::fs::read_to_string(added.file("a.json")["local_path"].as_str().unwrap()).unwrap(), old);
    }
    for (name, place) in [("v1.0", "refs/v1.0"), ("feature/x", "refs/feature/x"), ("refs/pr/7", "refs/refs/pr/7")] {
        assert_eq!(std::fs::read_to_string(a.repo("org/m").join(place)).unwrap(), commit, "{name}");
    }
    a.add(&["org/m"]);
    a.holds("org/m", "a.json", new.as_bytes());
    assert_eq!(hub.sent("a.json"), (old.len() + new.len()) as u64);
}

#[test]
fn a_moved_branch_is_noticed_and_only_what_changed_is_fetched() {
    let (kept, old, new) = (unique(2 * MIB), note("old"), note("new"));
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", kept.clone()).file("a.json", old));
    let a = Node::local("a").hub(&hub);
    a.start();
    a.add(&["org/m"]);
    hub.push("org/m", |repo| repo.file("a.json", new.clone()));
    hub.forget();
    let added = a.add(&["org/m"]);
    assert_eq!(added.0["commit"], hub.commit("org/m", "main"));
    assert_eq!(hub.sent_in_all(), new.len() as u64);
    a.holds("org/m", "a.json", new.as_bytes()).holds("org/m", "w.bin", &kept);
}

#[test]
fn long_trees_come_in_pages_and_a_careless_mirrors_next_page_is_asked_where_the_first_was() {
    let names: Vec<String> = (0..9).map(|n| format!("part/{n}.json")).collect();
    let repo = names.iter().fold(Repo::model("org/m"), |repo, name| repo.file(name, note(name)));
    let hub = TestHub::local().with(repo);
    hub.page(3);
    hub.fault(Fault::ForeignNextPage);
    let a = Node::local("a").hub(&hub);
    a.start();
    assert_eq!(a.add(&["org/m"]).paths().len(), 9);
}

#[test]
fn a_renamed_repo_is_found_and_keeps_the_name_that_was_asked() {
    let weights = unique(MIB);
    let hub = TestHub::local().with(Repo::model("new/Name").lfs("w.bin", weights.clone()));
    hub.rename("old/name", "new/Name");
    let a = Node::local("a").hub(&hub);
    a.start();
    for asked in ["old/name", "NEW/name"] {
        a.add(&[asked]);
        a.holds(asked, "w.bin", &weights);
    }
}

#[test]
fn the_same_content_in_another_repo_is_not_fetched_again() {
    let weights = unique(8 * MIB);
    let hub = TestHub::local()
        .with(Repo::model("org/base").lfs("model.safetensors", weights.clone()))
        .with(Repo::model("org/tune").lfs("base.safetensors", weights.clone()).file("a.json", note("a")));
    let a = Node::local("a").hub(&hub);
    a.start();
    a.add(&["org/base"]);
    let added = a.add(&["org/tune"]);
    a.holds("org/tune", "base.safetensors", &weights);
    assert_eq!((hub.sent("base.safetensors"), added.file("base.safetensors")["hub_bytes"].as_u64()), (0, Some(0)));
}

#[test]
fn many_adds_at_once_share_one_download_of_each_content() {
    let (shared, own) = (unique(16 * MIB), unique(4 * MIB));
    let hub = TestHub::local()
        .with(Repo::model("org/one").lfs("w.bin", shared.clone()).file("a.json", note("a")))
        .with(Repo::model("org/two").lfs("w.bin", shared.clone()).lfs("own.bin", own.clone()));
    // Slow enough that all of them are there before the first is done.
    hub.fault(Fault::Rate { bytes_per_sec: 10 << 20 });
    let a = Node::local("a").hub(&hub);
    a.start();
    let adds: Vec<_> = ["org/one", "org/two", "org/one", "org/two"].map(|id| a.start_adding(&[id])).into();
    adds.into_iter().for_each(|adding| drop(adding.done()));
    for (id, file, content) in
        [("org/one", "w.bin", &shared), ("org/two", "w.bin", &shared), ("org/two", "own.bin", &own)]
    {
        a.holds(id, file, content);
    }
    // The end game may ask for the last pieces twice.
    let sent = hub.sent("w.bin");
    assert!(sent <= 18 * MIB as u64, "16 MiB were sent as {sent} bytes");
}

#[test]
fn the_token_reaches_the_hub_and_nobody_else() {
    let weights = unique(8 * MIB);
    let hub = TestHub::local().with(Repo::model("org/secret").private().lfs("w.bin", weights.clone()));
    let mirror = TestHub::local().with(Repo::model("org/secret").lfs("w.bin", weights.clone()));
    let a = Node::local("a").hub(&hub).mirror(&mirror).env("HF_TOKEN", TOKEN);
    a.start();
    let talk = a.cli(&["-v", "-v", "model", "add", "org/secret"]).ok();
    a.holds("org/secret", "w.bin", &weights);
    assert!(hub.tokens_seen(Host::Api).contains(&format!("Bearer {TOKEN}")));
    assert!(hub.tokens_seen(Host::Data).is_empty());
    assert!(mirror.tokens_seen(Host::Api).is_empty() && mirror.tokens_seen(Host::Data).is_empty());
    assert!(!talk.stderr.contains(TOKEN) && !talk.stdout.contains(TOKEN));
    a.stop();
    assert_eq!(a.files_with(TOKEN.as_bytes()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn the_token_is_found_where_hugging_faces_own_tools_keep_it() {
    let hub = TestHub::local().with(Repo::model("org/secret").private().file("a.json", note("a")));
    let a = Node::local("a").hub(&hub);
    let file = a.dir().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    a.start();
    a.cli(&["model", "add", "org/secret"]).fails(1);
    a.cli_with(&[("HF_TOKEN_PATH", file.to_str().unwrap())], &["model", "add", "org/secret"]).ok();
}

#[test]
fn each_no_of_the_hub_has_its_own_words_and_a_hint() {
    let file = || note("a");
    let hub = TestHub::local()
        .with(Repo::model("org/public").file("a.json", file()))
        .with(Repo::model("org/private").private().file("a.json", file()))
        .with(Repo::model("org/gated").gated().file("a.json", file()))
        .with(Repo::model("org/disabled").disabled().file("a.json", file()));
    let a = Node::local("a").hub(&hub);
    a.start();
    let anonymous = |args: &[&str]| a.cli(&[&["model", "add"], args].concat()).fails(1);
    let with = |token, args: &[&str]| a.cli_with(&[("HF_TOKEN", token)], &[&["model", "add"], args].concat());

    anonymous(&["org/nothing"]).says("org/nothing").hints();
    anonymous(&["org/private"]).says("org/private").says("token").hints();
    with(TOKEN, &["org/nothing"]).fails(1).says("org/nothing").hints();
    anonymous(&["org/gated"]).says("gated").hints();
    with(TOKEN_WITHOUT_LICENCE, &["org/gated"]).fails(1).says("gated").hints();
    with("hf_wrongWrongWrongWrongWrongWrongWrong", &["org/private"]).fails(1).says("token").hints();
    // What anybody may read needs no token, so a wrong one does no harm.
    with("hf_wrongWrongWrongWrongWrongWrongWrong", &["org/public"]).ok();
    anonymous(&["org/public", "--revision", "v9"]).says("v9").hints();
    anonymous(&["org/public", "b.json"]).says("b.json");
    anonymous(&["org/disabled"]).says("disabled");
    with(TOKEN, &["org/gated"]).ok();
    with(TOKEN, &["org/private"]).ok();
    a.cli(&["model", "add", "org/public"]).ok();
}

#[test]
fn a_proxy_is_used_for_the_hub() {
    let weights = unique(2 * MIB);
    // The Hub stands in for the proxy too: a name that nobody can resolve reaches it through the proxy only.
    let hub = TestHub::local().with(Repo::model("org/m").file("w.bin", weights.clone()));
    let a = Node::local("a").hub(&hub).env("HF_ENDPOINT", "http://hub.invalid").env("HTTP_PROXY", &hub.url());
    a.start();
    a.add(&["org/m"]);
    a.holds("org/m", "w.bin", &weights);
    assert!(hub.seen().iter().all(|seen| seen.proxied), "all by way of the proxy");
}

#[test]
fn a_command_may_ask_another_hub_than_its_daemon_was_started_with() {
    let hub = TestHub::local();
    let other = TestHub::local().with(Repo::model("org/m").file("a.json", note("a")));
    let a = Node::local("a").hub(&hub);
    a.start();
    a.cli(&["model", "add", "org/m"]).fails(1);
    a.cli_with(&[("HF_ENDPOINT", &other.url())], &["model", "add", "org/m"]).ok();
}

#[test]
fn ctrl_c_ends_the_command_and_keeps_what_came() {
    let weights = unique(32 * MIB);
    let hub = TestHub::local().with(Repo::model("org/m").lfs("w.bin", weights.clone()));
    hub.fault(Fault::Rate { bytes_per_sec: 8 << 20 });
    let a = Node::local("a").hub(&hub);
    a.start();
    let adding = a.start_adding(&["org/m"]);
    until("bytes flow", secs(30), || hub.sent_in_all() > 10 << 20);
    adding.signal("INT");
    assert_eq!(adding.ends().code, Some(130));
    let settled = crate::kit::settle("the daemon stops asking", secs(20), || hub.sent_in_all());
    hub.heal();
    let added = a.add(&["org/m"]);
    a.holds("org/m", "w.bin", &weights);
    assert!(added.resumed_bytes() >= 4 << 20, "only {} of {settled} bytes were kept", added.resumed_bytes());
}

#[test]
fn kinds_of_repos_with_one_name_do_not_meet() {
    let (model, dataset) = (note("model"), note("dataset"));
    let hub = TestHub::local()
        .with(Repo::model("org/same").file("a.json", model.clone()))
        .with(Repo::dataset("org/same").file("a.json", dataset.clone()));
    let a = Node::local("a").hub(&hub);
    a.start();
    for (kind, content) in [(Kind::Model, model), (Kind::Dataset, dataset)] {
        let word = kind.plural().trim_end_matches('s');
        let added = a.add(&["org/same", "--repo-type", word]);
        assert_eq!(std::fs::read_to_string(added.file("a.json")["local_path"].as_str().unwrap()).unwrap(), content);
    }
    assert_eq!(a.json(&["model", "ls"]).as_array().unwrap().len(), 2);
}
