//! Pace: how fast bytes may flow, and the wait until the next ones may.
//!
//! Knows rates, and who waits for his turn. Does not know what flows, nor between whom.
//! Invariant: what has no limit waits for nothing and takes no lock; and whatever a limit is shared by
//! gets the same part of it, in turns so short that nobody looks stuck.
//!
//! The bucket is our own. A limit that changes while transfers wait, a wait that costs nothing when it is
//! given up, and portions that shrink as more transfers share them: the crates for this lack one or the
//! other, and what is left to them is the arithmetic in `bucket`.

mod bucket;
mod joint;
mod rate;
mod throttle;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use joint::{Joint, Member};
pub use rate::{BadRate, Rate};
pub use throttle::Throttle;

/// The most bytes a second that may flow each way; `None`: as many as can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// To peers that are on no network of this machine.
    pub up: Option<Rate>,
    /// From such peers, and from the Hub and its mirrors.
    pub down: Option<Rate>,
    /// To peers on a network of this machine.
    pub lan_up: Option<Rate>,
    /// From such peers.
    pub lan_down: Option<Rate>,
}

/// The throttles that all transfers of this machine pass. Clones are the same throttles.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    pub up: Throttle,
    pub down: Throttle,
    pub lan_up: Throttle,
    pub lan_down: Throttle,
}

impl Lines {
    /// Puts limits in force, for what is under way as well.
    pub fn set(&self, bandwidth: &Bandwidth) {
        self.up.set(bandwidth.up);
        self.down.set(bandwidth.down);
        self.lan_up.set(bandwidth.lan_up);
        self.lan_down.set(bandwidth.lan_down);
    }
}

/// What one transfer has to pass: the throttle of its line, and one of its own where it has one.
#[derive(Debug, Clone, Default)]
pub struct Toll {
    line: Option<Throttle>,
    own: Option<Arc<Joint>>,
}

impl Toll {
    /// The toll of a transfer that may go as fast as those who wait for it may have it.
    pub fn of(own: &Arc<Joint>) -> Self {
        Self { line: None, own: Some(Arc::clone(own)) }
    }

    /// The same for a transfer that goes over this line.
    pub fn over(self, line: &Throttle) -> Self {
        Self { line: Some(line.clone()), ..self }
    }

    /// How many of these bytes to move at once.
    pub fn portion(&self, most: usize) -> usize {
        let own = self.own.as_ref().and_then(|own| own.throttle());
        let most = own.map_or(most, |own| own.portion(most));
        self.line.as_ref().map_or(most, |line| line.portion(most))
    }

    /// How many bytes to ask a sender for that does not know the limit, and would send them all at once into
    /// the buffers between: `None`, any number.
    pub fn ahead(&self) -> Option<u64> {
        let own = self.own.as_ref().and_then(|own| own.throttle()).and_then(|own| own.ahead());
        let line = self.line.as_ref().and_then(Throttle::ahead);
        own.into_iter().chain(line).min()
    }

    /// Waits until so many bytes more may flow. A wait that is given up costs the others nothing.
    pub async fn pay(&self, bytes: usize) {
        if let Some(own) = self.own.as_ref().and_then(|own| own.throttle()) {
            own.pass(bytes).await;
        }
        if let Some(line) = &self.line {
            line.pass(bytes).await;
        }
    }
}
