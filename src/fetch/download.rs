//! One download: a file that is not on this machine comes here.
//!
//! Knows the plan, the sources and the unfinished file, and performs what the plan says. Does not
//! know repos beyond the place where endpoints have the file, nor what the file is wanted for.
//! Invariant: it ends with a sealed file, or with an error and everything that came still on disk.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinSet};
use tracing::{debug, info, warn};

use super::claims::{Claims, Standing};
use super::holders::Offers;
use super::landing::{Arrival, Landed, Landing, lock};
use super::tally::Tally;
use super::{Error, Inner};
use crate::config::Access;
use crate::digest::Verified;
use crate::hub::{self, Place, Reading};
use crate::limits;
use crate::partial::{Partial, SealError};
use crate::piece::Cut;
use crate::plan::{Action, Ended, Event, Offer, Outlook, Plan, RangeId, Source};
use crate::sealed::SealedFile;
use crate::swarm::{Offence, Sink, Verdict};
use crate::wire::PieceRequest;

/// What a download needs to know.
pub(super) struct Task {
    pub(super) inner: Arc<Inner>,
    pub(super) access: Access,
    /// Where endpoints have the file; `None`: nobody could be asked, so there are only peers.
    pub(super) place: Place,
    pub(super) tally: Arc<Tally>,
}

/// How a range's task ended, and which source it was.
struct Finished {
    range: RangeId,
    source: Source,
    how: How,
}

enum How {
    Ended(Ended),
    /// The source cannot give this file at all.
    Useless(String),
    /// The endpoint sends whole files only.
    RangeIgnored,
    /// Our own disk.
    Disk(crate::partial::Error),
}

/// A range that runs.
struct Control {
    end: Arc<AtomicU32>,
    abort: tokio::task::AbortHandle,
}

/// The driver of one plan.
struct Driver<'a> {
    task: &'a Task,
    landing: Arc<Landing>,
    plan: Plan,
    running: HashMap<RangeId, Control>,
    tasks: JoinSet<Finished>,
    /// Sources that are out for this download, and why.
    out: Vec<(Source, String)>,
    sequential: BTreeSet<Source>,
    last_trouble: Option<String>,
}

impl Task {
    /// Brings the file here and seals it.
    pub(super) async fn run(&self) -> Result<Verified<SealedFile>, Error> {
        let content = self.place.content;
        let (partials, repo) = (self.inner.partials.clone(), self.place.repo.clone());
        let partial = blocking(move || partials.claim(&repo, &content)).await?.map_err(Error::Partial)?;
        self.tally.resumed(partial.resumed_bytes());
        let landing = Landing::new(Arc::clone(&partial), Claims::default(), Arc::clone(&self.tally));
        let mut barred = Vec::new();
        for repairs in 0..=limits::REPAIRS_MAX {
            self.bring(&landing, &partial, &barred).await?;
            let sealing = Arc::clone(&partial);
            match blocking(move || sealing.seal()).await? {
                Ok(sealed) => {
                    self.judge(&landing, sealed.get()).await;
                    return Ok(sealed);
                }
                // The seal has forgotten what was not on disk as noted; the next round brings it.
                Err(SealError::Missing { .. }) => {}
                Err(SealError::Mismatch { forgotten, .. }) if !forgotten.is_empty() => {
                    warn!(?forgotten, path = %self.place.path, "pieces changed on disk; bringing them anew");
                    for piece in forgotten {
                        landing.reopen(piece).map_err(Error::Partial)?;
                    }
                }
                Err(SealError::Mismatch { .. }) if repairs < limits::REPAIRS_MAX => {
                    warn!(path = %self.place.path, "the file is not what it should be; looking for the wrong part");
                    barred = self.doubt(&landing, &partial, barred)?;
                }
                Err(SealError::Mismatch { found, .. }) => return Err(self.give_up(&partial, found)),
                Err(SealError::Disk(error)) => return Err(Error::Partial(error)),
            }
        }
        Err(Error::NeverWhole { path: self.place.path.clone() })
    }

