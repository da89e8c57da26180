//! What can go wrong with the Hub, cut by what the caller will do about it.
//!
//! Knows the sentences and hints that a person reads. Does not know HTTP.
//! Invariant: foreign text was cleaned before it came here, and no text holds a query string or a token.

use std::time::Duration;

use crate::names::{Repo, RepoPath, RepoType};

/// Why a question to the Hub was not answered as hoped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody was asked, because the user said so.
    #[error("the Hub was not asked, because hffs is offline")]
    Offline,
    /// No endpoint could be used; peers and the cache are what is left.
    #[error("{}", list(.tried))]
    Unreachable { tried: Vec<Attempt> },
    /// The endpoint counts requests and wants this one later.
    #[error("`{endpoint}` asks to wait {} s", .wait.as_secs())]
    Busy { endpoint: String, wait: Duration },

    #[error("there is no {} `{}`", .repo.kind, .repo.id)]
    NoRepo { endpoint: String, repo: Repo },
    #[error("`{}` has no revision `{revision}`", .repo.id)]
    NoRevision { repo: Repo, revision: String },
    #[error("`{}` has no file `{path}` at `{revision}`", .repo.id)]
    NoFile { repo: Repo, revision: String, path: RepoPath },
    /// The licence has to be accepted by the account that the token belongs to.
    #[error("access to `{}` is gated", .repo.id)]
    Gated { endpoint: String, repo: Repo },
    #[error("the Hub has disabled `{}`", .repo.id)]
    Disabled { repo: Repo },
    /// The Hub does not know the token that the user has set.
    #[error("`{endpoint}` does not accept the token")]
    BadToken { endpoint: String },
    /// Asked without a token, the Hub does not tell a private repo from one that does not exist.
    #[error("there is no public {} `{}`", .repo.kind, .repo.id)]
    NeedsToken { endpoint: String, repo: Repo },
    /// The endpoint says no for a reason of its own.
    #[error("`{endpoint}` refuses `{}`: {why}", .repo.id)]
    Denied { endpoint: String, repo: Repo, why: String },

    /// A mirror lacks this file or may not hand it out. No fault: only this file is to be had elsewhere.
    #[error("`{endpoint}` {why}")]
    Lacks { endpoint: String, why: String },
    /// The endpoint sent the file from its start though another part was asked for.
    #[error("`{endpoint}` does not serve parts of files")]
    RangeIgnored { endpoint: String },
    /// The endpoint's file has another size than the one that was announced, in bytes.
    #[error("`{endpoint}` has a file of another size than {wanted} bytes")]
    SizeChanged { endpoint: String, wanted: u64, found: Option<u64> },
    /// What came is no answer to what was asked: a portal's page, foreign bytes, a broken protocol.
    #[error("`{endpoint}` {why}")]
    Broken { endpoint: String, why: String },
    /// The connection ended after `got` of `wanted` bytes. Those that came are good as far as anybody knows.
    #[error("`{endpoint}` ended the transfer after {got} of {wanted} bytes")]
    CutShort { endpoint: String, got: u64, wanted: u64 },
    /// No byte came for too long; `got` bytes came before.
    #[error("`{endpoint}` stopped sending after {got} of {wanted} bytes")]
    Stalled { endpoint: String, got: u64, wanted: u64 },

    /// A proxy variable holds something else than an address. The value may be secret and is not shown.
    #[error("the proxy in `{variable}` is not a usable address")]
    BadProxy { variable: &'static str },
    #[error("the HTTPS client cannot be set up: {why}")]
    Setup { why: String },
}

/// One endpoint that was asked, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{endpoint}` {why}")]
pub struct Attempt {
    pub endpoint: String,
    pub why: Failure,
}

impl Attempt {
    /// Whether the endpoint's certificate was not believed.
    fn lacks_trust(&self) -> bool {
        matches!(&self.why, Failure::Refused(why) if why.contains("certificate"))
    }
}

