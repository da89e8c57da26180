//! Health: which endpoints failed lately, and until when they are left alone.
//!
//! Knows failures and times. Does not know requests, nor a clock: each call says what time it is.
//! Invariant: no failure is remembered for longer than `HUB_BAD_MAX`, a wait that the endpoint
//! itself asked for aside, and no more endpoints than `HUB_BAD_ENDPOINTS_MAX`.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use super::Failure;
use crate::config::{Endpoint, Proxies};
use crate::limits;

/// A way to an endpoint: one that is dead from here may live behind a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Route {
    url: String,
    via: u64,
}

impl Route {
    pub(super) fn new(endpoint: &Endpoint, proxies: &Proxies) -> Self {
        let mut hasher = DefaultHasher::new();
        proxies.hash(&mut hasher);
        Self { url: endpoint.url.clone(), via: hasher.finish() }
    }
}

/// What an endpoint is used for: one that answers questions may still have no bytes, or the reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    Questions,
    Bytes,
}

/// The endpoints that failed lately.
#[derive(Debug, Default)]
pub(super) struct Health {
    bad: HashMap<(Route, Purpose), Bad>,
}

#[derive(Debug)]
struct Bad {
    why: Failure,
    until: Instant,
    /// How often in a row.
    times: u32,
}

impl Health {
    /// What the endpoint is left alone for, while it is.
    pub(super) fn failure(&self, route: &Route, purpose: Purpose, now: Instant) -> Option<Failure> {
        let bad = self.bad.get(&(route.clone(), purpose)).filter(|bad| now < bad.until)?;
        Some(match &bad.why {
            Failure::Busy(_) => Failure::Busy(bad.until - now),
            why => why.clone(),
        })
    }

    /// The endpoint failed at `now`. A host that is not there is not there for any purpose.
    pub(super) fn failed(&mut self, route: &Route, purpose: Purpose, why: &Failure, now: Instant) {
        self.note(route, purpose, why, now);
        if matches!(why, Failure::Refused(_) | Failure::Silent) {
            let other = match purpose {
                Purpose::Questions => Purpose::Bytes,
                Purpose::Bytes => Purpose::Questions,
            };
            self.note(route, other, why, now);
        }
    }

    /// The host that the endpoint's bytes come from failed; the endpoint itself is well.
    pub(super) fn data_host_failed(&mut self, route: &Route, why: &Failure, now: Instant) {
        self.note(route, Purpose::Bytes, why, now);
    }

    /// The endpoint answered as it should.
    pub(super) fn well(&mut self, route: &Route, purpose: Purpose) {
        self.bad.remove(&(route.clone(), purpose));
    }

    fn note(&mut self, route: &Route, purpose: Purpose, why: &Failure, now: Instant) {
        let key = (route.clone(), purpose);
        let before = self.bad.get(&key);
        if before.is_some_and(|bad| now < bad.until) {
            // Requests that ran at the same time fail together; that is one failure.
            return;
        }
        let times = before.map_or(0, |bad| bad.times).saturating_add(1);
        let Some(pause) = pause(why, times) else {
            return;
        };
        if self.bad.len() >= limits::HUB_BAD_ENDPOINTS_MAX
            && !self.bad.contains_key(&key)
            && let Some(oldest) = self.bad.iter().min_by_key(|(_, bad)| bad.until).map(|(key, _)| key.clone())
        {
            self.bad.remove(&oldest);
        }
        self.bad.insert(key, Bad { why: why.clone(), until: now + pause, times });
    }
}

