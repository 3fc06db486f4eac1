use super::*;
use crate::store::object::BucketStore;

const CONFIG: &str = "[default]\nregion = eu-central-1\n# a comment\n[profile  lab]\nendpoint_url=http://10.0.0.1:9000\nca_bundle=~/ca.pem\n";
const CREDENTIALS: &str = "[default]\naws_access_key_id = A\naws_secret_access_key = S=1\n[lab]\naws_access_key_id=L\n";

fn environment(vars: &[(&str, &str)]) -> (tempfile::TempDir, Environment) {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    std::fs::write(home.path().join(".aws/config"), CONFIG).unwrap();
    std::fs::write(home.path().join(".aws/credentials"), CREDENTIALS).unwrap();
    let vars = vars.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let environment = Environment { vars, home: Some(home.path().to_owned()), ..Environment::from_process() };
    (home, environment)
}

fn parsed(kind: Kind, rest: &str, vars: &[(&str, &str)]) -> Result<Bucket, Problem> {
    parse(kind, rest, &environment(vars).1)
}

#[test]
fn the_url_overrides_the_environment_and_the_files() {
    let (_home, quiet) = environment(&[]);
    let bucket = parse(Kind::S3, "acme/prod/a", &quiet).unwrap();
    assert_eq!((bucket.name.as_str(), bucket.prefix.as_str()), ("acme", "prod/a"));
    assert_eq!(bucket.setting("aws_region"), Some("eu-central-1"));
    for variable in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        let bucket = parsed(Kind::S3, "acme", &[(variable, " us-west-1\n"), ("AWS_EMPTY", "")]).unwrap();
        assert_eq!(
            (bucket.setting("aws_region"), bucket.setting("aws_empty")),
            (Some("us-west-1"), None),
            "{variable}"
        );
    }
    let loud = [
        ("AWS_REGION", "us-west-1"),
        ("AWS_PROFILE", "lab"),
        ("AWS_ENDPOINT_URL", "http://general"),
        ("AWS_ENDPOINT_URL_S3", "http://special"),
    ];
    let endpoint =
        |rest, vars: &[_]| parsed(Kind::S3, rest, vars).unwrap().setting("aws_endpoint_url_s3").unwrap().to_owned();
    assert_eq!(endpoint("acme?endpoint=http%3A//x:9000", &loud), "http://x:9000");
    assert_eq!(endpoint("acme", &loud), "http://special");
    assert_eq!(endpoint("acme", &loud[..3]), "http://general");
    assert_eq!(endpoint("acme", &loud[..2]), "http://10.0.0.1:9000");
    let bucket = parsed(Kind::S3, "acme?region=r", &loud).unwrap();
    assert_eq!((bucket.setting("aws_region"), bucket.identity.region.as_deref()), (Some("r"), Some("r")));
    assert_eq!(bucket.setting("ca_bundle"), Some("~/ca.pem"));
}

#[test]
fn a_profile_that_was_named_must_be_there() {
    let bad = [("AWS_PROFILE", "lib")];
    assert!(parsed(Kind::S3, "acme", &bad).unwrap_err().0.contains("no AWS profile 'lib'"));
    let bucket = parsed(Kind::S3, "acme?profile=lab", &bad).unwrap();
    assert_eq!((bucket.identity.profile.as_deref(), bucket.setting("aws_region")), (Some("lab"), None));
    let (_home, mut homeless) = environment(&[]);
    homeless.home = None;
    assert_eq!(parse(Kind::S3, "acme", &homeless).unwrap().settings, []);
}

#[test]
fn each_provider_has_its_own_parameters() {
    let endpoint = |kind| parsed(kind, "acme/p?endpoint=http://127.0.0.1:1", &[]).unwrap().settings;
    assert_eq!(endpoint(Kind::Azure), [("azure_endpoint".to_owned(), "http://127.0.0.1:1".to_owned())]);
    assert_eq!(endpoint(Kind::Gcs), [("google_base_url".to_owned(), "http://127.0.0.1:1".to_owned())]);
    assert!(parsed(Kind::Gcs, "acme?region=r", &[]).unwrap_err().0.contains("unknown parameter 'region'"));
}

#[test]
fn a_malformed_url_is_reported() {
    for (rest, why) in [
        ("", "has no bucket (write s3://bucket/prefix)"),
        ("/p", "has no bucket (write s3://bucket/prefix)"),
        ("acme/a//b", "an empty or odd part"),
        ("acme/../b", "an empty or odd part"),
        ("acme/%zz", "a broken %"),
        ("ac!me", "has a '!' in its bucket"),
        ("acme?regoin=r", "unknown parameter 'regoin' (did you mean 'region'?)"),
        ("acme?endpoint=x:9000", "has an endpoint that is no http"),
        ("acme?region=a.b/", "has a region that is none"),
    ] {
        let (what, _) = parsed(Kind::S3, rest, &[]).unwrap_err();
        assert!(what.starts_with("the s3:// URL ") && what.contains(why), "{rest}: {what}");
    }
}

