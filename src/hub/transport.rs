//! Transport: requests go out, answers come in, redirects are followed by hand.
//!
//! Knows connections, proxies, time limits and where the token may go. Does not know what the
//! requests are about.
//! Invariant: the token is on a request only while no redirect has left the origin that it was
//! given for; once it is off it stays off, even if a later redirect leads back.
//!
//! HTTP/2 is not spoken: it would put all ranges of a file on one connection, and on a line that
//! loses packets one connection is slower than several.

use std::collections::{HashMap, HashSet};
use std::error::Error as _;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION, RANGE, USER_AGENT,
};
use reqwest::{Client, Method, NoProxy, Proxy, Response, StatusCode, Url, redirect};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::health::Route;
use super::{Error, Failure, address};
use crate::config::{Proxies, Token, system_proxies};
use crate::limits;
use crate::names::clean;

/// How long to wait for what. The tests wait less.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) connect: Duration,
    /// For the head of an answer from an endpoint.
    pub(super) answer: Duration,
    /// For the next byte of a body, and for the head of an answer from a data host.
    pub(super) stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: limits::HUB_CONNECT, answer: limits::HUB_ANSWER, stall: limits::HUB_STALL }
    }
}

/// One request, with all the hops that it may take.
pub(super) struct Errand<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    /// The value of the `Range` header.
    pub(super) range: Option<String>,
    pub(super) token: Option<&'a Token>,
    pub(super) abroad: Abroad,
}

/// What to do when a redirect leads to another origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abroad {
    Follow,
    /// The redirect itself is what is wanted: it bears the metadata, or a signed address.
    Stop,
}

/// What an errand ended with.
pub(super) struct Landed {
    pub(super) response: Response,
    /// The headers of the redirects on the way, first one first.
    pub(super) trail: Vec<HeaderMap>,
    pub(super) end: End,
}

/// Where an errand ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// At the origin that was asked.
    Home,
    /// At another origin, without the token.
    Elsewhere,
    /// Before a redirect to another origin, which was not followed.
    Door(Url),
}

/// What waits for a place of its own kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Gate {
    Questions,
    SmallRanges,
    LargeRanges,
}

/// Clients, one for each set of proxies in use, and what bounds their requests.
pub(super) struct Transport {
    patience: Patience,
    /// The one used last stands last.
    clients: Mutex<Vec<(Proxies, Client)>>,
    gates: Mutex<HashMap<(Route, Gate), Arc<Semaphore>>>,
    warned: Mutex<HashSet<String>>,
}

impl Transport {
    pub(super) fn new(patience: Patience) -> Self {
        Self { patience, clients: Mutex::default(), gates: Mutex::default(), warned: Mutex::default() }
    }

    pub(super) fn patience(&self) -> Patience {
        self.patience
    }

    /// The client for a set of proxies, or for the system's own where none is named; it is built when it
    /// is first needed.
    pub(super) fn client(&self, proxies: &Proxies) -> Result<Client, Error> {
        let systems = (*proxies == Proxies::default()).then(system_proxies);
        let proxies = systems.as_ref().unwrap_or(proxies);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let known = clients.iter().position(|(known, _)| known == proxies);
        let entry = match known {
            Some(at) => clients.remove(at),
            None => (proxies.clone(), build(proxies, self.patience)?),
        };
        let client = entry.1.clone();
        clients.push(entry);
        if clients.len() > limits::HUB_CLIENTS_MAX {
            clients.remove(0);
        }
        Ok(client)
    }

    /// A place among the questions that one endpoint gets at one time; waits for one to be free.
    pub(super) async fn place_for_question(&self, route: &Route) -> Option<OwnedSemaphorePermit> {
        self.through(route, Gate::Questions, limits::HUB_QUESTIONS_MAX).await
    }

