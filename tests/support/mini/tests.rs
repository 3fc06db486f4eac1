//! Tests of the small object server itself, with requests written byte by byte. For the one test
//! program that declares this module besides `mini`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::mini::{BucketFacts, Etags, Mini, MiniOptions, ServerMode, VersioningStatus};

struct Client(BufReader<TcpStream>);

#[derive(Debug)]
struct Answered {
    status: u16,
    head: String,
    body: String,
}

impl Answered {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The contents of the tags with this name.
    fn all(&self, tag: &str) -> Vec<&str> {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        self.body.split(&open).skip(1).filter_map(|rest| rest.split(&close).next()).collect()
    }
}

impl Client {
    fn of(mini: &Mini) -> Self {
        let address = mini.endpoint().replace("http://", "");
        Self(BufReader::new(TcpStream::connect(address).unwrap()))
    }

    fn send(&mut self, line: &str, headers: &str, body: &str) -> std::io::Result<()> {
        let length = body.len();
        let text = format!("{line} HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        self.0.get_mut().write_all(text.as_bytes())
    }

    fn answer(&mut self, head_only: bool) -> Option<Answered> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut answered = Answered { status, head, body: String::new() };
        let length = answered.header("Content-Length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; if head_only { 0 } else { length }];
        self.0.read_exact(&mut body).ok()?;
        answered.body = String::from_utf8(body).unwrap();
        Some(answered)
    }

    fn ask(&mut self, line: &str, headers: &str, body: &str) -> Answered {
        self.send(line, headers, body).unwrap();
        self.answer(line.starts_with("HEAD")).unwrap()
    }

    fn status(&mut self, line: &str, headers: &str) -> u16 {
        self.ask(line, headers, "x").status
    }
}

fn started() -> (Mini, Client) {
    let mini = Mini::start(MiniOptions::default());
    let client = Client::of(&mini);
    (mini, client)
}

fn signed(key: &str, region: &str) -> String {
    format!("Authorization: AWS4-HMAC-SHA256 Credential={key}/20260101/{region}/s3/aws4_request, Signature=0\r\n")
}

#[test]
fn one_of_many_concurrent_creations_wins() {
    let (mini, _) = started();
    let create = || Client::of(&mini).status("PUT /b/k", "If-None-Match: *\r\n");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..16).map(|_| scope.spawn(create)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 412).count(), 15, "{statuses:?}");
    assert_eq!(mini.keys(), ["b/k"]);
}

#[test]
fn if_match_takes_the_etag_with_and_without_quotes() {
    let (_mini, mut client) = started();
    assert_eq!(client.status("PUT /b/k", "If-Match: \"1\"\r\n"), 404);
    let first = client.ask("PUT /b/k", "", "a").header("ETag").unwrap().to_owned();
    let second = client.ask("PUT /b/k", &format!("If-Match: {first}\r\n"), "a");
    assert_eq!(second.status, 200);
    let bare = second.header("ETag").unwrap().trim_matches('"').to_owned();
    assert_ne!(bare, first.trim_matches('"'), "a number");
    assert_eq!(client.status("PUT /b/k", &format!("If-Match: {first}\r\n")), 412);
    assert_eq!(client.status("PUT /b/k", &format!("If-Match: {bare}\r\n")), 200);
    assert_eq!(client.status("GET /b/k", &format!("If-Match: {bare}\r\n")), 412);
}

#[test]
fn an_etag_can_be_of_the_content() {
    let mini = Mini::start(MiniOptions { etags: Etags::Content, ..MiniOptions::default() });
    let mut client = Client::of(&mini);
    let mut put = |body: &str| client.ask("PUT /b/k", "", body).header("ETag").unwrap().to_owned();
    assert_eq!(put("a"), put("a"));
    assert_ne!(put("a"), put("b"));
}

#[test]
fn googles_conditions_are_generations() {
    let (_mini, mut client) = started();
    let when = |generation: &str| format!("x-goog-if-generation-match: {generation}\r\n");
    assert_eq!(client.status("PUT /b/k", &when("7")), 412);
    let first = client.ask("PUT /b/k", &when("0"), "a").header("x-goog-generation").unwrap().to_owned();
    assert_eq!(client.status("PUT /b/k", &when("0")), 412);
    assert_eq!(client.status("PUT /b/k", &when(&first)), 200);
    assert_eq!(client.status("PUT /b/k", &when(&first)), 412);
    let listed = client.ask("GET /b?list-type=2", "", "");
    let now = client.ask("HEAD /b/k", "", "").header("x-goog-generation").unwrap().to_owned();
    assert_eq!(listed.all("Generation"), [now.as_str()]);
    assert_eq!([client.status("DELETE /b/k", ""), client.status("DELETE /b/k", "")], [204, 404]);
    // For Amazon's clients there are no generations, and they may delete a missing object.
    let amazons = signed("AK", "r");
    assert_eq!(client.ask("PUT /b/k", &amazons, "a").header("x-goog-generation"), None);
    assert_eq!(client.ask("GET /b?list-type=2", &amazons, "").all("Generation"), [""; 0]);
    assert_eq!([client.status("DELETE /b/k", &amazons), client.status("DELETE /b/k", &amazons)], [204, 204]);
}

