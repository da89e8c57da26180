//! Landing: arriving bytes are put at their place, piece by piece.
//!
//! Knows the unfinished file, which piece is being written by which range, and what is claimed about
//! pieces. Does not know where bytes come from beyond the name of the source, nor what is asked next.
//! Invariant: at any moment at most one range writes a piece, and nobody writes a piece that is noted;
//! so what was hashed while it arrived is what lies on disk.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::claims::{Claims, Judgement, Standing};
use super::tally::Tally;
use crate::digest::PieceHasher;
use crate::partial::{self, Partial};
use crate::piece::{Cut, PieceSet};
use crate::plan::{RangeId, Source};

/// What has happened since the driver last looked. It is bounded by the number of ranges and pieces.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) received: BTreeMap<RangeId, u64>,
    pub(super) pieces: Vec<u32>,
    pub(super) refused: Vec<(RangeId, u32)>,
}

/// The place where all ranges of one file land.
pub(super) struct Landing {
    partial: Arc<Partial>,
    cut: Cut,
    have: Mutex<PieceSet>,
    slots: Mutex<HashMap<u32, Arc<Mutex<Slot>>>>,
    news: Mutex<News>,
    pub(super) claims: Mutex<Claims>,
    pub(super) tally: Arc<Tally>,
    /// Rung when a piece is complete or refused. Bytes alone wait for the driver's next tick.
    pub(super) bell: Notify,
}

/// A piece on its way.
#[derive(Debug, Default)]
struct Slot {
    writer: Option<RangeId>,
    noted: bool,
}

/// A poisoned lock only tells that another range's task panicked; the state behind these locks is
/// consistent after every statement.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Landing {
    pub(super) fn new(partial: Arc<Partial>, claims: Claims, tally: Arc<Tally>) -> Arc<Self> {
        let have = partial.have();
        Arc::new(Self {
            cut: partial.cut(),
            have: Mutex::new(have),
            slots: Mutex::default(),
            news: Mutex::default(),
            claims: Mutex::new(claims),
            bell: Notify::new(),
            partial,
            tally,
        })
    }

    pub(super) fn cut(&self) -> Cut {
        self.cut
    }

    pub(super) fn partial(&self) -> Arc<Partial> {
        Arc::clone(&self.partial)
    }

    /// Takes what has happened since the last call.
    pub(super) fn news(&self) -> News {
        std::mem::take(&mut *lock(&self.news))
    }

    /// Declares a piece missing again, because the file is being repaired.
    pub(super) fn reopen(&self, piece: u32) -> Result<(), partial::Error> {
        let mut have = lock(&self.have);
        self.partial.forget(piece)?;
        if have.remove(piece) {
            self.tally.undone(self.cut.len_of(piece));
        }
        Ok(())
    }

    /// The slot of a piece that is still missing.
    fn slot(&self, piece: u32) -> Option<Arc<Mutex<Slot>>> {
        let mut slots = lock(&self.slots);
        if lock(&self.have).contains(piece) {
            return None;
        }
        Some(Arc::clone(slots.entry(piece).or_default()))
    }
}

/// How the landing of some bytes went.
#[derive(Debug)]
pub(super) enum Landed {
    Go,
    /// The range has brought all that is still wanted of it.
    Enough,
    Failed(partial::Error),
}

/// The landing of one range.
pub(super) struct Arrival {
    landing: Arc<Landing>,
    range: RangeId,
    source: Source,
    standing: Standing,
    /// The first byte that was asked for; earlier ones come from endpoints that ignore ranges.
    start: u64,
    /// The range ends before this piece; the driver may lower it while the range runs.
    end: Arc<AtomicU32>,
    hasher: PieceHasher,
    piece: Option<Current>,
}

struct Current {
    number: u32,
    /// `None`: the piece was there before the range came to it.
    slot: Option<Arc<Mutex<Slot>>>,
    /// Bytes that wait, because another range is writing this piece.
    waiting: Option<Vec<u8>>,
}

