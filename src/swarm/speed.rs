//! How much a full line carries in a moment.
//!
//! Knows what was handed to a line and whether the line could not take it. Does not know what it was.
//! Invariant: only a line that was full says anything about its speed; any other is taken for a fast one.
//!
//! A small answer goes behind all that waits for the line already. On a fast line that is nothing, and large
//! portions are cheap; on a slow one each portion is a part of a second, so they have to be small.

use std::time::{Duration, Instant};

use crate::limits;

/// The measure of one line.
#[derive(Debug)]
pub(super) struct Speed {
    since: Instant,
    sent: u64,
    was_full: bool,
}

impl Speed {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, sent: 0, was_full: false }
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// The line takes no more for now.
    pub(super) fn full(&mut self) {
        self.was_full = true;
    }

    /// The bytes that the line carries in a moment of this length, every now and then; `None`: that was asked
    /// a moment ago.
    pub(super) fn portion(&mut self, of: Duration, now: Instant) -> Option<usize> {
        let time = now.saturating_duration_since(self.since);
        if time < limits::SPEED_EVERY {
            return None;
        }
        let per_sec = self.sent as f64 / time.as_secs_f64();
        // Between two writes far apart the line may have been idle, which says nothing about it.
        let tells = self.was_full && time <= limits::SPEED_EVERY * 4;
        let portion = if tells { (per_sec * of.as_secs_f64()) as usize } else { usize::MAX };
        *self = Self::new(now);
        Some(portion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_full_is_measured_and_any_other_is_fast() {
        let start = Instant::now();
        let mut speed = Speed::new(start);
        let tenth = Duration::from_millis(100);
        speed.sent(500_000);
        assert_eq!(speed.portion(tenth, start + limits::SPEED_EVERY / 2), None);
        assert_eq!(speed.portion(tenth, start + Duration::from_secs(1)), Some(usize::MAX));
        speed.sent(500_000);
        speed.full();
        assert_eq!(speed.portion(tenth, start + Duration::from_secs(2)), Some(50_000));
        assert_eq!(speed.portion(tenth, start + Duration::from_secs(3)), Some(usize::MAX));
        speed.full();
        assert_eq!(speed.portion(tenth, start + Duration::from_secs(13)), Some(usize::MAX), "it was idle since");
    }
}
