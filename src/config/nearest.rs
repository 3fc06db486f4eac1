//! "Did you mean": finds the known word nearest to a given one.

/// The candidate nearest to `word`, if one is near enough.
///
/// Letter case, and `-` for `_`, cost nothing; otherwise a third of the letters may be wrong,
/// swapped or missing.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = folded(word);
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word, &folded(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// ` (did you mean 'mail'?)`, to append to an error; empty if no candidate is near.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates).map(|near| format!(" (did you mean '{}'?)", near.escape_debug())).unwrap_or_default()
}

fn folded(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_intended_name() {
        let known = ["concurrency", "command", "cwd", "max_attempts", "mail", "min"];
        let table = [
            ("concurency", Some("concurrency")),
            ("mial", Some("mail")),
            ("MAIL", Some("mail")),
            ("max-attempts", Some("max_attempts")),
            ("max_attempt", Some("max_attempts")),
            ("comand", Some("command")),
            ("thumbnails", None),
            ("x", None),
            ("", None),
        ];
        for (word, expected) in table {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(did_you_mean("mial", known), " (did you mean 'mail'?)");
        assert_eq!(did_you_mean("thumbnails", known), "");
    }

    #[test]
    fn takes_the_nearest_of_several() {
        assert_eq!(nearest("mails", ["males", "mail"]), Some("mail"));
    }
}
