//! `hffs uninstall`: takes away what is ours, after showing what goes and what stays.
//!
//! Knows what hffs wrote and where. Does not know how the program itself came here.
//! Invariant: only names that hffs gave are removed; a folder goes only when that leaves it empty, for
//! a user may keep something of their own beside our files.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use super::exit::{Exit, Outcome, Wrong};
use super::printer::{Printer, tell};
use super::{daemon as daemon_commands, model, text};
use crate::cache::{Cache, Holding, Plan};
use crate::config::{Environment, Home};
use crate::control::docs;
use crate::daemon;
use crate::names::clean;
use crate::partial::{Partials, Unfinished};

/// `hffs uninstall`
#[derive(Debug, clap::Args)]
pub(super) struct Uninstall {
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// What there is to remove, and what is left alone.
struct Found {
    cache: Cache,
    plan: Plan,
    /// `None` when no daemon ever ran here, so that nothing unfinished can be ours.
    partials: Option<Partials>,
    unfinished: Vec<Unfinished>,
    state: Vec<PathBuf>,
}

/// Removes configuration, state and the models that hffs downloaded.
pub(super) fn uninstall(uninstall: &Uninstall, environment: &Environment, printer: Printer) -> Outcome {
    let home = Home::find(environment)?;
    let stored = Home::stored_file(environment).is_some_and(|path| path.exists());
    if !home.own().exists() && !stored {
        printer.say("there is nothing of hffs here");
        printer.result(&docs::Removed { removed: Vec::new(), freed: 0 }, String::new)?;
        return Ok(Exit::Done);
    }
    let pid = super::wait_for(daemon_commands::running(&home))?.map(|status| status.pid);
    // What the daemon is about to write is not in this first look; the second one, after its end, counts.
    let found = look(&home, environment)?;
    if !uninstall.yes {
        show(&found, &home, pid);
        if !consent()? {
            tell("nothing was removed");
            return Ok(Exit::Failed);
        }
    }
    let found = if pid.is_some() {
        super::wait_for(daemon_commands::end(&home))?;
        look(&home, environment)?
    } else {
        found
    };
    let gone = remove(found, &home, environment)?;
    let files = text::count(gone.removed.len(), "file", "files");
    printer.say(&format!("removed {files}, freed {}", text::size(gone.freed)));
    if home.own().exists() {
        printer.warn(&format!("`{}` stays: something is in it that is not ours", home.own().display()));
    }
    printer.result(&gone, String::new)?;
    Ok(Exit::Done)
}

fn look(home: &Home, environment: &Environment) -> anyhow::Result<Found> {
    // A damaged identity stops no uninstall; what is unfinished is then nobody's, and stays.
    let partials = match daemon::peer_id_of(home) {
        Ok(Some(peer_id)) => Some(Partials::open(home.hub_cache(), &peer_id)?),
        Ok(None) => None,
        Err(error) => {
            tell(&format!("warning: unfinished downloads stay: {error}"));
            None
        }
    };
    let unfinished = partials.as_ref().map(Partials::unfinished).unwrap_or_default();
    let state = home.state_files().into_iter().chain(Home::stored_file(environment)).filter(|path| path.exists());
    let state = state.collect();
    let cache = model::open(home)?;
    Ok(Found { plan: cache.uninstall_plan(), cache, partials, unfinished, state })
}

/// Tells on stderr what goes and what stays.
fn show(found: &Found, home: &Home, pid: Option<u32>) {
    let mut lines = vec!["this goes:".to_owned()];
    if let Some(pid) = pid {
        lines.push(format!("  the daemon (pid {pid}) is stopped first"));
    }
    lines.extend(found.plan.goes.iter().map(holding));
    for file in &found.unfinished {
        lines.push(format!(
            "  {}, unfinished: {} of {}",
            file.repo,
            text::size(file.bytes),
            text::size(file.content.size)
        ));
    }
    lines.extend(found.state.iter().map(|path| format!("  {}", path.display())));
    lines.push("this stays:".into());
    lines.extend(found.plan.stays.iter().map(holding));
    lines.push(format!("  everything else in {} and {}", home.root().display(), home.hub_cache().display()));
    for line in lines {
        tell(&clean(&line, 2_000));
    }
}

fn holding(holding: &Holding) -> String {
    let files = text::count(holding.files, "file", "files");
    format!("  {}: {files}, {}", holding.repo, text::size(holding.bytes))
}

/// Asks; anything but a clear yes is no.
fn consent() -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(Wrong::new("nobody is there to ask").hint("hffs uninstall --yes").into());
    }
    let mut out = io::stderr().lock();
    write!(out, "remove? [y/N] ")?;
    out.flush()?;
    drop(out);
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Models first: until they are gone, the state that says which ones are ours is still needed.
fn remove(found: Found, home: &Home, environment: &Environment) -> anyhow::Result<docs::Removed> {
    let models = found.cache.uninstall_models()?;
    let (mut removed, mut freed) = (models.removed, models.freed);
    if let Some(partials) = &found.partials {
        let mut repos: Vec<_> = found.unfinished.iter().map(|file| &file.repo).collect();
        repos.dedup();
        for repo in repos {
            freed += partials.discard_repo(repo);
        }
    }
    for path in &found.state {
        freed += remove_path(path)?;
        removed.push(path.clone());
    }
    Home::forget_stored(environment)?;
    // Both fail where something is left in them, and then they stay.
    let _ = fs::remove_dir(home.own());
    if let Some(dir) = home.control_socket().parent() {
        let _ = fs::remove_dir(dir);
    }
    Ok(docs::Removed { removed, freed })
}

/// Removes a file, or a folder that is wholly ours, and says how many bytes that frees.
fn remove_path(path: &Path) -> Result<u64, crate::config::Error> {
    let failed = |source| crate::config::Error::Write { path: path.to_owned(), source };
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed(error)),
    };
    if meta.is_dir() {
        let sizes = fs::read_dir(path).map_err(failed)?.flatten().filter_map(|entry| entry.metadata().ok());
        let size = sizes.map(|meta| meta.len()).sum();
        fs::remove_dir_all(path).map_err(failed)?;
        Ok(size)
    } else {
        fs::remove_file(path).map_err(failed)?;
        Ok(meta.len())
    }
}
