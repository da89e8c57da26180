//! `hffs model add`: asks the daemon for files, and watches them come.
//!
//! Knows what the user asked for and how to end early. Does not know where files come from.
//! Invariant: stdout gets the paths of files that are all there, or nothing.

use std::time::Duration;

use super::conf::rate;
use super::exit::{Exit, Outcome};
use super::model::RepoArgs;
use super::printer::Printer;
use super::progress::View;
use super::text;
use crate::config::{Environment, Home, Wishes};
use crate::control::{AddRequest, Answer, Client, Error, Request, docs};
use crate::limits;
use crate::names::{RepoPath, Revision};
use crate::pace::Rate;

/// `hffs model add`
#[derive(Debug, clap::Args)]
pub(super) struct Add {
    #[command(flatten)]
    repo: RepoArgs,
    /// Files, as the Hub shows them [default: the whole repo]
    #[arg(value_name = "FILE")]
    files: Vec<RepoPath>,
    /// Branch, tag, refs/pr/N or commit [default: main]
    #[arg(long, value_name = "REVISION")]
    revision: Option<Revision>,
    /// Only files whose path matches
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    include: Vec<String>,
    /// No files whose path matches
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    exclude: Vec<String>,
    /// Take no more than this a second, from the Hub and from peers together: 10MB, 500kB/s, 200Mbit
    #[arg(long, value_name = "RATE", value_parser = rate, allow_hyphen_values = true)]
    limit_rate: Option<Rate>,
}

/// A pattern that the daemon will understand.
fn glob(text: &str) -> Result<String, globset::Error> {
    globset::Glob::new(text).map(|_| text.to_owned())
}

/// Brings files here. Ctrl-C lets the daemon stop cleanly; a second one does not wait for it.
pub(super) async fn add(add: Add, environment: &Environment, printer: Printer) -> Outcome {
    let home = Home::find(environment)?;
    let repo = add.repo.repo();
    let request = Request::Add(AddRequest {
        repo: repo.clone(),
        revision: add.revision.unwrap_or_else(Revision::main),
        files: add.files,
        include: add.include,
        exclude: add.exclude,
        wishes: Wishes::of(environment)?,
        limit_rate: add.limit_rate,
        talk: printer.talk(),
    });
    let mut client = Client::connect(&home).await?;
    client.send(&request).await?;
    let mut view = View::new(printer);
    let ended = tokio::select! {
        ended = watch(&mut client, &mut view) => ended.map(Some),
        _ = tokio::signal::ctrl_c() => interrupt(&mut client, &mut view).await,
    };
    view.close();
    let Some(added) = ended? else {
        printer
            .say(&format!("interrupted: what is on disk stays, and `hffs model add {}` goes on from there", repo.id));
        return Ok(Exit::Interrupted);
    };
    printer.say(&summary(&added));
    let paths = || added.files.iter().map(|file| file.local_path.display().to_string()).collect::<Vec<_>>().join("\n");
    printer.result(&added, paths)?;
    Ok(Exit::Done)
}

async fn watch(client: &mut Client, view: &mut View) -> Result<docs::Added, Error> {
    loop {
        match client.next().await? {
            Answer::Event(event) => view.show(event),
            Answer::Done(added) => return Ok(added),
        }
    }
}

/// Tells the daemon to stop this add and gives it a moment, in which the add may even get done.
async fn interrupt(client: &mut Client, view: &mut View) -> Result<Option<docs::Added>, Error> {
    // A daemon that does not hear it sees the connection close.
    let _ = client.cancel().await;
    tokio::select! {
        ended = tokio::time::timeout(limits::CANCEL_WAIT, watch(client, view)) => match ended {
            Ok(Ok(added)) => Ok(Some(added)),
            _ => Ok(None),
        },
        _ = tokio::signal::ctrl_c() => Ok(None),
    }
}

/// What came from where, in one line.
fn summary(added: &docs::Added) -> String {
    let size = added.files.iter().map(|file| file.size).sum();
    let hub: u64 = added.files.iter().map(|file| file.hub_bytes).sum();
    let peers: u64 = added.files.iter().flat_map(|file| file.peer_bytes.values()).sum();
    let cached = added.files.iter().filter(|file| file.cached).count();
    // Files come side by side, so the one that took longest tells best how long it took.
    let longest = added.files.iter().map(|file| super::progress::seconds(file.seconds)).max().unwrap_or(Duration::ZERO);
    let files = text::count(added.files.len(), "file", "files");
    let mut text = format!("{}: {files}, {}", added.repo_id, text::size(size));
    if cached == added.files.len() {
        text.push_str(", all here already");
    } else {
        let (hub, peers) = (text::size(hub), text::size(peers));
        text.push_str(&format!(" in {}; {hub} from the Hub, {peers} from peers", text::time(longest)));
    }
    text
}
