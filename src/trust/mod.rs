//! The book of peers: what is known of each, and what follows from it.
//!
//! Knows the user's pairings, what announced itself, which connections live, who misbehaved, and from
//! that whom to dial next, whom to hang up on and whom to believe. Does not know sockets or messages.
//! Invariant: the book never reads a clock and does nothing itself: events and `now` go in, actions come
//! out. Every table in it is bounded, and what strangers say can only fill the strangers' part.
//!
//! A peer is a `PeerId`, not an address: one peer may have several routes, and a route may lead to
//! nobody. A pairing trusts the identity that was met there first and no other, whatever the address is.

mod bucket;
mod dialling;
mod known;
mod route;
#[cfg(test)]
mod tests;
mod view;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use known::Known;
use route::{Dial, Dice, Goal, Route, Trouble};

pub use bucket::Bucket;
pub use route::{DialFailure, RouteId};
pub use words::{ActivePeer, Host, Network, Offence, Pairing, PeerView, Via};

use crate::limits;
use crate::names::PeerId;

/// Names a live connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// How a connection came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The peer connected to us.
    Inbound,
    /// We dialled the route.
    Route(RouteId),
    /// We dialled a further connection to a peer that had one.
    Extra,
}

/// How a peer introduced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Introduction {
    /// As an hffs daemon that speaks our protocols; the agent is what it calls itself.
    Hffs { agent: String },
    /// As anything else.
    Foreign,
}

/// Whether a pairing is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paired {
    Anew,
    Already,
}

/// What a pairing has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contact {
    Met(PeerId),
    Ourselves,
    Foreign,
    Changed,
    Unresolved,
}

/// What the book wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Look a name up, then call `Book::resolved`.
    Resolve { route: RouteId, host: Host, port: u16 },
    /// Dial, then call `Book::linked` or `Book::dial_failed`.
    Dial { route: RouteId, address: SocketAddr, expect: Option<PeerId> },
    /// Close a connection.
    Hang(LinkId),
    /// From now on refuse connections from and to these peers, and from and to no others.
    Bar(BTreeSet<PeerId>),
    /// Write the pairings down.
    Remember(Vec<Pairing>),
}

#[derive(Debug, Clone)]
struct Link {
    peer: PeerId,
    remote: SocketAddr,
    origin: Origin,
    since: Instant,
    introduced: bool,
    /// Its end was ordered, and is not to be ordered again.
    hung_up: bool,
}

/// What is known of all peers.
#[derive(Debug)]
pub struct Book {
    me: PeerId,
    dice: Dice,
    routes: BTreeMap<RouteId, Route>,
    routes_made: u64,
    peers: HashMap<PeerId, Known>,
    links: BTreeMap<LinkId, Link>,
    networks: Vec<Network>,
    stranger_dials: Bucket,
    barred: BTreeSet<PeerId>,
    actions: Vec<Action>,
}

/// There are more pairings than a lab can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are too many paired peers")]
pub struct TooManyPairings;

impl Book {
    /// A book with the pairings of an earlier run. The seed decides the jitter.
    pub fn new(me: PeerId, pairings: Vec<Pairing>, seed: u64, now: Instant) -> Self {
        let stranger_dials = Bucket::new(limits::STRANGER_DIALS_PER_SEC, limits::STRANGER_DIALS_PER_SEC, now);
        let mut book = Self {
            me,
            dice: Dice::new(seed),
            routes: BTreeMap::new(),
            routes_made: 0,
            peers: HashMap::new(),
            links: BTreeMap::new(),
            networks: Vec::new(),
            stranger_dials,
            barred: BTreeSet::new(),
            actions: Vec::new(),
        };
        for pairing in pairings.into_iter().take(limits::PAIRINGS_MAX) {
            book.add_route(Goal::Paired(pairing), now);
        }
        book
    }

    // What the user wants.

