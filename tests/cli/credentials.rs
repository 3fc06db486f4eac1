//! Which credentials sign the requests, and which bucket they go to, as a server records them.

use std::process::Command;

use super::mini::{Mini, MiniOptions, ServerMode};
use super::support::{CliRun, Home, signal, until};

const ROLE: &str = "arn:aws:iam::123456789012:role/dev";

/// A home at a server, without a home's keys, and with the tools' two files.
struct BareHome {
    mini: Mini,
    home: Home,
}

impl BareHome {
    fn new(options: MiniOptions, config: &str, credentials: &str) -> Self {
        let mini = Mini::start(options);
        let home = Home::at_bucket(&mini.endpoint(), "p");
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        home.file(".aws/config", config);
        home.file(".aws/credentials", credentials);
        Self { mini, home }
    }

    fn evbus(&self, args: &[&str], vars: &[(&str, &str)]) -> Command {
        let mut command = self.home.evbus(args);
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            command.env_remove(name);
        }
        for name in ["STS", "SSO", "SSO_OIDC"] {
            command.env(format!("AWS_ENDPOINT_URL_{name}"), self.mini.endpoint());
        }
        command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", self.mini.endpoint());
        command.envs(vars.iter().copied());
        command
    }

    fn run(&self, args: &[&str], vars: &[(&str, &str)]) -> CliRun {
        CliRun::of(self.evbus(args, vars).output().unwrap())
    }

    /// Access key and token of the requests that `ls` sends to the bucket; it finds no bus.
    fn signed_by(&self, vars: &[(&str, &str)]) -> (String, Option<String>) {
        self.mini.forget();
        self.run(&["ls"], vars).exits(2).says("no bus at s3://", "");
        let seen = self.mini.requests();
        let of_bucket: Vec<_> = seen.iter().filter(|request| request.path.starts_with("/evbus")).collect();
        let signers: Vec<_> = of_bucket
            .iter()
            .map(|request| (request.access_key().unwrap().to_owned(), request.token().map(str::to_owned)))
            .collect();
        assert!(signers.windows(2).all(|two| two[0] == two[1]), "{signers:?}");
        signers[0].clone()
    }
}

fn pair(key: &str, token: Option<&str>) -> (String, Option<String>) {
    (key.to_owned(), token.map(str::to_owned))
}

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "ENVKEY"), ("AWS_SECRET_ACCESS_KEY", "s")];

#[test]
fn the_bucket_of_the_url_overrides_the_environment() {
    let bare = BareHome::new(MiniOptions::default(), "", "");
    for name in ["AWS_BUCKET", "AWS_BUCKET_NAME", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "BUCKET"] {
        bare.mini.forget();
        bare.run(&["ls"], &[KEYS[0], KEYS[1], (name, "true")]).exits(2);
        let elsewhere = |path: &str| !path.starts_with("/evbus/p/");
        let seen = bare.mini.requests();
        assert!(!seen.is_empty() && !seen.iter().any(|request| elsewhere(&request.path)), "{name}: {seen:?}");
    }
}

/// A regression: the session token of a file went with the keys of the environment.
#[test]
fn key_secret_and_token_come_from_one_source() {
    let file = "[default]\naws_access_key_id=FILEKEY\naws_secret_access_key=x\naws_session_token=FILETOKEN\n";
    let bare = BareHome::new(
        MiniOptions::default(),
        "",
        &format!("\u{feff}{file}[other]\naws_access_key_id=OTHER\naws_secret_access_key=x\n"),
    );
    assert_eq!(bare.signed_by(&KEYS), pair("ENVKEY", None));
    assert_eq!(bare.signed_by(&[]), pair("FILEKEY", Some("FILETOKEN")));
    assert_eq!(bare.signed_by(&[("AWS_PROFILE", "other")]), pair("OTHER", None));
    let trimmed =
        [("AWS_ACCESS_KEY_ID", "ENVKEY\n"), ("AWS_SECRET_ACCESS_KEY", " s\r\n"), ("AWS_SESSION_TOKEN", "T\n")];
    assert_eq!(bare.signed_by(&trimmed), pair("ENVKEY", Some("T")));
    let half = bare.run(&["ls"], &KEYS[..1]).exits(1);
    half.says("AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not", "");
    let url = format!("s3://evbus/p?endpoint={}&profile=other", bare.mini.endpoint());
    bare.mini.forget();
    bare.run(&["ls", "--bus", &url], &KEYS).exits(2);
    assert_eq!(bare.mini.requests()[0].access_key(), Some("OTHER"), "a profile that the URL names comes first");
}

