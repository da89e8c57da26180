//! Files as Unix has them.
//!
//! Knows system calls that only Unix has. Does not know why anybody needs them; `windows.rs` is its twin.
//! Invariant: nothing here waits for other processes, because on Unix a name can be changed whoever
//! has the file open.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Seen;

/// What is the same for two names of one file, and for no two files.
pub type Identity = (u64, u64);

/// What no name may hold here, of what names from outside may.
pub const REFUSED_IN_NAMES: &[char] = &[];

/// Reads at most `bytes.len()` bytes at `offset`.
pub fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    file.read_at(bytes, offset)
}

/// Writes some of `bytes` at `offset`.
pub fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    file.write_at(bytes, offset)
}

/// Makes a symlink at `path` that says `target`.
pub fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Gives a file another name, in place of whatever file has that.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// Takes a name away, whatever rights the file has.
pub fn remove_file(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// Does what fails as long as another process is in the way: here none ever is.
pub fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    attempt()
}

/// Whether an error says that another program has the file open.
pub fn is_held(_: &io::Error) -> bool {
    false
}

/// How many names the file has.
pub fn names(path: &Path) -> io::Result<u64> {
    Ok(fs::symlink_metadata(path)?.nlink())
}

/// Tells a file from one that took its name later: its inode.
pub fn number(meta: &Metadata) -> u64 {
    meta.ino()
}

/// Tells the file at a path from all others; `meta` is what is known of it.
pub fn identity(_: &Path, meta: &Metadata) -> Identity {
    (meta.dev(), meta.ino())
}

/// Whether a path still leads to the file that is open.
pub fn is_same(file: &File, path: &Path) -> bool {
    let both = file.metadata().and_then(|open| Ok((open, fs::metadata(path)?)));
    both.is_ok_and(|(open, named)| (open.dev(), open.ino()) == (named.dev(), named.ino()))
}

/// Lets a file that is made be for its owner only.
pub fn owner_only(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600)
}

/// Lets only its owner enter a folder.
pub fn close_folder(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

/// Whether others than its owner may do anything with a file.
pub fn is_open_to_others(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.mode() & 0o077 != 0)
}

/// Makes what was created, renamed or removed in a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A folder in which many names are looked at. The way to it is walked once and not for each of them,
/// which is most of what a look costs.
#[derive(Debug)]
pub struct Lookout {
    path: PathBuf,
    #[cfg(target_os = "linux")]
    folder: Option<File>,
}

impl Lookout {
    pub fn new(path: PathBuf) -> Self {
        Self {
            #[cfg(target_os = "linux")]
            folder: File::open(&path).ok(),
            path,
        }
    }

    /// The file at a relative path, at the end of all links; `None` when there is none.
    #[cfg(target_os = "linux")]
    pub fn file(&self, name: &str) -> Option<Seen> {
        let Some(folder) = &self.folder else { return self.file_by_path(name) };
        let stat = rustix::fs::statat(folder, name, rustix::fs::AtFlags::empty()).ok()?;
        let is_file = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
        is_file.then_some(Seen { len: u64::try_from(stat.st_size).ok()?, id: (stat.st_dev, stat.st_ino) })
    }

    /// The same where there are no calls for this, or none that we know.
    #[cfg(not(target_os = "linux"))]
    pub fn file(&self, name: &str) -> Option<Seen> {
        self.file_by_path(name)
    }

    fn file_by_path(&self, name: &str) -> Option<Seen> {
        let meta = fs::metadata(self.path.join(name)).ok().filter(Metadata::is_file)?;
        Some(Seen { len: meta.len(), id: (meta.dev(), meta.ino()) })
    }
}

/// Whether the space of a file is memory. Reserving it would take all of that memory before the first
/// byte is asked for, and 0.4 s for each GiB; writing then costs the less, but nothing else goes on
/// meanwhile. On a disk, reserving is one entry in a table.
#[cfg(target_os = "linux")]
pub(super) fn is_in_memory(file: &File) -> bool {
    /// What `statfs(2)` calls tmpfs.
    const TMPFS: rustix::fs::FsWord = 0x0102_1994;
    rustix::fs::fstatfs(file).is_ok_and(|system| system.f_type == TMPFS)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_in_memory(_: &File) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookout_follows_links_and_says_the_same_whichever_way_it_asks() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("file"), "12345").unwrap();
        fs::create_dir(base.path().join("folder")).unwrap();
        symlink(Path::new("../file"), &base.path().join("folder/link")).unwrap();
        symlink(Path::new("nowhere"), &base.path().join("dangling")).unwrap();
        let lookout = Lookout::new(base.path().to_owned());
        let file = lookout.file("file");
        assert!(file.is_some());
        for same in [lookout.file("folder/link"), lookout.file_by_path("folder/link"), lookout.file_by_path("file")] {
            assert_eq!(same, file);
        }
        for none in ["folder", "dangling", "absent"] {
            assert_eq!((lookout.file(none), lookout.file_by_path(none)), (None, None), "{none}");
        }
    }
}
