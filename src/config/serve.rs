//! `[serve]`: where the HTTP face listens, who may do what there, and which webhooks it takes in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::section::{Field, Item, Section};
use super::units::parse_size;
use super::{ConfigError, Environment};
use crate::event::TypeFilter;
use crate::group::GroupName;
use crate::secret::SecretSource;

mod hook;
mod pull;
mod template;

pub use hook::{HmacEncoding, HmacScheme, Hook, Verify};
pub use pull::PullSettings;
pub use template::{Template, TemplatePart};

/// The port of the loopback interface on which it listens unless told otherwise.
const PORT: u16 = 8787;

/// The largest body of a request unless told otherwise, in bytes.
const MAX_BODY: usize = 16 << 20;

/// What `max_body` may be, in bytes: as much as there is room for all bodies together.
const LEAST_BODY: usize = 1 << 10;
const MOST_BODY: usize = 64 << 20;

/// The longest that an event may wait for others.
const MOST_LINGER: Duration = Duration::from_secs(10);

/// The most connections at a time unless told otherwise.
const MAX_CONNECTIONS: usize = 1_024;

const KEYS: [&str; 12] = [
    "listen",
    "hosts",
    "origins",
    "cert",
    "key",
    "behind_proxy",
    "linger",
    "max_body",
    "max_connections",
    "tokens",
    "hooks",
    "groups",
];
const TOKEN_KEYS: [&str; 2] = ["secret", "may"];

/// `[serve]`, with all defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeSettings {
    /// Where to listen.
    pub listen: Vec<ListenAddress>,
    /// Names of this server beside those of the loopback interface, without a port.
    pub hosts: Vec<String>,
    /// Origins whose pages may call it: `https://app.example`.
    pub origins: Vec<String>,
    /// Certificate chain and private key, in PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whether a proxy before it speaks TLS.
    pub behind_proxy: bool,
    /// How long an event waits for others.
    pub linger: Option<Duration>,
    /// The largest body of a request, in bytes.
    pub max_body: usize,
    /// The most connections at a time.
    pub max_connections: usize,
    /// `[serve.tokens.NAME]`.
    pub tokens: Vec<Token>,
    /// `[serve.hooks.NAME]`.
    pub hooks: BTreeMap<String, Hook>,
    /// `[serve.groups.NAME]`.
    pub groups: BTreeMap<GroupName, Arc<PullSettings>>,
}

impl Default for ServeSettings {
    fn default() -> Self {
        Self {
            listen: vec![ListenAddress::local(PORT)],
            hosts: Vec::new(),
            origins: Vec::new(),
            tls: None,
            behind_proxy: false,
            linger: None,
            max_body: MAX_BODY,
            max_connections: MAX_CONNECTIONS,
            tokens: Vec::new(),
            hooks: BTreeMap::new(),
            groups: BTreeMap::new(),
        }
    }
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address and a port.
    Tcp(std::net::SocketAddr),
    /// The path of a socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Reads `127.0.0.1:8787`, `[::1]:8787`, `8787` (on the loopback interface) or `unix:PATH`.
    ///
    /// # Errors
    /// It is none of these; what to write.
    pub fn parse(text: &str, environment: &Environment, folder: &Path) -> Result<Self, &'static str> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("has no path behind unix:"),
                path => Ok(Self::Unix(environment.expand(Path::new(path), folder))),
            };
        }
        let port = text.strip_prefix(':').unwrap_or(text);
        match (port.parse(), text.strip_prefix("localhost:").map(str::parse)) {
            (Ok(port), _) | (_, Some(Ok(port))) => Ok(Self::local(port)),
            _ => text.parse().map(Self::Tcp).map_err(|_| "is not ADDRESS:PORT, PORT or unix:PATH"),
        }
    }

    fn local(port: u16) -> Self {
        Self::Tcp(std::net::SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// Whether only this machine reaches it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whether a host, as a URL or a `Host` header has it, is that of the loopback interface.
pub fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A token and what its bearer may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its name in the config.
    pub name: String,
    /// Each of them is good.
    pub secrets: Vec<SecretSource>,
    /// What the bearer may do.
    pub may: Permissions,
}

/// What a bearer may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Emit events of these types.
    pub emit: Option<TypeFilter>,
    /// Read events of these types.
    pub read: Option<TypeFilter>,
    /// Be a member of these groups; `*` for every one.
    pub pull: Vec<String>,
    /// Everything.
    pub admin: bool,
}

