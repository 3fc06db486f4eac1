use axum::http::HeaderName;
use axum::response::IntoResponse;

use super::*;

fn headers(all: &[(&str, &str)]) -> HeaderMap {
    let header = |(name, value): &(&str, &str)| {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        (name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    let mut map = HeaderMap::new();
    for (name, value) in all.iter().map(header) {
        map.append(name, value);
    }
    map
}

/// The first event's document, without id and time where evbus makes them; or the status of the
/// refusal.
fn read(query: Option<&str>, all: &[(&str, &str)], body: &[u8]) -> Result<Vec<String>, u16> {
    let events = Form::of(query, &headers(all)).and_then(|form| form.events(&Bytes::copy_from_slice(body), 1_000));
    let document = |event: NewEvent| String::from_utf8(event.document_for_tests()).unwrap().trim_end().to_owned();
    match events {
        Ok(events) => Ok(events.into_iter().map(document).collect()),
        Err(problem) => Err(problem.into_response().status().as_u16()),
    }
}

const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"n": 1}}"#;
const BINARY: [(&str, &str); 4] = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];

#[test]
fn cloudevents_come_in_three_modes() {
    let one = Ok(vec![EVENT.to_owned()]);
    let structured = |media_type| read(None, &[("content-type", media_type)], EVENT.as_bytes());
    assert_eq!(structured("application/cloudevents+json"), one);
    assert_eq!(structured("Application/CloudEvents+JSON; charset=UTF-8"), one);
    assert_eq!(structured("application/cloudevents+json; charset=latin1"), Err(415));
    assert_eq!(structured("application/cloudevents+xml"), Err(415));
    assert_eq!(structured("application/cloudevents+avro"), Err(415));
    let batch = |body: &str| read(None, &[("content-type", "application/cloudevents-batch+json")], body.as_bytes());
    assert_eq!(batch(&format!("[{EVENT}]")), one);
    assert_eq!(batch("[]"), Ok(vec![]));
    assert_eq!(batch(EVENT), Err(400));
    assert_eq!(batch(&format!("[{EVENT},{{}}]")), Err(400));
    let mut binary = BINARY.to_vec();
    binary.push(("content-type", "application/json"));
    let wanted = EVENT.replace(r#""type":"t","#, r#""type":"t","datacontenttype":"application/json","#);
    assert_eq!(read(None, &binary, br#"{"n": 1}"#), Ok(vec![wanted]));
    assert_eq!(read(None, &binary, b"{"), Err(400));
}

#[test]
fn attributes_are_decoded() {
    // The specification's example, a quoted string, and what is not encoded twice.
    for (value, wanted) in [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("\"a \\\"b\\\" c\"", "a \"b\" c"),
        ("%2541", "%41"),
        ("100%", "100%"),
        ("%e2%82%ac", "€"),
        ("Straße", "Straße"),
    ] {
        let mut all = BINARY.to_vec();
        all.push(("ce-subject", value));
        let event = read(None, &all, b"").unwrap().remove(0);
        let event: serde_json::Value = serde_json::from_str(&event).unwrap();
        assert_eq!(event["subject"], wanted, "{value}");
    }
    for (name, value) in [
        ("ce-subject", "%FF"),
        ("ce-id", "2"),
        ("ce-datacontenttype", "text/plain"),
        ("ce-bad-name", "x"),
        ("ce-time", "yesterday"),
    ] {
        let mut all = BINARY.to_vec();
        all.push((name, value));
        assert_eq!(read(None, &all, b""), Err(400), "{name}");
    }
    for missing in 1..4 {
        let mut all = BINARY.to_vec();
        all.remove(missing);
        assert_eq!(read(None, &all, b""), Err(400), "{missing}");
    }
    assert_eq!(read(None, &[("ce-specversion", "0.3"), BINARY[1], BINARY[2], BINARY[3]], b""), Err(400));
}

#[test]
fn data_is_kept_as_its_media_type_has_it() {
    let shape = |data: Result<Data, Problem>| match data.unwrap() {
        Data::Absent => "-".to_owned(),
        Data::Json(json) => json.get().to_owned(),
        Data::Base64(text) => format!("base64 {text}"),
    };
    for (media_type, body, wanted) in [
        (Some("application/json"), &b"{\"a\": 1}"[..], "{\"a\": 1}"),
        (Some("application/vnd.x+json; v=1"), b"7", "7"),
        (Some("text/plain"), b"hi \"you\"", r#""hi \"you\"""#),
        (Some("text/plain; charset=utf-8"), "ü".as_bytes(), "\"ü\""),
        (Some("text/plain; charset=latin1"), b"\xfc", "base64 /A=="),
        (Some("text/plain"), b"\xfc", "base64 /A=="),
        (Some("application/xml"), b"<a/>", "\"<a/>\""),
        (Some("image/png"), b"hi", "base64 aGk="),
        (None, b"hi", "base64 aGk="),
        (Some("application/json"), b"", "-"),
    ] {
        assert_eq!(shape(data(body, media_type)), wanted, "{media_type:?}");
    }
    assert_eq!(shape(form_data(b"a=1&b=x+y%20%C3%BC&b=2&b=3&c")), r#"{"a":"1","b":["x y ü","2","3"],"c":""}"#);
}

#[test]
fn lines_are_events_or_their_data() {
    let lines = [("content-type", "application/x-ndjson")];
    assert_eq!(read(None, &lines, format!("{EVENT}\r\n\n{EVENT}").as_bytes()).unwrap().len(), 2);
    assert_eq!(read(None, &lines, b"").unwrap().len(), 0);
    let data = read(Some("type=order.created&subject=order%2F1"), &lines, b"1\n{\"a\": 2}\n").unwrap();
    assert_eq!(data.len(), 2);
    assert!(data[1].contains(r#""type":"order.created""#) && data[1].contains(r#""subject":"order/1""#), "{data:?}");
    assert!(data[1].ends_with(r#""data":{"a": 2}}"#), "{data:?}");
    let problem = Form::of(None, &headers(&lines)).unwrap().events(&Bytes::from_static(b"\n\n{}"), 99).unwrap_err();
    let shown = format!("{problem:?}");
    assert!(shown.contains("line 3: the event attribute") && shown.contains("(\"line\", Number(3))"), "{shown}");
    let keyed = [lines[0], ("idempotency-key", "k")];
    assert_eq!(read(Some("type=a"), &keyed, b"1"), Err(400), "one id is not for many");
}

/// Lines of plain data are taken as a whole, and are the same events.
#[test]
fn lines_of_plain_data_need_not_be_looked_at_one_by_one() {
    let form =
        || Form::of(Some("type=Order.Paid&key=k&source=//h"), &headers(&[("content-type", "application/jsonl")]));
    let form = || form().unwrap();
    let body = Bytes::from_static(b"1\n\n {\"a\": [2]}\r\nnull");
    let without_own = |document: &[u8]| {
        let mut event: serde_json::Value = serde_json::from_slice(document).unwrap();
        let members = event.as_object_mut().unwrap();
        assert!(members.remove("id").is_some() && members.remove("time").is_some());
        event
    };
    let Events::Lines(lines) = form().read(&body, 400, true).unwrap() else { panic!("they are plain") };
    let whole: Vec<_> = lines.documents_for_tests().iter().map(|document| without_own(document)).collect();
    let Events::Each(each) = form().read(&body, 400, false).unwrap() else { panic!("there are no segments") };
    let each: Vec<_> = each.into_iter().map(|event| without_own(&event.document_for_tests())).collect();
    assert_eq!((whole.len(), whole), (3, each));
    // What is refused is named as ever.
    let refused = |body: &'static [u8], limit| match form().read(&Bytes::from_static(body), limit, true) {
        Err(problem) => format!("{problem:?}"),
        Ok(events) => format!("{events:?}"),
    };
    let bad = refused(b"1\n{\n", 400);
    assert!(bad.contains("line 2") && bad.contains("not JSON"), "{bad}");
    // A line that is perhaps too long is looked at closely when it is put.
    assert!(refused(b"1\n[\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"]", 300).starts_with("Each"));
}

#[test]
fn plain_data_needs_a_type() {
    let json = [("content-type", "application/json"), ("idempotency-key", "\"k 1\"")];
    let event = read(Some("type=a.b&key=k&source=//h"), &json, b"[1]").unwrap().remove(0);
    let event: serde_json::Value = serde_json::from_str(&event).unwrap();
    let wanted = serde_json::json!({
        "id": "k 1", "source": "//h", "type": "a.b", "partitionkey": "k",
        "datacontenttype": "application/json", "data": [1],
    });
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(&event[name], value, "{name}");
    }
    for (query, status) in [
        (None, 400),
        (Some("subject=a"), 400),
        (Some("type="), 400),
        (Some("type=a%20"), 400),
        (Some("type=a.*"), 400),
        (Some("type=a&type=b"), 400),
        (Some("type=a&kind=b"), 400),
    ] {
        assert_eq!(read(query, &json, b"1"), Err(status), "{query:?}");
    }
    assert_eq!(read(Some("type=a"), &json, b"{"), Err(400));
    assert_eq!(read(Some("type=a"), &[], b"no JSON"), Err(400), "curl -d without a type of content is JSON");
    assert_eq!(read(Some("type=a"), &[("idempotency-key", "")], b"1"), Err(400));
    for (body, data) in [(&b"a=1"[..], r#"{"a":"1"}"#), (b"{\"a\": 1}", r#"{"a": 1}"#)] {
        let event = read(Some("type=a"), &[("content-type", FORM)], body).unwrap().remove(0);
        assert!(event.ends_with(&format!("\"data\":{data}}}")), "{event}");
    }
    assert_eq!(read(None, &[("content-type", "multipart/form-data; boundary=x")], b""), Err(415));
}

#[test]
fn many_events_are_413() {
    let lines = [("content-type", "application/x-ndjson")];
    let many = "1\n".repeat(MOST_EVENTS);
    assert_eq!(read(Some("type=a"), &lines, many.as_bytes()).map(|events| events.len()), Ok(MOST_EVENTS));
    assert_eq!(read(Some("type=a"), &lines, format!("{many}1").as_bytes()), Err(413));
    let batch = [("content-type", "application/cloudevents-batch+json")];
    assert_eq!(read(None, &batch, format!("[{}1]", "1,".repeat(MOST_EVENTS)).as_bytes()), Err(413));
    assert_eq!(read(Some("type=a"), &[("content-type", "multipart/form-data; boundary=x")], b"--x"), Err(415));
    assert_eq!(read(Some("type=a"), &[("content-type", FORM)], b"{"), Err(400));
}

#[test]
fn a_large_event_is_413() {
    let large = EVENT.replace("{\"n\": 1}", &format!("\"{}\"", "x".repeat(1_000)));
    assert_eq!(read(None, &[("content-type", "application/cloudevents+json")], large.as_bytes()), Err(413));
}
