//! The signature of a request: Standard Webhooks 1.0.0 (<https://www.standardwebhooks.com>), symmetric.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::hmac;

/// What a secret may begin with.
const PREFIX: &str = "whsec_";

/// The fewest bytes of a secret.
const LEAST_BYTES: usize = 24;

/// A secret that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("is not base64: make one with: openssl rand -base64 32")]
    NotBase64,
    #[error("has fewer than 24 bytes: make one with: openssl rand -base64 32")]
    TooShort,
}

/// The key that a secret's text stands for: base64, perhaps after `whsec_`.
pub(crate) fn key(secret: &str) -> Result<hmac::Key, KeyError> {
    let secret = secret.trim();
    let text = secret.strip_prefix(PREFIX).unwrap_or(secret);
    let bytes = STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).map_err(|_| KeyError::NotBase64)?;
    if bytes.len() < LEAST_BYTES {
        return Err(KeyError::TooShort);
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

/// The value of `webhook-signature`: one signature for each key, over what is sent.
pub(super) fn sign(keys: &[hmac::Key], id: &str, timestamp: i64, body: &[u8]) -> String {
    let signature = |key: &hmac::Key| {
        let mut signing = hmac::Context::with_key(key);
        signing.update(format!("{id}.{timestamp}.").as_bytes());
        signing.update(body);
        format!("v1,{}", STANDARD.encode(signing.sign()))
    };
    keys.iter().map(signature).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_example_is_signed_so() {
        // https://github.com/standard-webhooks/standard-webhooks, the test of its libraries.
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = br#"{"test": 2432232314}"#;
        let wanted = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let signed = |secret| sign(&[key(secret).unwrap()], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed(secret), wanted);
        assert_eq!(signed("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"), wanted, "without the prefix");
    }

    #[test]
    fn each_live_secret_signs() {
        let keys = ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]
            .map(|text| key(text).unwrap());
        let both = sign(&keys, "id", 1, b"body");
        let alone: Vec<String> = keys.iter().map(|key| sign(std::slice::from_ref(key), "id", 1, b"body")).collect();
        assert_eq!(both, alone.join(" "));
    }

    #[test]
    fn other_texts_are_no_secrets() {
        assert_eq!(key("whsec_not base64").err(), Some(KeyError::NotBase64));
        assert_eq!(key("").err(), Some(KeyError::TooShort));
        assert_eq!(key("c2hvcnQ=").err(), Some(KeyError::TooShort));
    }
}
