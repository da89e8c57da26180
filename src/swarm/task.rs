//! The swarm's task: events in, decisions of the book carried out, commands answered.
//!
//! Knows the libp2p swarm, and joins it with the book of peers. Does not decide: whom to dial, hang up on
//! or believe is the book's to say.
//! Invariant: nothing here waits for anything but the next event. An event that is not understood is
//! ignored, and a panic restarts the network with all that the book knows.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures::{FutureExt, StreamExt};
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, FromSwarm, NetworkBehaviour, NewListenAddr, Swarm, SwarmEvent};
use libp2p::{Multiaddr, identify, mdns, ping};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::behaviour::{self, Behaviour, BehaviourEvent};
use super::calls::Calls;
use super::commands::{Command, Meeting};
use super::gate::Refused;
use super::serving::Serving;
use super::{Discovery, Error, Event, Host, Identity, Pairing, Serve, View, address, listen, transport};
use crate::limits;
use crate::names::PeerId;
use crate::pace::Lines;
use crate::trust::{Action, Book, DialFailure, Introduction, LinkId, Network, Origin, RouteId};
use crate::wire::{self, Answer};

/// What a dial under way is for.
pub(super) enum Purpose {
    Route(RouteId),
    /// A further connection for pieces.
    Bulk,
}

/// What was looked up outside the task.
enum Found {
    Host(RouteId, Vec<SocketAddr>),
    Networks(Vec<Network>),
}

/// Everything that the task owns.
pub(super) struct Task {
    identity: Identity,
    discovery: Discovery,
    port: u16,
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) book: Book,
    pub(super) queries: Calls<Answer>,
    pub(super) pieces: Calls<u64>,
    pub(super) serving: Serving,
    pub(super) lines: Lines,
    links: HashMap<ConnectionId, LinkId>,
    links_made: u64,
    dials: HashMap<ConnectionId, Purpose>,
    pub(super) bulk_tried: HashMap<PeerId, Instant>,
    lookups: JoinSet<Found>,
    pub(super) meetings: Vec<Meeting>,
    /// Answers that wait until the view shows what they say.
    pub(super) answers: Vec<Box<dyn FnOnce() + Send>>,
    listening: BTreeSet<SocketAddr>,
    events: mpsc::Sender<Event>,
    /// Pairings that the daemon's full queue did not take yet.
    unsent: Option<Vec<Pairing>>,
    view: watch::Sender<Arc<View>>,
    changes: watch::Sender<u64>,
    /// A listener closed by itself.
    deaf: bool,
    /// Something may have changed that the book, or a reader of the view, should see.
    pub(super) stale: bool,
}

/// Why a session of the network ended.
enum Ended {
    /// The `Handle` said so, or there is none any more.
    Stopped(Option<oneshot::Sender<()>>),
    /// Nobody could reach us any more.
    Deaf,
}

/// The ends of the task's channels.
pub(super) struct Channels {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) view: watch::Sender<Arc<View>>,
    pub(super) changes: watch::Sender<u64>,
}

impl Task {
    /// Listens, and is ready to run then.
    pub(super) async fn new(options: super::Options, serve: Arc<dyn Serve>, channels: Channels) -> Result<Self, Error> {
        let me = options.identity.peer_id().clone();
        let mut swarm = build(&options.identity)?;
        let (port, early) = listen::listen(&mut swarm, options.port).await?;
        // The jitter needs no secret, only something that differs between the machines of a lab.
        let seed = me.as_str().bytes().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let mut task = Self {
            identity: options.identity,
            discovery: options.discovery,
            port,
            swarm,
            book: Book::new(me, options.pairings, seed, Instant::now()),
            queries: Calls::new(),
            pieces: Calls::new(),
            serving: Serving::new(serve),
            lines: options.lines,
            links: HashMap::new(),
            links_made: 0,
            dials: HashMap::new(),
            bulk_tried: HashMap::new(),
            lookups: JoinSet::new(),
            meetings: Vec::new(),
            answers: Vec::new(),
            listening: BTreeSet::new(),
            events: channels.events,
            unsent: None,
            view: channels.view,
            changes: channels.changes,
            deaf: false,
            stale: true,
        };
        for event in early {
            task.on_swarm(event);
        }
        task.settle();
        Ok(task)
    }

