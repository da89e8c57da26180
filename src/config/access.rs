//! How the Hub is reached: endpoints, token, offline mode, proxies.
//!
//! Knows what each variable means to `huggingface_hub`, and how a command's environment, the daemon's
//! and `config.toml` are put together. Does not know the network.
//! Invariant: at most the one endpoint that the user named as the Hub gets the token; and a token
//! never shows in `Debug`.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Environment, Error, Settings, file, home};
use crate::limits;
use crate::names::clean;

/// A user's Hub token. It goes to the endpoint that the user named as the Hub, and nowhere else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// A token as it stood in a variable or a file; blanks and line ends are dropped, and nothing is no token.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.replace(['\r', '\n'], "");
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// The secret itself. Only the `hub` room may ask.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What an endpoint is to the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The Hub that the user named, or huggingface.co: the only one that is sent the token.
    Hub,
    /// Anything else that serves the Hub's API.
    Mirror,
}

/// A Hub or mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The base URL, `http` or `https`, without a slash at its end.
    pub url: String,
    pub role: Role,
}

/// The Hub unless the user names another.
const HUGGING_FACE: &str = "https://huggingface.co";
/// The mirror that is asked when huggingface.co does not answer, which is the rule where it is blocked.
const HF_MIRROR: &str = "https://hf-mirror.com";

/// Why an endpoint's URL was refused. The URL is not repeated where it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("endpoint `{shown}` {why}")]
pub struct BadEndpoint {
    shown: String,
    why: &'static str,
}

impl Endpoint {
    /// Reads a base URL. huggingface.co is the Hub; any other is a mirror until the user says more.
    pub fn parse(text: &str) -> Result<Self, BadEndpoint> {
        let shown = if text.contains('@') { "…".to_owned() } else { clean(text, 80) };
        let bad = |why| Err(BadEndpoint { shown: shown.clone(), why });
        let Some((scheme, rest)) = text.trim().split_once("://") else {
            return bad("is no URL: write `https://host`");
        };
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https") {
            return bad("is neither `http` nor `https`");
        }
        if text.len() > limits::ENDPOINT_BYTES_MAX {
            return bad("is too long");
        }
        if rest.contains('@') {
            return bad("holds a user name or a password, which would be sent to nobody");
        }
        if rest.contains(['?', '#']) || rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return bad("holds a character that no base URL has");
        }
        let rest = rest.trim_end_matches('/');
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
            _ => (host, None),
        };
        if name.is_empty() || port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
            return bad("has no host, or no usable port");
        }
        let url = format!("{scheme}://{}{path}", host.to_ascii_lowercase());
        let role = if url == HUGGING_FACE { Role::Hub } else { Role::Mirror };
        Ok(Self { url, role })
    }
}

/// The proxies for Hub and mirrors, as `HTTP_PROXY` and its kin name them. Never used for peers.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Proxies {
    pub http: Option<String>,
    pub https: Option<String>,
    pub all: Option<String>,
    pub no: Option<String>,
}

impl fmt::Debug for Proxies {
    /// A proxy's URL may carry a password, so only which of them are set is told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |proxy: &Option<String>| if proxy.is_some() { "set" } else { "unset" };
        write!(f, "Proxies(http {}, https {}, all {})", set(&self.http), set(&self.https), set(&self.all))
    }
}

/// What a process's environment says about the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenChoice {
    Send(Token),
    /// `HF_HUB_DISABLE_IMPLICIT_TOKEN`: none is sent, even where one could be found.
    SendNone,
}

/// What one process's own environment says about reaching the Hub. What it does not say is `None`,
/// and left to the process that does the work.
///
/// A command sends this with its request, because the person who types it may have another token or
/// endpoint in their shell than the daemon was started with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    /// `HF_ENDPOINT`, checked.
    pub endpoint: Option<String>,
    pub token: Option<TokenChoice>,
    pub offline: Option<bool>,
    /// All four together, so that one shell's exceptions are never applied to another's proxy.
    pub proxies: Option<Proxies>,
}

