//! Conversations over a real socket, polite and hostile ones.

use std::time::Duration;

use interprocess::local_socket::tokio::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;
use crate::config::{Environment, Home};

/// Longer than anything here may take, so that a test that hangs fails.
const DEADLINE: Duration = Duration::from_secs(20);

struct Place {
    _dir: tempfile::TempDir,
    home: Home,
}

fn place() -> Place {
    place_below("")
}

fn place_below(name: &str) -> Place {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join(name);
    std::fs::create_dir_all(&root).unwrap();
    let home = Home::find(&Environment::from_vars([("HFFS_HOME", root.to_str().unwrap())])).unwrap();
    home.prepare().unwrap();
    Place { _dir: dir, home }
}

fn add_request() -> AddRequest {
    AddRequest {
        repo: Repo { kind: crate::names::RepoType::Model, id: "org/name".parse().unwrap() },
        revision: Revision::main(),
        files: vec!["a b/模型.bin".parse().unwrap()],
        include: vec!["*.json".into()],
        exclude: Vec::new(),
        wishes: Wishes::of(&Environment::from_vars([("HF_TOKEN", "hf_x"), ("HF_HUB_OFFLINE", "0")])).unwrap(),
        limit_rate: "10MB".parse().ok(),
        talk: Talk::Decisions,
    }
}

fn added() -> docs::Added {
    let peer = "12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq".parse().unwrap();
    docs::Added {
        repo_id: "org/name".parse().unwrap(),
        repo_type: crate::names::RepoType::Model,
        commit: "0123456789abcdef0123456789abcdef01234567".parse().unwrap(),
        files: vec![docs::AddedFile {
            path: "config.json".parse().unwrap(),
            size: 5,
            etag: "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0".parse().unwrap(),
            local_path: "/cache/config.json".into(),
            hub_bytes: 2,
            peer_bytes: [(peer, 3)].into(),
            resumed_bytes: 0,
            cached: false,
            seconds: 0.5,
        }],
    }
}

fn note(text: &str) -> AddEvent {
    AddEvent::Note { text: text.into() }
}

#[tokio::test]
async fn a_request_arrives_whole_and_its_answer_comes_back_after_its_events() {
    let place = place();
    let mut server = Server::bind(&place.home).await.unwrap();
    let daemon = async {
        let call = server.next().await;
        assert_eq!(call.request, Request::Add(add_request()));
        call.replies.event(note("one"));
        call.replies.event(AddEvent::FileDone(added().files.remove(0)));
        call.replies.done(&added()).await;
    };
    let command = async {
        let mut client = Client::connect(&place.home).await.unwrap();
        client.send(&Request::Add(add_request())).await.unwrap();
        let mut heard = Vec::new();
        loop {
            match client.next::<docs::Added>().await.unwrap() {
                Answer::Event(event) => heard.push(event),
                Answer::Done(document) => return (heard, document),
            }
        }
    };
    // Answering ends when the command has the answer, so both run side by side.
    let ((), (heard, document)) = timeout(DEADLINE, async { tokio::join!(daemon, command) }).await.unwrap();
    assert_eq!(heard, [note("one"), AddEvent::FileDone(added().files.remove(0))]);
    assert_eq!(document, added());
}

#[tokio::test]
async fn a_refusal_keeps_its_hint_and_an_answer_that_never_comes_is_told() {
    let place = place();
    let mut server = Server::bind(&place.home).await.unwrap();
    let daemon = async {
        server.next().await.replies.failed("no such repo", Some("check its name".into())).await;
        drop(server.next().await);
        // The lost call's connection is served while this waits for one that never comes.
        server.next().await
    };
    let commands = async {
        let ask = || async { Client::connect(&place.home).await.unwrap().ask::<docs::Added>(&Request::PeerLs).await };
        (ask().await.unwrap_err(), ask().await.unwrap_err())
    };
    let (refused, lost) = timeout(DEADLINE, async {
        tokio::select! { errors = commands => errors, _ = daemon => panic!("nobody called") }
    })
    .await
    .unwrap();
    assert_eq!(refused.to_string(), "no such repo");
    assert_eq!(refused.hint().as_deref(), Some("check its name"));
    assert!(matches!(lost, Error::Refused { .. }));
}