    /// Runs until it is told to stop, or nobody can tell it anything any more.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            match AssertUnwindSafe(self.session(&mut commands)).catch_unwind().await {
                Ok(Ended::Stopped(done)) => {
                    self.close().await;
                    drop(self);
                    if let Some(done) = done {
                        let _ = done.send(());
                    }
                    return;
                }
                Ok(Ended::Deaf) => tracing::error!("a listener is lost; the network starts anew"),
                Err(_) => tracing::error!("the network's task panicked; it starts anew"),
            }
            while let Err(error) = self.restart().await {
                tracing::error!(%error, "the network cannot start anew");
            }
        }
    }

    async fn session(&mut self, commands: &mut mpsc::Receiver<Command>) -> Ended {
        let mut wake = pin!(tokio::time::sleep_until(self.next_look(Instant::now()).into()));
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm(event),
                ready = self.serving.next() => self.respond(ready),
                Some(found) = self.lookups.join_next() => {
                    if let Ok(found) = found {
                        self.on_found(found);
                    }
                }
                command = commands.recv() => match command {
                    Some(Command::Stop { done }) => return Ended::Stopped(Some(done)),
                    Some(command) => self.on_command(command),
                    None => return Ended::Stopped(None),
                },
                () = &mut wake => self.on_wake(),
            }
            if std::mem::take(&mut self.stale) {
                self.settle();
                wake.as_mut().reset(self.next_look(Instant::now()).into());
            }
            if std::mem::take(&mut self.deaf) {
                return Ended::Deaf;
            }
        }
    }

    /// Says goodbye to all peers, so that they need not wait for silence to tell them.
    async fn close(&mut self) {
        let peers: Vec<libp2p::PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let _ = timeout(limits::GOODBYE, async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        })
        .await;
    }

    /// Builds the network anew, on the same port, with what the book knows.
    async fn restart(&mut self) -> Result<(), Error> {
        self.queries.clear();
        self.pieces.clear();
        self.serving.clear();
        self.links.clear();
        self.dials.clear();
        self.listening.clear();
        self.lookups = JoinSet::new();
        self.book.cut_off(Instant::now());
        self.publish(Instant::now());
        // Whatever is wrong may be wrong again at once.
        tokio::time::sleep(limits::RESTART_PAUSE).await;
        self.swarm = build(&self.identity)?;
        let (_, early) = listen::listen(&mut self.swarm, Some(self.port)).await?;
        for event in early {
            self.on_swarm(event);
        }
        self.stale = true;
        Ok(())
    }

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let now = Instant::now();
        match event {
            // These come with every request and change nothing that the book or the view shows; where one
            // does, it says so.
            SwarmEvent::Behaviour(BehaviourEvent::Queries(event)) => return self.on_query(event, now),
            SwarmEvent::Behaviour(BehaviourEvent::Pieces(event)) => return self.on_pieces(event, now),
            SwarmEvent::Behaviour(event) => self.on_behaviour(event, now),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                let origin = match self.dials.remove(&connection_id) {
                    Some(Purpose::Route(route)) => Origin::Route(route),
                    Some(Purpose::Bulk) => Origin::Extra,
                    None if endpoint.is_dialer() => Origin::Extra,
                    None => Origin::Inbound,
                };
                self.on_link(connection_id, &peer_id, endpoint.get_remote_address(), origin, now);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, "connection closed");
                if let Some(link) = self.links.remove(&connection_id) {
                    self.book.unlinked(link, now);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(Purpose::Route(route)) = self.dials.remove(&connection_id) {
                    tracing::debug!(%error, "dial failed");
                    self.book.dial_failed(route, self.dial_failure(&error), now);
                }
            }
            SwarmEvent::NewListenAddr { address, .. } => self.on_listening(&address),
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                if let Some(socket) = address::socket(&address) {
                    self.listening.remove(&socket);
                }
                self.look_up_networks();
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener has trouble"),
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::warn!(?addresses, ?reason, "a listener closed");
                self.deaf = true;
            }
            other => return tracing::trace!(?other, "ignored"),
        }
        self.stale = true;
    }

    fn on_behaviour(&mut self, event: BehaviourEvent, now: Instant) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received { connection_id, info, .. }) => {
                let introduction = match info.protocol_version == wire::FAMILY {
                    true => Introduction::Hffs { agent: info.agent_version },
                    false => Introduction::Foreign,
                };
                if let Some(link) = self.links.get(&connection_id) {
                    self.book.introduced(*link, introduction, now);
                }
            }
            BehaviourEvent::Ping(ping::Event { connection, result: Ok(rtt), .. }) => {
                if let Some(link) = self.links.get(&connection) {
                    self.book.pinged(*link, rtt, now);
                }
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (peer, socket) in found.iter().filter_map(announcement) {
                    self.book.announced(peer, socket, now);
                }
            }
            BehaviourEvent::Mdns(mdns::Event::Expired(gone)) => {
                for (peer, socket) in gone.iter().filter_map(announcement) {
                    self.book.withdrawn(&peer, socket);
                }
            }
            other => tracing::trace!(?other, "ignored"),
        }
    }

    fn on_link(&mut self, id: ConnectionId, peer: &libp2p::PeerId, remote: &Multiaddr, origin: Origin, now: Instant) {
        let (Some(peer), Some(remote)) = (address::named(peer), address::socket(remote)) else {
            tracing::debug!(%peer, %remote, "a connection of a kind that is not ours");
            self.swarm.close_connection(id);
            return;
        };
        tracing::debug!(%peer, %remote, ?origin, "connected");
        self.links_made += 1;
        let link = LinkId(self.links_made);
        self.links.insert(id, link);
        self.book.linked(link, peer, remote, origin, now);
    }

    fn on_listening(&mut self, address: &Multiaddr) {
        let Some(socket) = address::socket(address) else { return };
        tracing::debug!(%socket, "listening");
        // Nobody can use a link-local IPv6 address without saying through which interface.
        if !matches!(socket, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local()) {
            self.listening.insert(socket);
        }
        self.look_up_networks();
    }

    /// Starts discovery once there is something to announce: a peer that asks before gets no answer, and
    /// asks again only much later.
    fn start_discovery(&mut self) {
        let running = self.swarm.behaviour().mdns.is_enabled();
        if self.discovery == Discovery::Off || running || self.listening.is_empty() {
            return;
        }
        match behaviour::discovery(*self.swarm.local_peer_id()) {
            Ok(mut mdns) => {
                let id = libp2p::core::transport::ListenerId::next();
                for addr in self.listening.iter().map(|socket| address::multiaddr(*socket)) {
                    mdns.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr { listener_id: id, addr: &addr }));
                }
                self.swarm.behaviour_mut().mdns = Toggle::from(Some(mdns));
            }
            Err(error) => {
                tracing::warn!(%error, "peers on the local network cannot be discovered");
                self.discovery = Discovery::Off;
            }
        }
    }

    fn look_up_networks(&mut self) {
        self.lookups.spawn(async { Found::Networks(tokio::task::spawn_blocking(networks).await.unwrap_or_default()) });
    }

    fn on_found(&mut self, found: Found) {
        let now = Instant::now();
        match found {
            Found::Host(route, addresses) => self.book.resolved(route, addresses, now),
            Found::Networks(networks) => self.book.networks_changed(networks, now),
        }
        self.stale = true;
    }

    fn on_wake(&mut self) {
        let now = Instant::now();
        self.queries.forget_the_left(now);
        self.pieces.forget_the_left(now);
        self.stale = true;
    }

    /// When to look at the clock again, if nothing happens before. A machine that only waits for its peers
    /// is not woken four times a second for that.
    fn next_look(&self, now: Instant) -> Instant {
        let soon = now + limits::SWARM_TICK;
        let late = now + limits::SWARM_IDLE_TICK;
        if self.unsent.is_some() || !self.meetings.is_empty() {
            return soon;
        }
        match self.book.due(now) {
            // It waits for a place that nobody announces.
            Some(due) if due <= now => soon,
            Some(due) => due.min(late),
            None => late,
        }
    }

    /// Carries out what follows from what happened, and shows the result.
    fn settle(&mut self) {
        let now = Instant::now();
        self.start_discovery();
        self.answer_meetings(now);
        // A dial that fails at once leads to further actions; each makes its route wait longer.
        loop {
            let actions = self.book.actions(now);
            if actions.is_empty() {
                break;
            }
            for action in actions {
                self.perform(action, now);
            }
        }
        self.tell_pairings();
        self.publish(now);
        for answer in self.answers.drain(..) {
            answer();
        }
    }

    fn perform(&mut self, action: Action, now: Instant) {
        match action {
            Action::Resolve { route, host, port } => {
                self.lookups.spawn(async move { Found::Host(route, resolve(host, port).await) });
            }
            Action::Dial { route, address, expect } => {
                let expect = expect.as_ref().and_then(address::unnamed);
                if let Err(error) = self.dial(Purpose::Route(route), address, expect) {
                    tracing::debug!(%error, "dial failed");
                    self.book.dial_failed(route, self.dial_failure(&error), now);
                }
            }
            Action::Hang(link) => {
                let id = self.links.iter().find(|(_, known)| **known == link).map(|(id, _)| *id);
                if let Some(id) = id {
                    self.swarm.close_connection(id);
                }
            }
            Action::Bar(peers) => {
                let peers = peers.iter().filter_map(address::unnamed).collect();
                self.swarm.behaviour_mut().gate.bar(peers);
            }
            Action::Remember(pairings) => self.unsent = Some(pairings),
        }
    }

    /// Always from a new port: a port that is used by another connection to the same peer cannot be used twice.
    pub(super) fn dial(
        &mut self,
        purpose: Purpose,
        socket: SocketAddr,
        expect: Option<libp2p::PeerId>,
    ) -> Result<(), DialError> {
        let address = address::multiaddr(socket);
        let options = match expect {
            Some(peer) => DialOpts::peer_id(peer)
                .condition(PeerCondition::Always)
                .addresses(vec![address])
                .allocate_new_port()
                .build(),
            None => DialOpts::unknown_peer_id().address(address).allocate_new_port().build(),
        };
        let id = options.connection_id();
        self.swarm.dial(options)?;
        self.dials.insert(id, purpose);
        Ok(())
    }

    fn dial_failure(&self, error: &DialError) -> DialFailure {
        match error {
            // libp2p leaves out the addresses that it listens on itself.
            DialError::LocalPeerId { .. } | DialError::NoAddresses => DialFailure::Ourselves,
            DialError::WrongPeerId { obtained, .. } if obtained == self.swarm.local_peer_id() => DialFailure::Ourselves,
            DialError::WrongPeerId { obtained, .. } => match address::named(obtained) {
                Some(found) => DialFailure::WrongPeer(found),
                None => DialFailure::Barred,
            },
            DialError::Denied { cause } if cause.downcast_ref::<Refused>() == Some(&Refused::Barred) => {
                DialFailure::Barred
            }
            _ => DialFailure::Unreachable,
        }
    }

    fn tell_pairings(&mut self) {
        if let Some(pairings) = self.unsent.take()
            && let Err(mpsc::error::TrySendError::Full(Event::Pairings(pairings))) =
                self.events.try_send(Event::Pairings(pairings))
        {
            self.unsent = Some(pairings);
        }
    }

    fn publish(&mut self, now: Instant) {
        let active = self.book.active();
        let view = View { peers: self.book.views(now), active, listening: self.listening.iter().copied().collect() };
        let here = |view: &View| view.active.iter().map(|peer| (peer.id.clone(), peer.paired)).collect::<Vec<_>>();
        let changed = here(&self.view.borrow()) != here(&view);
        self.view.send_if_modified(|shown| {
            let differs = **shown != view;
            if differs {
                *shown = Arc::new(view);
            }
            differs
        });
        if changed {
            self.changes.send_modify(|count| *count += 1);
        }
    }
}

