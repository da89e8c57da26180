//! The Hugging Face cache as it is on disk, and what hffs itself put there.
//!
//! Knows the layout that `huggingface_hub` 2.x reads and writes, and keeps a ledger of its own beside
//! it. Does not know the Hub, peers, or how a file came to be complete.
//! Invariant: a name in the cache appears by one rename of something complete, and never before its
//! content was verified; what hffs did not verify itself leaves here as `Unverified`.
//!
//! Other tools read and write the same folders at the same time, so nothing is believed longer than
//! one look: an index says where something may lie, and `stat` whether it still does. A blob's etag
//! is the name of the first link's target and never that of the file behind it, because a blob may
//! itself be a link into a store that all repos share and that names its files by another hash.

mod folder;
mod held;
mod ledger;
mod pieces;
mod publish;
mod remove;
mod said;
mod trees;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use tracing::warn;

use crate::digest::Digest;
use crate::disk::{self, Letters, Obstacle};
use crate::limits;
use crate::names::{Commit, Repo, RepoPath, Revision, Visibility};
use crate::tree::Tree;

pub use held::{Blob, Clue, Held, Unverified};
pub use remove::{Holding, Plan, Removed};
pub use said::{Turn, Word};
pub use view::{FileView, RepoView};

/// Marks a folder as a cache (<https://bford.info/cachedir/>).
const TAG: &str = "CACHEDIR.TAG";

/// Why the cache could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("repo `{repo}` is not in the cache")]
    NoRepo { repo: Repo },
    #[error("revision `{revision}` of `{repo}` is not in the cache")]
    NoRevision { repo: Repo, revision: Revision },
    #[error("file `{path}` of `{repo}` is not in the cache")]
    NoFile { repo: Repo, path: RepoPath },
    #[error("`{}` is damaged: its content has digest `{found}`", path.display())]
    Damaged { path: PathBuf, found: Digest },
    #[error("`{}` has the size, but not the content: its digest is `{found}`", path.display())]
    Another { path: PathBuf, found: Digest },
    #[error("`{}` was changed or removed while it was used", path.display())]
    Changed { path: PathBuf },
    #[error("`{}` is in the way: it is not what a cache has there", path.display())]
    InTheWay { path: PathBuf },
    #[error("`{}` and `{}` are one name on this file system", path.display(), there.display())]
    OneName { path: PathBuf, there: PathBuf },
    #[error("no space is left on the disk for `{}`", path.display())]
    Full { path: PathBuf },
    #[error("could not {doing} `{}`", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

impl Error {
    /// A failure of the disk at `path`.
    fn at(doing: &'static str, path: &Path, source: io::Error) -> Self {
        if disk::is_full(&source) {
            Error::Full { path: path.to_owned() }
        } else {
            Error::Io { doing, path: path.to_owned(), source }
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::NoRepo { .. } => Some("`hffs model ls` shows what the cache holds"),
            Error::NoRevision { .. } | Error::NoFile { .. } => {
                Some("`hffs model ls --repo_id REPO_ID` shows the files of a repo, `--json` its refs too")
            }
            Error::Damaged { .. } => Some("`hffs model add` fetches it anew and puts it in place of the damaged one"),
            Error::Full { .. } => Some("free some space, or move the cache with `hffs conf cache set PATH`"),
            Error::InTheWay { .. } => Some("move it away, then try again"),
            Error::OneName { .. } => Some("it can have one of them: leave the other one out with `--exclude`"),
            Error::Changed { .. } | Error::Another { .. } => None,
            Error::Io { source, .. } if disk::is_held(source) => {
                Some("end the program that has it open, then try again")
            }
            Error::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Some("the cache must belong to the user that runs hffs"),
                io::ErrorKind::InvalidFilename => Some("this system has no such names: leave it out with `--exclude`"),
                io::ErrorKind::ReadOnlyFilesystem => {
                    Some("choose another place with `hffs conf cache set PATH`, or mount this one writable")
                }
                _ => None,
            },
        }
    }
}

