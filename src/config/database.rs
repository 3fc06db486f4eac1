//! The address of a database: `postgres://user@host/database?schema=…`, and what psql would add to it.
//!
//! What the URL does not say comes from the variables of libpq (PostgreSQL, 34.15), the password also from its file
//! (34.16). No server is asked here. A text that may hold a secret is never shown.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::Environment;
use super::parts::{Problem, percent_decoded};
use crate::store::postgres::{Database, Ssl, SslMode};

/// Where servers make their sockets, of Debian's packages and of PostgreSQL's own build.
const SOCKETS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

const DEFAULT_PORT: u16 = 5432;

fn refused(what: impl std::fmt::Display) -> Problem {
    (format!("the postgres:// URL {what}"), None)
}

/// The place of `postgres://rest`.
pub(super) fn parse(rest: &str, environment: &Environment) -> Result<Database, Problem> {
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (mut own, mut kept) = (Own::default(), Vec::new());
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let decoded = percent_decoded(value).and_then(|bytes| String::from_utf8(bytes).ok());
        let value = decoded.ok_or_else(|| refused(format_args!("has a broken % in its {}", shown(name))))?;
        match name {
            "schema" => own.schema = Some(value),
            "sslmode" => own.ssl_mode = Some(value),
            "sslrootcert" => own.root = Some(value),
            "sslcert" => own.certificate = Some(value),
            "sslkey" => own.key = Some(value),
            "listen" => own.listen = Some(value),
            "host"
            | "hostaddr"
            | "port"
            | "user"
            | "dbname"
            | "password"
            | "application_name"
            | "options"
            | "connect_timeout"
            | "target_session_attrs"
            | "channel_binding"
            | "load_balance_hosts"
            | "keepalives"
            | "keepalives_idle" => kept.push(parameter),
            _ => return Err(refused(format_args!("has an unknown parameter{}", shown_name(name)))),
        }
    }
    let place = &with_encoded_password(place);
    let says_port = kept.iter().any(|parameter| parameter.starts_with("port="));
    let place = match environment.var("PGPORT").filter(|_| !says_port) {
        Some(port) => with_port(place, &port.to_string_lossy()),
        None => place.to_owned(),
    };
    let url = format!("postgres://{place}{}{}", if kept.is_empty() { "" } else { "?" }, kept.join("&"));
    // The library's words may repeat a password.
    let mut config: Config = url.parse().map_err(|_| {
        refused("is not understood: postgres://USER@HOST:PORT/DATABASE?schema=NAME&sslmode=verify-full")
    })?;
    fill(&mut config, environment)?;
    let schema = own.schema.unwrap_or_else(|| "evbus".to_owned());
    if schema.is_empty() || schema.len() > 63 || schema.starts_with("pg_") || schema.chars().any(char::is_control) {
        return Err(refused("has a schema that is none: 1 to 63 bytes, and not pg_…"));
    }
    let ssl = ssl(own.ssl_mode, own.root, own.certificate.zip(own.key), environment)?;
    let mut unused_passwords = None;
    if config.get_password().is_none() {
        match password(&config, environment) {
            Ok(Some(password)) => _ = config.password(password),
            Ok(None) => {}
            Err(why) => unused_passwords = Some(why),
        }
    }
    if config.get_application_name().is_none() {
        config.application_name("evbus");
    }
    let listen = own.listen.map(|at| listening(&config, &at)).transpose()?;
    Ok(Database { config, schema, ssl, listen, unused_passwords, timeout: None })
}

/// The place with each '@' of a password encoded: the library would take what follows for the host, and show it.
fn with_encoded_password(place: &str) -> String {
    let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    match authority.rsplit_once('@') {
        Some((who, hosts)) => format!("{}@{hosts}{path}", who.replace('@', "%40")),
        None => place.to_owned(),
    }
}

/// The place with a port behind each host that has none: the library would fill in its own. `ports` is one, or one for
/// each host.
fn with_port(place: &str, ports: &str) -> String {
    let ports: Vec<&str> = ports.split(',').collect();
    let (who, rest) = place.rsplit_once('@').map_or((None, place), |(who, rest)| (Some(who), rest));
    let (hosts, path) = rest.split_once('/').map_or((rest, None), |(hosts, path)| (hosts, Some(path)));
    let has_port = |host: &str| host.is_empty() || host.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
    let with = |(at, host): (usize, &str)| match ports.get(at).or(ports.first()) {
        Some(port) if !has_port(host) => format!("{host}:{port}"),
        _ => host.to_owned(),
    };
    let hosts = hosts.split(',').enumerate().map(with).collect::<Vec<_>>().join(",");
    let who = who.map_or(String::new(), |who| format!("{who}@"));
    format!("{who}{hosts}{}", path.map_or(String::new(), |path| format!("/{path}")))
}

