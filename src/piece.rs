//! Pieces: how a file is cut, and sets of the parts that somebody has.
//!
//! Knows sizes and numbers. Does not know bytes, files or peers.
//! Invariant: every machine cuts a file of one size in the same way, so a piece's number means the
//! same everywhere and is never sent along with a size.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::digest::PieceHash;
use crate::limits;

/// How a file of a given size is cut into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    size: u64,
    piece_bytes: u64,
}

impl Cut {
    /// Pieces are 1 MiB, doubled until there are no more than `PIECES_MAX`: a lost piece is cheap on
    /// a slow line, and a list of all pieces stays a small message for the largest file.
    pub fn new(size: u64) -> Self {
        let mut piece_bytes = limits::PIECE_BYTES_MIN;
        while size.div_ceil(piece_bytes) > u64::from(limits::PIECES_MAX) {
            piece_bytes *= 2;
        }
        Self { size, piece_bytes }
    }

    /// The file's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The size in bytes of every piece but the last.
    pub fn piece_bytes(&self) -> u64 {
        self.piece_bytes
    }

    /// How many pieces the file has; an empty file has none.
    pub fn count(&self) -> u32 {
        u32::try_from(self.size.div_ceil(self.piece_bytes)).unwrap_or(u32::MAX)
    }

    /// The bytes that the pieces cover.
    pub fn bytes(&self, pieces: &Range<u32>) -> Range<u64> {
        let at = |piece: u32| (u64::from(piece) * self.piece_bytes).min(self.size);
        at(pieces.start)..at(pieces.end)
    }

    /// How many bytes one piece has.
    pub fn len_of(&self, piece: u32) -> u64 {
        let bytes = self.bytes(&(piece..piece.saturating_add(1)));
        bytes.end - bytes.start
    }

    /// The piece that the byte at `offset` lies in.
    pub fn at(&self, offset: u64) -> u32 {
        u32::try_from(offset / self.piece_bytes).unwrap_or(u32::MAX)
    }
}

/// A set of pieces of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceSet {
    words: Vec<u64>,
    count: u32,
    len: u32,
}

impl PieceSet {
    /// No piece out of `count`.
    pub fn none(count: u32) -> Self {
        Self { words: vec![0; count.div_ceil(64) as usize], count, len: 0 }
    }

    /// All of `count` pieces.
    pub fn all(count: u32) -> Self {
        let mut set = Self::none(count);
        for piece in 0..count {
            set.insert(piece);
        }
        set
    }

    /// How many pieces the file has.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many pieces are in the set.
    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the set holds every piece of the file.
    pub fn is_full(&self) -> bool {
        self.len == self.count
    }

    pub fn contains(&self, piece: u32) -> bool {
        self.words.get((piece / 64) as usize).is_some_and(|word| word >> (piece % 64) & 1 == 1)
    }

    /// Adds a piece and says whether it is new; a number beyond the file's pieces is never added.
    pub fn insert(&mut self, piece: u32) -> bool {
        if piece >= self.count || self.contains(piece) {
            return false;
        }
        if let Some(word) = self.words.get_mut((piece / 64) as usize) {
            *word |= 1 << (piece % 64);
            self.len += 1;
        }
        true
    }

    /// Takes a piece out and says whether it was there.
    pub fn remove(&mut self, piece: u32) -> bool {
        if !self.contains(piece) {
            return false;
        }
        if let Some(word) = self.words.get_mut((piece / 64) as usize) {
            *word &= !(1 << (piece % 64));
            self.len -= 1;
        }
        true
    }

    /// The pieces in the set, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| {
            let base = u32::try_from(at * 64).unwrap_or(u32::MAX);
            std::iter::successors(Some(word), |rest| Some(rest & rest.wrapping_sub(1)))
                .take_while(|rest| *rest != 0)
                .map(move |rest| base + rest.trailing_zeros())
        })
    }

    /// The first piece of the set at `from` or behind it.
    pub fn next(&self, from: u32) -> Option<u32> {
        let first = (from / 64) as usize;
        let words = self.words.iter().enumerate().skip(first);
        words
            .map(|(at, word)| (at, if at == first { word & (u64::MAX << (from % 64)) } else { *word }))
            .find(|(_, word)| *word != 0)
            .map(|(at, word)| u32::try_from(at * 64).unwrap_or(u32::MAX) + word.trailing_zeros())
    }

    /// Adds all pieces of another set of the same file.
    pub fn add_all(&mut self, others: &PieceSet) {
        self.combine(others, |own, other| own | other);
    }

    /// Takes out all pieces of another set of the same file.
    pub fn remove_all(&mut self, others: &PieceSet) {
        self.combine(others, |own, other| own & !other);
    }

    /// Keeps only the pieces that are in another set of the same file as well.
    pub fn keep_all(&mut self, others: &PieceSet) {
        self.combine(others, |own, other| own & other);
    }

    /// Whether it has a piece that is not among the others.
    pub fn has_more_than(&self, others: &PieceSet) -> bool {
        let others = others.words.iter().copied().chain(std::iter::repeat(0));
        self.words.iter().zip(others).any(|(own, other)| own & !other != 0)
    }

    fn combine(&mut self, others: &PieceSet, with: impl Fn(u64, u64) -> u64) {
        let others = others.words.iter().copied().chain(std::iter::repeat(0));
        for (own, other) in self.words.iter_mut().zip(others) {
            *own = with(*own, other);
        }
        // Of another file's set, pieces that this one does not have are no pieces.
        if let (Some(last), rest @ 1..) = (self.words.last_mut(), self.count % 64) {
            *last &= (1 << rest) - 1;
        }
        self.len = self.words.iter().map(|word| word.count_ones()).sum();
    }

    /// The set as bytes, piece 0 in the lowest bit of the first: what goes over the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(self.count.div_ceil(8) as usize);
        bytes
    }

    /// Reads what `to_bytes` wrote for a file of `count` pieces. `None` when the length is another,
    /// or a bit stands beyond the last piece: then the sender speaks of another file.
    pub fn from_bytes(bytes: &[u8], count: u32) -> Option<Self> {
        if bytes.len() != count.div_ceil(8) as usize {
            return None;
        }
        let mut set = Self::none(count);
        for (at, &byte) in bytes.iter().enumerate() {
            for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                if !set.insert(u32::try_from(at * 8 + bit).ok()?) {
                    return None;
                }
            }
        }
        Some(set)
    }
}

