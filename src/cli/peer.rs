//! `hffs peer`: add, rm, ls.
//!
//! Knows the daemon's answers and `peers.toml`. Does not know how peers are dialled.
//! Invariant: while a daemon runs, only the daemon writes `peers.toml`.

use super::exit::{Exit, Outcome, Wrong};
use super::printer::Printer;
use super::text::{self, Lean};
use crate::config::{DEFAULT_PORT, Environment, Home, SavedPeer, read_peers, write_peers};
use crate::control::{self, Client, Request, docs};
use crate::limits;
use crate::names::Host;

/// `hffs peer …`
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Pair with the daemon at an address
    Add {
        /// IP address or host name
        #[arg(value_name = "IP")]
        host: Host,
        #[arg(long, value_name = "N", default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
    },
    /// Unpair from the daemon at an address
    Rm {
        /// IP address or host name
        #[arg(value_name = "IP")]
        host: Host,
        /// Only this port [default: every port of that address]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        port: Option<u16>,
    },
    /// List peers
    Ls,
}

/// Pairs, now if a daemon runs, else when one starts.
pub(super) async fn add(host: Host, port: u16, environment: &Environment, printer: Printer) -> Outcome {
    let home = Home::find(environment)?;
    let request = Request::PeerAdd { host: host.clone(), port };
    let pairing = match ask(&home, &request).await? {
        Some(pairing) => pairing,
        None => save(&home, host, port).await?,
    };
    let address = format!("{}, port {}", pairing.host, pairing.port);
    printer.say(&match (&pairing.peer_id, pairing.daemon) {
        (Some(peer_id), true) => format!("paired with {} at {address}", peer_id.short()),
        (None, true) => format!("added {address}; nobody answers there yet, it is tried again and again"),
        (_, false) => format!("added {address}; it is dialled when the daemon starts: `hffs daemon start`"),
    });
    printer.result(&pairing, String::new)?;
    Ok(Exit::Done)
}

/// Unpairs from one port of an address, or from all.
pub(super) async fn rm(host: Host, port: Option<u16>, environment: &Environment, printer: Printer) -> Outcome {
    let home = Home::find(environment)?;
    let request = Request::PeerRm { host: host.clone(), port };
    let gone: Vec<docs::Pairing> = match ask(&home, &request).await? {
        Some(gone) => gone,
        None => forget(&home, &host, port)?,
    };
    if gone.is_empty() {
        let port = port.map(|port| format!(", port {port}")).unwrap_or_default();
        return Err(Wrong::new(format!("no peer was added at `{host}`{port}")).hint("hffs peer ls").into());
    }
    for pairing in &gone {
        printer.say(&format!("removed {}, port {}", pairing.host, pairing.port));
    }
    printer.result(&gone, String::new)?;
    Ok(Exit::Done)
}

/// Lists the peers that the daemon knows.
pub(super) async fn ls(environment: &Environment, printer: Printer) -> Outcome {
    let home = Home::find(environment)?;
    let peers: Vec<docs::Peer> = Client::connect(&home).await?.ask(&Request::PeerLs).await?;
    if peers.is_empty() {
        printer.say("no peers yet: daemons on this network show by themselves, others with `hffs peer add IP`");
    }
    printer.result(&peers, || if peers.is_empty() { String::new() } else { table(&peers) })?;
    for peer in &peers {
        if let Some(trouble) = &peer.trouble {
            let who = peer.address.as_deref().or(peer.peer_id.as_ref().map(|id| id.short())).unwrap_or("a peer");
            printer.warn(&format!("{who}: {trouble}"));
        }
    }
    Ok(Exit::Done)
}

fn table(peers: &[docs::Peer]) -> String {
    let heads = [
        ("PEER", Lean::Left),
        ("ADDRESS", Lean::Left),
        ("KNOWN BY", Lean::Left),
        ("STATE", Lean::Left),
        ("RTT", Lean::Right),
        ("VERSION", Lean::Left),
    ];
    let rows = peers.iter().map(|peer| {
        let via = peer.via.iter().map(|via| match via {
            docs::Via::Manual => "manual",
            docs::Via::Mdns => "mdns",
            docs::Via::Inbound => "inbound",
        });
        let state = match (peer.active, &peer.trouble) {
            (true, _) => "active",
            (false, Some(_)) => "refused",
            (false, None) => "offline",
        };
        [
            peer.peer_id.as_ref().map_or("?", |id| id.short()).to_owned(),
            peer.address.clone().unwrap_or_else(|| "-".into()),
            via.collect::<Vec<_>>().join(", "),
            state.to_owned(),
            peer.rtt.map_or_else(|| "-".into(), |rtt| format!("{:.1} ms", rtt * 1_000.0)),
            peer.agent.clone().unwrap_or_else(|| "-".into()),
        ]
    });
    text::table(heads, rows)
}

