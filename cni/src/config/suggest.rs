//! "Did you mean …?" for what was mistyped.

/// The known word that is nearest to what was typed, or `None` when none is near enough to be meant.
///
/// Case, `_` and `-` do not count, so that `rangeStart` is `range_start` exactly.
///
/// ```
/// use whereabouts::config::nearest;
///
/// assert_eq!(nearest("rangeStart", ["range", "range_start"]), Some("range_start"));
/// assert_eq!(nearest("colour", ["range", "range_start"]), None);
/// ```
#[must_use]
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A key of a kilobyte is nobody's typing error, and comparing takes the product of both lengths.
    if typed.len() > 64 {
        return None;
    }
    let typed = plain(typed);
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&typed, &plain(word)), word))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, word)| *distance <= (word.len() / 4).max(1))
        .map(|(_, word)| word)
}

fn plain(word: &str) -> String {
    word.chars().filter(|letter| !matches!(letter, '_' | '-')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        let known = ["range", "range_start", "range_end", "exclude", "gateway"];
        for (typed, expected) in [
            ("rangeStart", Some("range_start")),
            ("range-end", Some("range_end")),
            ("excludes", Some("exclude")),
            ("gatway", Some("gateway")),
            ("rnage", Some("range")),
            ("subnet", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, known), expected, "{typed}");
        }
        assert_eq!(nearest(&"r".repeat(100_000), known), None);
    }
}
