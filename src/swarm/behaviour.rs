//! The protocols that run on every connection, and their order.
//!
//! Knows which protocols there are, and how each is set. Does not know what happens with their events.
//! Invariant: whatever may refuse a connection stands before whatever remembers connections. A later
//! refusal would leave the request protocols with a connection that never was, and requests to it would
//! wait for ever.

use std::io;

use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, StreamProtocol, connection_limits, identify, mdns, ping, request_response};

use super::gate::Gate;
use super::query::QueryCodec;
use super::transfer::TransferCodec;
use crate::{limits, wire};

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub(super) gate: Gate,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(super) queries: request_response::Behaviour<QueryCodec>,
    pub(super) pieces: request_response::Behaviour<TransferCodec>,
}

/// What hffs calls itself to its peers.
pub fn agent() -> String {
    format!("hffs/{}", env!("CARGO_PKG_VERSION"))
}

impl Behaviour {
    /// All protocols, discovery switched off: it starts when there is an address to announce.
    pub(super) fn new(key: &Keypair) -> Self {
        let places = connection_limits::ConnectionLimits::default()
            .with_max_pending_incoming(Some(limits::HANDSHAKES_IN_MAX))
            .with_max_pending_outgoing(Some(limits::HANDSHAKES_OUT_MAX))
            .with_max_established_incoming(Some(limits::CONNECTIONS_IN_MAX))
            .with_max_established_outgoing(Some(limits::CONNECTIONS_OUT_MAX))
            .with_max_established_per_peer(Some(limits::CONNECTIONS_PER_PEER_MAX))
            .with_max_established(Some(limits::CONNECTIONS_MAX));
        // Where we listen is told by mDNS to the local network and by the user to everybody else; and
        // addresses that strangers claim to have are not to be dialled on their word.
        let introduction = identify::Config::new(wire::FAMILY.to_owned(), key.public())
            .with_agent_version(agent())
            .with_hide_listen_addrs(true)
            .with_cache_size(0);
        let pings = ping::Config::new().with_interval(limits::PING_EVERY).with_timeout(limits::PING_WAIT);
        Self {
            limits: connection_limits::Behaviour::new(places),
            gate: Gate::default(),
            identify: identify::Behaviour::new(introduction),
            ping: ping::Behaviour::new(pings),
            mdns: Toggle::from(None),
            queries: requests(QueryCodec, wire::QUERY_PROTOCOL, limits::QUERY_WAIT),
            pieces: requests(TransferCodec::default(), wire::PIECE_PROTOCOL, limits::PIECES_WAIT),
        }
    }
}

fn requests<C: request_response::Codec<Protocol = StreamProtocol> + Clone + Send + 'static>(
    codec: C,
    protocol: &'static str,
    wait: std::time::Duration,
) -> request_response::Behaviour<C> {
    let config = request_response::Config::default()
        .with_request_timeout(wait)
        .with_max_concurrent_streams(limits::STREAMS_PER_CONNECTION_MAX);
    let protocols = [(StreamProtocol::new(protocol), request_response::ProtocolSupport::Full)];
    request_response::Behaviour::with_codec(codec, protocols, config)
}

/// Discovery on the local network.
///
/// A newcomer asks at once and is heard by all; the interval only mends what was lost. What a peer
/// announced is believed for two minutes.
pub(super) fn discovery(me: PeerId) -> io::Result<mdns::tokio::Behaviour> {
    let config = mdns::Config { ttl: limits::MDNS_TTL, query_interval: limits::MDNS_EVERY, ..mdns::Config::default() };
    mdns::tokio::Behaviour::new(config, me)
}
