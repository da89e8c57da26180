//! Where words go: results to stdout, talk to stderr.
//!
//! Knows `--json`, `-q`, `-v` and whether somebody watches. Does not know what the words mean.
//! Invariant: with `--json` stdout gets one document and nothing else.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::control::Talk;
use crate::names::clean;

/// How the user wants to be talked to.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Printer {
    /// Print one JSON document on stdout, and nothing else there
    #[arg(long, global = true)]
    json: bool,
    /// Say nothing but results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Tell decisions; twice, every message
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Draw no progress bars
    #[arg(long, global = true)]
    no_progress: bool,
}

/// How an add shows what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watching {
    Bars,
    Lines,
    Nothing,
}

impl Printer {
    /// Prints a command's result: the document with `--json`, else the text, when there is any.
    pub(super) fn result(&self, document: &impl Serialize, text: impl FnOnce() -> String) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, document)?;
            writeln!(out)?;
        } else {
            let text = text();
            if !text.is_empty() {
                writeln!(out, "{text}")?;
            }
        }
        out.flush()
    }

    /// Tells the user something that is no result.
    pub(super) fn say(&self, text: &str) {
        if !self.quiet {
            tell(text);
        }
    }

    /// Tells the user that something is odd, though it goes on.
    pub(super) fn warn(&self, text: &str) {
        self.say(&format!("warning: {}", clean(text, 500)));
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    pub(super) fn verbosity(&self) -> u8 {
        self.verbose
    }

    pub(super) fn talk(&self) -> Talk {
        if self.verbose > 0 { Talk::Decisions } else { Talk::Usual }
    }

    pub(super) fn watching(&self) -> Watching {
        match (self.quiet, self.no_progress) {
            (true, _) => Watching::Nothing,
            (false, false) if io::stderr().is_terminal() => Watching::Bars,
            (false, _) => Watching::Lines,
        }
    }
}

/// Writes a line to stderr. Where stderr is closed there is nobody to tell.
pub(super) fn tell(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
