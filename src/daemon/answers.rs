//! Answers: what each command gets.
//!
//! Knows requests and documents, and whom to ask for what. Does not know sockets.
//! Invariant: every request is answered once, and every failure says what the user can do, where
//! there is something.

use tracing::info;

use super::{Rooms, pairing_document};
use crate::config::{self, Access, Settings};
use crate::control::{AddRequest, Call, Replies, Request, SearchRequest, docs};
use crate::fetch::Order;
use crate::swarm::{PeerView, Via};
use crate::tree::Content;

impl Rooms {
    pub(super) async fn answer(&self, call: Call) {
        let Call { request, replies, gone } = call;
        match request {
            Request::Status => replies.done(&self.status()).await,
            // Taken by whoever ends the daemon.
            Request::Stop => {}
            Request::PeerAdd { host, port } => match self.swarm.pair(host.clone(), port).await {
                Ok(peer_id) => {
                    replies.done(&docs::Pairing { host: host.to_string(), port, peer_id, daemon: true }).await;
                }
                Err(error) => replies.failed(error.to_string(), error.hint()).await,
            },
            Request::PeerRm { host, port } => match self.swarm.unpair(host, port).await {
                Ok(gone) => replies.done(&gone.into_iter().map(pairing_document).collect::<Vec<_>>()).await,
                Err(error) => replies.failed(error.to_string(), error.hint()).await,
            },
            Request::PeerLs => {
                let peers: Vec<docs::Peer> = self.swarm.peers().into_iter().map(peer_document).collect();
                replies.done(&peers).await;
            }
            Request::Limit => match self.read_limits() {
                Ok(limits) => replies.done(&limits).await,
                Err(error) => replies.failed(error.to_string(), error.hint()).await,
            },
            Request::Search(request) => self.search(request, replies).await,
            Request::Add(request) => {
                let telling = replies.clone();
                let tell = move |event| telling.event(event);
                let access = self.access(&request);
                match self.adds.add(&request, access, &tell, &gone, &self.stopping).await {
                    Ok(added) => replies.done(&added).await,
                    Err(failed) => replies.failed(failed.message(), failed.hint()).await,
                }
            }
        }
    }

    pub(super) fn status(&self) -> docs::Status {
        let access = Access::from_wishes(self.wishes.clone(), &self.settings);
        docs::Status {
            running: true,
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            peer_id: self.swarm.peer_id().clone(),
            listen: self.swarm.listening().iter().map(ToString::to_string).collect(),
            // The local endpoint, which this version does not have.
            endpoint: None,
            home: self.home.root().to_owned(),
            hub_cache: self.home.hub_cache().to_owned(),
            asks: access.endpoints.into_iter().filter(|_| !access.offline).map(|endpoint| endpoint.url).collect(),
        }
    }

    /// Puts in force what `config.toml` says of limits by now.
    fn read_limits(&self) -> Result<docs::Limits, config::Error> {
        let limits = tokio::task::block_in_place(|| Settings::read(&self.home.config_toml()))?.limit;
        self.lines.set(&limits);
        info!(?limits, "these limits are in force");
        Ok(limits)
    }

    fn access(&self, request: &AddRequest) -> Access {
        Access::from_wishes(request.wishes.clone().or(&self.wishes, &self.settings), &self.settings)
    }

    async fn search(&self, request: SearchRequest, replies: Replies) {
        let SearchRequest { repo, revision, file, wishes } = request;
        let access = Access::from_wishes(wishes.or(&self.wishes, &self.settings), &self.settings);
        let order = Order {
            repo,
            revision,
            files: file.into_iter().collect(),
            include: Vec::new(),
            exclude: Vec::new(),
            access,
            limit: None,
        };
        let (commit, files) = match self.fetcher.look_up(&order).await {
            Ok(found) => found,
            Err(error) => return replies.failed(error.to_string(), error.hint()).await,
        };
        let mut contents: Vec<Content> = files.iter().map(|(_, content)| *content).collect();
        contents.sort_unstable_by_key(|content| content.digest);
        contents.dedup();
        let views = self.swarm.peers();
        let holders = self.fetcher.holders(&contents).await.into_iter().map(|(peer_id, held)| {
            // Several paths may have one content, and a person counts paths.
            let of = |content: &Content| held.iter().find(|(other, _)| other == content).map_or(0, |(_, bytes)| *bytes);
            let whole = files.iter().filter(|(_, content)| of(content) == content.size).count();
            docs::Holder {
                address: views
                    .iter()
                    .find(|view| view.peer_id.as_ref() == Some(&peer_id))
                    .and_then(|v| v.address.clone()),
                peer_id,
                commit: commit.clone(),
                files: whole,
                size: files.iter().map(|(_, content)| of(content)).sum(),
                complete: whole == files.len(),
            }
        });
        let mut holders: Vec<docs::Holder> = holders.collect();
        holders.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.peer_id.cmp(&b.peer_id)));
        replies.done(&holders).await;
    }
}

fn peer_document(view: PeerView) -> docs::Peer {
    docs::Peer {
        peer_id: view.peer_id,
        address: view.address,
        via: view.via.into_iter().map(via_document).collect(),
        active: view.active,
        rtt: view.rtt.map(|rtt| rtt.as_secs_f64()),
        agent: view.agent,
        trouble: view.trouble,
    }
}

fn via_document(via: Via) -> docs::Via {
    match via {
        Via::Manual => docs::Via::Manual,
        Via::Mdns => docs::Via::Mdns,
        Via::Inbound => docs::Via::Inbound,
    }
}
