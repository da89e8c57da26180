//! A line: one endpoint, as the requests of one command reach it.
//!
//! Knows how to put a question and to read its answer whole. Does not know what the answer means.
//! Invariant: this is the only place that takes the token out of an `Access`, and it does so for the
//! Hub alone.

use std::time::Instant;

use reqwest::header::{CONTENT_LENGTH, HeaderMap};
use reqwest::{Client, Method, Response, Url};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

use super::answer::{self, Miss};
use super::health::Route;
use super::transport::{self, Abroad, End, Errand, Landed};
use super::ways::Address;
use super::{Failure, Grant, Shared, address};
use crate::config::{Access, Endpoint, Role, Token};
use crate::limits;

/// One endpoint, as the requests of one command reach it.
pub(super) struct Line<'a> {
    shared: &'a Shared,
    client: Client,
    access: &'a Access,
    endpoint: &'a Endpoint,
    route: Route,
}

/// An answer to a question, whole.
pub(super) struct Page {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Page {
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|_| Failure::Broken("answers with something that is no JSON".to_owned()))
    }
}

impl<'a> Line<'a> {
    pub(super) fn new(shared: &'a Shared, client: Client, access: &'a Access, endpoint: &'a Endpoint) -> Self {
        let route = Route::new(endpoint, &access.proxies);
        Self { shared, client, access, endpoint, route }
    }

    pub(super) fn endpoint(&self) -> &'a Endpoint {
        self.endpoint
    }

    pub(super) fn route(&self) -> &Route {
        &self.route
    }

    pub(super) fn shared(&self) -> &'a Shared {
        self.shared
    }

    /// The token, when the repo is read with it and this endpoint may have it.
    pub(super) fn token(&self, grant: Grant) -> Option<&'a Token> {
        match (grant, self.endpoint.role) {
            (Grant::Token, Role::Hub) => self.access.token.as_ref(),
            (Grant::Anonymous, _) | (_, Role::Mirror) => None,
        }
    }

    /// Whether this no, said to a question without the token, may be another answer with it.
    pub(super) fn token_may_change(&self, miss: &Miss) -> bool {
        matches!(miss, Miss::No(no) if no.may_yield_to_a_token()) && self.token(Grant::Token).is_some()
    }

    /// What kind of asker the endpoint sees.
    fn sent(&self, grant: Grant) -> Grant {
        if self.token(grant).is_some() { Grant::Token } else { Grant::Anonymous }
    }

    /// Puts a question and reads the answer. A connection that breaks, or a server that is just
    /// restarting, gets a second chance.
    pub(super) async fn ask(&self, url: &Url, grant: Grant) -> Result<Page, Miss> {
        match self.ask_once(url, grant).await {
            Err(Miss::Passing(_) | Miss::Failed(Failure::Lost(_))) => {
                sleep(limits::HUB_RETRY_PAUSE).await;
                self.ask_once(url, grant).await
            }
            answer => answer,
        }
    }

    async fn ask_once(&self, url: &Url, grant: Grant) -> Result<Page, Miss> {
        let _place = self.shared.transport.place_for_question(&self.route).await;
        let Landed { response, end, .. } = self.go(Method::GET, url, None, grant, Abroad::Follow).await?;
        if !response.status().is_success() {
            return Err(self.miss(response, &end, grant).await);
        }
        if answer::is_web_page(response.headers()) {
            return Err(Failure::Broken("answers with a web page".to_owned()).into());
        }
        let headers = response.headers().clone();
        let body = timeout(limits::HUB_PAGE, self.read(response, limits::HUB_PAGE_BYTES_MAX));
        let body = body.await.unwrap_or(Err(Failure::Silent))?;
        Ok(Page { headers, body })
    }

    /// Runs an errand at this endpoint, with the token if the grant says so, up to the answer's head.
    pub(super) async fn go(
        &self,
        method: Method,
        url: &Url,
        range: Option<String>,
        grant: Grant,
        abroad: Abroad,
    ) -> Result<Landed, Failure> {
        let errand = Errand { method, url: url.clone(), range, token: self.token(grant), abroad };
        self.shared.transport.run(&self.client, errand, self.shared.transport.patience().answer).await
    }

    /// Asks for bytes at an address that the endpoint gave out. A data host is no business of the token's.
    pub(super) async fn follow(&self, address: &Address, range: String, grant: Grant) -> Result<Response, Failure> {
        let token = match address {
            Address::Home(_) => self.token(grant),
            Address::Abroad(_) => None,
        };
        let url = address.url().clone();
        let errand = Errand { method: Method::GET, url, range: Some(range), token, abroad: Abroad::Follow };
        let landed = self.shared.transport.run(&self.client, errand, self.shared.transport.patience().stall).await?;
        Ok(landed.response)
    }

    /// What an answer that is no success means. A no from another host than the one that was asked
    /// speaks for nobody.
    pub(super) async fn miss(&self, response: Response, end: &End, grant: Grant) -> Miss {
        let status = response.status();
        let headers = response.headers().clone();
        let host = address::host(response.url());
        let text = timeout(limits::HUB_DRAIN, self.read(response, limits::HUB_ERROR_BYTES_MAX)).await;
        let text = text.ok().and_then(Result::ok).unwrap_or_default();
        match answer::miss(status, &headers, &text, self.sent(grant)) {
            Miss::No(_) if *end == End::Elsewhere => {
                Miss::Failed(Failure::Said(format!("ask `{host}`, which answers {}", status.as_u16())))
            }
            miss => miss,
        }
    }

    async fn read(&self, mut response: Response, max: usize) -> Result<Vec<u8>, Failure> {
        let too_long = || Failure::Broken("answers with more than any Hub would".to_owned());
        let announced = answer::text(response.headers(), CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
        if announced.is_some_and(|bytes: usize| bytes > max) {
            return Err(too_long());
        }
        let mut body = Vec::new();
        loop {
            match timeout(self.shared.transport.patience().answer, response.chunk()).await {
                Err(_) => return Err(Failure::Silent),
                Ok(Err(error)) => return Err(transport::failure(&error)),
                Ok(Ok(None)) => return Ok(body),
                Ok(Ok(Some(bytes))) if body.len() + bytes.len() > max => return Err(too_long()),
                Ok(Ok(Some(bytes))) => body.extend_from_slice(&bytes),
            }
        }
    }

    /// Takes note that the endpoint's bytes are not to be had, whether it or its data host is to blame.
    pub(super) fn bytes_failed(&self, why: &Failure) {
        self.shared.health().data_host_failed(&self.route, why, Instant::now());
    }
}
