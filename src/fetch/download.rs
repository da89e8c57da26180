//! One download: a file that is not on this machine comes here.
//!
//! Knows the unfinished file, and what to do when the whole is not what it should be. Does not know repos beyond the
//! place where endpoints have the file, nor what the file is wanted for.
//! Invariant: it ends with a sealed file, or with an error and everything that came still on disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::claims::Claims;
use super::driver::Driver;
use super::landing::Landing;
use super::repair::{Barred, Progress};
use super::tally::Tally;
use super::{Error, Inner, Nameless, link_local};
use crate::config::Access;
use crate::hub::Place;
use crate::limits;
use crate::pace::Joint;
use crate::partial::{Partial, SealError};
use crate::plan::RangeId;

/// What a download needs to know.
pub(super) struct Task {
    pub(super) inner: Arc<Inner>,
    pub(super) access: Access,
    /// Where endpoints have the file.
    pub(super) place: Place,
    pub(super) tally: Arc<Tally>,
    /// How fast those who wait for it may have it.
    pub(super) pace: Arc<Joint>,
}

/// What a download begins with.
pub(super) enum Claimed {
    /// The content was on this machine, and is linked into its place.
    Here(PathBuf),
    Partial(Arc<Partial>),
}

impl Task {
    /// Brings the file here, seals and publishes it, and says where it is.
    pub(super) async fn run(&self, partial: Arc<Partial>) -> Result<PathBuf, Error> {
        self.tally.resumed(partial.resumed_bytes());
        let landing = Landing::new(Arc::clone(&partial), Claims::default(), Arc::clone(&self.tally));
        let mut barred = Barred::new();
        let mut range = RangeId::default();
        for repairs in 0..=limits::REPAIRS_MAX {
            self.bring(&landing, &barred, &mut range).await?;
            let (sealing, cache, place) = (Arc::clone(&partial), self.inner.cache.clone(), self.place.clone());
            // In one visit to another thread, because for a small file the way there is the longest part.
            let sealed = blocking(move || {
                let sealed = sealing.seal()?;
                let pieces = sealed.get().pieces.clone();
                Ok((pieces, cache.publish(&place.repo, &place.commit, &place.path, sealed)))
            });
            match sealed.await? {
                Ok((pieces, published)) => {
                    self.judge(&landing, &pieces).await;
                    return published.map_err(Error::Cache);
                }
                // The seal has forgotten what was not on disk as noted; the next round brings it.
                Err(SealError::Missing { .. }) => {}
                Err(SealError::Mismatch { forgotten, .. }) if !forgotten.is_empty() => {
                    warn!(?forgotten, path = %self.place.path, "pieces changed on disk; bringing them anew");
                    for piece in forgotten {
                        landing.reopen(piece).map_err(Error::Partial)?;
                    }
                }
                Err(SealError::Mismatch { found, .. }) if repairs < limits::REPAIRS_MAX => {
                    warn!(path = %self.place.path, "the file is not what it should be; looking for the wrong part");
                    if self.doubt(&landing, &partial, &mut barred)? == Progress::None {
                        return Err(self.give_up(&partial, found).await);
                    }
                }
                Err(SealError::Mismatch { found, .. }) => return Err(self.give_up(&partial, found).await),
                Err(SealError::Disk(error)) => return Err(Error::Partial(error)),
            }
        }
        Err(Error::NeverWhole { path: self.place.path.clone() })
    }

    /// Links the content if this machine has it by now, or claims the unfinished file. A download that was
    /// just cancelled may hold it for a moment longer, until its disk work is done.
    pub(super) async fn claim(&self, nameless: Nameless) -> Result<Claimed, Error> {
        let mut waited = Duration::ZERO;
        loop {
            let (cache, partials, place) = (self.inner.cache.clone(), self.inner.partials.clone(), self.place.clone());
            let claimed = blocking(move || match link_local(&cache, &place, nameless) {
                Ok(Some(path)) => Ok(Claimed::Here(path)),
                Ok(None) => {
                    let claimed = partials.claim(&place.repo, &place.content);
                    claimed.map(Claimed::Partial).map_err(Error::Partial)
                }
                Err(error) => Err(Error::Cache(error)),
            });
            match claimed.await? {
                Err(Error::Partial(crate::partial::Error::Claimed { .. })) if waited < limits::CLAIM_PATIENCE => {
                    tokio::time::sleep(limits::PLAN_TICK).await;
                    waited += limits::PLAN_TICK;
                }
                claimed => return claimed,
            }
        }
    }

    /// Drives a plan until every piece is there. `range` numbers the ranges on from round to round.
    async fn bring(&self, landing: &Arc<Landing>, barred: &Barred, range: &mut RangeId) -> Result<(), Error> {
        let mut driver = Driver::new(self, *range, landing);
        let result = driver.drive(barred).await;
        *range = driver.stop().await;
        // What aborted ranges have left behind speaks of a plan that is over.
        drop(landing.news());
        self.tally.busy((0, 0));
        result
    }
}

/// Runs disk work where it may block. The error is a panic or the end of the runtime.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Interrupted)
}

const _: () = assert!(limits::PLAN_TICK.as_millis() < Duration::from_secs(1).as_millis());
