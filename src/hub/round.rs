//! A round: one question put to one endpoint after the other, until somebody's answer counts.
//!
//! Knows whose word is final: the Hub's. Does not know what is asked.
//! Invariant: a mirror's no ends nothing while the user has a Hub, and an endpoint that failed lately
//! is not asked again before its time.

use std::slice;
use std::time::{Duration, Instant};

use reqwest::Client;

use super::answer::{Miss, No};
use super::health::{Purpose, Route};
use super::line::Line;
use super::{Attempt, Error, Failure, Grant, Shared, address};
use crate::config::{Access, Endpoint, Role};
use crate::names::{Repo, RepoPath};

/// What a question is about, for the sentence that says that it is not there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) repo: &'a Repo,
    pub(super) revision: &'a str,
    pub(super) path: Option<&'a RepoPath>,
}

impl Subject<'_> {
    /// An endpoint's no as an error.
    pub(super) fn error(&self, endpoint: String, no: No) -> Error {
        let repo = self.repo.clone();
        let revision = self.revision.to_owned();
        match (no, self.path) {
            (No::Repo, _) => Error::NoRepo { endpoint, repo },
            (No::File, Some(path)) => Error::NoFile { repo, revision, path: path.clone() },
            (No::Revision | No::File, _) => Error::NoRevision { repo, revision },
            (No::Gated, _) => Error::Gated { endpoint, repo },
            (No::Disabled, _) => Error::Disabled { repo },
            (No::Token, _) => Error::BadToken { endpoint },
            (No::Private, _) => Error::NeedsToken { endpoint, repo },
            (No::Denied(why), _) => Error::Denied { endpoint, repo, why },
        }
    }
}

/// One question on its way through the endpoints.
pub(super) struct Round<'a> {
    shared: &'a Shared,
    access: &'a Access,
    client: Client,
    subject: Subject<'a>,
    purpose: Purpose,
    grant: Grant,
    rest: slice::Iter<'a, Endpoint>,
    tried: Vec<Attempt>,
    /// The first mirror's no: final only when there is no Hub to ask.
    said: Option<Error>,
    busy: Option<(String, Duration)>,
}

impl<'a> Round<'a> {
    /// Begins with the first endpoint. What needs the token is asked of the Hub alone.
    pub(super) fn new(
        shared: &'a Shared,
        access: &'a Access,
        subject: Subject<'a>,
        purpose: Purpose,
        grant: Grant,
    ) -> Result<Self, Error> {
        if access.offline {
            return Err(Error::Offline);
        }
        let client = shared.transport.client(&access.proxies)?;
        let rest = access.endpoints.iter();
        Ok(Self { shared, access, client, subject, purpose, grant, rest, tried: Vec::new(), said: None, busy: None })
    }

    /// The next endpoint to ask.
    pub(super) fn next(&mut self, now: Instant) -> Option<Line<'a>> {
        loop {
            let endpoint = self.rest.next()?;
            if !may_be_asked(endpoint, self.grant) {
                continue;
            }
            let route = Route::new(endpoint, &self.access.proxies);
            match self.shared.health().failure(&route, self.purpose, now) {
                Some(why) => self.note(endpoint, why),
                None => return Some(Line::new(self.shared, self.client.clone(), self.access, endpoint)),
            }
        }
    }

    /// Takes note of an endpoint that gave no answer; an error when that ends the round.
    pub(super) fn missed(&mut self, line: &Line<'_>, miss: Miss, now: Instant) -> Option<Error> {
        let endpoint = line.endpoint();
        let why = match miss {
            Miss::No(no) => {
                let error = self.subject.error(address::shown(endpoint), no);
                if endpoint.role == Role::Hub {
                    return Some(error);
                }
                let why = Failure::Said(error.to_string());
                self.said.get_or_insert(error);
                why
            }
            Miss::NoSuchRoute => Failure::Broken("does not answer as the Hub does".to_owned()),
            Miss::Failed(why) | Miss::Passing(why) => why,
        };
        self.shared.health().failed(line.route(), self.purpose, &why, now);
        self.note(endpoint, why);
        None
    }

    /// What the round comes to when nobody's answer counted.
    pub(super) fn over(self) -> Error {
        if let Some((endpoint, wait)) = self.busy {
            return Error::Busy { endpoint, wait };
        }
        let has_hub = self.access.endpoints.iter().any(|endpoint| endpoint.role == Role::Hub);
        match self.said {
            Some(said) if !has_hub => said,
            _ => Error::Unreachable { tried: self.tried },
        }
    }

    fn note(&mut self, endpoint: &Endpoint, why: Failure) {
        let shown = address::shown(endpoint);
        if let Failure::Busy(wait) = why
            && self.busy.as_ref().is_none_or(|(_, least)| wait < *least)
        {
            self.busy = Some((shown.clone(), wait));
        }
        self.tried.push(Attempt { endpoint: shown, why });
    }
}

/// Whether an endpoint has any business with a repo that is read so.
pub(super) fn may_be_asked(endpoint: &Endpoint, grant: Grant) -> bool {
    match grant {
        Grant::Anonymous => true,
        // A mirror is told neither the token nor the names of what only the token opens.
        Grant::Token => endpoint.role == Role::Hub,
    }
}