#[test]
fn a_listing_is_in_the_order_of_bytes_and_in_pages() {
    let (_mini, mut client) = started();
    for key in ["p/b", "p/a%2Fx", "p/%C3%A4", "p/a!", "p/Z", "q", "p/a&b"] {
        assert_eq!(client.status(&format!("PUT /b/{key}"), ""), 200);
    }
    assert_eq!(client.status("PUT /c/p/other", ""), 200);
    let (mut keys, mut token) = (Vec::new(), String::new());
    loop {
        let page = client.ask(&format!("GET /b?list-type=2&prefix=p%2F&max-keys=2{token}"), "", "");
        keys.extend(page.all("Key").into_iter().map(str::to_owned));
        assert!(page.all("Key").len() <= 2);
        let Some(next) = page.all("NextContinuationToken").first().copied() else {
            assert_eq!(page.all("IsTruncated"), ["false"]);
            break;
        };
        token = format!("&continuation-token={next}");
    }
    assert_eq!(keys, ["p/Z", "p/a!", "p/a&amp;b", "p/a/x", "p/b", "p/ä"]);
    assert_eq!(client.status("GET /b?list-type=2&continuation-token=p", ""), 400);
    assert_eq!(client.ask("GET /b?list-type=2", "", "").all("Key").len(), 7);
}

#[test]
fn a_listing_starts_after_the_given_key() {
    let mini = Mini::start(MiniOptions { page: 3, ..MiniOptions::default() });
    let mut client = Client::of(&mini);
    for key in ["a", "b", "p/1", "p/2", "p/3", "q"] {
        assert_eq!(client.status(&format!("PUT /b/{key}"), ""), 200);
    }
    let mut keys = |query: &str| client.ask(&format!("GET /b?list-type=2&{query}"), "", "").all("Key").join(" ");
    assert_eq!(keys("start-after=a"), "b p/1 p/2");
    assert_eq!(keys("prefix=p%2F&start-after=p%2F1"), "p/2 p/3");
    assert_eq!(keys("prefix=p%2F&start-after=a"), "p/1 p/2 p/3");
    assert_eq!(keys("prefix=p%2F&start-after=q"), "");
    mini.behave(&[ServerMode::IgnoreStartAfter, ServerMode::NoListEtags]);
    assert_eq!(keys("start-after=b"), "a b p/1");
    assert_eq!(client.ask("GET /b?list-type=2", "", "").all("ETag"), [""; 0]);
}

#[test]
fn chunked_uploads_and_range_reads_work() {
    let (mini, mut client) = started();
    let chunked = "PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n";
    client.0.get_mut().write_all(chunked.as_bytes()).unwrap();
    assert_eq!(client.answer(false).unwrap().status, 200);
    assert_eq!(mini.stored("b", "k").unwrap(), b"abcdefg");
    let mut range = |range: &str| client.ask("GET /b/k", &format!("Range: bytes={range}\r\n"), "");
    assert_eq!(range("1-2").body, "bc");
    assert_eq!(range("5-").body, "fg");
    assert_eq!(range("-1").body, "g");
    assert_eq!((range("0-99").status, range("0-99").header("Content-Range")), (206, Some("bytes 0-6/7")));
    assert_eq!(range("7-").status, 416);
    let head = client.ask("HEAD /b/k", "", "");
    assert_eq!(head.header("Content-Length"), Some("7"));
    assert!(head.header("Date").is_some() && head.header("Last-Modified").is_some(), "{head:?}");
}

#[test]
fn many_objects_are_deleted_at_once() {
    let (mini, mut client) = started();
    let put_both = |client: &mut Client| ["a%26", "b"].map(|key| client.status(&format!("PUT /b/{key}"), ""));
    let delete = "<Delete><Object><Key>a&amp;</Key></Object><Object><Key>b</Key></Object></Delete>";
    put_both(&mut client);
    assert_eq!(client.ask("POST /b?delete", "", delete).all("Key"), ["a&amp;", "b"]);
    assert_eq!(mini.keys(), [""; 0]);
    mini.behave(&[ServerMode::BadBulkDelete]);
    put_both(&mut client);
    assert_eq!(client.ask("POST /b?delete", "", delete).all("Deleted"), ["", ""]);
    assert_eq!(mini.keys(), [""; 0]);
}

