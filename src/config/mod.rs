//! Configuration: the work directory, the settings in it, and what the environment says.
//!
//! Knows variables, `config.toml`, `peers.toml` and the rules by which one wins over the other. Does
//! not know who uses what it decides.
//! Invariant: defaults stand here and nowhere else, and a token is never printed.

mod access;
mod environment;
mod file;
mod home;
mod limit;
mod peers;
mod settings;
#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(windows, path = "windows.rs")]
mod system;
mod system_proxy;

use std::io;
use std::path::PathBuf;

pub use access::{Access, Endpoint, Proxies, Role, Token, TokenChoice, Wishes};
pub use environment::Environment;
pub use home::{Home, Origin};
pub use limit::{change_limits, remove_limits};
pub use peers::{SavedPeer, read_peers, write_peers};
pub use settings::Settings;
pub use system_proxy::system_proxies;

/// The port that daemons listen on unless they are told otherwise.
pub const DEFAULT_PORT: u16 = crate::limits::PORT_DEFAULT;

/// Why configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a variable nor the system says where the user's files are.
    #[error("there is no home directory to keep the cache in")]
    NoHome,
    /// The work directory, which `origin` names, does not exist.
    #[error("the work directory `{}` does not exist", path.display())]
    Missing { path: PathBuf, origin: Origin },
    /// The work directory is a file, or cannot be entered.
    #[error("the work directory `{}` is not a directory", path.display())]
    NotADirectory { path: PathBuf, origin: Origin },
    /// The work directory cannot take our files.
    #[error("the work directory `{}` cannot be written to", path.display())]
    NotWritable { path: PathBuf, source: io::Error },
    /// A file could not be read.
    #[error("could not read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A file could not be written.
    #[error("could not write `{}`", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// A file was read, and does not say what it should.
    #[error("line {line} of `{}`: {why}", path.display())]
    Corrupted { path: PathBuf, line: usize, why: String },
    /// A variable has a value that cannot be used.
    #[error("the variable `{name}` {why}")]
    Variable { name: String, why: String },
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::NoHome => Some("set `HFFS_HOME` to a directory".into()),
            Error::Missing { origin, .. } | Error::NotADirectory { origin, .. } => Some(match origin {
                Origin::Env => "create it, or change `HFFS_HOME`".into(),
                Origin::Conf => "create or mount it, or choose another with `hffs conf cache set PATH`".into(),
                Origin::Default => "set `HFFS_HOME` to a directory, or `hffs conf cache set PATH`".into(),
            }),
            Error::NotWritable { .. } => Some("give yourself the right to write there, or set `HFFS_HOME`".into()),
            Error::Corrupted { .. } => Some("mend that line, or move the file away".into()),
            Error::Read { .. } | Error::Write { .. } | Error::Variable { .. } => None,
        }
    }
}