    /// The user wants whoever answers at the address. A second time it only dials at once.
    pub fn pair(&mut self, host: Host, port: u16, now: Instant) -> Result<Paired, TooManyPairings> {
        let known = self.routes.values_mut().find(|route| route.is_pairing_of(&host, port));
        if let Some(route) = known {
            route.hurry(now);
            route.trouble = route.trouble.take().filter(|trouble| matches!(trouble, Trouble::Changed(_)));
            return Ok(Paired::Already);
        }
        if self.pairings().len() >= limits::PAIRINGS_MAX {
            return Err(TooManyPairings);
        }
        self.add_route(Goal::Paired(Pairing { host, port, peer_id: None }), now);
        self.remember();
        Ok(Paired::Anew)
    }

    /// The user no longer wants the peer at the host, on any port or the given one. Returns what ended.
    pub fn unpair(&mut self, host: &Host, port: Option<u16>) -> Vec<Pairing> {
        let mut ended = Vec::new();
        let mut gone = Vec::new();
        self.routes.retain(|id, route| match &route.goal {
            Goal::Paired(pairing) if route.is_at(host) && port.is_none_or(|port| port == pairing.port) => {
                ended.push(pairing.clone());
                gone.push(*id);
                false
            }
            _ => true,
        });
        if ended.is_empty() {
            return ended;
        }
        // Only what a pairing opened ends with it; the peer may still be here in its own right.
        let opened = self.links.iter().filter(|(_, link)| gone.iter().any(|id| link.origin == Origin::Route(*id)));
        let opened: Vec<LinkId> = opened.map(|(id, _)| *id).collect();
        self.hang_up(&opened);
        self.remember();
        ended
    }

    /// All pairings.
    pub fn pairings(&self) -> Vec<Pairing> {
        let paired = |route: &Route| match &route.goal {
            Goal::Paired(pairing) => Some(pairing.clone()),
            Goal::Announced { .. } => None,
        };
        self.routes.values().filter_map(paired).collect()
    }

    /// What a pairing has come to; `None` as long as that is open.
    pub fn contact(&self, host: &Host, port: u16) -> Option<Contact> {
        let route = self.routes.values().find(|route| route.is_pairing_of(host, port))?;
        if let Some(peer) = route.goal.peer().filter(|peer| self.is_active(peer)) {
            return Some(Contact::Met(peer.clone()));
        }
        match route.trouble {
            Some(Trouble::Ourselves) => Some(Contact::Ourselves),
            Some(Trouble::Foreign) => Some(Contact::Foreign),
            Some(Trouble::Changed(_)) => Some(Contact::Changed),
            Some(Trouble::Unresolved) => Some(Contact::Unresolved),
            Some(Trouble::Unreachable) | None => None,
        }
    }

    // What the network says.

    /// Somebody announced that a peer is at an address. Anybody can say so, hence only addresses of this
    /// machine's own or private networks are ever dialled for it.
    pub fn announced(&mut self, peer: PeerId, address: SocketAddr, now: Instant) {
        if peer == self.me || !self.is_near(address.ip()) || address.port() == 0 {
            return;
        }
        let goal = Goal::Announced { peer: peer.clone(), address };
        if let Some(route) = self.routes.values_mut().find(|route| route.goal == goal) {
            route.expired = false;
            route.hurry(now);
            return;
        }
        if !self.make_room(&peer, now) {
            return;
        }
        // When both sides hear of each other in the same moment, one of them lets the other go first.
        let wait = if self.me < peer { Duration::ZERO } else { limits::DIAL_YIELD };
        self.add_route(goal, now + wait);
    }

    /// The announcement has expired. A peer of the lab is still looked for where it was.
    pub fn withdrawn(&mut self, peer: &PeerId, address: SocketAddr) {
        if !self.is_proven(peer) {
            let goal = Goal::Announced { peer: peer.clone(), address };
            self.routes.retain(|_, route| route.goal != goal || route.expire());
        }
    }

    /// This machine's own networks are these. A change means that what was out of reach may not be so.
    pub fn networks_changed(&mut self, networks: Vec<Network>, now: Instant) {
        if networks == self.networks {
            return;
        }
        self.networks = networks;
        for route in self.routes.values_mut() {
            route.hurry(now);
        }
    }