    /// Drives a plan until every piece is there.
    async fn bring(
        &self,
        landing: &Arc<Landing>,
        partial: &Partial,
        barred: &[(Source, Vec<u32>)],
    ) -> Result<(), Error> {
        let mut driver = Driver {
            task: self,
            landing: Arc::clone(landing),
            plan: Plan::new(partial.cut(), partial.have(), Instant::now()),
            running: HashMap::new(),
            tasks: JoinSet::new(),
            out: Vec::new(),
            sequential: BTreeSet::new(),
            last_trouble: None,
        };
        let result = driver.drive(barred).await;
        driver.tasks.abort_all();
        while driver.tasks.join_next().await.is_some() {}
        self.tally.busy((0, 0));
        result
    }

    /// Picks the pieces to fetch anew when the whole does not match, and says from whom not.
    ///
    /// Pieces that a peer's list contradicts are fetched from somebody else. With no contradiction,
    /// the least trusted source that gave anything is doubted as a whole.
    fn doubt(
        &self,
        landing: &Landing,
        partial: &Partial,
        mut barred: Vec<(Source, Vec<u32>)>,
    ) -> Result<Vec<(Source, Vec<u32>)>, Error> {
        let noted: Vec<_> = partial
            .have()
            .iter()
            .filter_map(|piece| partial.noted(piece).map(|(hash, source)| (piece, hash, Source::read(&source))))
            .collect();
        let disputed: Vec<_> = {
            let claims = lock(&landing.claims);
            noted.iter().filter(|(piece, hash, _)| claims.is_disputed(*piece, *hash)).cloned().collect()
        };
        let doubted = if disputed.is_empty() {
            let least = noted.iter().map(|(.., source)| source).max_by_key(|source| self.distrust(source, &barred));
            let least = least.cloned();
            noted.iter().filter(|(.., source)| Some(source) == least.as_ref()).cloned().collect()
        } else {
            disputed
        };
        for (piece, hash, source) in doubted {
            lock(&landing.claims).doubt(piece, hash, source.clone());
            landing.reopen(piece).map_err(Error::Partial)?;
            match barred.iter_mut().find(|(s, _)| *s == source) {
                Some((_, pieces)) => pieces.push(piece),
                None => barred.push((source, vec![piece])),
            }
        }
        Ok(barred)
    }

    /// The higher, the sooner a source is doubted.
    fn distrust(&self, source: &Source, barred: &[(Source, Vec<u32>)]) -> (bool, u8) {
        let fresh = !barred.iter().any(|(s, _)| s == source);
        let kind = match source {
            Source::Peer(peer) if !self.inner.is_paired(peer) => 3,
            Source::Peer(_) => 2,
            Source::Endpoint(url) => u8::from(!self.inner.is_hub(&self.access, url)),
        };
        (fresh, kind)
    }

    /// Tells who was wrong, now that the truth is known.
    async fn judge(&self, landing: &Landing, sealed: &SealedFile) {
        let guilty = lock(&landing.claims).convict(&sealed.pieces);
        for source in guilty {
            warn!(%source, path = %self.place.path, "sent wrong bytes; they were fetched again from others");
            self.inner.convict(&source, &self.place.path).await;
        }
    }

    /// The file cannot be repaired: forget what is surely of no use, and name who sent it.
    fn give_up(&self, partial: &Partial, found: crate::digest::Digest) -> Error {
        let mut sources = BTreeSet::new();
        for piece in partial.have().iter() {
            if let Some((_, source)) = partial.noted(piece) {
                sources.insert(source);
            }
        }
        // With one source there is no doubt who sent it; a partial file of wrong bytes helps nobody.
        if let Err(error) = partial.discard() {
            warn!(%error, "could not remove a file that cannot be repaired");
        }
        Error::Wrong { path: self.place.path.clone(), sources: sources.into_iter().collect(), found }
    }
}

