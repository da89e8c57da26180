//! Who is told what, by a real cache and with a real server in the Hub's place.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::{StatusCode, Uri};
use futures::future::join_all;
use tempfile::TempDir;

use super::*;
use crate::config::{Endpoint, Proxies, Role};
use crate::digest::Hasher;
use crate::tree::Tree;

/// A cache that other tools filled.
pub(super) struct Scene {
    home: TempDir,
    pub(super) cache: Cache,
}

impl Scene {
    /// Each file is a repo's name and the content.
    pub(super) fn with(files: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = blob(&home, name, text);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let cache = Cache::open(&home.path().join("hub"), &home.path().join("hffs")).unwrap();
        Self { home, cache }
    }

    /// Another tool writes other bytes of the same number into a file.
    pub(super) fn rot(&self, name: &str, text: &str) {
        std::fs::write(blob(&self.home, name, text), text.to_uppercase()).unwrap();
    }

    pub(super) fn unverified(&self, text: &str) -> Unverified {
        match self.cache.find(&content(text)) {
            Some(Held::Unverified(unverified)) => unverified,
            other => panic!("`{text}` is {other:?}"),
        }
    }

    pub(super) fn share(&self, endpoints: &[Endpoint]) -> Share {
        let (endpoints, proxies) = (endpoints.to_vec(), Proxies::default());
        let access = Access { endpoints, token: None, offline: false, proxies };
        Share::new(self.cache.clone(), Hub::new(), access)
    }
}

fn blob(home: &TempDir, name: &str, text: &str) -> PathBuf {
    home.path().join("hub").join(repo(name).folder()).join("blobs").join(content(text).digest.to_string())
}

fn repo(name: &str) -> Repo {
    Repo { kind: Default::default(), id: format!("org/{name}").parse().unwrap() }
}

pub(super) fn content(text: &str) -> Content {
    let mut hasher = Hasher::new(Digest::Sha256([0; 32]), text.len() as u64);
    hasher.update(text.as_bytes());
    Content { digest: hasher.verify(()).unwrap_err().found, size: text.len() as u64 }
}

pub(super) fn whole(text: &str) -> PieceRequest {
    PieceRequest { content: content(text), start: 0, len: text.len() as u64 }
}

fn asker(paired: bool) -> Asker {
    Asker { peer: "12D3KooWGjMt6bKqtDMwUCvqpyAkMxSJCwfZNCaHpXwBqWvGNbxW".parse().unwrap(), paired }
}

pub(super) fn stranger() -> Asker {
    asker(false)
}

pub(super) fn friend() -> Asker {
    asker(true)
}