    /// A name was looked up. No addresses: it was not found.
    pub fn resolved(&mut self, id: RouteId, addresses: Vec<SocketAddr>, now: Instant) {
        let Some(route) = self.routes.get_mut(&id).filter(|route| route.dial == Dial::Resolving) else { return };
        let mut rest: VecDeque<SocketAddr> = addresses.into_iter().take(limits::ADDRESSES_PER_HOST_MAX).collect();
        if let Some(place) = rest.iter().position(|address| Some(*address) == route.reached) {
            rest.swap(0, place);
        }
        match rest.pop_front() {
            Some(address) => self.dial(id, address, rest, now),
            None => {
                route.trouble = Some(Trouble::Unresolved);
                route.back_off(limits::DIAL_PAUSE_MAX, &mut self.dice, now);
            }
        }
    }

    /// A dial came to nothing.
    pub fn dial_failed(&mut self, id: RouteId, failure: DialFailure, now: Instant) {
        let longest = self.longest_pause(id, now);
        let Some(route) = self.routes.get_mut(&id) else { return };
        if let Dial::Dialling { rest, .. } = &mut route.dial
            && failure != DialFailure::Ourselves
            && let Some(address) = rest.pop_front()
        {
            let rest = std::mem::take(rest);
            return self.dial(id, address, rest, now);
        }
        let pointless = failure != DialFailure::Unreachable || route.expired;
        if pointless && matches!(route.goal, Goal::Announced { .. }) {
            self.routes.remove(&id);
            return;
        }
        let (trouble, pause) = match failure {
            DialFailure::Unreachable => {
                route.back_off(longest, &mut self.dice, now);
                // A changed identity stays the news until the right one was met again.
                if !matches!(route.trouble, Some(Trouble::Changed(_))) {
                    route.trouble = Some(Trouble::Unreachable);
                }
                return;
            }
            DialFailure::Ourselves => (Trouble::Ourselves, limits::FOREIGN_FOR),
            DialFailure::WrongPeer(found) => (Trouble::Changed(found), limits::CHANGED_PAUSE),
            DialFailure::Barred => (Trouble::Foreign, limits::CHANGED_PAUSE),
        };
        route.trouble = Some(trouble);
        route.dial = Dial::Waiting { until: now + pause };
    }

    /// A connection was opened and its peer authenticated.
    pub fn linked(&mut self, id: LinkId, peer: PeerId, remote: SocketAddr, origin: Origin, now: Instant) {
        if let Origin::Route(route) = origin
            && let Some(route) = self.routes.get_mut(&route)
        {
            route.dial = Dial::Up;
        }
        let full = self.peers.len() >= limits::PEERS_MAX && !self.peers.contains_key(&peer);
        let refused = (full && !self.forget_one()) || self.is_barred(&peer, now);
        if !refused {
            let known = self.peers.entry(peer.clone()).or_insert_with(|| Known::new(now));
            known.seen = now;
            known.inbound |= origin == Origin::Inbound;
        }
        self.links.insert(id, Link { peer, remote, origin, since: now, introduced: false, hung_up: false });
        if refused {
            self.hang_up(&[id]);
        }
    }

