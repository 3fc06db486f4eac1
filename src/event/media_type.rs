//! Media types (RFC 9110, 8.3.1), as far as they say how data is carried.

/// A media type without its parameters, in lower case.
pub fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether the subtype is this one, or ends with `+` and it, whatever the parameters.
fn has_subtype(media_type: &str, wanted: &str) -> bool {
    let essence = essence(media_type);
    let subtype = essence.split_once('/').map(|(_, subtype)| subtype);
    subtype.is_some_and(|subtype| subtype.rsplit('+').next() == Some(wanted))
}

/// Whether it is that of JSON: the subtype is `json`, or ends with `+json`.
pub fn is_json(media_type: &str) -> bool {
    has_subtype(media_type, "json")
}

/// Whether it is that of XML, in the same way.
pub fn is_xml(media_type: &str) -> bool {
    has_subtype(media_type, "xml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subtype_tells() {
        for json in ["application/json", "TEXT/JSON", "application/vnd.x+json; v=1", " application/json;charset=utf-8"]
        {
            assert!(is_json(json) && !is_xml(json), "{json}");
        }
        for other in ["json", "application/jsonl", "application/json+xml", "text/plain", ""] {
            assert!(!is_json(other), "{other}");
        }
        assert!(is_xml("text/xml") && is_xml("image/svg+xml"));
        assert_eq!(essence("Text/Plain ; charset=x"), "text/plain");
    }
}