#[test]
fn a_hanging_server_answers_once_it_continues() {
    let (mini, mut client) = started();
    mini.behave(&[ServerMode::Hang]);
    client.send("PUT /b/waits", "", "").unwrap();
    let mut impatient = Client::of(&mini);
    impatient.send("PUT /b/leaves", "", "").unwrap();
    while mini.requests().len() < 2 {
        std::thread::yield_now();
    }
    impatient.0.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
    assert!(mini.requests().iter().all(|seen| seen.status.is_none()));
    mini.behave(&[]);
    assert_eq!(client.answer(false).unwrap().status, 200);
    assert!(impatient.answer(false).is_none());
    assert_eq!(mini.keys(), ["b/waits"]);
}

#[test]
fn a_dropped_server_closes_its_connections() {
    let (mini, mut idle) = started();
    assert_eq!(idle.status("PUT /b/k", ""), 200);
    mini.behave(&[ServerMode::Hang]);
    let mut hanging = Client::of(&mini);
    hanging.send("GET /b/k", "", "").unwrap();
    while mini.requests().len() < 2 {
        std::thread::yield_now();
    }
    let address = mini.endpoint().replace("http://", "");
    drop(mini);
    assert!(idle.answer(false).is_none());
    assert!(hanging.answer(false).is_none());
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_refusing_server_comes_back_with_its_objects() {
    let (mini, mut client) = started();
    let address = mini.endpoint().replace("http://", "");
    assert_eq!(client.status("PUT /b/k", ""), 200);
    for _ in 0..5 {
        mini.behave(&[ServerMode::Refuse]);
        let refused = TcpStream::connect(&address).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(client.send("GET /b/k", "", "").is_err() || client.answer(false).is_none());
        mini.behave(&[]);
        client = Client::of(&mini);
        assert_eq!(client.status("GET /b/k", ""), 200);
    }
    mini.behave(&[ServerMode::BreakOff]);
    client.send("DELETE /b/k", "", "").unwrap();
    assert!(client.answer(false).is_none());
    assert_eq!(mini.keys(), ["b/k"]);
    mini.behave(&[ServerMode::Refuse]);
}

#[test]
fn refusals_have_the_error_codes_of_s3() {
    let (mini, mut client) = started();
    let mut code = |modes: &[ServerMode], line: &str, headers: &str| {
        mini.behave(modes);
        let answered = client.ask(line, headers, "");
        (answered.status, answered.all("Code").concat())
    };
    let is = |status: u16, code: &str| (status, code.to_owned());
    let (put, here) = ("PUT /b/k", signed("AK", "here"));
    assert_eq!(code(&[ServerMode::ExpiredToken], put, ""), is(400, "ExpiredToken"));
    assert_eq!(code(&[ServerMode::RequestTimeTooSkewed], put, ""), is(403, "RequestTimeTooSkewed"));
    assert_eq!(code(&[ServerMode::Redirect(None)], put, &here), is(301, "PermanentRedirect"));
    let elsewhere = [ServerMode::OtherRegion("there".to_owned())];
    assert_eq!(code(&elsewhere, put, &here), is(400, "AuthorizationHeaderMalformed"));
    assert_eq!(code(&elsewhere, put, &signed("AK", "there")), is(200, ""));
    assert_eq!(code(&[ServerMode::DenyUnencrypted], put, ""), is(403, "AccessDenied"));
    assert_eq!(code(&[ServerMode::DenyUnencrypted], put, "x-amz-server-side-encryption: aws:kms\r\n"), is(200, ""));
    let known = [ServerMode::NoListEtags, ServerMode::OnlyKeys(vec!["AK".to_owned()])];
    assert_eq!(code(&known, put, &here), is(200, ""));
    assert_eq!(code(&known, put, ""), is(403, "AccessDenied"));
    assert_eq!(code(&known, put, &signed("BK", "here")), is(403, "InvalidAccessKeyId"));
    assert_eq!(code(&known, put, &signed("OLDKEY", "here")), is(400, "ExpiredToken"));
    assert_eq!(code(&[ServerMode::SlowDown(100)], put, ""), is(503, "SlowDown"));
    assert_eq!(code(&[ServerMode::Busy409(100)], "GET /b/k", ""), is(200, ""));
    let half: Vec<u16> = (0..100).map(|_| code(&[ServerMode::Busy409(50)], put, "").0).collect();
    assert!(half.contains(&200) && half.contains(&409), "{half:?}");
    mini.behave(&[ServerMode::Garbage]);
    assert!(!client.ask("GET /b?list-type=2", "", "").body.contains("ListBucketResult"));
}

#[test]
fn requests_are_remembered() {
    let (mini, mut client) = started();
    let headers = signed("AK", "here") + "X-Amz-Security-Token: T\r\nx-amz-server-side-encryption: AES256\r\n";
    client.status("GET /b/a%20b?list-type=2&prefix=x+y%2F", &headers);
    let seen = mini.requests();
    let [seen] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((seen.method.as_str(), seen.path.as_str(), seen.status), ("GET", "/b/a b", Some(404)));
    assert_eq!(seen.parameter("prefix"), Some("x y/"));
    assert_eq!((seen.access_key(), seen.region()), (Some("AK"), Some("here")));
    assert_eq!((seen.token(), seen.sse(), seen.host()), (Some("T"), Some("AES256"), Some("h")));
    mini.forget();
    assert!(mini.requests().is_empty());
}

#[test]
fn credentials_are_handed_out() {
    let mini = Mini::start(MiniOptions { authorization: Some("secret".to_owned()), ..MiniOptions::default() });
    let mut client = Client::of(&mini);
    let roles = "GET /latest/meta-data/iam/security-credentials/";
    assert_eq!(client.status(roles, ""), 401);
    let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 600\r\n";
    let session = client.ask("PUT /latest/api/token", ttl, "").body;
    let session = format!("X-aws-ec2-metadata-token: {session}\r\n");
    let role = client.ask(roles, &session, "").body;
    assert!(client.ask(&format!("{roles}{role}"), &session, "").body.contains("\"IMDSKEY\""));
    assert_eq!(client.status("GET /creds", ""), 401);
    assert!(client.ask("GET /creds", "Authorization: secret\r\n", "").body.contains("\"CONTAINERKEY\""));
    let sign_on = "GET /federation/credentials?role_name=r&account_id=1";
    assert_eq!(client.status(sign_on, ""), 401);
    let signed_on = client.ask(sign_on, "x-amz-sso_bearer_token: t\r\n", "").body;
    assert!(signed_on.starts_with(r#"{"roleCredentials":{"accessKeyId":"SSOKEY","#), "{signed_on}");
    let form = "Content-Type: application/x-www-form-urlencoded\r\n".to_owned() + &signed("AK", "r");
    let assumed = client.ask("POST /", &form, "Action=AssumeRole&RoleArn=arn%3Aaws&RoleSessionName=s");
    assert_eq!(assumed.all("AccessKeyId"), ["ASSUMEDKEY"]);
    assert_eq!(mini.requests().last().unwrap().parameter("RoleArn"), Some("arn:aws"));
    let web = "POST /?Action=AssumeRoleWithWebIdentity&RoleArn=a&RoleSessionName=s&WebIdentityToken=t";
    assert_eq!(client.ask(web, "", "").all("AccessKeyId"), ["WEBKEY"]);
    mini.behave(&[ServerMode::DenyIdentity, ServerMode::ExpiredToken]);
    assert_eq!(client.status(web, ""), 403);
}

#[test]
fn a_bucket_reports_its_configuration() {
    let (mini, mut client) = started();
    assert_eq!(client.ask("GET /b?lifecycle", "", "").all("Code"), ["NoSuchLifecycleConfiguration"]);
    assert_eq!(client.ask("GET /b?versioning", "", "").all("Status"), [""; 0]);
    assert_eq!(client.ask("GET /b?location", "", "").all("LocationConstraint"), [""]);
    let lifecycle = Some("<LifecycleConfiguration><Rule/></LifecycleConfiguration>".to_owned());
    mini.set_facts(BucketFacts {
        versioning: VersioningStatus::Enabled,
        lifecycle,
        location: Some("eu-west-1".to_owned()),
        ..BucketFacts::default()
    });
    assert_eq!(client.ask("GET /b?lifecycle", "", "").all("LifecycleConfiguration"), ["<Rule/>"]);
    assert_eq!(client.ask("GET /b?versioning", "", "").all("Status"), ["Enabled"]);
    assert_eq!(client.ask("GET /b?location", "", "").all("LocationConstraint"), ["eu-west-1"]);
    mini.behave(&[ServerMode::DenyFacts]);
    assert_eq!(client.status("GET /b?versioning", ""), 403);
    assert_eq!(client.status("GET /b?list-type=2", ""), 200);
}

#[test]
fn dates_are_written_as_http_has_them() {
    for ahead_secs in [0, 40 * 86_400, 400 * 86_400, 3_000 * 86_400] {
        let mini = Mini::start(MiniOptions { ahead_secs, ..MiniOptions::default() });
        let date = Client::of(&mini).ask("PUT /b/k", "", "").header("Date").unwrap().to_owned();
        // The weekday is right only if the day is.
        let format = ["-u", "+%a, %d %b %Y %T GMT", "-d", &date];
        let written = std::process::Command::new("date").args(format).env("LC_ALL", "C").output().unwrap();
        assert_eq!(String::from_utf8(written.stdout).unwrap().trim(), date);
    }
}
