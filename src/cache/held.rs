//! Which content the cache has, wherever in it that lies, and whether it was verified.
//!
//! Knows the blobs of all repos by digest. Does not know who wants them.
//! Invariant: a `Blob` was hashed as a whole, by this process or by one that left a note in the
//! ledger, and has the size, time and inode that it had then.
//!
//! The index is only a hint: other tools add and remove files without telling. What it names is looked
//! at again before it is answered, and what it does not name is looked for where folders changed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

use tracing::{debug, warn};

use super::folder::Folder;
use super::ledger::{Line, Stamp};
use super::view::{self, Kind};
use super::{Cache, Error, Room};
use crate::digest::{Digest, Hasher, PieceHasher};
use crate::disk::Buffer;
use crate::limits;
use crate::names::{Repo, RepoPath};
use crate::piece::{Cut, PieceList};
use crate::tree::Content;

/// What the cache has for a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    Verified(Blob),
    Unverified(Unverified),
}

/// Content that was verified and has not changed since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    content: Content,
    path: PathBuf,
    stamp: Stamp,
}

impl Blob {
    pub(super) fn new(content: Content, path: PathBuf, stamp: Stamp) -> Self {
        Self { content, path, stamp }
    }

    pub fn content(&self) -> Content {
        self.content
    }

    /// Where it lies: a blob, or in a snapshot where there are no symlinks.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Opens the file that was verified, or says that it is another by now.
    pub fn open(&self) -> Result<File, Error> {
        let changed = || Error::Changed { path: self.path.clone() };
        let file = File::open(&self.path).map_err(|_| changed())?;
        let meta = file.metadata().map_err(|error| Error::at("read", &self.path, error))?;
        if Stamp::of(&meta) == self.stamp { Ok(file) } else { Err(changed()) }
    }
}

/// Content that another tool put here, or that was touched since it was verified: all that is known
/// is that its size is right, and mostly its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverified {
    content: Content,
    path: PathBuf,
    clue: Clue,
}

/// What makes us think that a file is some content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clue {
    /// Its name says so, or the tree of its commit.
    Name,
    /// It has the size, and nothing tells what it is.
    Size,
}

impl Unverified {
    pub fn content(&self) -> Content {
        self.content
    }

