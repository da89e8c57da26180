//! What the standard library lacks to move bytes between memory and a disk.
//!
//! Knows positioned reads and writes on each system, buffers that the kernel copies fast, space that
//! is reserved, folders that are folders, and many names looked at in one. Does not know what any file means.
//! Invariant: a folder made here is no symlink, nor is any part of the way to it from its base.
//!
//! Buffers begin at a page because that halves the cost of copying between a file and memory on
//! processors whose fast string copy stumbles over a small offset between the two.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::limits;

/// Memory for reading and writing files, beginning at a page.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Buffer {
    /// A buffer of `DISK_BUFFER_BYTES`.
    pub fn new() -> Self {
        Self::for_file(u64::MAX)
    }

    /// One that is no larger than the file that it is for.
    pub fn for_file(size: u64) -> Self {
        let len = usize::try_from(size).unwrap_or(usize::MAX).min(limits::DISK_BUFFER_BYTES);
        let bytes = vec![0; len + limits::PAGE_BYTES];
        let start = bytes.as_ptr().align_offset(limits::PAGE_BYTES).min(limits::PAGE_BYTES);
        Self { bytes, start, len }
    }

    /// At most `len` bytes of it, and at most all of it.
    pub fn up_to(&mut self, len: u64) -> &mut [u8] {
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(self.len);
        self.bytes.get_mut(self.start..self.start + len).unwrap_or_default()
    }
}

/// Reads exactly `bytes.len()` bytes at `offset`, whatever others do with the same file meanwhile.
pub fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match read_at(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                bytes = bytes.get_mut(count..).unwrap_or_default();
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `bytes` at `offset`, whatever others do with the same file meanwhile.
pub fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match write_at(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = bytes.get(count..).unwrap_or_default();
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, bytes, offset)
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, bytes, offset)
}

#[cfg(windows)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, bytes, offset)
}

/// Gives an empty file its final size and, where the file system can, the space for it.
///
/// Fails with `StorageFull` when the file would leave less free than `DISK_RESERVE_BYTES`, or a
/// hundredth of the disk where that is less: a disk that is full to the last byte stops everybody.
pub fn reserve(file: &File, folder: &Path, bytes: u64) -> io::Result<()> {
    if let Ok(space) = fs4::statvfs(folder) {
        let keep = limits::DISK_RESERVE_BYTES.min(space.total_space() / 100);
        if space.available_space() < bytes.saturating_add(keep) {
            return Err(io::ErrorKind::StorageFull.into());
        }
    }
    if is_in_memory(file) {
        return file.set_len(bytes);
    }
    match fs4::fs_std::FileExt::allocate(file, bytes) {
        Err(error) if is_full(&error) => Err(error),
        // Where space cannot be reserved the file is sparse, and a full disk shows at a write.
        Err(_) => file.set_len(bytes),
        Ok(()) => Ok(()),
    }
}

/// Whether the space of a file is memory. Reserving it would take all of that memory before the first
/// byte is asked for, and 0.4 s for each GiB; writing then costs the less, but nothing else goes on
/// meanwhile. On a disk, reserving is one entry in a table.
#[cfg(target_os = "linux")]
fn is_in_memory(file: &File) -> bool {
    /// What `statfs(2)` calls tmpfs.
    const TMPFS: rustix::fs::FsWord = 0x0102_1994;
    rustix::fs::fstatfs(file).is_ok_and(|system| system.f_type == TMPFS)
}

#[cfg(not(target_os = "linux"))]
fn is_in_memory(_: &File) -> bool {
    false
}

/// A file that a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// In bytes.
    pub len: u64,
    /// What is the same for two names of one file: device and inode. `None` where the system has no such
    /// numbers.
    pub id: Option<(u64, u64)>,
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
        is_file.then_some(Seen { len: u64::try_from(stat.st_size).ok()?, id: Some((stat.st_dev, stat.st_ino)) })
    }

    /// The same where there are no calls for this, or none that we know.
    #[cfg(not(target_os = "linux"))]
    pub fn file(&self, name: &str) -> Option<Seen> {
        self.file_by_path(name)
    }

    fn file_by_path(&self, name: &str) -> Option<Seen> {
        let meta = fs::metadata(self.path.join(name)).ok().filter(fs::Metadata::is_file)?;
        #[cfg(unix)]
        let id = Some((std::os::unix::fs::MetadataExt::dev(&meta), std::os::unix::fs::MetadataExt::ino(&meta)));
        #[cfg(not(unix))]
        let id = None;
        Some(Seen { len: meta.len(), id })
    }
}