#[test]
fn secrets_are_refused_and_not_shown() {
    let rests = [
        "AKIA:hush@acme/x",
        "AKIA%3Ahush%40acme/x",
        "AKIA:hu/hush@acme/x",
        "hush@acme",
        "acme?endpoint=http://u:hush@127.0.0.1:1",
        "acme?endpoint=http%3A%2F%2Fu%3Ahush%40h",
        "acme?endpoint=http://u:hush%2540h",
        "acme?endpoint=https://h/?sig=hush",
        "acme?endpoint=hush",
        "acme?secret_access_key=hush",
        "acme?%73ecret=hush",
        "acme?HUSH/hush+hush",
        "acme?sas_token=hush&sig=hush",
    ];
    for kind in [Kind::S3, Kind::Gcs, Kind::Azure] {
        for rest in rests {
            let (what, detail) = parsed(kind, rest, &[]).unwrap_err();
            let all = format!("{what} {detail:?}");
            assert!(!all.to_lowercase().contains("hush"), "{rest}: {all}");
        }
    }
    let with_endpoint = [
        (Kind::S3, "AWS_ENDPOINT_URL_S3"),
        (Kind::S3, "AWS_ENDPOINT_URL"),
        (Kind::Gcs, "GOOGLE_BASE_URL"),
        (Kind::Azure, "AZURE_ENDPOINT"),
    ];
    for (kind, variable) in with_endpoint {
        let (what, _) = parsed(kind, "acme", &[(variable, "http://u:hush@h")]).unwrap_err();
        assert!(what.starts_with(variable) && !what.contains("hush"), "{what}");
    }
    let hush = [("AWS_SECRET_ACCESS_KEY", "hush"), ("AWS_SSE_CUSTOMER_KEY_BASE64", "hush")];
    let shown = format!("{:?}", parsed(Kind::S3, "acme", &hush).unwrap());
    assert!(!shown.contains("hush") && !shown.contains("S=1"), "{shown}");
}

/// The names that object_store 0.14.2 knows for its settings, without their prefixes (`FromStr` of
/// `AmazonS3ConfigKey`, `GoogleConfigKey`, `AzureConfigKey` and `ClientConfigKey`).
const KNOWN: [(Kind, &str, &str); 3] = [
    (
        Kind::S3,
        "AWS_",
        "access_key_id secret_access_key default_region region bucket bucket_name endpoint_url \
         endpoint endpoint_url_s3 session_token token virtual_hosted_style_request s3_express \
         imdsv1_fallback metadata_endpoint unsigned_payload checksum_algorithm \
         container_credentials_relative_uri container_credentials_full_uri \
         container_authorization_token_file web_identity_token_file role_arn role_session_name \
         endpoint_url_sts skip_signature copy_if_not_exists conditional_put disable_tagging \
         disable_bulk_delete request_payer server_side_encryption sse_kms_key_id \
         sse_bucket_key_enabled sse_customer_key_base64",
    ),
    (
        Kind::Gcs,
        "GOOGLE_",
        "service_account service_account_path service_account_key bucket bucket_name base_url \
         application_credentials bearer_token skip_signature",
    ),
    (
        Kind::Azure,
        "AZURE_",
        "storage_account_key storage_access_key storage_master_key master_key account_key access_key \
         storage_account_name account_name storage_client_id client_id storage_client_secret \
         client_secret storage_tenant_id storage_authority_id tenant_id authority_id \
         storage_authority_host authority_host storage_sas_key storage_sas_token sas_key sas_token \
         storage_token bearer_token token storage_use_emulator use_emulator storage_endpoint \
         endpoint msi_endpoint identity_endpoint object_id msi_resource_id federated_token_file \
         use_fabric_endpoint use_azure_cli skip_signature container_name disable_tagging \
         fabric_token_service_url fabric_workload_host fabric_session_token \
         fabric_cluster_identifier credential_type storage_encryption_key encryption_key",
    ),
];

const CLIENT: &str = "allow_http allow_invalid_certificates disable_system_certificates connect_timeout \
    default_content_type http1_only http2_only http2_keep_alive_interval http2_keep_alive_timeout \
    http2_keep_alive_while_idle http2_max_frame_size pool_idle_timeout pool_max_idle_per_host \
    proxy_url proxy_ca_certificate proxy_excludes randomize_addresses read_timeout timeout \
    user_agent";