/// The cache of one machine. Cheap to clone; any call may wait for the disk.
#[derive(Debug, Clone)]
pub struct Cache(Arc<Room>);

#[derive(Debug)]
struct Room {
    /// The folder with the repo folders.
    root: PathBuf,
    /// The folder with what is ours alone.
    own: PathBuf,
    ledger: ledger::Ledger,
    index: Mutex<held::Index>,
    /// Folders in which names changed since their last fsync.
    unsynced: Mutex<BTreeSet<PathBuf>>,
    /// Whether this file system has symlinks, once it was tried.
    symlinks: OnceLock<folder::Symlinks>,
    /// What large and small letters are to this file system, once it was looked at.
    letters: OnceLock<Letters>,
    /// One entry a file that is being hashed, so that nobody hashes it a second time meanwhile.
    hashing: Mutex<HashMap<PathBuf, Arc<Mutex<()>>>>,
    lately: Mutex<said::Lately>,
}

impl Cache {
    /// Opens the cache in `hub_cache` and makes it where there is none; `own` is the `hffs` folder of
    /// the work directory.
    pub fn open(hub_cache: &Path, own: &Path) -> Result<Cache, Error> {
        let cache = Self::look_at(hub_cache, own)?;
        for folder in [&cache.0.root, &cache.0.own] {
            fs::create_dir_all(folder).map_err(|error| Error::at("create", folder, error))?;
        }
        mark_as_cache(&cache.0.root);
        cache.0.ledger.shorten();
        Ok(cache)
    }

    /// The same for whoever only wants to see what is there: nothing is made, so a cache that may not be
    /// written to can be looked at.
    pub fn look_at(hub_cache: &Path, own: &Path) -> Result<Cache, Error> {
        let root = absolute(hub_cache)?;
        let own = absolute(own)?;
        Ok(Self(Arc::new(Room {
            ledger: ledger::Ledger::new(own.join("ledger.jsonl")),
            root,
            own,
            index: Mutex::default(),
            unsynced: Mutex::default(),
            symlinks: OnceLock::new(),
            letters: OnceLock::new(),
            hashing: Mutex::default(),
            lately: Mutex::default(),
        })))
    }

    /// The folder with the repo folders, as an absolute path.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// What large and small letters are here.
    pub fn letters(&self) -> Letters {
        self.0.letters()
    }

    /// Notes who may be given contents, going by what the Hub says of a repo that has them.
    pub fn set_visibility(&self, digests: &[Digest], repo: &Repo, visibility: Visibility) -> Result<(), Error> {
        let news = digests.iter().filter(|digest| self.0.ledger.says(digest, repo) != Some(visibility));
        let lines: Vec<ledger::Line> =
            news.map(|digest| ledger::Line::Visible { digest: *digest, repo: repo.clone(), to: visibility }).collect();
        self.0.ledger.append(&lines)
    }

    /// Notes what the Hub says of a repo now. `tree` is what it has at one commit, `wanted` what of that is
    /// about to be here.
    ///
    /// Whatever was ever noted as public of a repo that is no longer so is restricted from now on, in
    /// whichever of its commits it is. The other way round only the tree counts: what a repo had before it
    /// was opened may have been taken out for a reason.
    pub fn set_repo_visibility(
        &self,
        repo: &Repo,
        visibility: Visibility,
        tree: &Tree,
        wanted: &[Digest],
    ) -> Result<(), Error> {
        let said = self.0.ledger.said(repo);
        let mut news: BTreeSet<Digest> =
            wanted.iter().copied().filter(|digest| said.get(digest) != Some(&visibility)).collect();
        let others = said.iter().filter(|(_, before)| **before != visibility).map(|(digest, _)| *digest);
        match visibility {
            Visibility::Restricted => news.extend(others),
            Visibility::Public => {
                let has: BTreeSet<Digest> = tree.iter().map(|(_, content)| content.digest).collect();
                news.extend(others.filter(|digest| has.contains(digest)));
            }
        }
        let line = |digest| ledger::Line::Visible { digest, repo: repo.clone(), to: visibility };
        self.0.ledger.append(&news.into_iter().map(line).collect::<Vec<_>>())
    }

