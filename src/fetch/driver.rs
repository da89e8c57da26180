//! The driver of one plan: performs what it says and tells it what happens.
//!
//! Knows the sources of one file, and who may be asked. Does not know when which of them is asked for what: that is the
//! plan's; nor what becomes of the pieces.
//! Invariant: whatever the plan was told to run is run, or the plan is told how it ended.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinSet};
use tracing::{debug, info, warn};

use super::claims::Standing;
use super::download::Task;
use super::fellows::{Fellows, Heard, News};
use super::holders::Offers;
use super::landing::{Arrival, Landing, lock};
use super::ranges::{How, from_endpoint, from_peer};
use super::rates::DownloadId;
use super::repair::Barred;
use super::{Error, Inner};
use crate::config::{Endpoint, Role};
use crate::hub::{Grant, Reading};
use crate::limits;
use crate::names::PeerId;
use crate::pace::{Throttle, Toll};
use crate::piece::PieceList;
use crate::plan::{Action, Ended, Event, Offer, Outlook, Plan, Proof, RangeId, Seat, Source};
use crate::tree::Content;
use crate::wire::PieceRequest;

/// How a range's task ended, and which source it was.
struct Finished {
    range: RangeId,
    source: Source,
    how: How,
}

/// A range that runs.
struct Control {
    end: Arc<AtomicU32>,
    abort: tokio::task::AbortHandle,
}

/// The driver of one plan.
pub(super) struct Driver<'a> {
    task: &'a Task,
    id: DownloadId,
    landing: Arc<Landing>,
    plan: Plan,
    running: HashMap<RangeId, Control>,
    tasks: JoinSet<Finished>,
    /// Sources that are out for this download, and why.
    out: Vec<(Source, String)>,
    sequential: BTreeSet<Source>,
    /// Peers that have gone away. One that returns is a new source: how often it failed while it was away
    /// says nothing about it.
    gone: BTreeSet<Source>,
    fellows: Fellows,
    /// Until when others' answers are waited for at most, before anything is asked at first hand.
    holds_until: Option<Instant>,
    last_trouble: Option<String>,
    /// Whether the source that answered last asked to be left alone for a while.
    told_to_wait: bool,
}

impl<'a> Driver<'a> {
    /// `range`: the number of its first range.
    pub(super) fn new(task: &'a Task, range: RangeId, landing: &Arc<Landing>) -> Self {
        let partial = landing.partial();
        let seat = Seat::new(task.inner.swarm.peer_id(), task.place.content.digest);
        Self {
            task,
            id: lock(&task.inner.rates).begin(),
            landing: Arc::clone(landing),
            plan: Plan::after(range, Some(seat), partial.cut(), partial.have(), Instant::now()),
            running: HashMap::new(),
            tasks: JoinSet::new(),
            out: Vec::new(),
            sequential: BTreeSet::new(),
            gone: BTreeSet::new(),
            fellows: Fellows::new(task.inner.swarm.clone(), task.place.content),
            holds_until: None,
            last_trouble: None,
            told_to_wait: false,
        }
    }

    /// Gives up what still runs, and says which number the next range would have.
    pub(super) async fn stop(&mut self) -> RangeId {
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        self.plan.next_range()
    }

