//! A throttle: transfers pass it in turns.
//!
//! Knows clocks and queues. Does not know which transfer is which.
//! Invariant: turns go round in the order in which they were asked for, one portion each; and a change of
//! the rate is felt by those who wait already.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::Rate;
use super::bucket::Bucket;
use crate::limits;

/// Lets bytes pass at a rate that may change, or all at once. Clones are the same throttle.
#[derive(Debug, Clone)]
pub struct Throttle {
    line: Arc<Line>,
}

#[derive(Debug)]
struct Line {
    /// Bytes a second; 0 without a limit. It only repeats what the bucket has, for those who need not wait.
    rate: AtomicU64,
    bucket: Mutex<Bucket>,
    /// Held by the one who is next; the others get it in the order in which they came.
    turn: tokio::sync::Mutex<()>,
    waiting: AtomicUsize,
    changed: Notify,
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Throttle {
    /// A throttle with a limit, or one without.
    pub fn new(rate: Option<Rate>) -> Self {
        let line = Line {
            rate: AtomicU64::new(rate.map_or(0, Rate::bytes)),
            bucket: Mutex::new(Bucket::new(rate, Instant::now())),
            turn: tokio::sync::Mutex::new(()),
            waiting: AtomicUsize::new(0),
            changed: Notify::new(),
        };
        Self { line: Arc::new(line) }
    }

    /// Changes the limit, for those who wait as well.
    pub fn set(&self, rate: Option<Rate>) {
        self.bucket().set(rate, Instant::now());
        self.line.rate.store(rate.map_or(0, Rate::bytes), Ordering::Relaxed);
        self.line.changed.notify_waiters();
    }

    /// The limit, if there is one.
    pub fn rate(&self) -> Option<Rate> {
        Rate::new(self.line.rate.load(Ordering::Relaxed)).ok()
    }

    /// Whether somebody waits: more would flow if it might.
    pub fn is_contended(&self) -> bool {
        self.line.waiting.load(Ordering::Relaxed) > 0
    }

    /// How many of these bytes to move at once, so that everybody's turn comes soon.
    ///
    /// Powers of two, because files are written in blocks that such portions fill without a rest.
    pub fn portion(&self, most: usize) -> usize {
        let rate = self.line.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return most;
        }
        let sharing = self.line.waiting.load(Ordering::Relaxed).saturating_add(1);
        let round = rate as f64 * limits::PACE_ROUND.as_secs_f64() / sharing as f64;
        let alone = rate as f64 * limits::PACE_PORTION.as_secs_f64();
        let portion = (round.min(alone) as usize).max(limits::PACE_PORTION_BYTES_MIN);
        (1 << portion.ilog2()).min(most)
    }

    /// How many bytes one of those who share the limit should have asked for and not got; `None`: any number.
    pub(super) fn ahead(&self) -> Option<u64> {
        let rate = self.rate()?.per_sec();
        let sharing = self.line.waiting.load(Ordering::Relaxed).saturating_add(1);
        let ahead = rate * limits::PACE_AHEAD.as_secs_f64() / sharing as f64;
        Some((ahead as u64).max(limits::PACE_AHEAD_BYTES_MIN))
    }

    /// Waits until so many bytes more may pass. A wait that is given up costs the others nothing.
    pub async fn pass(&self, bytes: usize) {
        if bytes == 0 || self.line.rate.load(Ordering::Relaxed) == 0 {
            return;
        }
        let _waiting = Waiting::new(&self.line.waiting);
        let _turn = self.line.turn.lock().await;
        loop {
            // Listening begins before the look, so that no change falls between the two.
            let changed = self.line.changed.notified();
            let Some(wait) = self.bucket().take(bytes, Instant::now()) else { return };
            tokio::select! {
                () = sleep(wait) => {}
                () = changed => {}
            }
        }
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        // Each change of a bucket is complete in itself, so a panic elsewhere leaves it true.
        self.line.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is(&self, other: &Throttle) -> bool {
        Arc::ptr_eq(&self.line, &other.line)
    }
}

/// One who waits, counted until it does not.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    fn throttle(rate: &str) -> Throttle {
        Throttle::new(Some(rate.parse().unwrap()))
    }

    /// Moves bytes until told to stop, and counts them.
    fn transfer(throttle: &Throttle) -> (Arc<AtomicUsize>, tokio::task::JoinHandle<()>) {
        let (throttle, moved) = (throttle.clone(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&moved);
        let task = tokio::spawn(async move {
            loop {
                let portion = throttle.portion(limits::BLOCK_BYTES);
                throttle.pass(portion).await;
                count.fetch_add(portion, Ordering::Relaxed);
            }
        });
        (moved, task)
    }

    #[tokio::test]
    async fn transfers_share_a_limit_fairly_and_keep_to_it_together() {
        let throttle = throttle("2MB");
        let begun = Instant::now();
        let transfers: Vec<_> = (0..5).map(|_| transfer(&throttle)).collect();
        sleep(Duration::from_secs(2)).await;
        transfers.iter().for_each(|(_, task)| task.abort());
        let moved: Vec<usize> = transfers.iter().map(|(moved, _)| moved.load(Ordering::Relaxed)).collect();
        let (sum, allowed) = (moved.iter().sum::<usize>() as f64, 2e6 * begun.elapsed().as_secs_f64());
        // What was saved up, and what is under way.
        assert!(sum <= allowed + 0.15 * 2e6, "{sum} of {allowed}");
        assert!(sum >= allowed * 0.8, "{sum} of {allowed}");
        let (least, most) = (moved.iter().min().unwrap(), moved.iter().max().unwrap());
        assert!(*most as f64 <= *least as f64 * 1.2, "{moved:?}");
    }

    #[tokio::test]
    async fn a_limit_that_is_lifted_lets_those_go_who_wait() {
        let throttle = throttle("10kB");
        // Half an hour's worth: the next one waits for that.
        throttle.pass(18_000_000).await;
        let waits: Vec<_> = (0..3)
            .map(|_| {
                let throttle = throttle.clone();
                tokio::spawn(async move { throttle.pass(18_000_000).await })
            })
            .collect();
        while throttle.line.waiting.load(Ordering::Relaxed) < 3 {
            tokio::task::yield_now().await;
        }
        throttle.set(None);
        for wait in waits {
            timeout(Duration::from_secs(10), wait).await.expect("somebody waits on").unwrap();
        }
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_takes_nothing_with_it() {
        let throttle = throttle("1MB");
        throttle.pass(1_000_000).await;
        for _ in 0..20 {
            assert!(timeout(Duration::ZERO, throttle.pass(10_000_000)).await.is_err());
        }
        timeout(Duration::from_secs(10), throttle.pass(1)).await.expect("waits for what nobody took");
        assert_eq!(throttle.line.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn portions_shrink_with_the_rate_and_with_those_who_share_it() {
        let free = Throttle::default();
        assert_eq!(free.portion(limits::BLOCK_BYTES), limits::BLOCK_BYTES);
        for (rate, sharing, portion) in [
            ("10kB", 0, 512),
            ("100kB", 0, 4_096),
            ("100kB", 11, 2_048),
            ("100kB", 500, 512),
            ("2MB", 0, 65_536),
            ("2MB", 27, 16_384),
            ("1GB", 0, limits::BLOCK_BYTES),
        ] {
            let throttle = throttle(rate);
            throttle.line.waiting.store(sharing, Ordering::Relaxed);
            assert_eq!(throttle.portion(limits::BLOCK_BYTES), portion, "{rate} for {sharing} more");
            assert_eq!(throttle.portion(7), 7);
        }
    }
}
