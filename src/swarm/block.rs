//! A page-aligned buffer of one block.
//!
//! Knows memory. Does not know what is in it.
//! Invariant: the memory of a block starts at a multiple of `BLOCK_ALIGN`. The kernel needs twice the time
//! to copy to or from memory that is slightly off a page's start.

use crate::limits::{BLOCK_ALIGN, BLOCK_BYTES};

/// A buffer of `BLOCK_BYTES`, or of less when less will do.
pub(super) struct Block {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Block {
    /// A block for a stretch of this many bytes. A small one is spared the cost of clearing what it would
    /// not use, which is more than that of reading it.
    pub(super) fn new(stretch: u64) -> Self {
        let len = usize::try_from(stretch).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        let memory = vec![0; len + BLOCK_ALIGN];
        let start = memory.as_ptr().align_offset(BLOCK_ALIGN).min(BLOCK_ALIGN);
        Self { memory, start, len }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.start + self.len).unwrap_or_default()
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.start + self.len).unwrap_or_default()
    }
}

/// How many bytes to move next so that blocks end at multiples of `BLOCK_BYTES` in the file, where the
/// page cache and the disk want them to.
pub(super) fn step(offset: u64, left: u64) -> usize {
    let block = BLOCK_BYTES as u64;
    usize::try_from((block - offset % block).min(left)).unwrap_or(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_aligned_and_no_larger_than_its_stretch() {
        for _ in 0..10 {
            for (stretch, len) in [(u64::MAX, BLOCK_BYTES), (BLOCK_BYTES as u64, BLOCK_BYTES), (10_000, 10_000)] {
                let mut block = Block::new(stretch);
                assert_eq!(block.bytes().as_ptr().align_offset(BLOCK_ALIGN), 0);
                assert_eq!(block.bytes().len(), len);
                assert_eq!(block.bytes_mut().len(), len);
            }
        }
    }

    #[test]
    fn steps_end_at_block_boundaries_and_at_the_end() {
        let block = BLOCK_BYTES as u64;
        assert_eq!(step(0, 10 * block), BLOCK_BYTES);
        assert_eq!(step(block - 5, 10 * block), 5);
        assert_eq!(step(block + 1, 7), 7);
        assert_eq!(step(3 * block, 0), 0);
    }
}