/// A regression: `AWS_BUCKET`, as web frameworks set it, replaced the bucket of the URL.
#[test]
fn no_environment_variable_changes_the_location() {
    for (kind, prefix, names) in KNOWN {
        let here = match kind {
            Kind::S3 => "mine/prod?endpoint=http://127.0.0.1:1&region=r",
            Kind::Gcs => "mine/prod?endpoint=http://127.0.0.1:1",
            Kind::Azure => "mine/prod?endpoint=http://127.0.0.1:1/account",
        };
        let usual: &[_] = match kind {
            Kind::Azure => &[("AZURE_STORAGE_ACCOUNT_NAME", "account"), ("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")],
            Kind::Gcs => &[("GOOGLE_BEARER_TOKEN", "t")],
            Kind::S3 => &[],
        };
        let place = |vars: &[(&str, &str)]| {
            let bucket = parsed(kind, here, &[usual, vars].concat()).ok()?;
            assert_eq!((bucket.name.as_str(), bucket.prefix.as_str()), ("mine", "prod"));
            Some(BucketStore::connect(&bucket).ok()?.place())
        };
        let right = place(&[]).unwrap();
        assert!(right.contains("mine") && right.contains("127.0.0.1"), "{right}");
        for name in names.split_whitespace().chain(CLIENT.split_whitespace()) {
            for name in [format!("{prefix}{name}"), name.to_owned()].map(|name| name.to_uppercase()) {
                for value in ["someoneelses", "https://someoneelses", "true"] {
                    // A refused variable is not used.
                    let found = place(&[(&name, value)]);
                    assert!(found.is_none_or(|found| found == right), "{name}={value}: {:?}", place(&[(&name, value)]));
                }
            }
        }
    }
}

#[test]
fn one_source_of_each_kind_is_taken() {
    let key = "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=a2V5==;EndpointSuffix=core.windows.net";
    let vars =
        [("AZURE_STORAGE_CONNECTION_STRING", key), ("AZURE_STORAGE_SAS_TOKEN", "other"), ("AZURE_CLIENT_ID", "me")];
    let bucket = parsed(Kind::Azure, "box/p", &vars).unwrap();
    let get = |name| bucket.setting(name);
    assert_eq!((get("azure_storage_account_name"), get("azure_storage_account_key")), (Some("acc"), Some("a2V5==")));
    assert_eq!(get("azure_endpoint"), Some("https://acc.blob.core.windows.net"));
    assert_eq!((get("azure_storage_sas_token"), get("azure_client_id")), (None, Some("me")));
    let bucket = parsed(Kind::Azure, "box?endpoint=http://h/acc", &vars).unwrap();
    assert_eq!(bucket.setting("azure_endpoint"), Some("http://h/acc"), "what the URL says comes first");
    let sas =
        [("AZURE_STORAGE_CONNECTION_STRING", "BlobEndpoint=https://acc.blob.x/;SharedAccessSignature=sv=1&sig=a%3D")];
    let bucket = parsed(Kind::Azure, "box", &sas).unwrap();
    assert_eq!(bucket.setting("azure_storage_account_name"), Some("acc"));
    assert_eq!(bucket.setting("azure_storage_sas_token"), Some("sv=1&sig=a%3D"));
    for bad in ["UseDevelopmentStorage=true", "AccountKey=hush", "hush", "AccountName=a;BlobEndpoint=http://hush@h"] {
        let (what, _) = parsed(Kind::Azure, "box", &[("AZURE_STORAGE_CONNECTION_STRING", bad)]).unwrap_err();
        assert!(!what.contains("hush"), "{what}");
    }
    let two = [("GOOGLE_SERVICE_ACCOUNT_KEY", "{}"), ("GOOGLE_SERVICE_ACCOUNT", "/none")];
    assert_eq!(parsed(Kind::Gcs, "box", &two).unwrap().setting("google_service_account_key"), None);
    let odd = [("GOOGLE_SERVICE_ACCOUNT_KEY", "\"hush\"")];
    assert!(!parsed(Kind::Gcs, "box", &odd).unwrap_err().0.contains("hush"));
}

#[test]
fn a_service_account_key_may_name_its_endpoint() {
    let account = "{\"gcs_base_url\": \"http://127.0.0.1:4443\",\n\"disable_oauth\": true}";
    let vars = [("GOOGLE_SERVICE_ACCOUNT_KEY", account)];
    assert_eq!(parsed(Kind::Gcs, "box", &vars).unwrap().setting("google_base_url"), Some("http://127.0.0.1:4443"));
    let said = parsed(Kind::Gcs, "box?endpoint=http://h", &vars).unwrap();
    assert_eq!(said.setting("google_base_url"), Some("http://h"));
}

#[test]
fn a_credential_with_a_control_character_is_refused() {
    for (kind, name) in [(Kind::Azure, "AZURE_STORAGE_TOKEN"), (Kind::Gcs, "GOOGLE_BEARER_TOKEN")] {
        let (what, _) = parsed(kind, "box", &[(name, "hu\nsh")]).unwrap_err();
        assert_eq!(what, format!("{name} has a character that it cannot have"));
        assert!(parsed(kind, "box", &[(name, "\u{feff}hush\r\n")]).is_ok());
    }
}