impl Wishes {
    /// Reads an environment, and the token file when no variable holds the token.
    pub fn of(environment: &Environment) -> Result<Self, Error> {
        let endpoint = match environment.get("HF_ENDPOINT") {
            Some(text) => Some(Endpoint::parse(text).map_err(|error| Error::Variable {
                name: "HF_ENDPOINT".into(),
                why: format!("names no endpoint: {error}"),
            })?),
            None => None,
        };
        let offline = environment.get("HF_HUB_OFFLINE").or_else(|| environment.get("TRANSFORMERS_OFFLINE"));
        let either = |upper: &str, lower: &str| {
            // The lower-case name wins in curl and in Python alike.
            environment.get(lower).or_else(|| environment.get(upper)).map(str::to_owned)
        };
        let proxies = Proxies {
            http: either("HTTP_PROXY", "http_proxy"),
            https: either("HTTPS_PROXY", "https_proxy"),
            all: either("ALL_PROXY", "all_proxy"),
            no: either("NO_PROXY", "no_proxy"),
        };
        Ok(Self {
            endpoint: endpoint.map(|endpoint| endpoint.url),
            token: token_choice(environment)?,
            offline: offline.map(is_true),
            proxies: (proxies != Proxies::default()).then_some(proxies),
        })
    }

    /// These wishes, and where they say nothing, those of the daemon.
    ///
    /// The daemon's token was meant for the daemon's Hub. It is taken over only where that is the Hub of
    /// these wishes too, by whatever of variable, settings and default each of them comes to name it.
    pub fn or(self, daemon: &Wishes, settings: &Settings) -> Wishes {
        let same_hub = self.endpoint.is_none() || self.endpoint == daemon.hub(settings);
        Wishes {
            token: self.token.or_else(|| daemon.token.clone().filter(|_| same_hub)),
            endpoint: self.endpoint.or_else(|| daemon.endpoint.clone()),
            offline: self.offline.or(daemon.offline),
            proxies: self.proxies.or_else(|| daemon.proxies.clone()),
        }
    }

    /// The URL of the endpoint that gets the token, if any does.
    fn hub(&self, settings: &Settings) -> Option<String> {
        let endpoints = Access::from_wishes(self.clone(), settings).endpoints;
        endpoints.into_iter().find(|endpoint| endpoint.role == Role::Hub).map(|endpoint| endpoint.url)
    }

    /// What of these wishes may be written to disk: no token, and no proxies if one of them has a login.
    /// That no token is to be sent is no secret, and stays.
    pub fn without_secrets(self) -> Wishes {
        let has_login = |proxies: &Proxies| {
            [&proxies.http, &proxies.https, &proxies.all].into_iter().flatten().any(|url| url.contains('@'))
        };
        Wishes {
            token: self.token.filter(|token| *token == TokenChoice::SendNone),
            proxies: self.proxies.filter(|proxies| !has_login(proxies)),
            ..self
        }
    }
}

/// How one request reaches the Hub: what the command's own environment says, else the daemon's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// In the order in which they are asked.
    pub endpoints: Vec<Endpoint>,
    pub token: Option<Token>,
    /// No Hub and no mirror: peers and the cache only.
    pub offline: bool,
    pub proxies: Proxies,
}

impl Access {
    /// What one environment and the settings make together.
    pub fn new(environment: &Environment, settings: &Settings) -> Result<Self, Error> {
        Ok(Self::from_wishes(Wishes::of(environment)?, settings))
    }

