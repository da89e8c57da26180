//! One address, and the state of our attempts to reach somebody there.
//!
//! Knows dials, their outcomes and the pauses between them. Does not know connections or other addresses.
//! Invariant: a route has at most one dial under way, and every failure makes the next one later, up to a
//! bound that depends on whether the peer belongs to the lab.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::words::{Host, Pairing};
use crate::limits;
use crate::names::PeerId;

/// Names a route for as long as the book lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub(super) u64);

/// Why a dial came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DialFailure {
    /// Nobody there, or nobody who finished the handshake.
    Unreachable,
    /// We were there ourselves.
    Ourselves,
    /// Somebody else than expected was there.
    WrongPeer(PeerId),
    /// Somebody was there to whom we do not speak: a foreign program, or a banned peer.
    Barred,
}

/// Whom a route leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Goal {
    /// Whom the user paired with.
    Paired(Pairing),
    /// A peer that announced itself at an address.
    Announced { peer: PeerId, address: SocketAddr },
}

impl Goal {
    /// The peer, where it is known already.
    pub(super) fn peer(&self) -> Option<&PeerId> {
        match self {
            Goal::Paired(pairing) => pairing.peer_id.as_ref(),
            Goal::Announced { peer, .. } => Some(peer),
        }
    }
}

/// Where the attempts stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Dial {
    /// Nothing under way; the next dial may start at the given time.
    Waiting { until: Instant },
    /// The host name is being looked up.
    Resolving,
    /// A dial is under way, and these addresses are left to try after it.
    Dialling { address: SocketAddr, rest: VecDeque<SocketAddr> },
    /// A connection that this route opened is being introduced, or is in use.
    Up,
}

/// What is wrong with a route, as long as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    Ourselves,
    Foreign,
    Changed(PeerId),
    Unresolved,
    Unreachable,
}

#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) goal: Goal,
    pub(super) dial: Dial,
    /// Failed dials since the last stable connection.
    pub(super) failures: u32,
    pub(super) trouble: Option<Trouble>,
    /// Where the last dial that led to a connection went: tried first, and shown.
    pub(super) reached: Option<SocketAddr>,
    /// Nobody announces it any more; it ends with the dial that is under way.
    pub(super) expired: bool,
}

impl Route {
    pub(super) fn new(goal: Goal, from: Instant) -> Self {
        Self { goal, dial: Dial::Waiting { until: from }, failures: 0, trouble: None, reached: None, expired: false }
    }

    pub(super) fn is_pairing_of(&self, host: &Host, port: u16) -> bool {
        matches!(&self.goal, Goal::Paired(pairing) if pairing.host == *host && pairing.port == port)
    }

    /// Whether the route is known to lead to the host, by the user's word or because it was reached there.
    pub(super) fn is_at(&self, host: &Host) -> bool {
        let reached = || self.reached.is_some_and(|reached| host.ip() == Some(reached.ip()));
        matches!(&self.goal, Goal::Paired(pairing) if pairing.host == *host || reached())
    }

    /// The address that the route leads to, as far as it is known.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match &self.goal {
            Goal::Announced { address, .. } => Some(*address),
            Goal::Paired(pairing) => {
                self.reached.or_else(|| pairing.host.ip().map(|ip| SocketAddr::new(ip, pairing.port)))
            }
        }
    }

    pub(super) fn is_dialling(&self) -> bool {
        matches!(self.dial, Dial::Resolving | Dial::Dialling { .. })
    }

    /// Nobody vouches for the route any more. Says whether it must stay, because the user wants it or
    /// because a dial that is under way would be forgotten with it.
    pub(super) fn expire(&mut self) -> bool {
        self.expired = true;
        matches!(self.goal, Goal::Paired(_)) || self.is_dialling() || self.dial == Dial::Up
    }

    /// Starts over at once: the network, or the user's mind, has changed.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.failures = 0;
        if let Dial::Waiting { until } = &mut self.dial {
            *until = now;
        }
    }

    /// Waits after a failed dial: the longer the more of them there were, up to `longest`.
    pub(super) fn back_off(&mut self, longest: Duration, dice: &mut Dice, now: Instant) {
        let doubled = limits::DIAL_PAUSE.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.dial = Dial::Waiting { until: now + dice.jitter(doubled.min(longest)) };
    }
}

/// The jitter's source: reproducible, because rules are tested by replaying them.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A time between a tenth of `longest` and all of it, so that peers which lost each other at the same
    /// moment do not meet again and again in the same moment, and none hammers.
    pub(super) fn jitter(&mut self, longest: Duration) -> Duration {
        // SplitMix64, by Sebastiano Vigna: https://prng.di.unimi.it/splitmix64.c
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let part = u32::try_from(mixed >> 32).unwrap_or(u32::MAX);
        longest.mul_f64(0.1 + 0.9 * f64::from(part) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pauses_grow_but_stay_within_their_bounds(seed: u64, failures in 1usize..80) {
            let now = Instant::now();
            let pairing = Pairing { host: "box".parse().unwrap(), port: 1, peer_id: None };
            let mut route = Route::new(Goal::Paired(pairing), now);
            let mut dice = Dice::new(seed);
            for failure in 0..failures {
                route.back_off(Duration::from_secs(6), &mut dice, now);
                let Dial::Waiting { until } = route.dial else { panic!("not waiting") };
                let pause = until.duration_since(now);
                let most = Duration::from_secs(1 << failure.min(3)).min(Duration::from_secs(6));
                prop_assert!(pause >= Duration::from_millis(100) && pause <= most, "{:?}", pause);
            }
        }
    }

    #[test]
    fn jitter_covers_its_range() {
        let mut dice = Dice::new(7);
        let rolls: Vec<Duration> = (0..1_000).map(|_| dice.jitter(Duration::from_secs(10))).collect();
        assert!(rolls.iter().any(|roll| *roll < Duration::from_secs(2)));
        assert!(rolls.iter().any(|roll| *roll > Duration::from_secs(9)));
    }
}