#[test]
fn credentials_are_found_as_by_the_aws_tools() {
    let config = format!(
        "[profile base]\naws_access_key_id=BASE\naws_secret_access_key=x\n[profile dev]\nrole_arn={ROLE}\n\
         source_profile=base\n[profile proc]\ncredential_process=./cp --secret hush\n[profile machine]\nrole_arn={ROLE}\ncredential_source=Ec2InstanceMetadata\n[profile only]\nregion=eu-west-1\n\
         [profile mfa]\nrole_arn={ROLE}\nsource_profile=base\nmfa_serial=arn:x\n"
    );
    let options = MiniOptions { authorization: Some("pod".to_owned()), ..MiniOptions::default() };
    let bare = BareHome::new(options, &config, "");
    bare.home.script("cp", "echo '{\"Version\":1,\"AccessKeyId\":\"PROCKEY\",\"SecretAccessKey\":\"x\"}'");
    let of = |profile| bare.signed_by(&[("AWS_PROFILE", profile)]);
    assert_eq!(of("dev"), pair("ASSUMEDKEY", Some("ASSUMEDTOKEN")));
    let asked = bare.mini.requests();
    let assumed = asked.iter().find(|request| request.parameter("Action") == Some("AssumeRole")).unwrap();
    assert_eq!((assumed.access_key(), assumed.parameter("RoleArn")), (Some("BASE"), Some(ROLE)));
    assert_eq!(of("proc"), pair("PROCKEY", None));
    assert_eq!(of("machine"), pair("ASSUMEDKEY", Some("ASSUMEDTOKEN")));
    assert_eq!(of("only"), pair("IMDSKEY", Some("IMDSTOKEN")));
    let file = |name: &str, text: &str| bare.home.file(name, text).to_str().unwrap().to_owned();
    let (web, pod) = (file("web", "WIT\n"), file("pod", "\u{feff}pod\n"));
    let web = bare.signed_by(&[("AWS_WEB_IDENTITY_TOKEN_FILE", &web), ("AWS_ROLE_ARN", ROLE)]);
    assert_eq!(web, pair("WEBKEY", Some("WEBTOKEN")));
    let creds = format!("{}/creds", bare.mini.endpoint());
    let container =
        [("AWS_CONTAINER_CREDENTIALS_FULL_URI", creds.as_str()), ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &pod)];
    assert_eq!(bare.signed_by(&container), pair("CONTAINERKEY", Some("CONTAINERTOKEN")));
    let refused = bare.run(&["ls"], &[("AWS_PROFILE", "mfa")]).exits(1);
    refused.says("AWS profile 'mfa' asks for a code of an MFA device", "aws configure export-credentials");
}

#[test]
fn an_sso_login_is_used_and_an_expired_one_is_reported() {
    let config = "[profile sso]\nsso_session=corp\nsso_account_id=1\nsso_role_name=r\n[sso-session corp]\n\
                  sso_start_url=https://corp\nsso_region=eu-west-1\n";
    let bare = BareHome::new(MiniOptions::default(), config, "");
    let sso = [("AWS_PROFILE", "sso")];
    bare.run(&["ls"], &sso).exits(1).says("AWS profile 'sso' is not logged in", "aws sso login --profile sso");
    let cache = bare.home.path().join(".aws/sso/cache");
    std::fs::create_dir_all(&cache).unwrap();
    let login = |expires: &str| {
        let token = format!("{{\"accessToken\":\"T\",\"expiresAt\":\"{expires}\"}}");
        std::fs::write(cache.join(format!("{SHA1_OF_CORP}.json")), token).unwrap();
    };
    login("2099-01-01T00:00:00Z");
    assert_eq!(bare.signed_by(&sso), pair("SSOKEY", Some("SSOTOKEN")));
    login("2020-01-01T00:00:00UTC");
    bare.run(&["ls"], &sso).exits(1).says("the SSO login of AWS profile 'sso' has expired", "aws sso login");
}

/// The name that the AWS tools give to the file of a session's token.
const SHA1_OF_CORP: &str = "ee0bfd2552fbd840c02cc48b6e823320543c450f";

#[test]
fn the_failing_credential_source_is_named() {
    let config =
        format!("[profile dev]\nrole_arn={ROLE}\nsource_profile=dev\naws_access_key_id=A\naws_secret_access_key=s\n");
    let bare = BareHome::new(MiniOptions { role: None, ..MiniOptions::default() }, &config, "");
    let web = |file: &str| {
        bare.run(&["emit", "t", "--timeout", "4s"], &[("AWS_WEB_IDENTITY_TOKEN_FILE", file), ("AWS_ROLE_ARN", ROLE)])
    };
    web("/none/at/all").exits(1).says("cannot read the web identity token /none/at/all", "");
    let token = bare.home.file("web", "WIT").to_str().unwrap().to_owned();
    bare.mini.behave(&[ServerMode::DenyIdentity]);
    web(&token).exits(1).says(&format!("AWS STS at {} answers 403", bare.mini.endpoint()), "");
    bare.run(&["ls"], &[("AWS_PROFILE", "dev")]).exits(1).says("of AWS profile 'dev' is refused: AccessDenied", "");
    bare.mini.behave(&[]);
    bare.run(&["ls"], &[]).exits(1).says("no AWS credentials, and this machine has no role", "AWS_PROFILE");
    let vars = [("AWS_PROFILE", "dev"), ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")];
    bare.run(&["ls"], &vars).exits(75).says("cannot reach AWS STS at http://127.0.0.1:1: connection refused", "");
}

/// A regression: a worker kept expired keys until it was restarted.
#[test]
fn a_worker_picks_up_rotated_keys() {
    let keys = |key: &str| format!("[default]\naws_access_key_id={key}\naws_secret_access_key=x\n");
    let bare = BareHome::new(MiniOptions::default(), "", &keys("OLDKEY"));
    bare.run(&["init"], &[]).exits(0);
    let args = ["watch", "-q", "-g", "g", "--poll", "1s", "--from", "earliest", "--shell", "echo $EVBUS_TYPE >> seen"];
    let mut watch = bare.evbus(&args, &[]).spawn().unwrap();
    bare.run(&["emit", "before"], &[]).exits(0);
    until("it works", || bare.home.lines("seen") == ["before"]);
    bare.home.file(".aws/credentials", &keys("NEWKEY"));
    bare.mini.behave(&[ServerMode::OnlyKeys(vec!["NEWKEY".to_owned()])]);
    bare.run(&["emit", "after"], &[]).exits(0);
    until("it goes on", || bare.home.lines("seen") == ["before", "after"]);
    signal(&watch, "TERM");
    assert!(watch.wait().unwrap().success());
}
