//! Names that come from outside: repos, revisions, commits, paths, peers.
//!
//! Knows the Hub's rules for what a name may look like, and the file systems' rules for what a
//! name may do. Does not know where anything is stored or who said it.
//! Invariant: a value of these types has been parsed. Parsing rejects and never repairs, because
//! a repaired name is a name that nobody asked for.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} `{shown}` {why}")]
pub struct BadName {
    kind: &'static str,
    shown: String,
    why: &'static str,
}

impl BadName {
    fn new(kind: &'static str, text: &str, why: &'static str) -> Self {
        Self { kind, shown: clean(text, 80), why }
    }
}

/// Makes a foreign string fit for a terminal: control and bidirectional characters become `\u{..}`
/// escapes, and what is longer than `max` characters is cut.
pub fn clean(text: &str, max: usize) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == max {
            out.push('…');
            break;
        }
        if c.is_control() || is_bidi_or_invisible(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

fn is_bidi_or_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Gives a checked string type its conversions: text out as it came in, text in only by `parse`.
macro_rules! parsed_text {
    ($name:ident) => {
        impl $name {
            /// The name as it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.to_string()
            }
        }
    };
}

/// What kind of repo: it decides the URL prefix and the cache folder's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RepoType {
    #[default]
    Model,
    Dataset,
    Space,
}

impl RepoType {
    pub const ALL: [RepoType; 3] = [RepoType::Model, RepoType::Dataset, RepoType::Space];

    /// `models`, `datasets` or `spaces`: in API paths and, with `--`, in cache folder names.
    pub fn plural(self) -> &'static str {
        match self {
            RepoType::Model => "models",
            RepoType::Dataset => "datasets",
            RepoType::Space => "spaces",
        }
    }

    /// `model`, `dataset` or `space`, as the command line writes it.
    pub fn singular(self) -> &'static str {
        match self {
            RepoType::Model => "model",
            RepoType::Dataset => "dataset",
            RepoType::Space => "space",
        }
    }
}

impl fmt::Display for RepoType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.singular())
    }
}

impl FromStr for RepoType {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.singular() == text)
            .ok_or_else(|| BadName::new("repo type", text, "is none of model, dataset, space"))
    }
}

/// `org/name`, or a legacy bare `name`.
///
/// The rules are those of `huggingface_hub` (`utils/_validators.py`, `validate_repo_id`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepoId(Arc<str>);
parsed_text!(RepoId);

impl FromStr for RepoId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = |why| Err(BadName::new("repo id", text, why));
        if text.is_empty() {
            return bad("is empty");
        }
        if text.len() > limits::REPO_ID_BYTES_MAX {
            return bad("is longer than 96 characters");
        }
        if text.split('/').count() > 2 {
            return bad("has more than one `/`: write `org/name`");
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
        if !text.chars().all(allowed) {
            return bad("may only hold letters, digits, `-`, `_`, `.` and one `/`");
        }
        if text.contains("--") || text.contains("..") {
            return bad("may hold neither `--` nor `..`");
        }
        if text.ends_with(".git") {
            return bad("may not end with `.git`");
        }
        let edge = |c: char| matches!(c, '-' | '.');
        if text.split('/').any(|part| part.is_empty() || part.starts_with(edge) || part.ends_with(edge)) {
            return bad("has a part that is empty, or starts or ends with `-` or `.`");
        }
        Ok(Self(text.into()))
    }
}

/// A repo: its type and its id. What the cache calls one folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Repo {
    pub kind: RepoType,
    pub id: RepoId,
}

impl Repo {
    /// The cache folder's name: `models--org--name`.
    pub fn folder(&self) -> String {
        format!("{}--{}", self.kind.plural(), self.id.as_str().replace('/', "--"))
    }

    /// Reads a cache folder's name back; `None` for folders that are not repos.
    pub fn from_folder(folder: &str) -> Option<Self> {
        let (plural, rest) = folder.split_once("--")?;
        let kind = RepoType::ALL.into_iter().find(|kind| kind.plural() == plural)?;
        let id = rest.replacen("--", "/", 1).parse().ok()?;
        Some(Self { kind, id })
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RepoType::Model => write!(f, "{}", self.id),
            kind => write!(f, "{kind} {}", self.id),
        }
    }
}

/// Whom a repo's files may be shared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// The Hub told somebody without a token that the repo is neither private nor gated.
    Public,
    /// Everything else: only for peers that this machine's user paired with.
    Restricted,
}

/// A full commit id: 40 lowercase hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Commit(Arc<str>);
parsed_text!(Commit);

impl FromStr for Commit {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 40 && text.bytes().all(hex) {
            Ok(Self(text.into()))
        } else {
            Err(BadName::new("commit", text, "is not 40 lowercase hexadecimal digits"))
        }
    }
}

/// What the user asked for: a branch, a tag, `refs/pr/N` or a commit.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Revision(Arc<str>);
parsed_text!(Revision);

