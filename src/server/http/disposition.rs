//! `Content-Disposition`, both ways: the names of uploaded files as browsers and programs write them, and the names of
//! downloads. Pure. Used by `upload`, `transcript` and `audio`.

use crate::model::text::percent_encode;
use axum::http::HeaderValue;
use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};
use percent_encoding::percent_decode;

/// What the head of a form's part says of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PartNames {
    /// The name of the field.
    pub(super) name: String,
    /// The name of the file; none if the part isn't a file.
    pub(super) file_name: Option<String>,
}

/// Parses the `Content-Disposition` of a form's part.
pub(super) fn parse(header: Option<&HeaderValue>) -> PartNames {
    let mut names = PartNames::default();
    let mut extended = None;
    let bytes = header.map(HeaderValue::as_bytes).unwrap_or_default();
    // What comes before the first semicolon is the type, `form-data`.
    let mut rest = after(bytes, b';').unwrap_or_default();
    while !rest.is_empty() {
        let Some(equals) = rest.iter().position(|b| *b == b'=') else { break };
        let key = rest[..equals].trim_ascii().to_ascii_lowercase();
        let (value, next) = value(rest[equals + 1..].trim_ascii_start());
        match key.as_slice() {
            b"name" => names.name = decode(&value),
            b"filename" => names.file_name = Some(decode(&value)),
            b"filename*" => extended = extended_value(&value),
            _ => {}
        }
        rest = next;
    }
    names.file_name = extended.or(names.file_name);
    names
}

fn after(bytes: &[u8], separator: u8) -> Option<&[u8]> {
    bytes.iter().position(|b| *b == separator).map(|at| &bytes[at + 1..])
}

/// Reads a value, quoted or not, and returns what follows it.
fn value(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let Some(quoted) = bytes.strip_prefix(b"\"") else {
        let end = bytes.iter().position(|b| *b == b';').unwrap_or(bytes.len());
        return (bytes[..end].trim_ascii_end().to_vec(), after(bytes, b';').unwrap_or_default());
    };
    let end = end_of_quoted(quoted);
    let rest = quoted.get(end + 1..).and_then(|rest| after(rest, b';')).unwrap_or_default();
    (unescape(&quoted[..end.min(quoted.len())]), rest)
}

/// Finds the closing quote. A quote after a backslash is part of the value, unless it is the last one: browsers don't
/// escape backslashes, and a name may end with one.
fn end_of_quoted(quoted: &[u8]) -> usize {
    let mut last = quoted.len();
    let mut at = 0;
    while at < quoted.len() {
        match quoted[at] {
            b'\\' => {
                if quoted.get(at + 1) == Some(&b'"') {
                    last = at + 1;
                }
                at += 2;
            }
            b'"' => return at,
            _ => at += 1,
        }
    }
    last
}

/// Undoes the escapes of browsers, `%22`, `%0D` and `%0A` (WHATWG's HTML, "multipart/form-data encoding algorithm"), and
/// those of programs, which put a backslash before quotes and backslashes. A sender that does so does it with each
/// backslash; otherwise backslashes are part of the name.
fn unescape(value: &[u8]) -> Vec<u8> {
    let has_escapes = escapes_backslashes(value);
    let mut plain = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((first, others)) = rest.split_first() {
        rest = match (first, others) {
            (b'\\', [escaped, others @ ..]) if has_escapes => {
                plain.push(*escaped);
                others
            }
            (b'%', [b'2', b'2', others @ ..]) => {
                plain.push(b'"');
                others
            }
            (b'%', [b'0', b'D' | b'd', others @ ..]) => {
                plain.push(b'\r');
                others
            }
            (b'%', [b'0', b'A' | b'a', others @ ..]) => {
                plain.push(b'\n');
                others
            }
            _ => {
                plain.push(*first);
                others
            }
        };
    }
    plain
}

/// Whether each backslash stands before another or before a quote.
fn escapes_backslashes(value: &[u8]) -> bool {
    let mut rest = value;
    while let Some(at) = rest.iter().position(|b| *b == b'\\') {
        match rest.get(at + 1) {
            Some(b'\\' | b'"') => rest = &rest[at + 2..],
            _ => return false,
        }
    }
    true
}

/// Decodes UTF-8, or else the encoding that old programs mean: Latin-1 as the web knows it.
fn decode(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned(),
    }
}

