//! The files of the AWS tools (AWS SDKs and Tools Reference Guide, Shared config and credentials files).

use std::collections::BTreeMap;
use std::path::PathBuf;

use object_store::aws::AwsCredential;

use super::identity::trimmed;
use super::{CredentialInputs, CredentialsFailure, CredentialsResult};
use crate::store::BucketProblem;

/// What the lines of one section say, by name.
pub type ProfileLines = BTreeMap<String, String>;

/// One file: where it is, and its sections by their titles.
type File = (PathBuf, BTreeMap<String, ProfileLines>);

/// The tools' two files. Each is read whole, and anew for each fetch.
pub(super) struct Files {
    config: File,
    credentials: File,
}

impl Files {
    pub(super) fn has(&self, profile: &str) -> bool {
        self.config.1.contains_key(&title(profile)) || self.credentials.1.contains_key(profile)
    }

    pub(super) fn get(&self, profile: &str, name: &str) -> Option<&str> {
        let sections = [self.credentials.1.get(profile), self.config.1.get(&title(profile))];
        sections.into_iter().flatten().find_map(|lines| lines.get(name)).map(String::as_str)
    }

    /// What the config says of a session of the single sign-on.
    pub(super) fn session(&self, name: &str) -> CredentialsResult<&ProfileLines> {
        let missing = || format!("no sso_session '{name}' in {}", self.config.0.display());
        self.config.1.get(&format!("sso-session {name}")).ok_or_else(|| CredentialsFailure::of(missing()))
    }

    pub(super) fn no_profile(&self, profile: &str) -> CredentialsFailure {
        let (config, credentials) = (self.config.0.display(), self.credentials.0.display());
        CredentialsFailure::of(format!("no AWS profile '{}' in {config} or {credentials}", profile.escape_debug()))
            .because(BucketProblem::NoProfile)
    }

    /// The keys of one file, which belong together.
    pub(super) fn keys(&self, profile: &str) -> CredentialsResult<Option<AwsCredential>> {
        let (config, credentials) = (&self.config, &self.credentials);
        let sections = [(&credentials.0, credentials.1.get(profile)), (&config.0, config.1.get(&title(profile)))];
        for (path, lines) in sections {
            let get = |name: &str| lines.and_then(|lines| lines.get(name)).map(String::as_str);
            let at = format!("profile '{profile}' in {}", path.display());
            match (get("aws_access_key_id"), get("aws_secret_access_key")) {
                (Some(key), Some(secret)) => return keys(key, secret, get("aws_session_token"), &at).map(Some),
                (None, None) => {}
                (Some(_), None) => return Err(CredentialsFailure::of(format!("{at} has no aws_secret_access_key"))),
                (None, Some(_)) => return Err(CredentialsFailure::of(format!("{at} has no aws_access_key_id"))),
            }
        }
        Ok(None)
    }
}

/// A profile's section in the config file.
fn title(profile: &str) -> String {
    if profile == "default" { profile.to_owned() } else { format!("profile {profile}") }
}

/// Reads the sections of one of the tools' files: `name = value`. What is indented below a name
/// belongs to it and is left out; `#` and `;` begin a comment, after a space also at the end of a
/// line.
fn sections(text: &str) -> BTreeMap<String, ProfileLines> {
    let mut sections: BTreeMap<String, ProfileLines> = BTreeMap::new();
    let mut inside: Option<String> = None;
    let mut indent = usize::MAX;
    for line in text.trim_start_matches('\u{feff}').lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|line| line.split(']').next()) {
            let name = section_name(name);
            sections.entry(name.clone()).or_default();
            (inside, indent) = (Some(name), usize::MAX);
            continue;
        }
        let here = line.len() - line.trim_start().len();
        if here > indent {
            continue;
        }
        indent = here;
        let (Some(section), Some((name, value))) = (&inside, trimmed.split_once('=')) else { continue };
        let name = name.trim().to_ascii_lowercase();
        let value = if name == "credential_process" { value } else { without_comment(value) };
        if let Some(lines) = sections.get_mut(section).filter(|_| !value.trim().is_empty()) {
            lines.insert(name, value.trim().to_owned());
        }
    }
    sections
}

/// Quotes and the number of spaces do not matter; both forms are understood for `default`.
fn section_name(name: &str) -> String {
    let words: Vec<&str> = name.split_whitespace().map(|word| word.trim_matches(['"', '\''])).collect();
    match words.as_slice() {
        ["profile", "default"] => "default".to_owned(),
        words => words.join(" "),
    }
}

fn without_comment(value: &str) -> &str {
    let begins = |(at, c): (usize, char)| (c == '#' || c == ';') && value[..at].ends_with(char::is_whitespace);
    value.char_indices().find(|(at, c)| begins((*at, *c))).map_or(value, |(at, _)| &value[..at])
}

/// Keys that can be sent: the crate panics on a key that cannot be a header, which ends the
/// process.
pub(super) fn keys(key: &str, secret: &str, token: Option<&str>, at: &str) -> CredentialsResult<AwsCredential> {
    let (key_id, secret_key) = (trimmed(key), trimmed(secret));
    let token = token.map(trimmed).filter(|token| !token.is_empty());
    for (name, text) in [("access key", Some(key_id)), ("secret key", Some(secret_key)), ("session token", token)] {
        match text {
            Some("") => return Err(CredentialsFailure::of(format!("the {name} of {at} is empty"))),
            Some(text) if !text.chars().all(|c| c.is_ascii_graphic()) => {
                return Err(CredentialsFailure::of(format!("the {name} of {at} has a character that no {name} has")));
            }
            _ => {}
        }
    }
    Ok(AwsCredential { key_id: key_id.to_owned(), secret_key: secret_key.to_owned(), token: token.map(str::to_owned) })
}

impl CredentialInputs {
    pub(super) fn files(&self) -> CredentialsResult<Files> {
        let file = |variable: &str, name: &str| {
            let named = self.var(variable).map(|path| self.path(path));
            let path = named.unwrap_or_else(|| self.aws_folder().join(name));
            match std::fs::read(&path) {
                Ok(bytes) => Ok((path, sections(&String::from_utf8_lossy(&bytes)))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok((path, BTreeMap::new())),
                Err(error) => Err(CredentialsFailure::of(format!("cannot read {}: {error}", path.display()))),
            }
        };
        Ok(Files {
            config: file("AWS_CONFIG_FILE", "config")?,
            credentials: file("AWS_SHARED_CREDENTIALS_FILE", "credentials")?,
        })
    }

    /// The profile to use, and whether it was named.
    pub(super) fn profile(&self) -> (&str, bool) {
        let named = self.profile.as_deref().or_else(|| self.var("AWS_PROFILE"));
        (named.unwrap_or("default"), named.is_some())
    }

    /// Whether the profile was named: then it must be there.
    pub fn is_named(&self) -> bool {
        self.profile().1
    }

    /// What the config says of the profile, which tells where the bucket is.
    ///
    /// # Errors
    /// The profile that was named is not there, or a file cannot be read.
    pub fn profile_lines(&self) -> CredentialsResult<ProfileLines> {
        let files = self.files()?;
        let (profile, named) = self.profile();
        if named && !files.has(profile) {
            return Err(files.no_profile(profile));
        }
        let mut lines = files.config.1.get(&title(profile)).cloned().unwrap_or_default();
        lines.extend(files.credentials.1.get(profile).cloned().unwrap_or_default());
        Ok(lines)
    }
}