/// How long an endpoint is left alone after failing `times` times in a row; `None` for what is no
/// fault of its. What is cheap to find out is tried again soon, doubling each time; silence costs seconds.
fn pause(why: &Failure, times: u32) -> Option<Duration> {
    let first = match why {
        Failure::Said(_) => return None,
        Failure::Busy(wait) => return Some((*wait).min(limits::HUB_WAIT_MAX)),
        Failure::Broken(_) | Failure::Lost(_) => Duration::from_secs(2),
        Failure::Refused(_) => Duration::from_secs(5),
        Failure::Silent => Duration::from_secs(30),
    };
    let doubled = first.saturating_mul(1 << times.saturating_sub(1).min(5));
    Some(doubled.min(limits::HUB_BAD_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;
    use proptest::prelude::*;

    fn route(name: &str) -> Route {
        Route::new(&Endpoint { url: name.to_owned(), role: Role::Mirror }, &Proxies::default())
    }

    fn failures() -> impl Strategy<Value = Failure> {
        prop_oneof![
            Just(Failure::Silent),
            Just(Failure::Refused("x".to_owned())),
            Just(Failure::Broken("x".to_owned())),
            Just(Failure::Lost("x".to_owned())),
        ]
    }

    #[test]
    fn a_silent_endpoint_is_left_alone_for_every_purpose_and_then_tried_again() {
        let (mut health, now, hub) = (Health::default(), Instant::now(), route("hub"));
        health.failed(&hub, Purpose::Questions, &Failure::Silent, now);
        for purpose in [Purpose::Questions, Purpose::Bytes] {
            assert_eq!(health.failure(&hub, purpose, now), Some(Failure::Silent));
            assert_eq!(health.failure(&hub, purpose, now + limits::HUB_BAD_MAX), None);
        }
    }

    #[test]
    fn a_data_host_that_fails_leaves_the_endpoint_good_for_questions() {
        let (mut health, now, hub) = (Health::default(), Instant::now(), route("hub"));
        health.data_host_failed(&hub, &Failure::Silent, now);
        assert_eq!(health.failure(&hub, Purpose::Bytes, now), Some(Failure::Silent));
        assert_eq!(health.failure(&hub, Purpose::Questions, now), None);
    }

    #[test]
    fn an_endpoint_is_known_apart_from_the_same_one_behind_a_proxy() {
        let (mut health, now) = (Health::default(), Instant::now());
        let endpoint = Endpoint { url: "hub".to_owned(), role: Role::Hub };
        let proxies = Proxies { all: Some("http://proxy:1".to_owned()), ..Proxies::default() };
        health.failed(&Route::new(&endpoint, &Proxies::default()), Purpose::Questions, &Failure::Silent, now);
        assert_eq!(health.failure(&Route::new(&endpoint, &proxies), Purpose::Questions, now), None);
    }

    #[test]
    fn a_wait_that_was_asked_for_runs_down() {
        let (mut health, now, hub) = (Health::default(), Instant::now(), route("hub"));
        health.failed(&hub, Purpose::Questions, &Failure::Busy(Duration::from_secs(90)), now);
        let left = health.failure(&hub, Purpose::Questions, now + Duration::from_secs(80));
        assert_eq!(left, Some(Failure::Busy(Duration::from_secs(10))));
        assert_eq!(health.failure(&hub, Purpose::Bytes, now), None);
    }

    #[test]
    fn one_refused_question_is_no_fault() {
        let (mut health, now, hub) = (Health::default(), Instant::now(), route("hub"));
        health.failed(&hub, Purpose::Questions, &Failure::Said("there is no such repo".to_owned()), now);
        assert_eq!(health.failure(&hub, Purpose::Questions, now), None);
    }

    proptest! {
        #[test]
        fn no_failure_is_remembered_beyond_the_bound(whys in proptest::collection::vec((failures(), 0u64..100), 1..50)) {
            let (mut health, mut now, hub) = (Health::default(), Instant::now(), route("hub"));
            for (why, seconds) in whys {
                health.failed(&hub, Purpose::Questions, &why, now);
                prop_assert!(health.failure(&hub, Purpose::Questions, now).is_some());
                prop_assert!(health.failure(&hub, Purpose::Questions, now + limits::HUB_BAD_MAX).is_none());
                now += Duration::from_secs(seconds);
            }
            health.well(&hub, Purpose::Questions);
            prop_assert_eq!(health.failure(&hub, Purpose::Questions, now), None);
        }

        #[test]
        fn the_book_stays_small(names in proptest::collection::vec("[a-z]{3}", 0..300)) {
            let (mut health, now) = (Health::default(), Instant::now());
            for name in names {
                health.failed(&route(&name), Purpose::Questions, &Failure::Silent, now);
            }
            prop_assert!(health.bad.len() <= limits::HUB_BAD_ENDPOINTS_MAX);
        }
    }
}
