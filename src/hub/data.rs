//! Data: one range of one file from one endpoint.
//!
//! Knows redirects to data hosts and what a good answer to a range looks like. Does not know what the
//! bytes should be: that is for their digest to say.
//! Invariant: what is passed on as byte N of the file was sent as byte N of a file of the right size.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap};
use reqwest::{Method, Response, StatusCode};

use super::answer::{self, Miss};
use super::body::Body;
use super::health::Purpose;
use super::line::Line;
use super::round::{Subject, may_be_asked};
use super::transport::{self, Abroad, End, Landed};
use super::ways::{Address, SharedWay, Way};
use super::{Attempt, Error, Failure, Place, RangeBody, Reading, Shared, address};
use crate::config::{Access, Endpoint, Role};
use crate::names::RepoPath;

pub(super) async fn range(
    shared: &Arc<Shared>,
    access: &Access,
    endpoint: &Endpoint,
    place: &Place,
    bytes: Range<u64>,
    reading: Reading,
) -> Result<RangeBody, Error> {
    if access.offline {
        return Err(Error::Offline);
    }
    let bytes = bytes.start..bytes.end.min(place.content.size);
    if bytes.is_empty() {
        return Ok(RangeBody::nothing());
    }
    let line = Line::new(shared, shared.transport.client(&access.proxies)?, access, endpoint);
    let shown = address::shown(endpoint);
    if !may_be_asked(endpoint, place.grant) {
        return Err(Error::Lacks { endpoint: shown, why: "may not see what only the token opens".to_owned() });
    }
    let permit = shared.transport.place_for_bytes(line.route(), bytes.end - bytes.start).await;
    if let Some(why) = shared.health().failure(line.route(), Purpose::Bytes, Instant::now()) {
        return Err(unusable(shown, why));
    }
    let response = open(&line, place, &bytes).await?;
    let asked = Asked { bytes: bytes.clone(), size: place.content.size, path: &place.path, reading };
    let begin = accept(response.status(), response.headers(), &asked).map_err(|fault| {
        if let Fault::Broken(why) = &fault {
            line.bytes_failed(&Failure::Broken(why.clone()));
        }
        fault.error(shown.clone(), place.content.size)
    })?;
    Ok(RangeBody::new(Body {
        response,
        endpoint: shown,
        route: line.route().clone(),
        shared: shared.clone(),
        permit,
        next: begin.offset,
        end: bytes.end,
        more_may_come: begin.whole && bytes.end < place.content.size,
        surplus: false,
    }))
}

/// Finds the bytes: at the address that is known already, else by asking `/resolve`. An address that
/// has expired is replaced once.
async fn open(line: &Line<'_>, place: &Place, bytes: &Range<u64>) -> Result<Response, Error> {
    let shown = || address::shown(line.endpoint());
    let way = line.shared().ways.to(line.route(), place, Instant::now());
    let mut may_be_stale = true;
    loop {
        let (address, fresh) = match find(line, &way, place, bytes).await? {
            Found::Bytes { response, .. } => return Ok(response),
            Found::Known(address) => (address, false),
            Found::Given(address) => (address, true),
        };
        let why = match line.follow(&address, header(bytes), place.grant).await {
            Ok(response) if is_for_accept(response.status()) => return Ok(response),
            Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => {
                let wait = answer::wait(response.headers());
                line.bytes_failed(&Failure::Busy(wait));
                return Err(Error::Busy { endpoint: shown(), wait });
            }
            Ok(response) => {
                let status = response.status();
                way.lock().await.forget(&address);
                transport::finish(response).await;
                if status.is_client_error() && !fresh && may_be_stale {
                    may_be_stale = false;
                    continue;
                }
                format!("answers {}", status.as_u16())
            }
            Err(why) => {
                way.lock().await.forget(&address);
                why.to_string()
            }
        };
        let why = format!("sends for the bytes to `{}`, which {why}", address::host(address.url()));
        line.bytes_failed(&Failure::Broken(why.clone()));
        return Err(Error::Broken { endpoint: shown(), why });
    }
}

enum Found {
    /// They come already, from the endpoint or, after a redirect on its own origin, from this address.
    Bytes { response: Response, from: Option<Address> },
    /// They are to be had at an address that was learnt before.
    Known(Address),
    /// They are to be had at an address that the endpoint gave out just now.
    Given(Address),
}

impl Found {
    fn way(&self) -> Way {
        match self {
            Found::Bytes { from: None, .. } => Way::Direct,
            Found::Bytes { from: Some(address), .. } | Found::Known(address) | Found::Given(address) => {
                Way::to(address)
            }
        }
    }
}

