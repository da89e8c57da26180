//! The network of peers: one task owns the libp2p swarm, and a cheap `Handle` talks to it.
//!
//! Knows libp2p: connections, discovery, and the two protocols of `wire`. Does not know what is in the
//! messages: other rooms answer them through `Serve` and take bytes through `Sink`.
//! Invariant: the task never waits. Names are looked up, requests answered and files read elsewhere; what
//! has to queue does so in a bounded place, and a full place is an answer (`Busy`), not a wait.
//!
//! Bytes of files never pass through the task: each connection's own task moves them between stream and
//! file, block by block, so that a transfer needs little memory and is slowed down by a slow disk.

mod address;
mod behaviour;
mod block;
mod calls;
mod commands;
mod error;
mod frame;
mod gate;
mod identity;
mod line;
mod listen;
mod muxer;
mod noise;
mod query;
mod requests;
mod serving;
mod speed;
#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(windows, path = "windows.rs")]
mod system;
mod task;
#[cfg(test)]
mod tests;
mod transfer;
mod transport;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

pub use crate::trust::{ActivePeer, Host, Offence, Pairing, PeerView, Via};
pub use behaviour::agent;
pub use error::{Blame, Error};
pub use identity::Identity;

use crate::limits;
use crate::names::PeerId;
use crate::pace::{Lines, Toll};
use crate::wire::{self, Answer, PieceRequest, Query};
use commands::Command;
use task::{Channels, Task};
use transfer::Wanted;

/// How a swarm starts.
pub struct Options {
    pub identity: Identity,
    /// The port to listen on; `None`: the default one, or a free one when it is taken. Port 0 is a free one.
    pub port: Option<u16>,
    /// The peers that the user paired with so far.
    pub pairings: Vec<Pairing>,
    pub discovery: Discovery,
    /// What all transfers together have to keep to.
    pub lines: Lines,
}

/// Whether peers on the local network find each other without being told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    Mdns,
    Off,
}

/// What the daemon should write down or say.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The pairings changed: all of them, to be remembered across restarts. Not sent for what `Options` said.
    Pairings(Vec<Pairing>),
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    pub peer: PeerId,
    /// Whether this machine's user paired with the peer.
    pub paired: bool,
}

/// Answers peers. Its futures run outside the swarm's task, bounded in number and time; one that takes
/// too long, or panics, is dropped, and the peer is told that we are busy.
pub trait Serve: Send + Sync + 'static {
    fn answer(&self, from: Asker, query: Query) -> BoxFuture<'static, Answer>;

    /// Opens what a peer asks for. The request was checked against its own bounds, nothing else.
    fn open(&self, from: Asker, request: PieceRequest) -> BoxFuture<'static, Result<Body, Refusal>>;
}

/// A stretch of a file to send.
#[derive(Debug, Clone)]
pub struct Body {
    pub file: Arc<File>,
    /// The first byte, counted from the start of the file.
    pub offset: u64,
    /// How many bytes: what was asked for.
    pub len: u64,
}

/// Why nothing is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not now: ask again after this time.
    Busy(Duration),
    /// Not held, or not for this asker.
    Missing,
}

/// Takes the bytes of one transfer as they come, on the connection's task: it may block as long as a
/// write to a file does, and no longer.
pub trait Sink: Send {
    /// Takes bytes that belong at `offset`, counted from the start of the file. The offsets follow each
    /// other without gaps, and every byte that `Handle::pieces` counts was given here first.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Verdict;

    /// How fast the bytes may come, besides what holds for the line. It is asked once.
    fn toll(&self) -> Toll {
        Toll::default()
    }
}

/// What a sink says after each write.
#[derive(Debug)]
pub enum Verdict {
    Go,
    /// No more is needed: the transfer ends well.
    Enough,
    Failed(io::Error),
}

/// What the task shows of itself.
#[derive(Debug, Default, PartialEq)]
struct View {
    peers: Vec<PeerView>,
    active: Vec<ActivePeer>,
    listening: Vec<SocketAddr>,
}

/// Talks to the swarm's task. Cheap to clone; when the last clone is dropped, the swarm ends.
#[derive(Clone)]
pub struct Handle {
    me: PeerId,
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<Arc<View>>,
    changes: watch::Receiver<u64>,
}

