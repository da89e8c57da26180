//! The ledger: what hffs itself knows of the cache, one line of JSON an event.
//!
//! Knows what was verified, what was added and removed, and what the Hub said of who may see it. Does
//! not know whether any of it is still on disk.
//! Invariant: lines are only ever added, each in one write, so that a daemon and commands without one
//! may write at the same time; a line that was torn or is not ours loses itself and no other.
//!
//! It needs no fsync: a line that a power cut takes costs a second hash of a file, or leaves a file
//! behind at an uninstall, and never gives anything away.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use super::Error;
use crate::digest::Digest;
use crate::disk;
use crate::limits;
use crate::names::{Commit, Repo, RepoPath, Visibility};
use crate::tree::Content;

/// What tells a file on disk from another, or from itself after it was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Stamp {
    size: u64,
    /// Nanoseconds since 1970.
    mtime: i64,
    /// See `disk::number`.
    ino: u64,
}

impl Stamp {
    pub(super) fn of(meta: &Metadata) -> Self {
        let nanos = |time: SystemTime| match time.duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos),
        };
        Self { size: meta.len(), mtime: meta.modified().map_or(0, nanos), ino: disk::number(meta) }
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line {
    /// The content at `path` was hashed and has this digest.
    Verified { digest: Digest, stamp: Stamp, path: PathBuf },
    /// The content at `path` was hashed and has not the digest that its name says.
    Damaged { digest: Digest, stamp: Stamp, path: PathBuf },
    /// hffs put this file into a snapshot.
    Added { repo: Repo, commit: Commit, path: RepoPath, digest: Digest },
    /// It is in the snapshot no more.
    Removed { repo: Repo, commit: Commit, path: RepoPath },
    /// What the Hub last said of the content in this repo.
    Visible { digest: Digest, repo: Repo, to: Visibility },
}

/// A file that hffs added: where, and what it is.
type Added = BTreeMap<(Commit, RepoPath), Digest>;

/// What all lines together say.
#[derive(Debug, Default)]
struct Book {
    verified: HashMap<Digest, Vec<(PathBuf, Stamp)>>,
    damaged: HashMap<Digest, Vec<(PathBuf, Stamp)>>,
    added: BTreeMap<Repo, Added>,
    visible: HashMap<Digest, BTreeMap<Repo, Visibility>>,
    lines: usize,
    /// How far the file was read, which file that was, and how long it was then.
    read_to: u64,
    ino: u64,
    len: u64,
}

impl Book {
    fn take(&mut self, line: Line) {
        self.lines += 1;
        match line {
            Line::Verified { digest, stamp, path } => {
                forget(&mut self.damaged, &digest, &path);
                replace(&mut self.verified, digest, path, stamp);
            }
            Line::Damaged { digest, stamp, path } => {
                forget(&mut self.verified, &digest, &path);
                replace(&mut self.damaged, digest, path, stamp);
            }
            Line::Added { repo, commit, path, digest } => {
                self.added.entry(repo).or_default().insert((commit, path), digest);
            }
            Line::Removed { repo, commit, path } => {
                if let Some(added) = self.added.get_mut(&repo) {
                    added.remove(&(commit, path));
                    if added.is_empty() {
                        self.added.remove(&repo);
                    }
                }
            }
            Line::Visible { digest, repo, to } => {
                self.visible.entry(digest).or_default().insert(repo, to);
            }
        }
    }

    fn is_long(&self) -> bool {
        self.len > limits::LEDGER_COMPACT_BYTES && self.lines > 2 * self.lines().len()
    }

    /// The fewest lines that say the same. Files that are gone need no line.
    fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        for (&digest, places) in &self.verified {
            for (path, stamp) in places.iter().filter(|(path, _)| path.exists()) {
                lines.push(Line::Verified { digest, stamp: *stamp, path: path.clone() });
            }
        }
        for (&digest, places) in &self.damaged {
            for (path, stamp) in places.iter().filter(|(path, _)| path.exists()) {
                lines.push(Line::Damaged { digest, stamp: *stamp, path: path.clone() });
            }
        }
        for (repo, added) in &self.added {
            for ((commit, path), &digest) in added {
                let (repo, commit, path) = (repo.clone(), commit.clone(), path.clone());
                lines.push(Line::Added { repo, commit, path, digest });
            }
        }
        for (&digest, repos) in &self.visible {
            lines.extend(repos.iter().map(|(repo, &to)| Line::Visible { digest, repo: repo.clone(), to }));
        }
        lines
    }
}

type Stamps = HashMap<Digest, Vec<(PathBuf, Stamp)>>;