/// Why one endpoint could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is nobody there: no such host, no route, nobody listening.
    #[error("cannot be reached ({0})")]
    Refused(String),
    #[error("does not answer")]
    Silent,
    /// The connection ended before an answer.
    #[error("breaks the connection ({0})")]
    Lost(String),
    /// Somebody answers, but not as the Hub does.
    #[error("{0}")]
    Broken(String),
    /// It counts requests and is to be left alone for so long.
    #[error("asks to wait {} s", .0.as_secs())]
    Busy(Duration),
    /// It answered, and said no; only the Hub's own no is final.
    #[error("says: {0}")]
    Said(String),
}

impl Error {
    /// Whether asking any endpoint again is of no use until the user has changed something.
    pub fn is_final(&self) -> bool {
        match self {
            Error::Offline
            | Error::NoRepo { .. }
            | Error::NoRevision { .. }
            | Error::NoFile { .. }
            | Error::Gated { .. }
            | Error::Disabled { .. }
            | Error::BadToken { .. }
            | Error::NeedsToken { .. }
            | Error::Denied { .. }
            | Error::BadProxy { .. }
            | Error::Setup { .. } => true,
            Error::Unreachable { .. }
            | Error::Busy { .. }
            | Error::Lacks { .. }
            | Error::RangeIgnored { .. }
            | Error::SizeChanged { .. }
            | Error::Broken { .. }
            | Error::CutShort { .. }
            | Error::Stalled { .. } => false,
        }
    }

    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::Offline => "unset HF_HUB_OFFLINE to ask the Hub".to_owned(),
            Error::Unreachable { tried } if tried.iter().any(Attempt::lacks_trust) => {
                "install the system's CA certificates, or point SSL_CERT_FILE to those of the proxy in between"
                    .to_owned()
            }
            Error::Unreachable { .. } => {
                "check the network; set HF_ENDPOINT to a mirror that can be reached, or HTTPS_PROXY to a proxy"
                    .to_owned()
            }
            Error::Busy { .. } => {
                "the Hub limits requests per address; with HF_TOKEN set the limit is higher".to_owned()
            }
            Error::NoRepo { .. } => {
                "check the spelling; if the repo is private, the account of HF_TOKEN has to be a member".to_owned()
            }
            Error::NoRevision { .. } => "`--revision` takes a branch, a tag, `refs/pr/N` or a commit".to_owned(),
            Error::NoFile { .. } => "check the path as the Hub shows it; capitals matter".to_owned(),
            Error::Gated { endpoint, repo } => {
                format!("accept the licence at {} and set HF_TOKEN", page(endpoint, repo))
            }
            Error::BadToken { .. } => {
                "set HF_TOKEN to a valid token, or unset it; tokens are made at https://huggingface.co/settings/tokens"
                    .to_owned()
            }
            Error::NeedsToken { .. } => "check the spelling; if the repo is private, set HF_TOKEN".to_owned(),
            Error::BadProxy { variable } => format!("write {variable} like http://proxy.example:3128, or unset it"),
            Error::Setup { .. } => "install the system's CA certificates (package ca-certificates)".to_owned(),
            Error::Disabled { .. }
            | Error::Denied { .. }
            | Error::Lacks { .. }
            | Error::RangeIgnored { .. }
            | Error::SizeChanged { .. }
            | Error::Broken { .. }
            | Error::CutShort { .. }
            | Error::Stalled { .. } => return None,
        })
    }
}

/// The repo's page in a browser.
fn page(endpoint: &str, repo: &Repo) -> String {
    match repo.kind {
        RepoType::Model => format!("{endpoint}/{}", repo.id),
        kind => format!("{endpoint}/{}/{}", kind.plural(), repo.id),
    }
}

fn list(tried: &[Attempt]) -> String {
    if tried.is_empty() {
        return "no endpoint is configured".to_owned();
    }
    let attempts: Vec<String> = tried.iter().map(Attempt::to_string).collect();
    format!("no endpoint can be used: {}", attempts.join("; "))
}