/// Starts the swarm: listens, dials the paired peers, looks for others.
///
/// Returns when it listens, or says why it cannot. Must be called inside a tokio runtime with at least two
/// workers, which must outlive the swarm: end it with `Handle::stop`.
pub async fn start(options: Options, serve: Arc<dyn Serve>, events: mpsc::Sender<Event>) -> Result<Handle, Error> {
    let me = options.identity.peer_id().clone();
    let (commands, inbox) = mpsc::channel(limits::COMMANDS_MAX);
    let (view, shown) = watch::channel(Arc::new(View::default()));
    let (changes, changed) = watch::channel(0);
    let channels = Channels { events, view, changes };
    let task = Task::new(options, serve, channels).await?;
    tokio::spawn(task.run(inbox));
    Ok(Handle { me, commands, view: shown, changes: changed })
}

impl Handle {
    /// Our own peer id.
    pub fn peer_id(&self) -> &PeerId {
        &self.me
    }

    /// The addresses that we listen on, one for each of this machine's addresses.
    pub fn listening(&self) -> Vec<SocketAddr> {
        self.view.borrow().listening.clone()
    }

    /// Everybody worth showing: paired peers, and lab peers that were here lately. Active ones first.
    pub fn peers(&self) -> Vec<PeerView> {
        self.view.borrow().peers.clone()
    }

    /// The peers that can be asked now.
    pub fn active(&self) -> Vec<ActivePeer> {
        self.view.borrow().active.clone()
    }

    /// Counts up whenever a peer becomes active, stops being so, or is paired or unpaired.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Asks a peer. Cancel safe: dropping the future forgets the answer.
    pub async fn query(&self, peer: &PeerId, query: Query) -> Result<Answer, Error> {
        if wire::encode(&query).is_err() {
            return Err(Error::BadRequest);
        }
        let (reply, answer) = oneshot::channel();
        self.send(Command::Query { peer: peer.clone(), query, reply }).await?;
        match timeout(limits::QUERY_WAIT, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(self.gone())),
            Err(_) => Err(Error::Timeout),
        }
    }

    /// Takes a stretch of a file from a peer and gives it to the sink as it comes. Returns how many bytes
    /// the sink got: all that were asked for, unless it said `Enough`.
    ///
    /// Cancel safe: dropping the future ends the transfer, at the latest before the sink's next write.
    pub async fn pieces(&self, peer: &PeerId, request: PieceRequest, sink: Box<dyn Sink>) -> Result<u64, Error> {
        if wire::encode(&request).is_err() {
            return Err(Error::BadRequest);
        }
        let (reply, taken) = oneshot::channel();
        // Dropped with this future, which the transfer notices.
        let (_waiting, cancelled) = oneshot::channel();
        let wanted = Wanted { request, toll: sink.toll(), sink, cancelled };
        self.send(Command::Pieces { peer: peer.clone(), wanted, reply }).await?;
        taken.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Pairs with whoever answers at the address, and waits a moment for that. `None`: nobody answered
    /// yet; the pairing stays, and the first one who answers is pinned. After an error nothing new stays.
    pub async fn pair(&self, host: Host, port: u16) -> Result<Option<PeerId>, Error> {
        let (reply, met) = oneshot::channel();
        self.send(Command::Pair { host, port, reply }).await?;
        met.await.unwrap_or(Err(Error::Stopped))
    }

    /// Ends the pairings with a host, all of them or the one with the port, and returns them.
    pub async fn unpair(&self, host: Host, port: Option<u16>) -> Result<Vec<Pairing>, Error> {
        let (reply, ended) = oneshot::channel();
        self.send(Command::Unpair { host, port, reply }).await?;
        ended.await.map_err(|_| Error::Stopped)
    }

    /// Holds an offence against a peer. A wrong byte means a ban: it is disconnected and not asked again
    /// for a while. Malformed messages are held against it without being told here.
    pub async fn strike(&self, peer: &PeerId, offence: Offence) {
        let _ = self.send(Command::Strike { peer: peer.clone(), offence }).await;
    }

    /// Ends the swarm: closes the listeners and all connections. Requests under way fail.
    pub async fn stop(&self) {
        let (done, ended) = oneshot::channel();
        if self.send(Command::Stop { done }).await.is_ok() {
            let _ = timeout(limits::SHUTDOWN, ended).await;
        }
    }

    async fn send(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| Error::Stopped)
    }

    /// Why nobody answers: the task has ended, or has started anew and lost its connections.
    fn gone(&self) -> Error {
        if self.commands.is_closed() { Error::Stopped } else { Error::Gone }
    }
}
