//! One unfinished file: its bytes at their places, the pieces that are complete, and its seal.
//!
//! Knows the file, its journal and its hash. Does not know who brings the bytes.
//! Invariant: once sealed or discarded, nothing writes to the file, and a piece that is noted is not
//! written to again before it is forgotten.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::journal::{Entry, Journal};
use super::talk::{self, Talk};
use super::watermark::{self, Watermark};
use super::{Claim, Error, SealError};
use crate::digest::{PieceHash, Verified};
use crate::disk::{self, Buffer};
use crate::piece::{Cut, PieceList, PieceSet};
use crate::sealed::SealedFile;
use crate::tree::Content;
use crate::wire::{Gained, Mark};

/// One unfinished file, claimed by whoever holds this. Share it by `Arc`; any thread may write.
pub struct Partial {
    content: Content,
    cut: Cut,
    path: PathBuf,
    file: Arc<File>,
    resumed_bytes: u64,
    /// Held for reading while bytes are written, so that closing waits for them.
    gate: RwLock<Gate>,
    marks: Mutex<Marks>,
    watermark: Mutex<Watermark>,
    talk: Talk,
    claim: Arc<Claim>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    Closed,
}

/// What is known of the pieces.
struct Marks {
    have: PieceSet,
    /// The complete pieces that may be passed on before the whole is verified.
    proven: PieceSet,
    /// The same in the order of their proof, and the name of this order: another one after every loss.
    told: Vec<u32>,
    run: u64,
    entries: Vec<Option<Noted>>,
    /// The labels, each once: there are many pieces and few sources.
    sources: Vec<Arc<str>>,
    /// The lowest piece that was forgotten since the hash last looked.
    rewind: Option<u32>,
    /// A file of one piece has none: there is nothing to resume in it.
    journal: Option<Journal>,
}

#[derive(Clone, Copy)]
struct Noted {
    hash: PieceHash,
    source: usize,
}

impl Marks {
    fn note(&mut self, piece: u32, hash: PieceHash, source: &str) {
        let at = self.sources.iter().position(|known| &**known == source).unwrap_or_else(|| {
            self.sources.push(source.into());
            self.sources.len() - 1
        });
        if let Some(entry) = self.entries.get_mut(piece as usize) {
            *entry = Some(Noted { hash, source: at });
            self.have.insert(piece);
        }
    }

    fn forget(&mut self, piece: u32) {
        if let Some(entry) = self.entries.get_mut(piece as usize) {
            *entry = None;
        }
        self.have.remove(piece);
        if self.proven.remove(piece) {
            self.told = self.proven.iter().collect();
            self.run = talk::new_run();
        }
        self.rewind = Some(self.rewind.map_or(piece, |lowest| lowest.min(piece)));
    }

    fn noted(&self, piece: u32) -> Option<(PieceHash, &str)> {
        let noted = (*self.entries.get(piece as usize)?)?;
        Some((noted.hash, self.sources.get(noted.source)?))
    }
}

/// What a claim found on disk, or made there.
pub(super) struct Ground {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) journal: Option<Journal>,
    /// Pieces whose bytes were hashed again and are those of the journal.
    pub(super) pieces: Vec<(u32, Entry)>,
}

impl Partial {
    pub(super) fn new(content: Content, ground: Ground, claim: Claim) -> Self {
        let cut = Cut::new(content.size);
        let mut marks = Marks {
            have: PieceSet::none(cut.count()),
            proven: PieceSet::none(cut.count()),
            told: Vec::new(),
            run: talk::new_run(),
            entries: vec![None; cut.count() as usize],
            sources: Vec::new(),
            rewind: None,
            journal: ground.journal,
        };
        for (piece, entry) in &ground.pieces {
            marks.note(*piece, entry.hash, &entry.source);
        }
        Self {
            resumed_bytes: marks.have.iter().map(|piece| cut.len_of(piece)).sum(),
            content,
            cut,
            path: ground.path,
            file: Arc::new(ground.file),
            gate: RwLock::new(Gate::Open),
            marks: Mutex::new(marks),
            watermark: Mutex::new(Watermark::new(content, cut)),
            talk: Talk::default(),
            claim: Arc::new(claim),
        }
    }

    pub fn content(&self) -> Content {
        self.content
    }

    pub fn cut(&self) -> Cut {
        self.cut
    }

