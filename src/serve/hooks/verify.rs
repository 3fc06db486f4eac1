//! Whether a webhook comes from its sender: an HMAC over the body, as each service writes it. Nothing that
//! is answered tells what was expected.

use std::time::Duration;

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use crate::config::{HmacEncoding, HmacScheme, Hook, Verify};
use crate::event::EventTime;
use crate::handler::standard_webhook_key;
use crate::secret::{SecretSource, is_equal};
use crate::serve::problem::Problem;

/// What is signed, and the signatures of which one is to be right.
struct Signed<'a> {
    /// What stands before the body.
    before: String,
    signatures: Vec<Vec<u8>>,
    /// When it was signed, in seconds since 1970.
    timestamp: Option<&'a str>,
}

/// The most signatures of a request that are looked at.
const MOST_SIGNATURES: usize = 16;

/// The key of each secret of a hook, or what is wrong with it, to be read after the hook's name.
pub(super) fn keys(hook: &Hook) -> Vec<Result<hmac::Key, String>> {
    let key = |secret: &SecretSource| {
        let text = secret.read().map_err(|error| error.to_string())?;
        Ok(match &hook.verify {
            Verify::Standard => standard_webhook_key(&text).map_err(|error| format!("{secret} {error}"))?,
            Verify::Hmac(HmacScheme { is_sha1: true, .. }) => {
                hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes())
            }
            _ => hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()),
        })
    };
    hook.secrets.iter().map(key).collect()
}

/// Refuses a webhook that its sender has not signed by one of the keys, or not lately.
pub(super) fn check(
    hook: &Hook,
    keys: &[hmac::Key],
    headers: &HeaderMap,
    body: &[u8],
    now: EventTime,
) -> Result<(), Problem> {
    if hook.verify == Verify::None {
        return Ok(());
    }
    let refused = || Problem::unauthorized("the signature is missing or wrong", "Signature");
    let signed = signed(&hook.verify, headers).ok_or_else(refused)?;
    if let Some(timestamp) = signed.timestamp
        && !is_recent(timestamp, now, hook.tolerance)
    {
        return Err(refused());
    }
    let mut is_good = false;
    for key in keys {
        let mut signing = hmac::Context::with_key(key);
        signing.update(signed.before.as_bytes());
        signing.update(body);
        let tag = signing.sign();
        is_good |= signed.signatures.iter().any(|signature| is_equal(tag.as_ref(), signature));
    }
    if is_good { Ok(()) } else { Err(refused()) }
}

fn is_recent(timestamp: &str, now: EventTime, tolerance: Duration) -> bool {
    let Ok(seconds) = timestamp.parse::<i64>() else { return false };
    let now = now.as_micros().div_euclid(1_000_000);
    now.checked_sub(seconds).is_some_and(|age| age.unsigned_abs() <= tolerance.as_secs())
}

/// What the headers say; none if they do not say enough.
fn signed<'a>(verify: &Verify, headers: &'a HeaderMap) -> Option<Signed<'a>> {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let of_body = |signatures| Signed { before: String::new(), signatures, timestamp: None };
    let timed =
        |timestamp: &'a str, before: String, signatures| Signed { before, signatures, timestamp: Some(timestamp) };
    match verify {
        Verify::None => None,
        // https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
        Verify::Github => Some(of_body(vec![hex(header("x-hub-signature-256")?.strip_prefix("sha256=")?)?])),
        // https://docs.stripe.com/webhooks/signature
        Verify::Stripe => {
            let parts: Vec<(&str, &str)> =
                header("stripe-signature")?.split(',').filter_map(|part| part.trim().split_once('=')).collect();
            let timestamp = parts.iter().find(|(name, _)| *name == "t")?.1;
            let signatures = parts.iter().filter(|(name, _)| *name == "v1").filter_map(|(_, text)| hex(text));
            Some(timed(timestamp, format!("{timestamp}."), signatures.take(MOST_SIGNATURES).collect()))
        }
        // https://docs.slack.dev/authentication/verifying-requests-from-slack
        Verify::Slack => {
            let timestamp = header("x-slack-request-timestamp")?;
            let signature = hex(header("x-slack-signature")?.strip_prefix("v0=")?)?;
            Some(timed(timestamp, format!("v0:{timestamp}:"), vec![signature]))
        }
        // https://www.standardwebhooks.com
        Verify::Standard => {
            let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?);
            let signatures = header("webhook-signature")?.split(' ').filter_map(|one| one.strip_prefix("v1,"));
            let signatures = signatures.filter_map(|text| STANDARD.decode(text).ok()).take(MOST_SIGNATURES).collect();
            Some(timed(timestamp, format!("{id}.{timestamp}."), signatures))
        }
        Verify::Hmac(scheme) => {
            let signature = signature(scheme, header(&scheme.header)?)?;
            Some(match &scheme.timestamp_header {
                None => of_body(vec![signature]),
                Some(name) => {
                    let timestamp = header(name)?;
                    timed(timestamp, format!("{timestamp}."), vec![signature])
                }
            })
        }
    }
}

