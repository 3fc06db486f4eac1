//! Cures, in the words of each cloud.

use super::Kind;

impl Kind {
    /// The cloud's word for a bucket.
    pub(super) const fn bucket_word(self) -> &'static str {
        match self {
            Self::S3 | Self::Gcs => "bucket",
            Self::Azure => "container",
        }
    }

    pub(super) const fn service(self) -> &'static str {
        match self {
            Self::S3 => "S3",
            Self::Gcs => "Google Cloud Storage",
            Self::Azure => "Azure Blob Storage",
        }
    }

    pub(super) const fn no_credentials_cure(self) -> &'static str {
        match self {
            Self::S3 => "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
            Self::Gcs => {
                "set GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT; gcloud auth application-default login"
            }
            Self::Azure => "set AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING",
        }
    }

    pub(super) const fn key_cure(self) -> &'static str {
        match self {
            Self::S3 => "AWS_ACCESS_KEY_ID or AWS_PROFILE names another",
            Self::Gcs => "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT names another",
            Self::Azure => "AZURE_STORAGE_ACCOUNT_NAME or AZURE_STORAGE_CONNECTION_STRING names one",
        }
    }

    pub(super) const fn secret_cure(self) -> &'static str {
        match self {
            Self::S3 => "AWS_SECRET_ACCESS_KEY or AWS_PROFILE names another",
            Self::Gcs => "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT names another",
            Self::Azure => {
                "AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING; and the clock"
            }
        }
    }

    pub(super) const fn certificate_cure(self) -> &'static str {
        match self {
            Self::S3 => {
                "SSL_CERT_FILE or AWS_CA_BUNDLE names a PEM file; the system's are in the package ca-certificates"
            }
            Self::Gcs | Self::Azure => {
                "SSL_CERT_FILE names a PEM file; the system's certificates are in the package ca-certificates"
            }
        }
    }

    /// The usual cause of an explicit deny: a policy that demands encryption.
    pub(super) fn denied_cure(self, said: &str) -> &'static str {
        let said = said.to_lowercase();
        let of_encryption = ["explicit deny", "kms", "encrypt"].iter().any(|sign| said.contains(sign));
        match self {
            Self::S3 if of_encryption => {
                "if a policy demands encryption: AWS_SERVER_SIDE_ENCRYPTION=aws:kms and AWS_SSE_KMS_KEY_ID"
            }
            _ => "evbus doctor tells which permissions are missing",
        }
    }
}
