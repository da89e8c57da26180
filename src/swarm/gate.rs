//! The gate: connections that are refused before anything is done for them.
//!
//! Knows addresses, and the peers that the book bars. Does not know why they are barred.
//! Invariant: one address can take neither all places for handshakes nor all connections, and a barred peer
//! gets no connection in either direction.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, ListenFailure};
use libp2p::swarm::dummy;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use super::address;
use crate::limits;

/// Refuses connections by address and by peer.
#[derive(Default)]
pub(super) struct Gate {
    barred: HashSet<PeerId>,
    handshakes: HashMap<ConnectionId, IpAddr>,
    open: HashMap<ConnectionId, IpAddr>,
}

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The peer is banned or foreign.
    Barred,
    /// Its address has too many connections.
    Crowded,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::Barred => "the peer is barred",
            Refused::Crowded => "the address has too many connections",
        })
    }
}

impl std::error::Error for Refused {}

impl Gate {
    /// Refuses these peers from now on, and no others.
    pub(super) fn bar(&mut self, peers: HashSet<PeerId>) {
        self.barred = peers;
    }

    fn admit(&self, peer: &PeerId) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        if self.barred.contains(peer) {
            return Err(ConnectionDenied::new(Refused::Barred));
        }
        Ok(dummy::ConnectionHandler)
    }
}

fn count(places: &HashMap<ConnectionId, IpAddr>, ip: IpAddr) -> usize {
    places.values().filter(|taken| **taken == ip).count()
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let Some(remote) = address::socket(remote) else { return Ok(()) };
        let ip = remote.ip();
        let crowded = count(&self.handshakes, ip) >= limits::HANDSHAKES_PER_IP_MAX
            || count(&self.open, ip) >= limits::CONNECTIONS_PER_IP_MAX;
        if crowded {
            return Err(ConnectionDenied::new(Refused::Crowded));
        }
        self.handshakes.insert(id, ip);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handshakes.remove(&id);
        self.admit(&peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(&peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { connection_id, endpoint, .. }) => {
                if let Some(remote) = address::socket(endpoint.get_remote_address()) {
                    self.open.insert(connection_id, remote.ip());
                }
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.open.remove(&connection_id);
            }
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.handshakes.remove(&connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knock(gate: &mut Gate, n: usize, from: &str) -> Result<(), ConnectionDenied> {
        let id = ConnectionId::new_unchecked(n);
        gate.handle_pending_inbound_connection(id, &Multiaddr::empty(), &from.parse().unwrap())
    }

    #[test]
    fn one_address_cannot_take_all_places_for_handshakes() {
        let mut gate = Gate::default();
        let from = |n: usize| format!("/ip4/10.0.0.9/tcp/{}", 1_000 + n);
        let admitted = (0..200).filter(|n| knock(&mut gate, *n, &from(*n)).is_ok()).count();
        assert_eq!(admitted, limits::HANDSHAKES_PER_IP_MAX);
        assert!(knock(&mut gate, 500, "/ip4/10.0.0.8/tcp/1").is_ok());
        // A finished handshake makes room for the next.
        let (id, peer) = (ConnectionId::new_unchecked(0), PeerId::random());
        let (local, remote) = (Multiaddr::empty(), from(0).parse().unwrap());
        gate.handle_established_inbound_connection(id, peer, &local, &remote).unwrap();
        assert!(knock(&mut gate, 501, &from(501)).is_ok());
    }

    #[test]
    fn a_barred_peer_is_refused_in_both_directions() {
        let (mut gate, peer, id) = (Gate::default(), PeerId::random(), ConnectionId::new_unchecked(1));
        let nowhere = Multiaddr::empty();
        assert!(gate.handle_established_inbound_connection(id, peer, &nowhere, &nowhere).is_ok());
        gate.bar([peer].into());
        assert!(gate.handle_established_inbound_connection(id, peer, &nowhere, &nowhere).is_err());
        let dialled = gate.handle_established_outbound_connection(id, peer, &nowhere, Endpoint::Dialer, PortUse::New);
        assert_eq!(dialled.err().unwrap().downcast::<Refused>().unwrap(), Refused::Barred);
        gate.bar(HashSet::new());
        assert!(gate.handle_established_inbound_connection(id, peer, &nowhere, &nowhere).is_ok());
    }
}