/// Decodes the value of `filename*`: charset, language and percent-encoded text with `'` between (RFC 8187, 3.2); none if
/// it isn't valid.
fn extended_value(value: &[u8]) -> Option<String> {
    let (charset, rest) = split(value)?;
    let (_, text) = split(rest)?;
    let charset = Encoding::for_label(charset).filter(|charset| *charset == UTF_8 || *charset == WINDOWS_1252)?;
    let bytes: Vec<u8> = percent_decode(text).collect();
    let (decoded, has_errors) = charset.decode_without_bom_handling(&bytes);
    (!has_errors).then(|| decoded.into_owned())
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|b| *b == b'\'')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// A `Content-Disposition` with any file name (RFC 6266): an ASCII form for old clients, and the real one (RFC 8187).
pub(super) fn disposition(kind: &str, name: &str) -> HeaderValue {
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '/' | '%') || c == ' ' { c } else { '_' })
        .collect();
    let encoded = percent_encode(name);
    HeaderValue::try_from(format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{encoded}"))
        .expect("only printable ASCII is left")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file_name(value: impl AsRef<[u8]>) -> Option<String> {
        let header = [b"form-data; name=\"file\"; ", value.as_ref()].concat();
        let names = parse(Some(&HeaderValue::from_bytes(&header).unwrap()));
        assert_eq!(names.name, "file");
        names.file_name
    }

    #[test]
    fn names_of_files_are_read_as_they_were() {
        for (value, name) in [
            // Browsers.
            (r#"filename="talk.mp3""#, "talk.mp3"),
            (r#"filename="Interview %22Anna%22 & Bob.mp3""#, r#"Interview "Anna" & Bob.mp3"#),
            (r#"filename="a%0D%0Ab.mp3""#, "a\r\nb.mp3"),
            (r#"filename="100% %41 50%25.mp3""#, "100% %41 50%25.mp3"),
            (r#"filename="AC\DC.mp3""#, r"AC\DC.mp3"),
            (r#"filename="end\""#, r"end\"),
            (r#"filename="\\server\talks\a.mp3""#, r"\\server\talks\a.mp3"),
            (r#"filename="naïve – 日本語.mp3""#, "naïve – 日本語.mp3"),
            (r#"filename="a;b=c; name=d.mp3""#, "a;b=c; name=d.mp3"),
            (r#"filename="""#, ""),
            // Programs.
            (r#"filename="Interview \"Anna\".mp3""#, r#"Interview "Anna".mp3"#),
            (r#"filename="AC\\DC.mp3""#, r"AC\DC.mp3"),
            (r#"filename="a\"; b.mp3"; x=y"#, r#"a"; b.mp3"#),
            ("filename=talk.mp3", "talk.mp3"),
            ("filename=talk one.mp3 ; x=y", "talk one.mp3"),
            (r#"FileName = "talk.mp3""#, "talk.mp3"),
            (r#"filename="talk.mp3"#, "talk.mp3"),
            // RFC 8187.
            ("filename*=UTF-8''na%C3%AFve%20%22talk%22.mp3", "naïve \"talk\".mp3"),
            ("filename*=utf-8'en'%e2%82%ac%20rates.mp3", "€ rates.mp3"),
            ("filename*=iso-8859-1''na%EFve.mp3", "naïve.mp3"),
            (r#"filename="na_ve.mp3"; filename*=UTF-8''na%C3%AFve.mp3"#, "naïve.mp3"),
            (r#"filename*=UTF-8''na%C3%AFve.mp3; filename="na_ve.mp3""#, "naïve.mp3"),
            // Not valid, so the other one counts.
            (r#"filename="a.mp3"; filename*=UTF-8''%C3"#, "a.mp3"),
            (r#"filename="a.mp3"; filename*=UTF-7''b.mp3"#, "a.mp3"),
            (r#"filename="a.mp3"; filename*=b.mp3"#, "a.mp3"),
        ] {
            assert_eq!(file_name(value).as_deref(), Some(name), "{value}");
        }
        assert_eq!(file_name(b"filename=\"na\xefve \x80.mp3\"").as_deref(), Some("naïve €.mp3"));
        assert_eq!(file_name("x=y"), None);
        assert_eq!(parse(None), PartNames::default());
    }

    #[test]
    fn any_file_name_makes_a_valid_header() {
        assert_eq!(
            disposition("attachment", "naïve \"talk\"\r\n.srt"),
            "attachment; filename=\"na_ve _talk___.srt\"; filename*=UTF-8''na%C3%AFve%20%22talk%22%0D%0A.srt"
        );
    }

    proptest! {
        #[test]
        fn a_download_has_the_name_that_was_uploaded(name in "\\PC{1,40}") {
            prop_assert_eq!(parse(Some(&disposition("form-data", &name))).file_name, Some(name.clone()));
            // As a browser writes it, unless the name looks like escapes.
            let escaped = name.replace('"', "%22");
            let header = HeaderValue::from_bytes(format!("form-data; filename=\"{escaped}\"").as_bytes()).unwrap();
            let is_plain = !name.contains(r"\\") && !name.contains('%') && !name.contains("\\\"");
            if is_plain {
                prop_assert_eq!(parse(Some(&header)).file_name, Some(name));
            }
        }

        #[test]
        fn any_header_is_read(bytes in proptest::collection::vec(0x20u8..=0xff, 0..60)) {
            if let Ok(header) = HeaderValue::from_bytes(&[b"form-data; ", &bytes[..]].concat()) {
                parse(Some(&header));
            }
        }
    }
}
