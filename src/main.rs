//! The `hffs` program: reads its command line and environment, does what they say, and tells how it went.

use std::process::ExitCode;

use hffs::cli;
use hffs::config::Environment;

fn main() -> ExitCode {
    let line = cli::Line::read();
    let environment = Environment::of_this_process();
    cli::run(line, environment)
}
