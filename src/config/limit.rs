//! `[limit]` in `config.toml`: how fast bytes may flow.
//!
//! Knows its keys, and how they are changed without touching the rest of the user's file. Does not know
//! how limits are kept.
//! Invariant: what the user wrote beside a limit that does not change, comments included, stays to the letter.

use std::fmt;
use std::path::Path;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, de};
use toml_edit::{DocumentMut, Item, TableLike, Value};

use super::{Error, Settings, file};
use crate::names::clean;
use crate::pace::{BadRate, Bandwidth, Rate};

/// Every key that the table may hold; those with a hyphen are what the command line calls the ones before.
pub(super) const KEYS: [&str; 6] = ["up", "down", "lan_up", "lan_down", "lan-up", "lan-down"];

/// The table as it is written.
#[derive(Default, Deserialize)]
pub(super) struct Table {
    up: Option<Written>,
    down: Option<Written>,
    #[serde(alias = "lan-up")]
    lan_up: Option<Written>,
    #[serde(alias = "lan-down")]
    lan_down: Option<Written>,
}

/// A rate as it is written: a text with a unit, or a number of bytes.
struct Written(Rate);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct TextOrBytes;
        fn wrong<E: de::Error>(error: &BadRate) -> E {
            E::custom(format!("{error}; {}", error.hint()))
        }
        impl Visitor<'_> for TextOrBytes {
            type Value = Written;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rate, like `\"10MB\"` or `\"200Mbit\"`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Written, E> {
                text.parse().map(Written).map_err(|error| wrong(&error))
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Written, E> {
                Rate::new(u64::try_from(bytes).unwrap_or(0)).map(Written).map_err(|error| wrong(&error))
            }
        }
        from.deserialize_any(TextOrBytes)
    }
}

impl Table {
    pub(super) fn bandwidth(&self) -> Bandwidth {
        let rate = |written: &Option<Written>| written.as_ref().map(|Written(rate)| *rate);
        Bandwidth {
            up: rate(&self.up),
            down: rate(&self.down),
            lan_up: rate(&self.lan_up),
            lan_down: rate(&self.lan_down),
        }
    }
}

/// Writes limits into `config.toml`; those that are not given stay as they are.
pub fn change_limits(path: &Path, limits: &Bandwidth) -> Result<(), Error> {
    let before = Settings::read(path)?.limit;
    edit(path, |document| {
        let table = document.entry("limit").or_insert_with(toml_edit::table);
        let Some(table) = table.as_table_like_mut() else { return };
        for (keys, new, old) in [
            (["up", "up"], limits.up, before.up),
            (["down", "down"], limits.down, before.down),
            (["lan_up", "lan-up"], limits.lan_up, before.lan_up),
            (["lan_down", "lan-down"], limits.lan_down, before.lan_down),
        ] {
            if let Some(rate) = new.filter(|_| new != old) {
                put(table, keys, rate);
            }
        }
    })
}

/// Takes all limits out of `config.toml`.
pub fn remove_limits(path: &Path) -> Result<(), Error> {
    if Settings::read(path)?.limit == Bandwidth::default() {
        return Ok(());
    }
    edit(path, |document| {
        let Some(table) = document.get_mut("limit").and_then(Item::as_table_like_mut) else { return };
        for key in KEYS {
            table.remove(key);
        }
        if table.is_empty() {
            document.remove("limit");
        }
    })
}

/// Sets the one of two names that the file uses, else the first.
fn put(table: &mut dyn TableLike, [key, alias]: [&str; 2], rate: Rate) {
    let key = if table.contains_key(alias) { alias } else { key };
    let mut value = Value::from(rate.to_string());
    if let Some(old) = table.get(key).and_then(Item::as_value) {
        // The comment behind it is the user's.
        *value.decor_mut() = old.decor().clone();
    }
    table.insert(key, Item::Value(value));
}

fn edit(path: &Path, change: impl FnOnce(&mut DocumentMut)) -> Result<(), Error> {
    let text = file::read(path)?.unwrap_or_default();
    // What is wrong in it was told by `Settings::read`, with its line.
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| Error::Corrupted {
        path: path.to_owned(),
        line: 1,
        why: clean(error.message(), 200),
    })?;
    change(&mut document);
    file::write(path, &document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn rate(text: &str) -> Option<Rate> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn limits_are_what_the_user_wrote_in_any_of_the_forms() {
        let text = "[limit]\nup = \"200Mbit\"\ndown = 5000000\nlan-up = \"1.5MiB\"\n";
        let limits = Bandwidth { up: rate("25MB"), down: rate("5MB"), lan_up: rate("1572864"), ..Bandwidth::default() };
        let (_dir, path) = at(text);
        let settings = Settings::read(&path).unwrap();
        assert_eq!((settings.limit, settings.warnings), (limits, Vec::new()));
        let (_dir, path) = at("[limit]\nuq = \"1MB\"\n");
        assert!(Settings::read(&path).unwrap().warnings[0].contains("`uq`"));
    }

    #[test]
    fn what_is_no_limit_is_told_with_its_line() {
        for text in ["up = 0", "up = -5", "up = \"fast\"", "up = \"20Mb\"", "up = true", "up = 1.5"] {
            let (_dir, path) = at(&format!("[limit]\n{text}\n"));
            let error = Settings::read(&path).unwrap_err();
            assert!(matches!(error, Error::Corrupted { line: 2, .. }), "{text}: {error:?}");
            assert!(change_limits(&path, &Bandwidth { down: rate("1MB"), ..Bandwidth::default() }).is_err());
        }
    }

    #[test]
    fn a_change_leaves_the_rest_of_the_file_as_the_user_wrote_it() {
        let text = "# mine\nport = 4242 # why\n\n[limit] # slow line\nup = \"200Mbit\" # at night\nlan-up = 1000000\n";
        let (_dir, path) = at(text);
        let read = || std::fs::read_to_string(&path).unwrap();
        // What is set to what it is already stays in the user's own words.
        change_limits(&path, &Bandwidth { up: rate("25MB"), lan_up: rate("2MB"), ..Bandwidth::default() }).unwrap();
        assert_eq!(read(), text.replace("1000000", "\"2MB\""));
        change_limits(&path, &Bandwidth { up: rate("1MB"), down: rate("3MB"), ..Bandwidth::default() }).unwrap();
        let changed = text.replace("200Mbit", "1MB").replace("1000000", "\"2MB\"");
        assert_eq!(read(), format!("{changed}down = \"3MB\"\n"));
        remove_limits(&path).unwrap();
        assert_eq!(read(), "# mine\nport = 4242 # why\n");
        remove_limits(&path).unwrap();
    }

    #[test]
    fn a_file_is_made_where_there_is_none_and_not_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hffs").join("config.toml");
        remove_limits(&path).unwrap();
        assert!(!path.exists());
        change_limits(&path, &Bandwidth { lan_down: rate("1MB"), ..Bandwidth::default() }).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[limit]\nlan_down = \"1MB\"\n");
    }
}