/// Whether an error says that there is no room, on the disk or in the user's share of it.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Why a folder could not be made.
#[derive(Debug)]
pub enum Obstacle {
    /// A file or a symlink stands where the folder should be.
    InTheWay(PathBuf),
    Io(PathBuf, io::Error),
}

/// Makes the folders `parts`, each in the one before and the first in `base`, and calls `made` with
/// the parent of each that is new.
pub fn make_folders<'a>(
    base: &Path,
    parts: impl IntoIterator<Item = &'a str>,
    mut made: impl FnMut(&Path),
) -> Result<PathBuf, Obstacle> {
    let mut path = base.to_owned();
    for part in parts {
        let parent = path.clone();
        path.push(part);
        // Nearly always it is there, and looking costs less than being refused.
        if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
            continue;
        }
        match fs::create_dir(&path) {
            Ok(()) => made(&parent),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => {}
                Ok(_) => return Err(Obstacle::InTheWay(path)),
                Err(error) => return Err(Obstacle::Io(path, error)),
            },
            // A file stands where the parent should be.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Err(Obstacle::InTheWay(parent)),
            Err(error) => return Err(Obstacle::Io(path, error)),
        }
    }
    Ok(path)
}

/// Makes what was created, renamed or removed in a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    // Windows neither opens folders as files nor needs it: NTFS journals its directories.
    if cfg!(windows) { Ok(()) } else { File::open(folder)?.sync_all() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_begin_at_a_page_and_have_their_full_size() {
        for _ in 0..20 {
            let mut buffer = Buffer::new();
            let bytes = buffer.up_to(u64::MAX);
            assert_eq!(bytes.len(), limits::DISK_BUFFER_BYTES);
            assert_eq!(bytes.as_ptr() as usize % limits::PAGE_BYTES, 0);
            assert_eq!(buffer.up_to(3).len(), 3);
            assert_eq!(Buffer::for_file(10_000).up_to(u64::MAX).len(), 10_000);
        }
    }

    #[test]
    fn folders_are_made_and_made_again_but_never_through_a_file() {
        let base = tempfile::tempdir().unwrap();
        let mut made = Vec::new();
        let path = make_folders(base.path(), ["a", "b"], |parent| made.push(parent.to_owned())).unwrap();
        assert_eq!(path, base.path().join("a/b"));
        assert_eq!(made, [base.path().to_owned(), base.path().join("a")]);
        make_folders(base.path(), ["a", "b"], |parent| panic!("{parent:?} got something new")).unwrap();
        fs::write(base.path().join("f"), "").unwrap();
        let result = make_folders(base.path(), ["f", "g"], |_| {});
        assert!(matches!(result, Err(Obstacle::InTheWay(path)) if path == base.path().join("f")));
    }

    #[cfg(unix)]
    #[test]
    fn a_lookout_sees_what_names_lead_to_and_that_two_lead_to_one_file() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("file"), "12345").unwrap();
        fs::create_dir(base.path().join("folder")).unwrap();
        std::os::unix::fs::symlink("../file", base.path().join("folder/link")).unwrap();
        std::os::unix::fs::symlink("nowhere", base.path().join("dangling")).unwrap();
        let lookout = Lookout::new(base.path().to_owned());
        let file = lookout.file("file").unwrap();
        assert_eq!(file.len, 5);
        for same in [lookout.file("folder/link"), lookout.file_by_path("folder/link"), lookout.file_by_path("file")] {
            assert_eq!(same, Some(file));
        }
        for none in ["folder", "dangling", "absent"] {
            assert_eq!((lookout.file(none), lookout.file_by_path(none)), (None, None), "{none}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn folders_are_never_made_through_a_symlink() {
        let base = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), base.path().join("a")).unwrap();
        let result = make_folders(base.path(), ["a", "b"], |_| {});
        assert!(matches!(result, Err(Obstacle::InTheWay(path)) if path == base.path().join("a")));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn more_than_the_disk_has_is_refused_before_it_is_tried() {
        let base = tempfile::tempdir().unwrap();
        let file = File::create(base.path().join("f")).unwrap();
        let error = reserve(&file, base.path(), 1 << 60).unwrap_err();
        assert!(is_full(&error), "{error}");
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
}