    /// What makes us think so.
    pub fn clue(&self) -> Clue {
        self.clue
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Where the content of each repo lies.
#[derive(Debug, Default)]
pub(super) struct Index {
    repos: HashMap<Repo, Shelf>,
    /// When the folders were last looked at, and how long that took.
    pub(super) scanned: Option<(Instant, Duration)>,
}

#[derive(Debug, Default)]
struct Shelf {
    /// The folders whose change means that something came or went, with their times at the scan.
    folders: Vec<(PathBuf, Option<SystemTime>)>,
    /// Whether a folder was so fresh at the scan that a later change may have left its time the same.
    fresh: bool,
    places: HashMap<Digest, PathBuf>,
    /// Files of which nothing tells what they are, by size: a layout without links whose maker wrote no tree.
    nameless: HashMap<u64, Vec<PathBuf>>,
}

impl Index {
    pub(super) fn add(&mut self, repo: &Repo, digest: Digest, path: PathBuf) {
        self.repos.entry(repo.clone()).or_default().places.insert(digest, path);
    }

    /// Notes what a nameless file turned out to be.
    fn identify(&mut self, path: &Path, content: &Content) {
        let is_there =
            |shelf: &&mut Shelf| shelf.nameless.get(&content.size).is_some_and(|all| all.iter().any(|at| at == path));
        if let Some(shelf) = self.repos.values_mut().find(is_there) {
            shelf.places.insert(content.digest, path.to_owned());
        }
    }

    fn nameless(&self, size: u64) -> Vec<PathBuf> {
        self.repos.values().filter_map(|shelf| shelf.nameless.get(&size)).flatten().cloned().collect()
    }

    fn places(&self, digest: &Digest) -> Vec<PathBuf> {
        self.repos.values().filter_map(|shelf| shelf.places.get(digest).cloned()).collect()
    }
}

impl Cache {
    /// Looks for content anywhere in the cache. Content that was found damaged counts as absent.
    pub fn find(&self, content: &Content) -> Option<Held> {
        self.0.look(content).or_else(|| {
            self.rescan();
            self.0.look(content)
        })
    }

    /// Hashes a file as a whole, once, and remembers the result and the piece list.
    ///
    /// A damaged one is neither removed nor found again; what is fetched instead takes its place.
    pub fn verify(&self, held: &Unverified) -> Result<Blob, Error> {
        let open = || self.0.hashing.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = open().entry(held.path.clone()).or_default().clone();
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        // Others may have hashed it since.
        let verified = match (self.0.look(&held.content), self.found(held)) {
            (Some(Held::Verified(blob)), _) => Ok(blob),
            (_, Some(found)) => Err(Error::Another { path: held.path.clone(), found }),
            (_, None) => self.hash(held),
        };
        open().remove(&held.path);
        verified
    }

    /// What a file that was only thought to have some content was found to be.
    fn found(&self, held: &Unverified) -> Option<Digest> {
        let meta = (held.clue == Clue::Size).then(|| fs::metadata(&held.path).ok()).flatten()?;
        self.0.ledger.found(&held.content).remove(&(held.path.clone(), Stamp::of(&meta)))
    }

    /// A file that may be this content, though nothing but its size says so; another one each time until none is left
    /// that was not hashed. Only for those who may have the content wherever it lies: of other files, too, something
    /// is learned by asking.
    pub fn guess(&self, content: &Content) -> Option<Unverified> {
        self.guesses(content).into_iter().next()
    }

    pub(super) fn guesses(&self, content: &Content) -> Vec<Unverified> {
        let nameless = self.0.index().nameless(content.size);
        if nameless.is_empty() {
            return Vec::new();
        }
        let found = self.0.ledger.found(content);
        let unhashed = |path: &PathBuf| {
            let meta = fs::metadata(path).ok().filter(|meta| meta.is_file() && meta.len() == content.size);
            meta.is_some_and(|meta| !found.contains_key(&(path.clone(), Stamp::of(&meta))))
        };
        let guess = |path| Unverified { content: *content, path, clue: Clue::Size };
        nameless.into_iter().filter(unhashed).map(guess).collect()
    }

    /// Looks for content that is to be called `path` among the files of its size of which nothing tells what they are,
    /// first among those of this name. It reads no more than one large file or a few small ones: whoever looks here
    /// before a download would have been faster without, if it took longer than that.
    pub fn recognize(&self, content: &Content, path: &RepoPath) -> Option<Blob> {
        let mut guesses = self.guesses(content);
        guesses.sort_by_key(|guess| !guess.path.ends_with(path.as_str()));
        let at_most = limits::SMALL_FILE_BYTES.checked_div(content.size).unwrap_or(u64::MAX).max(1);
        guesses.iter().zip(0..at_most).find_map(|(guess, _)| {
            let verified = self.verify(guess);
            verified.inspect_err(|error| debug!(%error, "a file is not what it was thought to be")).ok()
        })
    }

    fn hash(&self, held: &Unverified) -> Result<Blob, Error> {
        let Unverified { content, path, clue } = held;
        let failed = |error| Error::at("read", path, error);
        let mut file = File::open(path).map_err(failed)?;
        let stamp = Stamp::of(&file.metadata().map_err(failed)?);
        let (hasher, list) = hash_file(&mut file, content, path)?;
        let verified = hasher.verify(());
        if Stamp::of(&file.metadata().map_err(failed)?) != stamp {
            return Err(Error::Changed { path: path.clone() });
        }
        let path = path.clone();
        let digest = verified.as_ref().map_or_else(|mismatch| mismatch.found, |_| content.digest);
        let is = Content { digest, size: content.size };
        match verified {
            Err(mismatch) if *clue == Clue::Name => {
                warn!(path = %path.display(), found = %mismatch.found, "content is not what its name says");
                self.0.remember(&[Line::Damaged { digest: content.digest, stamp, path: path.clone() }]);
                Err(Error::Damaged { path, found: mismatch.found })
            }
            // Another content than was looked for is known from now on as well.
            verified => {
                self.0.remember(&[Line::Verified { digest: is.digest, stamp, path: path.clone() }]);
                self.0.index().identify(&path, &is);
                if let Err(error) = list.map_or(Ok(()), |list| self.save_piece_list(&is, &list)) {
                    warn!(%error, "could not keep a piece list");
                }
                match verified {
                    Ok(_) => Ok(Blob::new(is, path, stamp)),
                    Err(mismatch) => Err(Error::Another { path, found: mismatch.found }),
                }
            }
        }
    }

    /// Looks at the folders that changed. Not too often, because any peer can ask for what is not here.
    fn rescan(&self) {
        let mut index = self.0.index();
        let now = Instant::now();
        if let Some((last, took)) = index.scanned
            && now - last < limits::CACHE_RESCAN.max(took * limits::CACHE_RESCAN_SHARE)
        {
            return;
        }
        let repos = view::repos_in(&self.0.root);
        let mut known = None;
        index.repos.retain(|repo, _| repos.contains(repo));
        for repo in repos {
            let folder = Folder::new(&self.0, &repo);
            if index.repos.get(&repo).is_none_or(|shelf| shelf.fresh || shelf.folders != watched(&folder)) {
                let shelf = self.scan(&repo, &folder, &mut known);
                index.repos.insert(repo, shelf);
            }
        }
        index.scanned = Some((Instant::now(), now.elapsed()));
    }

    /// `known` is what the ledger knows of places, once a repo needed it.
    fn scan(&self, repo: &Repo, folder: &Folder<'_>, known: &mut Option<HashMap<PathBuf, Vec<Digest>>>) -> Shelf {
        folder.sweep();
        // The times are read first, so that what changes during the scan is seen by the next one.
        let folders = watched(folder);
        let now = SystemTime::now();
        let fresh = folders.iter().any(|(_, time)| {
            time.is_some_and(|time| now.duration_since(time).is_ok_and(|age| age < limits::CACHE_FRESH))
        });
        let mut places = HashMap::new();
        let mut nameless: HashMap<u64, Vec<PathBuf>> = HashMap::new();
        for commit in view::commits(folder) {
            let mut plain = view::entries(folder, &commit);
            plain.retain(|entry| entry.kind == Kind::File);
            if plain.is_empty() {
                continue;
            }
            let says = self.says(repo, &commit);
            for entry in plain {
                match (says(&entry.path), fs::metadata(&entry.at)) {
                    (Some(digest), _) => drop(places.insert(digest, entry.at)),
                    (None, Ok(meta)) => nameless.entry(meta.len()).or_default().push(entry.at),
                    (None, Err(_)) => {}
                }
            }
        }
        if !nameless.is_empty() {
            // What was hashed before has a name since.
            let known = known.get_or_insert_with(|| self.0.ledger.verified_places());
            let hashed = nameless
                .values()
                .flatten()
                .flat_map(|at| known.get(at).into_iter().flatten().map(move |digest| (*digest, at.clone())));
            places.extend(hashed);
        }
        for blob in fs::read_dir(folder.blobs()).into_iter().flatten().flatten() {
            if let Some(digest) = blob.file_name().to_str().and_then(|name| name.parse().ok()) {
                places.insert(digest, blob.path());
            }
        }
        Shelf { folders, fresh, places, nameless }
    }
}

/// The folders of a repo in which files appear, with the times of their last change.
fn watched(folder: &Folder<'_>) -> Vec<(PathBuf, Option<SystemTime>)> {
    let snapshots = view::commits(folder).into_iter().map(|commit| folder.snapshot(&commit));
    [folder.blobs(), folder.snapshots(), folder.path().join("trees")]
        .into_iter()
        .chain(snapshots)
        .map(|path| {
            let time = fs::metadata(&path).and_then(|meta| meta.modified()).ok();
            (path, time)
        })
        .collect()
}

impl Room {
    /// Looks at the places that the index names, and prefers content that was verified.
    pub(super) fn look(&self, content: &Content) -> Option<Held> {
        let places = self.index().places(&content.digest);
        let mut unverified = None;
        for path in places {
            match self.at(content, path) {
                Some(Held::Verified(blob)) => return Some(Held::Verified(blob)),
                Some(held) => unverified = Some(held),
                None => {}
            }
        }
        unverified
    }

    /// What lies at a path that should have this content.
    pub(super) fn at(&self, content: &Content, path: PathBuf) -> Option<Held> {
        let meta = fs::metadata(&path).ok().filter(|meta| meta.is_file() && meta.len() == content.size)?;
        let stamp = Stamp::of(&meta);
        if self.ledger.is_verified(&content.digest, stamp) {
            Some(Held::Verified(Blob::new(*content, path, stamp)))
        } else if self.ledger.is_damaged(&content.digest, stamp) {
            None
        } else {
            Some(Held::Unverified(Unverified { content: *content, path, clue: Clue::Name }))
        }
    }
}

/// Reads a file once for its digest and, if it has several pieces, for its piece list.
fn hash_file(file: &mut File, content: &Content, path: &Path) -> Result<(Hasher, Option<PieceList>), Error> {
    let cut = Cut::new(content.size);
    let mut whole = Hasher::new(content.digest, content.size);
    let mut piece = PieceHasher::new();
    let mut hashes = Vec::with_capacity(cut.count() as usize);
    let mut buffer = Buffer::new();
    for number in 0..cut.count() {
        let mut left = cut.len_of(number);
        while left > 0 {
            let bytes = buffer.up_to(left);
            file.read_exact(bytes).map_err(|error| Error::at("read", path, error))?;
            whole.update(bytes);
            piece.update(bytes);
            left -= bytes.len() as u64;
        }
        hashes.push(piece.finish());
    }
    Ok((whole, PieceList::new(hashes, cut).filter(|list| list.hashes().len() > 1)))
}
