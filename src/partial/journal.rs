//! The journal beside an unfinished file: which pieces were written, their hashes and their sources.
//!
//! Knows its own text format. Does not know whether what it says is true: who reads it hashes the
//! bytes again.
//! Invariant: a line counts only with its line break, so a line that was cut off is as if never
//! written, and any other first line means that the file is not ours to go on with.
//!
//! The format is one header and one line an event, in ASCII but for the sources:
//! `hffs-partial 1 <digest> <size>`, `piece <number> <blake3> <source>`, `bad <number>`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::digest::PieceHash;
use crate::disk;
use crate::limits;
use crate::names;
use crate::tree::Content;

const VERSION: &str = "hffs-partial 1";

/// What a journal says of one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) hash: PieceHash,
    pub(super) source: String,
}

/// What a journal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) content: Content,
    pub(super) pieces: BTreeMap<u32, Entry>,
}

/// A journal that is open for more lines.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Whether the last line may have been written in part, on a disk that was full.
    torn: bool,
}

impl Journal {
    /// Puts a journal that says `account` in place of whatever was there.
    pub(super) fn create(path: &Path, account: &Account) -> io::Result<Self> {
        let mut text = format!("{VERSION} {} {}\n", account.content.digest, account.content.size);
        for (piece, entry) in &account.pieces {
            text.push_str(&piece_line(*piece, entry));
        }
        // The new journal is complete before it has the name, so a crash leaves the old or the new.
        let fresh = path.with_extension("journal-new");
        let _ = fs::remove_file(&fresh);
        let mut file = OpenOptions::new().append(true).create_new(true).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        disk::rename(&fresh, path)?;
        Ok(Self { path: path.to_owned(), file, torn: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn piece(&mut self, piece: u32, entry: &Entry) -> io::Result<()> {
        self.line(piece_line(piece, entry))
    }

    pub(super) fn bad(&mut self, piece: u32) -> io::Result<()> {
        self.line(format!("bad {piece}\n"))
    }

    fn line(&mut self, mut line: String) -> io::Result<()> {
        if self.torn {
            line.insert(0, '\n');
        }
        self.torn = true;
        self.file.write_all(line.as_bytes())?;
        self.torn = false;
        Ok(())
    }
}

fn piece_line(piece: u32, entry: &Entry) -> String {
    // A label with a line break in it could pose as another line.
    format!("piece {piece} {} {}\n", entry.hash, names::clean(&entry.source, limits::SOURCE_CHARS_MAX))
}

/// Reads a journal; `None` when there is none, or none that this version wrote.
pub(super) fn read(path: &Path) -> Option<Account> {
    // A symlink or a pipe under our name is not our journal.
    if !fs::symlink_metadata(path).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(limits::JOURNAL_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Option<Account> {
    let end = bytes.iter().rposition(|&byte| byte == b'\n')?;
    let mut lines =
        bytes.get(..end)?.split(|&byte| byte == b'\n').map(|line| std::str::from_utf8(line).unwrap_or_default());
    let (digest, size) = lines.next()?.strip_prefix(VERSION)?.strip_prefix(' ')?.split_once(' ')?;
    let content = Content { digest: digest.parse().ok()?, size: size.parse().ok()? };
    if content.size > limits::FILE_BYTES_MAX {
        return None;
    }
    let mut pieces = BTreeMap::new();
    for line in lines {
        // A line that makes no sense loses the piece that it was about, which is then fetched again.
        match parse_line(line) {
            Some((piece, Some(entry))) => pieces.insert(piece, entry),
            Some((piece, None)) => pieces.remove(&piece),
            None => None,
        };
    }
    Some(Account { content, pieces })
}

fn parse_line(line: &str) -> Option<(u32, Option<Entry>)> {
    if let Some(piece) = line.strip_prefix("bad ") {
        return Some((piece.parse().ok()?, None));
    }
    let mut words = line.strip_prefix("piece ")?.splitn(3, ' ');
    let piece = words.next()?.parse().ok()?;
    let hash = words.next()?.parse().ok()?;
    let source = names::clean(words.next()?, limits::SOURCE_CHARS_MAX);
    Some((piece, Some(Entry { hash, source })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::PieceHasher;
    use proptest::prelude::*;

    fn content() -> Content {
        Content { digest: "a".repeat(64).parse().unwrap(), size: 5 << 20 }
    }

    fn entry(seed: u8, source: &str) -> Entry {
        let mut hasher = PieceHasher::new();
        hasher.update(&[seed]);
        Entry { hash: hasher.finish(), source: source.to_owned() }
    }

    #[test]
    fn a_journal_reads_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.journal");
        let start = Account { content: content(), pieces: [(2, entry(2, "hub"))].into() };
        let mut journal = Journal::create(&path, &start).unwrap();
        journal.piece(0, &entry(0, "peer with blanks")).unwrap();
        journal.piece(1, &entry(1, "hub")).unwrap();
        journal.bad(2).unwrap();
        journal.bad(1).unwrap();
        journal.piece(1, &entry(9, "hub")).unwrap();
        let pieces = [(0, entry(0, "peer with blanks")), (1, entry(9, "hub"))].into();
        assert_eq!(read(&path), Some(Account { content: content(), pieces }));
    }

    #[test]
    fn a_label_cannot_pose_as_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.journal");
        let mut journal = Journal::create(&path, &Account { content: content(), pieces: [].into() }).unwrap();
        journal.piece(0, &entry(0, "evil\nbad 0\nbad 1")).unwrap();
        assert_eq!(read(&path).unwrap().pieces.len(), 1);
    }

    #[test]
    fn a_journal_cut_at_any_byte_says_no_more_than_its_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.journal");
        let full: BTreeMap<u32, Entry> = (0..4).map(|n| (n, entry(n as u8, "hub"))).collect();
        Journal::create(&path, &Account { content: content(), pieces: full.clone() }).unwrap();
        let bytes = fs::read(&path).unwrap();
        for cut in 0..=bytes.len() {
            let whole = bytes[..cut].iter().filter(|&&byte| byte == b'\n').count();
            match parse(&bytes[..cut]) {
                None => assert_eq!(whole, 0),
                Some(account) => {
                    assert_eq!(account.content, content());
                    assert_eq!(account.pieces.len() + 1, whole);
                    assert!(account.pieces.iter().all(|(piece, entry)| full.get(piece) == Some(entry)));
                }
            }
        }
    }

    #[test]
    fn journals_of_another_version_are_not_read() {
        let digest = "a".repeat(64);
        for header in ["hffs-partial 2", "hffs-partial 10", "hffs-partial", "aria2", ""] {
            assert_eq!(parse(format!("{header} {digest} 5\npiece 0 {digest} hub\n").as_bytes()), None, "{header}");
        }
        assert_eq!(parse(format!("{VERSION} {digest} {}\n", u64::MAX).as_bytes()), None);
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut journal = format!("{VERSION} {} 7\n", content().digest).into_bytes();
            journal.extend(bytes);
            journal.push(b'\n');
            prop_assert!(parse(&journal).is_some());
        }
    }
}
