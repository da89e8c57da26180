//! The whole-file hash that follows the pieces as they become complete.
//!
//! Knows the order of bytes in a file. Does not know which pieces are complete.
//! Invariant: what is hashed is exactly the pieces below `next`, each once, in order.
//!
//! The state of the hash is kept every so many pieces, because a piece that turns out bad must be
//! taken back out of it and a hash does not run backwards.

use std::fs::File;
use std::io;

use crate::digest::{Hasher, Mismatch, PieceHash, PieceHasher, Verified};
use crate::disk::{self, Buffer};
use crate::limits;
use crate::piece::Cut;
use crate::tree::Content;

pub(super) struct Watermark {
    cut: Cut,
    hasher: Hasher,
    next: u32,
    /// The hash before piece 0, `HASH_MARK_PIECES`, twice that, and so on up to `next`.
    marks: Vec<Hasher>,
    /// Made when first needed: an unfinished file that waits needs none.
    buffer: Option<Buffer>,
}

impl Watermark {
    pub(super) fn new(content: Content, cut: Cut) -> Self {
        let hasher = Hasher::new(content.digest, content.size);
        Self { cut, hasher: hasher.clone(), next: 0, marks: vec![hasher], buffer: None }
    }

    /// The first piece that is not hashed yet.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// The hash with the next piece's bytes, as they are on disk now. It counts once it is taken.
    pub(super) fn ahead(&mut self, file: &File) -> io::Result<Hasher> {
        let mut hasher = self.hasher.clone();
        let buffer = self.buffer.get_or_insert_with(|| Buffer::for_file(self.cut.size()));
        read_piece(file, self.cut, self.next, buffer, |bytes| hasher.update(bytes))?;
        Ok(hasher)
    }

    pub(super) fn take(&mut self, hasher: Hasher) {
        self.hasher = hasher;
        self.next += 1;
        if self.next.is_multiple_of(limits::HASH_MARK_PIECES) {
            self.marks.push(self.hasher.clone());
        }
    }

    /// Goes back far enough that `piece` and all after it are hashed anew.
    pub(super) fn back_to(&mut self, piece: u32) {
        if piece >= self.next {
            return;
        }
        let mark = piece / limits::HASH_MARK_PIECES;
        self.marks.truncate(mark as usize + 1);
        if let Some(hasher) = self.marks.last() {
            self.hasher = hasher.clone();
            self.next = mark * limits::HASH_MARK_PIECES;
        }
    }

    /// Compares the hash of the pieces so far with the digest, as if they were all.
    pub(super) fn verify<T>(&self, thing: T) -> Result<Verified<T>, Mismatch> {
        self.hasher.clone().verify(thing)
    }
}

/// The hash of a piece's bytes as they are on disk.
pub(super) fn hash_piece(file: &File, cut: Cut, piece: u32, buffer: &mut Buffer) -> io::Result<PieceHash> {
    let mut hasher = PieceHasher::new();
    read_piece(file, cut, piece, buffer, |bytes| hasher.update(bytes))?;
    Ok(hasher.finish())
}

fn read_piece(file: &File, cut: Cut, piece: u32, buffer: &mut Buffer, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut range = cut.bytes(&(piece..piece + 1));
    while !range.is_empty() {
        let bytes = buffer.up_to(range.end - range.start);
        disk::read_exact_at(file, bytes, range.start)?;
        range.start += bytes.len() as u64;
        take(bytes);
    }
    Ok(())
}
