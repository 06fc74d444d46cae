//! Text in the form in which it is searched. Databases fold ASCII only, or as their locale has it, so it is done here,
//! the same for both. Called by `store` for titles and for what is looked for in them.

use unicode_normalization::UnicodeNormalization;

/// Makes texts equal that differ in case or in how their characters are encoded: `ÉCOLE` with its accent as a character of
/// its own, and `école`. Accents themselves count.
///
/// It is Unicode's NFKC with upper case and then lower case, character by character, in place of its case folding: `ß` is
/// found as `SS`, and either `σ` as the other. Done twice, as changing the case of what is normalised may need it again.
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
    fn what_people_take_for_the_same_is_the_same() {
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
        fn what_is_folded_stays_as_it_is(text in any::<String>()) {
            prop_assert_eq!(fold(&fold(&text)), fold(&text));
        }
    }
}
