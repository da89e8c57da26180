//! Unfinished files: claim, write, resume, seal.
//!
//! Knows where unfinished files lie in the cache's folders and how they are taken up again. Does not
//! know peers, the Hub, or the names under which files will finally be found.
//! Invariant: resuming believes only bytes that it hashed again, so a crash can forget work but never
//! invent it, and nothing needs an fsync before the seal.
//!
//! An unfinished file lies in its repo's own `.hffs` folder: other tools ignore that, and it is surely
//! on the file system of the blobs, so that publishing is a rename. Its name carries the daemon's
//! identity, because two machines may share one cache over a network and locks lie there: each
//! writes to its own.

mod file;
mod journal;
mod talk;
mod watermark;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tracing::{debug, warn};

use crate::digest::Digest;
use crate::disk::{self, Buffer, Obstacle};
use crate::names::{PeerId, Repo};
use crate::piece::Cut;
use crate::tree::Content;

pub use file::Partial;
use file::{Ground, failed};
use journal::{Account, Journal};
pub use talk::Talk;

const FOLDER: &str = ".hffs";

/// Why an unfinished file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{digest}` is being written already")]
    Claimed { digest: Digest },
    #[error("`{}` takes no more bytes", path.display())]
    Closed { path: PathBuf },
    #[error("piece {piece} of `{}` is complete already", path.display())]
    Noted { path: PathBuf, piece: u32 },
    #[error("byte {offset} is beyond the end of `{}`", path.display())]
    Outside { path: PathBuf, offset: u64 },
    #[error("no space is left on the disk for `{}`, a file of {needed} bytes", path.display())]
    Full { path: PathBuf, needed: u64 },
    #[error("`{}` is in the way: a cache has a folder there", path.display())]
    InTheWay { path: PathBuf },
    #[error("could not {doing} `{}`", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Full { .. } => Some("free some space, or move the cache with `hffs conf cache set PATH`"),
            Error::InTheWay { .. } => Some("move it away, then try again"),
            Error::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Some("the cache must belong to the user that runs the daemon"),
                io::ErrorKind::ReadOnlyFilesystem => {
                    Some("choose another place with `hffs conf cache set PATH`, or mount this one writable")
                }
                _ => None,
            },
            _ => None,
        }
    }
}

/// Why a file could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("{pieces} pieces are missing")]
    Missing { pieces: u32 },
    /// The pieces in `forgotten` had other bytes on disk than were noted, and are missing now. If there
    /// are none, a source sent wrong bytes.
    #[error("the content has digest `{found}`, not `{wanted}`")]
    Mismatch { wanted: Digest, found: Digest, forgotten: Vec<u32> },
    #[error(transparent)]
    Disk(#[from] Error),
}

/// An unfinished file that lies in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// The repo in whose folder it lies.
    pub repo: Repo,
    pub content: Content,
    /// What is on disk of it, going by its journal.
    pub bytes: u64,
}

/// The unfinished files of one cache that belong to one daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Partials(Arc<Shelf>);

#[derive(Debug)]
struct Shelf {
    root: PathBuf,
    /// Tells this daemon's files from those of others in a cache on a network file system.
    node: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The files with a journal, by what they will be.
    lying: HashMap<Digest, Lying>,
    /// The claims in force. Between a claim and its file there is a moment without a file.
    claimed: HashMap<Digest, Weak<Partial>>,
}

#[derive(Debug, Clone)]
struct Lying {
    repo: Repo,
    content: Content,
    data: PathBuf,
}

impl Lying {
    fn journal(&self) -> PathBuf {
        self.data.with_extension("journal")
    }
}

/// The right to write one digest's file in this process; ends when it is dropped.
#[derive(Debug)]
struct Claim {
    shelf: Arc<Shelf>,
    digest: Digest,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.shelf.state();
        state.claimed.remove(&self.digest);
        // Published or discarded files are gone, and so is what was known of them.
        if state.lying.get(&self.digest).is_some_and(|lying| !lying.data.exists()) {
            state.lying.remove(&self.digest);
        }
    }
}