async fn holds(share: &Share, text: &str) -> Hold {
    match share.answer(stranger(), Query::Holds { contents: vec![content(text)] }).await {
        Answer::Holds(mut holds) => holds.pop().unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Answers every question in the same way, and counts them.
struct Server {
    url: String,
    asked: Arc<AtomicUsize>,
}

const PUBLIC: &str = r#"{"sha":"0123456789abcdef0123456789abcdef01234567","private":false,"gated":false}"#;

impl Server {
    async fn start(status: u16, code: &'static str, body: &'static str) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let app = Router::new().fallback(move |uri: Uri| async move {
            assert!(uri.path().starts_with("/api/models/org/"), "{uri}");
            count.fetch_add(1, Ordering::Relaxed);
            let headers = [("content-type", "application/json"), ("x-error-code", code)];
            (StatusCode::from_u16(status).unwrap(), headers, body)
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, asked }
    }

    fn as_a(&self, role: Role) -> Endpoint {
        Endpoint { url: self.url.clone(), role }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn one_restricted_file_hides_a_commit_from_strangers() {
    let scene = Scene::with(&[]);
    let share = scene.share(&[]);
    let (repo, commit): (Repo, Commit) = (repo("m"), "c".repeat(40).parse().unwrap());
    let mut tree = Tree::default();
    // The file from before comes first in the tree.
    tree.insert("a-before".parse().unwrap(), content("before")).unwrap();
    tree.insert("b-after".parse().unwrap(), content("after")).unwrap();
    scene.cache.write_tree(&repo, &commit, &tree).unwrap();
    let knows = async |from: Asker| {
        let resolve = Query::Resolve { repo: repo.clone(), revision: commit.as_str().parse().unwrap() };
        let list = Query::Tree { repo: repo.clone(), commit: commit.clone(), after: None };
        let resolved = share.answer(from.clone(), resolve).await != Answer::Unknown;
        assert_eq!(share.answer(from, list).await != Answer::Unknown, resolved);
        resolved
    };
    let note = |text: &str, to| scene.cache.set_visibility(&[content(text).digest], &repo, to).unwrap();
    assert!(!knows(stranger()).await, "nobody said that it is public");
    note("before", Visibility::Public);
    assert!(knows(stranger()).await);
    note("after", Visibility::Restricted);
    assert!(!knows(stranger()).await);
    assert!(knows(friend()).await);
    note("after", Visibility::Public);
    assert!(knows(stranger()).await);
}

#[tokio::test]
async fn a_paired_peer_waits_for_what_is_being_found_out_and_is_told_who_said_it() {
    let scene = Scene::with(&[]);
    let share = scene.share(&[]);
    let (repo, commit): (Repo, Commit) = (repo("m"), "c".repeat(40).parse().unwrap());
    let resolve =
        async |from: Asker| share.answer(from, Query::Resolve { repo: repo.clone(), revision: Revision::main() }).await;
    let mut turn = scene.cache.find_out(&friend().peer, &repo, &Revision::main());
    turn.asks_an_endpoint();
    assert_eq!(resolve(friend()).await, Answer::Busy);
    assert_eq!(resolve(stranger()).await, Answer::Unknown, "nobody's business");

    let mut tree = Tree::default();
    tree.insert("a".parse().unwrap(), content("a")).unwrap();
    scene.cache.set_visibility(&[content("a").digest], &repo, Visibility::Public).unwrap();
    scene.cache.write_tree(&repo, &commit, &tree).unwrap();
    turn.was_told(&commit, "https://hub.test");
    let word = |answer| match answer {
        Answer::Resolved { commit: found, public, said, .. } if found == commit => (public, said.map(|s| s.endpoint)),
        other => panic!("{other:?}"),
    };
    assert_eq!(word(resolve(friend()).await), (true, Some(spread(b"https://hub.test"))));

    // Nobody but the Hub says that anybody may have it, and it says so no more.
    scene.cache.set_visibility(&[content("a").digest], &repo, Visibility::Restricted).unwrap();
    assert_eq!(word(resolve(friend()).await), (false, None));
    assert_eq!(resolve(stranger()).await, Answer::Unknown);
}

#[tokio::test]
async fn a_mirror_never_hears_of_what_strangers_ask_for() {
    let scene = Scene::with(&[("m", "weights")]);
    let mirror = Server::start(200, "", PUBLIC).await;
    assert_eq!(holds(&scene.share(&[mirror.as_a(Role::Mirror)]), "weights").await, Hold::No);
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    drop(silent);
    let share = scene.share(&[Endpoint { url, role: Role::Hub }, mirror.as_a(Role::Mirror)]);
    assert_eq!(holds(&share, "weights").await, Hold::No);
    assert_eq!(mirror.asked(), 0);
}

#[tokio::test]
async fn one_answer_of_the_hub_is_for_all_files_of_the_repo_and_all_who_wait() {
    let scene = Scene::with(&[("m", "weights"), ("m", "config"), ("m", "readme"), ("n", "other")]);
    let server = Server::start(200, "", PUBLIC).await;
    let share = scene.share(&[server.as_a(Role::Hub)]);
    let at_once = join_all(["weights", "config", "weights", "config"].map(|text| holds(&share, text))).await;
    assert!(at_once.iter().all(|hold| *hold == Hold::Whole), "{at_once:?}");
    assert_eq!(server.asked(), 1);
    // Nobody asked about this file before.
    assert_eq!(holds(&share, "readme").await, Hold::Whole);
    assert_eq!(server.asked(), 1);
    assert_eq!(holds(&share, "other").await, Hold::Whole);
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn only_the_hubs_own_no_makes_a_repo_restricted() {
    for (status, code, noted) in [
        (401, "RepoNotFound", Some(Visibility::Restricted)),
        (404, "RepoNotFound", Some(Visibility::Restricted)),
        (403, "GatedRepo", Some(Visibility::Restricted)),
        (404, "RevisionNotFound", None),
        (500, "", None),
    ] {
        let scene = Scene::with(&[("m", "weights")]);
        let server = Server::start(status, code, r#"{"error":"no"}"#).await;
        let share = scene.share(&[server.as_a(Role::Hub)]);
        assert_eq!(holds(&share, "weights").await, Hold::No, "{status} {code}");
        assert_eq!(scene.cache.visibility(&content("weights").digest, &repo("m")), noted, "{status} {code}");
        // It is not asked again soon.
        let asked = server.asked();
        assert_eq!(holds(&share, "weights").await, Hold::No);
        assert_eq!(server.asked(), asked, "{status} {code}");
    }
}

#[tokio::test]
async fn a_damaged_file_of_another_tool_is_missing_and_a_good_one_is_opened() {
    let scene = Scene::with(&[("m", "good"), ("m", "rotten")]);
    scene.rot("m", "rotten");
    let share = scene.share(&[]);
    assert_eq!(share.open(friend(), whole("good")).await.unwrap().len, 4);
    assert_eq!(share.open(friend(), whole("rotten")).await.unwrap_err(), Refusal::Missing);
    assert_eq!(share.open(stranger(), whole("good")).await.unwrap_err(), Refusal::Missing);
}

#[tokio::test]
async fn what_only_has_the_size_is_told_once_it_is_known_for_what_it_is() {
    let scene = Scene::with(&[]);
    let snapshot = scene.home.path().join("hub").join(repo("m").folder()).join("snapshots").join("c".repeat(40));
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(snapshot.join("model.bin"), "weights").unwrap();
    let share = scene.share(&[]);
    let hold = async |text: &str| share.answer(friend(), Query::Holds { contents: vec![content(text)] }).await;
    let stand = async |text: &str| {
        share.answer(friend(), Query::Stand { content: content(text), known: Mark::default() }).await
    };
    assert_eq!(stand("weights").await, Answer::Stand(Stand::Gone));
    assert_eq!(hold("weights").await, Answer::Holds(vec![Hold::No]));
    let known = async {
        while hold("weights").await != Answer::Holds(vec![Hold::Whole]) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), known).await.unwrap();
    assert_eq!(stand("weights").await, Answer::Stand(Stand::Whole));
    assert_eq!(hold("wei-hts").await, Answer::Holds(vec![Hold::No]), "another content of its size");
}
