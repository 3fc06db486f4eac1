use proptest::prelude::*;

use super::*;

const NAME: &str = "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-order.created.json";

fn any_time() -> impl Strategy<Value = EventTime> {
    (EventTime::MIN.as_micros()..=EventTime::MAX.as_micros()).prop_map(EventTime::from_micros)
}

/// Ordinary types, hostile ones, and any text at all.
fn any_type() -> impl Strategy<Value = String> {
    static HOSTILE: [&str; 22] = [
        "",
        ".",
        "..",
        "../../etc/passwd",
        "/",
        "\\",
        "a/b",
        "con",
        "nul.",
        "a:b",
        "~",
        "x~",
        ".json",
        "Order.Created",
        "a\0b",
        "a\nb",
        "-rf",
        "café",
        "\u{202e}",
        "*",
        "$(id)",
        "a b",
    ];
    prop_oneof![
        "[a-z0-9._-]{1,30}",
        "\\PC{0,200}",
        proptest::collection::vec(any::<char>(), 0..200).prop_map(|chars| chars.into_iter().collect()),
        proptest::sample::select(&HOSTILE[..]).prop_map(str::to_owned),
        ("[a-zé]", 100_usize..10_240).prop_map(|(letter, times)| letter.repeat(times)),
    ]
}

prop_compose! {
    fn any_name()(time in any_time(), key in "\\PC{0,9}", a: u64, b: u64, type_ in any_type()) -> EventName {
        EventName::new(time, HashSlot::of(&key), &Identity::random(a, b), &type_)
    }
}

#[test]
fn a_name_has_its_parts() {
    let name = EventName::parse(NAME).unwrap();
    assert_eq!(name.time().to_string(), "20261123T021530.123456Z");
    assert_eq!(name.hash_slot().to_string(), "7k");
    assert_eq!(name.identity(), "q3f9x2m7qa5w0c");
    assert_eq!(name.slug(), "order.created");
    assert_eq!(name.stem(), "20261123T021530.123456Z-7kq3f9x2m7qa5w0c");
    assert_eq!(name.stem().len(), EventName::STEM_LEN);
    assert_eq!(EventName::STEM_LEN, 40);
    assert_eq!(name.key(), format!("events/20261123/0215/{NAME}"));
    assert_eq!(minute_folder(name.time()), "events/20261123/0215/");
}

#[test]
fn refuses_invalid_names() {
    for text in [
        "",
        ".json",
        "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-.json",
        "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-order.created.json.tmp",
        "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-order.created.JSON",
        "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-order.created",
        "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-Order.json",
        "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-a~b.json",
        "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-a~~.json",
        "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-a/b.json",
        "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-é.json",
        "20261123T021530.123456Z-7kq3f9x2m7qa5w0C-order.json",
        "20261123T021530.123456Z-7kq3f9x2m7qa5w0u-order.json",
        "20261123T021530.123456Z-7kq3f9x2m7qa5wé-order.json",
        "20261123T021530.123456Z_7kq3f9x2m7qa5w0c-order.json",
        "20261123T021530.123456Z-7kq3f9x2m7qa5w0c_order.json",
        "20260230T021530.123456Z-7kq3f9x2m7qa5w0c-order.json",
        "20261123T021530.12345Z-7kq3f9x2m7qa5w0c-order.json",
        "x20261123T021530.123456Z-7kq3f9x2m7qa5w0c-order.json",
    ] {
        assert_eq!(EventName::parse(text), None, "{text}");
        assert!(serde_json::from_value::<EventName>(text.into()).is_err());
    }
    let long = |slug: usize| format!("20261123T021530.123456Z-7kq3f9x2m7qa5w0c-{}.json", "a".repeat(slug));
    assert!(EventName::parse(&long(120)).is_some());
    assert_eq!(EventName::parse(&long(121)), None);
}

#[test]
fn a_key_needs_the_folder_of_its_time() {
    assert_eq!(EventName::from_key(&format!("events/20261123/0215/{NAME}")), EventName::parse(NAME));
    for folder in [
        "",
        "events/",
        "events/20261123/",
        "events/20261123/0216/",
        "events/20261124/0215/",
        "events/20261123/0215",
        "events/20261123x0215/",
        "/events/20261123/0215/",
        "event/20261123/0215/",
        "events/2026112/30215/",
        "events/20261123/0215/0/",
        "events/éé",
    ] {
        assert_eq!(EventName::from_key(&format!("{folder}{NAME}")), None, "{folder}");
    }
}

