//! What the cache holds, as people ask: repos, their files, and where a file lies.
//!
//! Knows how to read snapshots. Changes nothing.
//! Invariant: what is shown resolved to a real file when it was looked at; links to nothing are passed
//! over, and so are names that hffs would not write.

use std::cell::LazyCell;
use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::folder::{Folder, first_hop};
use super::{Cache, Held, Refs, trees};
use crate::digest::Digest;
use crate::disk::{Identity, Lookout};
use crate::limits;
use crate::names::{Commit, Repo, RepoPath};
use crate::tree::{Content, Tree};

/// A repo in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoView {
    pub repo: Repo,
    pub commits: Vec<Commit>,
    pub refs: Refs,
    /// The files of all its snapshots together.
    pub files: usize,
    /// The bytes of its blobs, each counted once.
    pub size: u64,
}

/// A file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileView {
    pub path: RepoPath,
    pub commit: Commit,
    /// The name of its blob, or what the commit's tree says where the layout has no blobs.
    pub etag: Option<String>,
    /// In bytes.
    pub size: u64,
    /// Its absolute path in the snapshot.
    pub local_path: PathBuf,
}

impl FileView {
    /// What the file is, going by its etag; whether that is true was not looked at.
    pub fn content(&self) -> Option<Content> {
        Some(Content { digest: self.etag.as_ref()?.parse().ok()?, size: self.size })
    }
}

/// A file's place in a snapshot, as it was found there.
pub(super) struct Entry {
    pub(super) path: RepoPath,
    pub(super) at: PathBuf,
    pub(super) kind: Kind,
}

/// How a snapshot has a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Link,
    /// The file itself, as it is where there are no symlinks.
    File,
}

impl Entry {
    /// The file that the entry stands for, one hop from here: its blob, or itself.
    pub(super) fn hop(&self) -> PathBuf {
        match self.kind {
            Kind::Link => first_hop(&self.at).unwrap_or_default(),
            Kind::File => self.at.clone(),
        }
    }

    /// The name of the blob, if this is a link straight into the repo's `blobs`.
    pub(super) fn blob(&self, blobs: &Path) -> Option<String> {
        let hop = self.hop();
        let straight = self.kind == Kind::Link && hop.parent() == Some(blobs);
        hop.file_name().filter(|_| straight)?.to_str().map(str::to_owned)
    }
}

impl Cache {
    /// The repos with at least one snapshot, by name.
    pub fn repos(&self) -> Vec<RepoView> {
        self.repos_that(|_| true)
    }

    /// Those of them that are wanted; the files of others are not looked at.
    pub fn repos_that(&self, are_wanted: impl Fn(&Repo) -> bool) -> Vec<RepoView> {
        let mut repos: Vec<Repo> = repos_in(&self.0.root).into_iter().filter(are_wanted).collect();
        repos.sort();
        let mut views = Vec::new();
        let mut snapshots = Vec::new();
        for repo in repos {
            let folder = Folder::new(&self.0, &repo);
            let commits = commits(&folder);
            if commits.is_empty() {
                continue;
            }
            snapshots.extend(commits.iter().map(|commit| (views.len(), folder.snapshot(commit))));
            let refs = trees::read_refs(&folder.refs());
            views.push(RepoView { repo, commits, refs, files: 0, size: 0 });
        }
        let mut counted = HashSet::new();
        for (of, identity, len) in look_at(&snapshots) {
            let Some(view) = views.get_mut(of) else { continue };
            view.files += 1;
            if counted.insert((of, identity)) {
                view.size += len;
            }
        }
        views
    }

    /// The files of all snapshots of a repo, by commit and path.
    pub fn files(&self, repo: &Repo) -> Vec<FileView> {
        let folder = Folder::new(&self.0, repo);
        let blobs = folder.blobs();
        let mut files = Vec::new();
        for commit in commits(&folder) {
            // Asked only in a layout without links; then each file of the snapshot needs it.
            let says = LazyCell::new(|| self.says(repo, &commit));
            for entry in entries(&folder, &commit) {
                let Some(size) = real_len(&entry.at) else { continue };
                let etag = match entry.kind {
                    Kind::Link => entry.blob(&blobs),
                    Kind::File => says(&entry.path).map(|digest| digest.to_string()),
                };
                files.push(FileView { path: entry.path, commit: commit.clone(), etag, size, local_path: entry.at });
            }
        }
        files
    }

    /// What the files of a commit are, where no link tells it: the commit's tree knows, and of what hffs
    /// added itself so does the ledger.
    pub(super) fn says(&self, repo: &Repo, commit: &Commit) -> impl Fn(&RepoPath) -> Option<Digest> + use<> {
        let tree = self.read_tree(repo, commit).unwrap_or_default();
        let added = self.0.ledger.added(repo);
        let commit = commit.clone();
        move |path| {
            let listed = tree.get(path).map(|content| content.digest);
            listed.or_else(|| added.get(&(commit.clone(), path.clone())).copied())
        }
    }

