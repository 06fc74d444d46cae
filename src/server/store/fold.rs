//! Case folding for the search in titles. Databases fold only ASCII, or according to their locale, so Hark does it
//! here, the same for both. Called by `store` for titles and for the text to search for.

use unicode_normalization::UnicodeNormalization;

/// Maps texts to the same text if they differ only in case or in how their characters are encoded: `ÉCOLE` with its
/// accent as a separate character, and `école`. Accents themselves count.
///
/// Applies Unicode's NFKC, then upper case and lower case character by character instead of Unicode's case folding, so
/// that `ß` matches `SS`, and either `σ` the other. Runs twice, because text whose case has changed may need
/// normalising again.
pub(super) fn fold(text: &str) -> String {
    let once =
        |text: &str| text.nfkc().flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfkc().collect::<String>();
    once(&once(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_that_differ_only_in_case_or_encoding_fold_to_the_same() {
        for (one, other) in [
            ("Über uns", "ÜBER UNS"),
            ("École", "E\u{301}cole"),
            ("Straße", "STRASSE"),
            ("ΟΔΟΣ", "οδος"),
            ("Привет", "ПРИВЕТ"),
            ("ﬁle", "FILE"),
            ("Ｈａｒｋ", "hark"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} and {other}");
        }
        assert!(fold("ΟΔΟΣΤΡΩΤΗΡΑΣ").contains(&fold("ΟΔΟΣ")), "a beginning is found in the whole");
        assert_ne!(fold("Ecole"), fold("École"));
    }

    proptest! {
        #[test]
        fn folding_twice_changes_nothing(text in any::<String>()) {
            prop_assert_eq!(fold(&fold(&text)), fold(&text));
        }
    }
}