impl Revision {
    /// `main`, the Hub's default branch.
    pub fn main() -> Self {
        Self("main".into())
    }

    /// The commit, when the revision is one already and needs no resolving.
    pub fn as_commit(&self) -> Option<Commit> {
        self.0.parse().ok()
    }
}

impl FromStr for Revision {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        // A revision becomes a file below `refs/`, so it obeys the rules of a path, and git's own
        // (git-check-ref-format) on top.
        check_path("revision", text)?;
        let bad = |why| Err(BadName::new("revision", text, why));
        if text.len() > limits::REVISION_BYTES_MAX {
            return bad("is longer than 200 bytes");
        }
        if text.contains("..") || text.contains("@{") {
            return bad("may hold neither `..` nor `@{`");
        }
        if text.contains([' ', '~', '^', '?', '*', '[']) {
            return bad("holds a character that git refuses in a ref");
        }
        if text.split('/').any(|part| part.starts_with('.') || part.ends_with('.') || part.ends_with(".lock")) {
            return bad("has a part that git refuses in a ref");
        }
        Ok(Self(text.into()))
    }
}

/// The path of a file inside a repo, with `/` between its parts.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepoPath(Arc<str>);
parsed_text!(RepoPath);

impl RepoPath {
    /// The parts of the path, outermost folder first.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl FromStr for RepoPath {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        check_path("path", text)?;
        Ok(Self(text.into()))
    }
}

/// What any name must obey that becomes a path below one of our folders, on any system that a
/// lab shares files with.
fn check_path(kind: &'static str, text: &str) -> Result<(), BadName> {
    let bad = |why| Err(BadName::new(kind, text, why));
    if text.is_empty() {
        return bad("is empty");
    }
    if text.len() > limits::PATH_BYTES_MAX {
        return bad("is too long");
    }
    if text.chars().any(|c| c.is_control() || is_bidi_or_invisible(c)) {
        return bad("holds a control or invisible character");
    }
    if text.contains('\\') {
        return bad("holds a `\\`");
    }
    if text.starts_with('/') {
        return bad("is absolute");
    }
    for part in text.split('/') {
        match part {
            "" => return bad("has an empty part"),
            "." | ".." => return bad("has a `.` or `..` part"),
            _ if part.len() > limits::PATH_PART_BYTES_MAX => return bad("has a part longer than 255 bytes"),
            // A colon is a drive or an alternate stream on Windows.
            _ if part.contains(':') => return bad("holds a `:`"),
            _ if part.ends_with([' ', '.']) => return bad("has a part that ends with a space or a dot"),
            _ if is_device(part) => return bad("has a part that is a device name on Windows"),
            _ => {}
        }
    }
    Ok(())
}

/// Whether Windows takes the name for a device, whatever its ending.
fn is_device(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or(part).trim_end().to_ascii_uppercase();
    if matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$") {
        return true;
    }
    ["COM", "LPT"].into_iter().any(|port| {
        stem.strip_prefix(port).is_some_and(|n| {
            let mut chars = n.chars();
            matches!((chars.next(), chars.next()), (Some('1'..='9' | '¹' | '²' | '³'), None))
        })
    })
}

/// A daemon's identity on the network: libp2p's peer id in its usual base58 form.
///
/// Only the `swarm` room speaks libp2p, so everybody else holds this.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerId(Arc<str>);
parsed_text!(PeerId);

impl PeerId {
    /// The last eight characters: enough for a person to tell the peers of a lab apart.
    pub fn short(&self) -> &str {
        let start = self.0.len().saturating_sub(8);
        self.0.get(start..).unwrap_or(&self.0)
    }
}

impl FromStr for PeerId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        // The alphabet of base58btc leaves out the letters that people confuse.
        let base58 = |b: u8| b.is_ascii_alphanumeric() && !matches!(b, b'0' | b'O' | b'I' | b'l');
        if (16..=limits::PEER_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(base58) {
            Ok(Self(text.into()))
        } else {
            Err(BadName::new("peer id", text, "is not base58"))
        }
    }
}

/// A host as the user wrote it: an IP address or a name that is looked up at each dial.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host(String);

/// Why a host was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("host `{shown}` {why}")]
pub struct BadHost {
    shown: String,
    why: &'static str,
}

impl Host {
    /// The address, when the user wrote one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }

