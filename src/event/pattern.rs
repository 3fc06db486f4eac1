//! Type patterns: `order.created` itself, `*` one token, `**` one or more tokens at the end. Tokens are split at dots.

use std::fmt;

use super::name::{Extent, inexact_slug, slug_char};

/// A pattern of event types. Ordered and compared by its text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypePattern {
    /// The normal form: `>` is written `**`.
    text: Box<str>,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pattern '{}' {problem}", .pattern.escape_debug())]
pub struct PatternError {
    /// The text.
    pub pattern: String,
    /// What is wrong with it, to be read after it.
    pub problem: &'static str,
}

/// Whether an event is wanted, as far as its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameMatch {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// Only the document tells: the name does not hold the type as it is.
    Unsure,
}

impl TypePattern {
    /// Reads a pattern; `>` at the end is taken for `**`.
    ///
    /// # Errors
    /// Where a token is empty, or `*`, `**` or `>` stands where it cannot.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        match problem_of(text) {
            Some(problem) => Err(PatternError { pattern: text.to_owned(), problem }),
            None => Ok(Self { text: normal_form(text).into() }),
        }
    }

    /// Whether the type is one of this pattern's.
    pub fn matches(&self, type_: &str) -> bool {
        self.matches_tokens(type_, |literal, token| literal == token)
    }

    /// Its normal form.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Walks pattern and type together; `same` compares a literal token with one of the type.
    fn matches_tokens(&self, type_: &str, same: impl Fn(&str, &str) -> bool) -> bool {
        let mut tokens = type_.split('.');
        for wanted in self.text.split('.') {
            let Some(token) = tokens.next() else { return false };
            match wanted {
                "**" => return true,
                "*" => {}
                literal if same(literal, token) => {}
                _ => return false,
            }
        }
        tokens.next().is_none()
    }

    /// Whether some type that begins with `start`, as a slug shows it, could be one of this pattern's.
    fn may_begin(&self, start: &str) -> bool {
        let mut wanted = self.text.split('.');
        let mut tokens = start.split('.').peekable();
        while let Some(token) = tokens.next() {
            let whole = tokens.peek().is_some();
            match wanted.next() {
                None => return false,
                Some("**") => return true,
                Some("*") => {}
                Some(literal) if whole && shown_as(literal, token) => {}
                Some(literal) if !whole && slug_text(literal).starts_with(token) => {}
                Some(_) => return false,
            }
        }
        true
    }

    /// Whether a type that a slug shows as `body` could be one of this pattern's.
    fn may_match(&self, body: &str, extent: Extent) -> bool {
        match extent {
            Extent::Whole => self.matches_tokens(body, shown_as),
            Extent::MaybeTruncated => self.may_begin(body),
        }
    }
}

impl fmt::Display for TypePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for TypePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// The types that a group wants: those of `types` (all, if there are none) that are not of `not`.
///
/// Equal filters want the same types: patterns are sorted, repeats dropped, and `**` is the same as no pattern.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeFilter {
    types: Vec<TypePattern>,
    not: Vec<TypePattern>,
}

impl TypeFilter {
    /// Reads patterns as a user writes them: an item may hold several, split at commas, and `!x` in `types` means `x`
    /// in `not`.
    ///
    /// # Errors
    /// The first text that is no pattern.
    pub fn new(types: &[String], not: &[String]) -> Result<Self, PatternError> {
        let mut filter = Self::default();
        for text in patterns_in(types) {
            match text.strip_prefix('!') {
                Some(unwanted) => filter.not.push(TypePattern::parse(unwanted)?),
                None => filter.types.push(TypePattern::parse(text)?),
            }
        }
        for text in patterns_in(not) {
            filter.not.push(TypePattern::parse(text)?);
        }
        filter.normalise();
        Ok(filter)
    }