impl Driver<'_> {
    async fn drive(&mut self, barred: &[(Source, Vec<u32>)]) -> Result<(), Error> {
        let content = self.task.place.content;
        let inner = Arc::clone(&self.task.inner);
        if let Some(offers) = inner.holders.known(&content.digest) {
            self.join_peers(offers);
        }
        let mut changes = inner.swarm.changes();
        let mut tick = tokio::time::interval(limits::PLAN_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last_byte = Instant::now();
        let mut asked_at: Option<Instant> = None;
        let mut question = Box::pin(ask(Arc::clone(&inner), content, Arc::clone(&self.landing)));
        let mut asking = true;
        let mut hashing: Option<tokio::task::JoinHandle<()>> = None;
        let others = inner.swarm.active();
        if !others.is_empty() {
            self.step(Event::WanFrom(own_place(inner.swarm.peer_id(), content, self.landing.cut())));
        }
        self.join_endpoints();
        self.apply_doubts(barred);
        loop {
            let landing = Arc::clone(&self.landing);
            tokio::select! {
                () = landing.bell.notified() => {}
                Some(ended) = self.tasks.join_next() => self.range_ended(ended)?,
                _ = tick.tick() => self.step(Event::Tick),
                (offers, lists) = &mut question, if asking => {
                    asking = false;
                    asked_at = Some(Instant::now());
                    for (maker, list) in lists {
                        lock(&self.landing.claims).add(maker, list);
                    }
                    self.join_peers(offers);
                    self.apply_doubts(barred);
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
                question = Box::pin(ask(Arc::clone(&inner), content, Arc::clone(&self.landing)));
                asking = true;
                self.join_endpoints();
                self.apply_doubts(barred);
            }
            if hashing.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
                hashing = self.hash_ahead();
            }
            self.task.tally.busy(self.plan.busy_sources());
            match self.plan.outlook(Instant::now()) {
                Outlook::Done => break,
                Outlook::NoSource if !asking && asked_at.is_some() => return Err(self.no_source()),
                _ if last_byte.elapsed() > limits::FETCH_PATIENCE => return Err(self.no_source()),
                Outlook::Working | Outlook::Waiting(_) | Outlook::NoSource => {}
            }
        }
        if let Some(hashing) = hashing {
            // The seal goes on where this one stops, and both may not run at once.
            let _ = hashing.await;
        }
        Ok(())
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
        let abort = match source.clone() {
            Source::Peer(peer) => {
                let content = self.task.place.content;
                self.tasks.spawn(async move {
                    let request = PieceRequest { content, start: bytes.start, len: bytes.end - bytes.start };
                    let how = from_peer(&inner, &peer, request, arrival).await;
                    Finished { range, source, how }
                })
            }
            Source::Endpoint(url) => {
                let (access, place) = (self.task.access.clone(), self.task.place.clone());
                let reading = if self.sequential.contains(&source) { Reading::FromStart } else { Reading::Exact };
                self.tasks.spawn(async move {
                    let how = from_endpoint(&inner, &access, &url, &place, bytes, reading, arrival).await;
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
                if how == Ended::Failed {
                    self.last_trouble = Some(format!("{source} broke off"));
                }
                self.step(Event::Ended { range, how });
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
                self.step(Event::Joined { source, offer: Offer::FromStart, rate: None });
                self.step(Event::Ended { range, how: Ended::Complete });
            }
            How::Disk(error) => return Err(Error::Partial(error)),
        }
        Ok(())
    }

    fn is_out(&self, source: &Source) -> bool {
        self.out.iter().any(|(out, _)| out == source) || self.task.inner.is_convicted(source)
    }

    fn join_peers(&mut self, offers: Offers) {
        for (peer, offer) in offers {
            let source = Source::Peer(peer);
            if !self.is_out(&source) {
                let rate = self.task.inner.rate(&source);
                self.step(Event::Joined { source, offer, rate });
            }
        }
    }

    /// Lets every endpoint join that is believed good now.
    fn join_endpoints(&mut self) {
        let task = self.task;
        let endpoints = task.inner.hub.endpoints_for_data(&task.access, task.place.grant, Instant::now());
        let mut arbiter = false;
        for endpoint in endpoints {
            let source = Source::Endpoint(endpoint.url);
            if self.is_out(&source) {
                continue;
            }
            arbiter = true;
            let offer = if self.sequential.contains(&source) { Offer::FromStart } else { Offer::Whole };
            let rate = task.inner.rate(&source);
            self.step(Event::Joined { source, offer, rate });
        }
        lock(&self.landing.claims).set_arbiter(arbiter);
    }

    /// Keeps doubted pieces away from whom they came from, as long as somebody else is there: a source
    /// that is alone may have been hit by a passing fault, and is asked once more.
    fn apply_doubts(&mut self, barred: &[(Source, Vec<u32>)]) {
        let others = |source: &Source| self.plan.sources().any(|other| other != source);
        let doubts: Vec<_> = barred.iter().filter(|(source, _)| others(source)).cloned().collect();
        for (source, pieces) in doubts {
            self.step(Event::Doubted { source, pieces });
        }
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
        for source in self.plan.sources() {
            if let Some(rate) = self.plan.rate(source) {
                self.task.inner.remember_rate(source, rate);
            }
        }
    }
}

/// The piece at which this machine begins with what comes over the WAN: another on each machine, and
/// always the same on one, so that a download that goes on fits its neighbours.
fn own_place(own: &crate::names::PeerId, content: crate::tree::Content, cut: Cut) -> u32 {
    let name = crate::digest::short_name(format!("{own} {}", content.digest).as_bytes());
    let number = u64::from_str_radix(&name, 16).unwrap_or_default();
    u32::try_from(number % u64::from(cut.count().max(1))).unwrap_or_default()
}

/// Asks who holds a content, and for the piece lists of those who hold all of it.
async fn ask(
    inner: Arc<Inner>,
    content: crate::tree::Content,
    landing: Arc<Landing>,
) -> (Offers, Vec<(crate::names::PeerId, crate::piece::PieceList)>) {
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

/// Lands what a peer sends.
struct PeerSink {
    arrival: Arrival,
    disk: Arc<std::sync::Mutex<Option<crate::partial::Error>>>,
}

impl Sink for PeerSink {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Verdict {
        match self.arrival.take(offset, bytes) {
            Landed::Go => Verdict::Go,
            Landed::Enough => Verdict::Enough,
            Landed::Failed(error) => {
                let shown = std::io::Error::other(error.to_string());
                *lock(&self.disk) = Some(error);
                Verdict::Failed(shown)
            }
        }
    }
}

async fn from_peer(inner: &Inner, peer: &crate::names::PeerId, request: PieceRequest, arrival: Arrival) -> How {
    use crate::swarm::Error as E;
    let disk = Arc::default();
    let sink = Box::new(PeerSink { arrival, disk: Arc::clone(&disk) });
    match inner.swarm.pieces(peer, request, sink).await {
        Ok(_) => How::Ended(Ended::Complete),
        Err(E::Busy { retry }) => How::Ended(Ended::Busy(retry)),
        Err(E::Missing) => How::Useless("does not hold it any more".to_owned()),
        Err(E::Sink(error)) => match lock(&disk).take() {
            Some(error) => How::Disk(error),
            None => How::Useless(error.to_string()),
        },
        Err(error @ E::BadMessage { .. }) => {
            inner.swarm.strike(peer, Offence::Malformed).await;
            How::Useless(error.to_string())
        }
        Err(error @ (E::Unsupported | E::Stopped)) => How::Useless(error.to_string()),
        Err(error) => {
            debug!(%peer, %error, "a transfer failed");
            How::Ended(Ended::Failed)
        }
    }
}

async fn from_endpoint(
    inner: &Inner,
    access: &Access,
    url: &str,
    place: &Place,
    bytes: Range<u64>,
    reading: Reading,
    mut arrival: Arrival,
) -> How {
    let Some(endpoint) = access.endpoints.iter().find(|endpoint| endpoint.url == url) else {
        return How::Useless("is no endpoint any more".to_owned());
    };
    let mut body = match inner.hub.range(access, endpoint, place, bytes, reading).await {
        Ok(body) => body,
        Err(error) => return endpoint_trouble(error),
    };
    loop {
        match body.next().await {
            Ok(None) => return How::Ended(Ended::Complete),
            Ok(Some((offset, bytes))) => {
                // A write to a slow disk must not hold up the other tasks of this worker.
                match tokio::task::block_in_place(|| arrival.take(offset, &bytes)) {
                    Landed::Go => {}
                    Landed::Enough => return How::Ended(Ended::Complete),
                    Landed::Failed(error) => return How::Disk(error),
                }
            }
            Err(error) => return endpoint_trouble(error),
        }
    }
}

fn endpoint_trouble(error: hub::Error) -> How {
    match error {
        hub::Error::RangeIgnored { .. } => How::RangeIgnored,
        hub::Error::Busy { wait, .. } => How::Ended(Ended::Busy(wait)),
        hub::Error::SizeChanged { .. } | hub::Error::Lacks { .. } => How::Useless(error.to_string()),
        error if error.is_final() => How::Useless(error.to_string()),
        error => {
            debug!(%error, "an endpoint failed");
            How::Ended(Ended::Failed)
        }
    }
}

/// Runs disk work where it may block. The error is a panic or the end of the runtime.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Interrupted)
}

const _: () = assert!(limits::PLAN_TICK.as_millis() < Duration::from_secs(1).as_millis());