fn forget(stamps: &mut Stamps, digest: &Digest, path: &Path) {
    if let Some(places) = stamps.get_mut(digest) {
        places.retain(|(known, _)| known != path);
        if places.is_empty() {
            stamps.remove(digest);
        }
    }
}

fn replace(stamps: &mut Stamps, digest: Digest, path: PathBuf, stamp: Stamp) {
    let places = stamps.entry(digest).or_default();
    places.retain(|(known, _)| *known != path);
    places.push((path, stamp));
}

/// What appending did to the file.
struct Grown {
    ino: u64,
    from: u64,
    to: u64,
    /// Nobody wrote at the same time, though locks may lie.
    only_ours: bool,
}

/// The ledger of one work directory.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    book: Mutex<Book>,
}

impl Ledger {
    /// The ledger in this file, which may not be there.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, book: Mutex::default() }
    }

    /// Shortens the ledger when it has grown long with events that later ones undid.
    pub(super) fn shorten(&self) {
        let book = self.book();
        if book.is_long()
            && let Err(error) = self.rewrite(&book)
        {
            warn!(path = %self.path.display(), %error, "could not shorten the ledger");
        }
    }

    /// Whether the content of a file with this stamp was hashed and found right.
    pub(super) fn is_verified(&self, digest: &Digest, stamp: Stamp) -> bool {
        self.book().verified.get(digest).is_some_and(|places| places.iter().any(|(_, known)| *known == stamp))
    }

    /// Whether the content of a file with this stamp was hashed and found wrong.
    pub(super) fn is_damaged(&self, digest: &Digest, stamp: Stamp) -> bool {
        self.book().damaged.get(digest).is_some_and(|places| places.iter().any(|(_, known)| *known == stamp))
    }

    /// What files of this size were hashed for a digest of this kind, and what each was found to be.
    pub(super) fn found(&self, wanted: &Content) -> HashMap<(PathBuf, Stamp), Digest> {
        let book = self.book();
        let kind = std::mem::discriminant(&wanted.digest);
        let of_its_kind = book.verified.iter().filter(|(digest, _)| std::mem::discriminant(*digest) == kind);
        let places = of_its_kind.flat_map(|(digest, places)| places.iter().map(|place| (place, *digest)));
        let of_its_size = places.filter(|((_, stamp), _)| stamp.size == wanted.size);
        of_its_size.map(|((path, stamp), digest)| ((path.clone(), *stamp), digest)).collect()
    }

    /// What was hashed and found right, by path.
    pub(super) fn verified_places(&self) -> HashMap<PathBuf, Vec<Digest>> {
        let book = self.book();
        let mut found: HashMap<PathBuf, Vec<Digest>> = HashMap::new();
        for (digest, places) in &book.verified {
            for (path, _) in places {
                found.entry(path.clone()).or_default().push(*digest);
            }
        }
        found
    }

    pub(super) fn is_public(&self, digest: &Digest) -> bool {
        self.book().visible.get(digest).is_some_and(|repos| repos.values().any(|to| *to == Visibility::Public))
    }

    pub(super) fn says(&self, digest: &Digest, repo: &Repo) -> Option<Visibility> {
        self.book().visible.get(digest)?.get(repo).copied()
    }

    /// All that the Hub said of contents in this repo.
    pub(super) fn said(&self, repo: &Repo) -> HashMap<Digest, Visibility> {
        let book = self.book();
        book.visible.iter().filter_map(|(digest, repos)| Some((*digest, *repos.get(repo)?))).collect()
    }

    pub(super) fn added(&self, repo: &Repo) -> Added {
        self.book().added.get(repo).cloned().unwrap_or_default()
    }

    pub(super) fn is_added(&self, repo: &Repo, commit: &Commit, path: &RepoPath) -> bool {
        self.book().added.get(repo).is_some_and(|added| added.contains_key(&(commit.clone(), path.clone())))
    }

    /// Adds lines at the end of the file, where this process and all others will read them.
    pub(super) fn append(&self, lines: &[Line]) -> Result<(), Error> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        let mut written = Vec::with_capacity(lines.len());
        for line in lines {
            // A path that is no text cannot be written down, so what it says is not remembered.
            match serde_json::to_vec(line) {
                Ok(json) => {
                    text.extend(json.into_iter().chain([b'\n']));
                    written.push(line);
                }
                Err(error) => debug!(%error, "a line does not fit the ledger"),
            }
        }
        let mut book = self.book();
        let grown = self.append_text(text).map_err(|error| Error::at("write", &self.path, error))?;
        // When nobody else wrote, it is known what a look at the file would show.
        if grown.ino == book.ino && grown.from == book.read_to && grown.only_ours {
            written.into_iter().for_each(|line| book.take(line.clone()));
            (book.read_to, book.len) = (grown.to, grown.to);
        }
        Ok(())
    }

    fn append_text(&self, mut text: Vec<u8>) -> io::Result<Grown> {
        let mut file = self.open_last()?;
        let before = file.metadata()?;
        if before.len() > 0 {
            file.seek(SeekFrom::End(-1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                // Somebody died while writing a line; ours must not become the end of it.
                text.insert(0, b'\n');
            }
        }
        file.write_all(&text)?;
        let (from, to) = (before.len(), file.metadata()?.len());
        Ok(Grown { ino: disk::number(&before), from, to, only_ours: to == from + text.len() as u64 })
    }

    /// Opens the file with its lock held where locks work, and makes sure that it is still the one
    /// with the name: somebody may have shortened the ledger while the lock was waited for.
    fn open_last(&self) -> io::Result<File> {
        let open = || OpenOptions::new().read(true).append(true).create(true).open(&self.path);
        let mut file = open()?;
        for _ in 0..limits::LEDGER_OPENINGS {
            super::lock_politely(&file);
            if disk::is_same(&file, &self.path) {
                break;
            }
            file = open()?;
        }
        Ok(file)
    }

    /// What the ledger says, with what others wrote since the last look.
    fn book(&self) -> MutexGuard<'_, Book> {
        // A panic while a line is taken can lose no more than that line.
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(meta) = fs::metadata(&self.path) else { return book };
        if disk::number(&meta) != book.ino || meta.len() < book.read_to {
            *book = Book { ino: disk::number(&meta), ..Book::default() };
        }
        if meta.len() != book.len {
            book.len = meta.len();
            // Windows lets nobody read what somebody has locked, if only for the moment of a line.
            if let Err(error) = disk::patiently(|| self.read_on(&mut book)) {
                // Whatever the length is at the next look, it will be read again.
                book.len = u64::MAX;
                warn!(path = %self.path.display(), %error, "could not read the ledger");
            }
        }
        book
    }

    fn read_on(&self, book: &mut Book) -> io::Result<()> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(book.read_to))?;
        let mut reader = BufReader::new(file);
        let mut foreign = 0;
        let mut line = Vec::new();
        loop {
            line.clear();
            let count = reader.by_ref().take(limits::LEDGER_LINE_BYTES_MAX).read_until(b'\n', &mut line)? as u64;
            if count == 0 {
                break;
            }
            if line.last() != Some(&b'\n') {
                if count < limits::LEDGER_LINE_BYTES_MAX {
                    // The end of the file: a line that is being written, or that was torn.
                    break;
                }
                let rest = skip_line(&mut reader)?;
                book.read_to += rest;
            }
            book.read_to += count;
            match serde_json::from_slice(&line) {
                Ok(event) => book.take(event),
                Err(_) if line.iter().all(u8::is_ascii_whitespace) => {}
                Err(_) => foreign += 1,
            }
        }
        if foreign > 0 {
            warn!(path = %self.path.display(), lines = foreign, "ignored lines of the ledger that make no sense");
        }
        Ok(())
    }

    /// Puts the fewest lines in place of all that were read, unless there are others by now.
    fn rewrite(&self, read: &Book) -> io::Result<()> {
        let file = File::open(&self.path)?;
        // Whoever holds the lock is adding a line that would be lost; so would one that was added since the book was
        // read. It is not read now, because on Windows the lock keeps out every handle but its own.
        let seen = file.try_lock().is_ok().then(|| file.metadata()).transpose()?;
        if seen.is_none_or(|meta| (disk::number(&meta), meta.len()) != (read.ino, read.len)) {
            return Ok(());
        }
        let lines = read.lines();
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut fresh = disk::private_temp(folder)?;
        for line in &lines {
            serde_json::to_writer(&mut fresh, line)?;
            fresh.write_all(b"\n")?;
        }
        fresh.as_file().sync_all()?;
        disk::settle(fresh, &self.path)?;
        debug!(lines = lines.len(), "shortened the ledger");
        Ok(())
    }
}

