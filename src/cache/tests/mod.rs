//! The cache is held against the layout of `huggingface_hub`, other tools at work in it, and damage.
//! Each test works on real files in a work directory of its own. What needs links runs where every user
//! may make them; `plain` holds the layout without them, and runs everywhere.

#[cfg(unix)]
mod content;
mod naming;
mod plain;
#[cfg(unix)]
mod removal;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::digest::{Hasher, PieceHasher, Verified};
use crate::piece::{Cut, PieceList};
use crate::sealed::SealedFile;
use crate::tree::{Content, Tree};

/// A work directory with a cache in it.
struct Scene {
    home: TempDir,
    cache: Cache,
}

fn scene() -> Scene {
    let home = tempfile::tempdir().unwrap();
    let cache = open(home.path());
    Scene { home, cache }
}

fn open(home: &Path) -> Cache {
    Cache::open(&home.join("hub"), &home.join("hffs")).unwrap()
}

fn repo(name: &str) -> Repo {
    Repo { kind: Default::default(), id: format!("org/{name}").parse().unwrap() }
}

fn commit(letter: char) -> Commit {
    letter.to_string().repeat(40).parse().unwrap()
}

fn path(text: &str) -> RepoPath {
    text.parse().unwrap()
}

fn rev(text: &str) -> Revision {
    text.parse().unwrap()
}

fn sha256(bytes: &[u8]) -> Content {
    content_as(Digest::Sha256([0; 32]), bytes)
}

fn git(bytes: &[u8]) -> Content {
    content_as(Digest::GitSha1([0; 20]), bytes)
}

fn content_as(kind: Digest, bytes: &[u8]) -> Content {
    let mut hasher = Hasher::new(kind, bytes.len() as u64);
    hasher.update(bytes);
    Content { digest: hasher.verify(()).unwrap_err().found, size: bytes.len() as u64 }
}

fn piece_list(bytes: &[u8]) -> PieceList {
    let cut = Cut::new(bytes.len() as u64);
    let mut hasher = PieceHasher::new();
    let hash = |piece: &[u8]| {
        hasher.update(piece);
        hasher.finish()
    };
    PieceList::new(bytes.chunks(cut.piece_bytes() as usize).map(hash).collect(), cut).unwrap()
}

impl Scene {
    fn hub(&self, below: &str) -> PathBuf {
        self.home.path().join("hub").join(below)
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.hub(&repo(name).folder())
    }

    /// A file as `partial` leaves it: whole, hashed, in the repo's `.hffs`.
    fn seal(&self, name: &str, content: Content, bytes: &[u8]) -> Verified<SealedFile> {
        let own = self.folder(name).join(".hffs");
        fs::create_dir_all(&own).unwrap();
        let path = tempfile::Builder::new().prefix("sealed-").make_in(&own, |path| fs::write(path, bytes)).unwrap();
        let path = path.into_temp_path().keep().unwrap();
        let scrap = path.with_extension("journal");
        fs::write(&scrap, "").unwrap();
        let mut hasher = Hasher::new(content.digest, content.size);
        hasher.update(bytes);
        let file = Arc::new(File::open(&path).unwrap());
        let (pieces, scraps, claim) = (piece_list(bytes), vec![scrap], Arc::new(()));
        hasher.verify(SealedFile { path, file, content, pieces, scraps, claim }).unwrap()
    }

    fn add(&self, name: &str, of: char, file: &str, bytes: &[u8]) -> PathBuf {
        let sealed = self.seal(name, sha256(bytes), bytes);
        self.cache.publish(&repo(name), &commit(of), &path(file), sealed).unwrap()
    }

    /// A file as `huggingface_hub` downloads it.
    fn foreign(&self, name: &str, of: char, file: &str, content: Content, bytes: &[u8]) {
        let blobs = self.folder(name).join("blobs");
        let shown = self.folder(name).join("snapshots").join(commit(of).as_str()).join(file);
        fs::create_dir_all(&blobs).unwrap();
        fs::create_dir_all(shown.parent().unwrap()).unwrap();
        fs::write(blobs.join(content.digest.to_string()), bytes).unwrap();
        let up = "../".repeat(file.split('/').count() + 1);
        disk::symlink(Path::new(&format!("{up}blobs/{}", content.digest)), &shown).unwrap();
    }

    /// Where a file of a commit is, if it is this content.
    fn shows(&self, name: &str, of: char, file: &str, content: Content) -> Option<PathBuf> {
        self.cache.here(&repo(name), &commit(of), &[(path(file), content)]).remove(0)
    }

    fn find(&self, content: &Content) -> Option<Held> {
        // A miss in the pause between two scans would tell nothing.
        self.cache.0.index().scanned = None;
        self.cache.find(content)
    }

    fn blob(&self, content: &Content) -> Blob {
        match self.find(content) {
            Some(Held::Verified(blob)) => blob,
            other => panic!("{content:?} is {other:?}"),
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn everything(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort();
    found
}