#[tokio::test]
async fn the_daemon_learns_when_a_command_is_interrupted_or_gone() {
    let place = place();
    let mut server = Server::bind(&place.home).await.unwrap();
    for cancels in [true, false] {
        let mut client = Client::connect(&place.home).await.unwrap();
        client.send(&Request::Add(add_request())).await.unwrap();
        let call = timeout(DEADLINE, server.next()).await.unwrap();
        assert!(!call.gone.is_cancelled());
        if cancels {
            client.cancel().await.unwrap();
            timeout(DEADLINE, call.gone.cancelled()).await.unwrap();
            // What is said after that is still heard.
            let document = added();
            let (_, answer) = tokio::join!(call.replies.done(&document), client.next::<docs::Added>());
            assert!(matches!(answer.unwrap(), Answer::Done(_)));
        } else {
            drop(client);
            timeout(DEADLINE, call.gone.cancelled()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_command_that_does_not_read_never_makes_the_daemon_wait() {
    let place = place();
    let mut server = Server::bind(&place.home).await.unwrap();
    let mut client = Client::connect(&place.home).await.unwrap();
    client.send(&Request::Add(add_request())).await.unwrap();
    let call = timeout(DEADLINE, server.next()).await.unwrap();
    let long = "x".repeat(1_000);
    for _ in 0..20 * limits::EVENTS_WAITING_MAX {
        call.replies.event(note(&long));
        tokio::task::yield_now().await;
    }
    call.replies.event(AddEvent::Progress(Progress::default()));
    let read = async {
        let mut notes = 0;
        loop {
            match client.next::<docs::Added>().await.unwrap() {
                Answer::Event(AddEvent::Note { .. }) => notes += 1,
                Answer::Event(other) => panic!("progress took the room of {other:?}"),
                Answer::Done(_) => return notes,
            }
        }
    };
    let document = added();
    let (_, notes) = timeout(DEADLINE, async { tokio::join!(call.replies.done(&document), read) }).await.unwrap();
    assert!((limits::EVENTS_WAITING_MAX..20 * limits::EVENTS_WAITING_MAX).contains(&notes), "{notes}");
}

#[tokio::test]
async fn hostile_lines_cost_their_sender_the_connection_and_nobody_else_anything() {
    let place = place();
    let mut server = Server::bind(&place.home).await.unwrap();
    let serving = async {
        loop {
            let call = server.next().await;
            assert_eq!(call.request, Request::PeerLs, "a hostile line became a request");
            call.replies.done(&Vec::<docs::Peer>::new()).await;
        }
    };
    let deep = format!("{{\"version\":1,\"request\":{}{}}}\n", "[".repeat(100_000), "]".repeat(100_000));
    let huge = "x".repeat(limits::REQUEST_BYTES_MAX + 10);
    let hostile = async {
        for line in [
            "\n",
            "null\n",
            "{}\n",
            "\u{1b}[2J\n",
            "{\"version\":1}\n",
            "{\"version\":1,\"request\":\"format_disk\"}\n",
            "{\"version\":1,\"request\":{\"peer_add\":{\"host\":\"../x\",\"port\":1}}}\n",
            "{\"version\":1,\"request\":{\"peer_add\":{\"host\":\"x\",\"port\":70000}}}\n",
            "{\"version\":9,\"request\":\"peer_ls\"}\n",
            deep.as_str(),
            huge.as_str(),
        ] {
            let mut stream = connect(&place.home).await;
            // The daemon may hang up before it has read everything.
            let _ = stream.write_all(line.as_bytes()).await;
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer).await;
            if !answer.is_empty() {
                let reply: Reply = serde_json::from_str(answer.trim_end()).unwrap();
                assert!(matches!(reply, Reply::Failed { .. }), "{line:.40}: {answer}");
                assert!(!answer.contains('\u{1b}'));
            }
        }
        let peers: Vec<docs::Peer> = Client::connect(&place.home).await.unwrap().ask(&Request::PeerLs).await.unwrap();
        assert!(peers.is_empty());
    };
    timeout(DEADLINE, async {
        tokio::select! { () = hostile => {}, () = serving => {} }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_daemon_of_another_version_can_still_be_asked_and_stopped() {
    let place = place();
    let mut server = Server::bind(&place.home).await.unwrap();
    let mut stream = connect(&place.home).await;
    stream.write_all(b"{\"version\":9,\"request\":\"stop\",\"more\":1}\n").await.unwrap();
    assert_eq!(timeout(DEADLINE, server.next()).await.unwrap().request, Request::Stop);
}

async fn connect(home: &Home) -> Stream {
    socket::connect(home).await.unwrap()
}

#[tokio::test]
async fn one_work_directory_has_one_daemon_and_the_next_one_can_follow() {
    for place in [place(), place_below(&format!("{}/{}", "d".repeat(90), "e".repeat(90)))] {
        let home = &place.home;
        assert!(matches!(Client::connect(home).await, Err(Error::NoDaemon { .. })));
        let mut first = Server::bind(home).await.unwrap();
        let second = tokio::select! {
            second = Server::bind(home) => second,
            _ = first.next() => panic!("the second daemon asked the first one something"),
        };
        assert!(matches!(second, Err(Error::Taken { .. })));
        drop(first);
        wait_for_end(home, DEADLINE).await.unwrap();
        // What a killed daemon leaves behind stops nobody; a pipe goes with it.
        #[cfg(unix)]
        {
            assert!(!home.control_socket().exists());
            drop(std::os::unix::net::UnixListener::bind(home.control_socket()).unwrap());
            assert!(home.control_socket().exists());
        }
        assert!(matches!(Client::connect(home).await, Err(Error::NoDaemon { .. })));
        drop(Server::bind(home).await.unwrap());
        if cfg!(unix) && !home.control_socket().starts_with(home.root()) {
            std::fs::remove_dir(home.control_socket().parent().unwrap()).unwrap();
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_socket_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let place = place();
    let _server = Server::bind(&place.home).await.unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.home.control_socket()), 0o600);
    assert_eq!(mode(&place.home.own()), 0o700);
}

#[cfg(unix)]
#[tokio::test]
async fn a_directory_that_others_can_enter_is_no_place_for_the_socket() {
    use std::os::unix::fs::PermissionsExt;
    let place = place();
    std::fs::set_permissions(place.home.own(), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(Server::bind(&place.home).await, Err(Error::Foreign { .. })));
}
