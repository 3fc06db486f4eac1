//! The name of a consumer group: a folder and a file on the bus, so it must be safe as both, on every store.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest group name, in bytes.
const MAX_BYTES: usize = 64;

/// A valid group name: `[a-z0-9][a-z0-9._-]{0,63}`.
///
/// Lower case only, because names on the bus never differ by letter case alone (SMB folds case).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupName(String);

/// Why a text is not a [`GroupName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupNameError {
    /// Nothing was given.
    #[error("group name is empty: use lower-case letters, digits, '.', '_', '-'")]
    Empty,
    /// It would not fit beside the other parts of a key.
    #[error("group name of {0} bytes: use at most {MAX_BYTES}")]
    TooLong(usize),
    /// It begins with '.', '_' or '-': hidden, `..`, or read as an option.
    #[error("group name '{}': begin with a lower-case letter or a digit", .0.escape_debug())]
    Start(String),
    /// It holds something that is no part of a name.
    #[error("group name '{}': use lower-case letters, digits, '.', '_', '-'", .0.escape_debug())]
    Character(String),
}

impl GroupName {
    /// Checks a name.
    ///
    /// # Errors
    /// Says which rule it breaks, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, GroupNameError> {
        let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_inside = |byte: u8| is_alphanumeric(byte) || matches!(byte, b'.' | b'_' | b'-');
        let Some(first) = text.bytes().next() else { return Err(GroupNameError::Empty) };
        if text.len() > MAX_BYTES {
            return Err(GroupNameError::TooLong(text.len()));
        }
        if !text.bytes().all(is_inside) {
            return Err(GroupNameError::Character(text.to_owned()));
        }
        if !is_alphanumeric(first) {
            return Err(GroupNameError::Start(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for GroupName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for GroupName {
    type Err = GroupNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for GroupName {
    type Error = GroupNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<GroupName> for String {
    fn from(name: GroupName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_names_that_are_safe_as_files() {
        for name in ["a", "7", "mail", "mail-2", "a.b_c-d", "a..b", &"x".repeat(64)] {
            assert_eq!(GroupName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn refuses_other_names_and_suggests_a_cure() {
        let table = [
            ("", "group name is empty: use lower-case letters, digits, '.', '_', '-'"),
            ("a/b", "group name 'a/b': use lower-case letters, digits, '.', '_', '-'"),
            ("Mail", "group name 'Mail': use lower-case letters, digits, '.', '_', '-'"),
            ("é", "group name 'é': use lower-case letters, digits, '.', '_', '-'"),
            ("a\nb", "group name 'a\\nb': use lower-case letters, digits, '.', '_', '-'"),
            ("a\u{1b}", "group name 'a\\u{1b}': use lower-case letters, digits, '.', '_', '-'"),
            ("..", "group name '..': begin with a lower-case letter or a digit"),
            ("-g", "group name '-g': begin with a lower-case letter or a digit"),
            (&"x".repeat(65), "group name of 65 bytes: use at most 64"),
        ];
        for (name, error) in table {
            assert_eq!(GroupName::parse(name).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn goes_through_serde_as_a_checked_string() {
        let name: GroupName = serde_json::from_str("\"mail\"").unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"mail\"");
        let error = serde_json::from_str::<GroupName>("\"../x\"").unwrap_err();
        assert!(error.to_string().starts_with("group name '../x'"), "{error}");
    }
}
