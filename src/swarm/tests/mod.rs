//! Real swarms over real sockets on this machine, discovery switched off.
//!
//! The kit: a `Node` is a swarm with a `Shelf` of one file behind it. The tests stand in the files beside.

mod meeting;
mod moving;

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::*;
use crate::tree::Content;

/// Longer than anything here should take, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a node does with requests for its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Gives,
    Busy,
    Misses,
    Panics,
    /// Thinks for longer than anybody waits.
    Broods,
}

struct Shelf {
    file: Arc<File>,
    mood: Mood,
    asked: Mutex<Vec<Asker>>,
    opened: AtomicUsize,
}

impl Serve for Shelf {
    fn answer(&self, from: Asker, query: Query) -> BoxFuture<'static, Answer> {
        self.asked.lock().unwrap().push(from);
        let mood = self.mood;
        async move {
            match (mood, query) {
                (Mood::Panics, _) => panic!("as the test wants it"),
                (Mood::Broods, _) => std::future::pending().await,
                (_, Query::Hello) => Answer::Hello { agent: "shelf".into() },
                _ => Answer::Unknown,
            }
        }
        .boxed()
    }

    fn open(&self, _: Asker, request: PieceRequest) -> BoxFuture<'static, Result<Body, Refusal>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let (file, mood) = (Arc::clone(&self.file), self.mood);
        async move {
            match mood {
                Mood::Gives => Ok(Body { file, offset: request.start, len: request.len }),
                Mood::Busy => Err(Refusal::Busy(Duration::from_millis(700))),
                Mood::Misses => Err(Refusal::Missing),
                Mood::Panics => panic!("as the test wants it"),
                Mood::Broods => std::future::pending().await,
            }
        }
        .boxed()
    }
}

struct Node {
    handle: Handle,
    identity: Identity,
    shelf: Arc<Shelf>,
    events: mpsc::Receiver<Event>,
}

impl Node {
    async fn start() -> Self {
        Self::with(Mood::Gives).await
    }

    async fn with(mood: Mood) -> Self {
        Self::again(Identity::generate(), Some(0), Vec::new(), mood).await
    }

    async fn again(identity: Identity, port: Option<u16>, pairings: Vec<Pairing>, mood: Mood) -> Self {
        let shelf = Shelf { file: patterned(), mood, asked: Mutex::default(), opened: AtomicUsize::new(0) };
        let shelf = Arc::new(shelf);
        let (events, told) = mpsc::channel(limits::SWARM_EVENTS_MAX);
        let options =
            Options { identity: identity.clone(), port, pairings, discovery: Discovery::Off, lines: Lines::default() };
        let serve: Arc<dyn Serve> = Arc::clone(&shelf) as Arc<dyn Serve>;
        let handle = start(options, serve, events).await.unwrap();
        Self { handle, identity, shelf, events: told }
    }

    fn id(&self) -> &PeerId {
        self.identity.peer_id()
    }

    fn port(&self) -> u16 {
        self.handle.listening().first().unwrap().port()
    }

    async fn pair(&self, other: &Node) -> Result<Option<PeerId>, Error> {
        self.handle.pair(localhost(), other.port()).await
    }

    /// Waits until the view is as wanted.
    async fn sees(&self, what: &str, wanted: impl Fn(&[PeerView]) -> bool) -> Vec<PeerView> {
        let start = Instant::now();
        let mut view = self.handle.view.clone();
        loop {
            let peers = self.handle.peers();
            if wanted(&peers) {
                return peers;
            }
            let changed = timeout(PATIENCE.saturating_sub(start.elapsed()), view.changed()).await;
            assert!(changed.is_ok(), "never saw {what}, but {peers:#?}");
            changed.unwrap().unwrap();
        }
    }

    async fn sees_active(&self, other: &PeerId) {
        self.sees("an active peer", |peers| {
            peers.iter().any(|peer| peer.active && peer.peer_id.as_ref() == Some(other))
        })
        .await;
    }

    async fn sees_nobody_active(&self) {
        self.sees("nobody active", |peers| peers.iter().all(|peer| !peer.active)).await;
    }
}

/// Two nodes; the first has paired with the second.
async fn pair_of(mood: Mood) -> (Node, Node) {
    let (a, b) = (Node::start().await, Node::with(mood).await);
    assert_eq!(a.pair(&b).await.unwrap().as_ref(), Some(b.id()));
    b.sees_active(a.id()).await;
    (a, b)
}

fn localhost() -> Host {
    "127.0.0.1".parse().unwrap()
}

const FILE_BYTES: u64 = 64 << 20;

/// The file's bytes: no two stretches of it are alike, so a displaced byte shows.
fn pattern() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| {
        let word = |at: u64| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        (0..FILE_BYTES / 8).flat_map(word).collect()
    })
}

fn patterned() -> Arc<File> {
    static FILE: OnceLock<Arc<File>> = OnceLock::new();
    let write = || {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(pattern()).unwrap();
        Arc::new(file)
    };
    Arc::clone(FILE.get_or_init(write))
}

fn content() -> Content {
    let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824".parse().unwrap();
    Content { digest, size: FILE_BYTES }
}

fn stretch(start: u64, len: u64) -> PieceRequest {
    PieceRequest { content: content(), start, len }
}

/// Checks the bytes as they come, and counts them.
#[derive(Clone, Default)]
struct Checked {
    bytes: Arc<AtomicU64>,
    /// Told at each write.
    progress: Option<mpsc::UnboundedSender<u64>>,
    pause: Duration,
}

impl Sink for Checked {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Verdict {
        let at = usize::try_from(offset).unwrap();
        if pattern()[at..at + bytes.len()] != *bytes {
            return Verdict::Failed(std::io::Error::other(format!("wrong bytes at {at}")));
        }
        std::thread::sleep(self.pause);
        let sum = self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64;
        if let Some(progress) = &self.progress {
            let _ = progress.send(sum);
        }
        Verdict::Go
    }
}
