//! Checks the language of a recording. Called by `sessions` and `outside`.

use super::error::Error;

/// The checked language tag; none if it is empty.
///
/// # Errors
/// If it isn't a language tag.
pub(super) fn language(tag: Option<&str>) -> Result<Option<String>, Error> {
    match tag.map(str::trim).filter(|tag| !tag.is_empty()) {
        Some(tag) if !is_language_tag(tag) => Err(Error::BadRequest(
            "The language must be a short tag such as 'en' or 'pt-BR' (BCP 47), or be left out.".to_owned(),
        )),
        tag => Ok(tag.map(str::to_owned)),
    }
}

/// Whether a text has the form of a language tag: RFC 5646, 2.1, with 35 characters at most as its 4.4.1 advises. A tag
/// begins with a letter, so no program takes it for an option.
fn is_language_tag(tag: &str) -> bool {
    let mut parts = tag.split('-');
    let language = parts.next().unwrap_or_default();
    tag.len() <= 35
        && (2..=8).contains(&language.len())
        && language.bytes().all(|b| b.is_ascii_alphabetic())
        && parts.all(|part| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_language_tags_are_accepted() {
        for tag in ["en", "pt-BR", "zh-Hant-TW", "sl-rozaj-biske-1994", "en-a-bbb-x-a-ccc"] {
            assert_eq!(language(Some(tag)).unwrap().as_deref(), Some(tag));
        }
        for tag in ["--help", "-", "e", "en-", "-en", "en--US", "en_US", "e1", "overlongxx", "en-overlongxx", "en US"] {
            assert!(language(Some(tag)).is_err(), "{tag}");
        }
        assert_eq!(language(Some(" ")).unwrap(), None);
    }
}
