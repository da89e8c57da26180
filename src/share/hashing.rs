//! Hashing: files that other tools put into the cache are verified before a byte of them leaves.
//!
//! Knows what is being hashed and who joins in. Does not know who asks.
//! Invariant: each file is hashed by one task at a time however many ask for it; one file is hashed at a
//! time, because the user's own work on this machine goes first; and a file is called missing only when it
//! cannot be had from here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use super::blocking;
use crate::cache::{self, Blob, Cache, Held, Unverified};
use crate::digest::Digest;
use crate::limits;
use crate::swarm::Refusal;

/// The outcome of a hash, for all who wait for it. It goes on when none is left.
pub(super) type Hashed = Shared<BoxFuture<'static, Result<Blob, Refusal>>>;

/// For whoever may ask again.
pub(super) const LATER: Refusal = Refusal::Busy(limits::VERIFY_RETRY);

/// The hashes that run or wait. Cheap to clone.
#[derive(Clone)]
pub(super) struct Hashing {
    cache: Cache,
    turn: Arc<Semaphore>,
    open: Arc<Mutex<HashMap<Digest, Hashed>>>,
}

impl Hashing {
    pub(super) fn new(cache: Cache) -> Self {
        Self { cache, turn: Arc::new(Semaphore::new(1)), open: Arc::default() }
    }

    /// Begins to hash a file in its turn, or joins those for whom it is hashed already.
    pub(super) fn begin(&self, unverified: Unverified) -> Result<Hashed, Refusal> {
        let digest = unverified.content().digest;
        let mut open = self.open();
        if let Some(hashed) = open.get(&digest) {
            return Ok(hashed.clone());
        }
        if open.len() >= limits::VERIFICATIONS_WAITING {
            return Err(LATER);
        }
        let this = self.clone();
        let task = tokio::spawn(async move {
            let outcome = this.hash(unverified).await;
            this.open().remove(&digest);
            outcome
        });
        let hashed = task.map(|outcome| outcome.unwrap_or(Err(LATER))).boxed().shared();
        open.insert(digest, hashed.clone());
        Ok(hashed)
    }

    async fn hash(&self, unverified: Unverified) -> Result<Blob, Refusal> {
        let _turn = self.turn.acquire().await.map_err(|_| LATER)?;
        let cache = self.cache.clone();
        let outcome = blocking(move || {
            // An add may have verified it meanwhile, or put a good file in its place.
            if let Some(Held::Verified(blob)) = cache.find(&unverified.content()) {
                return Ok(blob);
            }
            info!(path = %unverified.path().display(), "hashing a file of another tool before it is shared");
            cache.verify(&unverified)
        });
        match outcome.await {
            Some(Ok(blob)) => Ok(blob),
            // Another tool is at work on it.
            Some(Err(cache::Error::Changed { .. })) | None => Err(LATER),
            // It was no more than a guess.
            Some(Err(error @ cache::Error::Another { .. })) => {
                debug!(%error, "is known by now");
                Err(Refusal::Missing)
            }
            Some(Err(error)) => {
                warn!(%error, "is not shared");
                Err(Refusal::Missing)
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Digest, Hashed>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::share::tests::{Scene, content, friend, whole};
    use crate::swarm::Serve;
    use crate::wire::{Answer, Hold, Query};

    /// Longer than anything here should take, on a machine with much else to do.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn all_who_ask_for_a_file_join_one_hash() {
        let scene = Scene::with(&[("m", "weights")]);
        let share = scene.share(&[]);
        let hashing = &share.inner.hashing;
        let turn = hashing.turn.acquire().await.unwrap();
        for _ in 0..2 * limits::VERIFICATIONS_WAITING {
            let asked = share.answer(friend(), Query::Holds { contents: vec![content("weights")] });
            assert_eq!(asked.await, Answer::Holds(vec![Hold::Whole]));
        }
        assert_eq!(hashing.open().len(), 1);
        assert_eq!(share.open(friend(), whole("weights")).await.unwrap_err(), LATER);
        let joined = hashing.begin(scene.unverified("weights")).unwrap();
        drop(turn);
        let blob = tokio::time::timeout(PATIENCE, joined).await.unwrap().unwrap();
        assert_eq!(blob.content(), content("weights"));
        assert!(hashing.open().is_empty());
        assert!(share.open(friend(), whole("weights")).await.is_ok());
    }

    #[tokio::test]
    async fn where_too_many_files_wait_a_further_one_is_busy_and_not_missing() {
        let texts: Vec<String> = (0..=limits::VERIFICATIONS_WAITING).map(|n| format!("file {n}")).collect();
        let files: Vec<(&str, &str)> = texts.iter().map(|text| ("m", text.as_str())).collect();
        let scene = Scene::with(&files);
        let share = scene.share(&[]);
        let turn = share.inner.hashing.turn.acquire().await.unwrap();
        let (last, others) = texts.split_last().unwrap();
        for text in others {
            drop(share.inner.hashing.begin(scene.unverified(text)).unwrap());
        }
        assert_eq!(share.open(friend(), whole(last)).await.unwrap_err(), LATER);
        drop(turn);
        let opened = async {
            while let Err(refusal) = share.open(friend(), whole(last)).await {
                assert_eq!(refusal, LATER);
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, opened).await.unwrap();
    }
}
