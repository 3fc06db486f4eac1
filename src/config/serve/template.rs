//! Texts with places that a webhook fills in: `github.{x-github-event}.{body.action}`.

use std::fmt;

/// A text with places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<TemplatePart>,
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    /// As it stands.
    Text(String),
    /// The value of a header, its name in lower case.
    Header(String),
    /// A member of the body, which is JSON: the names of the members on the way to it.
    Body(Vec<String>),
}

impl Template {
    /// Reads a template. A place is the name of a header, or `body.` and the path of a member.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((place, behind)) = after.split_once('}') else {
                return Err("has a '{' without a '}'".to_owned());
            };
            if !before.is_empty() {
                parts.push(TemplatePart::Text(before.to_owned()));
            }
            parts.push(read_place(place)?);
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(TemplatePart::Text(rest.to_owned()));
        }
        if parts.is_empty() {
            return Err("is empty".to_owned());
        }
        Ok(Self { parts })
    }

    /// The text with its places filled in by `value`; none if a place has no value.
    pub fn fill(&self, value: impl Fn(&TemplatePart) -> Option<String>) -> Option<String> {
        self.parts.iter().map(|part| Self::part(part, &value)).collect()
    }

    /// The same; a place that has no value is left out, and a dot before it.
    pub fn fill_tokens(&self, value: impl Fn(&TemplatePart) -> Option<String>) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match Self::part(part, &value).filter(|part| !part.is_empty()) {
                Some(part) => text.push_str(&part),
                None if text.ends_with('.') => _ = text.pop(),
                None => {}
            }
        }
        text
    }

    fn part(part: &TemplatePart, value: impl Fn(&TemplatePart) -> Option<String>) -> Option<String> {
        match part {
            TemplatePart::Text(text) => Some(text.clone()),
            place => value(place),
        }
    }
}

fn read_place(place: &str) -> Result<TemplatePart, String> {
    match place.strip_prefix("body.") {
        Some(path) if path.split('.').any(str::is_empty) => Err(format!("has a broken path in '{{{place}}}'")),
        Some(path) => Ok(TemplatePart::Body(path.split('.').map(str::to_owned).collect())),
        None if is_header(place) => Ok(TemplatePart::Header(place.to_ascii_lowercase())),
        None => Err(format!("has '{{{place}}}', which is neither a header's name nor body.MEMBER")),
    }
}

/// Whether a text can be the name of a header (RFC 9110, 5.6.2).
pub(in crate::config) fn is_header(text: &str) -> bool {
    reqwest::header::HeaderName::from_bytes(text.as_bytes()).is_ok()
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            TemplatePart::Text(text) => f.write_str(text),
            TemplatePart::Header(name) => write!(f, "{{{name}}}"),
            TemplatePart::Body(path) => write!(f, "{{body.{}}}", path.join(".")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(part: &TemplatePart) -> Option<String> {
        match part {
            TemplatePart::Header(name) if name == "x-github-event" => Some("pull_request".to_owned()),
            TemplatePart::Body(path) if path.join(".") == "action" => Some("opened".to_owned()),
            TemplatePart::Body(path) if path.join(".") == "empty" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn places_are_filled_in() {
        for (text, tokens, whole) in [
            ("github.{X-GitHub-Event}.{body.action}", "github.pull_request.opened", Some("github.pull_request.opened")),
            ("github.{x-github-event}.{body.none}", "github.pull_request", None),
            ("a.{body.none}.b", "a.b", None),
            ("a.{body.empty}", "a", Some("a.")),
            ("plain", "plain", Some("plain")),
            ("{body.none}", "", None),
        ] {
            let template = Template::parse(text).unwrap();
            assert_eq!(template.fill_tokens(value), tokens, "{text}");
            assert_eq!(template.fill(value).as_deref(), whole, "{text}");
            assert_eq!(template.to_string(), text.to_ascii_lowercase());
        }
    }

    #[test]
    fn a_broken_template_is_refused() {
        for text in ["", "a{", "{}", "{a b}", "{body.}", "{body.a..b}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