/// The parameters that are not the library's.
#[derive(Default)]
struct Own {
    schema: Option<String>,
    ssl_mode: Option<String>,
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
    listen: Option<String>,
}

/// A parameter's name, if it looks like one: anything else may be the rest of a secret.
fn shown(name: &str) -> &str {
    let is_name = name.len() <= 40 && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    if is_name { name } else { "parameters" }
}

fn shown_name(name: &str) -> String {
    match shown(name) {
        "parameters" => String::new(),
        name => format!(" '{name}' (known are schema, sslmode, sslrootcert, sslcert, sslkey, listen, and libpq's)"),
    }
}

/// What the variables say where the URL says nothing.
fn fill(config: &mut Config, environment: &Environment) -> Result<(), Problem> {
    let var = |name: &str| environment.var(name).map(OsStr::to_string_lossy);
    let bad = |name: &str| (format!("{name} is not understood"), None);
    let ports = |config: &mut Config, text: &str| -> Result<(), Problem> {
        for port in text.split(',') {
            config.port(port.parse().map_err(|_| bad("PGPORT"))?);
        }
        Ok(())
    };
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        match var("PGHOST") {
            Some(hosts) => hosts.split(',').for_each(|host| _ = config.host(host)),
            None => {
                let port = config.get_ports().first().copied();
                let port = port.or(var("PGPORT").and_then(|port| port.parse().ok())).unwrap_or(DEFAULT_PORT);
                let has_socket = |folder: &&&str| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists();
                config.host(SOCKETS.iter().find(has_socket).copied().unwrap_or("localhost"));
            }
        }
    }
    if let (true, Some(text)) = (config.get_ports().is_empty(), var("PGPORT")) {
        ports(config, &text)?;
    }
    if config.get_user().is_none() {
        let user = var("PGUSER").map(|user| user.into_owned()).or_else(|| user_name(environment));
        config.user(user.ok_or_else(|| refused("has no user, and this machine's user has no name (PGUSER)"))?);
    }
    if config.get_dbname().is_none() {
        let user = config.get_user().unwrap_or_default().to_owned();
        config.dbname(var("PGDATABASE").map_or(user, |name| name.into_owned()));
    }
    if let (None, Some(password)) = (config.get_password(), environment.var("PGPASSWORD")) {
        config.password(password.as_bytes());
    }
    if let (None, Some(options)) = (config.get_options(), var("PGOPTIONS")) {
        config.options(&*options);
    }
    if let (None, Some(seconds)) = (config.get_connect_timeout(), var("PGCONNECT_TIMEOUT")) {
        let seconds: u64 = seconds.parse().map_err(|_| bad("PGCONNECT_TIMEOUT"))?;
        if seconds > 0 {
            config.connect_timeout(std::time::Duration::from_secs(seconds));
        }
    }
    Ok(())
}

/// The name of the effective user, as passwd(5) has it.
fn user_name(environment: &Environment) -> Option<String> {
    let lines = fs::read_to_string(environment.etc.join("passwd")).unwrap_or_default();
    let uid = environment.uid.to_string();
    let of = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        (fields.nth(1)? == uid).then_some(name)
    };
    lines.lines().find_map(of)
}

fn ssl(
    mode: Option<String>,
    root: Option<String>,
    identity: Option<(String, String)>,
    environment: &Environment,
) -> Result<Ssl, Problem> {
    let var = |name: &str| environment.var(name).map(|value| value.to_string_lossy().into_owned());
    let mode = mode.or_else(|| var("PGSSLMODE"));
    let mode = match mode.as_deref() {
        None | Some("prefer" | "allow") => SslMode::Prefer,
        Some("disable") => SslMode::Disable,
        Some("require") => SslMode::Require,
        Some("verify-ca") => SslMode::VerifyCa,
        Some("verify-full") => SslMode::VerifyFull,
        Some(_) => {
            let what = "sslmode is disable, prefer, require, verify-ca or verify-full";
            return Err((what.to_owned(), None));
        }
    };
    let expanded = |path: String| environment.expand(Path::new(&path), &environment.cwd);
    let in_home = |name: &str| {
        let path = environment.home.as_ref()?.join(".postgresql").join(name);
        path.exists().then_some(path)
    };
    let root = match root.or_else(|| var("PGSSLROOTCERT")).as_deref() {
        Some("system") => None,
        Some(path) => Some(expanded(path.to_owned())),
        None => in_home("root.crt"),
    };
    let identity = identity
        .or_else(|| var("PGSSLCERT").zip(var("PGSSLKEY")))
        .map(|(certificate, key)| (expanded(certificate), expanded(key)))
        .or_else(|| in_home("postgresql.crt").zip(in_home("postgresql.key")));
    Ok(Ssl { mode, root, identity })
}

