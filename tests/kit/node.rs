//! A machine of the lab: the real program with a work directory, a home and an environment of its own.
//!
//! Knows the command line (CLI.md) and the cache on disk, which it reads by itself rather than believing the program.
//! Does not know how machines are connected (`lab`).
//! Invariant: nothing of the tester's own environment or home reaches the program, and no daemon outlives its node.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::command::{self, Output, Running};
use super::hub::TestHub;
use super::{secs, until};

/// The program under test.
pub const HFFS: &str = env!("CARGO_BIN_EXE_hffs");

/// Longer than any command of these tests takes on a busy machine.
const PATIENCE: Duration = secs(120);

/// A machine with hffs.
pub struct Node {
    pub name: String,
    /// Where it answers peers.
    pub ip: IpAddr,
    namespace: Option<String>,
    dir: TempDir,
    home: PathBuf,
    env: BTreeMap<String, String>,
    user: Option<u32>,
}

impl Node {
    /// A machine that shares this one's network, on any free port.
    pub fn local(name: &str) -> Self {
        Self::new(name, Ipv4Addr::LOCALHOST.into(), None)
    }

    pub(super) fn new(name: &str, ip: IpAddr, namespace: Option<String>) -> Self {
        let dir = tempfile::Builder::new()
            .prefix(&format!("node-{name}-"))
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .expect("a directory for a node");
        let home = dir.path().join("work");
        fs::create_dir(&home).expect("a work directory");
        fs::create_dir(dir.path().join("user")).expect("a user's home");
        let path = std::env::var("PATH").unwrap_or_default();
        let env = [
            ("PATH", path),
            ("HOME", dir.path().join("user").display().to_string()),
            ("HFFS_HOME", home.display().to_string()),
            // Without a Hub of the test's own, none is asked: the tests have no internet.
            ("HF_HUB_OFFLINE", "1".to_owned()),
        ];
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { name: name.to_owned(), ip, namespace, dir, home, env, user: None }
    }

    // ---- what it is given ----------------------------------------------------------------------

    /// Asks this Hub.
    pub fn hub(self, hub: &TestHub) -> Self {
        self.without("HF_HUB_OFFLINE").env("HF_ENDPOINT", &hub.url())
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    /// Writes `config.toml`.
    pub fn config(self, text: &str) -> Self {
        fs::create_dir_all(self.home.join("hffs")).expect("a place for settings");
        fs::write(self.home.join("hffs/config.toml"), text).expect("settings");
        self
    }

    /// Asks this one after the Hub.
    pub fn mirror(self, mirror: &TestHub) -> Self {
        let text = format!("[[endpoints]]\nurl = \"{}\"\nrole = \"mirror\"\n", mirror.url());
        self.config(&text)
    }

    /// Another work directory, below this node's own folder or absolute.
    pub fn home_at(mut self, path: impl AsRef<Path>) -> Self {
        self.home = self.dir.path().join(path);
        fs::create_dir_all(&self.home).expect("a work directory");
        let text = self.home.display().to_string();
        self.env("HFFS_HOME", &text)
    }

    /// Runs the program as an ordinary user, who owns the node's folder.
    pub fn run_by(mut self, uid: u32) -> Self {
        command::tool(&format!("chown -R {uid} {}", self.dir.path().display()));
        self.user = Some(uid);
        self
    }

    // ---- what it runs --------------------------------------------------------------------------

    /// The program's command line in this machine's network, user and environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut words: Vec<String> = Vec::new();
        if let Some(namespace) = &self.namespace {
            words.extend(["ip", "netns", "exec", namespace].map(str::to_owned));
        }
        if let Some(uid) = self.user {
            words.extend(["setpriv".to_owned(), format!("--reuid={uid}"), "--clear-groups".to_owned()]);
        }
        words.push(HFFS.to_owned());
        words.extend(args.iter().map(|arg| (*arg).to_owned()));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().envs(&self.env).current_dir(self.dir.path());
        command
    }

    /// Runs a shell line in this machine's network.
    pub fn shell(&self, line: &str) -> Output {
        command::start(&mut self.shell_command(line)).wait(PATIENCE)
    }

