//! `config.toml`: what the user decided once for this work directory.
//!
//! Knows the keys and what they may say. Does not know the environment, which wins over it.
//! Invariant: a key that this version does not know never stops it, so a newer version's file works.

use std::fmt;
use std::num::NonZeroU16;
use std::path::Path;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::{Endpoint, Error, Role, file, limit};
use crate::limits;
use crate::names::clean;
use crate::pace::Bandwidth;

/// The settings of one work directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The port to listen on, and no other. `None`: the default port, or any free one when that is taken.
    pub port: Option<u16>,
    /// The endpoints in the user's order; `None` when the file does not list any.
    pub endpoints: Option<Vec<Endpoint>>,
    /// How fast bytes may flow.
    pub limit: Bandwidth,
    /// What is odd in the file but stops nothing: for the user to see once.
    pub warnings: Vec<String>,
}

/// Every key that `config.toml` may hold.
#[derive(Deserialize)]
struct Written {
    port: Option<NonZeroU16>,
    endpoints: Option<Vec<Listed>>,
    #[serde(default)]
    limit: limit::Table,
}

/// An endpoint as it is listed: its URL alone, or a table that also says what it is.
struct Listed {
    endpoint: Endpoint,
    role: Option<Role>,
}

#[derive(Deserialize)]
struct ListedTable {
    url: String,
    role: Option<Role>,
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct UrlOrTable;
        impl<'de> Visitor<'de> for UrlOrTable {
            type Value = ListedTable;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL, or a table with `url` and `role`")
            }
            fn visit_str<E>(self, url: &str) -> Result<ListedTable, E> {
                Ok(ListedTable { url: url.to_owned(), role: None })
            }
            fn visit_map<M: MapAccess<'de>>(self, table: M) -> Result<ListedTable, M::Error> {
                ListedTable::deserialize(MapAccessDeserializer::new(table))
            }
        }
        let ListedTable { url, role } = from.deserialize_any(UrlOrTable)?;
        let endpoint = Endpoint::parse(&url).map_err(serde::de::Error::custom)?;
        Ok(Self { endpoint, role })
    }
}

/// Gives each listed endpoint its role. A Hub that the user names is the only one: huggingface.co, which
/// is the Hub otherwise, is then a mirror like any other, and gets no token.
fn roles(listed: Vec<Listed>) -> Result<Vec<Endpoint>, String> {
    let named = listed.iter().filter(|one| one.role == Some(Role::Hub)).count();
    if named > 1 {
        return Err("more than one endpoint has the role `hub`, and only one can get the token".into());
    }
    let role = |one: &Listed| one.role.unwrap_or(if named == 1 { Role::Mirror } else { one.endpoint.role });
    Ok(listed.into_iter().map(|one| Endpoint { role: role(&one), ..one.endpoint }).collect())
}

/// The names in `Written` and in its tables: serde does not tell which keys it passed over.
const KEYS: [&str; 3] = ["port", "endpoints", "limit"];
const ENDPOINT_KEYS: [&str; 2] = ["url", "role"];

/// The keys that this version does not know.
fn unknown(written: &toml::Table) -> impl Iterator<Item = &String> {
    let listed = written.get("endpoints").and_then(toml::Value::as_array).into_iter().flatten();
    let of_endpoints = listed.filter_map(toml::Value::as_table).flat_map(toml::Table::keys);
    let of_endpoints = of_endpoints.filter(|key| !ENDPOINT_KEYS.contains(&key.as_str()));
    let of_limit = written.get("limit").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
    let of_limit = of_limit.filter(|key| !limit::KEYS.contains(&key.as_str()));
    written.keys().filter(|key| !KEYS.contains(&key.as_str())).chain(of_endpoints).chain(of_limit)
}

