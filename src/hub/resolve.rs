//! Resolving: what a revision means, and who may see it.
//!
//! Knows the order of asking: first without the token, then with it. Does not know files.
//! Invariant: `Public` is said only of a repo that was shown to somebody without a token as neither
//! private nor gated; a field that is missing proves nothing.

use std::time::Instant;

use serde::Deserialize;
use serde_json::Value;

use super::answer::Miss;
use super::health::Purpose;
use super::line::Line;
use super::round::{Round, Subject};
use super::{Error, Failure, Grant, Resolved, Shared, Visibility, address};
use crate::config::{Access, Role};
use crate::names::{Commit, Repo, Revision};

/// The parts of a repo's page that matter here.
#[derive(Deserialize)]
struct RepoPage {
    sha: String,
    private: Option<bool>,
    /// `false`, `"auto"` or `"manual"`.
    gated: Option<Value>,
}

impl RepoPage {
    fn is_open(&self) -> bool {
        self.private == Some(false) && self.gated == Some(Value::Bool(false))
    }

    /// Whether the page itself says that some may not read the files.
    fn is_closed(&self) -> bool {
        self.private == Some(true) || !matches!(self.gated, None | Some(Value::Null | Value::Bool(false)))
    }
}

pub(super) async fn resolve(
    shared: &Shared,
    access: &Access,
    repo: &Repo,
    revision: &Revision,
) -> Result<Resolved, Error> {
    let subject = Subject { repo, revision: revision.as_str(), path: None };
    let mut round = Round::new(shared, access, subject, Purpose::Questions, Grant::Anonymous)?;
    while let Some(line) = round.next(Instant::now()) {
        match at(&line, access, repo, revision).await {
            Ok(resolved) => {
                shared.health().well(line.route(), Purpose::Questions);
                return Ok(resolved);
            }
            Err(miss) => {
                if let Some(error) = round.missed(&line, miss, Instant::now()) {
                    return Err(error);
                }
            }
        }
    }
    Err(round.over())
}

async fn at(line: &Line<'_>, access: &Access, repo: &Repo, revision: &Revision) -> Result<Resolved, Miss> {
    let url = address::revision(line.endpoint(), repo, revision.as_str())?;
    let resolved = |page: &RepoPage, visibility, grant| {
        let commit = commit(page, revision)?;
        Ok(Resolved { commit, visibility, grant, endpoint: line.endpoint().clone() })
    };
    let answer = match line.ask(&url, Grant::Anonymous).await {
        Err(miss) if line.token_may_change(&miss) => (line.ask(&url, Grant::Token).await?, Grant::Token),
        answer => (answer?, Grant::Anonymous),
    };
    match answer {
        (page, Grant::Token) => resolved(&page.json()?, Visibility::Restricted, Grant::Token),
        (page, Grant::Anonymous) => {
            let page: RepoPage = page.json()?;
            if page.is_open() {
                return resolved(&page, Visibility::Public, Grant::Anonymous);
            }
            let hub_takes_token =
                access.token.is_some() && access.endpoints.iter().any(|endpoint| endpoint.role == Role::Hub);
            // A gated repo shows its page and its listing to anybody, but its files only to a token.
            let grant = if page.is_closed() && hub_takes_token { Grant::Token } else { Grant::Anonymous };
            resolved(&page, Visibility::Restricted, grant)
        }
    }
}

fn commit(page: &RepoPage, revision: &Revision) -> Result<Commit, Miss> {
    let commit: Commit = page.sha.parse().map_err(|_| Failure::Broken("answers without a commit".to_owned()))?;
    match revision.as_commit() {
        Some(asked) if asked != commit => Err(Failure::Broken("answers with another commit".to_owned()).into()),
        _ => Ok(commit),
    }
}
