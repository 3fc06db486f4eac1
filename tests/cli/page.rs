//! The page of `evbus serve`, in a real browser, and what it asks the server for.

use serde_json::{Value, json};

use super::serve::{Server, client};
use super::support::Home;

const CONFIG: &str = "[serve.tokens.operator]\nsecret = \"env:TOKEN\"\nmay = [\"admin\"]\n";
const BEARER: (&str, &str) = ("authorization", "Bearer s3cret");

/// A bus with a group of which three events are dead.
fn failing(home: &Home) -> Server {
    home.run(&["group", "create", "mail", "-t", "order.*"]).exits(0);
    home.emit_many("order.created", 3);
    let failing = home.script("failing", "echo 'smtp: connection refused' >&2\nexit 3\n");
    home.run(&["drain", "-g", "mail", "--max-attempts", "1", "--", &failing]).exits(0);
    Server::configured(home, CONFIG)
}

#[test]
fn a_browser_shows_what_happens_and_does_what_is_asked() {
    let home = Home::new();
    let server = failing(&home);
    let seen = client(&server, "page.mjs", &["s3cret"]);
    assert_eq!(seen["errors"], json!([]), "{seen}");
    assert_eq!(seen["refused"], "the token is not known");
    assert_eq!(seen["groups"], json!(["mail\norder.*"]));
    assert_eq!(seen["cookieIsHidden"], true);
    let hostile = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">";
    assert_eq!(seen["subject"], hostile, "what events hold is text");
    assert_eq!((&seen["document"], &seen["title"], &seen["scripts"]), (&true.into(), &"evbus".into(), &0.into()));
    assert_eq!(seen["states"], json!(["mail\tnot wanted\t"]));
    assert_eq!(seen["closed"], true);
    assert_eq!(seen["filtered"], json!(["only.this"]));
    assert!(seen["whereRefused"].as_str().unwrap().starts_with("where: "), "{seen}");
    assert_eq!((&seen["letters"], &seen["output"]), (&3.into(), &"smtp: connection refused\n".into()));
    assert_eq!(seen["redriven"], "3 back to work");
    assert_eq!(seen["paused"], "paused: a deploy");
    assert_eq!((&seen["rows"], &seen["overflows"]), (&300.into(), &false.into()));
    assert_eq!((&seen["left"], &seen["afterLeaving"]), (&0.into(), &401.into()), "nothing is left to be read");
    // The letters are what the group has to do now.
    home.run(&["drain", "-g", "mail", "-q", "--", "true"]).exits(0);
    assert!(home.run(&["dead", "ls", "mail", "--json"]).exits(0).out.is_empty());
}

#[test]
fn the_page_is_its_own_and_its_token_is_kept_from_scripts() {
    let home = Home::new();
    let server = Server::configured(&home, CONFIG);
    for (path, media_type) in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")] {
        let file = server.get(path).is(200);
        assert!(file.header("content-type").unwrap().starts_with(media_type), "{}", file.head);
        let policy = file.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
    let html = server.get("/").body;
    assert!(
        !html.contains("<script>") && !html.contains("style=") && !html.contains("//"),
        "nothing inline, nothing from elsewhere"
    );
    server.get("/session").is(401);
    server.post("/session", &[("authorization", "Bearer wrong")], "").is(401);
    let signed_in = server.post("/session", &[BEARER], "").is(204);
    let cookie = signed_in.header("set-cookie").unwrap();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict") && !cookie.contains("s3cret"), "{cookie}");
    let cookie = ("cookie", cookie.split(';').next().unwrap());
    assert_eq!(
        server.ask("GET", "/session", &[cookie], b"").is(200).json(),
        json!({ "admin": true, "read": true, "token": true })
    );
    server.post("/events?type=a", &[cookie], "1").is(202);
    // A page of another site may not, even if the browser sent the cookie along.
    server.post("/events?type=a", &[cookie, ("origin", "https://evil.example")], "1").is(403);
    let signed_out = server.ask("DELETE", "/session", &[cookie], b"").is(204);
    assert!(signed_out.header("set-cookie").unwrap().contains("Max-Age=0"));
}

