//! Where a bucket is and who may use it: from the URL, the environment and the files of the AWS tools.
//!
//! Later wins: what the tools' files say, the environment, the URL. Nothing is asked of any server here; where neither
//! file nor environment has credentials, the store asks the machine's own role for some.

use std::path::PathBuf;

use super::World;
use super::address::{Problem, percent_decoded};
use super::nearest::did_you_mean;
use crate::store::object::{Bucket, Kind};

/// The parameters of a bucket's URL, and the settings that they are.
const fn known(kind: Kind) -> &'static [(&'static str, &'static str)] {
    match kind {
        Kind::S3 => &[("endpoint", "aws_endpoint_url_s3"), ("region", "aws_region"), ("profile", "profile")],
        Kind::Gcs => &[("endpoint", "google_base_url")],
        Kind::Azure => &[("endpoint", "azure_endpoint")],
    }
}

/// The bucket of `scheme://bucket/prefix?endpoint=…&region=…&profile=…`; `rest` is what follows the `//`.
pub(super) fn parse(kind: Kind, rest: &str, world: &World) -> Result<Bucket, Problem> {
    let scheme = kind.scheme();
    let refused = |what: String| (format!("the {scheme}:// URL {what}"), None);
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (name, prefix) = place.split_once('/').unwrap_or((place, ""));
    if name.is_empty() {
        return Err(refused(format!("has no bucket (write {scheme}://bucket/prefix)")));
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if !name.chars().all(is_name) {
        let cure = "letters, digits, '.', '-'; credentials come from the environment";
        return Err(refused(format!("has '{}' for a bucket ({cure})", name.escape_debug())));
    }
    let decoded = |text: &str| percent_decoded(text).and_then(|bytes| String::from_utf8(bytes).ok());
    let prefix =
        decoded(prefix.trim_end_matches('/')).ok_or_else(|| refused("has a broken % in its path".to_owned()))?;
    let odd = |part: &str| part.is_empty() || part == "." || part == ".." || part.chars().any(char::is_control);
    if !prefix.is_empty() && prefix.split('/').any(odd) {
        return Err(refused(format!("has an empty or odd part in its path '{}'", prefix.escape_debug())));
    }
    let parameters = parameters(kind, query)?;
    let profile = parameters.iter().find(|(name, _)| name == "profile").map(|(_, value)| value.as_str());
    let mut settings = match kind {
        Kind::S3 => profile_settings(profile, world)?,
        Kind::Gcs | Kind::Azure => Vec::new(),
    };
    settings.extend(environment(kind, world));
    settings.extend(parameters);
    Ok(Bucket { kind, name: name.to_owned(), prefix, settings })
}

fn parameters(kind: Kind, query: &str) -> Result<Vec<(String, String)>, Problem> {
    let scheme = kind.scheme();
    let mut found = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let Some((_, setting)) = known(kind).iter().find(|(known, _)| *known == name) else {
            let near = did_you_mean(name, known(kind).iter().map(|(known, _)| *known));
            return Err((
                format!("the {scheme}:// URL has an unknown parameter '{}'{near}", name.escape_debug()),
                None,
            ));
        };
        let value = percent_decoded(value).and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let is_url = value.starts_with("http://") || value.starts_with("https://");
        if name == "endpoint" && (!is_url || value.contains('@')) {
            let what = format!("the {scheme}:// URL has endpoint '{}'", value.escape_debug());
            return Err((what, Some("write endpoint=https://HOST:PORT, without credentials".to_owned())));
        }
        found.push(((*setting).to_owned(), value));
    }
    Ok(found)
}

/// The provider's own variables, in lower case.
fn environment(kind: Kind, world: &World) -> Vec<(String, String)> {
    let prefixes: &[&str] = match kind {
        Kind::S3 => &["AWS_"],
        Kind::Gcs => &["GOOGLE_"],
        Kind::Azure => &["AZURE_"],
    };
    let vars = world.vars.iter().filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)));
    let vars = vars.filter(|(name, value)| !value.is_empty() && prefixes.iter().any(|prefix| name.starts_with(prefix)));
    vars.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect()
}

/// What `~/.aws/config` and `~/.aws/credentials` say of a profile (AWS SDKs and Tools Reference Guide, Shared config
/// and credentials files). The one that was named must be there.
fn profile_settings(named: Option<&str>, world: &World) -> Result<Vec<(String, String)>, Problem> {
    let in_environment = world.var("AWS_PROFILE").and_then(|profile| profile.to_str());
    let named = named.or(in_environment);
    let profile = named.unwrap_or("default");
    let file = |variable: &str, name: &str| -> Option<PathBuf> {
        world.var(variable).map(PathBuf::from).or_else(|| Some(world.home.as_ref()?.join(".aws").join(name)))
    };
    let text = |path: Option<PathBuf>| path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let config = text(file("AWS_CONFIG_FILE", "config"));
    let credentials = text(file("AWS_SHARED_CREDENTIALS_FILE", "credentials"));
    let longer = format!("profile {profile}");
    let mut lines = section(&config, if profile == "default" { "default" } else { &longer });
    let more = section(&credentials, profile);
    if named.is_some() && lines.is_none() && more.is_none() {
        let what = format!("no AWS profile '{}' in ~/.aws/config or ~/.aws/credentials", profile.escape_debug());
        return Err((what, Some("AWS_PROFILE names another; aws configure list-profiles".to_owned())));
    }
    lines.get_or_insert_default().extend(more.unwrap_or_default());
    let known = |name: &str| match name {
        "aws_access_key_id" | "aws_secret_access_key" | "aws_session_token" => Some(name.to_owned()),
        "region" => Some("aws_region".to_owned()),
        "endpoint_url" => Some("aws_endpoint_url".to_owned()),
        _ => None,
    };
    Ok(lines.unwrap_or_default().into_iter().filter_map(|(name, value)| Some((known(&name)?, value))).collect())
}