/// The BLAKE3 of each piece of a file, in order: its maker's claim until the file is verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PieceList(Vec<PieceHash>);

impl PieceList {
    /// A list for a file cut as `cut`; `None` when the number of hashes is not its number of pieces.
    pub fn new(hashes: Vec<PieceHash>, cut: Cut) -> Option<Self> {
        (hashes.len() == cut.count() as usize).then_some(Self(hashes))
    }

    pub fn get(&self, piece: u32) -> Option<PieceHash> {
        self.0.get(piece as usize).copied()
    }

    pub fn hashes(&self) -> &[PieceHash] {
        &self.0
    }

    /// The pieces that two lists of one file do not agree on.
    pub fn disputed(&self, other: &PieceList) -> Vec<u32> {
        (0u32..).zip(self.0.iter().zip(&other.0)).filter(|(_, (a, b))| a != b).map(|(piece, _)| piece).collect()
    }

    /// The hashes one after the other, 32 bytes each: what goes over the wire and to disk.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|hash| hash.0).collect()
    }

    /// Reads what `to_bytes` wrote for a file cut as `cut`.
    pub fn from_bytes(bytes: &[u8], cut: Cut) -> Option<Self> {
        let (hashes, rest) = bytes.as_chunks::<32>();
        if !rest.is_empty() {
            return None;
        }
        Self::new(hashes.iter().copied().map(PieceHash).collect(), cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_largest_files_have_bounded_piece_counts() {
        assert_eq!(Cut::new(0).count(), 0);
        assert_eq!(Cut::new(1).count(), 1);
        assert_eq!(Cut::new(limits::PIECE_BYTES_MIN + 1).count(), 2);
        for size in [1 << 36, (1 << 36) + 1, 500_000_000_000, limits::FILE_BYTES_MAX] {
            assert!(Cut::new(size).count() <= limits::PIECES_MAX);
        }
    }

    proptest! {
        #[test]
        fn pieces_tile_the_file(size in 0u64..1 << 40) {
            let cut = Cut::new(size);
            prop_assert_eq!(cut.bytes(&(0..cut.count())), 0..size);
            if cut.count() > 0 {
                let last = cut.count() - 1;
                prop_assert!(cut.len_of(last) >= 1);
                prop_assert_eq!(cut.bytes(&(0..last)).end + cut.len_of(last), size);
                prop_assert_eq!(cut.at(size - 1), last);
            }
        }

        #[test]
        fn sets_survive_the_wire(count in 0u32..500, picks in proptest::collection::vec(0u32..600, 0..80)) {
            let mut set = PieceSet::none(count);
            for &pick in &picks {
                set.insert(pick);
            }
            let mut wanted: Vec<u32> = picks.into_iter().filter(|&p| p < count).collect();
            wanted.sort_unstable();
            wanted.dedup();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), wanted);
            prop_assert_eq!(PieceSet::from_bytes(&set.to_bytes(), count), Some(set));
        }

        #[test]
        fn sets_combine_as_sets_do(
            count in 1u32..300,
            one in proptest::collection::btree_set(0u32..300, 0..60),
            other in proptest::collection::btree_set(0u32..300, 0..60),
            from in 0u32..310,
        ) {
            let set = |picks: &std::collections::BTreeSet<u32>| {
                let mut set = PieceSet::none(count);
                picks.iter().for_each(|piece| { set.insert(*piece); });
                set
            };
            let (a, b) = (set(&one), set(&other));
            let within = |pieces: Vec<u32>| pieces.into_iter().filter(|p| *p < count).collect::<Vec<_>>();
            type Combine = fn(&mut PieceSet, &PieceSet);
            let cases: [(Combine, Vec<u32>); 3] = [
                (PieceSet::add_all, one.union(&other).copied().collect()),
                (PieceSet::remove_all, one.difference(&other).copied().collect()),
                (PieceSet::keep_all, one.intersection(&other).copied().collect()),
            ];
            for (combine, wanted) in cases {
                let mut sum = a.clone();
                combine(&mut sum, &b);
                prop_assert_eq!(sum.iter().collect::<Vec<_>>(), within(wanted.clone()));
                prop_assert_eq!(sum.len() as usize, within(wanted).len());
            }
            prop_assert_eq!(a.next(from), a.iter().find(|piece| *piece >= from));
        }

        #[test]
        fn foreign_bytes_never_become_a_set_of_more_pieces(bytes in proptest::collection::vec(any::<u8>(), 0..64), count in 0u32..520) {
            if let Some(set) = PieceSet::from_bytes(&bytes, count) {
                prop_assert!(set.iter().all(|piece| piece < count));
            }
        }
    }
}
