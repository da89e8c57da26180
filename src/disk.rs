//! What the standard library lacks to move bytes between memory and a disk.
//!
//! Knows positioned reads and writes on each system, buffers that the kernel copies fast, space that
//! is reserved, names that are changed while others look, folders that are folders, and many names
//! looked at in one. Does not know what any file means.
//! Invariant: a folder made here is no symlink, nor is any part of the way to it from its base.
//!
//! What only one kind of system has stands in `disk/unix.rs`, and its twin in `disk/windows.rs`.
//!
//! Buffers begin at a page because that halves the cost of copying between a file and memory on
//! processors whose fast string copy stumbles over a small offset between the two.

#[cfg_attr(unix, path = "disk/unix.rs")]
#[cfg_attr(windows, path = "disk/windows.rs")]
mod system;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::limits;

pub use system::{
    Identity, Lookout, REFUSED_IN_NAMES, close_folder, identity, is_held, is_open_to_others, is_same, names, number,
    owner_only, patiently, read_at, remove_file, rename, symlink, sync_folder, write_at,
};

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
    if system::is_in_memory(file) {
        return file.set_len(bytes);
    }
    match fs4::fs_std::FileExt::allocate(file, bytes) {
        Err(error) if is_full(&error) => Err(error),
        // Where space cannot be reserved the file is sparse, and a full disk shows at a write.
        Err(_) => file.set_len(bytes),
        Ok(()) => Ok(()),
    }
}

/// What large and small letters are to a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letters {
    Different,
    Alike,
}

/// A file that a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// In bytes.
    pub len: u64,
    /// What is the same for two names of one file.
    pub id: Identity,
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
            // A file stands where the parent should be; some systems call that a parent that is not there.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::NotFound) => {
                return Err(match fs::symlink_metadata(&parent) {
                    Ok(meta) if !meta.is_dir() => Obstacle::InTheWay(parent),
                    _ => Obstacle::Io(path, error),
                });
            }
            Err(error) => return Err(Obstacle::Io(path, error)),
        }
    }
    Ok(path)
}

/// A new file under a temporary name in a folder, for its owner only.
pub fn private_temp(folder: &Path) -> io::Result<NamedTempFile> {
    Builder::new()
        .make_in(folder, |path| owner_only(File::options().read(true).write(true).create_new(true)).open(path))
}

/// Gives what has a temporary name its final one, in place of whatever file is there.
pub fn settle<R>(temp: NamedTempFile<R>, place: &Path) -> io::Result<()> {
    let (_open, path) = temp.into_parts();
    rename(&path, place)?;
    // The name is gone; what fails here only looked for it once more.
    let _ = path.keep();
    Ok(())
}

/// What large and small letters are in the folder of a file with a name in large ones.
pub fn letters(large: &Path) -> Letters {
    let small = large.file_name().map(|name| large.with_file_name(name.to_string_lossy().to_lowercase()));
    match small.and_then(|small| is_one_file(large, &small)) {
        Some(true) => Letters::Alike,
        Some(false) | None => Letters::Different,
    }
}

/// Whether two names lead to one file; `None` when one of them leads to none.
fn is_one_file(one: &Path, other: &Path) -> Option<bool> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| identity(path, &meta));
    Some(identity(one)? == identity(other)?)
}

