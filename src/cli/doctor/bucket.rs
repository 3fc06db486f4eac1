//! Checks of a bucket and of the credentials for it.

use super::Finding;
use crate::bus::BusHandle;
use crate::cli::times;
use crate::store::object::{Bucket, Kind};
use crate::store::{ErrorKind, List, Store, StoreResult, Swap, Version};

mod properties;

pub(super) use properties::properties;

/// The folders of a bus in which evbus writes objects.
const FOLDERS: [&str; 5] = ["events/", "groups/", "state/", "dedup/", "timed/"];

/// A permission that evbus needs in each folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right {
    Write,
    Read,
    List,
    Delete,
}

impl Right {
    const ALL: [Self; 4] = [Self::Write, Self::Read, Self::List, Self::Delete];

    const fn verb(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }

    /// Whether the permission is denied; later checks report any other failure. Nothing is written:
    /// the delete and the swap name an object that does not exist.
    async fn is_denied(self, store: &dyn Store, key: &str) -> bool {
        match self {
            Self::Write => {
                let answer = store.cas(key, Some(&Version("1".to_owned())), b"{}").await;
                if matches!(answer, Ok(Swap::Swapped(_))) {
                    // The server ignores conditions, which the probe reports.
                    let _ = store.delete(key).await;
                }
                denied(answer)
            }
            Self::Read => denied(store.get(key).await),
            Self::List => denied(store.list_after(List::all(key.trim_end_matches(|c| c != '/')).limit(1)).await),
            Self::Delete => denied(store.delete(key).await),
        }
    }
}

fn denied<T>(answer: StoreResult<T>) -> bool {
    answer.is_err_and(|error| error.kind() == ErrorKind::Denied)
}

/// Whether the credentials have every permission in every folder; each missing one is a finding
/// with the permission to grant.
pub(super) async fn permissions(bus: &BusHandle, bucket: &Bucket) -> Vec<Finding> {
    let mut missing = Vec::new();
    for right in Right::ALL {
        let mut folders = Vec::new();
        for folder in FOLDERS {
            let key = format!("{folder}probe-{:016x}", bus.clock.random());
            if right.is_denied(&*bus.store, &key).await {
                folders.push(folder);
            }
        }
        missing.push((right, folders));
    }
    // Without the permission to list, a read of a missing object is answered with "denied" instead
    // of "not found", so it says nothing about the permission to read.
    let unlisted = missing.iter().any(|(right, folders)| *right == Right::List && !folders.is_empty());
    if unlisted && !denied(bus.store.get(crate::bus::keys::BUS).await) {
        missing.retain(|(right, _)| *right != Right::Read);
    }
    missing.retain(|(_, folders)| !folders.is_empty());
    if missing.is_empty() {
        return vec![Finding::ok("permissions", "write, read, list, delete")];
    }
    missing.into_iter().map(|(right, folders)| finding(right, &folders, bucket)).collect()
}

fn finding(right: Right, folders: &[&str], bucket: &Bucket) -> Finding {
    let verb = right.verb();
    let everywhere = folders.len() == FOLDERS.len();
    let what = if everywhere { format!("may not {verb}") } else { format!("may not {verb} {}", folders.join(", ")) };
    Finding::fail("permissions", what).cure(cure(right, if everywhere { &[""] } else { folders }, bucket))
}

/// The provider's name for the permission to grant.
fn cure(right: Right, folders: &[&str], bucket: &Bucket) -> String {
    let (name, prefix) = (&bucket.name, bucket.prefix.trim_matches('/'));
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    let action = match (bucket.kind, right) {
        (Kind::S3, Right::List) => return format!("allow s3:ListBucket on arn:aws:s3:::{name}"),
        (Kind::S3, Right::Write) => "s3:PutObject",
        (Kind::S3, Right::Read) => "s3:GetObject",
        (Kind::S3, Right::Delete) => "s3:DeleteObject",
        (Kind::Gcs, _) => return format!("grant roles/storage.objectUser on gs://{name}"),
        (Kind::Azure, _) => return format!("grant 'Storage Blob Data Contributor' on container {name}"),
    };
    let places: Vec<String> = folders.iter().map(|folder| format!("arn:aws:s3:::{name}/{prefix}{folder}*")).collect();
    format!("allow {action} on {}", places.join(", "))
}

/// No warning: every bucket is polled.
pub(super) fn hints(bus: &BusHandle) -> Finding {
    let (least, most) = bus.store.profile().poll;
    let [least, most] = [least, most].map(times::format_duration);
    Finding::ok("hints", format!("none: polling every {least} under load, growing to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::colour::Colours;
    use crate::store::object::CredentialInputs;

    #[test]
    fn a_cure_names_the_permission_and_the_place() {
        let bucket = |kind, prefix: &str| Bucket {
            kind,
            name: "acme".to_owned(),
            prefix: prefix.to_owned(),
            settings: Vec::new(),
            identity: CredentialInputs::default(),
        };
        let s3 = |right, prefix| cure(right, &[""], &bucket(Kind::S3, prefix));
        assert_eq!(s3(Right::Delete, "prod/bus"), "allow s3:DeleteObject on arn:aws:s3:::acme/prod/bus/*");
        assert_eq!(s3(Right::Write, ""), "allow s3:PutObject on arn:aws:s3:::acme/*");
        assert_eq!(s3(Right::List, "prod"), "allow s3:ListBucket on arn:aws:s3:::acme");
        assert_eq!(cure(Right::Read, &[""], &bucket(Kind::Gcs, "")), "grant roles/storage.objectUser on gs://acme");
        let some = finding(Right::Write, &["events/", "timed/"], &bucket(Kind::S3, "prod")).text(Colours::NONE);
        assert!(some.starts_with("FAIL permissions  may not write events/, timed/\n"), "{some}");
        assert!(some.contains("arn:aws:s3:::acme/prod/events/*, arn:aws:s3:::acme/prod/timed/*"), "{some}");
    }
}
