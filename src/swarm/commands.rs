//! What the `Handle` asks the swarm's task to do.
//!
//! Knows the commands, and who waits for their outcome. Does not know how a peer is reached.
//! Invariant: every command is answered; and whoever hears an answer finds it in the view already.

use std::time::Instant;

use tokio::sync::oneshot;

use super::calls::{Reply, Weight};
use super::task::{Purpose, Task};
use super::transfer::{Call, Wanted};
use super::{Error, Host, Offence, Pairing, address};
use crate::limits;
use crate::names::PeerId;
use crate::trust::{Contact, Paired};
use crate::wire::{Answer, Query};

/// One command.
pub(super) enum Command {
    Query {
        peer: PeerId,
        query: Query,
        reply: Reply<Answer>,
    },
    Pieces {
        peer: PeerId,
        wanted: Wanted,
        reply: Reply<u64>,
    },
    Pair {
        host: Host,
        port: u16,
        reply: Reply<Option<PeerId>>,
    },
    Unpair {
        host: Host,
        port: Option<u16>,
        reply: oneshot::Sender<Vec<Pairing>>,
    },
    Strike {
        peer: PeerId,
        offence: Offence,
    },
    #[cfg(test)]
    Panic,
    Stop {
        done: oneshot::Sender<()>,
    },
}

/// A `peer add` that waits for a first contact.
pub(super) struct Meeting {
    host: Host,
    port: u16,
    paired: Paired,
    until: Instant,
    reply: Reply<Option<PeerId>>,
}

impl Task {
    pub(super) fn on_command(&mut self, command: Command) {
        let now = Instant::now();
        // A request changes nothing that the book or the view shows.
        self.stale |= !matches!(command, Command::Query { .. } | Command::Pieces { .. });
        match command {
            Command::Query { peer, query, reply } => match self.connected(&peer) {
                Some(_) if !self.queries.has_room(&peer, Weight::Small) => {
                    let _ = reply.send(Err(Error::Busy { retry: limits::BUSY_RETRY }));
                }
                Some(id) => {
                    let request = self.swarm.behaviour_mut().queries.send_request(&id, Ok(query));
                    self.queries.sent(request, (peer, Weight::Small), reply, now);
                }
                None => drop(reply.send(Err(Error::Gone))),
            },
            Command::Pieces { peer, mut wanted, reply } => match self.connected(&peer) {
                Some(_) if !self.pieces.has_room(&peer, weight_of(&wanted)) => {
                    let _ = reply.send(Err(Error::Busy { retry: limits::BUSY_RETRY }));
                }
                Some(id) => {
                    if wanted.request.len >= limits::BULK_FROM_BYTES {
                        self.widen(&peer, id, now);
                    }
                    let lines = &self.lines;
                    let line = if self.book.is_local(&peer) { &lines.lan_down } else { &lines.down };
                    wanted.toll = wanted.toll.over(line);
                    let weight = weight_of(&wanted);
                    let request = self.swarm.behaviour_mut().pieces.send_request(&id, Call::Ours(wanted));
                    self.pieces.sent(request, (peer, weight), reply, now);
                }
                None => drop(reply.send(Err(Error::Gone))),
            },
            Command::Pair { host, port, reply } => match self.book.pair(host.clone(), port, now) {
                Ok(paired) => {
                    let until = now + limits::PAIR_WAIT;
                    self.meetings.push(Meeting { host, port, paired, until, reply });
                }
                Err(_) => drop(reply.send(Err(Error::TooManyPairings))),
            },
            Command::Unpair { host, port, reply } => {
                let ended = self.book.unpair(&host, port);
                self.answers.push(Box::new(move || drop(reply.send(ended))));
            }
            Command::Strike { peer, offence } => self.book.strike(&peer, offence, now),
            #[cfg(test)]
            Command::Panic => panic!("as the test wants it"),
            Command::Stop { .. } => {}
        }
    }

    /// The peer's id, if it can be asked now. Asking anybody else would make libp2p dial on its own.
    fn connected(&self, peer: &PeerId) -> Option<libp2p::PeerId> {
        let id = address::unnamed(peer)?;
        (self.book.is_active(peer) && self.swarm.is_connected(&id)).then_some(id)
    }

    /// Dials a further connection for pieces: one connection is one task, hence one core's work.
    fn widen(&mut self, peer: &PeerId, id: libp2p::PeerId, now: Instant) {
        let lately =
            self.bulk_tried.get(peer).is_some_and(|tried| now.saturating_duration_since(*tried) < limits::BULK_RETRY);
        if lately || self.book.links_of(peer) >= limits::BULK_CONNECTIONS {
            return;
        }
        self.bulk_tried.retain(|_, tried| now.saturating_duration_since(*tried) < limits::BULK_RETRY);
        self.bulk_tried.insert(peer.clone(), now);
        if let Some(socket) = self.book.address_of(peer) {
            let _ = self.dial(Purpose::Bulk, socket, Some(id));
        }
    }

    pub(super) fn answer_meetings(&mut self, now: Instant) {
        for meeting in std::mem::take(&mut self.meetings) {
            let Meeting { host, port, paired, until, reply } = meeting;
            let address = || Pairing { host: host.clone(), port, peer_id: None }.to_string();
            let outcome = match self.book.contact(&host, port) {
                Some(Contact::Met(peer)) => Ok(Some(peer)),
                Some(Contact::Changed) => Err(Error::Changed { address: address() }),
                Some(Contact::Ourselves) => Err(Error::Ourselves { address: address() }),
                Some(Contact::Foreign) => Err(Error::Foreign { address: address() }),
                Some(Contact::Unresolved) => Err(Error::Unresolved { host: host.to_string() }),
                None if now >= until || reply.is_closed() => Ok(None),
                None => {
                    self.meetings.push(Meeting { host, port, paired, until, reply });
                    continue;
                }
            };
            // Whoever is told of an error need not undo anything.
            if outcome.is_err() && paired == Paired::Anew {
                self.book.unpair(&host, Some(port));
            }
            self.answers.push(Box::new(move || drop(reply.send(outcome))));
        }
    }
}

fn weight_of(wanted: &Wanted) -> Weight {
    if wanted.request.len >= limits::LARGE_REQUEST_BYTES { Weight::Large } else { Weight::Small }
}
