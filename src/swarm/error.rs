//! Why the swarm could not do something, and whose fault that was.
//!
//! Knows outcomes. Does not know what the caller makes of them.
//! Invariant: only `Error::BadMessage` is proof against a peer; slowness and silence never are.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::wire;

/// Why a start, a pairing, a query or a transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer is not connected, or the connection or the stream ended before the answer did.
    #[error("the peer is gone")]
    Gone,
    /// The peer has too much to do, or we have `REQUESTS_PER_PEER_MAX` requests of the kind open with it
    /// already. That is no fault of the peer. Ask again after the time.
    #[error("the peer is busy")]
    Busy { retry: Duration },
    /// The peer does not hold what was asked for.
    #[error("the peer does not hold it")]
    Missing,
    /// The peer speaks a version that does not know the question, or whose answer we do not know.
    #[error("the peer speaks another version")]
    Unsupported,
    /// No answer, or no further byte, in time.
    #[error("the peer did not answer in time")]
    Timeout,
    /// The peer sent what no version sends. The swarm has held that against it before the caller hears of
    /// it, and even if the caller left: one who strikes too counts one fault twice, and bans too early.
    #[error("the peer broke the protocol: {why}")]
    BadMessage { why: &'static str },
    /// We asked for something that no peer may be asked for.
    #[error("the request is out of bounds")]
    BadRequest,
    /// The sink could not take the bytes.
    #[error("could not take the bytes")]
    Sink(#[source] io::Error),
    /// The swarm was stopped.
    #[error("the network is shut down")]
    Stopped,
    /// The address leads to this daemon itself.
    #[error("`{address}` is this daemon itself")]
    Ourselves { address: String },
    /// Something else than hffs answers at the address.
    #[error("`{address}` is not an hffs daemon")]
    Foreign { address: String },
    /// Another identity answers at a paired address.
    #[error("the identity at `{address}` has changed")]
    Changed { address: String },
    /// The host name is unknown.
    #[error("host `{host}` was not found")]
    Unresolved { host: String },
    /// More pairings than a lab can have.
    #[error("there are too many paired peers")]
    TooManyPairings,
    #[error("port {port} is taken")]
    PortTaken { port: u16 },
    #[error("could not listen on port {port}")]
    Listen {
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error("could not read or write the identity `{}`", path.display())]
    IdentityFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is not an identity of this program", path.display())]
    IdentityCorrupt { path: PathBuf },
    #[error("others can read the identity `{}`", path.display())]
    IdentityOpen { path: PathBuf },
}

/// Who has to change for the next attempt to end better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The peer, or the way to it: take another source.
    Peer,
    /// The disk of this machine.
    Disk,
    /// Whoever asked.
    Caller,
    /// This daemon.
    Us,
}

impl From<wire::Error> for Error {
    fn from(error: wire::Error) -> Self {
        match error {
            wire::Error::Unknown => Error::Unsupported,
            wire::Error::Malformed => Error::BadMessage { why: "a malformed message" },
            wire::Error::TooLong { .. } => Error::BadMessage { why: "a message beyond its bound" },
        }
    }
}

impl Error {
    /// Whose fault it was.
    pub fn blame(&self) -> Blame {
        match self {
            Error::Gone
            | Error::Busy { .. }
            | Error::Missing
            | Error::Unsupported
            | Error::Timeout
            | Error::BadMessage { .. }
            | Error::Foreign { .. }
            | Error::Changed { .. } => Blame::Peer,
            Error::Sink(_)
            | Error::IdentityFile { .. }
            | Error::IdentityCorrupt { .. }
            | Error::IdentityOpen { .. } => Blame::Disk,
            Error::BadRequest | Error::Ourselves { .. } | Error::Unresolved { .. } | Error::TooManyPairings => {
                Blame::Caller
            }
            Error::Stopped | Error::PortTaken { .. } | Error::Listen { .. } => Blame::Us,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Changed { .. } => Some(
                "if the machine was set up anew, unpair it and pair again: `hffs peer rm`, then `hffs peer add`"
                    .to_owned(),
            ),
            Error::Unresolved { .. } => Some("give its IP address instead".to_owned()),
            Error::PortTaken { .. } => Some("choose another with `--port`, or none to take a free one".to_owned()),
            Error::IdentityCorrupt { path } => Some(format!(
                "move `{}` away to get a new identity; peers that paired with this machine must pair again",
                path.display()
            )),
            Error::IdentityOpen { path } => {
                Some(format!("`chmod 600 {}`; if a stranger may have read it, delete it instead", path.display()))
            }
            _ => None,
        }
    }
}
