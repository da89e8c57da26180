//! The events of the two request protocols: others' requests, and the outcomes of ours.
//!
//! Knows what to do with each. Does not know what the messages mean.
//! Invariant: every request of a peer is counted against its rate before anything is done for it, and gets
//! an answer, be it `Busy`; a message that no version sends is held against its sender.

use std::time::Instant;

use libp2p::request_response::{Event, Message, ResponseChannel};

use super::calls::failure;
use super::query::{Question, Reply};
use super::serving::{Incoming, Ready};
use super::task::Task;
use super::transfer::{Call, Outcome};
use super::{Asker, Error, Offence, Refusal, address};
use crate::limits;
use crate::names::PeerId;
use crate::pace::Toll;
use crate::wire::{self, Answer};

impl Task {
    pub(super) fn on_query(&mut self, event: Event<Question, Reply>, now: Instant) {
        match event {
            Event::Message { peer, message, .. } => match message {
                Message::Request { request_id, request, channel } => {
                    if let Some(peer) = address::named(&peer) {
                        self.on_question(peer, Incoming::Query(request_id), request, channel, now);
                    }
                }
                Message::Response { request_id, response } => {
                    self.blame(&peer, response.as_ref().err(), now);
                    self.queries.ended(request_id, response);
                }
            },
            Event::OutboundFailure { request_id, error, .. } => self.queries.ended(request_id, Err(failure(error))),
            Event::InboundFailure { request_id, .. } | Event::ResponseSent { request_id, .. } => {
                self.serving.ended(Incoming::Query(request_id));
            }
        }
    }

    pub(super) fn on_pieces(&mut self, event: Event<Call, Outcome>, now: Instant) {
        match event {
            Event::Message { peer, message, .. } => match message {
                Message::Request { request_id, request, channel } => {
                    if let (Some(peer), Call::Theirs(request)) = (address::named(&peer), request) {
                        self.on_call(peer, Incoming::Pieces(request_id), request, channel, now);
                    }
                }
                Message::Response { request_id, response: Outcome::Taken(taken) } => {
                    self.blame(&peer, taken.as_ref().err(), now);
                    self.pieces.ended(request_id, taken);
                }
                Message::Response { request_id, .. } => self.pieces.ended(request_id, Err(Error::Gone)),
            },
            Event::OutboundFailure { request_id, error, .. } => self.pieces.ended(request_id, Err(failure(error))),
            Event::InboundFailure { request_id, .. } | Event::ResponseSent { request_id, .. } => {
                self.serving.ended(Incoming::Pieces(request_id));
            }
        }
    }

    fn on_question(
        &mut self,
        peer: PeerId,
        request: Incoming,
        question: Question,
        channel: ResponseChannel<Reply>,
        now: Instant,
    ) {
        let query = match question {
            Ok(query) => query,
            // A newer version asks; "unknown" is the truth.
            Err(wire::Error::Unknown) => return self.respond(Ready::Answer(channel, Answer::Unknown)),
            Err(_) => return self.on_rude(&peer, now),
        };
        match self.admit(&peer, request, now) {
            Some(asker) => self.serving.answer(asker, query, channel),
            None => self.respond(Ready::Answer(channel, Answer::Busy)),
        }
    }

    fn on_call(
        &mut self,
        peer: PeerId,
        request: Incoming,
        call: Result<wire::PieceRequest, wire::Error>,
        channel: ResponseChannel<Outcome>,
        now: Instant,
    ) {
        let Ok(wanted) = call else {
            self.on_rude(&peer, now);
            let _ = self.swarm.behaviour_mut().pieces.send_response(channel, Outcome::Refused);
            return;
        };
        match self.admit(&peer, request, now) {
            Some(asker) => {
                let line = if self.book.is_local(&peer) { &self.lines.lan_up } else { &self.lines.up };
                self.serving.open(asker, wanted, channel, Toll::default().over(line));
            }
            None => self.respond(Ready::Stretch(channel, Err(Refusal::Busy(limits::BUSY_RETRY)))),
        }
    }

    fn on_rude(&mut self, peer: &PeerId, now: Instant) {
        tracing::debug!(%peer, "sent a malformed request");
        self.book.strike(peer, Offence::Malformed, now);
        self.stale = true;
    }

    fn admit(&mut self, peer: &PeerId, request: Incoming, now: Instant) -> Option<Asker> {
        if self.book.may_ask(peer, now).is_none() {
            // It may have asked so much that it is banned now.
            self.stale = true;
            return None;
        }
        self.serving.admit(peer, request)?;
        Some(Asker { peer: peer.clone(), paired: self.book.is_paired(peer) })
    }

    /// Holds a malformed answer against its sender: here and nowhere else, because only here is it seen
    /// exactly once, whether or not its caller still waits.
    fn blame(&mut self, peer: &libp2p::PeerId, error: Option<&Error>, now: Instant) {
        if let (Some(Error::BadMessage { why }), Some(peer)) = (error, address::named(peer)) {
            tracing::warn!(%peer, why, "a peer broke the protocol");
            self.book.strike(&peer, Offence::Malformed, now);
            self.stale = true;
        }
    }

    /// Sends a response. Whoever asked may be gone meanwhile, which the protocols report by themselves.
    pub(super) fn respond(&mut self, ready: Ready) {
        match ready {
            Ready::Answer(channel, answer) => {
                let _ = self.swarm.behaviour_mut().queries.send_response(channel, Ok(answer));
            }
            Ready::Stretch(channel, stretch) => {
                let _ = self.swarm.behaviour_mut().pieces.send_response(channel, Outcome::Given(stretch));
            }
        }
    }
}