    /// What wishes and the settings make together.
    ///
    /// A Hub that `HF_ENDPOINT` names is asked first, and then only mirrors that `config.toml` lists: a
    /// company's Hub must not leak the names of its models to the world. Nothing but that Hub gets the
    /// token then, huggingface.co included.
    pub fn from_wishes(wishes: Wishes, settings: &Settings) -> Self {
        let listed = settings.endpoints.clone();
        let endpoints = match wishes.endpoint {
            Some(url) => {
                let rest = listed.unwrap_or_default().into_iter().filter(|endpoint| endpoint.url != url);
                let rest = rest.map(|endpoint| Endpoint { role: Role::Mirror, ..endpoint }).collect::<Vec<_>>();
                [Endpoint { url, role: Role::Hub }].into_iter().chain(rest).collect()
            }
            None => listed.unwrap_or_else(|| {
                vec![
                    Endpoint { url: HUGGING_FACE.into(), role: Role::Hub },
                    Endpoint { url: HF_MIRROR.into(), role: Role::Mirror },
                ]
            }),
        };
        let token = match wishes.token {
            Some(TokenChoice::Send(token)) => Some(token),
            Some(TokenChoice::SendNone) | None => None,
        };
        Self { endpoints, token, offline: wishes.offline.unwrap_or(false), proxies: wishes.proxies.unwrap_or_default() }
    }
}

/// What `huggingface_hub` takes for true in a variable (`constants.py`, `ENV_VARS_TRUE_VALUES`).
fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
}

/// The token as `huggingface_hub` finds it: two variables, then the file that `hf auth login` writes.
fn token_choice(environment: &Environment) -> Result<Option<TokenChoice>, Error> {
    if environment.get("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(is_true) {
        return Ok(Some(TokenChoice::SendNone));
    }
    let named = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter().find_map(|name| environment.get(name));
    if let Some(token) = named {
        return Ok(Token::new(token).map(TokenChoice::Send));
    }
    let Some(path) = token_path(environment)? else { return Ok(None) };
    let text = file::read(&path)?;
    Ok(text.and_then(|text| Token::new(&text)).map(TokenChoice::Send))
}

