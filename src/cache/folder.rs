//! One repo's folder: where things lie in it, and how they get there.
//!
//! Knows the layout of `models--org--name/` and how to put a file, a link or a name in place by one
//! rename. Does not know what the files mean.
//! Invariant: temporary names exist only in `.hffs`, because one in `refs` or `snapshots` makes
//! `huggingface_hub` hide the whole repo.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use tempfile::{Builder, NamedTempFile};

use super::{Error, Room};
use crate::disk::{self, Letters};
use crate::limits;
use crate::names::{Commit, Repo, RepoPath, Revision};

const OWN: &str = ".hffs";
const TEMP_PREFIX: &str = "new-";

/// Whether a file system has symlinks. Windows without its developer mode has none, for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Symlinks {
    Yes,
    No,
}

/// The folder of one repo.
pub(super) struct Folder<'a> {
    room: &'a Room,
    name: String,
    path: PathBuf,
}

impl<'a> Folder<'a> {
    pub(super) fn new(room: &'a Room, repo: &Repo) -> Self {
        let name = repo.folder();
        Self { path: room.root.join(&name), room, name }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }

    pub(super) fn refs(&self) -> PathBuf {
        self.path.join("refs")
    }

    pub(super) fn ref_of(&self, revision: &Revision) -> PathBuf {
        below(self.refs(), revision.as_str().split('/'))
    }

    pub(super) fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    pub(super) fn snapshot(&self, commit: &Commit) -> PathBuf {
        self.snapshots().join(commit.as_str())
    }

    pub(super) fn file(&self, commit: &Commit, path: &RepoPath) -> PathBuf {
        below(self.snapshot(commit), path.parts())
    }

    pub(super) fn tree(&self, commit: &Commit) -> PathBuf {
        self.path.join("trees").join(format!("{commit}.json"))
    }

    pub(super) fn no_exist(&self, commit: &Commit) -> PathBuf {
        self.path.join(".no_exist").join(commit.as_str())
    }

    /// The note that a commit has no such file.
    pub(super) fn missing(&self, commit: &Commit, path: &RepoPath) -> PathBuf {
        below(self.no_exist(commit), path.parts())
    }

    pub(super) fn own(&self) -> PathBuf {
        self.path.join(OWN)
    }

