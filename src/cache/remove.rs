//! Taking files out of the cache again.
//!
//! Knows which blobs are still needed. Does not know why something should go.
//! Invariant: a blob goes only when no snapshot of its repo links to it, a ref never outlives the
//! snapshot that it names, and unfinished files and locks of other tools are left alone.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tracing::debug;

use super::folder::Folder;
use super::ledger::Line;
use super::view::{self, Entry, Kind};
use super::{Cache, Error, trees};
use crate::digest::Digest;
use crate::disk;
use crate::names::{Commit, Repo, RepoPath, Revision};

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// The paths in snapshots that are gone.
    pub removed: Vec<PathBuf>,
    /// The bytes that the disk has back.
    pub freed: u64,
}

/// A repo's part of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    pub repo: Repo,
    pub files: usize,
    /// The bytes of its blobs, each counted once.
    pub bytes: u64,
}

/// What an uninstall would remove, and what it would leave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What hffs added.
    pub goes: Vec<Holding>,
    /// What other tools put there.
    pub stays: Vec<Holding>,
}

/// The files of each commit.
type Files = BTreeMap<Commit, Vec<Entry>>;

impl Cache {
    /// Removes files of a repo: those `paths`, or all; of the commit that `revision` means, or of all.
    /// Nothing is removed if anything that was named is not there.
    pub fn remove(
        &self,
        repo: &Repo,
        paths: Option<&[RepoPath]>,
        revision: Option<&Revision>,
    ) -> Result<Removed, Error> {
        let folder = Folder::new(&self.0, repo);
        if !folder.is_real(&["snapshots"]) || view::commits(&folder).is_empty() {
            return Err(Error::NoRepo { repo: repo.clone() });
        }
        let mut files = all_files(&folder);
        if let Some(revision) = revision {
            let commit = self.commit_of(repo, revision).filter(|commit| files.contains_key(commit));
            let Some(commit) = commit else {
                return Err(Error::NoRevision { repo: repo.clone(), revision: revision.clone() });
            };
            files.retain(|of, _| *of == commit);
        }
        if let Some(paths) = paths {
            let known: HashSet<&RepoPath> = files.values().flatten().map(|entry| &entry.path).collect();
            if let Some(path) = paths.iter().find(|path| !known.contains(path)) {
                return Err(Error::NoFile { repo: repo.clone(), path: path.clone() });
            }
            let named: HashSet<&RepoPath> = paths.iter().collect();
            files.values_mut().for_each(|entries| entries.retain(|entry| named.contains(&entry.path)));
            files.retain(|_, entries| !entries.is_empty());
        }
        self.remove_files(repo, &folder, files)
    }

    fn commit_of(&self, repo: &Repo, revision: &Revision) -> Option<Commit> {
        revision.as_commit().or_else(|| self.ref_of(repo, revision).map(|(commit, _)| commit))
    }

    /// What `uninstall_models` would remove, and what it would leave.
    pub fn uninstall_plan(&self) -> Plan {
        let mut plan = Plan::default();
        let mut repos = view::repos_in(&self.0.root);
        repos.sort();
        for repo in repos {
            let folder = Folder::new(&self.0, &repo);
            let added = self.0.ledger.added(&repo);
            let (goes, stays): (Vec<_>, Vec<_>) = all_files(&folder)
                .into_iter()
                .flat_map(|(commit, entries)| entries.into_iter().map(move |entry| (commit.clone(), entry)))
                .partition(|(commit, entry)| added.contains_key(&(commit.clone(), entry.path.clone())));
            for (entries, list) in [(goes, &mut plan.goes), (stays, &mut plan.stays)] {
                if !entries.is_empty() {
                    let hops: BTreeSet<PathBuf> = entries.iter().map(|(_, entry)| entry.hop()).collect();
                    let bytes = hops.iter().filter_map(|hop| view::real_len(hop)).sum();
                    list.push(Holding { repo: repo.clone(), files: entries.len(), bytes });
                }
            }
        }
        plan
    }

    /// Removes the files that hffs added, and nothing that another tool put there.
    pub fn uninstall_models(&self) -> Result<Removed, Error> {
        let mut total = Removed::default();
        for repo in view::repos_in(&self.0.root) {
            let folder = Folder::new(&self.0, &repo);
            let added = self.0.ledger.added(&repo);
            if added.is_empty() || !folder.is_real(&["snapshots"]) {
                continue;
            }
            let mut files = all_files(&folder);
            for (commit, entries) in &mut files {
                entries.retain(|entry| added.contains_key(&(commit.clone(), entry.path.clone())));
            }
            files.retain(|_, entries| !entries.is_empty());
            let Removed { removed, freed } = self.remove_files(&repo, &folder, files)?;
            total.removed.extend(removed);
            total.freed += freed;
        }
        Ok(total)
    }