/// The name that a part of `path` is taken for, where large and small letters are alike and it is written otherwise.
/// `base` is a folder above it, and taken as it is.
///
/// Names are compared only where the part leads to something: a folder may have thousands of names, and with no
/// answer to its own a part has no rival among them.
pub fn other_spelling(base: &Path, path: &Path) -> Option<PathBuf> {
    let mut folder = base.to_owned();
    for part in path.strip_prefix(base).ok()?.iter() {
        let own = folder.join(part);
        fs::symlink_metadata(&own).ok()?;
        let alike = |name: &OsString| name.to_string_lossy().to_lowercase() == part.to_string_lossy().to_lowercase();
        // The system may still tell apart what we do not.
        let is_rival =
            |name: &OsString| name != part && alike(name) && is_one_file(&folder.join(name), &own) != Some(false);
        let mut names = fs::read_dir(&folder).ok()?.flatten().map(|entry| entry.file_name());
        if let Some(rival) = names.find(is_rival) {
            return Some(folder.join(rival));
        }
        folder = own;
    }
    None
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

    #[test]
    fn a_lookout_sees_what_names_lead_to_and_that_two_lead_to_one_file() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("file"), "12345").unwrap();
        fs::create_dir(base.path().join("folder")).unwrap();
        fs::hard_link(base.path().join("file"), base.path().join("folder/twin")).unwrap();
        let lookout = Lookout::new(base.path().to_owned());
        let file = lookout.file("file").unwrap();
        assert_eq!(file.len, 5);
        assert_eq!(lookout.file("folder/twin"), Some(file));
        assert_eq!((lookout.file("folder"), lookout.file("absent")), (None, None));
    }

    #[cfg(unix)]
    #[test]
    fn folders_are_never_made_through_a_symlink() {
        let base = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), &base.path().join("a")).unwrap();
        let result = make_folders(base.path(), ["a", "b"], |_| {});
        assert!(matches!(result, Err(Obstacle::InTheWay(path)) if path == base.path().join("a")));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_takes_the_place_of_one_that_is_open() {
        let base = tempfile::tempdir().unwrap();
        let place = base.path().join("place");
        fs::write(&place, "old").unwrap();
        let open = File::open(&place).unwrap();
        settle(private_temp(base.path()).unwrap(), &place).unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"");
        assert_eq!(io::read_to_string(open).unwrap(), "old");
    }

    #[test]
    fn a_file_takes_the_place_of_one_that_is_read_only() {
        let base = tempfile::tempdir().unwrap();
        let place = base.path().join("place");
        for number in 0..3u8 {
            let mut temp = private_temp(base.path()).unwrap();
            io::Write::write_all(&mut temp, &[number]).unwrap();
            settle(temp, &place).unwrap();
            assert_eq!(fs::read(&place).unwrap(), [number]);
            let mut rights = fs::metadata(&place).unwrap().permissions();
            rights.set_readonly(true);
            fs::set_permissions(&place, rights).unwrap();
        }
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1, "a temporary name was left");
        remove_file(&place).unwrap();
        assert!(!place.exists());
    }

    #[test]
    fn a_file_never_takes_the_place_of_a_folder() {
        let base = tempfile::tempdir().unwrap();
        let place = base.path().join("place");
        fs::create_dir(&place).unwrap();
        let error = settle(private_temp(base.path()).unwrap(), &place).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1, "a temporary name was left");
    }

    #[test]
    fn names_of_one_file_are_counted_and_known_for_one() {
        let base = tempfile::tempdir().unwrap();
        let [one, two, other] = ["one", "two", "other"].map(|name| base.path().join(name));
        fs::write(&one, "x").unwrap();
        fs::write(&other, "x").unwrap();
        assert_eq!(names(&one).unwrap(), 1);
        fs::hard_link(&one, &two).unwrap();
        assert_eq!(names(&one).unwrap(), 2);
        let [first, second, third] = [&one, &two, &other].map(|path| identity(path, &fs::metadata(path).unwrap()));
        assert!(first == second && first != third);
        let open = File::open(&one).unwrap();
        assert!(is_same(&open, &two) && !is_same(&open, &other) && !is_same(&open, &base.path().join("none")));
    }

    #[test]
    fn a_name_that_only_its_letters_tell_from_another_is_noticed() {
        let base = tempfile::tempdir().unwrap();
        let place = |name: &str| base.path().join(name);
        fs::create_dir(place("Sub")).unwrap();
        for name in ["Sub/File", "Own"] {
            fs::write(place(name), "x").unwrap();
        }
        let spelt = |name: &str| other_spelling(base.path(), &place(name));
        for fine in ["Sub/File", "Sub/other", "Other/File", "other", "Own"] {
            assert_eq!(spelt(fine), None);
        }
        // On a system that tells these names from the others, so that they lead where they would elsewhere.
        let _ = fs::hard_link(place("Sub/File"), place("Sub/file"));
        assert_eq!(spelt("Sub/file"), Some(place("Sub").join("File")));
        #[cfg(unix)]
        let _ = symlink(Path::new("Sub"), &place("sub"));
        assert_eq!(spelt("sub/File"), Some(place("Sub")));
        assert_eq!(spelt("sub/other"), Some(place("Sub")));
        if fs::create_dir(place("own")).is_ok() {
            assert_eq!(spelt("Own"), None, "two files are told apart");
        }
    }

    #[test]
    fn what_letters_are_is_seen_on_a_file() {
        let base = tempfile::tempdir().unwrap();
        let large = base.path().join("LARGE.TXT");
        fs::write(&large, "").unwrap();
        let alike = base.path().join("large.txt").exists();
        assert_eq!(letters(&large), if alike { Letters::Alike } else { Letters::Different });
        if !alike {
            fs::hard_link(&large, base.path().join("large.txt")).unwrap();
            assert_eq!(letters(&large), Letters::Alike);
        }
        assert_eq!(letters(&base.path().join("NONE")), Letters::Different);
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
