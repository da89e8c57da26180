//! What is remembered of one peer: when it was here, what it called itself, and what it did wrong.
//!
//! Knows one peer. Does not know its addresses or connections.
//! Invariant: a ban ends by itself, and only proven offences lead to one.

use std::time::{Duration, Instant};

use super::bucket::Bucket;
use super::words::Offence;
use crate::limits;

/// One peer's record.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// It connected to us.
    pub(super) inbound: bool,
    /// It introduced itself as hffs at least once.
    pub(super) proven: bool,
    pub(super) agent: Option<String>,
    pub(super) rtt: Option<Duration>,
    /// When it was last announced, connected or heard.
    pub(super) seen: Instant,
    ban: Option<(Instant, Offence)>,
    foreign_until: Option<Instant>,
    strikes: u32,
    struck: Option<Instant>,
    requests: Bucket,
    refused: u32,
}

impl Known {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            inbound: false,
            proven: false,
            agent: None,
            rtt: None,
            seen: now,
            ban: None,
            foreign_until: None,
            strikes: 0,
            struck: None,
            requests: Bucket::new(limits::REQUESTS_PER_SEC, limits::REQUESTS_BURST, now),
            refused: 0,
        }
    }

    /// Holds an offence against the peer.
    pub(super) fn strike(&mut self, offence: Offence, now: Instant) {
        let old = self.struck.is_none_or(|when| now.saturating_duration_since(when) > limits::STRIKES_FOR);
        self.strikes = if old { 1 } else { self.strikes.saturating_add(1) };
        self.struck = Some(now);
        let ban = match offence {
            Offence::WrongBytes => Some(limits::BAN_WRONG_BYTES),
            Offence::Flood => Some(limits::BAN_RUDE),
            Offence::Malformed => (self.strikes >= limits::STRIKES_MAX).then_some(limits::BAN_RUDE),
        };
        if let Some(ban) = ban {
            let until = self.ban.map_or(now + ban, |(until, _)| until.max(now + ban));
            self.ban = Some((until, offence));
        }
    }

    /// The ban in force: what for, and how long it lasts still.
    pub(super) fn ban(&self, now: Instant) -> Option<(Offence, Duration)> {
        self.ban.filter(|(until, _)| *until > now).map(|(until, offence)| (offence, until.duration_since(now)))
    }

    /// The peer turned out to be another program.
    pub(super) fn is_foreign_from(&mut self, now: Instant) {
        self.foreign_until = Some(now + limits::FOREIGN_FOR);
        self.proven = false;
    }

    pub(super) fn is_foreign(&self, now: Instant) -> bool {
        self.foreign_until.is_some_and(|until| until > now)
    }

    pub(super) fn is_barred(&self, now: Instant) -> bool {
        self.is_foreign(now) || self.ban(now).is_some()
    }

    /// Whether the peer was part of the lab lately, so that its return is waited for.
    pub(super) fn is_recent(&self, now: Instant) -> bool {
        self.proven && now.saturating_duration_since(self.seen) <= limits::RECENTLY
    }

    /// Counts a request of the peer, and says whether it is within its rate.
    pub(super) fn ask(&mut self, now: Instant) -> Option<()> {
        let allowed = self.requests.take(now);
        self.refused = if allowed.is_some() { 0 } else { self.refused.saturating_add(1) };
        if self.refused >= limits::REFUSED_MAX {
            self.refused = 0;
            self.strike(Offence::Flood, now);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_byte_is_a_ban_and_it_ends() {
        let now = Instant::now();
        let mut known = Known::new(now);
        known.strike(Offence::WrongBytes, now);
        assert_eq!(known.ban(now), Some((Offence::WrongBytes, limits::BAN_WRONG_BYTES)));
        assert_eq!(known.ban(now + limits::BAN_WRONG_BYTES), None);
    }

    #[test]
    fn malformed_messages_add_up_unless_they_are_old() {
        let mut now = Instant::now();
        let mut known = Known::new(now);
        for _ in 0..10 {
            known.strike(Offence::Malformed, now);
            now += limits::STRIKES_FOR + Duration::from_secs(1);
            assert_eq!(known.ban(now), None);
        }
        for _ in 0..limits::STRIKES_MAX {
            known.strike(Offence::Malformed, now);
        }
        assert_eq!(known.ban(now), Some((Offence::Malformed, limits::BAN_RUDE)));
    }

    #[test]
    fn a_flood_is_refused_first_and_banned_when_it_goes_on() {
        let now = Instant::now();
        let mut known = Known::new(now);
        let saved_up = limits::REQUESTS_BURST as usize;
        let allowed = (0..saved_up + 500).filter(|_| known.ask(now).is_some()).count();
        assert_eq!(allowed, saved_up);
        assert!(!known.is_barred(now));
        for _ in 0..limits::REFUSED_MAX {
            known.ask(now);
        }
        assert!(matches!(known.ban(now), Some((Offence::Flood, _))));
    }
}
