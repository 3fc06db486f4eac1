//! The words of each cloud.

use super::Kind;

impl Kind {
    /// The cloud's word for a bucket.
    pub(super) const fn bucket_word(self) -> &'static str {
        match self {
            Self::S3 | Self::Gcs => "bucket",
            Self::Azure => "container",
        }
    }

    /// The name of the cloud's service.
    pub(super) const fn service(self) -> &'static str {
        match self {
            Self::S3 => "S3",
            Self::Gcs => "Google Cloud Storage",
            Self::Azure => "Azure Blob Storage",
        }
    }
}
