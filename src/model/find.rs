//! Finds a text in a line of a transcript. Pure; called by the feed, whose positions are
//! counted in UTF-16, and by the server.

/// The ranges in which a text has what is searched, in UTF-16 code units. Both are in lower case: the browser has tables for that,
/// which would be a large part of the app. It makes no difference how much white space is between words.
#[must_use]
pub fn matches(text: &str, wanted: &str) -> Vec<(u32, u32)> {
    let wanted: Vec<char> = wanted.split_whitespace().collect::<Vec<_>>().join(" ").chars().collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    // The characters, each with the range in which it stands; white space is one.
    let mut folded: Vec<(char, u32, u32)> = Vec::new();
    let mut at = 0;
    for c in text.chars() {
        let end = at + c.len_utf16() as u32;
        match folded.last_mut() {
            Some((' ', _, last)) if c.is_whitespace() => *last = end,
            _ => folded.push((if c.is_whitespace() { ' ' } else { c }, at, end)),
        }
        at = end;
    }
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(part) = folded.get(from..from + wanted.len()) {
        if part.iter().map(|(c, _, _)| c).eq(&wanted) {
            found.push((part[0].1, part[part.len() - 1].2));
            from += wanted.len();
        } else {
            from += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn white_space_makes_no_difference() {
        assert_eq!(matches("the old  gate, the gate", "gate"), [(9, 13), (19, 23)]);
        assert_eq!(matches("the old  gate", " old gate "), [(4, 13)]);
        assert_eq!(matches("😀 über 😀", "über"), [(3, 7)]);
        assert_eq!(matches("aaa", "aa"), [(0, 2)]);
        assert_eq!(matches("今日は", "日"), [(1, 2)]);
        assert_eq!(matches("a (b) *c*", "(b) *"), [(2, 7)]);
        for wanted in ["", " ", "x", "gates"] {
            assert_eq!(matches("the gate", wanted).len(), 0, "{wanted}");
        }
    }

    proptest! {
        #[test]
        fn ranges_lie_within_the_text_and_in_order(text in "\\PC{0,30}", wanted in "\\PC{0,3}") {
            let length = text.encode_utf16().count() as u32;
            let found = matches(&text, &wanted);
            prop_assert!(found.iter().all(|(from, to)| from < to && *to <= length));
            prop_assert!(found.windows(2).all(|pair| pair[0].1 <= pair[1].0));
            // What is there is found.
            let plain = !wanted.trim().is_empty() && wanted.split_whitespace().collect::<Vec<_>>().join(" ") == wanted;
            if plain {
                let longer = [text.as_str(), &wanted, &text].join(" ");
                prop_assert!(!matches(&longer, &wanted).is_empty());
            }
        }
    }
}
