//! The parameters of a query, and a body that is a JSON object.

use serde::de::DeserializeOwned;

use super::problem::Problem;

/// Whole numbers and flags of a query, by their names.
pub(super) struct Parameters<'a> {
    known: &'a [&'a str],
    values: Vec<(String, String)>,
}

impl<'a> Parameters<'a> {
    pub fn read(query: Option<&str>, known: &'a [&'a str]) -> Result<Self, Problem> {
        let mut values: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let wrong = |why: String| Problem::bad_request(format!("{name}: {why}")).member("parameter", &*name);
            if !known.contains(&&*name) {
                let known =
                    if known.is_empty() { "none is".to_owned() } else { format!("{} are", known.join(" and ")) };
                return Err(wrong(format!("is not a parameter here ({known})")));
            }
            if values.iter().any(|(other, _)| *other == name) {
                return Err(wrong("is there twice".to_owned()));
            }
            values.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self { known, values })
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        debug_assert!(self.known.contains(&name));
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    pub fn number(&self, name: &'static str, least: u64, most: u64, otherwise: u64) -> Result<u64, Problem> {
        match self.text(name).map(str::parse) {
            None => Ok(otherwise),
            Some(Ok(number)) if (least..=most).contains(&number) => Ok(number),
            Some(_) => {
                let what = format!("{name}: must be a whole number from {least} to {most}");
                Err(Problem::bad_request(what).member("parameter", name))
            }
        }
    }

    pub fn flag(&self, name: &'static str, otherwise: bool) -> Result<bool, Problem> {
        match self.text(name) {
            None => Ok(otherwise),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(Problem::bad_request(format!("{name}: must be true or false")).member("parameter", name)),
        }
    }
}

/// Reads a JSON object that may be left out.
pub(super) fn read_object_or_nothing<T: DeserializeOwned + Default>(text: &[u8]) -> Result<T, String> {
    if text.trim_ascii().is_empty() { Ok(T::default()) } else { read_object(text) }
}

/// Reads a JSON object; an array would be taken for its members in their order.
pub(super) fn read_object<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    if text.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err("it is no object".to_owned());
    }
    serde_json::from_slice(text).map_err(|error| error.to_string())
}