    /// The same among the ranges. Large ones have places of their own: a small file would wait for seconds
    /// behind each.
    pub(super) async fn place_for_bytes(&self, route: &Route, len: u64) -> Option<OwnedSemaphorePermit> {
        if len >= limits::LARGE_REQUEST_BYTES {
            self.through(route, Gate::LargeRanges, limits::HUB_LARGE_RANGES_MAX).await
        } else {
            self.through(route, Gate::SmallRanges, limits::HUB_SMALL_RANGES_MAX).await
        }
    }

    async fn through(&self, route: &Route, gate: Gate, places: usize) -> Option<OwnedSemaphorePermit> {
        let gate = {
            let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
            if gates.len() >= limits::HUB_BAD_ENDPOINTS_MAX {
                gates.retain(|_, gate| Arc::strong_count(gate) > 1);
            }
            gates.entry((route.clone(), gate)).or_insert_with(|| Arc::new(Semaphore::new(places))).clone()
        };
        // It fails only for a closed gate, and no gate is ever closed.
        gate.acquire_owned().await.ok()
    }

    /// Runs an errand, redirects and all, until an answer's head is there or `within` is over.
    pub(super) async fn run(&self, client: &Client, errand: Errand<'_>, within: Duration) -> Result<Landed, Failure> {
        let host = address::host(&errand.url);
        let landed = timeout(within, self.travel(client, errand)).await.unwrap_or(Err(Failure::Silent));
        match &landed {
            Ok(landed) => debug!(%host, status = landed.response.status().as_u16(), end = ?landed.end.kind(), "answer"),
            Err(why) => debug!(%host, %why, "no answer"),
        }
        landed
    }

    async fn travel(&self, client: &Client, errand: Errand<'_>) -> Result<Landed, Failure> {
        let Errand { method, mut url, range, token, abroad } = errand;
        let mut token = token.map(bearer).transpose()?;
        let mut end = End::Home;
        let mut trail = Vec::new();
        for _ in 0..=limits::HUB_HOPS_MAX {
            let mut request = client.request(method.clone(), url.clone()).header(ACCEPT_ENCODING, "identity");
            if let Some(range) = &range {
                request = request.header(RANGE, range);
            }
            if let Some(token) = &token {
                request = request.header(AUTHORIZATION, token);
            }
            let response = request.send().await.map_err(|error| failure(&error))?;
            self.pass_on_warnings(&url, response.headers());
            let Some(next) = target(&url, &response)? else {
                return Ok(Landed { response, trail, end });
            };
            if !address::same_origin(&url, &next) {
                if abroad == Abroad::Stop {
                    return Ok(Landed { response, trail, end: End::Door(next) });
                }
                token = None;
                end = End::Elsewhere;
            }
            trail.push(response.headers().clone());
            finish(response).await;
            url = next;
        }
        Err(Failure::Broken("redirects in circles".to_owned()))
    }

    /// The Hub speaks to its users by `X-HF-Warning: topic; text`; each text is logged once.
    fn pass_on_warnings(&self, url: &Url, headers: &HeaderMap) {
        for value in headers.get_all("x-hf-warning") {
            let text = clean(&String::from_utf8_lossy(value.as_bytes()), limits::HUB_TEXT_CHARS_MAX);
            let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
            if warned.len() < limits::HUB_WARNINGS_MAX && warned.insert(text.clone()) {
                warn!(host = %address::host(url), "the Hub warns: {text}");
            }
        }
    }
}

impl End {
    /// The end without its address, which may be signed.
    fn kind(&self) -> &'static str {
        match self {
            End::Home => "home",
            End::Elsewhere => "elsewhere",
            End::Door(_) => "door",
        }
    }
}

