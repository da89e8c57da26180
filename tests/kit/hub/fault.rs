//! What can be made to go wrong, where, and how often.
//!
//! Knows the Hub's and its mirrors' bad days. Does not know how an answer is built.

use axum::http::Method;

use super::Host;

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// All file bytes together leave at no more than this rate, as over one slow line.
    Rate { bytes_per_sec: u64 },
    /// The connection is taken, the request is read, and nothing is ever answered.
    Silent,
    /// Every answer comes late.
    Late { millis: u64 },
    /// 429; the wait stands in `RateLimit` when `modern`, else in `Retry-After`.
    Busy { wait_secs: u64, modern: bool },
    /// A bare status without the Hub's headers, say 503.
    Status { status: u16 },
    /// 200 with somebody's log-in page.
    CaptivePage,
    /// 200 and the whole file, whatever range was asked for.
    IgnoreRange,
    /// The connection breaks after this many bytes of a body.
    CutAfter { bytes: u64 },
    /// The body ends after this many bytes, and its headers say that this is right.
    ShortBody { bytes: u64 },
    /// The body stops after this many bytes and the connection stays open.
    StallAfter { bytes: u64 },
    /// The byte at this place of the file is sent as another.
    Flip { offset: u64 },
    /// Bodies come without their length.
    NoLength,
    /// Signed URLs answer 403.
    Expired,
    /// Metadata tells another size than the file has.
    WrongSize { by: i64 },
    /// Metadata tells another etag than the file has.
    WrongEtag { etag: String },
    /// `X-Repo-Commit` is missing.
    NoCommit,
    /// The next page's URL names a host that is not there, as a careless mirror's does.
    ForeignNextPage,
}

/// A fault, where it strikes and how often.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Rule {
    #[serde(flatten)]
    pub fault: Fault,
    /// Only at this address.
    #[serde(default)]
    pub host: Option<Host>,
    /// Only for this file.
    #[serde(default)]
    pub file: Option<String>,
    /// Only for this kind of request, say `tree`.
    #[serde(default)]
    pub route: Option<String>,
    /// Only so many times more.
    #[serde(default)]
    pub times: Option<u32>,
}

impl From<Fault> for Rule {
    fn from(fault: Fault) -> Self {
        Self { fault, host: None, file: None, route: None, times: None }
    }
}

impl Fault {
    /// Whether it can only befall an answer with a file's bytes; elsewhere it would be used up in vain.
    fn is_of_bodies(&self) -> bool {
        matches!(
            self,
            Fault::Rate { .. }
                | Fault::IgnoreRange
                | Fault::CutAfter { .. }
                | Fault::ShortBody { .. }
                | Fault::StallAfter { .. }
                | Fault::Flip { .. }
                | Fault::NoLength
        )
    }

    pub fn at(self, host: Host) -> Rule {
        Rule::from(self).at(host)
    }

    pub fn file(self, path: &str) -> Rule {
        Rule::from(self).file(path)
    }

    pub fn route(self, label: &str) -> Rule {
        Rule::from(self).route(label)
    }

    pub fn times(self, times: u32) -> Rule {
        Rule::from(self).times(times)
    }
}

impl Rule {
    pub fn at(self, host: Host) -> Self {
        Self { host: Some(host), ..self }
    }

    pub fn file(self, path: &str) -> Self {
        Self { file: Some(path.to_owned()), ..self }
    }

    pub fn route(self, label: &str) -> Self {
        Self { route: Some(label.to_owned()), ..self }
    }

    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    fn strikes(&self, host: Host, method: &Method, route: &str, file: Option<&str>) -> bool {
        let has_body = method == Method::GET && matches!(route, "data" | "resolve-cache");
        self.times != Some(0)
            && (has_body || !self.fault.is_of_bodies())
            && self.host.is_none_or(|only| only == host)
            && self.route.as_deref().is_none_or(|only| only == route)
            && self.file.as_deref().is_none_or(|only| Some(only) == file)
    }
}

/// The faults that strike this request; those that are counted have struck once more.
pub(super) fn strike(
    rules: &mut [Rule],
    host: Host,
    (method, route): (&Method, &str),
    file: Option<&str>,
) -> Vec<Fault> {
    rules
        .iter_mut()
        .filter(|rule| rule.strikes(host, method, route, file))
        .map(|rule| {
            rule.times = rule.times.map(|left| left - 1);
            rule.fault.clone()
        })
        .collect()
}
