//! Control: how a command talks to the daemon on its own machine.
//!
//! Knows the local socket and the lines on it: one JSON value a line, a request one way, replies the
//! other. Does not know what requests do.
//! Invariant: only processes of the same user are talked to, since requests carry the user's token;
//! no line is longer than its limit and no queue is without one.

mod client;
pub mod docs;
mod line;
mod server;
mod socket;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Wishes;
use crate::digest::Digest;
use crate::limits;
use crate::names::{Commit, Host, Repo, RepoPath, Revision};
use crate::pace::Rate;

pub use client::{Answer, Client, wait_for_end};
pub use server::{Call, Replies, Server};

/// The version of the lines below. A daemon of another version is only asked for its status, and to stop.
const VERSION: u32 = 1;

/// What a command asks of the daemon: one to a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Answered by `docs::Status`.
    Status,
    /// Answered by `docs::Stopped`, before the daemon ends.
    Stop,
    /// Answered by `docs::Pairing`.
    PeerAdd { host: Host, port: u16 },
    /// No port means every pairing with that host. Answered by a list of `docs::Pairing`.
    PeerRm { host: Host, port: Option<u16> },
    /// Answered by a list of `docs::Peer`.
    PeerLs,
    /// Puts in force what `config.toml` says of limits by now. Answered by `docs::Limits`.
    Limit,
    /// Answered by a list of `docs::Holder`.
    Search(SearchRequest),
    /// Answered by any number of `AddEvent`, then by `docs::Added`.
    Add(AddRequest),
}

impl Request {
    /// How long a command waits for the whole answer; `None`: until the user has enough.
    fn wait(&self) -> Option<Duration> {
        match self {
            Request::Status | Request::Stop | Request::PeerRm { .. } | Request::PeerLs | Request::Limit => {
                Some(limits::ANSWER_WAIT)
            }
            Request::PeerAdd { .. } => Some(limits::PAIRING_WAIT),
            Request::Search(_) => Some(limits::SEARCH_WAIT),
            Request::Add(_) => None,
        }
    }

    /// Whether a daemon obeys a command of any version: else one that was updated could not stop the old daemon.
    fn is_for_every_version(&self) -> bool {
        matches!(self, Request::Status | Request::Stop)
    }
}

/// The first line of a conversation.
#[derive(Serialize, Deserialize)]
struct Opening<R> {
    version: u32,
    request: R,
}

/// The only thing that a command says after its request.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Interruption {
    Cancel,
}

/// What `model search` asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchRequest {
    pub repo: Repo,
    pub revision: Revision,
    /// `None` asks for the whole repo.
    pub file: Option<RepoPath>,
    pub wishes: Wishes,
}

/// What `model add` asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddRequest {
    pub repo: Repo,
    pub revision: Revision,
    /// Empty asks for the whole repo.
    pub files: Vec<RepoPath>,
    /// Globs over paths; empty includes everything.
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub wishes: Wishes,
    /// What all of it together may take, from the Hub and from peers.
    pub limit_rate: Option<Rate>,
    /// How much the user wants to know.
    pub talk: Talk,
}

/// How much a command wants to be told while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Talk {
    /// Everything but decisions.
    Usual,
    /// Decisions too, as `AddEvent::Note`.
    Decisions,
}

/// What the daemon tells while an add runs. It is a courtesy: the document at the end says everything
/// that counts, and an event is dropped when the command does not read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddEvent {
    /// What will be brought here.
    Resolved {
        commit: Commit,
        /// Who said what the revision means: `hub URL`, `peer ID`, `cache`.
        from: String,
        files: usize,
        bytes: u64,
        /// Adds that go on in the daemon beside this one, by name.
        also_running: Vec<String>,
    },
    /// Something that the user should know.
    Warning {
        text: String,
    },
    FileStarted {
        path: RepoPath,
        size: u64,
        /// Bytes that were on disk already.
        resumed: u64,
    },
    Progress(Progress),
    FileDone(docs::AddedFile),
    /// A decision, for whoever wants to follow them.
    Note {
        text: String,
    },
}

/// How far an add is: all of it, and the files that run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub running: Vec<Running>,
    pub done_bytes: u64,
    pub total_bytes: u64,
    /// Payload received so far, repeats included.
    pub hub_bytes: u64,
    pub peer_bytes: u64,
}

/// A file that is being brought here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub path: RepoPath,
    pub digest: Digest,
    pub size: u64,
    /// Bytes on disk.
    pub done_bytes: u64,
    pub hub_bytes: u64,
    pub peer_bytes: u64,
    /// How many sources of each kind send right now.
    pub peers: usize,
    pub endpoints: usize,
}

/// What a command hears from the daemon: events, then one of the other two.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Event(AddEvent),
    /// One of `docs`.
    Done(serde_json::Value),
    Failed {
        message: String,
        hint: Option<String>,
    },
}

/// Why a command and the daemon do not understand each other.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens at the work directory's socket.
    #[error("no daemon runs for `{}`", home.display())]
    NoDaemon { home: PathBuf },
    /// Another daemon has the work directory.
    #[error("a daemon already runs for `{}`", home.display())]
    Taken { home: PathBuf },
    /// The lock says that a daemon runs, but no socket of this machine answers.
    #[error("another daemon holds `{}`, perhaps on another machine that shares the directory", lock.display())]
    TakenElsewhere { lock: PathBuf },
    /// The socket belongs to somebody else.
    #[error("`{}` belongs to another user", path.display())]
    Foreign { path: PathBuf },
    /// The socket cannot be made or reached.
    #[error("could not use the control socket `{}`", path.display())]
    Socket { path: PathBuf, source: io::Error },
    /// The conversation broke off.
    #[error("the daemon went away: {0}")]
    Broken(#[source] io::Error),
    /// What came is no message of this version.
    #[error("the daemon sent what this version does not understand: {0}")]
    Garbled(String),
    /// The daemon took the connection and says nothing.
    #[error("the daemon does not answer")]
    Silent,
    /// The daemon did not do it, and says why.
    #[error("{message}")]
    Refused { message: String, hint: Option<String> },
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::NoDaemon { .. } => Some("hffs daemon start".into()),
            Error::Taken { .. } => Some("hffs daemon stop".into()),
            Error::TakenElsewhere { .. } => {
                Some("give each machine its own `HFFS_HOME`, or stop the daemon on the other one".into())
            }
            Error::Foreign { .. } => Some("run as the user that started the daemon, or set another `HFFS_HOME`".into()),
            Error::Garbled(_) => Some("hffs daemon stop, then hffs daemon start".into()),
            Error::Silent => Some("the log beside the work directory's `config.toml` may tell why".into()),
            Error::Refused { hint, .. } => hint.clone(),
            Error::Socket { .. } | Error::Broken(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
