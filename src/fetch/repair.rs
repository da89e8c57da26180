//! Repair: a whole file that is not what it should be.
//!
//! Knows what came from whom and what is claimed about it. Does not know how pieces are fetched anew.
//! Invariant: nobody is convicted on a suspicion: before the file is right, a doubt only decides which pieces
//! are fetched again, and from whom not.

use std::collections::{BTreeMap, BTreeSet};

use tracing::warn;

use super::Error;
use super::download::Task;
use super::landing::{Landing, lock};
use crate::digest::PieceHash;
use crate::partial::Partial;
use crate::piece::PieceList;
use crate::plan::Source;

/// Pieces that are not asked of a source, because what it gave for them is in doubt.
pub(super) type Barred = BTreeMap<Source, Vec<u32>>;

/// Whether a repair has found anything to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Some,
    None,
}

impl Task {
    /// Picks the pieces to fetch anew when the whole does not match, and notes from whom not.
    ///
    /// The Hub's bytes are what others are measured by: where a peer's list contradicts them, what the
    /// list's maker sent is doubted. Pieces of others that a list contradicts are fetched from somebody
    /// else. With no contradiction at all, the least trusted source that gave anything is doubted as a
    /// whole. What came a second time, the same from the same source, is no use to doubt again.
    pub(super) fn doubt(&self, landing: &Landing, partial: &Partial, barred: &mut Barred) -> Result<Progress, Error> {
        let noted: Vec<_> = partial
            .have()
            .iter()
            .filter_map(|piece| partial.noted(piece).map(|(hash, source)| (piece, hash, Source::read(&source))))
            .collect();
        let is_hub = |source: &Source| matches!(source, Source::Endpoint(url) if self.inner.is_hub(&self.access, url));
        let doubted: Vec<_> = {
            let claims = lock(&landing.claims);
            let fresh: Vec<_> = noted.into_iter().filter(|(p, h, s)| !claims.is_doubted(*p, *h, s)).collect();
            let makers: BTreeSet<Source> = fresh
                .iter()
                .filter(|(.., source)| is_hub(source))
                .flat_map(|(piece, hash, _)| claims.contradicting(*piece, *hash))
                .map(Source::Peer)
                .collect();
            let suspect = |(piece, hash, source): &(u32, PieceHash, Source)| {
                !is_hub(source) && (makers.contains(source) || claims.is_disputed(*piece, *hash))
            };
            let disputed: Vec<_> = fresh.iter().filter(|noted| suspect(noted)).cloned().collect();
            if disputed.is_empty() {
                let least = fresh.iter().map(|(.., source)| source).max_by_key(|source| self.distrust(source, barred));
                let least = least.cloned();
                fresh.into_iter().filter(|(.., source)| Some(source) == least.as_ref()).collect()
            } else {
                disputed
            }
        };
        if doubted.is_empty() {
            return Ok(Progress::None);
        }
        for (piece, hash, source) in doubted {
            lock(&landing.claims).doubt(piece, hash, source.clone());
            landing.reopen(piece).map_err(Error::Partial)?;
            barred.entry(source).or_default().push(piece);
        }
        Ok(Progress::Some)
    }

    /// The higher, the sooner a source is doubted.
    fn distrust(&self, source: &Source, barred: &Barred) -> (u8, bool) {
        let kind = match source {
            Source::Peer(peer) if !self.inner.is_paired(peer) => 3,
            Source::Peer(_) => 2,
            Source::Endpoint(url) => u8::from(!self.inner.is_hub(&self.access, url)),
        };
        (kind, !barred.contains_key(source))
    }

    /// Tells who was wrong, now that the truth is known.
    pub(super) async fn judge(&self, landing: &Landing, truth: &PieceList) {
        let guilty = lock(&landing.claims).convict(truth);
        for source in guilty {
            warn!(%source, path = %self.place.path, "sent wrong bytes; they were fetched again from others");
            self.inner.convict(&source, &self.place.path).await;
        }
    }

    /// The file cannot be repaired: forget what is surely of no use, and name who sent it.
    pub(super) async fn give_up(&self, partial: &Partial, found: crate::digest::Digest) -> Error {
        let mut sources = BTreeSet::new();
        for piece in partial.have().iter() {
            if let Some((_, source)) = partial.noted(piece) {
                sources.insert(source);
            }
        }
        // With one source there is no doubt who sent it.
        if let [only] = sources.iter().map(|source| Source::read(source)).collect::<Vec<_>>().as_slice() {
            self.inner.convict(only, &self.place.path).await;
        }
        // A partial file of wrong bytes helps nobody.
        if let Err(error) = partial.discard() {
            warn!(%error, "could not remove a file that cannot be repaired");
        }
        Error::Wrong { path: self.place.path.clone(), sources: sources.into_iter().collect(), found }
    }
}