    /// Drives the plan until every piece is there. `barred`: what is not to be asked of whom.
    pub(super) async fn drive(&mut self, barred: &Barred) -> Result<(), Error> {
        let content = self.task.place.content;
        let inner = Arc::clone(&self.task.inner);
        for (source, pieces) in barred {
            self.step(Event::Doubted { source: source.clone(), pieces: pieces.clone() });
        }
        if !inner.swarm.active().is_empty() {
            self.holds_until = Some(Instant::now() + limits::FELLOWS_FIRST);
            self.hold();
        }
        let mut pardon = !barred.is_empty();
        // The question before the add covers a small file; a larger one needs piece lists as well.
        let mut told_before = false;
        if let Some(offers) = inner.holders.known(&content.digest) {
            told_before = !offers.is_empty() && content.size <= limits::PIECE_BYTES_MIN;
            self.join_peers(offers);
        }
        let mut changes = inner.swarm.changes();
        let mut tick = tokio::time::interval(limits::PLAN_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last_byte = Instant::now();
        let mut asked_at = told_before.then(Instant::now);
        let mut question = Box::pin(ask(Arc::clone(&inner), content, Arc::clone(&self.landing)));
        let mut asking = !told_before;
        let mut hashing: Option<tokio::task::JoinHandle<()>> = None;
        self.prove_resumed();
        self.share_sources();
        self.join_endpoints();
        let (landing, partial) = (Arc::clone(&self.landing), self.landing.partial());
        loop {
            tokio::select! {
                () = landing.bell.notified() => {}
                heard = self.fellows.next() => self.heard(heard, &mut asked_at),
                askers = partial.talk().askers() => askers.iter().for_each(|peer| self.fellows.follow(peer)),
                Some(ended) = self.tasks.join_next() => self.range_ended(ended)?,
                _ = tick.tick() => self.tick(),
                (offers, lists) = &mut question, if asking => {
                    asking = false;
                    asked_at = Some(Instant::now());
                    for (maker, list) in lists {
                        lock(&self.landing.claims).add(maker, list);
                    }
                    self.hold();
                    self.join_peers(offers);
                }
            }
            if self.take_news() {
                last_byte = Instant::now();
            }
            if !asking
                && (changes.has_changed().unwrap_or(false)
                    || asked_at.is_none_or(|at| at.elapsed() > limits::HOLDERS_AGE))
            {
                changes.mark_unchanged();
                self.note_the_gone();
                question = Box::pin(ask(Arc::clone(&inner), content, Arc::clone(&self.landing)));
                asking = true;
                self.hold();
                self.join_endpoints();
            }
            if hashing.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
                hashing = self.hash_ahead();
            }
            if !asking && !self.fellows.is_asking() && self.holds_until.take().is_some() {
                self.step(Event::Hold(Instant::now()));
            }
            partial.talk().say(self.plan.word(Instant::now()));
            self.task.tally.busy(self.plan.busy_sources());
            match self.plan.outlook(Instant::now()) {
                Outlook::Done => break,
                // What was said before the add does not hold any more: ask anew at the next turn.
                Outlook::NoSource if told_before => (told_before, asked_at) = (false, None),
                // Whoever is in doubt is better than nobody: a passing fault may have spoilt the pieces.
                Outlook::NoSource if pardon && !asking => {
                    pardon = false;
                    self.step(Event::Pardoned);
                }
                Outlook::NoSource if !asking && asked_at.is_some() && !self.join_resting_endpoints() => {
                    return Err(self.no_source());
                }
                _ if last_byte.elapsed() > self.patience() => return Err(self.no_source()),
                Outlook::Working | Outlook::Waiting(_) | Outlook::NoSource => {}
            }
        }
        if let Some(hashing) = hashing {
            // The seal goes on where this one stops, and both may not run at once.
            let _ = hashing.await;
        }
        Ok(())
    }

    /// At the beginning, asks for nothing at first hand until others had time to answer what they were just asked.
    fn hold(&mut self) {
        if let Some(latest) = self.holds_until {
            self.step(Event::Hold(latest.min(Instant::now() + limits::FELLOW_FIRST)));
        }
    }

    /// What came from the Hub before a restart was hashed again, so it is what the Hub sent.
    fn prove_resumed(&self) {
        let (task, partial) = (self.task, self.landing.partial());
        let from_hub = |piece: &u32| match partial.noted(*piece).map(|(_, source)| Source::read(&source)) {
            Some(Source::Endpoint(url)) => task.inner.is_hub(&task.access, &url),
            _ => false,
        };
        partial.have().iter().filter(from_hub).for_each(|piece| partial.prove(piece));
    }

