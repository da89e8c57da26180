//! A token bucket: so many a second, and some saved up.
//!
//! Knows rates. Does not know what is counted, and never reads a clock.
//! Invariant: over any stretch of time no more is let through than the rate times the stretch, plus the burst.

use std::time::Instant;

/// Lets a bounded number of things through a second.
#[derive(Debug, Clone)]
pub struct Bucket {
    per_sec: f64,
    burst: f64,
    left: f64,
    filled: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn new(per_sec: f64, burst: f64, now: Instant) -> Self {
        Self { per_sec, burst, left: burst, filled: now }
    }

    /// Takes one out, if one is left.
    pub fn take(&mut self, now: Instant) -> Option<()> {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = self.filled.max(now);
        self.left = (self.left + passed * self.per_sec).min(self.burst);
        if self.left < 1.0 {
            return None;
        }
        self.left -= 1.0;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #[test]
        fn no_more_passes_than_rate_and_burst_allow(waits in proptest::collection::vec(0u64..400, 1..200)) {
            let start = Instant::now();
            let mut now = start;
            let mut bucket = Bucket::new(5.0, 10.0, start);
            let mut passed = 0;
            for wait in waits {
                now += Duration::from_millis(wait);
                passed += u32::from(bucket.take(now).is_some());
                let allowed = 10.0 + 5.0 * now.duration_since(start).as_secs_f64();
                prop_assert!(f64::from(passed) <= allowed + 1e-6);
            }
        }
    }

    #[test]
    fn a_bucket_fills_up_again() {
        let now = Instant::now();
        let mut bucket = Bucket::new(2.0, 1.0, now);
        assert!(bucket.take(now).is_some());
        assert!(bucket.take(now).is_none());
        assert!(bucket.take(now + Duration::from_millis(600)).is_some());
    }
}