    fn remove_files(&self, repo: &Repo, folder: &Folder<'_>, files: Files) -> Result<Removed, Error> {
        let mut done = Removed::default();
        let mut lines = Vec::new();
        let mut blobs = BTreeSet::new();
        drop_refs(folder, &emptied(folder, &files))?;
        for (commit, entries) in &files {
            // Somebody may have put a symlink where the commit's folder was.
            if !folder.is_real(&["snapshots", commit.as_str()]) {
                return Err(Error::InTheWay { path: folder.snapshot(commit) });
            }
            for entry in entries {
                blobs.extend(entry.blob(&folder.blobs()));
                let freed = if entry.kind == Kind::File { freed_by(&entry.at) } else { 0 };
                remove_file(&entry.at)?;
                done.freed += freed;
                done.removed.push(entry.at.clone());
                let (repo, commit, path) = (repo.clone(), commit.clone(), entry.path.clone());
                lines.push(Line::Removed { repo, commit, path });
            }
            prune(&folder.snapshot(commit), entries.iter().filter_map(|entry| entry.at.parent()));
        }
        let rest = all_files(folder);
        for commit in files.keys().filter(|commit| rest.get(commit).is_none_or(Vec::is_empty)) {
            let _ = fs::remove_dir(folder.snapshot(commit));
            if folder.is_real(&["trees"]) {
                let _ = fs::remove_file(folder.tree(commit));
            }
            if folder.is_real(&[".no_exist"]) {
                let _ = fs::remove_dir_all(folder.no_exist(commit));
            }
        }
        if folder.is_real(&["blobs"]) {
            let needed: HashSet<String> =
                rest.values().flatten().filter_map(|entry| entry.blob(&folder.blobs())).collect();
            if view::commits(folder).is_empty() {
                blobs.extend(lone_blobs(folder));
            }
            for blob in blobs.difference(&needed.into_iter().collect()) {
                let path = folder.blobs().join(blob);
                let freed = freed_by(&path);
                remove_file(&path)?;
                done.freed += freed;
            }
        }
        if view::commits(folder).is_empty() {
            remove_empty_repo(folder);
        }
        self.0.remember(&lines);
        Ok(done)
    }
}

fn all_files(folder: &Folder<'_>) -> Files {
    view::commits(folder).into_iter().map(|commit| (commit.clone(), view::entries(folder, &commit))).collect()
}

/// The commits that have no file left once `files` are gone.
fn emptied(folder: &Folder<'_>, files: &Files) -> Vec<Commit> {
    let left = |commit: &Commit, going: &Vec<Entry>| view::entries(folder, commit).len() > going.len();
    files.iter().filter(|(commit, going)| !left(commit, going)).map(|(commit, _)| commit.clone()).collect()
}

/// Removes the refs to commits that are about to go: first, so that none ever names a snapshot that is
/// not there.
fn drop_refs(folder: &Folder<'_>, commits: &[Commit]) -> Result<(), Error> {
    if !folder.is_real(&["refs"]) {
        return Ok(());
    }
    let refs = folder.refs();
    for (revision, commit) in trees::read_refs(&refs) {
        if commits.contains(&commit) {
            let path = folder.ref_of(&revision);
            remove_file(&path)?;
            prune(&refs, path.parent());
        }
    }
    Ok(())
}

/// The blobs that are left in a repo without snapshots. Unfinished files of other tools have other names.
fn lone_blobs(folder: &Folder<'_>) -> Vec<String> {
    let entries = fs::read_dir(folder.blobs()).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.parse::<Digest>().is_ok()).collect()
}

/// Removes the folders of a repo without snapshots, as far as they are empty. If anything stays, so
/// does `snapshots`, without which `huggingface_hub` calls the cache corrupted.
fn remove_empty_repo(folder: &Folder<'_>) {
    for name in ["blobs", "refs", "trees", ".no_exist", ".hffs"] {
        let _ = fs::remove_dir(folder.path().join(name));
    }
    let left = fs::read_dir(folder.path()).map_or(0, |entries| entries.count());
    if left == 1 && fs::remove_dir(folder.snapshots()).is_ok() && fs::remove_dir(folder.path()).is_err() {
        // Something came in between; it needs its `snapshots` back.
        let _ = fs::create_dir(folder.snapshots());
    }
    debug!(repo = folder.name(), left, "removed the last snapshot");
}

/// Removes empty folders, from each of `from` up to but without `top`.
fn prune<'a>(top: &Path, from: impl IntoIterator<Item = &'a Path>) {
    let mut folders: BTreeSet<&Path> = BTreeSet::new();
    for folder in from {
        folders.extend(folder.ancestors().take_while(|folder| *folder != top && folder.starts_with(top)));
    }
    // Deeper folders sort behind those that hold them.
    for folder in folders.into_iter().rev() {
        let _ = fs::remove_dir(folder);
    }
}

/// The bytes that come back when this name goes: none if the file has another name elsewhere.
fn freed_by(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    if meta.is_file() && disk::names(path).is_ok_and(|names| names == 1) { meta.len() } else { 0 }
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match disk::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::at("remove", path, error)),
        _ => Ok(()),
    }
}
