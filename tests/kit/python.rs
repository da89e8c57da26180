//! The real `huggingface_hub`, in a virtual environment of its own below `target/`.
//!
//! Knows how to get it and how to call it with nothing of the tester's environment. Does not know hffs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::{self, Output};
use super::secs;

/// The line of versions whose cache hffs writes.
const WANTED: &str = "huggingface_hub>=2,<3";

/// A Python with `huggingface_hub`.
pub struct Python {
    venv: PathBuf,
}

impl Python {
    /// Makes the environment at the first call, once for all test runs. `None`, and a line that says so, where there is
    /// no Python or no package registry; on CI that is an error.
    pub fn new() -> Option<Self> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
        let venv = target.join("huggingface_hub");
        let ready = venv.join(WANTED.replace(['>', '<', '=', ','], "_"));
        // Test processes run side by side, and one of them makes it.
        let lock = File::create(target.join("huggingface_hub.lock")).expect("a lock file");
        lock.lock().expect("the lock");
        if !ready.exists() {
            let pip = venv.join("bin/pip");
            let made = Self::run(Path::new("python3"), &["-m", "venv", "--clear", &venv.display().to_string()])
                && Self::run(&pip, &["install", "--quiet", "--disable-pip-version-check", WANTED]);
            if !made {
                println!("skipped: needs python3 with venv and pip, and {WANTED} from a registry");
                eprintln!("skipped: needs python3 with venv and pip, and {WANTED} from a registry");
                assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must not skip the real client");
                return None;
            }
            fs::write(&ready, "").expect("a mark");
        }
        Some(Self { venv })
    }

    fn run(program: &Path, args: &[&str]) -> bool {
        let started = Command::new(program).args(args).stdin(std::process::Stdio::null()).status();
        started.is_ok_and(|status| status.success())
    }

    /// Runs a script that may `from huggingface_hub import …`, with this cache and these variables.
    pub fn script(&self, home: &Path, env: &[(&str, &str)], script: &str) -> Output {
        let mut command = Command::new(self.venv.join("bin/python"));
        command
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default())
            .env("HOME", home)
            .env("HF_HOME", home)
            .env("HF_HUB_DISABLE_TELEMETRY", "1")
            .env("HF_HUB_DISABLE_PROGRESS_BARS", "1")
            .envs(env.iter().copied())
            .args(["-c", &format!("import json\nfrom huggingface_hub import *\n{script}")]);
        command::start(&mut command).wait(secs(120))
    }
}