    pub fn shell_command(&self, line: &str) -> Command {
        let mut words: Vec<&str> = Vec::new();
        if let Some(namespace) = &self.namespace {
            words.extend(["ip", "netns", "exec", namespace]);
        }
        words.extend(["bash", "-c", line]);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn cli(&self, args: &[&str]) -> Output {
        self.spawn(args).wait(PATIENCE)
    }

    /// Runs a command with more in its own environment.
    #[track_caller]
    pub fn cli_with(&self, env: &[(&str, &str)], args: &[&str]) -> Output {
        command::start(self.command(args).envs(env.iter().copied())).wait(PATIENCE)
    }

    pub fn spawn(&self, args: &[&str]) -> Running {
        command::start(&mut self.command(args))
    }

    /// Runs a command that must go well, and gives its document.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(args);
        self.cli(&all).ok().json()
    }

    /// Starts the daemon; on a shared network it takes any free port, so that nodes do not meet on the default one.
    #[track_caller]
    pub fn start(&self) -> &Self {
        match self.namespace {
            Some(_) => self.cli(&["daemon", "start"]).ok(),
            None => self.cli(&["daemon", "start", "--port", &free_port().to_string()]).ok(),
        };
        self
    }

    #[track_caller]
    pub fn stop(&self) -> Output {
        self.cli(&["daemon", "stop"]).ok()
    }

    /// Brings a repo, or files of it, here.
    #[track_caller]
    pub fn add(&self, args: &[&str]) -> Added {
        self.start_adding(args).done()
    }

    pub fn start_adding(&self, args: &[&str]) -> Adding {
        let mut all = vec!["--json", "model", "add"];
        all.extend(args);
        Adding(self.spawn(&all))
    }

    /// Adds `other` as a peer, in this direction only.
    #[track_caller]
    pub fn pair(&self, other: &Node) -> &Self {
        let port = other.port().to_string();
        self.cli(&["peer", "add", &other.ip.to_string(), "--port", &port]).ok();
        self
    }

    // ---- its daemon, seen from outside ---------------------------------------------------------

    /// The processes that run the program with this work directory, whoever started them.
    pub fn processes(&self) -> Vec<u32> {
        let mark = format!("HFFS_HOME={}\0", self.home.display());
        let ours = |pid: &u32| {
            let exe = fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == Path::new(HFFS));
            let env = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            exe && String::from_utf8_lossy(&env).contains(&mark)
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(ours).collect()
    }

    /// The daemon's process id, as it says itself.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.status()["pid"].as_u64().expect("a daemon's pid") as u32
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        self.json(&["daemon", "status"])
    }

    #[track_caller]
    pub fn peer_id(&self) -> String {
        self.status()["peer_id"].as_str().expect("a peer id").to_owned()
    }

    /// The port that its daemon listens on.
    #[track_caller]
    pub fn port(&self) -> u16 {
        let status = self.status();
        let first = status["listen"][0].as_str().expect("an address that it listens on");
        first.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// Ends every process of this node without warning, as the kernel or a power cut would.
    pub fn kill9(&self) {
        self.signal("KILL");
        until("the killed daemon is gone", secs(10), || self.processes().is_empty());
    }

    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn thaw(&self) {
        self.signal("CONT");
    }

    pub fn signal(&self, name: &str) {
        for pid in self.processes() {
            command::signal(pid, name);
        }
    }

    /// What `peer ls` says of another node: `None` when it is not listed.
    #[track_caller]
    pub fn peer(&self, other_id: &str) -> Option<Value> {
        let peers = self.json(&["peer", "ls"]);
        peers.as_array().expect("a list of peers").iter().find(|peer| peer["peer_id"] == other_id).cloned()
    }

    #[track_caller]
    pub fn sees_active(&self, other_id: &str) -> bool {
        self.peer(other_id).is_some_and(|peer| peer["active"] == true)
    }

    // ---- its disk ------------------------------------------------------------------------------

    /// The work directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The folder that holds the work directory, the user's home and whatever a test puts beside them.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A model's folder in the cache.
    pub fn repo(&self, repo_id: &str) -> PathBuf {
        self.home.join("hub").join(format!("models--{}", repo_id.replace('/', "--")))
    }

    /// Where a reader of the cache finds a file of `main`.
    pub fn path(&self, repo_id: &str, file: &str) -> PathBuf {
        let repo = self.repo(repo_id);
        let commit = fs::read_to_string(repo.join("refs/main")).unwrap_or_default();
        repo.join("snapshots").join(commit).join(file)
    }

    /// The file is where readers look, and is this to the byte.
    #[track_caller]
    pub fn holds(&self, repo_id: &str, file: &str, content: &[u8]) -> &Self {
        let path = self.path(repo_id, file);
        let found = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // The files are too large for the message that `assert_eq` would write.
        assert!(found == content, "{} differs from what the Hub has", path.display());
        self
    }

    pub fn lacks(&self, repo_id: &str, file: &str) -> bool {
        !self.path(repo_id, file).exists()
    }

    /// Changes one byte of a file behind the daemon's back, and leaves its size, its time and its inode as they were.
    pub fn rot(&self, repo_id: &str, file: &str, offset: u64) {
        let path = fs::canonicalize(self.path(repo_id, file)).expect("a file to spoil");
        let written = fs::metadata(&path).and_then(|about| about.modified()).expect("a time");
        let mut file = fs::File::options().read(true).write(true).open(&path).expect("a file to spoil");
        let mut byte = [0];
        file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut byte)).expect("a byte");
        byte[0] ^= 0x20;
        file.seek(SeekFrom::Start(offset)).and_then(|_| file.write_all(&byte)).expect("a spoilt byte");
        file.set_modified(written).expect("the old time");
    }

    /// Every file below the node's folder that has these bytes in it.
    pub fn files_with(&self, needle: &[u8]) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.dir.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let Ok(kind) = entry.file_type() else { continue };
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    let bytes = fs::read(entry.path()).unwrap_or_default();
                    if bytes.windows(needle.len()).any(|window| window == needle) {
                        found.push(entry.path());
                    }
                }
            }
        }
        found
    }

    /// What the daemon wrote to its log.
    pub fn log(&self) -> String {
        let entries = fs::read_dir(self.home.join("hffs")).into_iter().flatten().flatten();
        let logs = entries.map(|entry| entry.path()).filter(|path| path.display().to_string().contains("log"));
        logs.filter_map(|path| fs::read_to_string(path).ok()).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(60)..).unwrap_or_default();
            eprintln!("---- the log of `{}` ends so:\n{}", self.name, tail.join("\n"));
        }
        // A frozen process dies of this too.
        self.signal("KILL");
    }
}

