//! Ranges: one request to one source, from the first byte to how it ended.
//!
//! Knows how peers and endpoints are asked, and what each of their failures means for the download.
//! Does not know what is asked next.
//! Invariant: every byte that comes goes through the range's `Arrival`, which counts it.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use tracing::debug;

use super::Inner;
use super::landing::{Arrival, Landed, lock};
use crate::config::Access;
use crate::hub::{self, Place, RangeBody, Reading};
use crate::limits;
use crate::names::PeerId;
use crate::pace::Toll;
use crate::plan::Ended;
use crate::swarm::{Sink, Verdict};
use crate::wire::PieceRequest;

/// How a range ended.
pub(super) enum How {
    Ended(Ended),
    /// The peer does not have these pieces any more; when asked next it may have others.
    Gone,
    /// The source cannot give this file at all.
    Useless(String),
    /// The endpoint sends whole files only.
    RangeIgnored,
    /// Our own disk.
    Disk(crate::partial::Error),
}

/// Lands what a peer sends.
struct PeerSink {
    arrival: Arrival,
    toll: Toll,
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

    fn toll(&self) -> Toll {
        self.toll.clone()
    }
}

pub(super) async fn from_peer(
    inner: &Inner,
    peer: &PeerId,
    request: PieceRequest,
    (arrival, toll): (Arrival, Toll),
) -> How {
    use crate::swarm::Error as E;
    let disk = Arc::default();
    let sink = Box::new(PeerSink { arrival, toll, disk: Arc::clone(&disk) });
    match inner.swarm.pieces(peer, request, sink).await {
        Ok(_) => How::Ended(Ended::Complete),
        Err(E::Busy { retry }) => How::Ended(Ended::Busy(retry)),
        Err(E::Missing) => How::Gone,
        Err(E::Sink(error)) => match lock(&disk).take() {
            Some(error) => How::Disk(error),
            None => How::Useless(error.to_string()),
        },
        Err(error @ (E::BadMessage { .. } | E::Unsupported | E::Stopped)) => How::Useless(error.to_string()),
        Err(error) => {
            debug!(%peer, %error, "a transfer failed");
            How::Ended(Ended::Failed)
        }
    }
}

pub(super) async fn from_endpoint(
    inner: &Inner,
    access: &Access,
    url: &str,
    place: &Place,
    bytes: Range<u64>,
    reading: Reading,
    (mut arrival, toll): (Arrival, Toll),
) -> How {
    let Some(endpoint) = access.endpoints.iter().find(|endpoint| endpoint.url == url) else {
        return How::Useless("is no endpoint any more".to_owned());
    };
    let toll = toll.over(&inner.wan_down);
    let mut at = bytes.start;
    while at < bytes.end {
        let ahead = match reading {
            Reading::Exact if at == bytes.start => toll.ahead().map(|_| limits::PACE_AHEAD_BYTES_MIN),
            Reading::Exact => toll.ahead(),
            Reading::FromStart => None,
        };
        let end = ahead.map_or(bytes.end, |ahead| bytes.end.min(at.saturating_add(ahead)));
        let body = match inner.hub.range(access, endpoint, place, at..end, reading).await {
            Ok(body) => body,
            Err(error) => return endpoint_trouble(error),
        };
        if let ControlFlow::Break(how) = land(body, &toll, &mut arrival).await {
            return how;
        }
        at = end;
    }
    How::Ended(Ended::Complete)
}

/// Lands what an answer brings, to its end or to that of the range.
async fn land(mut body: RangeBody, toll: &Toll, arrival: &mut Arrival) -> ControlFlow<How> {
    loop {
        let (mut offset, mut bytes) = match body.next().await {
            Ok(None) => return ControlFlow::Continue(()),
            Ok(Some(came)) => came,
            Err(error) => return ControlFlow::Break(endpoint_trouble(error)),
        };
        // Under a limit they land in portions: bytes that wait in one lump look like a source that is stuck.
        while !bytes.is_empty() {
            let portion = bytes.split_to(toll.portion(bytes.len()));
            toll.pay(portion.len()).await;
            // A write to a slow disk must not hold up the other tasks of this worker.
            match tokio::task::block_in_place(|| arrival.take(offset, &portion)) {
                Landed::Go => offset += portion.len() as u64,
                Landed::Enough => return ControlFlow::Break(How::Ended(Ended::Complete)),
                Landed::Failed(error) => return ControlFlow::Break(How::Disk(error)),
            }
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
