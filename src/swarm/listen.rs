//! Which port we listen on.
//!
//! Knows ports and why they are refused. Does not know connections.
//! Invariant: a port that another program listens on is never shared with it. libp2p's listeners would
//! share it with another hffs daemon without a word, so a plain socket tries it first.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use futures::StreamExt;
use libp2p::TransportError;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::{Swarm, SwarmEvent};
use tokio::time::timeout;

use super::behaviour::{Behaviour, BehaviourEvent};
use super::{Error, address};
use crate::limits;

/// How long the system may take to tell our first address.
const FIRST_ADDRESS: Duration = Duration::from_secs(3);
/// And all others.
const OTHER_ADDRESSES: Duration = Duration::from_millis(50);

/// Listens on all interfaces, and returns the port and what else happened meanwhile.
pub(super) async fn listen(
    swarm: &mut Swarm<Behaviour>,
    port: Option<u16>,
) -> Result<(u16, Vec<SwarmEvent<BehaviourEvent>>), Error> {
    let listener = match port {
        Some(port) => listen_on(swarm, port)?,
        None => listen_on(swarm, limits::PORT_DEFAULT).or_else(|error| match error {
            Error::PortTaken { .. } => listen_on(swarm, 0),
            other => Err(other),
        })?,
    };
    let mut events = Vec::new();
    let found = first_port(swarm, listener, &mut events).await;
    let port = match (found, port) {
        (Some(found), _) => found,
        // No interface is up yet; its address will be told later.
        (None, Some(port)) if port != 0 => port,
        (None, _) => return Err(Error::Listen { port: port.unwrap_or(0), source: io::ErrorKind::TimedOut.into() }),
    };
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    if let Err(error) = swarm.listen_on(address::multiaddr(v6)) {
        tracing::warn!(%error, "not listening on IPv6");
    }
    // The other addresses are told right behind the first, and whoever starts a daemon wants to see them.
    let _ = timeout(OTHER_ADDRESSES, async {
        loop {
            events.push(swarm.select_next_some().await);
        }
    })
    .await;
    Ok((port, events))
}

fn listen_on(swarm: &mut Swarm<Behaviour>, port: u16) -> Result<ListenerId, Error> {
    let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => Error::PortTaken { port },
        // Windows keeps whole ranges of ports for its virtual machines, and calls them forbidden.
        io::ErrorKind::PermissionDenied if cfg!(windows) => Error::PortTaken { port },
        _ => Error::Listen { port, source },
    };
    if port != 0 {
        drop(TcpListener::bind(all).map_err(failed)?);
    }
    swarm.listen_on(address::multiaddr(all)).map_err(|error| match error {
        TransportError::Other(source) => failed(source),
        TransportError::MultiaddrNotSupported(_) => failed(io::ErrorKind::Unsupported.into()),
    })
}

/// Waits for the listener's first address, which tells its port.
async fn first_port(
    swarm: &mut Swarm<Behaviour>,
    listener: ListenerId,
    events: &mut Vec<SwarmEvent<BehaviourEvent>>,
) -> Option<u16> {
    let found = timeout(FIRST_ADDRESS, async {
        loop {
            let event = swarm.select_next_some().await;
            let port = match &event {
                SwarmEvent::NewListenAddr { listener_id, address } if *listener_id == listener => {
                    address::socket(address).map(|socket| socket.port())
                }
                _ => None,
            };
            events.push(event);
            if port.is_some() {
                return port;
            }
        }
    });
    found.await.ok().flatten()
}
