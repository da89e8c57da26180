//! What `model add` shows while it runs: bars on a terminal, else a line for each finished file.
//!
//! Knows events and how to draw them. Does not know how files come.
//! Invariant: everything goes to stderr, and nothing drawn here outlives the add.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::printer::{Printer, Watching, tell};
use super::text;
use crate::control::{AddEvent, Progress, Running, docs};
use crate::limits;
use crate::names::{RepoPath, clean};

/// Shows one add.
pub(super) enum View {
    Bars(Box<Bars>),
    Lines(Printer),
}

impl View {
    pub(super) fn new(printer: Printer) -> Self {
        match printer.watching() {
            Watching::Bars => Self::Bars(Box::new(Bars::new())),
            Watching::Lines | Watching::Nothing => Self::Lines(printer),
        }
    }

    /// Shows what the daemon tells.
    pub(super) fn show(&mut self, event: AddEvent) {
        match event {
            AddEvent::Resolved { commit, from, files, bytes, also_running } => {
                let short = commit.as_str().get(..12).unwrap_or_default();
                let files = text::count(files, "file", "files");
                self.say(&format!("commit {short}, by {}: {files}, {}", clean(&from, 200), text::size(bytes)));
                for other in also_running {
                    self.say(&format!("also running: {}", clean(&other, 200)));
                }
                if let Self::Bars(bars) = self {
                    bars.total.set_length(bytes);
                }
            }
            AddEvent::Warning { text } => self.say(&format!("warning: {}", clean(&text, 500))),
            AddEvent::Note { text } => self.say(&clean(&text, 500)),
            AddEvent::FileStarted { path, size, resumed } if resumed > 0 => {
                self.say(&format!("{path}: {} of {} were here, going on", text::size(resumed), text::size(size)));
            }
            AddEvent::FileStarted { .. } => {}
            AddEvent::Progress(progress) => {
                if let Self::Bars(bars) = self {
                    bars.update(&progress);
                }
            }
            AddEvent::FileDone(file) => match self {
                Self::Bars(bars) => bars.finish(&file.path),
                Self::Lines(printer) => printer.say(&done(&file)),
            },
        }
    }

    /// Says something without tearing the bars.
    pub(super) fn say(&self, text: &str) {
        match self {
            Self::Bars(bars) => bars.all.suspend(|| tell(text)),
            Self::Lines(printer) => printer.say(text),
        }
    }

    /// Takes everything drawn away.
    pub(super) fn close(&mut self) {
        if let Self::Bars(bars) = self {
            // A bar that is still open would draw itself once more when it is dropped.
            for (_, bar) in bars.files.drain() {
                bar.finish_and_clear();
            }
            bars.total.finish_and_clear();
            // A terminal that is gone needs no cleaning.
            let _ = bars.all.clear();
        }
    }
}

/// Name, bar, bytes, speed, time left, and who sends.
const BAR: &str = "{prefix:30!} {bar:20} {decimal_bytes:>9}/{decimal_total_bytes:<9} \
                   {decimal_bytes_per_sec:>11} {eta:>5} {wide_msg}";

/// A bar for each file that runs, and one below them for the whole.
pub(super) struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    files: HashMap<RepoPath, ProgressBar>,
    style: ProgressStyle,
    /// Whether the position of the whole has been set once: what was here already is no speed.
    begun: bool,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
        let style = style.progress_chars("━━─");
        let total = all.add(ProgressBar::new(0).with_style(style.clone()).with_prefix("all"));
        Self { all, total, files: HashMap::new(), style, begun: false }
    }

    fn update(&mut self, progress: &Progress) {
        let running: Vec<&Running> = progress.running.iter().take(limits::BARS_MAX).collect();
        let gone: Vec<RepoPath> =
            self.files.keys().filter(|path| !running.iter().any(|file| file.path == **path)).cloned().collect();
        for path in gone {
            self.finish(&path);
        }
        for file in running {
            let bar = self.files.entry(file.path.clone()).or_insert_with(|| {
                let bar = ProgressBar::new(file.size).with_style(self.style.clone()).with_position(file.done_bytes);
                let bar = self.all.insert_before(&self.total, bar);
                bar.set_prefix(tail(file.path.as_str(), 30));
                bar.reset_eta();
                bar
            });
            bar.set_position(file.done_bytes);
            bar.set_message(sources(file));
        }
        self.total.set_length(progress.total_bytes);
        self.total.set_position(progress.done_bytes);
        if !std::mem::replace(&mut self.begun, true) {
            self.total.reset_eta();
        }
        let (hub, peers) = (text::size(progress.hub_bytes), text::size(progress.peer_bytes));
        self.total.set_message(format!("Hub {hub}, peers {peers}"));
    }

    fn finish(&mut self, path: &RepoPath) {
        if let Some(bar) = self.files.remove(path) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }
}