#[test]
fn types_are_abbreviated_to_slugs() {
    for (type_, slug) in [
        ("order.created", "order.created"),
        ("a", "a"),
        ("-_.9", "-_.9"),
        ("..", ".."),
        ("", "~"),
        ("~", "_~"),
        ("order~", "order_~"),
        ("Order.Created", "_rder._reated~"),
        ("a/../b", "a_.._b~"),
        ("é", "_~"),
        ("a\u{0}\n b", "a___b~"),
    ] {
        assert_eq!(slug_of(type_), slug);
    }
    assert_eq!(slug_of(&"a".repeat(120)), "a".repeat(120));
    assert_eq!(slug_of(&"a".repeat(121)), format!("{}~", "a".repeat(119)));
    assert_eq!(slug_of(&"é".repeat(5_000)), format!("{}~", "_".repeat(119)));
}

proptest! {
    #[test]
    fn parts_parse_back(time in any_time(), key in "\\PC{0,9}", a: u64, b: u64, type_ in any_type()) {
        let (hash_slot, identity) = (HashSlot::of(&key), Identity::random(a, b));
        let name = EventName::new(time, hash_slot, &identity, &type_);
        let slug = slug_of(&type_);
        let parts = NameParts { time, hash_slot, identity: identity.as_str(), slug: &slug };
        prop_assert_eq!(parse_parts(name.as_str()), Some(parts));
        prop_assert_eq!(name.time(), time);
        prop_assert_eq!(name.hash_slot(), hash_slot);
        prop_assert_eq!(name.identity(), identity.as_str());
        prop_assert_eq!(name.slug(), slug_of(&type_));
        prop_assert_eq!(EventName::parse(name.as_str()), Some(name.clone()));
        prop_assert_eq!(EventName::from_key(&name.key()), Some(name.clone()));
        let json = serde_json::to_string(&name).unwrap();
        prop_assert_eq!(serde_json::from_str::<EventName>(&json).unwrap(), name);
    }

    #[test]
    fn a_slug_without_tilde_is_the_type(type_ in any_type()) {
        let slug = slug_of(&type_);
        prop_assert_eq!(slug == type_, !slug.ends_with('~'));
        prop_assert!(is_slug(slug.as_bytes()));
    }

    #[test]
    fn a_name_is_a_safe_file_name(name in any_name()) {
        let text = name.as_str();
        prop_assert!(text.len() < 200);
        prop_assert!(text.starts_with(|first: char| first.is_ascii_digit()) && text.ends_with(".json"));
        let safe = |c: char| c.is_ascii_alphanumeric() || "._-~".contains(c);
        prop_assert!(text.chars().all(safe));
        prop_assert_eq!(name.key().split('/').count(), 4);
    }

    /// SMB folds case. The only capitals are the `T` and `Z` of the time, in every name.
    #[test]
    fn no_two_names_differ_by_case_only(name in any_name()) {
        let text = name.as_str();
        let capitals: Vec<usize> = (0..text.len()).filter(|&at| text.as_bytes()[at].is_ascii_uppercase()).collect();
        prop_assert_eq!(capitals, vec![8, 22]);
        prop_assert_eq!(EventName::parse(&text.to_lowercase()), None);
        prop_assert_eq!(EventName::parse(&text.to_uppercase()), None);
    }

    #[test]
    fn names_and_keys_sort_by_time(a in any_name(), b in any_name()) {
        let order = a.time().cmp(&b.time()).then_with(|| a.cmp(&b));
        prop_assert_eq!(a.cmp(&b), order);
        prop_assert_eq!(a.key().cmp(&b.key()), order);
        prop_assert!(a.cmp(&b) == a.stem().cmp(b.stem()) || a.stem() == b.stem());
        let next = b.with_time(a.time().next());
        prop_assert!(next > a || a.time() == EventTime::MAX);
        prop_assert!(next.key() > a.key() || a.time() == EventTime::MAX);
    }

    #[test]
    fn with_time_changes_only_the_time(name in any_name(), time in any_time()) {
        let moved = name.with_time(time);
        prop_assert_eq!(moved.time(), time);
        prop_assert_eq!(&moved.as_str()[EventTime::LEN..], &name.as_str()[EventTime::LEN..]);
        prop_assert_eq!(EventName::parse(moved.as_str()), Some(moved));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,60}", at in 0_usize..60) {
        let _ = EventName::parse(&text);
        let _ = EventName::from_key(&text);
        let _ = EventName::from_key(&format!("events/{text}"));
        let mut broken = NAME.to_owned();
        broken.insert(at.min(broken.len()), 'é');
        prop_assert_eq!(EventName::parse(&broken), None);
    }
}
