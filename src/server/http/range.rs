//! The `Range` request header (RFC 9110, 14.2): one range of bytes. Pure.

use std::ops::Range;

/// What a `Range` header asks of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: there is no header, or one that a server may ignore (another unit, several ranges, malformed).
    Whole,
    /// These bytes, never empty.
    Part(Range<u64>),
    /// Bytes that the file doesn't have: 416.
    Outside,
}

/// Reads a `Range` header for a file of `size` bytes.
pub(super) fn parse(header: Option<&str>, size: u64) -> Wanted {
    let Some(header) = header else { return Wanted::Whole };
    match spec(header) {
        // Several ranges would need a multipart answer, which no player asks for; the whole file is as right.
        None => Wanted::Whole,
        Some(spec) => resolve(spec, size),
    }
}

/// First and last byte as written: `5-9`, `5-`, or `-5` for the last five.
fn spec(header: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, set) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    let number = |text: &str| -> Option<Option<u64>> {
        match text {
            "" => Some(None),
            // More digits than fit is a number past any end.
            _ if text.bytes().all(|b| b.is_ascii_digit()) => Some(Some(text.parse().unwrap_or(u64::MAX))),
            _ => None,
        }
    };
    let (first, last) = (number(first.trim())?, number(last.trim())?);
    match (first, last) {
        (None, None) => None,
        (Some(first), Some(last)) if last < first => None,
        _ => Some((first, last)),
    }
}

fn resolve((first, last): (Option<u64>, Option<u64>), size: u64) -> Wanted {
    let range = match (first, last) {
        (Some(first), last) => first..last.map_or(size, |last| last.saturating_add(1).min(size)),
        (None, suffix) => size.saturating_sub(suffix.unwrap_or(0))..size,
    };
    if range.is_empty() { Wanted::Outside } else { Wanted::Part(range) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_forms_of_the_standard() {
        for (header, size, wanted) in [
            (Some("bytes=0-499"), 1000, Wanted::Part(0..500)),
            (Some("bytes=500-"), 1000, Wanted::Part(500..1000)),
            (Some("bytes=-200"), 1000, Wanted::Part(800..1000)),
            (Some("bytes=-2000"), 1000, Wanted::Part(0..1000)),
            (Some("bytes=0-0"), 1, Wanted::Part(0..1)),
            (Some("Bytes = 1-2"), 9, Wanted::Part(1..3)),
            (Some("bytes=990-5000"), 1000, Wanted::Part(990..1000)),
            (Some("bytes=0-99999999999999999999999"), 10, Wanted::Part(0..10)),
            (Some("bytes=1000-"), 1000, Wanted::Outside),
            (Some("bytes=-0"), 1000, Wanted::Outside),
            (Some("bytes=0-"), 0, Wanted::Outside),
            (None, 5, Wanted::Whole),
            (Some("bytes=0-1,5-6"), 1000, Wanted::Whole),
            (Some("bytes=5-1"), 1000, Wanted::Whole),
            (Some("bytes=-"), 1000, Wanted::Whole),
            (Some("bytes=a-b"), 1000, Wanted::Whole),
            (Some("items=0-1"), 1000, Wanted::Whole),
            (Some("bytes"), 1000, Wanted::Whole),
        ] {
            assert_eq!(parse(header, size), wanted, "{header:?} of {size}");
        }
    }

    proptest! {
        #[test]
        fn a_part_is_always_inside_and_never_empty(header in "(bytes=)?[-0-9, ]{0,24}", size in 0u64..5000) {
            if let Wanted::Part(range) = parse(Some(&header), size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
