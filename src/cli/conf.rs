//! `hffs conf`: the work directory, and bandwidth limits.
//!
//! Knows what is in force and how it is changed. Does not know what is in the one, nor how the others are
//! kept to.
//! Invariant: the work directory never changes under a daemon that runs; limits always do.

use std::path::PathBuf;

use super::daemon::running;
use super::exit::{Exit, Outcome, Wrong};
use super::printer::Printer;
use crate::config::{Environment, Home, Origin, Settings, change_limits, remove_limits};
use crate::control::{Request, docs};
use crate::pace::{BadRate, Bandwidth, Rate};

/// `hffs conf …`
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// The work directory
    #[command(subcommand)]
    Cache(Cache),
    /// Bandwidth limits, in force at once
    #[command(subcommand)]
    Limit(Limit),
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

/// `hffs conf limit …`
#[derive(Debug, clap::Subcommand)]
pub(super) enum Limit {
    /// Limit how many bytes flow a second, in all transfers together: 10MB, 500kB/s, 1.5MiB, 200Mbit
    Set(Limits),
    /// Print the limits in force
    Get,
    /// Remove all limits
    Reset,
}

/// What to limit; what is left out stays as it is.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct Limits {
    /// To peers that are on no network of this machine
    #[arg(long, value_name = "RATE", value_parser = rate, allow_hyphen_values = true)]
    up: Option<Rate>,
    /// From the Hub, its mirrors, and such peers
    #[arg(long, value_name = "RATE", value_parser = rate, allow_hyphen_values = true)]
    down: Option<Rate>,
    /// To peers on a network of this machine
    #[arg(long, value_name = "RATE", value_parser = rate, allow_hyphen_values = true)]
    lan_up: Option<Rate>,
    /// From such peers
    #[arg(long, value_name = "RATE", value_parser = rate, allow_hyphen_values = true)]
    lan_down: Option<Rate>,
}

/// A rate, or why the text is none and what to write instead.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    text.parse().map_err(|error: BadRate| format!("{error}\nhint: {}", error.hint()))
}

/// Shows or changes the limits. A daemon that runs reads them anew each time, so what is printed is in
/// force, also when the file was edited by hand.
pub(super) async fn limit(limit: Limit, environment: &Environment, printer: Printer) -> Outcome {
    let home = Home::find(environment)?;
    let file = home.config_toml();
    match &limit {
        Limit::Set(Limits { up, down, lan_up, lan_down }) => {
            home.prepare()?;
            change_limits(&file, &Bandwidth { up: *up, down: *down, lan_up: *lan_up, lan_down: *lan_down })?;
        }
        Limit::Get => {}
        Limit::Reset => remove_limits(&file)?,
    }
    let limits = match super::peer::ask(&home, &Request::Limit).await? {
        Some(limits) => limits,
        None => Settings::read(&file)?.limit,
    };
    match limit {
        Limit::Set(_) | Limit::Reset => {
            printer.say(&shown(&limits));
            printer.result(&limits, String::new)?;
        }
        Limit::Get => printer.result(&limits, || shown(&limits))?,
    }
    Ok(Exit::Done)
}

fn shown(limits: &Bandwidth) -> String {
    let Bandwidth { up, down, lan_up, lan_down } = limits;
    let line = |(name, rate): (&str, &Option<Rate>)| {
        let rate = rate.map_or_else(|| "no limit".to_owned(), |rate| format!("{rate}/s"));
        format!("{name:<9} {rate}")
    };
    [("up", up), ("down", down), ("lan-up", lan_up), ("lan-down", lan_down)].map(line).join("\n")
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