    /// Whether the type is wanted.
    pub fn matches(&self, type_: &str) -> bool {
        let wanted = self.types.is_empty() || self.types.iter().any(|pattern| pattern.matches(type_));
        wanted && !self.not.iter().any(|pattern| pattern.matches(type_))
    }

    /// Whether the type behind a name's slug is wanted.
    pub fn matches_slug(&self, slug: &str) -> NameMatch {
        let Some((body, extent)) = inexact_slug(slug) else {
            return if self.matches(slug) { NameMatch::Yes } else { NameMatch::No };
        };
        let possible = self.types.is_empty() || self.types.iter().any(|pattern| pattern.may_match(body, extent));
        match possible {
            _ if self.everything() => NameMatch::Yes,
            true => NameMatch::Unsure,
            false => NameMatch::No,
        }
    }

    /// Whether events of a segment with this slug are wanted: a `~` always means that their slugs
    /// begin so.
    pub fn matches_segment(&self, slug: &str) -> NameMatch {
        let Some(start) = slug.strip_suffix('~') else { return self.matches_slug(slug) };
        match self.types.is_empty() || self.types.iter().any(|pattern| pattern.may_begin(start)) {
            _ if self.everything() => NameMatch::Yes,
            true => NameMatch::Unsure,
            false => NameMatch::No,
        }
    }

    /// Whether every type is wanted.
    pub fn everything(&self) -> bool {
        self.types.is_empty() && self.not.is_empty()
    }

    /// The wanted patterns in their normal form, sorted; none means every type.
    pub fn types_text(&self) -> Vec<String> {
        self.types.iter().map(TypePattern::to_string).collect()
    }

    /// The unwanted patterns in their normal form, sorted.
    pub fn not_text(&self) -> Vec<String> {
        self.not.iter().map(TypePattern::to_string).collect()
    }

    fn normalise(&mut self) {
        if self.types.iter().any(|pattern| pattern.as_str() == "**") {
            self.types.clear();
        }
        for patterns in [&mut self.types, &mut self.not] {
            patterns.sort();
            patterns.dedup();
        }
    }
}

/// The patterns in a list whose items may hold several.
fn patterns_in(items: &[String]) -> impl Iterator<Item = &str> {
    items.iter().flat_map(|item| item.split(',')).map(str::trim)
}

/// What keeps a text from being a pattern.
fn problem_of(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("is empty");
    }
    if text.starts_with('!') {
        return Some("begins with '!', which only a list of wanted types may (or use --not)");
    }
    if text.ends_with('.') {
        return Some("ends in a dot (did the shell take '>'? quote it)");
    }
    let last = text.split('.').count() - 1;
    text.split('.').enumerate().find_map(|(place, token)| token_problem(token, place == last))
}

fn token_problem(token: &str, is_last: bool) -> Option<&'static str> {
    match token {
        "" => Some("has an empty token (two dots, or one at the start)"),
        "*" => None,
        "**" | ">" if is_last => None,
        "**" | ">" => Some("has a '**' that is not its last token; '*' is one token"),
        _ if token.contains(['*', '>']) => Some("has a '*' inside a token; '*' stands for a whole one, between dots"),
        _ if token.chars().any(char::is_control) => Some("holds a control character, which no type has"),
        _ => None,
    }
}

fn normal_form(text: &str) -> String {
    match text.strip_suffix('>') {
        Some(start) => format!("{start}**"),
        None => text.to_owned(),
    }
}

/// A text as a slug shows it, before the `~`.
fn slug_text(text: &str) -> String {
    text.chars().map(slug_char).collect()
}

/// Whether a slug shows the literal token as `token`.
fn shown_as(literal: &str, token: &str) -> bool {
    literal.chars().map(slug_char).eq(token.chars())
}

/// Why no pattern could name a type, if that is so.
pub fn odd_type(type_: &str) -> Option<&'static str> {
    if type_.contains(['*', '>', ',']) || type_.starts_with('!') {
        Some("has a character that patterns use")
    } else if type_.split('.').any(str::is_empty) {
        Some("has an empty token")
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
