//! A file's bytes on their way out, with what may befall them.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;

use super::{Fault, Shared};

/// What is left to send, and the fate that awaits it.
struct Flow {
    shared: Arc<Shared>,
    path: String,
    content: Bytes,
    at: usize,
    end: usize,
    fate: Option<Fate>,
    flip: Option<usize>,
    rate: Option<u64>,
}

enum Fate {
    Cut(usize),
    Stall(usize),
}

/// The bytes of `content` from `start` to `end` as a body that suffers `faults`.
pub(super) fn body(
    shared: Arc<Shared>,
    path: String,
    content: Bytes,
    (start, end): (usize, usize),
    faults: &[Fault],
) -> Body {
    let mut flow = Flow { shared, path, content, at: start, end, fate: None, flip: None, rate: None };
    for fault in faults {
        match fault {
            Fault::CutAfter { bytes } => flow.fate = Some(Fate::Cut(start + clamp(*bytes))),
            Fault::StallAfter { bytes } => flow.fate = Some(Fate::Stall(start + clamp(*bytes))),
            Fault::ShortBody { bytes } => flow.end = end.min(start + clamp(*bytes)),
            Fault::Flip { offset } => flow.flip = Some(clamp(*offset)),
            Fault::Rate { bytes_per_sec } => flow.rate = Some((*bytes_per_sec).max(1)),
            _ => {}
        }
    }
    Body::from_stream(futures::stream::unfold(flow, |mut flow| async move {
        let chunk = flow.next().await?;
        Some((chunk, flow))
    }))
}

fn clamp(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX / 2)
}

impl Flow {
    async fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        match self.fate {
            Some(Fate::Cut(at)) if self.at >= at => {
                // What was handed over before should be on its way when the connection breaks.
                tokio::time::sleep(Duration::from_millis(50)).await;
                return Some(Err(std::io::ErrorKind::ConnectionReset.into()));
            }
            Some(Fate::Stall(at)) if self.at >= at => std::future::pending().await,
            _ => {}
        }
        if self.at >= self.end {
            return None;
        }
        // At a low rate, small steps, so that progress looks like a line's and not like a tap's.
        let step = self.rate.map_or(65_536, |rate| clamp(rate / 20).clamp(1, 65_536));
        let mut upto = self.end.min(self.at + step);
        if let Some(Fate::Cut(stop) | Fate::Stall(stop)) = self.fate {
            upto = upto.min(stop);
        }
        if let Some(rate) = self.rate {
            self.wait_for_the_line(upto - self.at, rate).await;
        }
        let mut chunk = self.content.slice(self.at..upto);
        if let Some(place) = self.flip.filter(|place| (self.at..upto).contains(place)) {
            let mut spoilt = chunk.to_vec();
            spoilt[place - self.at] ^= 0x20;
            chunk = spoilt.into();
        }
        self.shared.lock().ledger.note_sent(&self.path, (upto - self.at) as u64);
        self.at = upto;
        Some(Ok(chunk))
    }

    /// Waits until the one line that all bodies share has room.
    async fn wait_for_the_line(&self, bytes: usize, rate: u64) {
        let until = {
            let mut free = self.shared.line_free.lock().unwrap_or_else(PoisonError::into_inner);
            *free = (*free).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *free
        };
        tokio::time::sleep_until(until.into()).await;
    }
}
