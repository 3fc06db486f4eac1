//! The help line for each detail of a store's error.

use super::{HelpLine, HelpPart, command, text};
use crate::bus::keys;
use crate::cli::style;
use crate::store::object::Kind;
#[cfg(feature = "postgres")]
use crate::store::postgres::DatabaseProblem;
use crate::store::{BucketProblem, ErrorDetail, Obstruction, StoreError};

/// What to do about a mount whose client caches names or attributes for too long.
pub(in crate::cli) const NFS_CURE: &str = "remount with lookupcache=none,actimeo=0";

impl HelpLine {
    /// What to do about an error of the store, where there is something.
    pub(in crate::cli) fn of(error: &StoreError) -> Option<Self> {
        error.detail().and_then(of_detail)
    }
}

fn of_detail(detail: &ErrorDetail) -> Option<HelpLine> {
    Some(match detail {
        ErrorDetail::SymbolicLink { path } => format!("a symbolic link is no part of a bus: ls -la {path}").into(),
        ErrorDetail::NotAFolder { path } => format!("a file stands where a folder should be: ls -la {path}").into(),
        ErrorDetail::Obstructed { by, path } => {
            format!("{}: look at it, then mv {path} out of the bus", obstruction(*by)).into()
        }
        ErrorDetail::TooLargeObject => format!("{}: move it away", obstruction(Obstruction::TooLarge)).into(),
        ErrorDetail::NoPermission => {
            [text("ls -ld shows who may write there; "), command("doctor", ""), text(" tells more of a bus")].into()
        }
        ErrorDetail::ReadOnly => "the file system is read-only: remount it, or name another bus".into(),
        ErrorDetail::NoSpace => make_room(),
        ErrorDetail::NotFlushed => {
            "what was just written may not survive a power cut: look at the disk (dmesg), then try again".into()
        }
        ErrorDetail::TooManyOpenFiles => "raise the limit of open files: ulimit -n".into(),
        ErrorDetail::NoThreads => "raise ulimit -u, or the container's limit of processes".into(),
        ErrorDetail::SeveralFileSystems => "all of a bus must lie on one file system: move the folder back".into(),
        ErrorDetail::CachedMount => NFS_CURE.into(),
        ErrorDetail::UnlockedMount => {
            "put the file on a disk of this machine, or make the bus a directory there".into()
        }
        ErrorDetail::NoBus { address } => command("init", style::quoted(address)).into(),
        ErrorDetail::NewerFormat => "upgrade evbus on this machine".into(),
        ErrorDetail::Unreadable { key } => return of_unreadable(key),
        ErrorDetail::InvalidFilter { group } => command("group", format_args!("set {group} -t PATTERN")).into(),
        ErrorDetail::InvalidCondition { group } => command("group", format_args!("set {group} --where CEL")).into(),
        ErrorDetail::FrontierAhead => command("doctor", "").into(),
        ErrorDetail::MayBeThere => "it may be on the bus; --id makes a repeat harmless".into(),
        ErrorDetail::Clock => "set the clock: timedatectl status".into(),
        ErrorDetail::NoArchive => [command("prune", "--keep 30d --archive URL"), text(" makes one")].into(),
        ErrorDetail::NoOutbox => {
            [command("init", "DATABASE"), text(" makes evbus's own table; --table and --map name another one")].into()
        }
        ErrorDetail::NoGroups => [command("group", "create NAME"), text(", or delete the folder")].into(),
        ErrorDetail::Bucket(kind, problem) => return Some(of_bucket(*kind, problem)),
        #[cfg(feature = "postgres")]
        ErrorDetail::Database(problem) => return Some(of_database(problem)),
    })
}

/// The help line for a full disk.
pub(in crate::cli) fn make_room() -> HelpLine {
    [text("make room on the disk, or: "), command("prune", "--keep 7d")].into()
}

fn obstruction(by: Obstruction) -> &'static str {
    match by {
        Obstruction::Folder => "a folder stands where a file should be",
        Obstruction::SymbolicLink => "a symbolic link is no part of a bus",
        Obstruction::Special => "something else stands where a file should be",
        Obstruction::TooLarge => "nothing that evbus writes there is as large",
    }
}

