//! What a file is known by: its path below the folder, and its state, as the file system tells.

use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::event::{EventTime, hex};

/// A short hash, written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ShortHash(u64);

impl ShortHash {
    /// The hash of parts.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let digest = digest(parts);
        Self(u64::from_be_bytes(digest[..8].try_into().unwrap_or_default()))
    }
}

impl From<ShortHash> for String {
    fn from(hash: ShortHash) -> Self {
        format!("{:016x}", hash.0)
    }
}

impl TryFrom<String> for ShortHash {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&text, 16).map(Self)
    }
}

/// The SHA-256 of parts, each behind its length.
pub fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// What a file system, or a bucket, tells of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileState {
    /// In bytes.
    pub size: u64,
    /// When its content was changed last, or so it says.
    pub mtime: EventTime,
    /// Its number, which a file that replaces it does not have; an object's ETag. Empty where the file system tells each
    /// host another one.
    pub identity: String,
    /// When it was changed last in any way, which no program can set.
    pub ctime: EventTime,
    /// Its place in the kernel: device and number.
    pub place: (u64, u64),
}

impl FileState {
    /// The state that metadata tell.
    pub fn of(metadata: &Metadata, has_stable_numbers: bool) -> Self {
        let time = |seconds: i64, nanos: i64| EventTime::from_micros(seconds.saturating_mul(1_000_000) + nanos / 1_000);
        Self {
            size: metadata.len(),
            mtime: time(metadata.mtime(), metadata.mtime_nsec()),
            identity: if has_stable_numbers { metadata.ino().to_string() } else { String::new() },
            ctime: time(metadata.ctime(), metadata.ctime_nsec()),
            place: (metadata.dev(), metadata.ino()),
        }
    }

    /// What distinguishes one version of a file from another.
    fn parts(&self) -> [Vec<u8>; 3] {
        let (size, mtime) = (self.size.to_be_bytes().to_vec(), self.mtime.as_micros().to_be_bytes().to_vec());
        [size, mtime, self.identity.clone().into_bytes()]
    }

    /// A hash of what distinguishes one version of a file from another.
    pub fn version(&self) -> ShortHash {
        ShortHash::of(self.parts().iter().map(Vec::as_slice))
    }

    /// The part of an event's id that tells one version of one file: of its path, size, time and number, or of its path,
    /// content and time. `removals`: how often the file was told to be gone before.
    pub fn id(&self, path: &Path, sha256: Option<&[u8; 32]>, removals: u32) -> String {
        let [size, mtime, identity] = self.parts();
        let path = path.as_os_str().as_bytes();
        let again = removals.to_be_bytes();
        let again = (removals > 0).then_some(&again[..]);
        let digest = match sha256 {
            Some(content) => digest([path, content, &mtime].into_iter().chain(again)),
            None => digest([path, &size, &mtime, &identity].into_iter().chain(again)),
        };
        hex(&digest[..16])
    }
}

/// Opens what is to be a plain file: no link is followed, and nothing that is put in its place is waited for.
///
/// # Errors
/// It cannot be opened, or is none.
pub fn open_file(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(std::io::ErrorKind::InvalidInput.into()),
    }
}

/// A file that was found: its path below the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    /// Below the folder.
    pub path: PathBuf,
    /// As it was found.
    pub state: FileState,
}

/// The hash of a path, under which a file is known.
pub fn path_hash(path: &Path) -> ShortHash {
    ShortHash::of([path.as_os_str().as_bytes()])
}

const ODD: &AsciiSet = &CONTROLS.add(b'%');

/// Whether a plain name has what an encoded one would have.
fn has_code(bytes: &[u8]) -> bool {
    bytes.windows(3).any(|part| part[0] == b'%' && part[1..].iter().all(u8::is_ascii_hexdigit))
}

/// A path as text that tells each byte: of a name that is no plain text, what is odd, and each `%`, is percent-encoded.
pub fn path_text(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let is_odd = |c: char| c.is_control() || matches!(u32::from(c), 0xfdd0..=0xfdef) || u32::from(c) & 0xfffe == 0xfffe;
    match str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(is_odd) && !has_code(bytes) => text.to_owned(),
        // Non-ASCII bytes are encoded, too: among them are those that are no text.
        _ => percent_encode(bytes, ODD).to_string(),
    }
}

/// A path with each odd byte and each `%` encoded, to be read back by [`decode_path`].
pub fn encode_path(path: &Path) -> String {
    percent_encode(path.as_os_str().as_bytes(), ODD).to_string()
}

/// What [`encode_path`] has written.
pub fn decode_path(text: &str) -> PathBuf {
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    PathBuf::from(std::ffi::OsString::from(std::ffi::OsStr::from_bytes(&bytes)))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn every_path_has_a_text_of_its_own() {
        let path = |bytes: &'static [u8]| Path::new(OsStr::from_bytes(bytes));
        assert_eq!(path_text(path(b"a/b c 100%.pdf")), "a/b c 100%.pdf");
        assert_eq!(path_text(path(b"a%0Ab")), "a%250Ab");
        assert_eq!(path_text(path("ä.pdf".as_bytes())), "ä.pdf");
        assert_eq!(path_text(path(b"a\nb%.pdf")), "a%0Ab%25.pdf");
        assert_eq!(path_text(path(b"\xff.pdf")), "%FF.pdf");
        for bytes in [&b"a/b"[..], b"100%", b"\xff\n\x01", "ä\u{85}".as_bytes()] {
            assert_eq!(decode_path(&encode_path(path(bytes))), path(bytes));
        }
    }

    #[test]
    fn an_id_tells_the_version_of_a_file() {
        let state = FileState {
            size: 7,
            mtime: EventTime::from_micros(1),
            identity: "12".into(),
            ctime: EventTime::from_micros(2),
            place: (1, 12),
        };
        let id = |state: &FileState| state.id(Path::new("a"), None, 0);
        let moved = FileState { ctime: EventTime::from_micros(9), place: (2, 12), ..state.clone() };
        assert_eq!(id(&state), id(&moved), "the same file, seen by another host");
        assert_eq!(state.version(), moved.version());
        let others = [
            FileState { size: 8, ..state.clone() },
            FileState { mtime: EventTime::from_micros(2), ..state.clone() },
            FileState { identity: "13".into(), ..state.clone() },
        ];
        for other in &others {
            assert_ne!(id(&state), id(other));
            assert_ne!(state.version(), other.version());
        }
        assert_ne!(id(&state), state.id(Path::new("b"), None, 0));
        assert_ne!(id(&state), state.id(Path::new("a"), None, 1));
        let by_content = |state: &FileState| state.id(Path::new("a"), Some(&[1; 32]), 0);
        assert_eq!(by_content(&state), by_content(&others[0]), "by its content, whatever its number");
        assert_ne!(by_content(&state), by_content(&others[1]), "written again later");
        let text: String = ShortHash::of([&b"x"[..]]).into();
        assert_eq!((ShortHash::try_from(text.clone()).unwrap(), text.len()), (ShortHash::of([&b"x"[..]]), 16));
    }
}
