//! `hffs conf`: the work directory.
//!
//! Knows which one is in force and how another is stored. Does not know what is in it.
//! Invariant: the work directory never changes under a daemon that runs.

use std::path::PathBuf;

use super::daemon::running;
use super::exit::{Exit, Outcome, Wrong};
use super::printer::Printer;
use crate::config::{Environment, Home, Origin};
use crate::control::docs;

/// `hffs conf …`
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// The work directory
    #[command(subcommand)]
    Cache(Cache),
}

/// `hffs conf cache …`
#[derive(Debug, clap::Subcommand)]
pub(super) enum Cache {
    /// Use another work directory from now on; it must exist
    Set {
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
    /// Print the work directory in force
    Get,
    /// Use the default work directory again
    Reset,
}

/// Stores a work directory.
pub(super) async fn set(path: &std::path::Path, environment: &Environment, printer: Printer) -> Outcome {
    refuse_while_running(environment).await?;
    let home = Home::store(environment, path)?;
    told(environment, printer, &format!("the work directory is `{}`", home.display()))
}

/// Prints the work directory in force.
pub(super) fn get(environment: &Environment, printer: Printer) -> Outcome {
    let home = Home::find(environment)?;
    printer.result(&document(&home), || home.root().display().to_string())?;
    Ok(Exit::Done)
}

/// Forgets the stored work directory.
pub(super) async fn reset(environment: &Environment, printer: Printer) -> Outcome {
    refuse_while_running(environment).await?;
    let said = match Home::forget_stored(environment)? {
        Some(_) => "the work directory is the default one",
        None => "the work directory was the default one already",
    };
    told(environment, printer, said)
}

fn told(environment: &Environment, printer: Printer, said: &str) -> Outcome {
    printer.say(&crate::names::clean(said, 2_000));
    let home = Home::find(environment)?;
    if home.origin() == Origin::Env {
        printer.warn(&format!("`HFFS_HOME` wins over it, and names `{}`", home.root().display()));
    }
    printer.result(&document(&home), String::new)?;
    Ok(Exit::Done)
}

fn document(home: &Home) -> docs::HomeInForce {
    docs::HomeInForce { home: home.root().to_owned(), hub_cache: home.hub_cache().to_owned(), from: home.origin() }
}

/// Refuses when a daemon runs, in the work directory in force or in the one that the change is about.
/// A work directory that cannot be used has no daemon, and storing another is the cure.
async fn refuse_while_running(environment: &Environment) -> anyhow::Result<()> {
    let homes = [Home::find(environment), Home::find_without_env(environment)];
    for home in homes.into_iter().flatten() {
        if let Some(status) = running(&home).await? {
            let message = format!("a daemon (pid {}) runs with `{}`", status.pid, home.root().display());
            return Err(Wrong::new(message).hint("hffs daemon stop").into());
        }
    }
    Ok(())
}
