//! libp2p's addresses and identities in the words of the rest of the program, and back.
//!
//! Knows both forms. Does not know who lives where.
//! Invariant: only plain TCP over an IP address is an address for us; relays, names and other transports
//! are not, whoever announces them.

use std::net::SocketAddr;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use crate::names::PeerId;

/// The socket that an address means, with or without a peer id behind it.
pub(super) fn socket(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.to_canonical(),
        _ => return None,
    };
    let Some(Protocol::Tcp(port)) = parts.next() else { return None };
    match (parts.next(), parts.next()) {
        (None, _) | (Some(Protocol::P2p(_)), None) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// The address of a socket.
pub(super) fn multiaddr(socket: SocketAddr) -> Multiaddr {
    Multiaddr::from(socket.ip()).with(Protocol::Tcp(socket.port()))
}

/// libp2p's id in our words. `None` for ids that no hffs daemon has.
pub(super) fn named(peer: &libp2p::PeerId) -> Option<PeerId> {
    peer.to_base58().parse().ok()
}

/// Our word for a peer as libp2p's id. `None` for text that only looks like one.
pub(super) fn unnamed(peer: &PeerId) -> Option<libp2p::PeerId> {
    peer.as_str().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_tcp_is_an_address() {
        let read = |text: &str| socket(&text.parse().unwrap()).map(|socket| socket.to_string());
        let peer = libp2p::PeerId::random();
        assert_eq!(read("/ip4/10.0.0.1/tcp/9009").as_deref(), Some("10.0.0.1:9009"));
        assert_eq!(read("/ip6/fd00::1/tcp/9009").as_deref(), Some("[fd00::1]:9009"));
        assert_eq!(read("/ip6/::ffff:10.0.0.1/tcp/9009").as_deref(), Some("10.0.0.1:9009"));
        assert_eq!(read(&format!("/ip4/10.0.0.1/tcp/9009/p2p/{peer}")).as_deref(), Some("10.0.0.1:9009"));
        for bad in [
            "/ip4/10.0.0.1/udp/9009/quic-v1".to_owned(),
            "/dns4/example.org/tcp/443".to_owned(),
            "/ip4/10.0.0.1/tcp/9009/ws".to_owned(),
            format!("/ip4/10.0.0.1/tcp/9009/p2p/{peer}/p2p-circuit"),
            "/ip4/10.0.0.1".to_owned(),
        ] {
            assert_eq!(read(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_peer_keeps_its_id_in_both_words() {
        let peer = super::super::Identity::generate().keypair().public().to_peer_id();
        assert_eq!(unnamed(&named(&peer).unwrap()), Some(peer));
        assert_eq!(multiaddr("[fd00::1]:9".parse().unwrap()).to_string(), "/ip6/fd00::1/tcp/9");
    }
}
