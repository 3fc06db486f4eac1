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
fn a_pattern_matches_its_types() {
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
fn invalid_patterns_are_refused_with_a_reason() {
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
fn a_filter_parses_user_input() {
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
fn filters_that_match_everything_are_equal() {
    assert!(filter(&[], &[]).everything());
    assert!(filter(&[">"], &[]).everything());
    assert_eq!(filter(&["a", "**"], &[]), filter(&[], &[]));
    assert!(!filter(&["*"], &[]).everything());
    assert!(!filter(&["!a"], &[]).everything());
    assert!(filter(&["!a"], &[]).matches("b") && !filter(&["!a"], &[]).matches("a"));
}

#[test]
fn a_slug_decides_or_is_unsure() {
    let long = slug_of(&format!("order.{}.eu", "x".repeat(200)));
    for (types, not, slug, expected) in [
        (&["order.*"][..], &[][..], "order.created", NameMatch::Yes),
        (&["order.*"], &[], "mail.sent", NameMatch::No),
        (&["order.*"], &["order.test"], "order.test", NameMatch::No),
        (&[], &[], "_rder~", NameMatch::Yes),
        (&["**"], &[], "_rder~", NameMatch::Yes),
        (&[], &["a"], "_rder~", NameMatch::Unsure),
        (&["Order"], &[], "_rder~", NameMatch::Unsure),
        (&["_rder"], &[], "_rder~", NameMatch::Unsure),
        (&["order"], &[], "_rder~", NameMatch::No),
        (&["order.*"], &[], "order._reated~", NameMatch::Unsure),
        (&["mail.*"], &[], "order._reated~", NameMatch::No),
        (&["order.**"], &[], &long, NameMatch::Unsure),
        (&["order.*"], &[], &long, NameMatch::Unsure),
        (&["order.*.eu"], &[], &long, NameMatch::Unsure),
        (&["order.xxx.eu"], &[], &long, NameMatch::No),
        (&["mail.**"], &[], &long, NameMatch::No),
        (&["order"], &[], &long, NameMatch::No),
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
    fn a_match_by_slug_agrees_with_a_match_by_type(
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
            NameMatch::Yes => prop_assert!(filter.matches(&type_)),
            NameMatch::No => prop_assert!(!filter.matches(&type_)),
            NameMatch::Unsure => prop_assert_ne!(slug_of(&type_), type_),
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
