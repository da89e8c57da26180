//! Answers: what a status, its headers and its text mean.
//!
//! Knows the Hub's error codes as `huggingface_hub` reads them (`utils/_http.py`, `hf_raise_for_status`)
//! and the faults of what stands between us and the Hub. Does not know who was asked for what.
//! Invariant: a web page is never taken for the Hub's word.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};

use super::{Failure, Grant};
use crate::limits;
use crate::names::clean;

/// An endpoint's no, as it would be final if the endpoint is the Hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum No {
    Repo,
    Revision,
    File,
    Gated,
    Disabled,
    /// The token that was sent is not known.
    Token,
    /// Asked without a token: missing, or private.
    Private,
    Denied(String),
}

impl No {
    /// Whether the answer may be another one when the token is shown. A missing revision is told only
    /// of a repo that the asker may see, so there the token changes nothing.
    pub(super) fn may_yield_to_a_token(&self) -> bool {
        matches!(self, No::Repo | No::Private | No::Gated | No::Denied(_))
    }
}

/// What came instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Miss {
    /// The endpoint cannot be used.
    Failed(Failure),
    /// It is overloaded or restarting: worth one more try.
    Passing(Failure),
    /// It does not know the address at all, so it lacks this part of the API, or is no Hub.
    NoSuchRoute,
    /// It answered, and said no.
    No(No),
}

impl From<Failure> for Miss {
    fn from(why: Failure) -> Self {
        Miss::Failed(why)
    }
}

/// What an answer that is no success means. `body` is the start of its text, where there is one, and
/// `sent` tells whether the token went along with the question.
pub(super) fn miss(status: StatusCode, headers: &HeaderMap, body: &[u8], sent: Grant) -> Miss {
    let says = sentence(headers, body);
    let broken = |why: String| Miss::Failed(Failure::Broken(why));
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Miss::Failed(Failure::Busy(wait(headers)));
    }
    if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
        return Miss::Passing(Failure::Broken(format!("answers {}", status.as_u16())));
    }
    if let Some(no) = by_code(status, headers, &says, sent) {
        return Miss::No(no);
    }
    match status {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Miss::NoSuchRoute,
        _ if is_web_page(headers) => broken(format!("answers {} with a web page", status.as_u16())),
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => broken("is behind a proxy that wants a login".to_owned()),
        StatusCode::UNAUTHORIZED => Miss::No(match sent {
            Grant::Anonymous => No::Private,
            Grant::Token => No::Token,
        }),
        StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => Miss::No(No::Denied(says)),
        _ if status.is_redirection() => broken("redirects without saying where".to_owned()),
        _ => broken(format!("answers {}", status.as_u16())),
    }
}

/// What the Hub itself calls the error.
fn by_code(status: StatusCode, headers: &HeaderMap, says: &str, sent: Grant) -> Option<No> {
    if says.contains("Access to this resource is disabled") {
        return Some(No::Disabled);
    }
    if sent == Grant::Token && says.contains("Invalid credentials") {
        return Some(No::Token);
    }
    match text(headers, "x-error-code")? {
        // Without a token the Hub says 401 of missing and of private repos alike.
        "RepoNotFound" if status == StatusCode::UNAUTHORIZED && sent == Grant::Anonymous => Some(No::Private),
        "RepoNotFound" => Some(No::Repo),
        "RevisionNotFound" => Some(No::Revision),
        "EntryNotFound" => Some(No::File),
        "GatedRepo" => Some(No::Gated),
        _ => None,
    }
}

/// The answer's own sentence: `X-Error-Message`, or `{"error": "…"}`.
fn sentence(headers: &HeaderMap, body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Spoken {
        error: String,
    }
    let spoken = match headers.get("x-error-message") {
        Some(value) => Some(String::from_utf8_lossy(value.as_bytes()).into_owned()),
        None => serde_json::from_slice::<Spoken>(body).ok().map(|spoken| spoken.error),
    };
    clean(spoken.as_deref().unwrap_or("no reason is given"), limits::HUB_TEXT_CHARS_MAX)
}

