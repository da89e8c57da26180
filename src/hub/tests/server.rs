//! A server that says exactly what a test wants said, down to where a body breaks off.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::config::{Endpoint, Role};

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: HashMap<String, String>,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(super) fn has_token(&self) -> bool {
        self.headers.contains_key("authorization")
    }

    pub(super) fn asks(&self, part: &str) -> bool {
        self.target.contains(part)
    }

    /// The asked range, as the numbers of its first byte and of the byte behind its last.
    pub(super) fn range(&self) -> Option<std::ops::Range<usize>> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some(first.parse().ok()?..last.parse::<usize>().ok()? + 1)
    }
}

/// What is sent back.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    ending: Ending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The length is announced, and kept.
    Whole,
    Chunked,
    /// More is announced than comes; then the connection ends.
    CutShort,
    /// More is announced than comes; then nothing happens any more.
    Stall,
    /// Not even a head comes.
    Silence,
    /// The connection ends before the head.
    HangUp,
}

impl Reply {
    pub(super) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), ending: Ending::Whole }
    }

    pub(super) fn silence() -> Self {
        Self::new(200).ending(Ending::Silence)
    }

    pub(super) fn hang_up() -> Self {
        Self::new(200).ending(Ending::HangUp)
    }

    pub(super) fn redirect(status: u16, location: impl Into<String>) -> Self {
        Self::new(status).header("location", location)
    }

    pub(super) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn json(self, text: impl Into<String>) -> Self {
        self.header("content-type", "application/json").body(text.into())
    }

    pub(super) fn page() -> Self {
        Self::new(200).header("content-type", "text/html; charset=utf-8").body("<html>please log in</html>")
    }

    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(super) fn chunked(self) -> Self {
        self.ending(Ending::Chunked)
    }

    /// Sends only the first bytes and ends the connection.
    pub(super) fn cut_short(mut self, bytes: usize) -> Self {
        let announced = self.body.len().to_string();
        self = self.header("content-length", announced).ending(Ending::CutShort);
        self.body.truncate(bytes);
        self
    }

    /// Sends only the first bytes and falls silent.
    pub(super) fn stall(self, bytes: usize) -> Self {
        self.cut_short(bytes).ending(Ending::Stall)
    }

    fn ending(mut self, ending: Ending) -> Self {
        self.ending = ending;
        self
    }

    /// A good answer to a request for `file`, or for a part of it.
    pub(super) fn file(file: &[u8], seen: &Seen) -> Self {
        match seen.range() {
            Some(range) => Self::new(206)
                .header("content-range", format!("bytes {}-{}/{}", range.start, range.end - 1, file.len()))
                .body(&file[range]),
            None => Self::new(200).body(file),
        }
    }
}

type Script = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// A server on a free port of this machine, until it is dropped.
pub(super) struct Server {
    pub(super) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(super) async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (script, log): (Script, _) = (Arc::new(script), seen.clone());
        let connections = Arc::<AtomicUsize>::default();
        let count = connections.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                served.spawn(serve(stream, script.clone(), log.clone()));
            }
        });
        Self { url, seen, connections, _tasks: tasks }
    }

    pub(super) fn as_hub(&self) -> Endpoint {
        Endpoint { url: self.url.clone(), role: Role::Hub }
    }

    pub(super) fn as_mirror(&self) -> Endpoint {
        Endpoint { url: self.url.clone(), role: Role::Mirror }
    }

    /// The requests that came, first one first.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many requests came whose path or query holds `part`.
    pub(super) fn count(&self, part: &str) -> usize {
        self.seen().iter().filter(|seen| seen.asks(part)).count()
    }
}

async fn serve(stream: TcpStream, script: Script, log: Arc<Mutex<Vec<Seen>>>) {
    let mut stream = BufReader::new(stream);
    while let Some(seen) = read_head(&mut stream).await {
        log.lock().unwrap().push(seen.clone());
        let reply = script(&seen);
        match reply.ending {
            Ending::HangUp => return,
            Ending::Silence => return wait_for_the_other_side(&mut stream).await,
            _ => {}
        }
        if write(&mut stream, &seen, &reply).await.is_err() {
            return;
        }
        match reply.ending {
            Ending::CutShort => return,
            Ending::Stall => return wait_for_the_other_side(&mut stream).await,
            _ => {}
        }
    }
}

async fn wait_for_the_other_side(stream: &mut BufReader<TcpStream>) {
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

async fn read_head(stream: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut first = lines.first()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers = lines
        .iter()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Some(Seen { method, target, headers })
}

async fn write(stream: &mut BufReader<TcpStream>, seen: &Seen, reply: &Reply) -> std::io::Result<()> {
    let mut bytes = format!("HTTP/1.1 {} X\r\n", reply.status).into_bytes();
    for (name, value) in &reply.headers {
        bytes.extend(format!("{name}: {value}\r\n").bytes());
    }
    let announced = reply.headers.iter().any(|(name, _)| name == "content-length");
    match reply.ending {
        Ending::Chunked => bytes.extend(b"transfer-encoding: chunked\r\n"),
        _ if !announced => bytes.extend(format!("content-length: {}\r\n", reply.body.len()).bytes()),
        _ => {}
    }
    bytes.extend(b"\r\n");
    if seen.method != "HEAD" {
        match reply.ending {
            Ending::Chunked => {
                for chunk in reply.body.chunks(1000) {
                    bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                    bytes.extend(chunk);
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"0\r\n\r\n");
            }
            _ => bytes.extend(&reply.body),
        }
    }
    stream.get_mut().write_all(&bytes).await?;
    stream.get_mut().flush().await
}