/// The lines `name = value` under `[title]`; none if there is no such title.
fn section(text: &str, title: &str) -> Option<Vec<(String, String)>> {
    let mut lines = None;
    let mut inside = false;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            inside = name.split_whitespace().eq(title.split_whitespace());
            if inside {
                lines.get_or_insert_with(Vec::new);
            }
        } else if inside && let (Some(lines), Some((name, value))) = (&mut lines, line.split_once('=')) {
            lines.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str =
        "[default]\nregion = eu-central-1\n# a comment\n[profile  lab]\nendpoint_url=http://10.0.0.1:9000\n";
    const CREDENTIALS: &str =
        "[default]\naws_access_key_id = A\naws_secret_access_key = S=1\n[lab]\naws_access_key_id=L\n";

    fn world(vars: &[(&str, &str)]) -> (tempfile::TempDir, World) {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        std::fs::write(home.path().join(".aws/config"), CONFIG).unwrap();
        std::fs::write(home.path().join(".aws/credentials"), CREDENTIALS).unwrap();
        let vars = vars.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let world = World { vars, home: Some(home.path().to_owned()), ..World::from_process() };
        (home, world)
    }

    #[test]
    fn the_url_comes_before_the_environment_before_the_files() {
        let (_home, quiet) = world(&[]);
        let bucket = parse(Kind::S3, "acme/prod/a", &quiet).unwrap();
        assert_eq!((bucket.name.as_str(), bucket.prefix.as_str()), ("acme", "prod/a"));
        assert_eq!(bucket.setting("aws_region"), Some("eu-central-1"));
        assert_eq!(bucket.setting("aws_access_key_id"), Some("A"));
        assert_eq!(bucket.setting("aws_secret_access_key"), Some("S=1"));
        let (_home, loud) = world(&[("AWS_ACCESS_KEY_ID", "E"), ("AWS_REGION", "us-west-1"), ("AWS_EMPTY", "")]);
        let bucket = parse(Kind::S3, "acme?region=r&endpoint=http%3A//x:9000", &loud).unwrap();
        assert_eq!(bucket.setting("aws_access_key_id"), Some("E"));
        assert_eq!(bucket.setting("aws_region"), Some("r"));
        assert_eq!(bucket.setting("aws_endpoint_url_s3"), Some("http://x:9000"));
        assert_eq!(bucket.setting("aws_empty"), None);
    }

    #[test]
    fn a_profile_that_was_named_must_be_there() {
        let (_home, lab) = world(&[("AWS_PROFILE", "lab")]);
        let bucket = parse(Kind::S3, "acme", &lab).unwrap();
        assert_eq!(bucket.setting("aws_endpoint_url"), Some("http://10.0.0.1:9000"));
        assert_eq!((bucket.setting("aws_access_key_id"), bucket.setting("aws_region")), (Some("L"), None));
        let (_home, bad) = world(&[("AWS_PROFILE", "lib")]);
        assert!(parse(Kind::S3, "acme", &bad).unwrap_err().0.contains("no AWS profile 'lib'"));
        assert!(parse(Kind::S3, "acme?profile=lab", &bad).is_ok());
        let (_home, mut homeless) = world(&[]);
        homeless.home = None;
        assert_eq!(parse(Kind::S3, "acme", &homeless).unwrap().settings, []);
    }

    #[test]
    fn each_provider_has_its_own_parameters() {
        let (_home, world) = world(&[]);
        let endpoint = |kind| parse(kind, "acme/p?endpoint=http://127.0.0.1:1", &world).unwrap().settings;
        assert_eq!(endpoint(Kind::Azure), [("azure_endpoint".to_owned(), "http://127.0.0.1:1".to_owned())]);
        assert_eq!(endpoint(Kind::Gcs), [("google_base_url".to_owned(), "http://127.0.0.1:1".to_owned())]);
        assert!(parse(Kind::Gcs, "acme?region=r", &world).unwrap_err().0.contains("unknown parameter 'region'"));
    }

    #[test]
    fn what_is_wrong_with_a_url_is_told() {
        let (_home, world) = world(&[]);
        for (rest, why) in [
            ("", "has no bucket (write s3://bucket/prefix)"),
            ("/p", "has no bucket (write s3://bucket/prefix)"),
            ("key:secret@acme/p", "for a bucket"),
            ("acme/a//b", "an empty or odd part"),
            ("acme/../b", "an empty or odd part"),
            ("acme/%zz", "a broken %"),
            ("acme?regoin=r", "unknown parameter 'regoin' (did you mean 'region'?)"),
            ("acme?endpoint=x:9000", "endpoint 'x:9000'"),
            ("acme?endpoint=http://a:b@x", "endpoint 'http://a:b@x'"),
        ] {
            let (what, _) = parse(Kind::S3, rest, &world).unwrap_err();
            assert!(what.starts_with("the s3:// URL ") && what.contains(why), "{rest}: {what}");
        }
        assert!(parse(Kind::Gcs, "acme?region=r", &world).is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        let (_home, world) = world(&[("AWS_SECRET_ACCESS_KEY", "hush")]);
        let shown = format!("{:?}", parse(Kind::S3, "acme", &world).unwrap());
        assert!(!shown.contains("hush") && !shown.contains("S=1"), "{shown}");
    }
}