fn token_path(environment: &Environment) -> Result<Option<PathBuf>, Error> {
    if let Some(path) = environment.path("HF_TOKEN_PATH")? {
        return Ok(Some(path));
    }
    // Without a home directory there is no token file, and a public model needs none.
    match home::default_root(environment) {
        Ok(root) => Ok(Some(root.join("token"))),
        Err(Error::NoHome) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The endpoints that come out, `*` behind the one that gets the token.
    fn endpoints(vars: &[(&str, &str)], listed: Option<&[&str]>) -> Vec<String> {
        let listed = listed.map(|urls| urls.iter().map(|url| Endpoint::parse(url).unwrap()).collect());
        let settings = Settings { endpoints: listed, ..Settings::default() };
        let access = Access::new(&Environment::from_vars(vars.iter().copied()), &settings).unwrap();
        let shown = access.endpoints.iter().map(|endpoint| {
            let star = if endpoint.role == Role::Hub { "*" } else { "" };
            format!("{}{star}", endpoint.url)
        });
        shown.collect()
    }

    #[test]
    fn endpoints_are_asked_in_the_users_order() {
        let corp = [("HF_ENDPOINT", "https://Hub.Corp:8443/hf/")];
        let none: [(&str, &str); 0] = [];
        let list: &[&str] = &["https://hf-mirror.com/", "https://huggingface.co"];
        assert_eq!(endpoints(&none, None), ["https://huggingface.co*", "https://hf-mirror.com"]);
        assert_eq!(endpoints(&none, Some(list)), ["https://hf-mirror.com", "https://huggingface.co*"]);
        assert_eq!(endpoints(&none, Some(&[])), [""; 0]);
        assert_eq!(endpoints(&corp, None), ["https://hub.corp:8443/hf*"]);
        // Once the user named a Hub, huggingface.co is one more mirror, and gets no token.
        assert_eq!(
            endpoints(&corp, Some(list)),
            ["https://hub.corp:8443/hf*", "https://hf-mirror.com", "https://huggingface.co"]
        );
        let mirror = [("HF_ENDPOINT", "https://hf-mirror.com")];
        assert_eq!(endpoints(&mirror, Some(list)), ["https://hf-mirror.com*", "https://huggingface.co"]);
    }

    #[test]
    fn what_is_no_base_url_is_no_endpoint() {
        for bad in [
            "",
            "huggingface.co",
            "ftp://x",
            "https://",
            "https:///x",
            "https://u:secret@x",
            "https://x?y",
            "https://x#y",
            "https://x y",
            "https://x:0",
            "https://x:99999",
            "https://x\ny",
            "file:///etc/passwd",
        ] {
            let error = Endpoint::parse(bad).map(|endpoint| endpoint.url).expect_err(bad);
            assert!(!error.to_string().contains("secret"));
        }
        for (good, url) in [
            ("HTTP://127.0.0.1:8080//", "http://127.0.0.1:8080"),
            ("https://[::1]:80", "https://[::1]:80"),
            ("https://[::1]", "https://[::1]"),
            ("https://x/y/z/", "https://x/y/z"),
        ] {
            assert_eq!(Endpoint::parse(good).unwrap().url, url);
        }
        let environment = Environment::from_vars([("HF_ENDPOINT", "huggingface.co")]);
        assert!(matches!(Wishes::of(&environment), Err(Error::Variable { .. })));
    }

    fn token(vars: &[(&str, &str)]) -> Option<String> {
        let access = Access::new(&Environment::from_vars(vars.iter().copied()), &Settings::default()).unwrap();
        access.token.map(|token| token.reveal().to_owned())
    }

    #[test]
    fn the_token_is_found_where_huggingface_hub_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        std::fs::write(dir.path().join("token"), "hf_home\n").unwrap();
        std::fs::write(&elsewhere, " hf_path\r\n").unwrap();
        let path = ("HF_TOKEN_PATH", elsewhere.to_str().unwrap());
        let gone = ("HF_TOKEN_PATH", "/nowhere/token");
        let (first, second) = (("HF_TOKEN", "hf_first"), ("HUGGING_FACE_HUB_TOKEN", "hf_second"));
        let here = ("HF_HOME", home);
        for (vars, wanted) in [
            (vec![], None),
            (vec![here], Some("hf_home")),
            (vec![here, path], Some("hf_path")),
            (vec![here, gone], None),
            (vec![here, path, second], Some("hf_second")),
            (vec![here, path, second, first], Some("hf_first")),
            (vec![here, ("HF_TOKEN", "")], Some("hf_home")),
            (vec![here, first, ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")], None),
            (vec![here, first, ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "0")], Some("hf_first")),
        ] {
            assert_eq!(token(&vars).as_deref(), wanted, "{vars:?}");
        }
    }

    #[test]
    fn offline_means_what_it_means_to_huggingface_hub() {
        for (hub, transformers, wanted) in [
            ("", "", None),
            ("1", "", Some(true)),
            ("yes", "", Some(true)),
            ("True", "", Some(true)),
            ("on", "", Some(true)),
            ("2", "", Some(false)),
            ("", "1", Some(true)),
            ("0", "1", Some(false)),
        ] {
            let vars = [("HF_HUB_OFFLINE", hub), ("TRANSFORMERS_OFFLINE", transformers)];
            assert_eq!(Wishes::of(&Environment::from_vars(vars)).unwrap().offline, wanted, "{vars:?}");
        }
    }

    #[test]
    fn a_commands_environment_wins_over_the_daemons_and_leaves_it_the_rest() {
        let wishes = |vars: &[(&str, &str)]| Wishes::of(&Environment::from_vars(vars.iter().copied())).unwrap();
        let daemon = wishes(&[
            ("HF_ENDPOINT", "http://daemon"),
            ("HF_TOKEN", "hf_daemon"),
            ("HF_HUB_OFFLINE", "1"),
            ("http_proxy", "http://p1"),
            ("no_proxy", "x"),
        ]);
        let settings = Settings::default();
        assert_eq!(Wishes::default().or(&daemon, &settings), daemon);
        let command =
            wishes(&[("HF_HUB_OFFLINE", "0"), ("HF_ENDPOINT", "http://daemon/"), ("HTTPS_PROXY", "http://p2")]);
        let access = Access::from_wishes(command.or(&daemon, &settings), &settings);
        assert_eq!(access.endpoints, [Endpoint { url: "http://daemon".into(), role: Role::Hub }]);
        assert!(!access.offline);
        assert_eq!(access.token.unwrap().reveal(), "hf_daemon");
        assert_eq!(access.proxies, Proxies { https: Some("http://p2".into()), ..Proxies::default() });
        let silent = wishes(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]);
        assert_eq!(Access::from_wishes(silent.or(&daemon, &settings), &settings).token, None);
    }

    #[test]
    fn the_daemons_token_goes_to_the_daemons_hub_and_to_no_other() {
        let wishes = |vars: &[(&str, &str)]| Wishes::of(&Environment::from_vars(vars.iter().copied())).unwrap();
        let listed = |url: &str| Endpoint { url: url.into(), role: Role::Hub };
        let usual = Settings::default();
        let corp = Settings { endpoints: Some(vec![listed("http://corp")]), ..Settings::default() };
        for (daemon, settings, shell, sent) in [
            (None, &usual, None, true),
            (None, &usual, Some("https://huggingface.co/"), true),
            (None, &usual, Some("https://hf-mirror.com"), false),
            (None, &usual, Some("http://shell"), false),
            (None, &corp, Some("http://corp"), true),
            (None, &corp, Some("https://huggingface.co"), false),
            (Some("http://daemon"), &corp, Some("http://corp"), false),
            (Some("http://daemon"), &usual, None, true),
            (Some("http://daemon"), &usual, Some("http://daemon"), true),
        ] {
            let endpoint = |url: Option<&'static str>| url.map(|url| ("HF_ENDPOINT", url));
            let daemons: Vec<_> = endpoint(daemon).into_iter().chain([("HF_TOKEN", "hf_daemon")]).collect();
            let shells: Vec<_> = endpoint(shell).into_iter().collect();
            let access = Access::from_wishes(wishes(&shells).or(&wishes(&daemons), settings), settings);
            assert_eq!(access.token.is_some(), sent, "{daemon:?} {shell:?}");
            // A token of the shell's own goes to whatever Hub there is.
            let shells: Vec<_> = shells.into_iter().chain([("HF_TOKEN", "hf_shell")]).collect();
            let access = Access::from_wishes(wishes(&shells).or(&wishes(&daemons), settings), settings);
            assert_eq!(access.token.unwrap().reveal(), "hf_shell");
        }
    }

    #[test]
    fn what_may_be_written_to_disk_has_no_secret_and_still_sends_no_token_where_none_was_wanted() {
        let wishes = |vars: &[(&str, &str)]| Wishes::of(&Environment::from_vars(vars.iter().copied())).unwrap();
        let secret = wishes(&[("HF_TOKEN", "hf_x"), ("https_proxy", "http://u:p@proxy"), ("HF_ENDPOINT", "http://x")]);
        let kept = secret.without_secrets();
        assert_eq!(kept, Wishes { endpoint: Some("http://x".into()), ..Wishes::default() });
        let open = wishes(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"), ("https_proxy", "http://proxy:3128")]);
        assert_eq!(open.clone().without_secrets(), open);
    }

    #[test]
    fn nothing_that_is_printed_for_debugging_holds_a_secret() {
        let vars = [("HF_TOKEN", "hf_secret"), ("HTTP_PROXY", "http://u:secret@proxy")];
        let wishes = Wishes::of(&Environment::from_vars(vars)).unwrap();
        let shown = format!("{wishes:?} {:?}", Access::from_wishes(wishes.clone(), &Settings::default()));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