impl Shelf {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of the state is complete in itself, so a panic elsewhere leaves it true.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Partials {
    /// Finds this daemon's unfinished files, and sweeps away what cannot be resumed.
    ///
    /// Only one process may have a daemon's files open: what a second one finds, it would sweep.
    pub fn open(hub_cache: &Path, node: &PeerId) -> Result<Partials, Error> {
        let root = std::path::absolute(hub_cache).map_err(|error| failed("find", hub_cache, error, 0))?;
        let mut state = State::default();
        let folders = match fs::read_dir(&root) {
            Ok(folders) => folders,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self(Arc::new(Shelf { root, node: node.short().to_owned(), state: state.into() })));
            }
            Err(error) => return Err(failed("read", &root, error, 0)),
        };
        for folder in folders.flatten() {
            if let Some(repo) = folder.file_name().to_str().and_then(Repo::from_folder) {
                scan(&folder.path().join(FOLDER), &repo, node.short(), &mut state.lying);
            }
        }
        Ok(Self(Arc::new(Shelf { root, node: node.short().to_owned(), state: state.into() })))
    }

    /// The files that could be resumed, and those that are being written at this moment.
    pub fn unfinished(&self) -> Vec<Unfinished> {
        let (lying, claimed) = {
            let state = self.0.state();
            let lying: Vec<Lying> = state.lying.values().cloned().collect();
            let claimed: HashMap<Digest, Arc<Partial>> =
                state.claimed.iter().filter_map(|(digest, weak)| Some((*digest, weak.upgrade()?))).collect();
            (lying, claimed)
        };
        let mut found: Vec<Unfinished> = lying
            .into_iter()
            .filter(|lying| lying.data.exists())
            .map(|lying| {
                let cut = Cut::new(lying.content.size);
                let bytes = match claimed.get(&lying.content.digest) {
                    Some(partial) => partial.have().iter().map(|piece| cut.len_of(piece)).sum(),
                    None => journal::read(&lying.journal())
                        .map_or(0, |account| account.pieces.keys().map(|piece| cut.len_of(*piece)).sum()),
                };
                Unfinished { repo: lying.repo, content: lying.content, bytes }
            })
            .collect();
        found.sort_by(|a, b| (&a.repo, a.content.digest).cmp(&(&b.repo, b.content.digest)));
        found
    }

    /// The file of this digest that somebody in this process writes at this moment.
    pub fn claimed(&self, digest: &Digest) -> Option<Arc<Partial>> {
        self.0.state().claimed.get(digest)?.upgrade()
    }

    /// Takes up the unfinished file of this content, wherever in the cache it lies, or begins one in
    /// the repo's folder. One claim at a time: it ends when the `Partial`, and what was sealed from it,
    /// are dropped.
    pub fn claim(&self, repo: &Repo, content: &Content) -> Result<Arc<Partial>, Error> {
        let digest = content.digest;
        let (claim, lying) = {
            let mut state = self.0.state();
            if state.claimed.contains_key(&digest) {
                return Err(Error::Claimed { digest });
            }
            state.claimed.insert(digest, Weak::new());
            (Claim { shelf: self.0.clone(), digest }, state.lying.get(&digest).cloned())
        };
        let resumed = match &lying {
            Some(lying) if lying.content == *content => resume(lying)?,
            _ => None,
        };
        let ground = match resumed {
            Some(ground) => ground,
            None => {
                if let Some(useless) = lying {
                    sweep(&useless.journal());
                    sweep(&useless.data);
                }
                self.begin(repo, content)?
            }
        };
        let partial = Arc::new(Partial::new(*content, ground, claim));
        self.0.state().claimed.insert(digest, Arc::downgrade(&partial));
        Ok(partial)
    }

    fn begin(&self, repo: &Repo, content: &Content) -> Result<Ground, Error> {
        // A repo folder without `snapshots` makes `huggingface_hub` warn of a corrupted cache.
        let folder = repo.folder();
        make_folders(&self.0.root, &[&folder, "snapshots"])?;
        let folder = make_folders(&self.0.root, &[&folder, FOLDER])?;
        let data = folder.join(format!("{}-{}.data", content.digest, self.0.node));
        let lying = Lying { repo: repo.clone(), content: *content, data };
        let data = &lying.data;
        let create = || OpenOptions::new().read(true).write(true).create_new(true).open(data);
        let file = match create() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                sweep(&lying.journal());
                sweep(data);
                create()
            }
            created => created,
        };
        let file = file.map_err(|error| failed("create", data, error, content.size))?;
        // A file of one piece is whole or nothing, so it is spared the cost of what helps to resume.
        if Cut::new(content.size).count() <= 1 {
            return Ok(Ground { path: lying.data, file, journal: None, pieces: Vec::new() });
        }
        let account = Account { content: *content, pieces: [].into() };
        let journal = disk::reserve(&file, &folder, content.size)
            .and_then(|()| Journal::create(&lying.journal(), &account))
            .map_err(|error| {
                sweep(data);
                failed("reserve space for", data, error, content.size)
            })?;
        self.0.state().lying.insert(content.digest, lying.clone());
        Ok(Ground { path: lying.data, file, journal: Some(journal), pieces: Vec::new() })
    }

    /// Removes a repo's unfinished files that nobody has claimed, and says how many bytes they had.
    pub fn discard_repo(&self, repo: &Repo) -> u64 {
        let mut state = self.0.state();
        let State { lying, claimed } = &mut *state;
        let mut freed = 0;
        lying.retain(|digest, lying| {
            if lying.repo != *repo || claimed.contains_key(digest) {
                return true;
            }
            freed += lying.content.size;
            sweep(&lying.journal());
            sweep(&lying.data);
            false
        });
        remove_if_empty(&self.0.root.join(repo.folder()));
        freed
    }
}

