//! The face: the command tree, one function a command.
//!
//! Knows words, tables, progress and exit codes. Does not know how anything is done.
//! Invariant: results go to stdout and talk to stderr, so that what is piped is what was asked for.

mod add;
mod conf;
mod daemon;
mod detach;
mod exit;
mod log;
mod model;
mod peer;
mod printer;
mod progress;
mod text;
mod uninstall;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::exit::{Exit, Outcome, report};
use self::printer::Printer;
use crate::config::Environment;

/// One cache of Hugging Face models for all the machines of a lab.
#[derive(Debug, Parser)]
#[command(name = "hffs", version, max_term_width = 100)]
pub struct Line {
    #[command(flatten)]
    printer: Printer,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start and stop this machine's daemon
    #[command(subcommand)]
    Daemon(daemon::Command),
    /// The other machines of the lab
    #[command(subcommand)]
    Peer(peer::Command),
    /// Models, datasets and spaces
    #[command(subcommand)]
    Model(model::Command),
    /// Configuration
    #[command(subcommand)]
    Conf(conf::Command),
    /// Remove configuration, state and the models that hffs downloaded; asks first
    Uninstall(uninstall::Uninstall),
}

impl Line {
    /// Reads this process's command line; a wrong one ends the process with 2, `--help` with 0.
    pub fn read() -> Self {
        Self::parse()
    }
}

/// Does what the command line says.
pub fn run(line: Line, environment: Environment) -> ExitCode {
    report(dispatch(line, environment))
}

fn dispatch(line: Line, environment: Environment) -> Outcome {
    let Line { printer, command } = line;
    let env = &environment;
    match command {
        Command::Daemon(daemon::Command::Start(start)) => daemon::start(&start, environment, printer),
        Command::Daemon(daemon::Command::Stop) => wait_for(unless_interrupted(daemon::stop(env, printer))),
        Command::Daemon(daemon::Command::Status) => wait_for(daemon::status(env, printer)),
        Command::Peer(peer::Command::Add { host, port }) => {
            wait_for(unless_interrupted(peer::add(host, port, env, printer)))
        }
        Command::Peer(peer::Command::Rm { host, port }) => {
            wait_for(unless_interrupted(peer::rm(host, port, env, printer)))
        }
        Command::Peer(peer::Command::Ls) => wait_for(unless_interrupted(peer::ls(env, printer))),
        Command::Model(model::Command::Ls(ls)) => model::ls(ls, env, printer),
        Command::Model(model::Command::Search(search)) => {
            wait_for(unless_interrupted(model::search(search, env, printer)))
        }
        Command::Model(model::Command::Add(add)) => wait_for(add::add(add, env, printer)),
        Command::Model(model::Command::Rm(rm)) => model::rm(rm, env, printer),
        Command::Conf(conf::Command::Cache(conf::Cache::Set { path })) => wait_for(conf::set(&path, env, printer)),
        Command::Conf(conf::Command::Cache(conf::Cache::Get)) => conf::get(env, printer),
        Command::Conf(conf::Command::Cache(conf::Cache::Reset)) => wait_for(conf::reset(env, printer)),
        Command::Conf(conf::Command::Limit(limit)) => wait_for(unless_interrupted(conf::limit(limit, env, printer))),
        Command::Uninstall(uninstall) => uninstall::uninstall(&uninstall, env, printer),
    }
}

/// Gives way to Ctrl-C, with the exit code for it. An add does more than that.
async fn unless_interrupted(work: impl Future<Output = Outcome>) -> Outcome {
    tokio::select! {
        outcome = work => outcome,
        _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
    }
}

/// Runs what waits for the daemon or the network.
fn wait_for<T, E: Into<anyhow::Error>>(work: impl Future<Output = Result<T, E>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(work).map_err(Into::into);
    // A name look-up that hangs must not keep a command that has its answer.
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<Line, clap::Error> {
        Line::try_parse_from(std::iter::once("hffs").chain(line.split_whitespace()))
    }

    #[test]
    fn the_command_tree_is_sound() {
        Line::command().debug_assert();
    }

    #[test]
    fn every_line_of_the_contract_is_understood() {
        for line in [
            "daemon start",
            "daemon start --port 1 --foreground",
            "daemon stop",
            "daemon status --json",
            "--json daemon status",
            "peer add 10.0.0.1",
            "peer add fe80::1 --port 65535",
            "peer add gpu-01.lab",
            "peer rm 10.0.0.1 --port 9009",
            "peer ls -q",
            "model ls",
            "model ls --repo_id org/name",
            "model ls --repo-id org/name --file a/b.json",
            "model search org/name",
            "model search org/name config.json --revision refs/pr/1",
            "model add gpt2",
            "model add org/name a.json b/c.bin --revision feature/x",
            "model add org/name --include *.json --include *.txt --exclude *.bin",
            "model add org/name --repo-type dataset --no-progress -vv",
            "model rm org/name",
            "model rm org/name a.json --revision main",
            "conf cache set /data",
            "conf cache get",
            "conf cache reset",
            "conf limit set --up 10MB",
            "conf limit set --up 500kB/s --down 200Mbit --lan-up 1.5MiB --lan-down 1GB",
            "conf limit get --json",
            "conf limit reset",
            "model add org/name --limit-rate 10MB",
            "uninstall",
            "uninstall --yes",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn what_cannot_be_meant_is_a_usage_error() {
        for line in [
            "",
            "daemon",
            "daemon start --port 0",
            "daemon start --port 70000",
            "daemon start --port x",
            "daemon start --detached",
            "peer add",
            "peer add 10.0.0.1 --port 0",
            "peer add 10.0.0.1:9009",
            "peer add 300.0.0.1",
            "model add",
            "model add ../x",
            "model add /etc/passwd",
            "model add C:/x",
            "model add org/name ../x",
            "model add org/name /etc/passwd",
            "model add org/name --revision ../x",
            "model add org/name --include [",
            "model add org/name --repo-type kernel",
            "model ls --file x",
            "model ls --repo_id a/b/c",
            "conf cache set",
            "conf limit set",
            "conf limit set --up 0",
            "conf limit set --up fast",
            "conf limit set --up -1MB",
            "conf limit set --down 20Mb",
            "model add org/name --limit-rate 0",
            "model add org/name --limit-rate",
            "daemon status -q -v",
        ] {
            let error = parse(line).map(|line| panic!("{line:?} was taken")).unwrap_err();
            let help = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
            assert!(error.exit_code() == 2 || help, "{line}");
        }
    }
}