/// The password that the file of passwords has for this server, database and user; or why the file is not used.
fn password(config: &Config, environment: &Environment) -> Result<Option<String>, String> {
    let named = environment.var("PGPASSFILE").map(PathBuf::from);
    let Some(path) = named.or_else(|| Some(environment.home.as_ref()?.join(".pgpass"))) else { return Ok(None) };
    let Ok(found) = fs::metadata(&path) else { return Ok(None) };
    if found.permissions().mode() & 0o077 != 0 {
        let shown = path.display();
        return Err(format!("{shown} is not used, because others may read it: chmod 600 {shown}"));
    }
    let text = fs::read_to_string(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        // The default folder of sockets is this machine.
        Some(Host::Unix(folder)) if SOCKETS.iter().any(|default| folder == Path::new(default)) => {
            "localhost".to_owned()
        }
        Some(Host::Unix(folder)) => folder.display().to_string(),
        None => "localhost".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(DEFAULT_PORT).to_string();
    let wanted = [host.as_str(), &port, config.get_dbname().unwrap_or_default(), config.get_user().unwrap_or_default()];
    let matching = text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let (password, place) = fields.split_last()?;
        let fits = place.len() == wanted.len()
            && place.iter().zip(wanted).all(|(field, wanted)| *field == wanted || *field == "*");
        fits.then(|| password.clone())
    });
    Ok(matching)
}

/// The fields of a line of the file of passwords, in which `\` stands before `:` and `\`.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut escaped = false;
    for c in line.chars() {
        match c {
            _ if std::mem::take(&mut escaped) => fields.last_mut().into_iter().for_each(|field| field.push(c)),
            '\\' => escaped = true,
            ':' => fields.push(String::new()),
            c => fields.last_mut().into_iter().for_each(|field| field.push(c)),
        }
    }
    fields
}