impl Arrival {
    pub(super) fn new(
        landing: Arc<Landing>,
        range: RangeId,
        (source, standing): (Source, Standing),
        start: u64,
        end: Arc<AtomicU32>,
    ) -> Self {
        Self { landing, range, source, standing, start, end, hasher: PieceHasher::new(), piece: None }
    }

    /// Takes bytes that belong at `offset`, which follow those of the last call.
    pub(super) fn take(&mut self, mut offset: u64, bytes: &[u8]) -> Landed {
        self.landing.tally.received(&self.source, bytes.len() as u64);
        let early = usize::try_from(self.start.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        let (_, mut bytes) = bytes.split_at(early);
        offset += early as u64;
        *lock(&self.landing.news).received.entry(self.range).or_default() += bytes.len() as u64;
        while !bytes.is_empty() {
            let number = self.landing.cut.at(offset);
            if number >= self.end.load(Ordering::Relaxed) {
                return Landed::Enough;
            }
            let span = self.landing.cut.bytes(&(number..number + 1));
            let here = usize::try_from(span.end - offset).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(here);
            let placed = self.place(number, offset, now).and_then(|()| {
                offset += now.len() as u64;
                if offset == span.end { self.complete(number, span.start) } else { Ok(()) }
            });
            if let Err(error) = placed {
                return Landed::Failed(error);
            }
            bytes = later;
        }
        let next = self.landing.cut.at(offset);
        let at_its_start = self.landing.cut.bytes(&(next..next + 1)).start == offset;
        if at_its_start && next >= self.end.load(Ordering::Relaxed) { Landed::Enough } else { Landed::Go }
    }

    fn place(&mut self, number: u32, offset: u64, bytes: &[u8]) -> Result<(), partial::Error> {
        if self.piece.as_ref().is_none_or(|current| current.number != number) {
            self.leave();
            self.hasher = PieceHasher::new();
            self.piece = Some(Current { number, slot: self.landing.slot(number), waiting: None });
        }
        let Some(current) = &mut self.piece else { return Ok(()) };
        let Some(slot) = &current.slot else { return Ok(()) };
        let mut slot = lock(slot);
        if slot.noted {
            return Ok(());
        }
        self.hasher.update(bytes);
        if current.waiting.is_none() && *slot.writer.get_or_insert(self.range) == self.range {
            // The lock is held while writing, so that the piece cannot change hands in between. Nobody
            // else wants it but a second range for the same piece.
            return self.landing.partial.write_at(offset, bytes);
        }
        current.waiting.get_or_insert_default().extend_from_slice(bytes);
        Ok(())
    }

    fn complete(&mut self, number: u32, begin: u64) -> Result<(), partial::Error> {
        let Some(Current { slot: Some(slot), waiting, .. }) = self.piece.take() else { return Ok(()) };
        let mut state = lock(&slot);
        if state.noted {
            return Ok(());
        }
        let hash = self.hasher.finish();
        let mine = state.writer == Some(self.range);
        let judgement = lock(&self.landing.claims).judge(number, hash, &self.source, self.standing);
        match judgement {
            Judgement::Refused => {
                if mine {
                    state.writer = None;
                }
                lock(&self.landing.news).refused.push((self.range, number));
            }
            Judgement::Accepted | Judgement::Proven => {
                if let Some(bytes) = waiting {
                    state.writer = Some(self.range);
                    self.landing.partial.write_at(begin, &bytes)?;
                }
                self.landing.partial.note(number, hash, &self.source.to_string())?;
                if judgement == Judgement::Proven {
                    self.landing.partial.prove(number);
                }
                state.noted = true;
                lock(&self.landing.have).insert(number);
                lock(&self.landing.slots).remove(&number);
                self.landing.tally.done(self.landing.cut.len_of(number));
                lock(&self.landing.news).pieces.push(number);
            }
        }
        self.landing.bell.notify_one();
        Ok(())
    }

    /// Gives the current piece back, if it was this range that wrote it.
    fn leave(&mut self) {
        if let Some(Current { slot: Some(slot), .. }) = self.piece.take() {
            let mut slot = lock(&slot);
            if slot.writer == Some(self.range) && !slot.noted {
                slot.writer = None;
            }
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.leave();
    }
}
