//! Messages about a bucket's server that refuses, redirects, or answers with nonsense.

use super::azurite;
use super::mini::{BucketFacts, Mini, MiniOptions, ServerMode, VersioningStatus};
use super::support::{CliRun, Home, signal, until};

/// A home with a bus at a server that can be made to misbehave.
fn started() -> (Mini, Home) {
    let mini = Mini::start(MiniOptions::default());
    let home = Home::at_bucket(&mini.endpoint(), "p");
    home.run(&["init"]).exits(0);
    (mini, home)
}

fn with(home: &Home, args: &[&str], vars: &[(&str, &str)]) -> CliRun {
    CliRun::of(home.evbus(args).envs(vars.iter().copied()).output().unwrap())
}

/// A regression: "no answer", and exit code 75, on which cron retries for ever.
#[test]
fn a_bucket_in_another_region_is_a_permanent_error() {
    let (mini, home) = started();
    let elsewhere = "bucket 'evbus' is in another region";
    mini.behave(&[ServerMode::Redirect(None)]);
    home.run(&["emit", "t"]).exits(1).says(elsewhere, "?region=REGION");
    mini.behave(&[ServerMode::Redirect(Some("eu-west-1".to_owned()))]);
    home.run(&["emit", "t"]).exits(1).says(&format!("{elsewhere}: eu-west-1"), "AWS_REGION=eu-west-1");
    with(&home, &["emit", "t"], &[("AWS_REGION", "eu-west-1")]).exits(0);
    mini.behave(&[ServerMode::OtherRegion("ap-south-1".to_owned())]);
    home.run(&["emit", "t"]).exits(1).says(&format!("{elsewhere}: ap-south-1"), "AWS_REGION=ap-south-1");
    with(&home, &["emit", "t"], &[("AWS_REGION", ""), ("AWS_DEFAULT_REGION", "ap-south-1")]).exits(0);
}

#[test]
fn an_unparsable_response_is_reported() {
    let (mini, home) = started();
    mini.behave(&[ServerMode::Garbage]);
    home.run(&["ls"]).exits(1).says("answers what is not understood: list response: ", "");
    let mini = Mini::start(MiniOptions::default());
    mini.behave(&[ServerMode::BadBulkDelete]);
    let told = Home::at_bucket(&mini.endpoint(), "bulk").run(&["init"]).exits(1);
    assert!(told.err.contains("answers what is not understood: DeleteObjects response: "), "{}", told.err);
}

#[test]
fn a_policy_that_requires_encryption_is_shown_and_can_be_met() {
    let (mini, home) = started();
    mini.behave(&[ServerMode::DenyUnencrypted]);
    home.run(&["emit", "t"]).exits(1).says("no permission: explicit deny in a", "AWS_SERVER_SIDE_ENCRYPTION=aws:kms");
    mini.forget();
    let kms = [("AWS_SERVER_SIDE_ENCRYPTION", "aws:kms"), ("AWS_SSE_KMS_KEY_ID", "alias/bus")];
    with(&home, &["emit", "t"], &kms).exits(0);
    let seen = mini.requests();
    let mut puts = seen.iter().filter(|request| request.method == "PUT");
    assert!(puts.all(|put| put.sse() == Some("aws:kms")), "{seen:?}");
    let key = "x-amz-server-side-encryption-aws-kms-key-id";
    assert!(seen.iter().any(|request| request.header(key) == Some("alias/bus")), "{seen:?}");
}

#[test]
fn every_verb_shows_library_logs() {
    let (_mini, home) = started();
    let id = home.run(&["emit", "t"]).exits(0).lines().remove(0);
    let verbs: [&[&str]; 12] = [
        &["init"],
        &["emit", "t"],
        &["ls"],
        &["get", &id],
        &["status"],
        &["doctor"],
        &["group", "create", "g", "--from", "now"],
        &["group", "ls"],
        &["dead", "ls", "g"],
        &["prune", "--keep", "9d"],
        &["drain", "-g", "g", "--", "true"],
        &["cancel", "nobody"],
    ];
    for verb in verbs {
        let shown = with(&home, verb, &[("EVBUS_LOG", "trace")]);
        assert!(
            shown.err.lines().any(|line| line.starts_with("trace ") || line.starts_with("debug ")),
            "{verb:?}: {}",
            shown.err
        );
        let quiet = home.run(verb);
        assert!(!quiet.err.contains("trace ") && !quiet.err.contains("debug "), "{verb:?}: {}", quiet.err);
    }
    // Failures before the bus is open are logged, too.
    let nowhere = [("EVBUS_LOG", "trace"), ("EVBUS_URL", "s3://nowhere/bus?endpoint=http://127.0.0.1:9")];
    for verb in [&["watch", "-g", "g", "--", "true"][..], &["drain", "-g", "g", "--", "true"], &["ls"]] {
        let shown = with(&home, verb, &nowhere).exits(75);
        assert!(shown.err.lines().any(|line| line.starts_with("trace ")), "{verb:?}: {}", shown.err);
    }
    with(&home, &["ls"], &[("EVBUS_LOG", "object_store=loud")]).exits(2).says("selects no logs", "EVBUS_LOG=debug");
}

