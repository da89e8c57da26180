//! A Hub for tests: the real one's routes, headers and redirects, and its bad days on demand.
//!
//! Knows what huggingface.co answers and how it breaks. Does not know hffs, and shares no code with it: its digests
//! are made here, so a mistake in ours cannot hide in both.
//! Invariant: metadata comes from one address and the bytes of large files from another, as with the real Hub, so a
//! client that takes the second for the first, or sends it the token, is found out.

mod answer;
mod body;
mod control;
mod fault;
mod ledger;
mod metadata;
mod repo;
mod route;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use tokio::runtime::Runtime;

pub use fault::{Fault, Rule};
pub use ledger::{Ledger, Seen};
pub use repo::{Kind, Repo, note, seeded, unique};

pub const MIB: usize = 1 << 20;

/// A token that opens everything, with a shape like a real one, so that a leak of it can be searched for.
pub const TOKEN: &str = "hf_canaryCanaryCanaryCanaryCanaryCanary";
/// A good token of a user who has not accepted any licence.
pub const TOKEN_WITHOUT_LICENCE: &str = "hf_strangerStrangerStrangerStranger";

/// Which of the Hub's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Host {
    /// Metadata and small files: what `HF_ENDPOINT` names.
    Api,
    /// Where signed redirects for large files lead.
    Data,
}

/// A running Hub. It ends when it is dropped.
pub struct TestHub {
    shared: Arc<Shared>,
    servers: BTreeMap<Host, Server>,
    control: Server,
}

/// What the Hub's servers share.
struct Shared {
    state: Mutex<State>,
    api: SocketAddr,
    data: SocketAddr,
    /// Addresses that the control path has asked to close or open again.
    switches: Mutex<Vec<(Host, bool)>>,
    /// When the slow line has sent what was handed to it.
    line_free: Mutex<Instant>,
}