impl Permissions {
    /// Everything.
    pub fn all() -> Self {
        Self { admin: true, ..Self::default() }
    }

    /// Whether the bearer may be a member of a group.
    pub fn may_pull(&self, group: &GroupName) -> bool {
        self.admin || self.pull.iter().any(|name| name == "*" || name == group.as_str())
    }

    /// Reads `emit:PATTERN`, `read:PATTERN`, `pull:GROUP` and `admin`.
    ///
    /// # Errors
    /// The text that is none of them, and what is wrong with it.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, (&'a str, String)> {
        let (mut emit, mut read) = (Vec::new(), Vec::new());
        let mut permissions = Self::default();
        for text in texts {
            match text.split_once(':') {
                None if text == "admin" => permissions.admin = true,
                Some(("emit", pattern)) => emit.push(checked_pattern(text, pattern)?),
                Some(("read", pattern)) => read.push(checked_pattern(text, pattern)?),
                Some(("pull", "*")) => permissions.pull.push("*".to_owned()),
                Some(("pull", group)) => {
                    let group = GroupName::parse(group).map_err(|error| (text, error.to_string()))?;
                    permissions.pull.push(group.to_string());
                }
                _ => {
                    let known = "is none of emit:PATTERN, read:PATTERN, pull:GROUP and admin";
                    return Err((text, known.to_owned()));
                }
            }
        }
        let filter = |patterns: &[String]| TypeFilter::new(patterns, &[]).ok().filter(|_| !patterns.is_empty());
        Ok(Self { emit: filter(&emit), read: filter(&read), ..permissions })
    }
}

fn checked_pattern<'a>(text: &'a str, pattern: &str) -> Result<String, (&'a str, String)> {
    if pattern.contains([',', '!']) || pattern.contains(char::is_whitespace) {
        return Err((text, "has a character that no pattern has (write one entry for each pattern)".to_owned()));
    }
    let pattern = pattern.to_owned();
    match TypeFilter::new(std::slice::from_ref(&pattern), &[]) {
        Ok(_) => Ok(pattern),
        Err(error) => Err((text, error.to_string())),
    }
}

impl ServeSettings {
    /// Parses `[serve]`; relative paths start from `folder`.
    pub(super) fn read(field: &Field<'_>, environment: &Environment, folder: &Path) -> Result<Self, ConfigError> {
        let section = field.section()?;
        section.refuse_unknown(&KEYS)?;
        let mut settings = Self::default();
        if let Some(field) = section.field("listen") {
            let address = |item: Item<'_>| {
                let address = ListenAddress::parse(item.text, environment, folder);
                address.map_err(|why| field.error_at(item.offset, format_args!("'{}' {why}", item.text.escape_debug())))
            };
            let listen: Vec<_> = field.one_or_more()?.into_iter().map(address).collect::<Result<_, _>>()?;
            if !listen.is_empty() {
                settings.listen = listen;
            }
        }
        if let Some(field) = section.field("hosts") {
            settings.hosts = texts(&field, is_host, "is not the name of a host alone (leave out scheme and port)")?;
        }
        if let Some(field) = section.field("origins") {
            settings.origins = texts(&field, is_origin, "is not an origin, such as https://app.example")?;
        }
        settings.tls = section.certificate(environment, folder)?;
        if let Some(field) = section.field("behind_proxy") {
            settings.behind_proxy = field.flag()?;
        }
        if let Some(field) = section.field("linger") {
            settings.linger = match field.duration()? {
                linger if linger <= MOST_LINGER => Some(linger),
                _ => return Err(field.error("must be at most 10s")),
            };
        }
        if let Some(field) = section.field("max_body") {
            let size = parse_size(field.text()?).map_err(|error| field.error(error))?;
            settings.max_body = match usize::try_from(size) {
                Ok(size) if (LEAST_BODY..=MOST_BODY).contains(&size) => size,
                _ => return Err(field.error("must be from 1KiB to 64MiB")),
            };
        }
        if let Some(field) = section.field("max_connections") {
            settings.max_connections = field.whole(1, 65_536)?;
        }
        for token in fields_of(&section, "tokens")? {
            settings.tokens.push(read_token(&token, environment, folder)?);
        }
        for hook in fields_of(&section, "hooks")? {
            settings.hooks.insert(hook.name.to_owned(), Hook::read(&hook, environment, folder)?);
        }
        for group in fields_of(&section, "groups")? {
            let (name, pull) = PullSettings::read(&group)?;
            settings.groups.insert(name, Arc::new(pull));
        }
        Ok(settings)
    }
}