fn build(identity: &Identity) -> Result<Swarm<Behaviour>, Error> {
    let key = identity.keypair();
    let transport = transport::build(key).map_err(|_| Error::Stopped)?;
    let config = libp2p::swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(limits::CONNECTION_IDLE)
        .with_max_negotiating_inbound_streams(limits::STREAMS_NEGOTIATING_MAX)
        // Saves a round trip for each request: there is one version of each protocol to choose from.
        .with_substream_upgrade_protocol_override(libp2p::core::upgrade::Version::V1Lazy);
    Ok(Swarm::new(transport, Behaviour::new(key), key.public().to_peer_id(), config))
}

fn announcement((peer, address): &(libp2p::PeerId, Multiaddr)) -> Option<(PeerId, SocketAddr)> {
    Some((address::named(peer)?, address::socket(address)?))
}

/// A host's addresses. Link-local IPv6 addresses are left out: libp2p cannot say through which interface.
async fn resolve(host: Host, port: u16) -> Vec<SocketAddr> {
    let found = timeout(limits::LOOKUP, tokio::net::lookup_host((host.as_str(), port))).await;
    let Ok(Ok(found)) = found else { return Vec::new() };
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found.filter(|address| !matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0)) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// The networks that this machine is on.
fn networks() -> Vec<Network> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let network = |interface: if_addrs::Interface| match interface.addr {
        if_addrs::IfAddr::V4(v4) => Network { ip: v4.ip.into(), prefix: v4.prefixlen },
        if_addrs::IfAddr::V6(v6) => Network { ip: v6.ip.into(), prefix: v6.prefixlen },
    };
    // A tunnel with the whole world behind it is no local network.
    interfaces.into_iter().map(network).filter(|network| network.prefix >= limits::NETWORK_PREFIX_MIN).collect()
}
