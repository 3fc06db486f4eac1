//! What addresses of directories and of buckets have in common.

use percent_encoding::percent_decode_str;

use super::ConfigDetail;

/// What was wrong with an address, and what decides the cure.
pub(super) type Problem = (String, Option<ConfigDetail>);

/// The bytes that `%41%42` encodes; none for a broken escape or a NUL.
pub(super) fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    // The decoder leaves a broken escape as it is.
    let is_escape = |rest: &str| rest.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    let bytes: Vec<u8> = text.split('%').skip(1).all(is_escape).then(|| percent_decode_str(text).collect())?;
    (!bytes.contains(&0)).then_some(bytes)
}

/// The URL of a database without its password; any other text as it is.
pub fn without_password(url: &str) -> String {
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return url.to_owned();
    }
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
    // A password that was not encoded may itself hold '/', '@' and ':'.
    let place = match place.rsplit_once('@') {
        Some((who, at)) => format!("{}@{at}", who.split(':').next().unwrap_or_default()),
        None => place.to_owned(),
    };
    let kept = query.map(|query| {
        let kept: Vec<&str> = query.split('&').filter(|parameter| !parameter.starts_with("password=")).collect();
        kept.join("&")
    });
    match kept.filter(|kept| !kept.is_empty()) {
        Some(kept) => format!("{scheme}://{place}?{kept}"),
        None => format!("{scheme}://{place}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("postgres://u:p@h/d?schema=x", "postgres://u@h/d?schema=x"),
            ("postgres://u:p@/w:x@h/d", "postgres://u@h/d"),
            ("postgres://u@h/d?password=p&schema=x", "postgres://u@h/d?schema=x"),
            ("postgres://h/d?password=p", "postgres://h/d"),
            ("postgres:///d", "postgres:///d"),
            ("s3://a:b@c/d", "s3://a:b@c/d"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