fn signature(scheme: &HmacScheme, text: &str) -> Option<Vec<u8>> {
    let text = text.trim().strip_prefix(&*scheme.prefix)?;
    match scheme.encoding {
        HmacEncoding::Hex => hex(text),
        HmacEncoding::Base64 => STANDARD.decode(text).ok(),
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use axum::response::IntoResponse;

    use super::*;
    use crate::config::Template;

    fn hook(verify: Verify, folder: &tempfile::TempDir, secrets: &[&str]) -> Hook {
        use std::os::unix::fs::PermissionsExt;
        let file = |(number, secret): (usize, &&str)| {
            let path = folder.path().join(number.to_string());
            std::fs::write(&path, secret).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            SecretSource::File(path)
        };
        Hook {
            verify,
            secrets: secrets.iter().enumerate().map(file).collect(),
            tolerance: Duration::from_mins(5),
            type_: Template::parse("t").unwrap(),
            id: None,
            subject: None,
            source: Template::parse("/s").unwrap(),
            attributes: Vec::new(),
            redirect: None,
        }
    }

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        all.iter().map(header).collect()
    }

    /// Whether it is taken; a refusal is a 401 that tells nothing.
    fn is_taken(hook: &Hook, all: &[(&'static str, &str)], body: &[u8], now: i64) -> bool {
        match check(
            hook,
            &keys(hook).into_iter().map(Result::unwrap).collect::<Vec<_>>(),
            &headers(all),
            body,
            EventTime::from_micros(now * 1_000_000),
        ) {
            Ok(()) => true,
            Err(problem) => {
                assert_eq!(problem.into_response().status(), 401);
                false
            }
        }
    }

    #[test]
    fn the_published_examples_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        // GitHub's documentation.
        let github = hook(Verify::Github, &folder, &["It's a Secret to Everybody"]);
        let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert!(is_taken(&github, &[("x-hub-signature-256", signature)], b"Hello, World!", 0));
        assert!(!is_taken(&github, &[("x-hub-signature-256", signature)], b"Hello, World", 0));
        for wrong in ["", "sha256=", &signature[7..], &signature[..70], &signature.replace("sha256", "sha1")] {
            assert!(!is_taken(&github, &[("x-hub-signature-256", wrong)], b"Hello, World!", 0), "{wrong}");
        }
        assert!(!is_taken(&github, &[], b"Hello, World!", 0));
        // Slack's documentation.
        let slack = hook(Verify::Slack, &folder, &["8f742231b10e8888abcd99yyyzzz85a5"]);
        let body = b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
        let all = [
            ("x-slack-request-timestamp", "1531420618"),
            ("x-slack-signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
        ];
        assert!(is_taken(&slack, &all, body, 1_531_420_618));
        assert!(is_taken(&slack, &all, body, 1_531_420_618 + 300));
        assert!(!is_taken(&slack, &all, body, 1_531_420_618 + 301), "a replay");
        assert!(!is_taken(&slack, &all, body, 1_531_420_618 - 301), "from the future");
        // Standard Webhooks, the test of its libraries.
        let standard = hook(Verify::Standard, &folder, &["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]);
        let all = [
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", "v1,b3RoZXI= v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v2,x"),
        ];
        assert!(is_taken(&standard, &all, br#"{"test": 2432232314}"#, 1_614_265_330));
        assert!(!is_taken(&standard, &all, br#"{"test": 2432232315}"#, 1_614_265_330));
        assert!(!is_taken(&standard, &all[..2], br#"{"test": 2432232314}"#, 1_614_265_330));
    }

    /// As the sender would sign.
    fn sign(algorithm: hmac::Algorithm, secret: &str, content: &str) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(algorithm, secret.as_bytes()), content.as_bytes()).as_ref().to_vec()
    }

    fn to_hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn each_live_secret_is_good() {
        let folder = tempfile::tempdir().unwrap();
        let stripe = hook(Verify::Stripe, &folder, &["new", "old"]);
        let of = |secret| to_hex(&sign(hmac::HMAC_SHA256, secret, "1000.{}"));
        for (value, wanted) in [
            (format!("t=1000,v1={},v0=abc", of("new")), true),
            (format!("t=1000,v1={},v1={}", of("other"), of("old")), true),
            (format!("t=1000,v1={}", of("other")), false),
            (format!("t=1001,v1={}", of("new")), false),
            (format!("v1={}", of("new")), false),
            (format!("t=1000,v0={}", of("new")), false),
            ("t=1000".to_owned(), false),
        ] {
            assert_eq!(is_taken(&stripe, &[("stripe-signature", &value)], b"{}", 1_000), wanted, "{value}");
        }
    }

    #[test]
    fn other_services_are_described() {
        let folder = tempfile::tempdir().unwrap();
        let scheme = |encoding, prefix: &str, is_sha1, timestamp_header: Option<&str>| {
            Verify::Hmac(HmacScheme {
                header: "x-signature".to_owned(),
                encoding,
                prefix: prefix.to_owned(),
                is_sha1,
                timestamp_header: timestamp_header.map(str::to_owned),
            })
        };
        let base64 = hook(scheme(HmacEncoding::Base64, "", false, None), &folder, &["k"]);
        let good = STANDARD.encode(sign(hmac::HMAC_SHA256, "k", "b"));
        assert!(is_taken(&base64, &[("x-signature", &good)], b"b", 0));
        let sha1 = hook(scheme(HmacEncoding::Hex, "sha1=", true, None), &folder, &["k"]);
        let signature = format!("sha1={}", to_hex(&sign(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, "k", "b")));
        assert!(is_taken(&sha1, &[("x-signature", &signature)], b"b", 0));
        let timed = hook(scheme(HmacEncoding::Hex, "", false, Some("x-time")), &folder, &["k"]);
        let signature = to_hex(&sign(hmac::HMAC_SHA256, "k", "1000.b"));
        assert!(is_taken(&timed, &[("x-signature", &signature), ("x-time", "1000")], b"b", 1_000));
        assert!(!is_taken(&timed, &[("x-signature", &signature), ("x-time", "1000")], b"b", 2_000));
        assert!(!is_taken(&timed, &[("x-signature", &signature)], b"b", 1_000));
        assert!(is_taken(&hook(Verify::None, &folder, &[]), &[], b"anything", 0));
    }
}
