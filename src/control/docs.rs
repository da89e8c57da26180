//! The JSON documents of the command line: what `--json` prints, key by key.
//!
//! Knows names and numbers. Does not know how they are found out or how tables show them.
//! Invariant: keys are only ever added. Sizes are bytes, times seconds, absent values `null`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::Origin;
use crate::digest::Digest;
/// `conf limit`: `up`, `down`, `lan_up` and `lan_down` in bytes a second, `null` where there is no limit.
pub use crate::pace::Bandwidth as Limits;

use crate::names::{Commit, PeerId, RepoId, RepoPath, RepoType};

/// `daemon status`, of a daemon that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Always true: whoever can say this runs.
    pub running: bool,
    pub pid: u32,
    pub version: String,
    pub peer_id: PeerId,
    /// The addresses it listens on, as `IP:PORT`.
    pub listen: Vec<String>,
    /// The URL of the local endpoint for other tools; `null` while there is none.
    pub endpoint: Option<String>,
    pub home: PathBuf,
    pub hub_cache: PathBuf,
    /// The Hub and the mirrors that it asks, in order; empty when it is offline.
    pub asks: Vec<String>,
}

/// `daemon stop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    pub pid: u32,
}

/// How a peer became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// The user added it.
    Manual,
    /// It was found on the local network.
    Mdns,
    /// It called us.
    Inbound,
}

/// One peer of `peer ls`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// `null` for an address that was added and where nobody has answered yet.
    pub peer_id: Option<PeerId>,
    /// `IP:PORT`, or `HOST:PORT` of a name that has not been resolved.
    pub address: Option<String>,
    pub via: Vec<Via>,
    pub active: bool,
    pub rtt: Option<f64>,
    /// The program and version that the peer calls itself.
    pub agent: Option<String>,
    /// What keeps it from being used, in words: another identity than before, another protocol.
    pub trouble: Option<String>,
}

/// `peer add` and `peer rm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairing {
    pub host: String,
    pub port: u16,
    /// Who lives there, when it is known.
    pub peer_id: Option<PeerId>,
    /// Whether a daemon took part; else it will when it starts.
    pub daemon: bool,
}

/// One repo of `model ls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedRepo {
    pub repo_id: RepoId,
    pub repo_type: RepoType,
    pub commits: Vec<Commit>,
    pub refs: BTreeMap<String, Commit>,
    pub files: usize,
    pub size: u64,
}

/// One file of `model ls --repo_id R`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedFile {
    pub path: RepoPath,
    pub commit: Commit,
    pub size: u64,
    /// `null` where the cache does not tell, as in layouts without links.
    pub etag: Option<String>,
    pub local_path: PathBuf,
}

/// One peer of `model search`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub peer_id: PeerId,
    pub address: Option<String>,
    /// The commit that the search was about.
    pub commit: Commit,
    /// How many of the files it has, wholly.
    pub files: usize,
    /// How many bytes of the files it has.
    pub size: u64,
    pub complete: bool,
}

/// `model add`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Added {
    pub repo_id: RepoId,
    pub repo_type: RepoType,
    pub commit: Commit,
    pub files: Vec<AddedFile>,
}

/// One file of `model add`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AddedFile {
    pub path: RepoPath,
    pub size: u64,
    pub etag: Digest,
    pub local_path: PathBuf,
    /// Payload received from endpoints, repeats included.
    pub hub_bytes: u64,
    /// Payload received from each peer, repeats included.
    pub peer_bytes: BTreeMap<PeerId, u64>,
    /// What was on disk already when this run began.
    pub resumed_bytes: u64,
    /// Whether the whole file was here already.
    pub cached: bool,
    pub seconds: f64,
}

/// `model rm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    pub removed: Vec<PathBuf>,
    pub freed: u64,
}

/// `conf cache get`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeInForce {
    pub home: PathBuf,
    pub hub_cache: PathBuf,
    pub from: Origin,
}
