//! The words in which peers are spoken of: pairings, ways of knowing, offences, and what is shown.
//!
//! Knows what the user said and what the user sees. Does not know how a peer is reached.
//! Invariant: nothing in here carries trust by itself; only the book of peers grants it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::names::Host;
use crate::names::PeerId;

/// A peer that this machine's user added, as it is remembered across restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairing {
    pub host: Host,
    pub port: u16,
    /// The identity found at the first contact; from then on nobody else is believed at this address.
    pub peer_id: Option<PeerId>,
}

impl fmt::Display for Pairing {
    /// `HOST:PORT`, with brackets around an IPv6 address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.ip() {
            Some(ip) => write!(f, "{}", SocketAddr::new(ip, self.port)),
            None => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// A network that this machine is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// An address in it.
    pub ip: IpAddr,
    /// How many leading bits all its addresses share.
    pub prefix: u8,
}

impl Network {
    /// Whether an address belongs to the network.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                let differ = u32::from(own) ^ u32::from(ip);
                differ.leading_zeros() >= u32::from(self.prefix.min(32))
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                let differ = u128::from(own) ^ u128::from(ip);
                differ.leading_zeros() >= u32::from(self.prefix.min(128))
            }
            _ => false,
        }
    }
}

/// How a peer is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// The user paired with it.
    Manual,
    /// It announced itself on the local network.
    Mdns,
    /// It connected to us.
    Inbound,
}

/// What a peer did wrong, provably.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// It sent bytes that are not what was asked for.
    WrongBytes,
    /// It sent a message that no version sends.
    Malformed,
    /// It went on asking far beyond its rate.
    Flood,
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Offence::WrongBytes => "sent wrong bytes",
            Offence::Malformed => "sent malformed messages",
            Offence::Flood => "asked far too often",
        })
    }
}

/// A peer, or a paired address where none was met yet, as `peer ls` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerView {
    pub peer_id: Option<PeerId>,
    /// `IP:PORT`, or `HOST:PORT` for a paired host that was not reached yet.
    pub address: Option<String>,
    /// Without repeats, in the order of `Via`.
    pub via: Vec<Via>,
    /// Authenticated, speaks our protocols, and its connection is alive.
    pub active: bool,
    /// The round-trip time of the last ping.
    pub rtt: Option<Duration>,
    /// Program and version, as the peer says; already fit for a terminal.
    pub agent: Option<String>,
    /// This machine's user added it, and its identity is the pinned one.
    pub paired: bool,
    /// What the user should know: a changed identity, a ban, why it cannot be reached.
    pub trouble: Option<String>,
}

/// A peer that can be asked now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivePeer {
    pub id: PeerId,
    pub paired: bool,
    pub rtt: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_a_name() {
        for (text, host) in [
            ("10.0.0.7", "10.0.0.7"),
            ("[fd00::7]", "fd00::7"),
            ("FD00:0::7", "fd00::7"),
            ("Gpu-3.lab.local", "gpu-3.lab.local"),
            ("my_box", "my_box"),
        ] {
            assert_eq!(text.parse::<Host>().unwrap().as_str(), host);
        }
        let long = "a".repeat(300);
        for bad in [
            "",
            "10.0.0.256",
            "10.1",
            "0.0.0.0",
            "::",
            "224.0.0.251",
            "a b",
            "a/b",
            "a:9009",
            "a..b",
            "\u{1b}[2J",
            &long,
        ] {
            assert!(bad.parse::<Host>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_network_contains_its_own_addresses_only() {
        let network = |ip: &str, prefix| Network { ip: ip.parse().unwrap(), prefix };
        let contains = |network: Network, ip: &str| network.contains(ip.parse().unwrap());
        assert!(contains(network("130.60.1.7", 24), "130.60.1.200"));
        assert!(!contains(network("130.60.1.7", 24), "130.60.2.7"));
        assert!(contains(network("130.60.1.7", 32), "130.60.1.7"));
        assert!(!contains(network("130.60.1.7", 32), "130.60.1.6"));
        assert!(contains(network("2001:db8::1", 64), "2001:db8::ffff"));
        assert!(!contains(network("2001:db8::1", 64), "2001:db8:0:1::1"));
        assert!(!contains(network("10.0.0.1", 0), "fd00::1"));
    }

    #[test]
    fn a_pairing_reads_as_an_address() {
        let pairing = |host: &str| Pairing { host: host.parse().unwrap(), port: 9009, peer_id: None }.to_string();
        assert_eq!(pairing("fd00::7"), "[fd00::7]:9009");
        assert_eq!(pairing("10.0.0.7"), "10.0.0.7:9009");
        assert_eq!(pairing("box"), "box:9009");
    }
}