    /// Where it lies, in the folder of the repo that it is for.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, for reading pieces that are noted.
    pub fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    /// The pieces that are complete.
    pub fn have(&self) -> PieceSet {
        self.marks().have.clone()
    }

    /// How many bytes were here already when the file was claimed.
    pub fn resumed_bytes(&self) -> u64 {
        self.resumed_bytes
    }

    /// Writes bytes at their place in the file.
    ///
    /// Writers need not wait for each other but must not overlap: which of two versions of a byte
    /// stays, nobody could tell. Bytes for a piece that is noted are refused.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        if *gate == Gate::Closed {
            return Err(Error::Closed { path: self.path.clone() });
        }
        let end = offset.saturating_add(bytes.len() as u64);
        if end > self.content.size {
            return Err(Error::Outside { path: self.path.clone(), offset: end });
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let touched = self.cut.at(offset)..=self.cut.at(end - 1);
        if let Some(piece) = self.find_noted(touched) {
            return Err(Error::Noted { path: self.path.clone(), piece });
        }
        disk::write_all_at(&self.file, bytes, offset).map_err(|error| self.failed("write", error))
    }

    fn find_noted(&self, mut pieces: impl Iterator<Item = u32>) -> Option<u32> {
        let marks = self.marks();
        pieces.find(|piece| marks.have.contains(*piece))
    }

    /// Says that all bytes of a piece are written, that they have this hash, and whose they are.
    pub fn note(&self, piece: u32, hash: PieceHash, source: &str) -> Result<(), Error> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        if *gate == Gate::Closed {
            return Err(Error::Closed { path: self.path.clone() });
        }
        let mut marks = self.marks();
        if piece >= self.cut.count() {
            return Err(Error::Outside { path: self.path.clone(), offset: self.content.size });
        }
        if marks.have.contains(piece) {
            return Err(Error::Noted { path: self.path.clone(), piece });
        }
        if let Some(journal) = &mut marks.journal {
            let entry = Entry { hash, source: source.to_owned() };
            journal.piece(piece, &entry).map_err(|error| failed("write", journal.path(), error, 0))?;
        }
        marks.note(piece, hash, source);
        Ok(())
    }

    /// Says that a complete piece may be passed on, because it came from the Hub or matches a list.
    /// Nothing is written down: after a restart it takes new proof.
    pub fn prove(&self, piece: u32) {
        let mut marks = self.marks();
        if marks.have.contains(piece) && marks.proven.insert(piece) {
            marks.told.push(piece);
        }
    }

    /// What was proven after a mark of an earlier call, and the mark for the next.
    pub fn proven_since(&self, known: Mark) -> (Mark, Gained) {
        let marks = self.marks();
        let count = u32::try_from(marks.told.len()).unwrap_or(u32::MAX);
        let mark = Mark { run: marks.run, count };
        let new = marks.told.get(known.count as usize..).filter(|_| known.run == marks.run);
        match new {
            // A number takes up to five bytes, and a piece of the whole set one bit.
            Some(new) if new.len() * 40 <= self.cut.count() as usize + 400 => (mark, Gained::Since(new.to_vec())),
            _ => (mark, Gained::All(marks.proven.to_bytes())),
        }
    }

    /// What others that bring the same file are told, and who of them has asked.
    pub fn talk(&self) -> &Talk {
        &self.talk
    }

    /// The complete pieces that may be passed on before the whole is verified.
    pub fn proven(&self) -> PieceSet {
        self.marks().proven.clone()
    }

    /// Takes back what was noted of a piece: its bytes are wrong and will be written again.
    pub fn forget(&self, piece: u32) -> Result<(), Error> {
        let mut marks = self.marks();
        if !marks.have.contains(piece) {
            return Ok(());
        }
        marks.forget(piece);
        match &mut marks.journal {
            Some(journal) => journal.bad(piece).map_err(|error| failed("write", journal.path(), error, 0)),
            None => Ok(()),
        }
    }

    /// The hash and the source of a piece that is complete.
    pub fn noted(&self, piece: u32) -> Option<(PieceHash, String)> {
        self.marks().noted(piece).map(|(hash, source)| (hash, source.to_owned()))
    }

    /// The hashes of all pieces, once all are noted.
    pub fn piece_list(&self) -> Option<PieceList> {
        let marks = self.marks();
        let hashes: Option<Vec<_>> = marks.entries.iter().map(|entry| entry.map(|noted| noted.hash)).collect();
        PieceList::new(hashes?, self.cut)
    }

    /// Hashes as far as pieces are complete without a gap, so that less is left to do at the seal.
    ///
    /// Meant to be called while the transfer goes on; a second call at the same time returns at once.
    pub fn advance(&self) -> Result<(), Error> {
        match self.watermark.try_lock() {
            Ok(mut watermark) => self.hash_on(&mut watermark),
            Err(_) => Ok(()),
        }
    }

    fn hash_on(&self, watermark: &mut Watermark) -> Result<(), Error> {
        loop {
            let mut marks = self.marks();
            if let Some(piece) = marks.rewind.take() {
                watermark.back_to(piece);
            }
            if !marks.have.contains(watermark.next()) {
                return Ok(());
            }
            drop(marks);
            let hasher = watermark.ahead(&self.file).map_err(|error| self.failed("read", error))?;
            // While the bytes were read the piece may have been forgotten, and even noted again.
            let forgotten = self.marks().rewind.is_some_and(|piece| piece <= watermark.next());
            if !forgotten {
                watermark.take(hasher);
            }
        }
    }

    /// Ends the file: all pieces are here, the whole has its digest, and the disk has it.
    ///
    /// From then on nothing writes to it. After a mismatch it is open again, without the pieces whose
    /// bytes on disk are no longer those that were noted.
    pub fn seal(&self) -> Result<Verified<SealedFile>, SealError> {
        let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        if *gate == Gate::Closed {
            return Err(Error::Closed { path: self.path.clone() }.into());
        }
        let Some(pieces) = self.piece_list() else {
            let have = self.have();
            return Err(SealError::Missing { pieces: have.count() - have.len() });
        };
        let mut watermark = self.watermark.lock().unwrap_or_else(PoisonError::into_inner);
        self.hash_on(&mut watermark)?;
        let sealed = SealedFile {
            path: self.path.clone(),
            file: self.file.clone(),
            content: self.content,
            pieces,
            scraps: self.marks().journal.iter().map(|journal| journal.path().to_owned()).collect(),
            claim: self.claim.clone(),
        };
        match watermark.verify(sealed) {
            Ok(sealed) => {
                self.file.sync_all().map_err(|error| self.failed("sync", error))?;
                *gate = Gate::Closed;
                Ok(sealed)
            }
            Err(mismatch) => {
                let forgotten = self.forget_damaged()?;
                // What was hashed wrong may lie anywhere, so the next seal trusts none of it.
                watermark.back_to(0);
                Err(SealError::Mismatch { wanted: mismatch.wanted, found: mismatch.found, forgotten })
            }
        }
    }

    /// Forgets the pieces whose bytes on disk have another hash than was noted.
    fn forget_damaged(&self) -> Result<Vec<u32>, Error> {
        let mut buffer = Buffer::new();
        let mut forgotten = Vec::new();
        for piece in self.have().iter() {
            let on_disk = watermark::hash_piece(&self.file, self.cut, piece, &mut buffer)
                .map_err(|error| self.failed("read", error))?;
            if self.noted(piece).is_some_and(|(hash, _)| hash != on_disk) {
                self.forget(piece)?;
                forgotten.push(piece);
            }
        }
        Ok(forgotten)
    }

    /// Gives the file up and removes it from the disk.
    pub fn discard(&self) -> Result<(), Error> {
        let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        if *gate == Gate::Closed {
            return Err(Error::Closed { path: self.path.clone() });
        }
        *gate = Gate::Closed;
        // The journal goes first: bytes without a journal are swept away, a journal alone is too.
        let journal = self.marks().journal.take();
        for path in journal.iter().map(Journal::path).chain([self.path.as_path()]) {
            match disk::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", path, error, 0));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        // Each change of the marks is complete in itself, so a panic elsewhere leaves them true.
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> Error {
        failed(doing, &self.path, source, self.content.size)
    }
}

impl fmt::Debug for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partial").field("path", &self.path).field("content", &self.content).finish_non_exhaustive()
    }
}

/// The room's error for a failure of the disk at `path`, where `needed` bytes were to go.
pub(super) fn failed(doing: &'static str, path: &Path, source: io::Error, needed: u64) -> Error {
    if disk::is_full(&source) {
        Error::Full { path: path.to_owned(), needed }
    } else {
        Error::Io { doing, path: path.to_owned(), source }
    }
}