/// Reads to the end of the line, keeping nothing, and says how many bytes that were.
fn skip_line(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let bytes = reader.fill_buf()?;
        let end = bytes.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
        let count = end.unwrap_or(bytes.len());
        reader.consume(count);
        skipped += count as u64;
        if end.is_some() || count == 0 {
            return Ok(skipped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(n: u8) -> Digest {
        Digest::Sha256([n; 32])
    }

    fn repo() -> Repo {
        Repo { kind: Default::default(), id: "org/name".parse().unwrap() }
    }

    fn added(n: u8) -> Line {
        Line::Added {
            repo: repo(),
            commit: "c".repeat(40).parse().unwrap(),
            path: format!("f{n}").parse().unwrap(),
            digest: digest(n),
        }
    }

    fn visible(n: u8, to: Visibility) -> Line {
        Line::Visible { digest: digest(n), repo: repo(), to }
    }

    fn new() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.jsonl");
        (dir, path)
    }

    #[test]
    fn lines_of_other_processes_are_noticed() {
        let (_dir, path) = new();
        let (daemon, command) = (Ledger::new(path.clone()), Ledger::new(path));
        daemon.append(&[added(1)]).unwrap();
        command.append(&[added(2)]).unwrap();
        assert_eq!(daemon.added(&repo()).len(), 2);
        assert_eq!(command.added(&repo()).len(), 2);
    }

    #[test]
    fn the_last_word_on_visibility_counts_and_silence_is_no_permission() {
        let (_dir, path) = new();
        let ledger = Ledger::new(path);
        assert!(!ledger.is_public(&digest(1)));
        ledger.append(&[visible(1, Visibility::Public)]).unwrap();
        assert!(ledger.is_public(&digest(1)));
        ledger.append(&[visible(1, Visibility::Restricted)]).unwrap();
        assert!(!ledger.is_public(&digest(1)));
    }

    #[test]
    fn a_ledger_cut_at_any_byte_keeps_its_whole_lines_and_takes_new_ones() {
        let (_dir, path) = new();
        Ledger::new(path.clone()).append(&[added(1), added(2)]).unwrap();
        let bytes = fs::read(&path).unwrap();
        for cut in 0..=bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let whole = bytes[..cut].iter().filter(|&&byte| byte == b'\n').count();
            let ledger = Ledger::new(path.clone());
            assert_eq!(ledger.added(&repo()).len(), whole);
            ledger.append(&[added(3)]).unwrap();
            // A line that lost only its line break is whole again once another follows.
            assert!(ledger.added(&repo()).len() > whole);
            assert!(ledger.is_added(&repo(), &"c".repeat(40).parse().unwrap(), &"f3".parse().unwrap()));
        }
    }

    #[test]
    fn lines_longer_than_any_of_ours_are_skipped_whole() {
        let (_dir, path) = new();
        let mut bytes = vec![b'x'; 3 * limits::LEDGER_LINE_BYTES_MAX as usize + 17];
        bytes.push(b'\n');
        fs::write(&path, bytes).unwrap();
        let ledger = Ledger::new(path.clone());
        ledger.append(&[added(1)]).unwrap();
        assert_eq!(ledger.added(&repo()).len(), 1);
        assert_eq!(Ledger::new(path).added(&repo()).len(), 1);
    }

    #[test]
    fn a_long_ledger_is_shortened_and_says_the_same() {
        let (_dir, path) = new();
        let ledger = Ledger::new(path.clone());
        ledger.append(&[added(1), added(2), visible(1, Visibility::Public)]).unwrap();
        let undone =
            Line::Removed { repo: repo(), commit: "c".repeat(40).parse().unwrap(), path: "f2".parse().unwrap() };
        let burst: Vec<Line> = [undone, added(2)].into_iter().cycle().take(9_000).collect();
        while fs::metadata(&path).unwrap().len() <= limits::LEDGER_COMPACT_BYTES {
            ledger.append(&burst).unwrap();
        }
        let short = Ledger::new(path.clone());
        short.shorten();
        assert!(fs::metadata(&path).unwrap().len() < 2_000);
        for ledger in [&ledger, &short] {
            assert_eq!(ledger.added(&repo()).len(), 2);
            assert!(ledger.is_public(&digest(1)));
        }
        short.append(&[added(3)]).unwrap();
        assert_eq!(ledger.added(&repo()).len(), 3);
    }

    #[test]
    fn a_line_that_another_process_adds_meanwhile_outlives_the_shortening() {
        let (_dir, path) = new();
        let (daemon, command) = (Ledger::new(path.clone()), Ledger::new(path));
        daemon.append(&[added(1), added(1)]).unwrap();
        let read = daemon.book();
        command.append(&[added(2)]).unwrap();
        daemon.rewrite(&read).unwrap();
        drop(read);
        assert_eq!(daemon.added(&repo()).len(), 2);
        daemon.rewrite(&daemon.book()).unwrap();
        assert_eq!((daemon.added(&repo()).len(), daemon.book().lines), (2, 2));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn foreign_bytes_in_the_ledger_do_no_harm(junk in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (_dir, path) = new();
            fs::write(&path, &junk).unwrap();
            let ledger = Ledger::new(path);
            ledger.append(&[added(1)]).unwrap();
            prop_assert!(ledger.added(&repo()).contains_key(&("c".repeat(40).parse().unwrap(), "f1".parse().unwrap())));
            prop_assert!(!ledger.is_public(&digest(1)));
        }
    }
}