#[test]
fn doctor_reports_region_versioning_and_lifecycle() {
    let (mini, home) = started();
    let doctor = |code: i32| home.run(&["doctor"]).exits(code).out;
    let told = doctor(0);
    for line in ["ok   region      us-east-1", "ok   versioning  off", "ok   lifecycle   no rule deletes"] {
        assert!(told.contains(line), "{told}");
    }
    assert!(!told.contains("warn "), "{told}");
    let rule = "<LifecycleConfiguration><Rule><ID>tidy</ID><TypeFilter><Prefix></Prefix></TypeFilter><Status>Enabled</Status>\
                <Expiration><Days>30</Days></Expiration></Rule></LifecycleConfiguration>";
    let location = Some("eu-west-1".to_owned());
    let (versioning, lifecycle) = (VersioningStatus::Enabled, Some(rule.to_owned()));
    mini.set_facts(BucketFacts { versioning, lifecycle, location, resource: None });
    let told = doctor(0);
    for line in
        ["warn region      the bucket is in eu-west-1", "warn versioning  on: ", "warn lifecycle   rule 'tidy' deletes"]
    {
        assert!(told.contains(line), "{told}");
    }
    mini.behave(&[ServerMode::DenyFacts]);
    assert!(doctor(0).contains("ok   versioning  may not be seen (s3:GetBucketVersioning)"));
    mini.behave(&[ServerMode::DenyUnencrypted]);
    let told = doctor(1);
    assert!(told.contains("FAIL permissions  may not write\n") && !told.contains("may not read"), "{told}");
    assert_eq!(mini.keys(), ["evbus/p/bus.json"], "doctor leaves nothing");
}

#[test]
fn a_server_that_ignores_start_after_is_reported() {
    let (mini, home) = started();
    mini.behave(&[ServerMode::IgnoreStartAfter]);
    let told = home.run(&["doctor"]).exits(0).out;
    assert!(told.contains("warn start after  the server ignores it"), "{told}");
    let other = Home::at_bucket(&mini.endpoint(), "other").run(&["init"]).exits(0);
    assert!(other.err.contains("warning: start after: the server ignores it"), "{}", other.err);
}

#[test]
fn without_certificates_http_works_and_https_is_explained() {
    let (_mini, home) = started();
    let none = [("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/nonexistent")];
    with(&home, &["emit", "t"], &none).exits(0);
    let https = ["ls", "--bus", "s3://b/p?endpoint=https://127.0.0.1:1"];
    with(&home, &https, &none).exits(1).says("no CA certificates here", "SSL_CERT_FILE or AWS_CA_BUNDLE");
    let bundle = home.file("ca.pem", "no certificate").to_str().unwrap().to_owned();
    with(&home, &https, &[("AWS_CA_BUNDLE", &bundle)]).exits(1).says("ca.pem: it has none", "AWS_CA_BUNDLE");
}