async fn find(line: &Line<'_>, way: &SharedWay, place: &Place, bytes: &Range<u64>) -> Result<Found, Error> {
    let mut known = way.lock().await;
    if let Some(address) = known.address(Instant::now()) {
        return Ok(Found::Known(address));
    }
    if *known == Way::Direct {
        drop(known);
        let found = ask(line, place, bytes).await?;
        *way.lock().await = found.way();
        return Ok(found);
    }
    // Whoever held the way before may have found that the endpoint is dead.
    if let Some(why) = line.shared().health().failure(line.route(), Purpose::Bytes, Instant::now()) {
        return Err(unusable(address::shown(line.endpoint()), why));
    }
    let found = ask(line, place, bytes).await?;
    *known = found.way();
    Ok(found)
}

/// Asks the endpoint's `/resolve` for the bytes.
async fn ask(line: &Line<'_>, place: &Place, bytes: &Range<u64>) -> Result<Found, Error> {
    let shown = || address::shown(line.endpoint());
    let failed = |why: Failure| {
        line.shared().health().failed(line.route(), Purpose::Bytes, &why, Instant::now());
        unusable(shown(), why)
    };
    let url = address::resolve(line.endpoint(), &place.repo, place.commit.as_str(), &place.path).map_err(failed)?;
    let Landed { response, trail, end } =
        line.go(Method::GET, &url, Some(header(bytes)), place.grant, Abroad::Stop).await.map_err(failed)?;
    if let End::Door(url) = end {
        transport::finish(response).await;
        return Ok(Found::Given(Address::Abroad(url)));
    }
    if is_for_accept(response.status()) {
        let from = (!trail.is_empty()).then(|| Address::Home(response.url().clone()));
        return Ok(Found::Bytes { response, from });
    }
    let subject = Subject { repo: &place.repo, revision: place.commit.as_str(), path: Some(&place.path) };
    Err(match (line.miss(response, &end, place.grant).await, line.endpoint().role) {
        (Miss::No(no), Role::Hub) => subject.error(shown(), no),
        (Miss::No(no), Role::Mirror) => {
            Error::Lacks { endpoint: shown(), why: format!("says: {}", subject.error(shown(), no)) }
        }
        // Nothing is wrong with an endpoint that lacks one file.
        (Miss::NoSuchRoute, _) => Error::Lacks { endpoint: shown(), why: format!("has no `{}`", place.path) },
        (Miss::Failed(why) | Miss::Passing(why), _) => failed(why),
    })
}

fn header(bytes: &Range<u64>) -> String {
    format!("bytes={}-{}", bytes.start, bytes.end.saturating_sub(1))
}

fn is_for_accept(status: StatusCode) -> bool {
    status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE
}

/// The failure of one endpoint as an error.
fn unusable(endpoint: String, why: Failure) -> Error {
    match why {
        Failure::Busy(wait) => Error::Busy { endpoint, wait },
        Failure::Broken(why) => Error::Broken { endpoint, why },
        Failure::Said(why) => Error::Lacks { endpoint, why: format!("says: {why}") },
        why @ (Failure::Refused(_) | Failure::Silent | Failure::Lost(_)) => {
            Error::Unreachable { tried: vec![Attempt { endpoint, why }] }
        }
    }
}

/// What was asked for, to hold the answer against.
struct Asked<'a> {
    bytes: Range<u64>,
    size: u64,
    path: &'a RepoPath,
    reading: Reading,
}

/// Where the answer's first byte stands in the file, and whether it goes on to the file's end.
#[derive(Debug, PartialEq, Eq)]
struct Begin {
    offset: u64,
    whole: bool,
}

/// Why an answer is not what was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    RangeIgnored,
    SizeChanged(Option<u64>),
    Broken(String),
}

impl Fault {
    fn error(self, endpoint: String, wanted: u64) -> Error {
        match self {
            Fault::RangeIgnored => Error::RangeIgnored { endpoint },
            Fault::SizeChanged(found) => Error::SizeChanged { endpoint, wanted, found },
            Fault::Broken(why) => Error::Broken { endpoint, why },
        }
    }
}

