//! What is decided without a request.

use super::machine::near;
use super::*;

const CONFIG: &str = "\u{feff}[default]\nregion = eu-west-1\ns3 =\n  aws_access_key_id = nested\n\
    [profile base]\nregion=eu-west-1\naws_session_token = of-another-source\n\
    [profile dev]\nrole_arn = arn:dev # mine\nsource_profile = base\n\
    [profile two]\nrole_arn = arn:two\nsource_profile = dev\n\
    [profile \"of two words\"]\ncredential_process = get --it # now\n\
    [profile round]\nrole_arn = arn:a\nsource_profile = robin\n[profile robin]\nrole_arn = arn:b\nsource_profile = round\n\
    [profile mfa]\nrole_arn = arn:a\nsource_profile = base\nmfa_serial = arn:m\n\
    [profile moon]\nrole_arn = arn:a\ncredential_source = Moon\n[profile alone]\nrole_arn = arn:a\n\
    [profile web]\nlogin_session = arn:a\n[profile half]\naws_access_key_id = H\n\
    [profile sso]\nsso_session = corp\nsso_account_id = 1\nsso_role_name = r\n\
    [profile lost]\nsso_session = none\nsso_account_id = 1\nsso_role_name = r\n\
    [sso-session corp]\nsso_start_url = https://corp\nsso_region = eu-west-1\n";
const CREDENTIALS: &str = "[base]\r\naws_access_key_id = B\r\naws_secret_access_key = S=1\r\n";

fn identity(vars: &[(&str, &str)]) -> (tempfile::TempDir, CredentialInputs) {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    std::fs::write(home.path().join(".aws/config"), CONFIG).unwrap();
    std::fs::write(home.path().join(".aws/credentials"), CREDENTIALS).unwrap();
    let vars = vars.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let identity = CredentialInputs { vars, home: Some(home.path().to_owned()), ..CredentialInputs::default() };
    (home, identity)
}

fn plan(profile: &str) -> CredentialsResult<CredentialPlan> {
    identity(&[("AWS_PROFILE", profile)]).1.plan()
}

fn base() -> AwsCredential {
    AwsCredential { key_id: "B".into(), secret_key: "S=1".into(), token: None }
}

#[test]
fn keys_come_from_one_source() {
    assert!(plan("base").unwrap().base == CredentialSource::Keys(base()));
    let env = [("AWS_ACCESS_KEY_ID", "E\n"), ("AWS_SECRET_ACCESS_KEY", " s\r\n"), ("AWS_PROFILE", "base")];
    let (_home, mut loud) = identity(&env);
    let of_env = AwsCredential { key_id: "E".into(), secret_key: "s".into(), token: None };
    assert!(loud.plan().unwrap().base == CredentialSource::Keys(of_env));
    loud.profile = Some("base".into());
    assert!(loud.plan().unwrap().base == CredentialSource::Keys(base()), "the URL's profile comes first");
    let (_home, half) = identity(&env[..1]);
    assert!(half.plan().err().unwrap().what.contains("AWS_SECRET_ACCESS_KEY is not"));
    let (_home, odd) = identity(&[env[0], env[1], ("AWS_SESSION_TOKEN", "a\nb")]);
    assert!(odd.plan().err().unwrap().what.contains("has a character that no session token has"));
}

#[test]
fn chained_roles_are_assumed_from_the_source_on() {
    let two = plan("two").unwrap();
    assert!(two.base == CredentialSource::Keys(base()));
    assert_eq!(two.roles.iter().map(|role| role.arn.as_str()).collect::<Vec<_>>(), ["arn:dev", "arn:two"]);
    assert_eq!(two.roles[0].endpoint, "https://sts.us-east-1.amazonaws.com");
}

#[test]
fn a_profile_is_followed_or_refused_with_a_reason() {
    for (profile, why) in [
        ("nix", "no AWS profile 'nix' in "),
        ("round", "leads back to it: round, robin, round"),
        ("mfa", "mfa_serial"),
        ("moon", "unknown credential_source 'Moon'"),
        ("alone", "neither source_profile nor credential_source"),
        ("web", "uses login_session"),
        ("half", "has no aws_secret_access_key"),
        ("lost", "no sso_session 'none' in "),
    ] {
        let failure = plan(profile).err().unwrap();
        assert!(failure.what.contains(why) && !failure.passing, "{profile}: {failure}");
    }
    let command = "get --it # now".to_owned();
    assert!(
        plan("of two words").unwrap().base == CredentialSource::Process { command, profile: "of two words".into() }
    );
    let CredentialSource::Login(login) = plan("sso").unwrap().base else { panic!("a login") };
    assert_eq!((login.key.as_str(), login.region.as_str()), ("corp", "eu-west-1"));
}

#[test]
fn without_configured_credentials_the_machine_is_asked() {
    assert!(plan("default").unwrap().base == CredentialSource::Machine);
    let (_home, pod) = identity(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials")]);
    assert!(pod.plan().unwrap().base == CredentialSource::Container);
    let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", "~/t"), ("AWS_ROLE_ARN", "arn:w"), ("AWS_REGION", "cn-north-1")];
    let (home, web) = identity(&web);
    let CredentialSource::Token { role, file } = web.plan().unwrap().base else { panic!("a token") };
    assert_eq!((role.endpoint.as_str(), file), ("https://sts.cn-north-1.amazonaws.com.cn", home.path().join("t")));
}

#[test]
fn a_token_is_not_sent_in_the_clear_to_another_machine() {
    for (url, is) in [
        ("http://169.254.170.23/v1", true),
        ("http://[fd00:ec2::23]/v1", true),
        ("http://127.0.0.1:8/", true),
        ("http://[::1]:8/", true),
        ("https://example.com/", true),
        ("http://example.com/", false),
        ("http://169.254.170.2@example.com/", false),
        ("http://10.0.0.1/", false),
    ] {
        assert_eq!(near(url), is, "{url}");
    }
}

#[test]
fn credentials_are_fresh_until_shortly_before_expiry() {
    let now = now();
    let credential = Arc::new(base());
    let of = |fetched: i64, expires: Option<i64>| {
        let at = |seconds: i64| now + jiff::SignedDuration::from_secs(seconds);
        let (fetched, expires) = (at(fetched), expires.map(at));
        Cached { credential: Arc::clone(&credential), expires, fetched, refused: false }
    };
    assert!(of(-9_999, None).is_fresh(now));
    assert!(of(-3_000, Some(61)).is_fresh(now) && !of(-3_000, Some(59)).is_fresh(now));
    assert!(of(-9, Some(-1)).is_fresh(now) && !of(-11, Some(-1)).is_fresh(now));
    assert!(!Cached { refused: true, ..of(0, None) }.is_fresh(now));
}

#[test]
fn secrets_are_not_shown() {
    let (_home, identity) = identity(&[("AWS_SECRET_ACCESS_KEY", "hush")]);
    assert!(!format!("{:?}", AwsCredentials::new(identity, ClientOptions::new())).contains("hush"));
}

#[test]
fn an_address_with_credentials_is_refused_and_not_shown() {
    for url in ["http://u:hush@h/", "https://hush@h/x", "u:hush@h", "http://u:hu@sh@h/"] {
        let failure = ask::request(reqwest::Method::GET, url, Vec::new().into()).err().unwrap();
        assert!(!failure.what.contains("hu"), "{failure}");
    }
    assert!(ask::request(reqwest::Method::GET, "http://h/x?a=b", Vec::new().into()).is_ok());
}