#[test]
fn doctor_reports_google_bucket_settings() {
    let mini = Mini::start(MiniOptions::default());
    let home = Home::at_bucket(&mini.endpoint(), "p");
    let url = format!("gs://evbus/p?endpoint={}", mini.endpoint());
    let run = |args: &[&str]| with(&home, args, &[("EVBUS_URL", &url), ("GOOGLE_BEARER_TOKEN", "t")]);
    run(&["init"]).exits(0);
    assert!(run(&["doctor"]).out.contains("ok   versioning  the server does not tell"));
    let resource = "{\"location\":\"EUROPE-WEST3\",\"softDeletePolicy\":{\"retentionDurationSeconds\":\"604800\"},\
                    \"lifecycle\":{\"rule\":[{\"action\":{\"type\":\"Delete\"},\"condition\":{\"age\":30}}]}}";
    mini.set_facts(BucketFacts { resource: Some(resource.to_owned()), ..BucketFacts::default() });
    let told = run(&["doctor"]).exits(0).out;
    for line in [
        "ok   region      europe-west3",
        "warn versioning  soft delete: deleted objects and old states of groups stay and cost for 7d",
        "warn lifecycle   rule '1' deletes what is on the bus",
    ] {
        assert!(told.contains(line), "{told}");
    }
    let asked = mini.requests().into_iter().find(|request| request.path == "/storage/v1/b/evbus").unwrap();
    assert_eq!(asked.header("authorization"), Some("Bearer t"));
}

#[test]
fn doctor_reports_azure_container_settings() {
    let azurite = azurite::azurite();
    let home = Home::new();
    let url = azurite.url("doctor");
    let mut vars: Vec<(&str, &str)> = vec![("EVBUS_URL", &url)];
    let variables = azurite.variables();
    vars.extend(variables.iter().map(|(name, value)| (*name, value.as_str())));
    with(&home, &["init"], &vars).exits(0);
    let told = with(&home, &["doctor"], &vars).exits(0).out;
    for line in ["ok   versioning  off", "ok   lifecycle   told to the account's owner"] {
        assert!(told.contains(line), "{told}");
    }
}

/// A regression: where listings have no generation, the objects behind the events counted as
/// absent.
#[test]
fn scheduled_events_and_redrives_work_on_google() {
    let mini = Mini::start(MiniOptions::default());
    let home = Home::at_bucket(&mini.endpoint(), "p");
    let url = format!("gs://evbus/p?endpoint={}", mini.endpoint());
    let google = [("EVBUS_URL", url.as_str()), ("GOOGLE_BEARER_TOKEN", "t\n"), ("GOOGLE_BUCKET", "another")];
    let run = |args: &[&str]| with(&home, args, &google);
    run(&["init"]).exits(0);
    let line = "[ -e fixed ] && echo $EVBUS_TYPE >> seen || exit 65";
    let args = ["watch", "-q", "-g", "g", "--poll", "1s", "--from", "earliest", "--shell", line];
    let mut watch = home.evbus(&args).envs(google).spawn().unwrap();
    run(&["emit", "broken"]).exits(0);
    until("it is dead", || run(&["dead", "ls", "g"]).out.contains("broken"));
    home.file("fixed", "");
    run(&["dead", "redrive", "g", "--all", "--yes"]).exits(0);
    until("it is run again", || home.lines("seen") == ["broken"]);
    run(&["emit", "later", "--delay", "1s"]).exits(0);
    until("it comes", || home.lines("seen") == ["broken", "later"]);
    signal(&watch, "TERM");
    assert!(watch.wait().unwrap().success());
    assert!(mini.keys().iter().all(|key| key.starts_with("evbus/p/")), "{:?}", mini.keys());
    mini.behave(&[ServerMode::OnlyKeys(Vec::new())]);
    let denied = run(&["emit", "t"]).exits(1);
    assert!(denied.err.contains("no permission") && !denied.err.contains("AWS"), "{}", denied.err);
}

/// A regression: `--timeout 2s` took the eight seconds that one request may take.
#[test]
fn an_emit_respects_its_timeout() {
    let (mini, home) = started();
    mini.behave(&[ServerMode::Hang]);
    // A request that is given up is retried once at most: the server, which hangs for ever, sees
    // few of them.
    mini.forget();
    home.run(&["emit", "t", "--timeout", "200ms"]).exits(75).says("no answer within 0.2 s", "");
    assert!(mini.requests().len() <= 3, "{:?}", mini.requests());
}

/// The same from the start of a drain, which opens a bus before it has a worker to end.
#[test]
fn a_drain_respects_its_time_limit_on_a_hanging_server() {
    let (mini, home) = started();
    mini.behave(&[ServerMode::Hang]);
    mini.forget();
    home.run(&["drain", "-g", "g", "--for", "200ms", "--", "true"]).exits(75).says("no answer within 0.2 s", "");
    assert!(mini.requests().len() <= 3, "{:?}", mini.requests());
}