/// The same place, but at `host:port`, which passes notifications on.
fn listening(config: &Config, at: &str) -> Result<Config, Problem> {
    let mut other = Config::new();
    let bad = || refused("has a listen that is no HOST:PORT or folder of a socket");
    match at.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() => {
            other.host(host.trim_start_matches('[').trim_end_matches(']')).port(port.parse().map_err(|_| bad())?);
        }
        _ if at.is_empty() => return Err(bad()),
        _ => {
            other.host(at);
        }
    }
    if let Some(user) = config.get_user() {
        other.user(user);
    }
    if let Some(name) = config.get_dbname() {
        other.dbname(name);
    }
    if let Some(password) = config.get_password() {
        other.password(password);
    }
    other.application_name("evbus listen");
    Ok(other)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn environment(vars: &[(&str, &str)], home: &Path) -> Environment {
        Environment {
            vars: vars.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect(),
            home: Some(home.to_owned()),
            cwd: PathBuf::from("/here"),
            ..Environment::from_process()
        }
    }

    fn parsed(rest: &str, vars: &[(&str, &str)]) -> Database {
        parse(rest, &environment(vars, Path::new("/nowhere"))).unwrap()
    }

    fn who(database: &Database) -> (Option<&str>, Option<&str>, Option<&str>, String) {
        let config = &database.config;
        let password = config.get_password().map(|bytes| std::str::from_utf8(bytes).unwrap());
        (config.get_user(), config.get_dbname(), password, database.server())
    }

    #[test]
    fn a_password_may_have_an_at_sign() {
        let database = parsed("ann:wr@on@g@h:5/d@b", &[]);
        assert_eq!(who(&database), (Some("ann"), Some("d@b"), Some("wr@on@g"), "h:5".to_owned()));
    }

    #[test]
    fn a_url_comes_before_the_variables() {
        let vars = [
            ("PGHOST", "other"),
            ("PGPORT", "1111"),
            ("PGUSER", "eve"),
            ("PGDATABASE", "theirs"),
            ("PGPASSWORD", "of the variable"),
        ];
        let all = parsed("ann:s%40crt@db.example.com:6543/shop?schema=bus", &vars);
        assert_eq!(who(&all), (Some("ann"), Some("shop"), Some("s@crt"), "db.example.com:6543".to_owned()));
        assert_eq!(all.schema, "bus");
        let none = parsed("", &vars);
        assert_eq!(who(&none), (Some("eve"), Some("theirs"), Some("of the variable"), "other:1111".to_owned()));
        assert_eq!(none.schema, "evbus");
        let port = parsed("ann@h/x", &[("PGPORT", "6000")]);
        assert_eq!(port.server(), "h:6000");
        let some = parsed("ann:p@[::1],h:7/x", &[("PGPORT", "6000")]);
        assert_eq!(some.server(), "::1:6000, h:7");
        let two = parsed("ann@a:1,b:2/x?target_session_attrs=read-write", &[]);
        assert_eq!(two.server(), "a:1, b:2");
        let socket = parsed("ann@%2Fsock:7/x", &[]);
        assert_eq!(socket.server(), "/sock/.s.PGSQL.7");
    }

    #[test]
    fn tls_is_as_libpq_has_it() {
        let ssl = |rest: &str, vars: &[(&str, &str)]| parsed(rest, vars).ssl;
        assert_eq!(ssl("u@h/d", &[]).mode, SslMode::Prefer);
        assert_eq!(ssl("u@h/d", &[("PGSSLMODE", "require")]).mode, SslMode::Require);
        let full = ssl("u@h/d?sslmode=verify-full&sslrootcert=ca.pem&sslcert=c.pem&sslkey=~/k.pem", &[]);
        assert_eq!((full.mode, full.root), (SslMode::VerifyFull, Some(PathBuf::from("/here/ca.pem"))));
        let (certificate, key) = full.identity.unwrap();
        assert_eq!((certificate, key), (PathBuf::from("/here/c.pem"), PathBuf::from("/nowhere/k.pem")));
        assert_eq!(ssl("u@h/d?sslrootcert=system", &[("PGSSLROOTCERT", "/x")]).root, None);
    }

    #[test]
    fn what_is_not_understood_is_refused_without_its_secrets() {
        for (rest, word) in [
            ("u:geheim@h/d?colour=red", "colour"),
            ("u:geheim@h/d?schema=", "schema"),
            ("u:geheim@h/d?schema=pg_x", "schema"),
            ("u:geheim@h/d?sslmode=yes", "sslmode"),
            ("u:geheim@h:port/d", "not understood"),
            ("u:geheim@h/d?listen=h:x", "listen"),
            ("u:geheim@h/d?schema=%G1", "%"),
        ] {
            let (what, _) = parse(rest, &environment(&[], Path::new("/nowhere"))).unwrap_err();
            assert!(what.contains(word) && !what.contains("geheim"), "{rest}: {what}");
        }
    }

    #[test]
    fn a_database_is_shown_without_its_password() {
        assert!(!format!("{:?}", parsed("u:geheim@h/d", &[])).contains("geheim"));
    }

    #[test]
    fn the_file_of_passwords_is_read_as_psql_reads_it() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(".pgpass");
        fs::write(&file, "# h:*:*:*:comment\nother:5432:d:u:wrong\nh:5432:d:u:a\\:b\\\\c\n*:*:*:*:rest\n").unwrap();
        let chmod = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        chmod(0o600);
        let of = |rest: &str, vars: &[(&str, &str)]| {
            let database = parse(rest, &environment(vars, home.path())).unwrap();
            let password = database.config.get_password().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
            (password, database.unused_passwords)
        };
        assert_eq!(of("u@h/d", &[]).0.as_deref(), Some("a:b\\c"));
        assert_eq!(of("u@h/other", &[]).0.as_deref(), Some("rest"));
        assert_eq!(of("u:own@h/d", &[]).0.as_deref(), Some("own"));
        assert_eq!(of("u@h/d", &[("PGPASSWORD", "v")]).0.as_deref(), Some("v"));
        assert_eq!(of("u@h/d", &[("PGPASSFILE", "/nowhere")]).0, None);
        chmod(0o640);
        let (password, why) = of("u@h/d", &[]);
        assert!(password.is_none() && why.unwrap().contains("chmod 600"));
    }
}