    /// Gives the plan what a fellow said.
    fn heard(&mut self, heard: Heard, asked_at: &mut Option<Instant>) {
        match heard {
            Heard::Word { peer, word, pieces } => {
                match pieces {
                    News::More(pieces) if pieces.is_empty() => {}
                    News::More(pieces) => self.step(Event::Gained { peer: peer.clone(), pieces }),
                    News::All(set) => self.join_peers(vec![(peer.clone(), Offer::Pieces(set))]),
                }
                self.step(Event::Heard { peer, word });
            }
            // Who holds what, and the list of its pieces, is asked again at once. Until then what was its to
            // bring stays so: nobody needs to bring it any more.
            Heard::Whole => *asked_at = None,
            Heard::Gone(peer) => {
                self.step(Event::Parted(peer.clone()));
                self.step(Event::Left(Source::Peer(peer)));
            }
        }
    }

    /// Lets time pass, and tells the plan what else its sources are doing.
    fn tick(&mut self) {
        self.fellows.ask_on();
        let limit = self.task.pace.throttle();
        // Peers that fill the user's own limit give all that may come, so the WAN is left alone.
        let is_filled = limit.as_ref().is_some_and(Throttle::is_contended) && self.plan.busy_sources().1 == 0;
        let elsewhere = {
            let mut rates = lock(&self.task.inner.rates);
            // What a source gives under such a limit says nothing about the source.
            if limit.is_none() {
                rates.tell(self.id, self.plan.rates());
            }
            if is_filled { limits::LAN_FULL_BYTES_PER_SEC } else { rates.of_peers_elsewhere(self.id) }
        };
        self.step(Event::LanElsewhere(elsewhere));
        self.share_sources();
        self.step(Event::Tick);
    }

    /// Tells other downloads which sources this one draws on, or may draw on when it begins, and the plan about
    /// theirs. A small file does not count: it is here before anybody could make room for it.
    fn share_sources(&mut self) {
        if self.task.place.content.size <= limits::SMALL_FILE_BYTES {
            return;
        }
        let mut sources: BTreeSet<Source> = self.plan.busy().into_iter().cloned().collect();
        if sources.is_empty() {
            let endpoints = self.task.access.endpoints.iter().map(|endpoint| Source::Endpoint(endpoint.url.clone()));
            sources.extend(self.plan.sources().cloned().chain(endpoints));
        }
        let others = lock(&self.task.inner.rates).draw(self.id, sources);
        self.step(Event::Others(others));
    }

    /// Hashes what has come so far without a gap, beside the transfer.
    fn hash_ahead(&self) -> Option<tokio::task::JoinHandle<()>> {
        let partial = self.landing.partial();
        (partial.cut().count() > 1).then(|| {
            tokio::task::spawn_blocking(move || {
                if let Err(error) = partial.advance() {
                    debug!(%error, "could not hash ahead; the seal will tell");
                }
            })
        })
    }

    /// Gives the plan what has landed; says whether anything has.
    fn take_news(&mut self) -> bool {
        let news = self.landing.news();
        let any = !news.received.is_empty();
        for (range, bytes) in news.received {
            self.step(Event::Received { range, bytes });
        }
        for (range, piece) in news.refused {
            self.step(Event::Refused { range, piece });
        }
        for piece in news.pieces {
            self.step(Event::Piece(piece));
        }
        any
    }

    fn step(&mut self, event: Event) {
        for action in self.plan.step(event, Instant::now()) {
            match action {
                Action::Ask { range, source, pieces } => self.ask(range, source, pieces),
                Action::Shorten { range, end } => {
                    if let Some(control) = self.running.get(&range) {
                        control.end.store(end, Ordering::Relaxed);
                    }
                }
                Action::Drop { range } => {
                    if let Some(control) = self.running.remove(&range) {
                        control.abort.abort();
                    }
                }
            }
        }
    }

