use object_store::client::HttpErrorKind;

use super::*;

fn shown(kind: Kind) -> ErrorContext {
    ErrorContext {
        kind,
        bucket: "acme".to_owned(),
        server: "http://here".to_owned(),
        timeout: Duration::from_secs(8),
        meter: Arc::default(),
    }
}

fn told_by(kind: Kind, answer: &str) -> StoreError {
    let error = Error::Generic { store: "S3", source: answer.to_owned().into() };
    shown(kind).failure("read", "frontier", error)
}

fn told(answer: &str) -> StoreError {
    told_by(Kind::S3, answer)
}

fn denied(kind: Kind, message: &str) -> StoreError {
    let source = format!("status code: 403 Forbidden: <Error><Code>AccessDenied</Code><Message>{message}</Message>");
    shown(kind).failure("write", "k", Error::PermissionDenied { path: "k".to_owned(), source: source.into() })
}

#[test]
fn transient_failures_are_retried_and_others_reported() {
    let of_status = |status: u16| told(&format!("Server returned non-2xx status code: {status} Text: ")).kind();
    for status in [408, 409, 412, 416, 429, 500, 502, 503, 504] {
        assert_eq!(of_status(status), ErrorKind::Unavailable, "{status}");
    }
    let of_code =
        |code: &str| told(&format!("status code: 400 Bad Request: <Error><Code>{code}</Code></Error>")).kind();
    for code in ["RequestTimeout", "SlowDown", "OperationAborted", "InternalError"] {
        assert_eq!(of_code(code), ErrorKind::Unavailable, "{code}");
    }
    assert_eq!([of_status(400), of_status(404)], [ErrorKind::Other; 2]);
    assert_eq!([of_status(401), of_status(403)], [ErrorKind::Denied; 2]);
    assert_eq!([of_status(501), of_code("NoSuchBucket"), of_code("ContainerNotFound")], [ErrorKind::Unfit; 3]);
    assert_eq!([of_status(507), of_code("ExpiredToken")], [ErrorKind::Full, ErrorKind::Denied]);
}

#[test]
fn a_bucket_in_another_region_is_not_reported_as_unreachable() {
    let bare = "Error performing GET http://here/acme in 1ms - Received redirect without LOCATION, this normally";
    let one = told(bare);
    assert_eq!((one.kind(), one.to_string().as_str()), (ErrorKind::Unfit, "bucket 'acme' is in another region"));
    let elsewhere = |region: Option<&str>| {
        let (bucket, region) = ("acme".to_owned(), region.map(str::to_owned));
        ErrorDetail::Bucket(Kind::S3, BucketProblem::OtherRegion { bucket, region })
    };
    assert_eq!(one.detail(), Some(&elsewhere(None)));
    let shown = shown(Kind::S3);
    shown.meter.note_region(Some("eu-west-1"));
    let error = Error::Generic { store: "S3", source: bare.into() };
    let other = shown.failure("read", "frontier", error);
    assert_eq!(other.to_string(), "bucket 'acme' is in another region: eu-west-1");
    assert_eq!(other.detail(), Some(&elsewhere(Some("eu-west-1"))));
    let malformed = "status code: 400: <Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'a' is \
                     wrong; expecting 'ap-south-1'</Message></Error>";
    assert!(told(malformed).to_string().ends_with("another region: ap-south-1"));
    assert_eq!(told_by(Kind::Gcs, bare).detail(), None);
}

#[test]
fn an_unparsable_response_is_not_reported_as_unreachable() {
    let answer = told("Got invalid DeleteObjects response: missing field `Key`");
    assert_eq!(answer.kind(), ErrorKind::Other);
    let whole = "http://here answers what is not understood: DeleteObjects response: missing field `Key`";
    assert_eq!(answer.to_string(), whole);
    let none = HttpError::new(HttpErrorKind::Connect, std::io::Error::other("tcp connect error: Connection refused"));
    let error = Error::Generic { store: "S3", source: Box::new(none) };
    let none = shown(Kind::S3).failure("read", "frontier", error);
    assert_eq!(none.to_string(), "cannot reach http://here: connection refused");
    assert_eq!(none.kind(), ErrorKind::Unavailable);
    assert!(told("invalid HTTP version parsed").to_string().contains("it does not speak HTTP"));
    assert!(told("received corrupt message of type InvalidContentType").to_string().contains("does not speak TLS"));
}

#[test]
fn the_servers_own_message_is_shown() {
    let why = "explicit deny in a resource-based policy";
    let error = denied(Kind::S3, why);
    assert_eq!(error.to_string(), format!("cannot write k in bucket 'acme': no permission: {why}"));
    assert_eq!(error.detail(), Some(&ErrorDetail::Bucket(Kind::S3, BucketProblem::Unencrypted)));
    assert!(denied(Kind::S3, "Access Denied").to_string().ends_with(": no permission"));
    let plain = denied(Kind::S3, "Access Denied");
    assert_eq!(plain.detail(), Some(&ErrorDetail::Bucket(Kind::S3, BucketProblem::Denied)));
    assert!(std::error::Error::source(&plain).is_some_and(|source| source.is::<Error>()), "{plain:?}");
}

#[test]
fn no_message_names_another_cloud() {
    let codes = ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthenticationFailed", "ExpiredToken"];
    for (kind, others) in [(Kind::Gcs, ["AWS_", "AZURE_"]), (Kind::Azure, ["AWS_", "GOOGLE_"])] {
        let of_codes = codes.map(|code| told_by(kind, &format!("status code: 403: <Code>{code}</Code>")));
        let machine = told_by(kind, "Error performing token request: GET http://169.254.169.254/metadata: timed out");
        let refused = told_by(kind, "Error performing token request: POST https://o/t: status code: 400 Bad Request");
        let certificate = told_by(kind, "invalid peer certificate: UnknownIssuer");
        for error in of_codes.into_iter().chain([machine, refused, certificate, denied(kind, "explicit deny: kms")]) {
            let all = error.to_string();
            assert!(!others.iter().any(|other| all.contains(other)), "{all}");
        }
    }
}

#[test]
fn a_failing_token_server_is_named() {
    let down = "Error performing token request: Error performing POST https://oauth2.example/token in 4s - HTTP error: \
                Connection refused";
    assert_eq!(told_by(Kind::Gcs, down).to_string(), "cannot reach https://oauth2.example: connection refused");
    let failure = CredentialsFailure { passing: true, what: "AWS STS at x answers 503".to_owned(), problem: None };
    let error = Error::Generic { store: "S3", source: Box::new(failure) };
    let told = shown(Kind::S3).failure("read", "frontier", error);
    assert_eq!((told.kind(), told.to_string().as_str()), (ErrorKind::Unavailable, "AWS STS at x answers 503"));
}
