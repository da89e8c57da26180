//! The daemon: builds all rooms, hands them to each other, and ends them in order.
//!
//! Knows everybody, and does nothing itself. Does not know rules.
//! Invariant: whatever is started here ends here, within `SHUTDOWN`, and unfinished work is on disk
//! when it does.

mod adds;
mod answers;
mod error;
#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(windows, path = "windows.rs")]
mod system;
mod unfinished;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::cache::Cache;
use crate::config::{self, Access, Environment, Home, SavedPeer, Settings, Wishes};
use crate::control::{Call, Request, Server, docs};
use crate::fetch::Fetcher;
use crate::hub::Hub;
use crate::limits;
use crate::names::PeerId;
use crate::pace::Lines;
use crate::partial::Partials;
use crate::share::Share;
use crate::swarm::{self, Discovery, Event, Identity, Options, Pairing};
use adds::Adds;
pub use error::Error;

/// What answers to commands need.
struct Rooms {
    home: Home,
    settings: Settings,
    /// What the daemon's own environment says about the Hub; a command's own wins over it.
    wishes: Wishes,
    swarm: swarm::Handle,
    fetcher: Fetcher,
    adds: Adds,
    /// What all transfers pass; the limits in `config.toml` are put in force here.
    lines: Lines,
    stopping: CancellationToken,
}

/// Runs the daemon of a work directory until it is told to stop. `ready` is called once, when it
/// answers.
pub async fn run(
    home: Home,
    settings: Settings,
    environment: Environment,
    port: Option<u16>,
    ready: impl FnOnce(docs::Status),
) -> Result<(), Error> {
    home.prepare()?;
    let mut server = Server::bind(&home).await?;
    settings.warnings.iter().for_each(|warning| warn!("{warning}"));
    let wishes = Wishes::of(&environment)?;
    let access = Access::from_wishes(wishes.clone(), &settings);
    let identity = Identity::load_or_create(&home.identity_key())?;
    let cache = Cache::open(home.hub_cache(), &home.own())?;
    let hub = Hub::new();
    let share = Share::new(cache.clone(), hub.clone(), access);
    let pairings = config::read_peers(&home.peers_toml())?.into_iter().map(pairing).collect();
    let (events, heard) = mpsc::channel(limits::SWARM_EVENTS_MAX);
    let lines = Lines::default();
    lines.set(&settings.limit);
    let (port, discovery) = (port.or(settings.port), Discovery::Mdns);
    let options = Options { identity, port, pairings, discovery, lines: lines.clone() };
    let swarm = swarm::start(options, Arc::new(share.clone()), events).await?;
    let partials = Partials::open(home.hub_cache(), swarm.peer_id())?;
    share.share_unfinished(partials.clone());
    let fetcher = Fetcher::new(hub, swarm.clone(), cache, partials, &lines);
    let adds = Adds::open(&home.unfinished(), fetcher.clone())?;
    let stopping = CancellationToken::new();
    let (swarming, ending) = (swarm.clone(), stopping.clone());
    let rooms = Rooms { home, settings, wishes, swarm: swarming, fetcher, adds, lines, stopping: ending };
    let rooms = Arc::new(rooms);
    let mut tasks = JoinSet::new();
    tasks.spawn(write_pairings(Arc::clone(&rooms), heard));
    rooms.adds.go_on(&rooms.wishes, &rooms.settings, &stopping);
    ready(rooms.status());
    info!(peer_id = %swarm.peer_id(), listen = ?swarm.listening(), "the daemon runs");
    serve(&rooms, &mut server, &mut tasks).await;
    info!("the daemon is ending");
    // Adds stop where they are; what they have is on disk, and their orders are remembered.
    stopping.cancel();
    rooms.adds.ended().await;
    let ending = async {
        swarm.stop().await;
        tasks.shutdown().await;
    };
    if timeout(limits::SHUTDOWN, ending).await.is_err() {
        warn!("not everything ended in time");
    }
    drop(server);
    Ok(())
}

/// Who this work directory's daemon is, if one ever ran here.
pub fn peer_id_of(home: &Home) -> Result<Option<PeerId>, Error> {
    let path = home.identity_key();
    if path.exists() { Ok(Some(Identity::load_or_create(&path)?.peer_id().clone())) } else { Ok(None) }
}

/// Takes commands until one says stop, or the system does.
async fn serve(rooms: &Arc<Rooms>, server: &mut Server, tasks: &mut JoinSet<()>) {
    let mut interrupted = Box::pin(interruption());
    loop {
        tokio::select! {
            call = server.next() => match call {
                Call { request: Request::Stop, replies, .. } => {
                    replies.done(&docs::Stopped { pid: std::process::id() }).await;
                    return;
                }
                call => {
                    let rooms = Arc::clone(rooms);
                    tasks.spawn(async move { rooms.answer(call).await });
                }
            },
            () = &mut interrupted => return,
            // Finished tasks are collected as they end; a panic in one is the loss of that answer.
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                if let Err(error) = ended && error.is_panic() {
                    error!(%error, "a part of the daemon broke down; the rest goes on");
                }
            }
        }
    }
}

/// Waits for Ctrl-C, or for the system to end us.
async fn interruption() {
    tokio::select! {
        Ok(()) = tokio::signal::ctrl_c() => {}
        () = system::told_to_end() => {}
    }
}

/// Writes pairings down as they change: a pinned identity must survive a restart.
async fn write_pairings(rooms: Arc<Rooms>, mut heard: mpsc::Receiver<Event>) {
    while let Some(Event::Pairings(pairings)) = heard.recv().await {
        let path = rooms.home.peers_toml();
        let saved: Vec<SavedPeer> = pairings.into_iter().map(saved).collect();
        let written = tokio::task::spawn_blocking(move || config::write_peers(&path, &saved)).await;
        if let Ok(Err(error)) = written {
            error!(%error, "could not write down who is paired");
        }
    }
}

fn pairing(saved: SavedPeer) -> Pairing {
    Pairing { host: saved.host, port: saved.port, peer_id: saved.peer_id }
}

fn saved(pairing: Pairing) -> SavedPeer {
    SavedPeer { host: pairing.host, port: pairing.port, peer_id: pairing.peer_id }
}

/// A pairing as `peer rm` shows it.
fn pairing_document(pairing: Pairing) -> docs::Pairing {
    docs::Pairing { host: pairing.host.to_string(), port: pairing.port, peer_id: pairing.peer_id, daemon: true }
}

const _: () = assert!(limits::SHUTDOWN.as_millis() < Duration::from_secs(5).as_millis());