/// The document that lies at the key decides.
fn of_unreadable(key: &str) -> Option<HelpLine> {
    if key == keys::BUS {
        let settings = r#"{"format":1,"created":"20260101T000000.000000Z","max_event_bytes":1048576}"#;
        return Some(format!("restore bus.json, for example {settings}").into());
    }
    if key == keys::FRONTIER {
        let what =
            r#"write a time that no marker is past, as {"w":"20260101T000000.000000Z"}, to the newest frontier file"#;
        return Some(what.into());
    }
    if keys::group_of(key).is_some() {
        let help: [HelpPart; 3] = [
            text(format!("fix the newest {key} file; `")),
            command("group", "ls"),
            text("` shows how the others look"),
        ];
        return Some(help.into());
    }
    if key.starts_with(keys::DEDUP) {
        return Some(format!("delete {key} and emit again: the event may then be there twice").into());
    }
    let (group, rest) = key.strip_prefix("state/")?.split_once('/')?;
    if let Some(name) = rest.strip_prefix("dead/").and_then(|name| name.strip_suffix(".json")) {
        return Some([text("look at it; to give it up: "), command("dead", format_args!("rm {group} {name}"))].into());
    }
    rest.starts_with("marker-").then(|| {
        let again = command("group", format_args!("reset {group} --to earliest"));
        [text("fix its newest file, or start over: "), again].into()
    })
}

#[cfg(feature = "postgres")]
fn of_database(problem: &DatabaseProblem) -> HelpLine {
    match problem {
        DatabaseProblem::NoServer => {
            "is the server up, and does the address name it? pg_isready -h HOST -p PORT".into()
        }
        DatabaseProblem::NoDatabase { name } => format!("createdb {name}, or name another one").into(),
        DatabaseProblem::Password { unused_file: Some(why) } => format!("{why}; or PGPASSWORD").into(),
        DatabaseProblem::Password { unused_file: None } => "PGPASSWORD, or a line in ~/.pgpass (mode 0600)".into(),
        DatabaseProblem::NoRole => "CREATE ROLE … LOGIN on the server, or name another user in the URL".into(),
        DatabaseProblem::StatementTimeout => "ALTER ROLE … SET statement_timeout = 0".into(),
        DatabaseProblem::Pooler => {
            "look at the pooler's databases and users; it needs ignore_startup_parameters = options for `options`"
                .into()
        }
        DatabaseProblem::NotLetIn => "pg_hba.conf on the server says who may come from where, and how".into(),
        DatabaseProblem::NoPrivilege => {
            [command("doctor", ""), text(" tells which privileges are missing; SECURITY.md has the roles")].into()
        }
        DatabaseProblem::Standby => {
            "name the primary, or all of them: postgres://a,b/db?target_session_attrs=read-write".into()
        }
        DatabaseProblem::Tls => {
            "sslmode=verify-full&sslrootcert=FILE names whom to trust; sslmode=disable is without TLS".into()
        }
        DatabaseProblem::CertificateFile => "sslrootcert, sslcert and sslkey name PEM files".into(),
        DatabaseProblem::DiskFull => {
            [text("make room on the server's disk, or: "), command("prune", "--keep 7d")].into()
        }
        DatabaseProblem::TooManyConnections => "raise max_connections, or put a pooler before the server".into(),
        DatabaseProblem::NotText => "write the text as UTF-8".into(),
        DatabaseProblem::NotReplicated => "look at the standbys that synchronous_standby_names names".into(),
    }
}

pub(super) fn of_bucket(kind: Kind, problem: &BucketProblem) -> HelpLine {
    match problem {
        BucketProblem::Missing => "make it, or name another one".into(),
        BucketProblem::OtherRegion { bucket, region } => {
            let region = region.as_deref().unwrap_or("REGION");
            format!("name it: s3://{bucket}/prefix?region={region}, or AWS_REGION={region}").into()
        }
        BucketProblem::Unencrypted if kind == Kind::S3 => {
            "if a policy demands encryption: AWS_SERVER_SIDE_ENCRYPTION=aws:kms and AWS_SSE_KMS_KEY_ID".into()
        }
        BucketProblem::Denied | BucketProblem::Unencrypted => {
            [command("doctor", ""), text(" tells which permissions are missing")].into()
        }
        BucketProblem::NoCredentials => no_credentials(kind).into(),
        BucketProblem::UnknownKey => unknown_key(kind).into(),
        BucketProblem::WrongSecret => wrong_secret(kind).into(),
        BucketProblem::Expired => "log in again".into(),
        BucketProblem::Certificate => certificate(kind).into(),
        BucketProblem::CertificateFile => "AWS_CA_BUNDLE, or a profile's ca_bundle, names a PEM file".into(),
        BucketProblem::PlainHttp => "write http:// where that is meant".into(),
        BucketProblem::OnlyTls => "write https:// where that is meant".into(),
        BucketProblem::PlainCredentials => "write https://, or an address of this machine".into(),
        BucketProblem::NoProfile => "AWS_PROFILE names another; aws configure list-profiles".into(),
        BucketProblem::UnsupportedProfile => {
            "aws configure export-credentials --format process, as its credential_process".into()
        }
        BucketProblem::AsksForCode => "aws configure export-credentials, or a profile without mfa_serial".into(),
        BucketProblem::LoginExpired { profile } => format!("aws sso login --profile {profile}").into(),
    }
}

