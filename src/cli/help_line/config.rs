//! The help line for each detail of an error in the settings.

use super::store::of_bucket;
use super::{HelpLine, command, text};
use crate::config::{ConfigDetail, ConfigError};
use crate::store::object::Kind;

impl HelpLine {
    /// What to do about an error in the settings, where its text does not say it.
    pub(in crate::cli) fn of_config(error: &ConfigError) -> Option<Self> {
        if let ConfigError::Missing { named_by: "EVBUS_CONFIG", .. } = error {
            return Some("unset EVBUS_CONFIG, or write the file".into());
        }
        Some(match error.detail()? {
            ConfigDetail::TakenForName { name } => format!("a path needs a '/': ./{}", name.escape_debug()).into(),
            ConfigDetail::EmptyVariable => "name the bus, or unset EVBUS_URL".into(),
            ConfigDetail::NoHome => "name one with --bus /path or EVBUS_URL".into(),
            ConfigDetail::CredentialsInName => {
                "a bucket is s3://bucket/prefix; credentials come from the environment".into()
            }
            ConfigDetail::CredentialsInUrl(kind) => credentials(*kind).into(),
            ConfigDetail::EndpointParameter => "write endpoint=https://HOST:PORT, without credentials".into(),
            ConfigDetail::EndpointVariable { name } => format!("{name}=https://HOST:PORT, without credentials").into(),
            ConfigDetail::Emulator => {
                "az://container?endpoint=http://127.0.0.1:10000/devstoreaccount1, with that account's name and key"
                    .into()
            }
            ConfigDetail::Bucket(kind, problem) => of_bucket(*kind, problem),
            ConfigDetail::NoFile => {
                [text("there is no config file; run "), command("watch", "-g GROUP -t PATTERN -- CMD")].into()
            }
            ConfigDetail::NoWatchers => "the config file has no [watchers.NAME]".into(),
            ConfigDetail::Watchers { names } => format!("the watchers are {}", names.join(", ")).into(),
        })
    }
}

/// Where credentials come from.
fn credentials(kind: Kind) -> &'static str {
    match kind {
        Kind::S3 => "credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        Kind::Gcs => "credentials come from GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT",
        Kind::Azure => "credentials come from AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    }
}
