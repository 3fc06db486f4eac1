//! What doctor asks of a bucket and of who uses it.

use super::Finding;
use crate::bus::Place;
use crate::cli::times;
use crate::store::object::{Bucket, Kind};
use crate::store::{ErrorKind, List, StoreResult};

/// Whether these credentials may do all that evbus does, and what to allow where they may not.
pub(super) async fn permissions(place: &Place, bucket: &Bucket) -> Vec<Finding> {
    let key = format!("state/probe-{:016x}", place.clock.random());
    let store = &*place.store;
    let tried = [
        ("write", denied(store.put_new(&key, b"{}").await)),
        ("read", denied(store.get(&key).await)),
        ("list", denied(store.list_after(List::all("state/").limit(1)).await)),
        ("delete", denied(store.delete(&key).await)),
    ];
    let missing: Vec<&str> = tried.iter().filter(|(_, denied)| *denied).map(|(what, _)| *what).collect();
    if missing.is_empty() {
        return vec![Finding::ok("permissions", "write, read, list, delete")];
    }
    let finding = |what| Finding::fail("permissions", format!("may not {what}")).cure(cure(what, bucket));
    missing.into_iter().map(finding).collect()
}

/// Any other failure is told by what comes after this.
fn denied<T>(answer: StoreResult<T>) -> bool {
    answer.is_err_and(|error| error.kind() == ErrorKind::Denied)
}

/// The provider's own word for a permission.
fn cure(what: &str, bucket: &Bucket) -> String {
    let (name, prefix) = (&bucket.name, bucket.prefix.trim_matches('/'));
    let below = if prefix.is_empty() { "*".to_owned() } else { format!("{prefix}/*") };
    match (bucket.kind, what) {
        (Kind::S3, "list") => format!("allow s3:ListBucket on arn:aws:s3:::{name}"),
        (Kind::S3, "write") => format!("allow s3:PutObject on arn:aws:s3:::{name}/{below}"),
        (Kind::S3, "read") => format!("allow s3:GetObject on arn:aws:s3:::{name}/{below}"),
        (Kind::S3, _) => format!("allow s3:DeleteObject on arn:aws:s3:::{name}/{below}"),
        (Kind::Gcs, _) => format!("grant roles/storage.objectUser on gs://{name}"),
        (Kind::Azure, _) => format!("grant 'Storage Blob Data Contributor' on container {name}"),
    }
}

/// No fault of a bucket: it is made to be polled.
pub(super) fn hints(place: &Place) -> Finding {
    let (least, most) = place.store.profile().poll;
    let [least, most] = [least, most].map(times::format_duration);
    Finding::ok("hints", format!("none: polling every {least} under load, growing to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::object::Identity;

    #[test]
    fn a_cure_names_the_permission_and_the_place() {
        let bucket = |kind, prefix: &str| Bucket {
            kind,
            name: "acme".to_owned(),
            prefix: prefix.to_owned(),
            settings: Vec::new(),
            identity: Identity::default(),
        };
        let s3 = |what, prefix| cure(what, &bucket(Kind::S3, prefix));
        assert_eq!(s3("delete", "prod/bus"), "allow s3:DeleteObject on arn:aws:s3:::acme/prod/bus/*");
        assert_eq!(s3("write", ""), "allow s3:PutObject on arn:aws:s3:::acme/*");
        assert_eq!(s3("list", "prod"), "allow s3:ListBucket on arn:aws:s3:::acme");
        assert_eq!(cure("read", &bucket(Kind::Gcs, "")), "grant roles/storage.objectUser on gs://acme");
    }
}