    /// The peer on a connection said what it is.
    pub fn introduced(&mut self, id: LinkId, introduction: Introduction, now: Instant) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let (peer, remote, origin) = (link.peer.clone(), link.remote, link.origin);
        let Introduction::Hffs { agent } = introduction else { return self.is_foreign(&peer, now) };
        link.introduced = true;
        if let Some(known) = self.peers.get_mut(&peer) {
            known.seen = now;
            known.proven = true;
            known.agent = Some(crate::names::clean(&agent, limits::AGENT_BYTES_MAX));
        }
        let Origin::Route(route) = origin else { return };
        let Some(route) = self.routes.get_mut(&route) else { return };
        route.trouble = None;
        route.expired = false;
        route.reached = Some(remote);
        if let Goal::Paired(pairing) = &mut route.goal
            && pairing.peer_id.is_none()
        {
            pairing.peer_id = Some(peer);
            self.remember();
        }
    }

    /// A ping came back.
    pub fn pinged(&mut self, id: LinkId, rtt: Duration, now: Instant) {
        if let Some(known) = self.links.get(&id).and_then(|link| self.peers.get_mut(&link.peer)) {
            known.rtt = Some(rtt);
            known.seen = now;
        }
    }

    /// A connection is over.
    pub fn unlinked(&mut self, id: LinkId, now: Instant) {
        let Some(link) = self.links.remove(&id) else { return };
        if let Some(known) = self.peers.get_mut(&link.peer) {
            known.seen = now;
        }
        let stable = link.introduced && now.saturating_duration_since(link.since) >= limits::STABLE;
        if let Origin::Route(route) = link.origin {
            self.route_ended(route, stable, now);
        }
        if stable && !self.is_linked(&link.peer) {
            let turn = if self.me < link.peer { Duration::ZERO } else { limits::DIAL_YIELD };
            let soon = now + turn + self.dice.jitter(limits::DIAL_YIELD);
            for route in self.routes.values_mut().filter(|route| route.goal.peer() == Some(&link.peer)) {
                if let Dial::Waiting { until } = &mut route.dial {
                    *until = soon;
                }
            }
        }
    }

    /// All connections are over and no dial is under way: the network starts anew.
    pub fn cut_off(&mut self, now: Instant) {
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            self.unlinked(id, now);
        }
        for route in self.routes.values_mut().filter(|route| route.is_dialling()) {
            route.dial = Dial::Waiting { until: now };
        }
        // Whoever carries out the actions has forgotten what it was told.
        self.barred.clear();
        self.actions.clear();
        self.remember();
    }

    /// Holds a proven offence against a peer.
    pub fn strike(&mut self, peer: &PeerId, offence: Offence, now: Instant) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.strike(offence, now);
            if known.is_barred(now) {
                self.hang_up_on(peer);
            }
        }
    }

    /// Whether a peer may ask something now, as far as its rate goes.
    pub fn may_ask(&mut self, peer: &PeerId, now: Instant) -> Option<()> {
        let known = self.peers.get_mut(peer)?;
        let allowed = known.ask(now);
        if allowed.is_none() && known.is_barred(now) {
            self.hang_up_on(peer);
        }
        allowed
    }

    /// Lets time pass, and returns all that is to be done.
    pub fn actions(&mut self, now: Instant) -> Vec<Action> {
        let silent =
            |link: &Link| !link.introduced && now.saturating_duration_since(link.since) > limits::IDENTIFY_WAIT;
        let silent: Vec<LinkId> = self.links.iter().filter(|(_, link)| silent(link)).map(|(id, _)| *id).collect();
        self.hang_up(&silent);
        self.forget(now);
        self.dial_due(now);
        let barred: BTreeSet<PeerId> =
            self.peers.iter().filter(|(_, known)| known.is_barred(now)).map(|(peer, _)| peer.clone()).collect();
        if barred != self.barred {
            self.barred.clone_from(&barred);
            self.actions.push(Action::Bar(barred));
        }
        std::mem::take(&mut self.actions)
    }

    // What others ask the book.

    /// Whether the user paired with this very identity.
    pub fn is_paired(&self, peer: &PeerId) -> bool {
        let paired =
            |route: &Route| matches!(&route.goal, Goal::Paired(pairing) if pairing.peer_id.as_ref() == Some(peer));
        self.routes.values().any(paired)
    }

    /// Whether a connection to the peer lives, on which it introduced itself as hffs.
    pub fn is_active(&self, peer: &PeerId) -> bool {
        self.links.values().any(|link| link.is_in_use() && link.peer == *peer)
    }

    /// Whether the peer is banned, or foreign.
    pub fn is_barred(&self, peer: &PeerId, now: Instant) -> bool {
        self.peers.get(peer).is_some_and(|known| known.is_barred(now))
    }

    /// How many connections to the peer live.
    pub fn links_of(&self, peer: &PeerId) -> usize {
        self.links.values().filter(|link| link.peer == *peer).count()
    }

    /// Where a further connection to a connected peer can be dialled. `None` when it always came to us.
    pub fn address_of(&self, peer: &PeerId) -> Option<SocketAddr> {
        let dialled = self.links.values().find(|link| link.peer == *peer && link.origin != Origin::Inbound);
        let routed = || self.routes.values().filter(|route| route.goal.peer() == Some(peer)).find_map(Route::address);
        dialled.map(|link| link.remote).or_else(routed)
    }

    /// Whether everything to and from a peer stays on this machine's own networks. One that is connected
    /// from elsewhere as well is taken for far away: those are the lines that cost money.
    pub fn is_local(&self, peer: &PeerId) -> bool {
        let on_own = |ip| self.networks.iter().any(|network| network.contains(ip));
        self.links.values().filter(|link| link.peer == *peer).all(|link| on_own(link.remote.ip()))
    }

    // The book's own affairs.

    fn add_route(&mut self, goal: Goal, from: Instant) {
        self.routes_made += 1;
        self.routes.insert(RouteId(self.routes_made), Route::new(goal, from));
    }

    fn remember(&mut self) {
        let pairings = self.pairings();
        self.actions.push(Action::Remember(pairings));
    }

    fn is_proven(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|known| known.proven)
    }

    fn is_linked(&self, peer: &PeerId) -> bool {
        self.links.values().any(|link| link.peer == *peer)
    }

    fn hang_up_on(&mut self, peer: &PeerId) {
        let links: Vec<LinkId> = self.links.iter().filter(|(_, link)| link.peer == *peer).map(|(id, _)| *id).collect();
        self.hang_up(&links);
    }

    fn hang_up(&mut self, ids: &[LinkId]) {
        for id in ids {
            if let Some(link) = self.links.get_mut(id).filter(|link| !link.hung_up) {
                link.hung_up = true;
                self.actions.push(Action::Hang(*id));
            }
        }
    }

    fn is_foreign(&mut self, peer: &PeerId, now: Instant) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.is_foreign_from(now);
        }
        self.hang_up_on(peer);
        let through: Vec<RouteId> =
            self.links.values().filter(|link| link.peer == *peer).filter_map(Link::route).collect();
        self.routes.retain(|id, route| {
            if through.contains(id) {
                route.trouble = Some(Trouble::Foreign);
            }
            !matches!(&route.goal, Goal::Announced { peer: announced, .. } if announced == peer)
        });
    }

    /// The connection that a route opened is over.
    fn route_ended(&mut self, id: RouteId, stable: bool, now: Instant) {
        let longest = self.longest_pause(id, now);
        let Some(route) = self.routes.get_mut(&id).filter(|route| route.dial == Dial::Up) else { return };
        if stable {
            route.failures = 0;
        }
        route.back_off(longest, &mut self.dice, now);
        if route.trouble == Some(Trouble::Foreign) {
            route.dial = Dial::Waiting { until: now + limits::CHANGED_PAUSE };
        }
    }

    /// Forgets peers that nobody paired with and that have not been here for long.
    fn forget(&mut self, now: Instant) {
        let old = |known: &Known| now.saturating_duration_since(known.seen) > limits::FORGET_AFTER;
        let gone: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(peer, known)| {
                old(known) && !known.is_barred(now) && !self.is_linked(peer) && !self.is_paired(peer)
            })
            .map(|(peer, _)| peer.clone())
            .collect();
        for peer in gone {
            self.peers.remove(&peer);
            self.routes.retain(|_, route| route.goal.peer() != Some(&peer) || route.expire());
        }
    }

    /// Makes room for one more peer, at the cost of the one that was away for longest.
    fn forget_one(&mut self) -> bool {
        let idle = self.peers.iter().filter(|(peer, _)| !self.is_linked(peer) && !self.is_paired(peer));
        let oldest = idle.min_by_key(|(_, known)| known.seen).map(|(peer, _)| peer.clone());
        oldest.and_then(|oldest| self.peers.remove(&oldest)).is_some()
    }
}

impl Link {
    fn is_in_use(&self) -> bool {
        self.introduced && !self.hung_up
    }

    fn route(&self) -> Option<RouteId> {
        match self.origin {
            Origin::Route(route) => Some(route),
            Origin::Inbound | Origin::Extra => None,
        }
    }
}
