//! Trees: what a commit holds, path by path.
//!
//! Knows paths, digests and sizes. Does not know who said so: the Hub, a paired peer or the cache.
//! Invariant: at most `TREE_ENTRIES_MAX` entries, and no two with one path.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::limits;
use crate::names::RepoPath;

/// What a file is: its identity and its size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Content {
    pub digest: Digest,
    pub size: u64,
}

/// All files of one commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    files: BTreeMap<RepoPath, Content>,
}

/// A tree, or a file in it, is larger than hffs works with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    #[error("the repo has more than {} files", limits::TREE_ENTRIES_MAX)]
    Files,
    #[error("`{path}` is larger than {} bytes", limits::FILE_BYTES_MAX)]
    File { path: RepoPath },
}

impl Tree {
    /// Adds a file, or replaces what stood at its path.
    pub fn insert(&mut self, path: RepoPath, content: Content) -> Result<(), TooLarge> {
        if content.size > limits::FILE_BYTES_MAX {
            return Err(TooLarge::File { path });
        }
        if self.files.len() >= limits::TREE_ENTRIES_MAX && !self.files.contains_key(&path) {
            return Err(TooLarge::Files);
        }
        self.files.insert(path, content);
        Ok(())
    }

    pub fn get(&self, path: &RepoPath) -> Option<Content> {
        self.files.get(path).copied()
    }

    /// The files by path.
    pub fn iter(&self) -> impl Iterator<Item = (&RepoPath, Content)> {
        self.files.iter().map(|(path, content)| (path, *content))
    }

    pub fn len(&self) -> usize {
        self.files.len()
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}
