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
pub enum Wanted {
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
            Extent::MaybeCut => self.may_begin(body),
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
    pub fn matches_slug(&self, slug: &str) -> Wanted {
        let Some((body, extent)) = inexact_slug(slug) else {
            return if self.matches(slug) { Wanted::Yes } else { Wanted::No };
        };
        let possible = self.types.is_empty() || self.types.iter().any(|pattern| pattern.may_match(body, extent));
        match possible {
            _ if self.everything() => Wanted::Yes,
            true => Wanted::Unsure,
            false => Wanted::No,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::slug_of;
    use super::*;

    fn pattern(text: &str) -> TypePattern {
        TypePattern::parse(text).unwrap()
    }

    fn filter(types: &[&str], not: &[&str]) -> TypeFilter {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        TypeFilter::new(&owned(types), &owned(not)).unwrap()
    }

    #[test]
    fn what_a_pattern_takes() {
        for (text, type_, expected) in [
            ("order.created", "order.created", true),
            ("order.created", "order.created.eu", false),
            ("order.created", "order", false),
            ("order.created", "Order.created", false),
            ("order.*", "order.created", true),
            ("order.*", "order", false),
            ("order.*", "order.created.eu", false),
            ("order.*", "orders.created", false),
            ("*.created", "order.created", true),
            ("*", "order", true),
            ("*", "order.created", false),
            ("*.*", "a.b", true),
            ("*.*", "a", false),
            ("a.*.c", "a..c", true),
            ("**", "order", true),
            ("**", "order.created.eu", true),
            (">", "order.created.eu", true),
            ("order.**", "order.created", true),
            ("order.**", "order.created.eu", true),
            ("order.**", "order", false),
            ("order.>", "order.created.eu", true),
            ("*.**", "a", false),
            ("*.**", "a.b.c", true),
            ("café.!x", "café.!x", true),
        ] {
            assert_eq!(pattern(text).matches(type_), expected, "{text} on {type_}");
        }
    }

    #[test]
    fn refused_with_a_reason() {
        for (text, reason) in [
            ("", "is empty"),
            ("order.", "quote it"),
            (".", "quote it"),
            ("order..created", "empty token"),
            (".order", "empty token"),
            ("**.created", "not its last token"),
            (">.created", "not its last token"),
            ("ord*", "inside a token"),
            ("order.cre*ed", "inside a token"),
            ("order.***", "inside a token"),
            ("order.a>", "inside a token"),
            ("!order", "--not"),
            ("a\u{1b}[2J", "control character"),
        ] {
            let error = TypePattern::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
        assert_eq!(
            TypePattern::parse("order.").unwrap_err().to_string(),
            "pattern 'order.' ends in a dot (did the shell take '>'? quote it)"
        );
    }

    #[test]
    fn a_filter_reads_what_users_write() {
        let wanted = filter(&["order.>, !order.test", "a,b"], &["*.draft"]);
        assert_eq!(wanted.types_text(), ["a", "b", "order.**"]);
        assert_eq!(wanted.not_text(), ["*.draft", "order.test"]);
        assert_eq!(wanted, filter(&["b", "a", "order.**", "a"], &["order.test,*.draft"]));
        assert!(wanted.matches("order.created") && wanted.matches("a"));
        assert!(!wanted.matches("order.test") && !wanted.matches("order.draft") && !wanted.matches("c"));
        assert!(!wanted.everything());
        for bad in ["", "a,,b", "a,", "!", "!!a", "ord*"] {
            assert!(TypeFilter::new(&[bad.to_owned()], &[]).is_err(), "{bad}");
            assert!(TypeFilter::new(&[], &[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn everything_has_one_form() {
        assert!(filter(&[], &[]).everything());
        assert!(filter(&[">"], &[]).everything());
        assert_eq!(filter(&["a", "**"], &[]), filter(&[], &[]));
        assert!(!filter(&["*"], &[]).everything());
        assert!(!filter(&["!a"], &[]).everything());
        assert!(filter(&["!a"], &[]).matches("b") && !filter(&["!a"], &[]).matches("a"));
    }

    #[test]
    fn a_slug_tells_what_it_can() {
        let long = slug_of(&format!("order.{}.eu", "x".repeat(200)));
        for (types, not, slug, expected) in [
            (&["order.*"][..], &[][..], "order.created", Wanted::Yes),
            (&["order.*"], &[], "mail.sent", Wanted::No),
            (&["order.*"], &["order.test"], "order.test", Wanted::No),
            (&[], &[], "_rder~", Wanted::Yes),
            (&["**"], &[], "_rder~", Wanted::Yes),
            (&[], &["a"], "_rder~", Wanted::Unsure),
            (&["Order"], &[], "_rder~", Wanted::Unsure),
            (&["_rder"], &[], "_rder~", Wanted::Unsure),
            (&["order"], &[], "_rder~", Wanted::No),
            (&["order.*"], &[], "order._reated~", Wanted::Unsure),
            (&["mail.*"], &[], "order._reated~", Wanted::No),
            (&["order.**"], &[], &long, Wanted::Unsure),
            (&["order.*"], &[], &long, Wanted::Unsure),
            (&["order.*.eu"], &[], &long, Wanted::Unsure),
            (&["order.xxx.eu"], &[], &long, Wanted::No),
            (&["mail.**"], &[], &long, Wanted::No),
            (&["order"], &[], &long, Wanted::No),
        ] {
            assert_eq!(filter(types, not).matches_slug(slug), expected, "{types:?} but {not:?} on {slug}");
        }
    }

    fn any_type() -> impl Strategy<Value = String> {
        let token = prop_oneof!["[a-cA-Cé_~]{1,3}", "[aé]{58,62}", Just(String::new())];
        proptest::collection::vec(token, 1..5).prop_map(|tokens| tokens.join("."))
    }

    fn any_pattern() -> impl Strategy<Value = String> {
        let token = prop_oneof![Just("*".to_owned()), "[a-cA-Cé_~]{1,2}", "[aé]{58,62}"];
        let tail = prop_oneof![Just(""), Just(".**")];
        (proptest::collection::vec(token, 1..4), tail).prop_map(|(tokens, tail)| tokens.join(".") + tail)
    }

    /// A pattern made from a type, so that it often matches.
    fn pattern_near(type_: &str, stars: &[bool]) -> String {
        let tokens = type_.split('.').zip(stars.iter().chain(std::iter::repeat(&false)));
        tokens.map(|(token, &star)| if star || token.is_empty() { "*" } else { token }).collect::<Vec<_>>().join(".")
    }

    proptest! {
        #[test]
        fn a_slug_never_lies(
            type_ in any_type(),
            types in proptest::collection::vec(any_pattern(), 0..3),
            not in proptest::collection::vec(any_pattern(), 0..2),
            stars in proptest::collection::vec(any::<bool>(), 0..4),
            near in 0..3,
        ) {
            let (mut types, mut not) = (types, not);
            match near {
                1 => types.push(pattern_near(&type_, &stars)),
                2 => not.push(pattern_near(&type_, &stars)),
                _ => {}
            }
            let filter = TypeFilter::new(&types, &not).unwrap();
            match filter.matches_slug(&slug_of(&type_)) {
                Wanted::Yes => prop_assert!(filter.matches(&type_)),
                Wanted::No => prop_assert!(!filter.matches(&type_)),
                Wanted::Unsure => prop_assert_ne!(slug_of(&type_), type_),
            }
        }

        #[test]
        fn the_normal_form_is_a_pattern(text in any_pattern(), type_ in any_type()) {
            let first = pattern(&text);
            let again = pattern(&first.to_string());
            prop_assert_eq!(first.matches(&type_), again.matches(&type_));
            prop_assert_eq!(first, again);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,20}", type_ in "\\PC{0,20}") {
            if let Ok(pattern) = TypePattern::parse(&text) {
                let _ = pattern.matches(&type_);
            }
        }
    }
}