    /// Which of these files of a commit are here, in their order: the absolute paths in the snapshot.
    ///
    /// A file counts when it is that content as far as is known: it has the size, nobody found it damaged,
    /// and its blob's name says so. A file without a blob has no name; then it was verified as this
    /// content, or the commit's tree says so.
    pub fn here(&self, repo: &Repo, commit: &Commit, files: &[(RepoPath, Content)]) -> Vec<Option<PathBuf>> {
        let folder = Folder::new(&self.0, repo);
        let blobs = folder.blobs();
        let mut tree: Option<Tree> = None;
        let mut one = |path: &RepoPath, content: &Content| {
            let at = folder.file(commit, path);
            let kind = fs::symlink_metadata(&at).ok()?.file_type();
            let kind = if kind.is_symlink() { Kind::Link } else { Kind::File };
            let held = self.0.at(content, at.clone())?;
            let entry = Entry { path: path.clone(), at, kind };
            let is_it = match kind {
                Kind::Link => entry.blob(&blobs)?.parse() == Ok(content.digest),
                Kind::File if matches!(held, Held::Verified(_)) => true,
                Kind::File => {
                    let tree = tree.get_or_insert_with(|| self.read_tree(repo, commit).unwrap_or_default());
                    tree.get(path) == Some(*content)
                }
            };
            is_it.then_some(entry.at)
        };
        files.iter().map(|(path, content)| one(path, content)).collect()
    }
}

/// The size of the file that a path resolves to.
pub(super) fn real_len(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(Metadata::is_file).map(|meta| meta.len())
}

/// Looks at the files of snapshots: what each is, and how large, beside the number of its snapshot's repo.
fn look_at(snapshots: &[(usize, PathBuf)]) -> Vec<(usize, Identity, u64)> {
    let listed =
        on_all_cores(snapshots, |(of, snapshot)| (*of, Lookout::new(snapshot.clone()), in_any_order(snapshot.clone())));
    let parts: Vec<(usize, &Lookout, &[Entry])> = listed
        .iter()
        .flat_map(|(of, lookout, entries)| entries.chunks(limits::LOOKS_AT_ONCE).map(move |part| (*of, lookout, part)))
        .collect();
    let seen = on_all_cores(&parts, |(of, lookout, entries)| {
        let one = |entry: &Entry| {
            let file = lookout.file(entry.path.as_str())?;
            Some((*of, file.id, file.len))
        };
        entries.iter().filter_map(one).collect::<Vec<_>>()
    });
    seen.into_iter().flatten().collect()
}

/// Does independent work on all cores, in any order. A large cache is some ten thousand calls of a few
/// microseconds each, and whoever lists it waits for them.
fn on_all_cores<J: Sync, T: Send>(jobs: &[J], work: impl Fn(&J) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let run = || std::iter::from_fn(|| jobs.get(next.fetch_add(1, Ordering::Relaxed)).map(&work)).collect::<Vec<T>>();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..cores.min(jobs.len())).map(|_| scope.spawn(run)).collect();
        let mut done = run();
        // What a thread did that panicked is missing, and nothing else.
        done.extend(others.into_iter().filter_map(|other| other.join().ok()).flatten());
        done
    })
}

/// The repos that have a folder.
pub(super) fn repos_in(root: &Path) -> Vec<Repo> {
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    entries.flatten().filter_map(|entry| Repo::from_folder(entry.file_name().to_str()?)).collect()
}

/// The commits that have a snapshot folder.
pub(super) fn commits(folder: &Folder<'_>) -> Vec<Commit> {
    let Ok(entries) = fs::read_dir(folder.snapshots()) else { return Vec::new() };
    let mut commits: Vec<Commit> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    commits.sort();
    commits
}

/// What lies in a snapshot, by path, links to nothing included. Links to folders are not followed.
pub(super) fn entries(folder: &Folder<'_>, commit: &Commit) -> Vec<Entry> {
    let mut found = in_any_order(folder.snapshot(commit));
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn in_any_order(snapshot: PathBuf) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut folders = vec![(snapshot, String::new())];
    while let Some((at, prefix)) = folders.pop() {
        let Ok(entries) = fs::read_dir(&at) else { continue };
        for entry in entries.flatten() {
            let Some(path) = entry.file_name().to_str().and_then(|name| format!("{prefix}{name}").parse().ok()) else {
                continue;
            };
            let path: RepoPath = path;
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push((entry.path(), format!("{path}/"))),
                Ok(kind) if kind.is_symlink() => found.push(Entry { path, at: entry.path(), kind: Kind::Link }),
                Ok(kind) if kind.is_file() => found.push(Entry { path, at: entry.path(), kind: Kind::File }),
                _ => {}
            }
            if found.len() >= limits::TREE_ENTRIES_MAX {
                break;
            }
        }
    }
    found
}