fn no_credentials(kind: Kind) -> &'static str {
    match kind {
        Kind::S3 => "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        Kind::Gcs => {
            "set GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT; gcloud auth application-default login"
        }
        Kind::Azure => "set AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING",
    }
}

fn unknown_key(kind: Kind) -> &'static str {
    match kind {
        Kind::S3 => "AWS_ACCESS_KEY_ID or AWS_PROFILE names another",
        Kind::Gcs => "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT names another",
        Kind::Azure => "AZURE_STORAGE_ACCOUNT_NAME or AZURE_STORAGE_CONNECTION_STRING names one",
    }
}

fn wrong_secret(kind: Kind) -> &'static str {
    match kind {
        Kind::S3 => "AWS_SECRET_ACCESS_KEY or AWS_PROFILE names another",
        Kind::Gcs => "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT names another",
        Kind::Azure => {
            "AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING; and the clock"
        }
    }
}

fn certificate(kind: Kind) -> &'static str {
    match kind {
        Kind::S3 => "SSL_CERT_FILE or AWS_CA_BUNDLE names a PEM file; the system's are in the package ca-certificates",
        Kind::Gcs | Kind::Azure => {
            "SSL_CERT_FILE names a PEM file; the system's certificates are in the package ca-certificates"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ErrorKind;

    fn shown(detail: ErrorDetail) -> String {
        of_detail(&detail).unwrap().to_string()
    }

    #[test]
    fn the_help_for_an_unreadable_document_is_for_its_kind() {
        let is = |key: &str, help: &str| {
            let shown = shown(ErrorDetail::Unreadable { key: key.to_owned() });
            assert!(shown.contains(help), "{key}: {shown}");
        };
        is("bus.json", "restore bus.json");
        is("frontier", "the newest frontier file");
        is("groups/mail.json", "fix the newest groups/mail.json file; `evbus group ls` shows");
        is("state/mail/marker-003", "start over: evbus group reset mail --to earliest");
        is("state/mail/dead/x-1.json", "give it up: evbus dead rm mail x-1");
        is("dedup/ab.json", "delete dedup/ab.json");
        assert_eq!(of_detail(&ErrorDetail::Unreadable { key: "events/x".to_owned() }), None);
    }

    /// A regression: the hint was lost when a worker gave up.
    #[test]
    fn a_failed_flush_keeps_its_hint_when_it_is_given_up() {
        let error = StoreError::new(ErrorKind::Unavailable, "cannot flush x").not_durable().given_up();
        assert!(HelpLine::of(&error).unwrap().to_string().contains("dmesg"));
        let full = StoreError::new(ErrorKind::Full, "x").with_detail(ErrorDetail::NoSpace).not_durable();
        assert_eq!(HelpLine::of(&full), Some(make_room()));
    }

    #[test]
    fn no_help_is_for_another_cloud() {
        let problems = [
            BucketProblem::Denied,
            BucketProblem::Unencrypted,
            BucketProblem::NoCredentials,
            BucketProblem::UnknownKey,
            BucketProblem::WrongSecret,
            BucketProblem::Expired,
            BucketProblem::Certificate,
        ];
        for (kind, others) in
            [(Kind::S3, ["GOOGLE_", "AZURE_"]), (Kind::Gcs, ["AWS_", "AZURE_"]), (Kind::Azure, ["AWS_", "GOOGLE_"])]
        {
            for problem in &problems {
                let help = shown(ErrorDetail::Bucket(kind, problem.clone()));
                assert!(!others.iter().any(|other| help.contains(other)), "{kind:?} {problem:?}: {help}");
            }
        }
    }
}
