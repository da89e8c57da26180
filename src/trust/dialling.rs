//! Whom the book dials, and when.
//!
//! Knows routes and their bounds. Does not know what a connection is used for.
//! Invariant: nobody is dialled who is connected, being dialled, banned or foreign; and addresses that
//! strangers announced have bounds of their own, so that inventing them delays nobody else.

use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::route::{Dial, Goal, Route, RouteId};
use super::{Action, Book};
use crate::limits;
use crate::names::PeerId;

impl Book {
    /// Whether an announced address may be dialled at all: anybody can announce anything.
    pub(super) fn is_near(&self, ip: IpAddr) -> bool {
        is_private(ip) || self.networks.iter().any(|network| network.contains(ip))
    }

    pub(super) fn longest_pause(&self, id: RouteId, now: Instant) -> Duration {
        let of_the_lab = self.routes.get(&id).is_some_and(|route| match &route.goal {
            Goal::Paired(_) => true,
            Goal::Announced { peer, .. } => self.peers.get(peer).is_some_and(|known| known.is_recent(now)),
        });
        if of_the_lab { limits::DIAL_PAUSE_MAX } else { limits::DIAL_PAUSE_STRANGER_MAX }
    }

    /// Makes room for one more announced address of a peer, at the cost of the peer's own least useful
    /// one or of the oldest that never led to hffs.
    pub(super) fn make_room(&mut self, peer: &PeerId, now: Instant) -> bool {
        let announced = |route: &Route| matches!(route.goal, Goal::Announced { .. });
        let own = |route: &Route| announced(route) && !route.is_dialling() && route.goal.peer() == Some(peer);
        if self.is_barred(peer, now) {
            return false;
        }
        let own: Vec<(u32, RouteId)> =
            self.routes.iter().filter(|(_, route)| own(route)).map(|(id, route)| (route.failures, *id)).collect();
        if own.len() >= limits::ADDRESSES_PER_PEER_MAX {
            let Some((_, worst)) = own.into_iter().filter(|(failures, _)| *failures > 0).max() else { return false };
            self.routes.remove(&worst);
        }
        if self.routes.values().filter(|route| announced(route)).count() < limits::CANDIDATES_MAX {
            return true;
        }
        let idle = |route: &Route| self.is_strange(route) && !route.is_dialling();
        let oldest = self.routes.iter().find(|(_, route)| idle(route)).map(|(id, _)| *id);
        oldest.and_then(|oldest| self.routes.remove(&oldest)).is_some()
    }

    /// Starts the dials whose time has come, within the bounds, those with the fewest failures first.
    pub(super) fn dial_due(&mut self, now: Instant) {
        let mut due: Vec<(u32, RouteId)> = self
            .routes
            .iter()
            .filter(|(_, route)| matches!(route.dial, Dial::Waiting { until } if until <= now))
            .map(|(id, route)| (route.failures, *id))
            .collect();
        due.sort_unstable();
        for (_, id) in due {
            let Some(route) = self.routes.get(&id) else { continue };
            if let Some(peer) = route.goal.peer()
                && (self.is_linked(peer) || self.is_barred(peer, now) || self.is_being_dialled(peer))
            {
                continue;
            }
            if self.within_dial_bounds(id, now).is_some() {
                self.start_dial(id, now);
            }
        }
    }

    /// When something is to be done next, should nothing happen before: a dial, or an end to waiting for an
    /// introduction. Due already is what waits for its place among the dials.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let linked = self.links.values().map(|link| &link.peer);
        let dialled = self.routes.values().filter(|route| route.is_dialling()).filter_map(|route| route.goal.peer());
        let busy: HashSet<&PeerId> = linked.chain(dialled).collect();
        let idle = |peer: &PeerId| !busy.contains(peer) && !self.is_barred(peer, now);
        let dials = self.routes.values().filter_map(|route| match route.dial {
            Dial::Waiting { until } if route.goal.peer().is_none_or(idle) => Some(until),
            _ => None,
        });
        let silent = self.links.values().filter(|link| !link.introduced && !link.hung_up);
        dials.chain(silent.map(|link| link.since + limits::IDENTIFY_WAIT)).min()
    }

    fn is_being_dialled(&self, peer: &PeerId) -> bool {
        self.routes.values().any(|route| route.is_dialling() && route.goal.peer() == Some(peer))
    }

    /// Whether nobody but an announcement speaks for the route.
    fn is_strange(&self, route: &Route) -> bool {
        matches!(&route.goal, Goal::Announced { peer, .. } if !self.is_proven(peer))
    }

    fn within_dial_bounds(&mut self, id: RouteId, now: Instant) -> Option<()> {
        let strange = self.is_strange(self.routes.get(&id)?);
        let same = |route: &&Route| route.is_dialling() && self.is_strange(route) == strange;
        let under_way = self.routes.values().filter(same).count();
        if !strange {
            return (under_way < limits::KNOWN_DIALS_MAX).then_some(());
        }
        if under_way >= limits::STRANGER_DIALS_MAX {
            return None;
        }
        self.stranger_dials.take(now)
    }

    fn start_dial(&mut self, id: RouteId, now: Instant) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        let address = match &route.goal {
            Goal::Announced { address, .. } => *address,
            Goal::Paired(pairing) => match pairing.host.ip() {
                Some(ip) => SocketAddr::new(ip, pairing.port),
                None => {
                    let (host, port) = (pairing.host.clone(), pairing.port);
                    route.dial = Dial::Resolving;
                    return self.actions.push(Action::Resolve { route: id, host, port });
                }
            },
        };
        self.dial(id, address, VecDeque::new(), now);
    }

    /// Dials one address, unless the peer came by another way meanwhile.
    pub(super) fn dial(&mut self, id: RouteId, address: SocketAddr, rest: VecDeque<SocketAddr>, now: Instant) {
        let expect = self.routes.get(&id).and_then(|route| route.goal.peer().cloned());
        let needless = expect.as_ref().is_some_and(|peer| self.is_linked(peer) || self.is_barred(peer, now));
        let Some(route) = self.routes.get_mut(&id) else { return };
        if needless {
            route.dial = Dial::Waiting { until: now };
            return;
        }
        route.dial = Dial::Dialling { address, rest };
        self.actions.push(Action::Dial { route: id, address, expect });
    }
}

/// Whether an address belongs to a network that no provider routes.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}
