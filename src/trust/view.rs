//! The book of peers as a person, or another room, sees it.
//!
//! Knows what is worth showing. Does not change anything.
//! Invariant: ourselves, foreign programs and announced addresses that never proved to be hffs are not shown.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::route::{Goal, Route, Trouble};
use super::words::{ActivePeer, Offence, Pairing, PeerView, Via};
use super::{Book, Origin};
use crate::names::PeerId;

impl Book {
    /// Everybody worth showing: active ones first, then by address.
    pub fn views(&self, now: Instant) -> Vec<PeerView> {
        let paired = self.pairings().into_iter().filter_map(|pairing| pairing.peer_id);
        let proven = self.peers.iter().filter(|(_, known)| known.proven).map(|(peer, _)| peer.clone());
        let peers: BTreeSet<PeerId> = paired.chain(proven).collect();
        let met = peers.iter().filter(|peer| !self.is_foreign_now(peer, now));
        let met = met.map(|peer| self.view(peer, now)).filter(|view| !view.via.is_empty());
        let unmet = self.routes.values().filter_map(|route| match &route.goal {
            Goal::Paired(pairing) if pairing.peer_id.is_none() && route.trouble != Some(Trouble::Ourselves) => {
                Some(unmet(pairing, route))
            }
            _ => None,
        });
        let mut views: Vec<PeerView> = met.chain(unmet).collect();
        views.sort_by(|a, b| (!a.active, &a.address, &a.peer_id).cmp(&(!b.active, &b.address, &b.peer_id)));
        views
    }

    /// The peers that can be asked now.
    pub fn active(&self) -> Vec<ActivePeer> {
        let here: BTreeSet<&PeerId> =
            self.links.values().filter(|link| link.is_in_use()).map(|link| &link.peer).collect();
        here.into_iter()
            .map(|peer| ActivePeer {
                id: peer.clone(),
                paired: self.is_paired(peer),
                rtt: self.peers.get(peer).and_then(|known| known.rtt),
            })
            .collect()
    }

    fn is_foreign_now(&self, peer: &PeerId, now: Instant) -> bool {
        self.peers.get(peer).is_some_and(|known| known.is_foreign(now))
    }

    fn view(&self, peer: &PeerId, now: Instant) -> PeerView {
        let known = self.peers.get(peer);
        let routes: Vec<&Route> = self.routes.values().filter(|route| route.goal.peer() == Some(peer)).collect();
        let paired = routes.iter().any(|route| matches!(route.goal, Goal::Paired(_)));
        let announced = routes.iter().any(|route| matches!(route.goal, Goal::Announced { .. }));
        let active = self.is_active(peer);
        let mut via = Vec::new();
        via.extend(paired.then_some(Via::Manual));
        via.extend(announced.then_some(Via::Mdns));
        via.extend(known.is_some_and(|known| known.inbound).then_some(Via::Inbound));
        let ban = known.and_then(|known| known.ban(now));
        let trouble = ban.map(describe_ban).or_else(|| {
            let trouble = routes.iter().find_map(|route| Some((route, route.trouble.as_ref()?)));
            trouble.filter(|_| !active).and_then(|(route, trouble)| describe(trouble, route))
        });
        PeerView {
            peer_id: Some(peer.clone()),
            address: self.shown_address(peer, &routes),
            via,
            active,
            rtt: known.filter(|_| active).and_then(|known| known.rtt),
            agent: known.and_then(|known| known.agent.clone()),
            paired,
            trouble,
        }
    }

    /// Where the peer listens, if that is known; else where it comes from.
    fn shown_address(&self, peer: &PeerId, routes: &[&Route]) -> Option<String> {
        let links = || self.links.values().filter(|link| link.peer == *peer);
        let dialled = links().find(|link| link.origin != Origin::Inbound).map(|link| link.remote.to_string());
        let routed = || routes.iter().find_map(|route| route.address()).map(|address| address.to_string());
        let named = || {
            routes.iter().find_map(|route| match &route.goal {
                Goal::Paired(pairing) => Some(pairing.to_string()),
                Goal::Announced { .. } => None,
            })
        };
        dialled.or_else(routed).or_else(named).or_else(|| links().next().map(|link| link.remote.to_string()))
    }
}

/// A paired address where nobody was met yet.
fn unmet(pairing: &Pairing, route: &Route) -> PeerView {
    PeerView {
        peer_id: None,
        address: Some(pairing.to_string()),
        via: vec![Via::Manual],
        active: false,
        rtt: None,
        agent: None,
        paired: false,
        trouble: route.trouble.as_ref().and_then(|trouble| describe(trouble, route)),
    }
}

fn describe(trouble: &Trouble, route: &Route) -> Option<String> {
    Some(match trouble {
        Trouble::Ourselves => "is this daemon itself".to_owned(),
        Trouble::Foreign => "is not an hffs daemon".to_owned(),
        Trouble::Changed(found) => {
            format!(
                "IDENTITY CHANGED: `{}` answers here, and is not trusted; if that is right, unpair and pair again",
                found.short()
            )
        }
        Trouble::Unresolved => "host name not found".to_owned(),
        // That an announced peer cannot be reached is what "not active" says already.
        Trouble::Unreachable => return matches!(route.goal, Goal::Paired(_)).then(|| "does not answer".to_owned()),
    })
}

fn describe_ban((offence, left): (Offence, Duration)) -> String {
    format!("banned for {} min: {offence}", left.as_secs().div_ceil(60))
}