fn build(proxies: &Proxies, patience: Patience) -> Result<Client, Error> {
    let no = proxies.no.as_deref().and_then(NoProxy::from_string);
    let mut list = Vec::new();
    for (variable, address, proxy) in [
        ("HTTP_PROXY", &proxies.http, proxies.http.as_deref().map(Proxy::http)),
        ("HTTPS_PROXY", &proxies.https, proxies.https.as_deref().map(Proxy::https)),
        ("ALL_PROXY", &proxies.all, proxies.all.as_deref().map(Proxy::all)),
    ] {
        let (Some(address), Some(proxy)) = (address, proxy) else { continue };
        let bad = || Error::BadProxy { variable };
        // The client would pass over a scheme that it does not know, and go out without the proxy.
        let scheme = address.split_once("://").map_or("http", |(scheme, _)| scheme);
        if !["http", "https", "socks4", "socks4a", "socks5", "socks5h"].contains(&scheme) {
            return Err(bad());
        }
        list.push(proxy.map_err(|_| bad())?.no_proxy(no.clone()));
    }
    let builder = || {
        let agent = concat!("hffs/", env!("CARGO_PKG_VERSION"), "; rust");
        let agent = HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static(agent))]);
        let builder = Client::builder()
            .default_headers(agent)
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .http1_only()
            .connect_timeout(patience.connect)
            .pool_max_idle_per_host(limits::HUB_SMALL_RANGES_MAX + limits::HUB_LARGE_RANGES_MAX)
            .tcp_keepalive(limits::HUB_STALL);
        list.iter().cloned().fold(builder, reqwest::ClientBuilder::proxy)
    };
    builder().build().or_else(|error| {
        // A machine without certificates can still use an endpoint or a proxy that speaks plain http.
        warn!("no CA certificates can be read, so no https endpoint can be used: {}", cause(&error));
        builder().tls_certs_only([]).build().map_err(|error| Error::Setup { why: cause(&error) })
    })
}

fn bearer(token: &Token) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
        .map_err(|_| Failure::Said("the token holds characters that no token has".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Where an answer redirects to, if it does.
fn target(at: &Url, response: &Response) -> Result<Option<Url>, Failure> {
    let redirects = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    match response.headers().get(LOCATION) {
        Some(location) if redirects => {
            let location = String::from_utf8_lossy(location.as_bytes());
            address::hop(at, &location).map(Some)
        }
        _ => Ok(None),
    }
}

/// Reads the rest of a small body, so that its connection can be used again.
pub(super) async fn finish(mut response: Response) {
    let small = response
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok())
        .is_some_and(|bytes| bytes <= limits::HUB_ERROR_BYTES_MAX);
    if small {
        let rest = async { while let Ok(Some(_)) = response.chunk().await {} };
        let _ = timeout(limits::HUB_DRAIN, rest).await;
    }
}

/// What an error of the client means. Its own text holds the URL, signature and all, so it is not used.
pub(super) fn failure(error: &reqwest::Error) -> Failure {
    if error.is_timeout() {
        Failure::Silent
    } else if error.is_connect() {
        Failure::Refused(cause(error))
    } else if error.is_builder() {
        Failure::Broken(format!("cannot be asked: {}", cause(error)))
    } else {
        Failure::Lost(cause(error))
    }
}

/// The innermost cause, in words that a person can use.
pub(super) fn cause(error: &reqwest::Error) -> String {
    let mut innermost: Option<&(dyn std::error::Error + 'static)> = None;
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            match io.kind() {
                io::ErrorKind::ConnectionRefused => return "nobody listens there".to_owned(),
                io::ErrorKind::ConnectionReset => return "connection reset".to_owned(),
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => return "no route".to_owned(),
                _ => {}
            }
        }
        innermost = Some(cause);
        next = cause.source();
    }
    if error.is_dns() {
        return "its name cannot be looked up".to_owned();
    }
    match innermost {
        // What stands in braces are the TLS library's own numbers.
        Some(cause) => clean(cause.to_string().split(" {").next().unwrap_or_default(), limits::HUB_TEXT_CHARS_MAX),
        None => "unknown cause".to_owned(),
    }
}
