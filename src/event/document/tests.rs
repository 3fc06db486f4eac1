use proptest::prelude::*;
use serde_json::json;

use super::*;

const LIMIT: usize = 1_048_576;
const LEAST: &str = r#""specversion":"1.0","id":"1","source":"/s","type":"t""#;

/// A document with what is required and `members` after it.
fn with(members: &str) -> Result<Event, EventError> {
    Event::parse(format!("{{{LEAST},{members}}}").as_bytes(), LIMIT)
}

fn refusal(document: &str) -> String {
    Event::parse(document.as_bytes(), LIMIT).unwrap_err().to_string()
}

#[test]
fn every_member_is_read() {
    let event = with(
        r#""subject":"x","time":"2026-11-23T02:15:30+01:00","datacontenttype":"text/xml; charset=utf-8","n":-5,
        "dataschema":"urn:a:b","b":true,"causationid":"c\u00e9","data":{"a" : 1}"#,
    )
    .unwrap();
    assert_eq!((event.id(), event.source(), event.type_()), ("1", "/s", "t"));
    assert_eq!((event.subject(), event.dataschema()), (Some("x"), Some("urn:a:b")));
    assert_eq!(event.datacontenttype(), Some("text/xml; charset=utf-8"));
    assert_eq!(event.time(), Some("2026-11-23T02:15:30+01:00"));
    assert_eq!(event.occurred_at(), EventTime::parse("20261123T011530.000000Z"));
    assert_eq!(event.extensions().keys().collect::<Vec<_>>(), ["n", "b", "causationid"]);
    assert_eq!(*event.data(), Data::json(r#"{"a" : 1}"#).unwrap());
    for (name, value) in [
        ("specversion", Some("1.0")),
        ("id", Some("1")),
        ("source", Some("/s")),
        ("type", Some("t")),
        ("subject", Some("x")),
        ("causationid", Some("cé")),
        ("n", Some("-5")),
        ("b", Some("true")),
        ("correlationid", None),
        ("data", None),
    ] {
        assert_eq!(event.attribute(name).as_deref(), value, "{name}");
    }
}

#[test]
fn valid_documents_are_accepted() {
    for members in [
        r#""data":null"#,
        r#""data":1e999"#,
        r#""data":[1, 2 ,"\ud800"]"#,
        r#""data_base64":"Zm9v""#,
        r#""data_base64":"""#,
        r#""data_base64":null,"data":1"#,
        r#""subject":null,"time":null,"datacontenttype":null,"dataschema":null,"x":null"#,
        r#""time":"2016-12-31T23:59:60Z""#,
        r#""datacontenttype":"application/vnd.a+json;v=1""#,
        r#""dataschema":"https://example.com/schema#part""#,
        r#""n":2147483647,"m":-2147483648,"z":-0,"f":false"#,
        r#""empty":"","aratherlongnameofmorethantwentycharacters":"x""#,
        r#""subject":"naïve 🙂 \" \\ text""#,
        r#""sub\u006aect":"x""#,
    ] {
        let event = with(members).unwrap_or_else(|error| panic!("{members}: {error}"));
        assert_eq!(Event::parse(&event.to_json(), LIMIT), Ok(event), "{members}");
    }
    for source in ["1-555-123-4567", "mailto:a@b", "urn:uuid:6e8b", "/a/../b?c#d", "https://exämple.org/"] {
        assert!(Event::new("1", source, "t").build().is_ok(), "{source}");
    }
}

#[test]
fn invalid_attributes_are_refused_by_name() {
    for (members, message) in [
        (r#""id":"2""#, "attribute 'id' is given twice"),
        (r#""x":null,"x":1"#, "attribute 'x' is given twice"),
        (r#""data":1,"data":2"#, "attribute 'data' is given twice"),
        (r#""data":null,"data_base64":"Zm9v""#, "attribute 'data_base64' and 'data' exclude each other"),
        (r#""data_base64":"Zm9","x":1"#, "attribute 'data_base64' is not base64 (RFC 4648, with padding)"),
        (r#""data_base64":7"#, "attribute 'data_base64' must be a string"),
        (r#""subject":"""#, "attribute 'subject' is empty"),
        (r#""subject":7"#, "attribute 'subject' must be a string"),
        (r#""subject":"a\nb""#, "attribute 'subject' holds a control character"),
        (r#""subject":"a\u0085b""#, "attribute 'subject' holds a control character"),
        (r#""subject":"a\uffffb""#, "attribute 'subject' holds a Unicode noncharacter"),
        (r#""subject":"a\ufdd0b""#, "attribute 'subject' holds a Unicode noncharacter"),
        (r#""subject":"a\ud83f\udfffb""#, "attribute 'subject' holds a Unicode noncharacter"),
        (r#""time":"yesterday""#, "attribute 'time' is not an RFC 3339 time like 2026-11-23T02:15:30Z"),
        (r#""datacontenttype":"json""#, "attribute 'datacontenttype' is not a media type like application/json"),
        (r#""datacontenttype":"a b/c""#, "attribute 'datacontenttype' is not a media type like application/json"),
        (r#""dataschema":"schema.json""#, "attribute 'dataschema' must be an absolute URI"),
        (r#""dataschema":"1a:b""#, "attribute 'dataschema' must be an absolute URI"),
        (r#""dataschema":"a:b c""#, "attribute 'dataschema' holds a space, which no URI does"),
        (r#""Foo":"x""#, "attribute 'Foo': extension names are lower-case letters and digits"),
        (r#""my-key":null"#, "attribute 'my-key': extension names are lower-case letters and digits"),
        (r#""":"x""#, "attribute '': extension names are lower-case letters and digits"),
        (r#""x":{"a":1}"#, "attribute 'x' must be a string, a whole number, true or false"),
        (r#""x":[]"#, "attribute 'x' must be a string, a whole number, true or false"),
        (r#""x":1.5"#, "attribute 'x' must be a whole number of 32 bits (or a string)"),
        (r#""x":1e3"#, "attribute 'x' must be a whole number of 32 bits (or a string)"),
        (r#""x":1e999"#, "attribute 'x' must be a whole number of 32 bits (or a string)"),
        (r#""x":2147483648"#, "attribute 'x' must be a whole number of 32 bits (or a string)"),
        (r#""partitionkey":"""#, "attribute 'partitionkey' is empty"),
        (r#""partitionkey":5"#, "attribute 'partitionkey' must be a string"),
    ] {
        assert_eq!(with(members).unwrap_err().to_string(), message, "{members}");
    }
    assert!(with(r#""x":"\ud800""#).unwrap_err().to_string().starts_with("attribute 'x' is not a string"));
}

#[test]
fn missing_required_attributes_are_refused() {
    let required = [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t")];
    for (missing, _) in required {
        let mut document: Map<String, Value> =
            required.map(|(name, value)| (name.to_owned(), json!(value))).into_iter().collect();
        document.insert(missing.to_owned(), Value::Null);
        assert_eq!(refusal(&json!(document).to_string()), format!("attribute '{missing}' is missing"));
        document.remove(missing);
        assert_eq!(refusal(&json!(document).to_string()), format!("attribute '{missing}' is missing"));
        document.insert(missing.to_owned(), json!(""));
        let problem = if missing == "specversion" { "is not \"1.0\", the only version known here" } else { "is empty" };
        assert_eq!(refusal(&json!(document).to_string()), format!("attribute '{missing}' {problem}"));
    }
    assert_eq!(
        Event::new("1", "a b", "t").build().unwrap_err().to_string(),
        "attribute 'source' holds a space, which no URI does"
    );
}

#[test]
fn malformed_documents_are_refused() {
    assert_eq!(refusal(" \n"), "is empty");
    assert_eq!(refusal("[1]"), "is not a JSON object");
    assert_eq!(refusal("\"text\""), "is not a JSON object");
    assert_eq!(refusal("{\"id\":\"1"), "is cut off in the middle of its JSON");
    assert_eq!(refusal("{\"id\":1,}"), "is not JSON: trailing comma at line 1 column 9");
    assert_eq!(refusal("{} {}"), "is not JSON: trailing characters at line 1 column 4");
    assert_eq!(refusal("hello"), "is not JSON: expected value at line 1 column 1");
    assert!(refusal("{\"data\":\"a\nb\"}").starts_with("is not JSON: control character"));
    assert_eq!(Event::parse(b"{\"id\":\"\xff\"}", LIMIT).unwrap_err().to_string(), "is not UTF-8 text (at byte 7)");
}

#[test]
fn the_limit_counts_the_document_itself() {
    let document = format!("{{{LEAST}}}");
    let padded = format!("\u{feff} {document}\r\n\n");
    assert!(Event::parse(padded.as_bytes(), document.len()).is_ok());
    let event = Event::from_line(padded.as_bytes(), document.len()).unwrap();
    assert_eq!(event.to_json(), format!("{document}\n").as_bytes());
    assert_eq!(check_size(&event.to_json(), document.len()), Ok(()));
    let too_large = EventError::TooLarge { size: document.len(), limit: document.len() - 1 };
    assert_eq!(Event::parse(padded.as_bytes(), document.len() - 1), Err(too_large.clone()));
    assert_eq!(check_size(&event.to_json(), document.len() - 1), Err(too_large));
    let large = vec![b'x'; 1_200_000];
    assert_eq!(
        Event::parse(&large, LIMIT).unwrap_err().to_string(),
        "is 1,200,000 bytes, over this bus's limit of 1,048,576"
    );
    assert_eq!(grouped(0) + &grouped(999) + &grouped(1000), "09991,000");
}

/// A terminal must not be told what to do by a document.
#[test]
fn names_in_errors_are_escaped_and_truncated() {
    let name = "\\u001b[2J".to_owned() + &"X".repeat(1000);
    let message = with(&format!("\"{name}\":1")).unwrap_err().to_string();
    assert!(!message.contains(char::is_control) && message.len() < 150, "{message:?}");
}

/// As many names as the limit has room for: looking for repeats must not take the square of it.
#[test]
fn a_hundred_thousand_extensions_are_read() {
    let members: Vec<String> = (0..100_000).map(|n| format!("\"{n}\":1")).collect();
    let event = Event::parse(format!("{{{LEAST},{}}}", members.join(",")).as_bytes(), 2 * LIMIT).unwrap();
    assert_eq!(event.extensions().len(), 100_000);
    assert!(with(&format!("\"data\":{}", "[".repeat(500_000) + &"]".repeat(500_000))).is_ok());
}

#[test]
fn members_are_written_in_their_order() {
    let event = Event::new("1", "/s", "t")
        .data(Data::json(" {\"b\" : 1.50,\n\"a\":1E2} ").unwrap())
        .extension("z", "last")
        .extension("a", 1)
        .extension("gone", Value::Null)
        .dataschema("urn:x:y")
        .datacontenttype("application/json")
        .time("2026-11-23T02:15:30Z")
        .subject("x")
        .build()
        .unwrap();
    let expected = concat!(
        r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":"x","time":"2026-11-23T02:15:30Z","#,
        r#""datacontenttype":"application/json","dataschema":"urn:x:y","z":"last","a":1,"data":{"b" : 1.50,"#,
        "\n\"a\":1E2}}\n"
    );
    assert_eq!(String::from_utf8(event.to_json()).unwrap(), expected);
    let line = one_line(expected.as_bytes()).into_owned();
    assert_eq!(line, expected.trim_end().replace('\n', " ").into_bytes());
    assert_eq!(*one_line(&line), *line);
    assert_eq!(event.clone().into_builder().id("2").build().unwrap().id(), "2");
}

#[test]
fn a_builder_checks_as_the_reader_does() {
    let draft = || Event::new("1", "/s", "t");
    for draft in [
        draft().extension("id", "2"),
        draft().extension("data", "x"),
        draft().extension("data_base64", "x"),
        draft().extension("x", 1.5),
        draft().extension("x", json!({})),
        draft().time("now"),
        draft().data(Data::Base64("?".to_owned())),
        draft().id(""),
    ] {
        assert!(matches!(draft.clone().build(), Err(EventError::Attribute { .. })), "{draft:?}");
    }
}

#[test]
fn data_of_every_kind_is_read() {
    assert_eq!(Data::text("a\"b"), Data::json("\"a\\\"b\"").unwrap());
    assert_eq!(Data::binary(b"foo"), Data::Base64("Zm9v".to_owned()));
    assert!(Data::json("{").is_err() && Data::json("").is_err() && Data::json("1 2").is_err());
    assert_ne!(Data::json("null").unwrap(), Data::Absent);
    assert_eq!(*with("\"data\":null").unwrap().data(), Data::json("null").unwrap());
    assert_eq!(*with("\"x\":1").unwrap().data(), Data::Absent);
}

#[test]
fn the_ordering_key_is_the_partition_key_or_the_subject() {
    let identity = Identity::random(1, 2);
    for (members, key) in [
        (r#""subject":"s","partitionkey":"p""#, Some("p")),
        (r#""subject":"s""#, Some("s")),
        (r#""subject":"s","partitionkey":null"#, Some("s")),
        (r#""x":"y""#, None),
    ] {
        let event = with(members).unwrap();
        assert_eq!(event.ordering_key(), key, "{members}");
        assert_eq!(event.hash_slot(&identity), HashSlot::of(key.unwrap_or(identity.as_str())));
    }
}

/// JSON as people write it: any spacing, any escapes, any numbers.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "(null|true|false|-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?)",
        "\"([ -!#-\\[\\]-~é🙂]|\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4}){0,20}\"",
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        let space = "[ \\t\\r\\n]{0,2}";
        prop_oneof![
            (space, proptest::collection::vec(inner.clone(), 0..5), space)
                .prop_map(|(before, items, after)| format!("[{before}{}{after}]", items.join(&format!("{after},")))),
            (space, proptest::collection::vec(("[a-z]{0,5}", inner), 0..5)).prop_map(|(space, items)| {
                let members: Vec<String> =
                    items.iter().map(|(name, value)| format!("\"{name}\"{space}:{value}")).collect();
                format!("{{{space}{}}}", members.join(&format!(",{space}")))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn data_is_kept_byte_for_byte(json in any_json()) {
        let event = with(&format!("\"data\" : {json} , \"x\":1")).unwrap();
        prop_assert_eq!(event.data(), &Data::json(&json).unwrap());
        let document = String::from_utf8(event.to_json()).unwrap();
        let expected = format!("{{{LEAST},\"x\":1,\"data\":{json}}}\n");
        prop_assert_eq!(&document, &expected);
        let line = one_line(document.as_bytes()).into_owned();
        prop_assert!(!line.contains(&b'\n'));
        prop_assert!(Event::from_line(&line, LIMIT).is_ok());
        let again = Event::parse(document.as_bytes(), LIMIT).unwrap();
        prop_assert_eq!(again.to_json(), document.into_bytes());
    }

    #[test]
    fn a_built_event_parses_back(
        id in "\\PC{1,20}", source in "\\PC{1,20}", type_ in "\\PC{1,20}", subject in "\\PC{0,20}", value in "\\PC{0,20}",
        name in "[a-z0-9]{1,5}|[A-Z_]", bytes: Vec<u8>,
    ) {
        let draft = Event::new(id, source, type_).subject(subject).extension(name, value).data(Data::binary(&bytes));
        if let Ok(event) = draft.build() {
            prop_assert_eq!(Event::parse(&event.to_json(), LIMIT), Ok(event));
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, at in 0_usize..80, byte: u8) {
        let _ = Event::parse(&bytes, LIMIT);
        let mut document = format!("{{{LEAST},\"x\":1,\"data\":[1,\"\\u00e9\"]}}").into_bytes();
        let place = at.min(document.len() - 1);
        document[place] = byte;
        let _ = Event::parse(&document, LIMIT);
        document.truncate(place);
        prop_assert!(Event::parse(&document, LIMIT).is_err());
    }
}