/// Asks the daemon, if there is one.
pub(super) async fn ask<T: serde::de::DeserializeOwned>(
    home: &Home,
    request: &Request,
) -> Result<Option<T>, control::Error> {
    match Client::connect(home).await {
        Ok(client) => client.ask(request).await.map(Some),
        Err(control::Error::NoDaemon { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Saves a pairing for the next daemon. A name must resolve, so that a mistyped one is not found out days later.
async fn save(home: &Home, host: Host, port: u16) -> anyhow::Result<docs::Pairing> {
    home.prepare()?;
    let mut peers = read_peers(&home.peers_toml())?;
    let known = peers.iter().find(|peer| peer.host == host && peer.port == port);
    let peer_id = known.and_then(|peer| peer.peer_id.clone());
    if known.is_none() {
        if peers.len() >= limits::SAVED_PEERS_MAX {
            return Err(Wrong::new(format!("there are {} peers already", peers.len())).hint("hffs peer rm IP").into());
        }
        if tokio::net::lookup_host((host.as_str(), port)).await.is_err() {
            return Err(Wrong::new(format!("`{host}` does not resolve to an address")).into());
        }
        peers.push(SavedPeer { host: host.clone(), port, peer_id: None });
        write_peers(&home.peers_toml(), &peers)?;
    }
    Ok(docs::Pairing { host: host.into(), port, peer_id, daemon: false })
}

/// Takes pairings out of the file, and says which went.
fn forget(home: &Home, host: &Host, port: Option<u16>) -> anyhow::Result<Vec<docs::Pairing>> {
    let peers = read_peers(&home.peers_toml())?;
    let goes = |peer: &SavedPeer| peer.host == *host && port.is_none_or(|port| port == peer.port);
    let (gone, kept): (Vec<_>, Vec<_>) = peers.into_iter().partition(goes);
    if !gone.is_empty() {
        write_peers(&home.peers_toml(), &kept)?;
    }
    let gone = gone.into_iter().map(|peer| docs::Pairing {
        host: peer.host.into(),
        port: peer.port,
        peer_id: peer.peer_id,
        daemon: false,
    });
    Ok(gone.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn peers_are_saved_and_forgotten_without_a_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::find(&Environment::from_vars([("HFFS_HOME", dir.path().to_str().unwrap())])).unwrap();
        let host = || "127.0.0.1".parse::<Host>().unwrap();
        for port in [1, 2, 2] {
            assert!(!save(&home, host(), port).await.unwrap().daemon);
        }
        let ports = || read_peers(&home.peers_toml()).unwrap().iter().map(|peer| peer.port).collect::<Vec<_>>();
        assert_eq!(ports(), [1, 2]);
        assert!(save(&home, "no-such-host.invalid".parse().unwrap(), 1).await.is_err());
        assert_eq!(forget(&home, &host(), Some(2)).unwrap().len(), 1);
        assert_eq!(ports(), [1]);
        assert!(forget(&home, &host(), Some(2)).unwrap().is_empty());
        assert_eq!(forget(&home, &host(), None).unwrap().len(), 1);
        assert!(ports().is_empty());
    }

    #[test]
    fn only_a_peer_that_is_active_is_shown_as_such() {
        let peer = |active, trouble: Option<&str>| docs::Peer {
            peer_id: Some("12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq".parse().unwrap()),
            address: Some("10.0.0.1:9009".into()),
            via: vec![docs::Via::Manual, docs::Via::Mdns],
            active,
            rtt: active.then_some(0.0012),
            agent: Some("hffs/0.1.0\u{1b}[2J".into()),
            trouble: trouble.map(str::to_owned),
        };
        let shown = table(&[peer(true, None), peer(false, None), peer(false, Some("another identity"))]);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].contains("active") && lines[1].contains("1.2 ms") && lines[1].contains("manual, mdns"));
        assert!(lines[2].contains("offline") && lines[3].contains("refused"));
        assert_eq!(shown.matches("active").count(), 1);
        assert!(!shown.contains('\u{1b}'));
    }
}
