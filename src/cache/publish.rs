//! Giving content its final names: the blob, and the path in a snapshot.
//!
//! Knows how a sealed file, or content that is here already, becomes a file of a commit. Does not know
//! where the bytes came from.
//! Invariant: a blob appears by one rename of a file that was verified as a whole, and a link in a
//! snapshot only after its blob.
//!
//! No name is ever opened for writing: a blob may be a link into a store that other repos share, or
//! have a second name in another repo, and others may be reading it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::folder::{Folder, Symlinks, below};
use super::ledger::{Line, Stamp};
use super::view::real_len;
use super::{Blob, Cache, Error, Held};
use crate::digest::{Hasher, Verified};
use crate::disk::{self, Buffer};
use crate::names::{Commit, Repo, RepoPath};
use crate::piece::Cut;
use crate::sealed::SealedFile;
use crate::tree::Content;

/// Where one file of one commit goes.
struct Goal<'a> {
    folder: Folder<'a>,
    repo: &'a Repo,
    commit: &'a Commit,
    path: &'a RepoPath,
}

impl Goal<'_> {
    fn has_own_name(&self, shown: &Path) -> Result<(), Error> {
        match self.folder.other_spelling(&self.folder.snapshot(self.commit), shown) {
            Some(there) => Err(Error::OneName { path: shown.to_owned(), there }),
            None => Ok(()),
        }
    }
}

impl Cache {
    /// Gives a sealed file its names, and says where in the snapshot it is now.
    pub fn publish(
        &self,
        repo: &Repo,
        commit: &Commit,
        path: &RepoPath,
        sealed: Verified<SealedFile>,
    ) -> Result<PathBuf, Error> {
        let sealed = sealed.into_inner();
        let goal = Goal { folder: Folder::new(&self.0, repo), repo, commit, path };
        let content = sealed.content;
        let place = self.place(&goal, &content, |place| take_in(&goal.folder, &sealed, place))?;
        // The sealed file itself is left over when a good blob was there already.
        for scrap in sealed.scraps.iter().chain([&sealed.path]) {
            let _ = disk::remove_file(scrap);
        }
        if let Err(error) = self.save_piece_list(&content, &sealed.pieces) {
            warn!(%error, "could not keep a piece list");
        }
        Ok(place)
    }

    /// Makes content that is here already a file of a commit as well, without a second copy where the
    /// file system allows it.
    pub fn link(&self, repo: &Repo, commit: &Commit, path: &RepoPath, blob: &Blob) -> Result<PathBuf, Error> {
        let file = blob.open()?;
        let goal = Goal { folder: Folder::new(&self.0, repo), repo, commit, path };
        self.place(&goal, &blob.content(), |place| second_name(&goal.folder, blob, &file, place))
    }

    /// Fails for a path whose place is that of another, because only their letters tell them apart and this file
    /// system does not.
    pub fn has_own_name(&self, repo: &Repo, commit: &Commit, path: &RepoPath) -> Result<(), Error> {
        let goal = Goal { folder: Folder::new(&self.0, repo), repo, commit, path };
        goal.has_own_name(&goal.folder.file(commit, path))
    }

    /// Puts content at its place by `bring`, unless it is there already, and shows it in the snapshot.
    fn place(
        &self,
        goal: &Goal<'_>,
        content: &Content,
        bring: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        let etag = content.digest.to_string();
        let shown = goal.folder.file(goal.commit, goal.path);
        // Before a folder is made, which may itself be another's but for its letters.
        goal.has_own_name(&shown)?;
        goal.folder.make_snapshot_folder(goal.commit, goal.path)?;
        let had = real_len(&shown) == Some(content.size);
        let place = match goal.folder.symlinks() {
            Symlinks::Yes => goal.folder.make(["blobs"])?.join(&etag),
            Symlinks::No => shown.clone(),
        };
        let lock = goal.folder.lock(&etag);
        let mut lines = Vec::new();
        if !matches!(self.0.at(content, place.clone()), Some(Held::Verified(_))) {
            bring(&place)?;
            let meta = fs::metadata(&place).map_err(|error| Error::at("read", &place, error))?;
            lines.push(Line::Verified { digest: content.digest, stamp: Stamp::of(&meta), path: place.clone() });
        }
        if place != shown {
            show(goal, &etag, &shown)?;
        }
        // Others believe the note that a file is missing before they look for it.
        let _ = fs::remove_file(goal.folder.missing(goal.commit, goal.path));
        drop(lock);
        if Cut::new(content.size).count() > 1 {
            self.0.sync_names();
        }
        let (repo, commit, path) = (goal.repo.clone(), goal.commit.clone(), goal.path.clone());
        self.0.index().add(&repo, content.digest, place);
        // What another tool had added before is not ours to remove at an uninstall.
        if !had {
            lines.push(Line::Added { repo, commit, path, digest: content.digest });
        }
        self.0.remember(&lines);
        Ok(shown)
    }
}