    /// The host as it was written, without the brackets that URLs put around IPv6 addresses.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Host {
    type Err = BadHost;
    fn from_str(text: &str) -> Result<Self, BadHost> {
        let bad = |why| Err(BadHost { shown: clean(text, 80), why });
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            if ip.is_unspecified() || ip.is_multicast() {
                return bad("is no machine's address");
            }
            return Ok(Self(ip.to_string()));
        }
        if text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            return bad("holds a port: write it as `--port N`");
        }
        // A full name may end with the root's dot, and is the same name without it.
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() || name.len() > limits::HOST_BYTES_MAX {
            return bad("is empty or too long");
        }
        let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let label = |part: &str| {
            (1..=limits::HOST_LABEL_BYTES_MAX).contains(&part.len())
                && part.chars().all(letter)
                && !part.starts_with('-')
                && !part.ends_with('-')
        };
        if !name.split('.').all(label) {
            return bad("is neither an IP address nor a host name");
        }
        // `10.0.0.256` and `10.1` are slips, not names: no machine's name ends with a number.
        if name.rsplit('.').next().is_some_and(|last| last.chars().all(|c| c.is_ascii_digit())) {
            return bad("is not a whole IPv4 address");
        }
        Ok(Self(name.to_ascii_lowercase()))
    }
}

impl TryFrom<String> for Host {
    type Error = BadHost;
    fn try_from(text: String) -> Result<Self, BadHost> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> String {
        host.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn repo_ids_follow_the_hubs_rules() {
        for good in ["gpt2", "org/name", "Qwen/Qwen2.5-7B-Instruct", "a_b/c.d"] {
            assert_eq!(good.parse::<RepoId>().unwrap().as_str(), good);
        }
        let long = "x".repeat(97);
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "..",
            "a/..",
            "../a",
            "a--b/c",
            "-a/b",
            "a/b.",
            "a/b.git",
            "a b",
            "a/b\n",
            "C:/x",
            "é/x",
            long.as_str(),
        ] {
            assert!(bad.parse::<RepoId>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn hostile_paths_are_refused() {
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a/./b",
            "a//b",
            "a/",
            "C:/x",
            "a/b:c",
            "a\\b",
            "\\\\host\\share",
            "a\0b",
            "a\nb",
            "x/\u{202e}gpj.exe",
            "CON",
            "nul.txt",
            "a/COM1.bin",
            "lpt9",
            "a /b",
            "a./b",
            "..",
        ] {
            assert!(bad.parse::<RepoPath>().is_err(), "{bad:?} was taken");
        }
        for good in ["config.json", "a/b c+d.txt", ".gitattributes", "日本/モデル.bin", "a..b", "common/console.py"]
        {
            assert!(good.parse::<RepoPath>().is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn revisions_may_have_slashes_but_not_climb() {
        for good in ["main", "v1.0", "feature/x", "refs/pr/1", "0123456789abcdef0123456789abcdef01234567"] {
            assert!(good.parse::<Revision>().is_ok(), "{good:?} was refused");
        }
        for bad in ["", "../main", "a..b", "a b", "/main", "main/", "a.lock", "refs/.hidden", "x\u{7}"] {
            assert!(bad.parse::<Revision>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_host_is_an_address_or_a_name() {
        for (text, host) in [
            ("192.168.1.5", "192.168.1.5"),
            ("::1", "::1"),
            ("[fe80:0:0:0:0:0:0:1]", "fe80::1"),
            ("Gpu-01.lab", "gpu-01.lab"),
            ("gpu_01", "gpu_01"),
            ("gpu.lab.", "gpu.lab"),
        ] {
            assert_eq!(text.parse::<Host>().unwrap().as_str(), host);
        }
        let long = "a".repeat(64);
        for bad in [
            "",
            ".",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "300.1.1.1",
            "1.2.3",
            "1.2.3.4:9009",
            "[::1]:9009",
            "gpu:9009",
            "http://gpu",
            "gpu/x",
            "-gpu",
            "gpu..lab",
            "g pu",
            "fe80::1%eth0",
            "g\u{1b}[2J",
            long.as_str(),
        ] {
            assert!(bad.parse::<Host>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn folders_read_back_as_the_repo_they_were_made_from() {
        for (kind, id) in [(RepoType::Model, "gpt2"), (RepoType::Dataset, "org/name"), (RepoType::Space, "a/b-c")] {
            let repo = Repo { kind, id: id.parse().unwrap() };
            assert_eq!(Repo::from_folder(&repo.folder()), Some(repo));
        }
        assert_eq!(Repo::from_folder("blobs"), None);
        assert_eq!(Repo::from_folder("models--.."), None);
    }

    proptest! {
        #[test]
        fn a_parsed_path_stays_below_its_folder(text in ".*") {
            if let Ok(path) = text.parse::<RepoPath>() {
                prop_assert_eq!(path.as_str(), text.as_str());
                let joined = std::path::Path::new("base").join(path.as_str());
                prop_assert!(joined.starts_with("base"));
                prop_assert!(joined.components().all(|c| matches!(c, std::path::Component::Normal(_))));
            }
        }

        #[test]
        fn cleaned_text_has_no_control_characters(text in "\\PC*|.*") {
            prop_assert!(!clean(&text, 80).chars().any(|c| c.is_control() || is_bidi_or_invisible(c)));
        }
    }
}