struct State {
    repos: BTreeMap<(Kind, String), Repo>,
    renamed: BTreeMap<String, String>,
    tokens: BTreeSet<String>,
    unlicensed: BTreeSet<String>,
    rules: Vec<Rule>,
    page: usize,
    signed_for: Duration,
    /// Goes up when all signatures made so far end.
    epoch: u64,
    ledger: Ledger,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TestHub {
    /// Starts on loopback.
    pub fn local() -> Self {
        Self::start(Ipv4Addr::LOCALHOST.into())
    }

    /// Starts on `ip`, any free port; the data host gets the next higher address.
    pub fn start(ip: IpAddr) -> Self {
        let api = TcpListener::bind((ip, 0)).expect("bind the test hub");
        let data = TcpListener::bind((next(ip), 0)).expect("bind the test hub's data host");
        let control = TcpListener::bind((ip, 0)).expect("bind the test hub's control");
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                repos: BTreeMap::new(),
                renamed: BTreeMap::new(),
                tokens: [TOKEN.to_owned()].into(),
                unlicensed: [TOKEN_WITHOUT_LICENCE.to_owned()].into(),
                rules: Vec::new(),
                page: 1000,
                signed_for: Duration::from_secs(3600),
                epoch: 0,
                ledger: Ledger::default(),
            }),
            api: api.local_addr().expect("the hub's address"),
            data: data.local_addr().expect("the data host's address"),
            switches: Mutex::default(),
            line_free: Mutex::new(Instant::now()),
        });
        let servers = [(Host::Api, api), (Host::Data, data)]
            .map(|(host, listener)| (host, Server::open(listener, answer::router(shared.clone(), host))));
        let control = Server::open(control, control::router(shared.clone()));
        Self { shared, servers: servers.into(), control }
    }

    /// Adds a repo, or puts it in the place of one with its name.
    pub fn with(self, repo: Repo) -> Self {
        self.put(repo);
        self
    }

    pub fn put(&self, repo: Repo) {
        let repo = repo.finished();
        self.shared.lock().repos.insert((repo.kind, repo.id.clone()), repo);
    }

    /// Changes a repo; what the change adds becomes a new commit on `main`.
    pub fn push(&self, id: &str, change: impl FnOnce(Repo) -> Repo) {
        let mut state = self.shared.lock();
        let key = state.repos.keys().find(|(_, name)| name == id).expect("a repo of that name").clone();
        let repo = state.repos.remove(&key).expect("a repo of that name");
        state.repos.insert(key, change(repo).finished());
    }

    /// From now on, `old` answers with a redirect to `new`.
    pub fn rename(&self, old: &str, new: &str) {
        self.shared.lock().renamed.insert(old.to_owned(), new.to_owned());
    }

    /// The commit that a revision of a repo names.
    pub fn commit(&self, id: &str, revision: &str) -> String {
        let state = self.shared.lock();
        let repo = state.repos.values().find(|repo| repo.id == id).expect("a repo of that name");
        repo.resolve(revision).expect("a revision of that name").to_owned()
    }

    /// What names a file's blob in a cache.
    pub fn etag(&self, id: &str, path: &str) -> String {
        let state = self.shared.lock();
        let repo = state.repos.values().find(|repo| repo.id == id).expect("a repo of that name");
        let file = repo.files(repo.head()).and_then(|files| files.get(path));
        file.expect("a file of that name").etag().to_owned()
    }

    /// The base URL: what `HF_ENDPOINT` should be.
    pub fn url(&self) -> String {
        format!("http://{}", self.shared.api)
    }

    pub fn address(&self) -> SocketAddr {
        self.shared.api
    }

    pub fn data_address(&self) -> SocketAddr {
        self.shared.data
    }

    pub fn control_url(&self) -> String {
        format!("http://{}", self.control.addr)
    }

    // ---- bad days ------------------------------------------------------------------------------

    /// Breaks something until `heal`.
    pub fn fault(&self, rule: impl Into<Rule>) {
        self.shared.lock().rules.push(rule.into());
    }

    /// Ends every fault that `fault` began. Closed addresses stay closed.
    pub fn heal(&self) {
        self.shared.lock().rules.clear();
        *self.shared.line_free.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Closes an address: its connections break, and new ones are refused.
    pub fn refuse(&mut self, host: Host) {
        if let Some(server) = self.servers.get_mut(&host) {
            server.close();
        }
    }

    /// Opens a closed address again, on the port that it had.
    pub fn restore(&mut self, host: Host) {
        let router = answer::router(self.shared.clone(), host);
        if let Some(server) = self.servers.get_mut(&host) {
            server.reopen(router);
        }
    }

    /// Does what the control path has asked for since the last call; the standalone Hub calls it in a loop.
    pub fn obey(&mut self) {
        let asked = std::mem::take(&mut *self.shared.switches.lock().unwrap_or_else(PoisonError::into_inner));
        for (host, open) in asked {
            if open { self.restore(host) } else { self.refuse(host) }
        }
    }

    /// From now on, signed URLs live this long.
    pub fn sign_for(&self, lifetime: Duration) {
        self.shared.lock().signed_for = lifetime;
    }

    /// Ends the life of every URL signed so far.
    pub fn expire_signatures(&self) {
        self.shared.lock().epoch += 1;
    }

    /// How many entries one page of a tree has.
    pub fn page(&self, entries: usize) {
        self.shared.lock().page = entries;
    }

    // ---- what it saw ---------------------------------------------------------------------------

    /// Payload bytes handed to the network for every file of this path, in any repo.
    pub fn sent(&self, path: &str) -> u64 {
        self.shared.lock().ledger.sent(path)
    }

    pub fn sent_in_all(&self) -> u64 {
        self.shared.lock().ledger.sent_in_all()
    }

    /// How many requests of a kind came, say `GET resolve` or `tree`.
    pub fn requests(&self, label: &str) -> usize {
        self.shared.lock().ledger.requests(label)
    }

    /// Every request so far, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().ledger.seen.clone()
    }

    /// Every `Authorization` that came to an address.
    pub fn tokens_seen(&self, host: Host) -> BTreeSet<String> {
        self.shared.lock().ledger.tokens(host)
    }

    /// Forgets what it has seen and sent.
    pub fn forget(&self) {
        self.shared.lock().ledger = Ledger::default();
    }
}

/// The address after this one.
fn next(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip) + 1).into(),
        // Loopback has one IPv6 address only; the port tells the hosts apart.
        IpAddr::V6(ip) => ip.into(),
    }
}

/// One address, served by threads of its own, so that closing it breaks its connections at once.
struct Server {
    addr: SocketAddr,
    runtime: Option<Runtime>,
}

impl Server {
    fn open(listener: TcpListener, router: Router) -> Self {
        let addr = listener.local_addr().expect("a listener's address");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("test-hub")
            .enable_all()
            .build()
            .expect("a runtime for the test hub");
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener).expect("a listener for the runtime")
        };
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { addr, runtime: Some(runtime) }
    }

    fn close(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    fn reopen(&mut self, router: Router) {
        if self.runtime.is_some() {
            return;
        }
        // The port was free a moment ago; only a passing outgoing connection can hold it.
        let deadline = Instant::now() + Duration::from_secs(20);
        let listener = loop {
            match TcpListener::bind(self.addr) {
                Ok(listener) => break listener,
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
                Err(error) => panic!("the test hub's port {} is lost: {error}", self.addr),
            }
        };
        *self = Self::open(listener, router);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
    }
}
