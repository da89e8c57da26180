//! A bucket of bytes that fills at a rate.
//!
//! Knows arithmetic. Never reads a clock, and does not know who waits.
//! Invariant: over any stretch of time no more is taken than the rate times the stretch, plus what was saved
//! and one portion; and whoever takes as soon as it may gets the rate, less what it leaves saved.

use std::time::{Duration, Instant};

use super::Rate;
use crate::limits;

/// Bytes that may flow now. What is taken may be more than there is: the next one waits for it.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Option<Rate>,
    /// Below zero, what was taken ahead.
    level: f64,
    filled: Instant,
}

impl Bucket {
    pub(super) fn new(rate: Option<Rate>, now: Instant) -> Self {
        Self { rate, level: 0.0, filled: now }
    }

    /// The rate is another from now on. What was taken ahead is paid for at the new rate.
    pub(super) fn set(&mut self, rate: Option<Rate>, now: Instant) {
        self.fill(now);
        self.rate = rate;
        self.level = rate.map_or(0.0, |rate| self.level.min(saved(rate)));
    }

    /// Takes bytes out, or says how long to wait before trying again.
    pub(super) fn take(&mut self, bytes: usize, now: Instant) -> Option<Duration> {
        self.fill(now);
        let rate = self.rate?;
        if self.level < 0.0 {
            // A nanosecond more than that, so that rounding does not bring anybody back too early.
            let wait = Duration::try_from_secs_f64(-self.level / rate.per_sec()).unwrap_or(Duration::MAX);
            return Some(wait.saturating_add(Duration::from_nanos(1)));
        }
        self.level -= bytes as f64;
        None
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled);
        self.filled = self.filled.max(now);
        if let Some(rate) = self.rate {
            self.level = (self.level + passed.as_secs_f64() * rate.per_sec()).min(saved(rate));
        }
    }
}

/// What a rate may save up while nothing flows.
fn saved(rate: Rate) -> f64 {
    rate.per_sec() * limits::PACE_SAVED.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(bytes: u64) -> Option<Rate> {
        Some(Rate::new(bytes).unwrap())
    }

    proptest! {
        #[test]
        fn no_more_flows_than_the_rate_the_savings_and_a_portion_allow(
            per_sec in 10_000u64..1 << 33,
            takes in proptest::collection::vec((0u64..300, 1usize..1 << 18), 1..200),
        ) {
            let start = Instant::now();
            let (mut now, mut flowed, mut largest) = (start, 0, 0);
            let mut bucket = Bucket::new(rate(per_sec), start);
            for (pause, bytes) in takes {
                now += Duration::from_millis(pause);
                if bucket.take(bytes, now).is_none() {
                    (flowed, largest) = (flowed + bytes, largest.max(bytes));
                }
                let allowed = per_sec as f64 * (now.duration_since(start) + limits::PACE_SAVED).as_secs_f64();
                prop_assert!(flowed as f64 <= allowed + largest as f64 + 1.0);
            }
        }

        /// Also when each wait ends late, as they do on a busy machine.
        #[test]
        fn whoever_takes_when_it_may_gets_the_rate(
            per_sec in 10_000u64..1 << 33,
            takes in proptest::collection::vec((1usize..1 << 18, 0u64..100), 2..100),
        ) {
            let start = Instant::now();
            let (mut now, mut flowed) = (start, 0);
            let mut bucket = Bucket::new(rate(per_sec), start);
            for (bytes, late) in &takes {
                while let Some(wait) = bucket.take(*bytes, now) {
                    now += wait + Duration::from_millis(*late);
                }
                flowed += bytes;
            }
            let owed = per_sec as f64 * now.duration_since(start).as_secs_f64() - saved(Rate::new(per_sec).unwrap());
            prop_assert!(flowed as f64 >= owed - 1.0, "{flowed} of {owed}");
        }

        #[test]
        fn a_wait_is_as_long_as_it_must_be(per_sec in 10_000u64..1 << 33, bytes in 1usize..1 << 20) {
            let now = Instant::now();
            let mut bucket = Bucket::new(rate(per_sec), now);
            prop_assert_eq!(bucket.take(bytes, now), None);
            let wait = bucket.take(bytes, now).unwrap();
            prop_assert!((wait.as_secs_f64() - bytes as f64 / per_sec as f64).abs() < 1e-6);
            prop_assert_eq!(bucket.take(bytes, now + wait), None);
        }
    }

    #[test]
    fn a_new_rate_holds_for_what_was_taken_before() {
        let now = Instant::now();
        let mut bucket = Bucket::new(rate(10_000), now);
        assert_eq!(bucket.take(100_000, now), None);
        assert!(bucket.take(1, now).is_some_and(|wait| wait > Duration::from_secs(9)));
        bucket.set(rate(1_000_000), now);
        assert!(bucket.take(1, now).is_some_and(|wait| wait < Duration::from_millis(101)));
        bucket.set(None, now);
        assert_eq!(bucket.take(1 << 30, now), None);
        assert_eq!(bucket.take(1 << 30, now), None);
        // What flowed without a limit is no debt under the next one.
        bucket.set(rate(10_000), now);
        assert_eq!(bucket.take(1, now), None);
    }
}