/// Holds an answer's head against what was asked for.
fn accept(status: StatusCode, headers: &HeaderMap, asked: &Asked<'_>) -> Result<Begin, Fault> {
    let broken = |why: &str| Err(Fault::Broken(why.to_owned()));
    if answer::text(headers, CONTENT_ENCODING.as_str()).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return broken("sends files in a coding that was not asked for");
    }
    // A login page comes with any status; only the size tells a file that is a web page from it.
    let page = answer::is_web_page(headers) && !is_named_as_web_page(asked.path);
    match status {
        StatusCode::PARTIAL_CONTENT => {
            let Some((start, end, total)) = answer::text(headers, CONTENT_RANGE.as_str()).and_then(content_range)
            else {
                return broken("sends a part without saying which");
            };
            match total {
                Some(total) if total != asked.size && page => return broken("sends a web page for a file"),
                Some(total) if total != asked.size => return Err(Fault::SizeChanged(Some(total))),
                None if page => return broken("sends a web page for a file"),
                _ => {}
            }
            if start != asked.bytes.start || end < start || end >= asked.size {
                return broken("sends another part than was asked for");
            }
            Ok(Begin { offset: start, whole: false })
        }
        StatusCode::OK => {
            let length =
                answer::text(headers, CONTENT_LENGTH.as_str()).and_then(|text| text.trim().parse::<u64>().ok());
            if page && length != Some(asked.size) {
                return broken("sends a web page for a file");
            }
            if length.is_some_and(|length| length != asked.size) {
                return Err(Fault::SizeChanged(length));
            }
            if asked.bytes.start > 0 && asked.reading == Reading::Exact {
                return Err(Fault::RangeIgnored);
            }
            Ok(Begin { offset: 0, whole: true })
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let total = answer::text(headers, CONTENT_RANGE.as_str());
            Err(Fault::SizeChanged(total.and_then(|range| range.strip_prefix("bytes */")?.trim().parse().ok())))
        }
        _ => Err(Fault::Broken(format!("answers {} to a range", status.as_u16()))),
    }
}

/// `bytes FIRST-LAST/TOTAL`, where the total may be `*`.
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some((start.trim().parse().ok()?, end.trim().parse().ok()?, total))
}

fn is_named_as_web_page(path: &RepoPath) -> bool {
    let name = path.as_str().to_ascii_lowercase();
    [".html", ".htm", ".xhtml"].into_iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reqwest::header::{HeaderName, HeaderValue};

    fn verdict(status: u16, pairs: &[(&'static str, &str)], path: &str, reading: Reading) -> Result<Begin, Fault> {
        let headers = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect();
        let asked = Asked { bytes: 10..20, size: 100, path: &path.parse().unwrap(), reading };
        accept(StatusCode::from_u16(status).unwrap(), &headers, &asked)
    }

    #[test]
    fn only_the_asked_part_of_a_file_of_the_right_size_is_taken() {
        let part = |range: &str| verdict(206, &[("content-range", range)], "f", Reading::Exact);
        assert_eq!(part("bytes 10-19/100"), Ok(Begin { offset: 10, whole: false }));
        assert_eq!(part("bytes 10-19/*"), Ok(Begin { offset: 10, whole: false }));
        assert_eq!(part("bytes 10-19/101"), Err(Fault::SizeChanged(Some(101))));
        for bad in
            ["bytes 0-9/100", "bytes 11-19/100", "bytes 10-100/100", "bytes 10-9/100", "items 10-19/100", "bytes */100"]
        {
            assert!(matches!(part(bad), Err(Fault::Broken(_))), "{bad} was taken");
        }
        assert!(matches!(verdict(206, &[], "f", Reading::Exact), Err(Fault::Broken(_))));
        assert_eq!(
            verdict(416, &[("content-range", "bytes */5")], "f", Reading::Exact),
            Err(Fault::SizeChanged(Some(5)))
        );
        let zipped = [("content-range", "bytes 10-19/100"), ("content-encoding", "gzip")];
        assert!(matches!(verdict(206, &zipped, "f", Reading::Exact), Err(Fault::Broken(_))));
    }

    #[test]
    fn a_whole_file_is_taken_only_by_those_who_read_from_its_start() {
        let length = [("content-length", "100")];
        assert_eq!(verdict(200, &length, "f", Reading::Exact), Err(Fault::RangeIgnored));
        assert_eq!(verdict(200, &length, "f", Reading::FromStart), Ok(Begin { offset: 0, whole: true }));
        assert_eq!(verdict(200, &[], "f", Reading::FromStart), Ok(Begin { offset: 0, whole: true }));
        let short = [("content-length", "99")];
        assert_eq!(verdict(200, &short, "f", Reading::FromStart), Err(Fault::SizeChanged(Some(99))));
        assert!(matches!(verdict(204, &[], "f", Reading::FromStart), Err(Fault::Broken(_))));
    }

    #[test]
    fn a_login_page_is_told_from_a_file_that_is_a_web_page() {
        let page = |length: Option<&str>, path| {
            let mut pairs = vec![("content-type", "text/html; charset=utf-8")];
            pairs.extend(length.map(|length| ("content-length", length)));
            verdict(200, &pairs, path, Reading::FromStart)
        };
        assert!(matches!(page(Some("1234"), "model.bin"), Err(Fault::Broken(_))));
        assert!(matches!(page(None, "model.bin"), Err(Fault::Broken(_))));
        assert!(page(Some("100"), "model.bin").is_ok(), "some servers call every text a web page");
        assert!(page(None, "docs/Index.HTML").is_ok());
        assert!(page(Some("1234"), "index.html").is_err());
    }

    proptest! {
        #[test]
        fn no_content_range_breaks_the_reader(text in ".*") {
            let _ = content_range(&text);
        }
    }
}
