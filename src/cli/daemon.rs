//! `hffs daemon`: start, stop, status.
//!
//! Knows how a daemon is started and asked. Does not know what it does.
//! Invariant: when `start` returns 0, a daemon of this work directory answers.

use std::ffi::OsString;
use std::io::{self, Write};

use serde_json::json;

use super::detach;
use super::exit::{Exit, Outcome, Wrong};
use super::log::{self, Echo};
use super::printer::Printer;
use crate::config::{DEFAULT_PORT, Environment, Home, Settings};
use crate::control::{self, Client, Request, docs};
use crate::{daemon, limits};

/// `hffs daemon …`
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Start this work directory's daemon, in the background
    Start(Start),
    /// Stop it; unfinished downloads go on at the next start
    Stop,
    /// Say whether it runs, and where
    Status,
}

/// `hffs daemon start`
#[derive(Debug, clap::Args)]
pub(super) struct Start {
    /// Listen on this port and no other [default: 9009, or a free one when that is taken]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Stay in this terminal, and end with Ctrl-C
    #[arg(long)]
    foreground: bool,
    /// Say on stdout, in one line of JSON, when it is ready: how the background start learns it
    #[arg(long, hide = true, requires = "foreground")]
    detached: bool,
}

/// Starts the daemon in the background. That one runs already is no failure: what was asked for is so.
pub(super) fn start(start: &Start, environment: Environment, printer: Printer) -> Outcome {
    let home = Home::find(&environment)?;
    if start.foreground {
        detach::tune_this_process();
        return stay(start, home, environment, printer);
    }
    if let Some(status) = super::wait_for(running(&home))? {
        let same_port = |port: u16| status.listen.iter().any(|at| at.ends_with(&format!(":{port}")));
        if let Some(port) = start.port.filter(|port| !same_port(*port)) {
            let message =
                format!("a daemon already runs, and listens on {}, not on port {port}", shown(&status.listen));
            return Err(Wrong::new(message).hint("hffs daemon stop, then start it again").into());
        }
        printer.say(&format!("a daemon already runs (pid {})", status.pid));
        printer.result(&status, || describe(&status))?;
        return Ok(Exit::Done);
    }
    home.prepare()?;
    let settings = Settings::read(&home.config_toml())?;
    for warning in &settings.warnings {
        printer.warn(warning);
    }
    let mut args: Vec<OsString> = ["daemon", "start", "--foreground", "--detached"].map(OsString::from).into();
    args.extend(start.port.map(|port| format!("--port={port}").into()));
    args.extend((0..printer.verbosity()).map(|_| OsString::from("-v")));
    let status = match detach::start(args)? {
        Ok(status) => status,
        Err(exit) => return Ok(exit),
    };
    let usual = start.port.or(settings.port).unwrap_or(DEFAULT_PORT);
    if !status.listen.iter().any(|at| at.ends_with(&format!(":{usual}"))) {
        printer.say(&format!("port {usual} is taken, so another was chosen"));
    }
    printer.result(&status, || describe(&status))?;
    Ok(Exit::Done)
}

/// Is the daemon.
fn stay(start: &Start, home: Home, environment: Environment, printer: Printer) -> Outcome {
    home.prepare()?;
    let settings = Settings::read(&home.config_toml())?;
    let echo = if !start.detached && printer.verbosity() > 0 { Echo::Stderr } else { Echo::FileOnly };
    log::set_up(&home, &environment, printer.verbosity(), echo)
        .map_err(|source| crate::config::Error::Write { path: home.log_file(), source })?;
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
        if !start.detached {
            printer.warn(warning);
        }
    }
    let port = start.port.or(settings.port);
    let detached = start.detached;
    let ready = move |status: docs::Status| {
        if detached {
            // The command that waits for this may be gone, which is no reason to end.
            let line = serde_json::to_string(&status).unwrap_or_default();
            let mut out = io::stdout().lock();
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        } else if printer.is_json() {
            let _ = printer.result(&status, String::new);
        } else {
            printer.say(&describe(&status));
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).max(2))
        .enable_all()
        .build()?;
    runtime.block_on(async {
        if start.detached {
            detach::outlive_terminal();
        }
        daemon::run(home, settings, environment, port, ready).await
    })?;
    // Whatever still blocks in a thread, say on a dead network file system, must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::ZERO);
    Ok(Exit::Done)
}

/// Stops the daemon, and returns when it has ended.
pub(super) async fn stop(environment: &Environment, printer: Printer) -> Outcome {
    let home = Home::find(environment)?;
    let stopped = end(&home).await?;
    printer.say(&format!("stopped (pid {})", stopped.pid));
    printer.result(&stopped, String::new)?;
    Ok(Exit::Done)
}

/// Ends the daemon of this work directory.
pub(super) async fn end(home: &Home) -> anyhow::Result<docs::Stopped> {
    let stopped: docs::Stopped = Client::connect(home).await?.ask(&Request::Stop).await?;
    if control::wait_for_end(home, limits::SHUTDOWN + limits::ANSWER_WAIT).await.is_err() {
        let message = format!("the daemon (pid {}) was told to stop and still runs", stopped.pid);
        return Err(Wrong::new(message).hint(detach::how_to_kill(stopped.pid)).into());
    }
    Ok(stopped)
}

/// Says whether the daemon runs; when it does not, so does the exit code.
pub(super) async fn status(environment: &Environment, printer: Printer) -> Outcome {
    let home = Home::find(environment)?;
    match running(&home).await? {
        Some(status) => {
            printer.result(&status, || describe(&status))?;
            Ok(Exit::Done)
        }
        None => {
            if printer.is_json() {
                printer.result(&json!({ "running": false }), String::new)?;
            }
            Err(control::Error::NoDaemon { home: home.root().to_owned() }.into())
        }
    }
}

/// The status of the daemon of this work directory, when one runs.
pub(super) async fn running(home: &Home) -> Result<Option<docs::Status>, control::Error> {
    let asked = match Client::connect(home).await {
        Ok(client) => client.ask(&Request::Status).await.map(Some),
        Err(error) => Err(error),
    };
    match asked {
        // One that ended, or was killed, in the very moment in which it was asked does not run either.
        Err(control::Error::NoDaemon { .. } | control::Error::Broken(_)) => Ok(None),
        answer => answer,
    }
}

fn describe(status: &docs::Status) -> String {
    [
        format!("running     hffs {}, pid {}", status.version, status.pid),
        format!("peer id     {}", status.peer_id),
        format!("listening   {}", shown(&status.listen)),
        format!(
            "asks        {}",
            if status.asks.is_empty() { "no Hub: offline".into() } else { status.asks.join(", ") }
        ),
        format!("directory   {}", status.home.display()),
        format!("models      {}", status.hub_cache.display()),
    ]
    .map(|line| crate::names::clean(&line, 2_000))
    .join("\n")
}

fn shown(addresses: &[String]) -> String {
    if addresses.is_empty() { "nowhere".into() } else { addresses.join(", ") }
}