/// The fields of a table, if it is there.
fn fields_of<'a>(section: &Section<'a>, key: &str) -> Result<Vec<Field<'a>>, ConfigError> {
    let table = section.field(key).map(|field| field.section()).transpose()?;
    Ok(table.iter().flat_map(Section::fields).collect())
}

fn read_token(field: &Field<'_>, environment: &Environment, folder: &Path) -> Result<Token, ConfigError> {
    let section = field.section()?;
    section.refuse_unknown(&TOKEN_KEYS)?;
    let secret = section.field("secret").ok_or_else(|| field.error("has no secret (add secret = \"env:NAME\")"))?;
    let may = section.field("may").ok_or_else(|| field.error("may do nothing (add may = [\"emit:order.*\"])"))?;
    let items = may.items()?;
    let permissions = Permissions::parse(items.iter().map(|item| item.text));
    let permissions = permissions.map_err(|(text, why)| {
        let offset = items.iter().find(|item| item.text == text).map_or(may.offset, |item| item.offset);
        may.error_at(offset, format_args!("'{}' {why}", text.escape_debug()))
    })?;
    Ok(Token { name: field.name.to_owned(), secrets: read_secrets(&secret, environment, folder)?, may: permissions })
}

/// A secret, or several that all are good.
fn read_secrets(field: &Field<'_>, environment: &Environment, folder: &Path) -> Result<Vec<SecretSource>, ConfigError> {
    match field.secrets(environment, folder)? {
        secrets if secrets.is_empty() => Err(field.error("is empty")),
        secrets => Ok(secrets),
    }
}

/// An array of texts that all are as they are to be, in lower case.
fn texts(field: &Field<'_>, is_good: fn(&str) -> bool, problem: &str) -> Result<Vec<String>, ConfigError> {
    let read = |item: Item<'_>| match item.text.to_ascii_lowercase() {
        text if is_good(&text) => Ok(text),
        text => Err(field.error_at(item.offset, format_args!("'{}' {problem}", text.escape_debug()))),
    };
    field.one_or_more()?.into_iter().map(read).collect()
}

fn is_host(text: &str) -> bool {
    let address = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
    }
}

fn is_origin(text: &str) -> bool {
    let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    authority.is_some_and(|authority| {
        !authority.is_empty() && authority.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_at_are_read() {
        let environment = Environment::from_process();
        let parse = |text| ListenAddress::parse(text, &environment, Path::new("/etc")).map(|found| found.to_string());
        for (text, wanted) in [
            ("127.0.0.1:8787", "127.0.0.1:8787"),
            ("8787", "127.0.0.1:8787"),
            (":0", "127.0.0.1:0"),
            ("localhost:80", "127.0.0.1:80"),
            ("[::1]:8787", "[::1]:8787"),
            ("0.0.0.0:1", "0.0.0.0:1"),
            ("unix:run/evbus.sock", "unix:/etc/run/evbus.sock"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(wanted), "{text}");
        }
        for text in ["", "unix:", "example.org:80", "127.0.0.1", "99999", "http://127.0.0.1:1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn permissions_are_read_one_by_one() {
        let all = Permissions::parse(["emit:order.*", "emit:a", "read:**", "admin"]).unwrap();
        assert!(all.admin && all.read.is_some_and(|read| read.matches("x.y")));
        let emit = all.emit.unwrap();
        assert!(emit.matches("order.created") && emit.matches("a") && !emit.matches("b"));
        let pull = Permissions::parse(["pull:mail", "pull:crm"]).unwrap();
        let group = |name| GroupName::parse(name).unwrap();
        assert!(pull.may_pull(&group("mail")) && pull.may_pull(&group("crm")) && !pull.may_pull(&group("m")));
        assert!(Permissions::parse(["pull:*"]).unwrap().may_pull(&group("m")));
        for text in [
            "pull:",
            "pull:Mail",
            "pull:mail*",
            "emit:a,b",
            "emit:!a",
            "emit: a",
            "emit",
            "emit:",
            "emit:a..b",
            "Admin",
            "write:a",
        ] {
            assert_eq!(Permissions::parse(["admin", text]).unwrap_err().0, text);
        }
        assert_eq!(Permissions::parse(["admin"]).unwrap(), Permissions::all());
    }
}