    /// What the Hub said of a repo that has the content; `None`: it was not asked.
    pub fn visibility(&self, digest: &Digest, repo: &Repo) -> Option<Visibility> {
        self.0.ledger.says(digest, repo)
    }

    /// Whether the Hub said of any repo with this content that it is public. What nobody said is no.
    pub fn is_public(&self, digest: &Digest) -> bool {
        self.0.ledger.is_public(digest)
    }

    /// Whether hffs put this file into its snapshot, and not another tool.
    pub fn added_by_hffs(&self, repo: &Repo, commit: &Commit, path: &RepoPath) -> bool {
        self.0.ledger.is_added(repo, commit, path)
    }
}

impl Room {
    fn index(&self) -> MutexGuard<'_, held::Index> {
        // The index is a hint in any state.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file that nearly every cache has shows it.
    fn letters(&self) -> Letters {
        *self.letters.get_or_init(|| disk::letters(&self.root.join(TAG)))
    }

    /// Makes folders below the cache's root, none of which may be a symlink.
    fn make_folders<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Result<PathBuf, Error> {
        disk::make_folders(&self.root, parts, |parent| self.name_changed_in(parent)).map_err(
            |obstacle| match obstacle {
                Obstacle::InTheWay(path) => Error::InTheWay { path },
                Obstacle::Io(path, error) => Error::at("create", &path, error),
            },
        )
    }

    /// Notes that a folder needs an fsync.
    fn name_changed_in(&self, folder: &Path) {
        let full = {
            let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
            unsynced.insert(folder.to_owned());
            unsynced.len() > limits::UNSYNCED_FOLDERS_MAX
        };
        if full {
            self.sync_names();
        }
    }

    /// Makes all names durable that changed. A repo of many small files does this once for them all:
    /// until then a power cut can take names, but file systems keep their order.
    fn sync_names(&self) {
        let folders = std::mem::take(&mut *self.unsynced.lock().unwrap_or_else(PoisonError::into_inner));
        for folder in folders {
            match disk::sync_folder(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    warn!(path = %folder.display(), %error, "could not sync a folder");
                }
                _ => {}
            }
        }
    }

    /// Appends to the ledger what the cache can do without: a line less means more work later, no more.
    fn remember(&self, lines: &[ledger::Line]) {
        if let Err(error) = self.ledger.append(lines) {
            warn!(%error, "could not write to the ledger");
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|error| Error::at("find", path, error))
}

/// Tells backup tools that everything here can be fetched again (bford.info/cachedir).
fn mark_as_cache(root: &Path) {
    let tag = root.join(TAG);
    let text = "Signature: 8a477f597d28d172789f06886806bc55\n\
                # This folder is a cache of Hugging Face repos: what it holds can be fetched again.\n";
    match File::create_new(&tag).and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes())) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            warn!(path = %tag.display(), %error, "could not mark the folder as a cache");
        }
        _ => {}
    }
}

/// Takes a file's lock if that is possible within a short time, and goes on without it if not: on a
/// network file system it may tell nothing, and elsewhere somebody may hold it for hours.
fn lock_politely(file: &File) {
    let start = Instant::now();
    while matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) {
        if start.elapsed() > limits::PUBLISH_LOCK_WAIT {
            return;
        }
        std::thread::sleep(limits::LOCK_RETRY);
    }
}

/// The refs of a repo by name.
type Refs = BTreeMap<Revision, Commit>;

#[cfg(test)]
#[cfg_attr(not(unix), allow(dead_code, unused_imports, reason = "most of the tests need links"))]
mod tests;