    fn ask(&mut self, range: RangeId, source: Source, pieces: Range<u32>) {
        let landing = Arc::clone(&self.landing);
        let bytes = landing.cut().bytes(&pieces);
        let end = Arc::new(AtomicU32::new(pieces.end));
        let standing = match &source {
            Source::Endpoint(url) if self.task.inner.is_hub(&self.task.access, url) => Standing::Hub,
            _ => Standing::Other,
        };
        let arrival = Arrival::new(landing, range, (source.clone(), standing), bytes.start, Arc::clone(&end));
        debug!(%source, first = pieces.start, end = pieces.end, path = %self.task.place.path, "asking for pieces");
        let inner = Arc::clone(&self.task.inner);
        let landing = (arrival, Toll::of(&self.task.pace));
        let abort = match source.clone() {
            Source::Peer(peer) => {
                let content = self.task.place.content;
                self.tasks.spawn(async move {
                    let request = PieceRequest { content, start: bytes.start, len: bytes.end - bytes.start };
                    let how = from_peer(&inner, &peer, request, landing).await;
                    Finished { range, source, how }
                })
            }
            Source::Endpoint(url) => {
                let (access, place) = (self.task.access.clone(), self.task.place.clone());
                let reading = if self.sequential.contains(&source) { Reading::FromStart } else { Reading::Exact };
                self.tasks.spawn(async move {
                    let how = from_endpoint(&inner, &access, &url, &place, bytes, reading, landing).await;
                    Finished { range, source, how }
                })
            }
        };
        self.running.insert(range, Control { end, abort });
    }

    fn range_ended(&mut self, ended: Result<Finished, JoinError>) -> Result<(), Error> {
        let Finished { range, source, how } = match ended {
            Ok(finished) => finished,
            // Ranges that the plan dropped end like this; a panic in one is the loss of that range, which
            // the plan notices by its silence.
            Err(error) => {
                if error.is_panic() {
                    warn!(%error, "a transfer broke down");
                }
                return Ok(());
            }
        };
        self.running.remove(&range);
        // The last pieces have landed before the range ended, and must be known before it is closed.
        self.take_news();
        match how {
            How::Ended(how) => {
                match how {
                    Ended::Failed => self.last_trouble = Some(format!("{source} broke off")),
                    Ended::Busy(_) => self.last_trouble = Some(format!("{source} is busy")),
                    Ended::Complete => {}
                }
                self.told_to_wait = matches!(how, Ended::Busy(_));
                self.step(Event::Ended { range, how });
            }
            How::Gone => {
                self.step(Event::Ended { range, how: Ended::Failed });
                self.step(Event::Left(source));
            }
            How::Useless(why) => {
                debug!(%source, why, "is no source for this file");
                self.step(Event::Ended { range, how: Ended::Failed });
                self.step(Event::Left(source.clone()));
                self.last_trouble = Some(why.clone());
                self.out.push((source, why));
            }
            How::RangeIgnored => {
                self.sequential.insert(source.clone());
                self.join(source, Offer::FromStart, Proof::Unproven);
                self.step(Event::Ended { range, how: Ended::Complete });
            }
            How::Disk(error) => return Err(Error::Partial(error)),
        }
        Ok(())
    }

    fn is_out(&self, source: &Source) -> bool {
        self.out.iter().any(|(out, _)| out == source) || self.task.inner.is_convicted(source)
    }

    fn note_the_gone(&mut self) {
        let here: BTreeSet<_> = self.task.inner.swarm.active().into_iter().map(|peer| peer.id).collect();
        let gone = |source: &&Source| matches!(source, Source::Peer(peer) if !here.contains(peer));
        self.gone.extend(self.plan.sources().filter(gone).cloned());
        let parted: Vec<_> = self.fellows.iter().filter(|peer| !here.contains(*peer)).cloned().collect();
        for peer in parted {
            self.fellows.leave(&peer);
            self.step(Event::Parted(peer));
        }
    }