/// Who sends a file right now.
fn sources(file: &Running) -> String {
    let hub = match file.endpoints {
        0 => None,
        1 => Some("Hub".to_owned()),
        endpoints => Some(format!("{endpoints} endpoints")),
    };
    let peers = (file.peers > 0).then(|| text::count(file.peers, "peer", "peers"));
    match (hub, peers) {
        (Some(hub), Some(peers)) => format!("{hub} + {peers}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) if file.done_bytes == file.size => "checking".into(),
        (None, None) => "waiting".into(),
    }
}

/// A finished file in one line: its name, its size, and where it came from.
fn done(file: &docs::AddedFile) -> String {
    let mut from = Vec::new();
    if file.hub_bytes > 0 {
        from.push(format!("{} from the Hub", text::size(file.hub_bytes)));
    }
    let sent = file.peer_bytes.values().filter(|&&bytes| bytes > 0);
    let (peers, bytes) = sent.fold((0, 0), |(peers, sum), bytes| (peers + 1, sum + bytes));
    if peers > 0 {
        from.push(format!("{} from {}", text::size(bytes), text::count(peers, "peer", "peers")));
    }
    if file.resumed_bytes > 0 {
        from.push(format!("{} were here", text::size(file.resumed_bytes)));
    }
    let from = match (file.cached, from.is_empty()) {
        (true, _) => "was here".to_owned(),
        (false, true) => "linked".to_owned(),
        (false, false) => format!("{} in {}", from.join(", "), text::time(seconds(file.seconds))),
    };
    format!("{}  {}  {from}", file.path, text::size(file.size))
}

/// A time that came as a number; what is no time is none.
pub(super) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// The end of a path, which tells files of one folder apart.
fn tail(path: &str, max: usize) -> String {
    let count = path.chars().count();
    if count <= max {
        return path.to_owned();
    }
    std::iter::once('…').chain(path.chars().skip(count - max + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(done_bytes: u64, endpoints: usize, peers: usize) -> Running {
        Running {
            path: "w.bin".parse().unwrap(),
            digest: "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0".parse().unwrap(),
            size: 10,
            done_bytes,
            hub_bytes: 0,
            peer_bytes: 0,
            peers,
            endpoints,
        }
    }

    #[test]
    fn a_bar_says_where_its_bytes_come_from() {
        assert_eq!(sources(&running(3, 1, 0)), "Hub");
        assert_eq!(sources(&running(3, 1, 1)), "Hub + 1 peer");
        assert_eq!(sources(&running(3, 2, 3)), "2 endpoints + 3 peers");
        assert_eq!(sources(&running(3, 0, 0)), "waiting");
        assert_eq!(sources(&running(10, 0, 0)), "checking");
    }

    #[test]
    fn a_long_path_keeps_its_end() {
        assert_eq!(tail("model-00001-of-00002.safetensors", 10), "…fetensors");
        assert_eq!(tail("模型模型模型", 3), "…模型");
        assert_eq!(tail("a", 3), "a");
    }

    #[test]
    fn bars_follow_the_files_that_run() {
        let mut bars = Bars::new();
        bars.all.set_draw_target(ProgressDrawTarget::hidden());
        let progress =
            Progress { running: vec![running(3, 1, 0)], done_bytes: 3, total_bytes: 20, ..Progress::default() };
        bars.update(&progress);
        assert_eq!(bars.files.len(), 1);
        assert_eq!(bars.total.position(), 3);
        bars.update(&Progress { total_bytes: 20, done_bytes: 10, ..Progress::default() });
        assert!(bars.files.is_empty());
    }
}
