//! The daemon's log: a file in the work directory that never grows beyond its bound.
//!
//! Knows files and how loud to be. Does not know what is logged.
//! Invariant: at most `LOG_FILES` files of `LOG_BYTES_MAX`; a log that cannot be written stops nothing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::MakeWriterExt;

use crate::config::{Environment, Home};
use crate::limits;

/// Whether the log is also told on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Echo {
    Stderr,
    FileOnly,
}

/// Sends everything that `tracing` records, and every panic, to the work directory's log.
///
/// `HFFS_LOG` takes the directives of `EnvFilter`, for whoever looks for an error in the libraries.
pub(super) fn set_up(home: &Home, environment: &Environment, verbosity: u8, echo: Echo) -> io::Result<()> {
    let file = Mutex::new(Bounded::open(home.log_file())?);
    let level = match verbosity {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    // libp2p warns of every stranger that hangs up.
    let usual = format!("error,hffs={level}");
    let filter = EnvFilter::try_new(environment.get("HFFS_LOG").unwrap_or(&usual))
        .or_else(|_| EnvFilter::try_new(&usual))
        .unwrap_or_default();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        // Else a full disk makes the log write about itself to a stderr that may be closed, and that panics.
        .log_internal_errors(false);
    match echo {
        Echo::Stderr => log.with_writer(file.and(io::stderr)).init(),
        Echo::FileOnly => log.with_writer(file).init(),
    }
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!("{panic}");
        if echo == Echo::Stderr {
            usual(panic);
        }
    }));
    Ok(())
}

/// A file that is set aside when it is full; the oldest one set aside goes.
struct Bounded {
    path: PathBuf,
    file: File,
    written: u64,
}

impl Bounded {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(&path)?;
        let written = file.metadata()?.len();
        Ok(Self { path, file, written })
    }

    fn set_aside(&mut self) -> io::Result<()> {
        for number in (1..limits::LOG_FILES).rev() {
            let older = if number == 1 { self.path.clone() } else { numbered(&self.path, number - 1) };
            match fs::rename(&older, numbered(&self.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        *self = Self::open(self.path.clone())?;
        Ok(())
    }
}

impl Write for Bounded {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.written + line.len() as u64 > limits::LOG_BYTES_MAX {
            self.set_aside()?;
        }
        let written = self.file.write(line)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_never_grows_beyond_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hffs.log");
        let line = vec![b'x'; limits::LOG_BYTES_MAX as usize / 3];
        for _ in 0..20 {
            Bounded::open(path.clone()).unwrap().write_all(&line).unwrap();
        }
        let sizes: Vec<u64> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(sizes.len(), limits::LOG_FILES as usize);
        assert!(sizes.iter().all(|&size| size <= limits::LOG_BYTES_MAX), "{sizes:?}");
        assert!(path.exists());
    }
}
