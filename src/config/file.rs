//! Small files that are read whole and replaced whole.
//!
//! Knows TOML and how a file is replaced without ever being half written. Does not know what the
//! files say.
//! Invariant: a reader sees the old file or the new one, also after a power cut.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use serde::de::DeserializeOwned;

use super::Error;
use crate::disk;
use crate::limits;
use crate::names::clean;

/// The text of a file; `None` when there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<String>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.take(limits::CONFIG_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > limits::CONFIG_BYTES_MAX {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "the file is too large")));
    }
    Ok(Some(text))
}

/// Reads a TOML file; `None` when there is none. What is wrong in it is told with its line.
pub(super) fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let Some(text) = read(path)? else { return Ok(None) };
    toml::from_str(&text).map(Some).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count();
        Error::Corrupted { path: path.to_owned(), line, why: clean(error.message(), 200) }
    })
}

/// Replaces a file by `text`, readable by its owner only; its directory is made when it is missing.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(failed)?;
    let mut file = disk::private_temp(dir).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    disk::settle(file, path).map_err(failed)?;
    // Without this the new name may be lost with the power.
    disk::sync_folder(dir).map_err(failed)
}