    fn join_peers(&mut self, offers: Offers) {
        for (peer, offer) in offers {
            let is_part = matches!(offer, Offer::Pieces(_));
            if is_part {
                lock(&self.landing.claims).passes_on(peer.clone());
            }
            let listed = lock(&self.landing.claims).has_list_of(&peer);
            let proof = if listed { Proof::Proven } else { Proof::Unproven };
            let source = Source::Peer(peer.clone());
            if !self.is_out(&source) {
                if self.gone.remove(&source) {
                    self.step(Event::Left(source.clone()));
                }
                self.join(source, offer, proof);
                if is_part {
                    self.fellows.follow(&peer);
                } else if self.fellows.leave(&peer) {
                    self.step(Event::Parted(peer));
                }
            }
        }
    }

    /// Lets every endpoint join that is believed good now.
    fn join_endpoints(&mut self) {
        let task = self.task;
        let endpoints = task.inner.hub.endpoints_for_data(&task.access, task.place.grant, Instant::now());
        let joined = endpoints.into_iter().filter(|endpoint| self.join_endpoint(endpoint)).count();
        lock(&self.landing.claims).set_arbiter(joined > 0);
    }

    /// With nobody else left, lets endpoints join that are believed bad now: the plan leaves each alone
    /// for a while after each failure, and a bad moment passes. Says whether there are any.
    fn join_resting_endpoints(&mut self) -> bool {
        let task = self.task;
        if task.access.offline {
            return false;
        }
        let allowed = |endpoint: &&Endpoint| task.place.grant == Grant::Anonymous || endpoint.role == Role::Hub;
        let joined =
            task.access.endpoints.iter().filter(allowed).filter(|endpoint| self.join_endpoint(endpoint)).count();
        joined > 0
    }

    /// Lets an endpoint join, unless it is out for this file; says whether it did.
    fn join_endpoint(&mut self, endpoint: &Endpoint) -> bool {
        let source = Source::Endpoint(endpoint.url.clone());
        if self.is_out(&source) {
            return false;
        }
        let (offer, proof) = match endpoint.role {
            _ if self.sequential.contains(&source) => (Offer::FromStart, Proof::Unproven),
            Role::Hub => (Offer::Whole, Proof::Proven),
            Role::Mirror => (Offer::Whole, Proof::Unproven),
        };
        self.join(source, offer, proof);
        true
    }

    fn join(&mut self, source: Source, offer: Offer, proof: Proof) {
        let rate = self.task.inner.rate(&source);
        self.step(Event::Joined { source, offer, proof, rate });
    }

    /// How long nothing may come before the download is given up.
    fn patience(&self) -> Duration {
        if self.told_to_wait { limits::BUSY_PATIENCE } else { limits::FETCH_PATIENCE }
    }

    fn no_source(&self) -> Error {
        let mut reasons: Vec<String> = self.out.iter().map(|(source, why)| format!("{source}: {why}")).collect();
        reasons.extend(self.last_trouble.clone().filter(|_| reasons.is_empty()));
        info!(path = %self.task.place.path, ?reasons, "no source is left");
        Error::NoSource { path: self.task.place.path.clone(), reasons, offline: self.task.access.offline }
    }
}

impl Drop for Driver<'_> {
    fn drop(&mut self) {
        lock(&self.task.inner.rates).end(self.id);
    }
}

/// Asks who holds a content, and for the piece lists of those who hold all of it.
async fn ask(inner: Arc<Inner>, content: Content, landing: Arc<Landing>) -> (Offers, Vec<(PeerId, PieceList)>) {
    let offers = inner.holders.ask(&[content]).await.remove(&content.digest).unwrap_or_default();
    let mut lists = Vec::new();
    if content.size > limits::PIECE_BYTES_MIN {
        let whole = offers.iter().filter(|(_, offer)| *offer == Offer::Whole).map(|(peer, _)| peer);
        let whole = whole.filter(|peer| !lock(&landing.claims).has_list_of(peer));
        let asked = whole.map(|peer| async { (peer.clone(), inner.holders.piece_list(peer, content).await) });
        lists = futures::future::join_all(asked).await.into_iter().filter_map(|(p, list)| Some((p, list?))).collect();
    }
    (offers, lists)
}