/// A port that nobody listens on; the daemon takes it a moment later.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// A `model add` on its way.
pub struct Adding(Running);

impl Adding {
    #[track_caller]
    pub fn done(self) -> Added {
        Added(self.0.wait(PATIENCE).ok().json())
    }

    #[track_caller]
    pub fn ends(self) -> Output {
        self.0.wait(PATIENCE)
    }

    pub fn signal(&self, name: &str) {
        self.0.signal(name);
    }
}

/// The document of `model add`.
#[derive(Debug)]
pub struct Added(pub Value);

impl Added {
    fn files(&self) -> &[Value] {
        self.0["files"].as_array().map(Vec::as_slice).unwrap_or_default()
    }

    fn sum(&self, count: impl Fn(&Value) -> u64) -> u64 {
        self.files().iter().map(count).sum()
    }

    #[track_caller]
    pub fn file(&self, path: &str) -> &Value {
        let found = self.files().iter().find(|file| file["path"] == path);
        found.unwrap_or_else(|| panic!("`{path}` should be in {:#}", self.0))
    }

    pub fn paths(&self) -> Vec<&str> {
        self.files().iter().filter_map(|file| file["path"].as_str()).collect()
    }

    pub fn hub_bytes(&self) -> u64 {
        self.sum(|file| file["hub_bytes"].as_u64().unwrap_or_default())
    }

    pub fn peer_bytes(&self) -> u64 {
        self.sum(|file| {
            let peers = file["peer_bytes"].as_object();
            peers.into_iter().flat_map(|peers| peers.values()).filter_map(Value::as_u64).sum()
        })
    }

    pub fn peer_bytes_from(&self, peer_id: &str) -> u64 {
        self.sum(|file| file["peer_bytes"][peer_id].as_u64().unwrap_or_default())
    }

    pub fn resumed_bytes(&self) -> u64 {
        self.sum(|file| file["resumed_bytes"].as_u64().unwrap_or_default())
    }

    pub fn all_cached(&self) -> bool {
        self.files().iter().all(|file| file["cached"] == true)
    }
}

/// Files below `all` that are not below `home`, and not the user's own folder either.
pub fn outside_of(home: &Path, all: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(all).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| !home.starts_with(path) && path.file_name().is_none_or(|name| name != "user")).collect()
}

/// A disk in memory that is soon full. Needs root.
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// `size` in mount's words, say `24m`.
    pub fn new(size: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("disk-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a place");
        command::tool(&format!("mount -t tmpfs -o size={size} tmpfs {}", dir.path().display()));
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A daemon that still ends holds it for a moment.
        command::attempt(&format!("umount -l {}", self.0.path().display()));
    }
}