/// Renames the sealed file to its place.
fn take_in(folder: &Folder<'_>, sealed: &SealedFile, place: &Path) -> Result<(), Error> {
    let changed = || Error::Changed { path: sealed.path.clone() };
    let named = fs::symlink_metadata(&sealed.path).map_err(|_| changed())?;
    let open = sealed.file.metadata().map_err(|error| Error::at("read", &sealed.path, error))?;
    // What has the name must be what was hashed.
    if !named.is_file() || Stamp::of(&named) != Stamp::of(&open) {
        return Err(changed());
    }
    match folder.rename(&sealed.path, place) {
        // Somebody moved a repo's folder to another disk.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::CrossesDevices => {
            let mut file = File::open(&sealed.path).map_err(|_| changed())?;
            copy(folder, &mut file, &sealed.content, place)?;
            disk::remove_file(&sealed.path).map_err(|error| Error::at("remove", &sealed.path, error))
        }
        result => result,
    }
}

/// Gives the content of a verified file a second name: a hard link, or else a copy. Never a symlink
/// into another repo, which would dangle once that one is removed.
fn second_name(folder: &Folder<'_>, blob: &Blob, file: &File, place: &Path) -> Result<(), Error> {
    // A link to a link would be one more symlink, so the way is followed to its end.
    if let Ok(real) = fs::canonicalize(blob.path())
        && let Ok(temp) = folder.temp(|path| fs::hard_link(&real, path))
        && fs::symlink_metadata(temp.path()).is_ok_and(|meta| Stamp::of(&meta) == blob.stamp())
    {
        return folder.settle(temp, place);
    }
    let mut file = file.try_clone().map_err(|error| Error::at("open", blob.path(), error))?;
    copy(folder, &mut file, &blob.content(), place)
}

/// Copies content to its place and verifies it on the way, for a copy is new bytes.
fn copy(folder: &Folder<'_>, from: &mut File, content: &Content, place: &Path) -> Result<(), Error> {
    let mut temp = folder.temp(|path| File::create_new(path))?;
    let failed = |error| Error::at("copy to", place, error);
    disk::reserve(temp.as_file(), &folder.own(), content.size).map_err(failed)?;
    let mut hasher = Hasher::new(content.digest, content.size);
    let mut buffer = Buffer::new();
    let mut left = content.size;
    while left > 0 {
        let bytes = buffer.up_to(left);
        from.read_exact(bytes).map_err(failed)?;
        hasher.update(bytes);
        temp.write_all(bytes).map_err(failed)?;
        left -= bytes.len() as u64;
    }
    temp.as_file().sync_all().map_err(failed)?;
    match hasher.verify(temp) {
        Ok(temp) => folder.settle(temp.into_inner(), place),
        Err(mismatch) => Err(Error::Damaged { path: place.to_owned(), found: mismatch.found }),
    }
}

/// Puts the relative link to a blob into the snapshot.
fn show(goal: &Goal<'_>, etag: &str, shown: &Path) -> Result<(), Error> {
    // Out of the path's folders, the commit and `snapshots`.
    let up = std::iter::repeat_n("..", goal.path.parts().count() + 1);
    let target = below(PathBuf::new(), up.chain(["blobs", etag]));
    if fs::read_link(shown).is_ok_and(|there| there == target) {
        return Ok(());
    }
    goal.folder.put_symlink(shown, &target)
}