impl Settings {
    /// Reads `config.toml`; a missing file is one that says nothing.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let Some(written) = file::read_toml::<Written>(path)? else { return Ok(Self::default()) };
        let keys = file::read_toml::<toml::Table>(path)?.unwrap_or_default();
        let warnings =
            unknown(&keys).map(|key| format!("`{}` has an unknown key `{}`", path.display(), clean(key, 40)));
        let wrong = |why| Error::Corrupted { path: path.to_owned(), line: 1, why };
        if written.endpoints.as_ref().is_some_and(|list| list.len() > limits::ENDPOINTS_MAX) {
            return Err(wrong(format!("there are more than {} endpoints", limits::ENDPOINTS_MAX)));
        }
        Ok(Self {
            port: written.port.map(NonZeroU16::get),
            endpoints: written.endpoints.map(roles).transpose().map_err(wrong)?,
            limit: written.limit.bandwidth(),
            warnings: warnings.take(limits::CONFIG_WARNINGS_MAX).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;

    fn read(text: &str) -> Result<Settings, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        Settings::read(&path)
    }

    #[test]
    fn a_missing_file_says_nothing() {
        assert_eq!(Settings::read(Path::new("/nowhere/config.toml")).unwrap(), Settings::default());
        assert_eq!(read("").unwrap(), Settings::default());
    }

    #[test]
    fn settings_are_what_the_user_wrote() {
        let settings =
            read("port = 4242\nendpoints = [\"https://hf-mirror.com/\", \"https://huggingface.co\"]").unwrap();
        assert_eq!(settings.port, Some(4242));
        let endpoints = settings.endpoints.unwrap();
        let shown: Vec<_> = endpoints.iter().map(|endpoint| (endpoint.url.as_str(), endpoint.role)).collect();
        assert_eq!(shown, [("https://hf-mirror.com", Role::Mirror), ("https://huggingface.co", Role::Hub)]);
        assert!(settings.warnings.is_empty());
    }

    #[test]
    fn an_endpoint_may_say_that_it_is_the_hub() {
        let table = |url: &str, role: &str| format!("[[endpoints]]\nurl = \"{url}\"\n{role}\n");
        let hub = table("http://hub.corp/", "role = \"hub\"");
        let listed = |text: &str| {
            let endpoints = read(text)?.endpoints.unwrap_or_default();
            Ok::<_, Error>(endpoints.into_iter().map(|endpoint| (endpoint.url, endpoint.role)).collect::<Vec<_>>())
        };
        let hugging_face = table("https://huggingface.co", "");
        assert_eq!(listed(&hugging_face).unwrap(), [("https://huggingface.co".into(), Role::Hub)]);
        assert_eq!(
            listed(&format!("{hub}{hugging_face}")).unwrap(),
            [("http://hub.corp".into(), Role::Hub), ("https://huggingface.co".into(), Role::Mirror)]
        );
        let mirror = table("https://huggingface.co", "role = \"mirror\"");
        assert_eq!(listed(&mirror).unwrap(), [("https://huggingface.co".into(), Role::Mirror)]);
        assert!(listed(&format!("{hub}{hub}")).is_err());
        assert!(listed(&table("http://x", "role = \"king\"")).is_err());
    }

    #[test]
    fn an_unknown_key_is_told_and_passed_over() {
        let settings = read("colour = \"red\"\nport = 1\n[later]\nx = 1").unwrap();
        assert_eq!(settings.port, Some(1));
        assert_eq!(settings.warnings.len(), 2);
        assert!(settings.warnings.iter().any(|warning| warning.contains("`colour`")), "{:?}", settings.warnings);
        // A slip in `role` would send the token elsewhere than meant.
        let settings = read("[[endpoints]]\nurl = \"http://hub.corp\"\nrol = \"hub\"").unwrap();
        assert!(settings.warnings.iter().any(|warning| warning.contains("`rol`")), "{:?}", settings.warnings);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, wanted) in [
            ("port = 0", 1),
            ("\nport = 70000", 2),
            ("port = -1", 1),
            ("port = \"9009\"", 1),
            ("port 9009", 1),
            ("port = 1\nport = 2", 2),
            // Of a list, the line that it begins on.
            ("\n\nendpoints = [\n  \"https://x\",\n  \"ftp://y\",\n]", 3),
            ("endpoints = \"https://x\"", 1),
            ("\u{0}", 1),
        ] {
            let error = read(text).unwrap_err();
            assert!(matches!(error, Error::Corrupted { line, .. } if line == wanted), "{text:?}: {error:?}");
        }
    }
}