#[test]
fn operators_see_and_do_over_http() {
    let home = Home::new();
    let server = failing(&home);
    let get = |path: &str| server.ask("GET", path, &[BEARER], b"").is(200).json();
    let overview = get("/groups");
    let mail = &overview["groups"][0];
    assert_eq!((&mail["group"], &mail["state"], &mail["dead"]), (&"mail".into(), &"failing".into(), &3.into()));
    assert_eq!(overview["history"]["groups"]["mail"]["dead"], json!([3.0]));
    let letters = get("/groups/mail/dead?limit=2");
    assert_eq!((&letters["count"], letters["letters"].as_array().map(Vec::len)), (&3.into(), Some(2)));
    let letter = &letters["letters"][0];
    assert_eq!(letter["stderr"], "smtp: connection refused\n");
    let (id, source) = (letter["id"].as_str().unwrap(), letter["event"]["source"].as_str().unwrap());
    let event = get(&format!("/events/{id}?source={source}"));
    assert_eq!((&event["event"]["id"], &event["groups"][0]["state"]), (&id.into(), &"dead".into()), "{event}");
    server.ask("GET", &format!("/events/{id}"), &[BEARER], b"").is(400);
    server.ask("GET", "/events/none?source=x", &[BEARER], b"").is(404);
    server.ask("GET", "/groups/none/dead", &[BEARER], b"").is(404);
    server.post("/groups/none:pause", &[BEARER], "").is(404);
    let post = |path: &str, body: &Value| server.post(path, &[BEARER], &body.to_string()).is(200).json();
    assert_eq!(
        post("/groups/mail:redrive", &json!({ "letters": [letter["letter"], "none"] })),
        json!({ "redriven": 1 })
    );
    assert_eq!(post("/groups/mail:pause", &json!({ "why": "deploy" })), json!({ "changed": true }));
    assert!(home.run(&["status", "mail"]).exits(0).out.contains("deploy"));
    assert_eq!(post("/groups/mail:resume", &json!({})), json!({ "changed": true }));
    assert_eq!(post("/groups/mail:resume", &json!({})), json!({ "changed": false }));
    server.post("/groups/mail:redrive", &[BEARER], "{\"all\":true}").is(400);
}

#[test]
fn who_may_only_read_changes_nothing() {
    let home = Home::new();
    home.run(&["group", "create", "mail"]).exits(0);
    home.run(&["emit", "secret.plan", "1", "-q"]).exits(0);
    home.run(&["drain", "-g", "mail", "--max-attempts", "1", "--", "false"]).exits(0);
    let server = Server::configured(&home, "[serve.tokens.reader]\nsecret = \"env:TOKEN\"\nmay = [\"read:order.*\"]\n");
    let session = server.ask("GET", "/session", &[BEARER], b"").is(200).json();
    assert_eq!(session, json!({ "admin": false, "read": true, "token": true }));
    home.run(&["emit", "secret.plan", "2", "-q"]).exits(0);
    home.run(&["drain", "-g", "mail", "--backoff", "1h..1h", "-q", "--", "false"]).exits(0);
    let groups = server.ask("GET", "/groups", &[BEARER], b"").is(200).json();
    assert_eq!((&groups["groups"][0]["retrying"], &groups["groups"][0]["retries"]), (&1.into(), &json!([])));
    let letters = server.ask("GET", "/groups/mail/dead", &[BEARER], b"").is(200).json();
    assert_eq!((&letters["count"], &letters["letters"]), (&1.into(), &json!([])), "of other types it sees nothing");
    let event: Value = serde_json::from_str(&home.run(&["ls", "--json"]).exits(0).lines()[0]).unwrap();
    let (id, source) = (event["id"].as_str().unwrap(), event["source"].as_str().unwrap());
    server.ask("GET", &format!("/events/{id}?source={source}"), &[BEARER], b"").is(404);
    for operation in ["pause", "resume", "redrive"] {
        server.post(&format!("/groups/mail:{operation}"), &[BEARER], "").is(403);
    }
}
