//! The `Range` request header (RFC 9110, 14.2): one range of bytes. Pure.

use std::ops::Range;

/// What a `Range` header requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RequestedRange {
    /// The whole file: there is no header, or one that a server may ignore (another unit, several ranges, malformed).
    Whole,
    /// These bytes, never empty.
    Part(Range<u64>),
    /// A range outside the file: 416.
    Unsatisfiable,
}

/// Parses a `Range` header for a file of `size` bytes.
pub(super) fn parse(header: Option<&str>, size: u64) -> RequestedRange {
    let Some(header) = header else { return RequestedRange::Whole };
    match first_and_last(header) {
        // Several ranges would need a multipart answer, which no player asks for; the whole file is a valid answer too.
        None => RequestedRange::Whole,
        Some(spec) => resolve(spec, size),
    }
}

/// The first and last byte as written: `5-9`, `5-`, or `-5` for the last five bytes.
fn first_and_last(header: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, set) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    let number = |text: &str| -> Option<Option<u64>> {
        match text {
            "" => Some(None),
            // A number that doesn't fit is past any end.
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

fn resolve((first, last): (Option<u64>, Option<u64>), size: u64) -> RequestedRange {
    let range = match (first, last) {
        (Some(first), last) => first..last.map_or(size, |last| last.saturating_add(1).min(size)),
        (None, suffix) => size.saturating_sub(suffix.unwrap_or(0))..size,
    };
    if range.is_empty() { RequestedRange::Unsatisfiable } else { RequestedRange::Part(range) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_forms_of_the_standard() {
        for (header, size, wanted) in [
            (Some("bytes=0-499"), 1000, RequestedRange::Part(0..500)),
            (Some("bytes=500-"), 1000, RequestedRange::Part(500..1000)),
            (Some("bytes=-200"), 1000, RequestedRange::Part(800..1000)),
            (Some("bytes=-2000"), 1000, RequestedRange::Part(0..1000)),
            (Some("bytes=0-0"), 1, RequestedRange::Part(0..1)),
            (Some("Bytes = 1-2"), 9, RequestedRange::Part(1..3)),
            (Some("bytes=990-5000"), 1000, RequestedRange::Part(990..1000)),
            (Some("bytes=0-99999999999999999999999"), 10, RequestedRange::Part(0..10)),
            (Some("bytes=1000-"), 1000, RequestedRange::Unsatisfiable),
            (Some("bytes=-0"), 1000, RequestedRange::Unsatisfiable),
            (Some("bytes=0-"), 0, RequestedRange::Unsatisfiable),
            (None, 5, RequestedRange::Whole),
            (Some("bytes=0-1,5-6"), 1000, RequestedRange::Whole),
            (Some("bytes=5-1"), 1000, RequestedRange::Whole),
            (Some("bytes=-"), 1000, RequestedRange::Whole),
            (Some("bytes=a-b"), 1000, RequestedRange::Whole),
            (Some("items=0-1"), 1000, RequestedRange::Whole),
            (Some("bytes"), 1000, RequestedRange::Whole),
        ] {
            assert_eq!(parse(header, size), wanted, "{header:?} of {size}");
        }
    }

    proptest! {
        #[test]
        fn a_range_is_always_inside_the_file_and_never_empty(header in "(bytes=)?[-0-9, ]{0,24}", size in 0u64..5000) {
            if let RequestedRange::Part(range) = parse(Some(&header), size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