/// How long a 429 asks to wait: to the end of the window that is used up (`RateLimit`, an IETF draft),
/// else what `Retry-After` says in seconds.
pub(super) fn wait(headers: &HeaderMap) -> Duration {
    let window = headers
        .get_all("ratelimit")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter(|item| parameter(item, "r") == Some(0))
        .filter_map(|item| parameter(item, "t"))
        .max()
        .map(|seconds| seconds.saturating_add(1));
    let retry_after = || text(headers, RETRY_AFTER.as_str()).and_then(|value| value.trim().parse::<u64>().ok());
    window
        .or_else(retry_after)
        .map_or(limits::HUB_WAIT_DEFAULT, Duration::from_secs)
        .clamp(Duration::from_secs(1), limits::HUB_WAIT_MAX)
}

fn parameter(item: &str, wanted: &str) -> Option<u64> {
    item.split(';').find_map(|part| {
        let (name, value) = part.split_once('=')?;
        (name.trim() == wanted).then(|| value.trim().parse().ok())?
    })
}

/// A header's text, when it is there and is text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether what comes calls itself a web page.
pub(super) fn is_web_page(headers: &HeaderMap) -> bool {
    text(headers, CONTENT_TYPE.as_str()).is_some_and(|kind| {
        let kind = kind.trim().to_ascii_lowercase();
        kind.starts_with("text/html") || kind.starts_with("application/xhtml")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn read(status: u16, pairs: &[(&'static str, &'static str)], body: &str, sent: Grant) -> Miss {
        miss(StatusCode::from_u16(status).unwrap(), &headers(pairs), body.as_bytes(), sent)
    }

    #[test]
    fn the_hubs_codes_are_told_apart() {
        use Grant::{Anonymous, Token};
        for (status, code, sent, no) in [
            (404, "RepoNotFound", Anonymous, No::Repo),
            (401, "RepoNotFound", Anonymous, No::Private),
            (401, "RepoNotFound", Token, No::Repo),
            (404, "RevisionNotFound", Anonymous, No::Revision),
            (404, "EntryNotFound", Anonymous, No::File),
            (401, "GatedRepo", Anonymous, No::Gated),
            (403, "GatedRepo", Token, No::Gated),
        ] {
            assert_eq!(read(status, &[("x-error-code", code)], "", sent), Miss::No(no), "{status} {code} {sent:?}");
        }
        assert_eq!(read(401, &[], "", Anonymous), Miss::No(No::Private));
        let disabled = [("x-error-message", "Access to this resource is disabled.")];
        assert_eq!(read(403, &disabled, "", Anonymous), Miss::No(No::Disabled));
        let invalid = r#"{"error":"Invalid credentials in Authorization header"}"#;
        assert_eq!(read(401, &[], invalid, Token), Miss::No(No::Token));
        let spoken = read(403, &[], r#"{"error":"not\u001b you"}"#, Anonymous);
        assert_eq!(spoken, Miss::No(No::Denied("not\\u{1b} you".to_owned())), "foreign text is cleaned");
    }

    #[test]
    fn a_404_without_a_code_and_a_web_page_are_not_the_hubs_word() {
        assert_eq!(read(404, &[], "", Grant::Anonymous), Miss::NoSuchRoute);
        let page = [("content-type", "text/html; charset=utf-8")];
        for status in [400, 401, 403] {
            assert!(matches!(read(status, &page, "<html>", Grant::Token), Miss::Failed(Failure::Broken(_))));
        }
        assert!(matches!(read(502, &page, "", Grant::Anonymous), Miss::Passing(_)));
        assert!(matches!(read(407, &[], "", Grant::Anonymous), Miss::Failed(Failure::Broken(_))));
    }

    #[test]
    fn waiting_times_are_read_from_the_window_first_and_are_bounded() {
        let seconds = |pairs: &[(&'static str, &'static str)]| wait(&headers(pairs)).as_secs();
        assert_eq!(seconds(&[("ratelimit", "\"resolvers\";r=0;t=55"), ("retry-after", "7")]), 56);
        assert_eq!(seconds(&[("ratelimit", "\"api\";r=3;t=99, \"resolvers\";r=0;t=9")]), 10);
        assert_eq!(seconds(&[("ratelimit", "\"api\";r=3;t=99"), ("retry-after", "7")]), 7);
        assert_eq!(seconds(&[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")]), limits::HUB_WAIT_DEFAULT.as_secs());
        assert_eq!(seconds(&[("retry-after", "999999999999")]), limits::HUB_WAIT_MAX.as_secs());
        assert_eq!(seconds(&[("ratelimit", "x;r=0;t=18446744073709551615")]), limits::HUB_WAIT_MAX.as_secs());
        assert_eq!(seconds(&[("retry-after", "0")]), 1);
    }
}
