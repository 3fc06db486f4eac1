//! What exactly is wrong, where that decides what an operator can do about it. The command line turns
//! each detail into its hint.

use crate::store::object::Kind;
#[cfg(feature = "postgres")]
use crate::store::postgres::DatabaseProblem;

/// What exactly is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorDetail {
    /// A symbolic link on the way to the file.
    SymbolicLink {
        /// The path of the file.
        path: String,
    },
    /// A file where a folder should be.
    NotAFolder {
        /// The path of the file.
        path: String,
    },
    /// Something that evbus did not put there takes the place of one of its files.
    Obstructed {
        /// What it is.
        by: Obstruction,
        /// Its path, or its key in a bucket.
        path: String,
    },
    /// An object of a bucket that is larger than any of evbus's.
    TooLargeObject,
    /// The file system's permissions forbid it.
    NoPermission,
    /// The file system is read-only.
    ReadOnly,
    /// The disk, or a quota, is full.
    NoSpace,
    /// What was written may not survive a power cut.
    NotFlushed,
    /// The process has no file descriptor left.
    TooManyOpenFiles,
    /// The user, or the container, has no process left.
    NoThreads,
    /// The bus lies on more than one file system.
    SeveralFileSystems,
    /// The mount caches directories.
    CachedMount,
    /// The mount has no locks that SQLite could rely on.
    UnlockedMount,
    /// There is no bus.
    NoBus {
        /// Its address.
        address: String,
    },
    /// The bus has a format that a later release of evbus has made.
    NewerFormat,
    /// A document of the bus cannot be parsed.
    Unreadable {
        /// Its key.
        key: String,
    },
    /// The patterns of a group's definition are not valid.
    InvalidFilter {
        /// The group.
        group: String,
    },
    /// The condition of a group's definition is not valid.
    InvalidCondition {
        /// The group.
        group: String,
    },
    /// The frontier is further ahead than an emitter can follow.
    FrontierAhead,
    /// An emit without an answer may have taken effect.
    MayBeThere,
    /// This machine's clock is wrong.
    Clock,
    /// The bus has no groups.
    NoGroups,
    /// There is no table of an outbox, or not with such a column.
    NoOutbox,
    /// There is no archive.
    NoArchive,
    /// A bucket, or who asks for it.
    Bucket(Kind, BucketProblem),
    /// A database, or who asks for it.
    #[cfg(feature = "postgres")]
    Database(DatabaseProblem),
}

/// What takes the place of one of evbus's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstruction {
    /// A folder.
    Folder,
    /// A symbolic link.
    SymbolicLink,
    /// A pipe, a device, a socket.
    Special,
    /// A file that is larger than any of evbus's.
    TooLarge,
}

/// What is wrong with a bucket, or with the credentials for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BucketProblem {
    /// No bucket of this name.
    Missing,
    /// The bucket is in another region.
    OtherRegion {
        /// The bucket's name.
        bucket: String,
        /// The region, if the server names it.
        region: Option<String>,
    },
    /// Permission was denied.
    Denied,
    /// Permission was denied by a policy that demands encryption.
    Unencrypted,
    /// There are no credentials.
    NoCredentials,
    /// The access key, or the account, is not known.
    UnknownKey,
    /// The secret does not fit the key.
    WrongSecret,
    /// The session is over.
    Expired,
    /// The server's certificate is not trusted, or there are no certificates at all.
    Certificate,
    /// The file of certificates that the settings name is not good.
    CertificateFile,
    /// The server does not speak TLS.
    PlainHttp,
    /// The server speaks TLS only.
    OnlyTls,
    /// The credentials would be sent without encryption.
    PlainCredentials,
    /// No AWS profile of this name.
    NoProfile,
    /// The profile uses a way to credentials that evbus does not follow.
    UnsupportedProfile,
    /// The profile asks for a code of a device.
    AsksForCode,
    /// The login of a profile has to be repeated.
    LoginExpired {
        /// The profile.
        profile: String,
    },
}
