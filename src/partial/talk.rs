//! The talk about an unfinished file: what its download tells those that bring the same file, and who has asked.
//!
//! Knows the last word of the download. Does not know what it means, nor how peers are reached.
//! Invariant: it holds one word and a bounded number of names, however many ask.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::limits;
use crate::names::PeerId;
use crate::plan::Word;

/// Where a download and those who answer for it meet.
#[derive(Debug, Default)]
pub struct Talk {
    word: Mutex<Word>,
    askers: Mutex<BTreeSet<PeerId>>,
    knock: Notify,
}

impl Talk {
    /// The download says how it stands.
    pub fn say(&self, word: Word) {
        *self.word.lock().unwrap_or_else(PoisonError::into_inner) = word;
    }

    /// What it said last.
    pub fn word(&self) -> Word {
        self.word.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A peer asks because it brings the same file.
    pub fn asked_by(&self, peer: PeerId) {
        let mut askers = self.askers.lock().unwrap_or_else(PoisonError::into_inner);
        if askers.len() < limits::ASKERS_MAX && askers.insert(peer) {
            self.knock.notify_one();
        }
    }

    /// Waits for peers that ask, and returns each once. Cancel safe.
    pub async fn askers(&self) -> BTreeSet<PeerId> {
        loop {
            let askers = std::mem::take(&mut *self.askers.lock().unwrap_or_else(PoisonError::into_inner));
            if !askers.is_empty() {
                return askers;
            }
            self.knock.notified().await;
        }
    }
}

/// A name for a new order of pieces, which no other has, in this process or another.
pub(super) fn new_run() -> u64 {
    RandomState::new().hash_one(0)
}
