//! Files as Windows has them.
//!
//! Knows what only Windows does: attributes, files that are held open, links that need a right. Does
//! not know why anybody needs them; `unix.rs` is its twin.
//! Invariant: a wait for another process ends after `HELD_FILE_WAIT`.
//!
//! Virus scanners, indexers and readers hold files open for moments, and meanwhile Windows refuses to
//! rename or remove them: what failed for that is tried again before anybody is told.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::windows::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use winapi_util::{Handle, file};

use super::Seen;
use crate::limits;

/// What Windows answers when a file is open elsewhere, or about to go
/// (<https://learn.microsoft.com/windows/win32/debug/system-error-codes>).
const SHARING_VIOLATION: i32 = 32;
const LOCK_VIOLATION: i32 = 33;
const DELETE_PENDING: i32 = 303;
const USER_MAPPED_FILE: i32 = 1224;

/// What is the same for two names of one file: its volume and its number there, or else its only name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    Number(u64, u64),
    Name(PathBuf),
}

/// What no name may hold here, of what names from outside may
/// (<https://learn.microsoft.com/windows/win32/fileio/naming-a-file>).
pub const REFUSED_IN_NAMES: &[char] = &['<', '>', '"', '|', '?', '*'];

/// Reads at most `bytes.len()` bytes at `offset`.
pub fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    file.seek_read(bytes, offset)
}

/// Writes some of `bytes` at `offset`.
pub fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    file.seek_write(bytes, offset)
}

/// Makes a symlink to a file at `path` that says `target`, where the user may.
///
/// It is looked at afterwards: a system that only says that it made one would otherwise be believed.
pub fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, path)?;
    match fs::read_link(path) {
        Ok(_) => Ok(()),
        Err(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Gives a file another name, in place of whatever file has that.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(to).is_ok_and(|meta| meta.is_dir()) {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    patiently(|| fs::rename(from, to).inspect_err(|_| make_writable(to)))
}

/// Takes a name away, whatever rights the file has.
pub fn remove_file(path: &Path) -> io::Result<()> {
    patiently(|| {
        fs::remove_file(path).inspect_err(|error| {
            if error.kind() == io::ErrorKind::PermissionDenied {
                make_writable(path);
            }
        })
    })
}

/// Lets a read-only file be replaced or removed: here that is a right on the file, not on its folder. What a link
/// leads to is neither.
fn make_writable(path: &Path) {
    if let Ok(meta) = fs::symlink_metadata(path)
        && meta.is_file()
        && meta.permissions().readonly()
    {
        let mut rights = meta.permissions();
        #[allow(clippy::permissions_set_readonly_false, reason = "the attribute of Windows opens nothing to others")]
        rights.set_readonly(false);
        // What comes of it shows at the next attempt.
        let _ = fs::set_permissions(path, rights);
    }
}

/// Does what fails as long as another process is in the way, until it is gone or it took too long.
pub fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            // A name that is about to go, or one that is read-only, is called forbidden too.
            Err(error)
                if (is_held(&error) || error.kind() == io::ErrorKind::PermissionDenied)
                    && start.elapsed() < limits::HELD_FILE_WAIT =>
            {
                std::thread::sleep(limits::LOCK_RETRY);
            }
            result => return result,
        }
    }
}

/// Whether an error says that another program has the file open.
pub fn is_held(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(SHARING_VIOLATION | LOCK_VIOLATION | DELETE_PENDING | USER_MAPPED_FILE))
}

/// How many names the file has: one on volumes that do not tell, which mostly know no second ones.
pub fn names(path: &Path) -> io::Result<u64> {
    let named = Handle::from_path_any(path)?;
    Ok(file::information(named).map_or(1, |about| about.number_of_links()))
}

/// Tells a file from one that took its name later: the time at which it was made, for its number is
/// told only of open files. Windows lets a file that quickly follows another of its name inherit that.
pub fn number(meta: &Metadata) -> u64 {
    meta.creation_time()
}

/// Tells the file at a path from all others; `meta` is what is known of it.
pub fn identity(path: &Path, _: &Metadata) -> Identity {
    let about = Handle::from_path_any(path).and_then(file::information);
    about.map_or_else(
        |_| Identity::Name(path.to_owned()),
        |about| Identity::Number(about.volume_serial_number(), about.file_index()),
    )
}

/// Whether a path still leads to the file that is open; where the volume does not tell, it is taken to.
pub fn is_same(open: &File, path: &Path) -> bool {
    let number = |about: file::Information| (about.volume_serial_number(), about.file_index());
    let named = match Handle::from_path_any(path) {
        Ok(named) => named,
        Err(error) => return error.kind() != io::ErrorKind::NotFound,
    };
    match (file::information(open), file::information(named)) {
        (Ok(open), Ok(named)) => number(open) == number(named),
        _ => true,
    }
}

/// Lets a file that is made be for its owner only: in the user's own folders it is so by inheritance.
pub fn owner_only(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// Lets only its owner enter a folder: see `owner_only`.
pub fn close_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Whether others than its owner may do anything with a file: see `owner_only`.
pub fn is_open_to_others(_: &File) -> io::Result<bool> {
    Ok(false)
}

/// Makes what was created, renamed or removed in a folder durable: NTFS journals its folders, and
/// opens none as a file.
pub fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// A folder in which many names are looked at, each by its whole path: here no call takes less.
#[derive(Debug)]
pub struct Lookout {
    path: PathBuf,
}

impl Lookout {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file at a relative path, at the end of all links; `None` when there is none.
    pub fn file(&self, name: &str) -> Option<Seen> {
        let path = self.path.join(name);
        let meta = fs::metadata(&path).ok().filter(Metadata::is_file)?;
        Some(Seen { len: meta.len(), id: identity(&path, &meta) })
    }
}

pub(super) fn is_in_memory(_: &File) -> bool {
    false
}