/// Finds what can be resumed in one `.hffs` folder, and removes what is ours and cannot.
fn scan(folder: &Path, repo: &Repo, node: &str, lying: &mut HashMap<Digest, Lying>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let Some((digest, whose)) = path.file_stem().and_then(|stem| stem.to_str()).and_then(|s| s.split_once('-'))
        else {
            continue;
        };
        let (Ok(digest), true) = (digest.parse::<Digest>(), whose == node) else { continue };
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("data") => {}
            Some("journal") if path.with_extension("data").exists() => continue,
            Some("journal" | "journal-new") => {
                sweep(&path);
                continue;
            }
            _ => continue,
        }
        let journal = path.with_extension("journal");
        match journal::read(&journal) {
            Some(account) if account.content.digest == digest && !lying.contains_key(&digest) => {
                lying.insert(digest, Lying { repo: repo.clone(), content: account.content, data: path });
            }
            _ => {
                debug!(path = %path.display(), "removing an unfinished file that cannot be resumed");
                sweep(&path);
                sweep(&journal);
            }
        }
    }
}

/// Removes a repo's folder if it was only ever there for an unfinished file.
fn remove_if_empty(folder: &Path) {
    let _ = fs::remove_dir(folder.join(FOLDER));
    // `snapshots` goes only as the last thing, because `huggingface_hub` misses it in any other folder.
    if fs::read_dir(folder).is_ok_and(|entries| entries.count() == 1) {
        let _ = fs::remove_dir(folder.join("snapshots"));
        let _ = fs::remove_dir(folder);
    }
}

/// Opens an unfinished file and hashes again what its journal claims. `None` when it is of no use.
fn resume(lying: &Lying) -> Result<Option<Ground>, Error> {
    let Some(account) = journal::read(&lying.journal()).filter(|account| account.content == lying.content) else {
        return Ok(None);
    };
    if !is_ours_alone(&lying.data, lying.content.size) {
        return Ok(None);
    }
    let file = match OpenOptions::new().read(true).write(true).open(&lying.data) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", &lying.data, error, 0)),
    };
    let pieces = rehash(&file, Cut::new(lying.content.size), account, &lying.data);
    let account = Account { content: lying.content, pieces: pieces.iter().cloned().collect() };
    let journal = Journal::create(&lying.journal(), &account)
        .map_err(|error| failed("write", &lying.journal(), error, lying.content.size))?;
    Ok(Some(Ground { path: lying.data.clone(), file, journal: Some(journal), pieces }))
}

fn rehash(file: &File, cut: Cut, account: Account, path: &Path) -> Vec<(u32, journal::Entry)> {
    let mut buffer = Buffer::new();
    let claimed = account.pieces.len();
    let pieces: Vec<_> = account
        .pieces
        .into_iter()
        .filter(|(piece, entry)| {
            *piece < cut.count()
                && watermark::hash_piece(file, cut, *piece, &mut buffer).is_ok_and(|hash| hash == entry.hash)
        })
        .collect();
    if pieces.len() < claimed {
        warn!(path = %path.display(), lost = claimed - pieces.len(), "pieces on disk are not those of the journal");
    }
    pieces
}

/// Whether a file is a plain one of the right size with no second name: what a hard link also calls
/// its own must not be written to, for it may be published already.
fn is_ours_alone(path: &Path, size: u64) -> bool {
    let Ok(meta) = fs::symlink_metadata(path) else { return false };
    meta.is_file() && meta.len() == size && disk::names(path).is_ok_and(|names| names == 1)
}

fn make_folders(root: &Path, parts: &[&str]) -> Result<PathBuf, Error> {
    disk::make_folders(root, parts.iter().copied(), |_| {}).map_err(|obstacle| match obstacle {
        Obstacle::InTheWay(path) => Error::InTheWay { path },
        Obstacle::Io(path, source) => failed("create", &path, source, 0),
    })
}

/// Removes a file that is of no use. One that stays does no harm: nothing of it is believed.
fn sweep(path: &Path) {
    if let Err(error) = disk::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(path = %path.display(), %error, "could not remove a useless file");
    }
}

#[cfg(test)]
mod tests;