    /// Makes a folder in this one, by its parts.
    pub(super) fn make<'b>(&'b self, parts: impl IntoIterator<Item = &'b str>) -> Result<PathBuf, Error> {
        self.room.make_folders(std::iter::once(self.name.as_str()).chain(parts))
    }

    /// Makes the folder that a snapshot's file lies in.
    pub(super) fn make_snapshot_folder(&self, commit: &Commit, path: &RepoPath) -> Result<PathBuf, Error> {
        let parents = path.parts().count() - 1;
        self.make(["snapshots", commit.as_str()].into_iter().chain(path.parts().take(parents)))
    }

    /// Whether the folder is there, and it and the folders `parts` in it are no symlinks: only then is
    /// anything removed from it.
    pub(super) fn is_real(&self, parts: &[&str]) -> bool {
        let mut path = self.path.clone();
        std::iter::once("").chain(parts.iter().copied()).all(|part| {
            if !part.is_empty() {
                path.push(part);
            }
            fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir())
        })
    }

    /// Puts `bytes` at `place`, durably, in place of whatever file is there; with this time of its last
    /// change, or that of now.
    pub(super) fn put(&self, place: &Path, bytes: &[u8], time: Option<SystemTime>) -> Result<(), Error> {
        let mut temp = self.temp(|path| File::create_new(path))?;
        let mut write = || {
            temp.write_all(bytes)?;
            if let Some(time) = time {
                // Some network file systems refuse this, and what is written counts more than when.
                let _ = temp.as_file().set_modified(time);
            }
            temp.as_file().sync_all()
        };
        write().map_err(|error| Error::at("write", temp.path(), error))?;
        self.settle(temp, place)
    }

    /// Puts a symlink to `target` at `place`, in place of whatever file is there.
    pub(super) fn put_symlink(&self, place: &Path, target: &Path) -> Result<(), Error> {
        // Where nothing is in the way, making it is as atomic as renaming it.
        if disk::symlink(target, place).is_ok() {
            self.named(place);
            return Ok(());
        }
        let temp = self.temp(|path| disk::symlink(target, path))?;
        self.settle(temp, place)
    }

    /// Makes something under a temporary name; `make` must fail where the name is taken.
    pub(super) fn temp<R>(&self, mut make: impl FnMut(&Path) -> io::Result<R>) -> Result<NamedTempFile<R>, Error> {
        let folder = self.make([OWN])?;
        Builder::new()
            .prefix(TEMP_PREFIX)
            .make_in(&folder, |path| make(path))
            .map_err(|error| Error::at("create a file in", &folder, error))
    }

    /// Gives what has a temporary name its final one.
    pub(super) fn settle<R>(&self, temp: NamedTempFile<R>, place: &Path) -> Result<(), Error> {
        disk::settle(temp, place).map_err(|error| refused(place, error))?;
        self.named(place);
        Ok(())
    }

    /// Renames a file to `place`, in place of whatever file is there.
    pub(super) fn rename(&self, from: &Path, place: &Path) -> Result<(), Error> {
        disk::rename(from, place).map_err(|error| refused(place, error))?;
        self.named(place);
        Ok(())
    }

    fn named(&self, place: &Path) {
        if let Some(folder) = place.parent() {
            self.room.name_changed_in(folder);
        }
    }

    /// Whether symlinks work here: tried once, then remembered.
    pub(super) fn symlinks(&self) -> Symlinks {
        *self.room.symlinks.get_or_init(|| {
            let works = self.temp(|path| disk::symlink(Path::new("nowhere"), path)).is_ok();
            if works { Symlinks::Yes } else { Symlinks::No }
        })
    }

    /// What stands in the way of a name, where large and small letters are alike and it is written otherwise.
    pub(super) fn other_spelling(&self, base: &Path, place: &Path) -> Option<PathBuf> {
        match self.room.letters() {
            Letters::Alike => disk::other_spelling(base, place),
            Letters::Different => None,
        }
    }

    /// Takes the lock that other tools hold while they write this blob, for as long as the file is open.
    /// That is politeness: nothing here depends on it. A lock file that is not there nobody holds, and
    /// making one would cost more than the rest of a small file's publish.
    pub(super) fn lock(&self, etag: &str) -> Option<File> {
        let path = self.room.root.join(".locks").join(&self.name).join(format!("{etag}.lock"));
        let file = File::options().read(true).append(true).open(path).ok()?;
        super::lock_politely(&file);
        Some(file)
    }

    /// Removes temporary names whose makers died.
    pub(super) fn sweep(&self) {
        let Ok(entries) = fs::read_dir(self.own()) else { return };
        for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(TEMP_PREFIX)) {
            let age =
                entry.metadata().ok().and_then(|meta| SystemTime::now().duration_since(meta.modified().ok()?).ok());
            if age.is_some_and(|age| age > limits::STRAY_AGE) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// A rename that failed because of what stands at its end.
fn refused(place: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory | io::ErrorKind::DirectoryNotEmpty => {
            Error::InTheWay { path: place.to_owned() }
        }
        _ => Error::at("put into place", place, error),
    }
}

/// A path with the separators of this system between all its parts: Windows follows no link that is
/// written with others, and people read no path that mixes them.
pub(super) fn below<'a>(folder: PathBuf, parts: impl Iterator<Item = &'a str>) -> PathBuf {
    parts.fold(folder, |path, part| path.join(part))
}

/// Where the symlink at `path` points, one hop and by its words alone: what lies there is not asked.
pub(super) fn first_hop(path: &Path) -> Option<PathBuf> {
    let target = fs::read_link(path).ok()?;
    let mut hop = PathBuf::new();
    for component in path.parent()?.join(target).components() {
        match component {
            Component::ParentDir => {
                hop.pop();
            }
            Component::CurDir => {}
            other => hop.push(other),
        }
    }
    Some(hop)
}
