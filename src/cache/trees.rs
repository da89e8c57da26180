//! Refs, trees, and files known to be missing: what the cache says of names without any blob.
//!
//! Knows the text of `refs/*` and `trees/*.json` as `huggingface_hub` reads and writes them. Does not
//! know which of the files are here.
//! Invariant: a ref is written only beside a snapshot folder for its commit, and a tree that holds a
//! name we refuse is no tree.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::folder::Folder;
use super::{Cache, Error, Refs};
use crate::digest::{self, Digest};
use crate::limits;
use crate::names::{Commit, Repo, RepoPath, Revision};
use crate::tree::{Content, Tree};

/// The version of `trees/<commit>.json` that `huggingface_hub` 2.x knows (`_tree_cache.py`).
const TREE_FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct TreeFile {
    format_version: u32,
    files: BTreeMap<String, TreeEntry>,
}

/// `huggingface_hub` adds `xet_hash`, which we neither need nor write: a reader of ours could not
/// fetch by it.
#[derive(Serialize, Deserialize)]
struct TreeEntry {
    size: u64,
    blob_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lfs_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lfs_size: Option<u64>,
}

impl TreeEntry {
    fn of(content: Content) -> Self {
        match content.digest {
            Digest::GitSha1(_) => {
                Self { size: content.size, blob_id: content.digest.to_string(), lfs_sha256: None, lfs_size: None }
            }
            Digest::Sha256(sha256) => Self {
                size: content.size,
                blob_id: digest::lfs_pointer(&sha256, content.size).0.to_string(),
                lfs_sha256: Some(content.digest.to_string()),
                lfs_size: Some(content.size),
            },
        }
    }

    fn content(&self) -> Option<Content> {
        match (&self.lfs_sha256, self.lfs_size) {
            (Some(sha256), size) => Some(Content { digest: sha256.parse().ok()?, size: size.unwrap_or(self.size) }),
            (None, _) => Some(Content { digest: self.blob_id.parse().ok()?, size: self.size }),
        }
    }
}

impl Cache {
    /// What a revision meant when it was last resolved, and when that was. A commit means itself.
    pub fn ref_of(&self, repo: &Repo, revision: &Revision) -> Option<(Commit, SystemTime)> {
        let folder = Folder::new(&self.0, repo);
        let place = folder.ref_of(revision);
        // Where `Main` and `main` are one name, one of them would be taken for the other.
        if folder.other_spelling(&folder.refs(), &place).is_some() { None } else { read_ref(&place) }
    }

    /// Notes what a revision means, and when the Hub said so: peers that know something else believe
    /// whoever learned last. A commit needs no note.
    pub fn write_ref(
        &self,
        repo: &Repo,
        revision: &Revision,
        commit: &Commit,
        learned: SystemTime,
    ) -> Result<(), Error> {
        let folder = Folder::new(&self.0, repo);
        folder.make(["snapshots", commit.as_str()])?;
        self.0.sync_names();
        if revision.as_commit().is_some() {
            return Ok(());
        }
        let place = folder.ref_of(revision);
        if let Some(there) = folder.other_spelling(&folder.refs(), &place) {
            warn!(%revision, there = %there.display(), "is not noted, because this system takes it for another");
            return Ok(());
        }
        let parts: Vec<&str> = revision.as_str().split('/').collect();
        let parents = parts.iter().take(parts.len() - 1).copied();
        folder.make(std::iter::once("refs").chain(parents))?;
        let same = fs::read(&place).is_ok_and(|bytes| bytes == commit.as_str().as_bytes());
        if same && File::options().write(true).open(&place).is_ok_and(|file| file.set_modified(learned).is_ok()) {
            return Ok(());
        }
        folder.put(&place, commit.as_str().as_bytes(), Some(learned))?;
        self.0.sync_names();
        Ok(())
    }

    /// Notes all files of a commit, so that other tools can tell a snapshot that is whole from one
    /// that is not. A tree that stands already is left: a commit's files never change.
    pub fn write_tree(&self, repo: &Repo, commit: &Commit, tree: &Tree) -> Result<(), Error> {
        let folder = Folder::new(&self.0, repo);
        folder.make(["snapshots", commit.as_str()])?;
        if self.read_tree(repo, commit).is_some() {
            return Ok(());
        }
        let files = tree.iter().map(|(path, content)| (path.to_string(), TreeEntry::of(content))).collect();
        let place = folder.tree(commit);
        let json = serde_json::to_vec_pretty(&TreeFile { format_version: TREE_FORMAT, files })
            .map_err(|error| Error::at("write", &place, error.into()))?;
        folder.make(["trees"])?;
        folder.put(&place, &json, None)?;
        self.0.sync_names();
        Ok(())
    }

    /// All files of a commit, if the cache knows them.
    pub fn read_tree(&self, repo: &Repo, commit: &Commit) -> Option<Tree> {
        let path = Folder::new(&self.0, repo).tree(commit);
        match read_tree(&path) {
            Ok(tree) => Some(tree),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn!(path = %path.display(), %error, "ignored a tree");
                None
            }
        }
    }

    /// Notes that a commit has no such file, so that other tools need not ask.
    pub fn mark_missing(&self, repo: &Repo, commit: &Commit, path: &RepoPath) -> Result<(), Error> {
        let folder = Folder::new(&self.0, repo);
        // A repo folder without `snapshots` makes `huggingface_hub` warn of a corrupted cache.
        folder.make(["snapshots", commit.as_str()])?;
        let parents = path.parts().count() - 1;
        folder.make([".no_exist", commit.as_str()].into_iter().chain(path.parts().take(parents)))?;
        let place = folder.missing(commit, path);
        match File::create_new(&place) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::at("create", &place, error)),
            _ => Ok(()),
        }
    }
}

fn read_ref(path: &Path) -> Option<(Commit, SystemTime)> {
    let meta = fs::metadata(path).ok().filter(|meta| meta.is_file())?;
    let mut text = String::new();
    File::open(path).ok()?.take(limits::REF_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some((text.trim_end().parse().ok()?, meta.modified().ok()?))
}

fn read_tree(path: &Path) -> io::Result<Tree> {
    let mut json = Vec::new();
    File::open(path)?.take(limits::TREE_FILE_BYTES_MAX).read_to_end(&mut json)?;
    let file: TreeFile = serde_json::from_slice(&json)?;
    let bad = |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    if file.format_version != TREE_FORMAT {
        return Err(bad(&"it has another format"));
    }
    let mut tree = Tree::default();
    for (path, entry) in file.files {
        let content = entry.content().ok_or_else(|| bad(&"an entry has no digest"))?;
        let path: RepoPath = path.parse().map_err(|error: crate::names::BadName| bad(&error))?;
        tree.insert(path, content).map_err(|error| bad(&error))?;
    }
    Ok(tree)
}

/// All refs below a `refs` folder. What is no ref is passed over.
pub(super) fn read_refs(refs: &Path) -> Refs {
    let mut found = Refs::new();
    let mut folders = vec![(refs.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten().take(limits::TREE_ENTRIES_MAX) {
            let Some(name) = entry.file_name().to_str().map(|name| format!("{prefix}{name}")) else { continue };
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && name.len() <= limits::REVISION_BYTES_MAX => {
                    folders.push((entry.path(), format!("{name}/")));
                }
                Ok(_) => {
                    if let (Ok(revision), Some((commit, _))) = (name.parse(), read_ref(&entry.path())) {
                        found.insert(revision, commit);
                    }
                }
                Err(_) => {}
            }
        }
    }
    found
}
