//! A transfer that several wait for: the one who may have it fastest says how fast it goes.
//!
//! Knows who waits, and each one's throttle. Does not know what is transferred.
//! Invariant: the transfer never goes faster than somebody who waits for it may have it, and never slower
//! because somebody else waits, too.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Throttle;

/// The throttles of all who wait for one transfer.
#[derive(Debug, Default)]
pub struct Joint {
    /// `None` of somebody without a limit. As long as nobody waits, nothing is limited.
    members: Mutex<Vec<Option<Throttle>>>,
    /// Whether everybody has a limit, for those who need not know which.
    limited: AtomicBool,
}

/// One who waits. To be given back with `Joint::leave`.
#[derive(Debug)]
pub struct Member(Option<Throttle>);

impl Joint {
    /// One more waits, who may have it this fast.
    pub fn join(&self, throttle: Option<Throttle>) -> Member {
        let mut members = self.members();
        members.push(throttle.clone());
        self.note(&members);
        Member(throttle)
    }

    /// One of those who wait does so no more.
    pub fn leave(&self, member: &Member) {
        let mut members = self.members();
        let is_it = |other: &Option<Throttle>| match (other, &member.0) {
            (Some(one), Some(other)) => one.is(other),
            (None, None) => true,
            _ => false,
        };
        if let Some(place) = members.iter().position(is_it) {
            members.swap_remove(place);
        }
        self.note(&members);
    }

    /// The throttle to pass, if there is one.
    pub fn throttle(&self) -> Option<Throttle> {
        if !self.limited.load(Ordering::Relaxed) {
            return None;
        }
        let members = self.members();
        // Somebody without a limit may have joined meanwhile.
        let all: Option<Vec<&Throttle>> = members.iter().map(Option::as_ref).collect();
        all?.into_iter().max_by_key(|throttle| throttle.rate()).cloned()
    }

    fn note(&self, members: &[Option<Throttle>]) {
        self.limited.store(!members.is_empty() && members.iter().all(Option::is_some), Ordering::Relaxed);
    }

    fn members(&self) -> MutexGuard<'_, Vec<Option<Throttle>>> {
        // Each change is complete in itself, so a panic elsewhere leaves it true.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_of_those_who_wait_says_how_fast_it_goes() {
        let throttle = |rate: &str| Some(Throttle::new(Some(rate.parse().unwrap())));
        let joint = Joint::default();
        let rate = || joint.throttle().map(|throttle| throttle.rate().unwrap().to_string());
        assert_eq!(rate(), None);
        let slow = joint.join(throttle("1MB"));
        assert_eq!(rate().as_deref(), Some("1MB"));
        let fast = joint.join(throttle("5MB"));
        assert_eq!(rate().as_deref(), Some("5MB"));
        let free = joint.join(None);
        assert_eq!(rate(), None);
        joint.leave(&free);
        assert_eq!(rate().as_deref(), Some("5MB"));
        joint.leave(&fast);
        assert_eq!(rate().as_deref(), Some("1MB"));
        joint.leave(&slow);
        assert_eq!(rate(), None);
    }
}
