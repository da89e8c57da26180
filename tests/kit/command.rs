//! Running a program to its end, or to its deadline.
//!
//! Knows processes. Does not know hffs.
//! Invariant: no program that was started here outlives its deadline, so a hang is a failure with words.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// What a program left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// The line that was run, for messages.
    pub line: String,
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Output {
    /// It did what it should.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "should have gone well: {self:#?}");
        self
    }

    /// It ended with this code, and says why on stderr.
    #[track_caller]
    pub fn fails(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "should have ended with {code}: {self:#?}");
        assert!(!self.stderr.trim().is_empty(), "should have said why: {self:#?}");
        self
    }

    /// Its talk on stderr has this text, in any case of letters.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.to_lowercase().contains(&text.to_lowercase()), "should say `{text}`: {self:#?}");
        self
    }

    /// Its talk has a `hint:` line.
    #[track_caller]
    pub fn hints(self) -> Self {
        let hinted = self.stderr.lines().any(|line| line.trim_start().starts_with("hint:"));
        assert!(hinted, "should give a hint: {self:#?}");
        self
    }

    /// The one document on stdout.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in the JSON of {self:#?}"))
    }

    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }
}

/// A running program whose output is gathered as it comes.
pub struct Running {
    line: String,
    child: Child,
    stdout: JoinHandle<String>,
    stderr: JoinHandle<String>,
    started: Instant,
}

/// Starts a program with nothing on its standard input.
pub fn start(command: &mut Command) -> Running {
    let line = format!("{command:?}");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("could not start {line}: {error}"));
    let stdout = gather(child.stdout.take().unwrap());
    let stderr = gather(child.stderr.take().unwrap());
    Running { line, child, stdout, stderr, started: Instant::now() }
}

fn gather(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// Waits for its end; past the deadline it is killed and the test fails.
    #[track_caller]
    pub fn wait(mut self, deadline: Duration) -> Output {
        let ended = loop {
            if let Some(status) = self.child.try_wait().expect("wait for a child") {
                break Some(status);
            }
            if self.started.elapsed() > deadline {
                let _ = self.child.kill();
                break None;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let took = self.started.elapsed();
        let output = Output {
            line: self.line,
            code: ended.and_then(|status| status.code()),
            stdout: self.stdout.join().unwrap_or_default(),
            stderr: self.stderr.join().unwrap_or_default(),
            took,
        };
        assert!(ended.is_some(), "still running after {deadline:?}: {output:#?}");
        output
    }

    pub fn kill(mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }

    /// Sends it a signal by name, say `INT`.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }
}

/// Sends a signal to one process.
pub fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
}

/// Runs a tool that must not fail, and gives what it printed.
#[track_caller]
pub fn tool(line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    start(command.args(words)).wait(Duration::from_secs(60)).ok().stdout
}

/// Runs a tool that may fail, and says whether it went well.
pub fn attempt(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    start(command.args(words)).wait(Duration::from_secs(60)).code == Some(0)
}
