//! The languages of a model, and what Whisper's codes can't express: regions and scripts. Pure. Called by `child`.

use crate::server::speech::languages;

/// The number of languages of the models before large-v3, which added Cantonese.
const WITHOUT_CANTONESE: i32 = 99;

/// Returns Whisper's code for a BCP 47 tag, if a model that knows so many languages knows this one.
pub(super) fn code(tag: &str, known: i32) -> Option<&'static str> {
    let code = languages::code(tag);
    // Anything else would be looked up as a C string.
    if code.is_empty() || !code.bytes().all(|b| b.is_ascii_alphabetic()) {
        return None;
    }
    let code = if code == "yue" && known <= WITHOUT_CANTONESE { "zh" } else { &code };
    whisper_rs::get_lang_str(whisper_rs::get_lang_id(code)?)
}

/// Returns the BCP 47 tag of one of Whisper's codes.
pub(super) fn tag(code: &str) -> &str {
    languages::base(code).unwrap_or(code)
}

/// Returns the beginning of a prompt by which Whisper writes a language in the script of the tag. It knows only one
/// Chinese and mixes its scripts.
pub(super) fn script_prompt(tag: &str) -> Option<&'static str> {
    let mut parts = tag.split(['-', '_']).map(str::to_ascii_lowercase);
    let primary = parts.next()?;
    if !["zh", "cmn", "yue"].contains(&primary.as_str()) {
        return None;
    }
    let parts: Vec<String> = parts.collect();
    let has = |subtags: &[&str]| parts.iter().any(|part| subtags.contains(&part.as_str()));
    if has(&["hant"]) || (!has(&["hans"]) && has(&["tw", "hk", "mo"])) {
        Some("以下是普通話的句子。")
    } else if has(&["hans", "cn", "sg"]) {
        Some("以下是普通话的句子。")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_become_codes() {
        for (tag, expected) in [
            ("en-US", "en"),
            ("DE", "de"),
            ("nb", "no"),
            ("nb-NO", "no"),
            ("no", "no"),
            ("nn", "nn"),
            ("zh-Hant", "zh"),
            ("zh_TW", "zh"),
            ("iw", "he"),
            ("he", "he"),
            ("jv", "jw"),
            ("jw", "jw"),
            ("fil", "tl"),
            ("tl", "tl"),
            ("pt-BR", "pt"),
            ("haw", "haw"),
        ] {
            assert_eq!(code(tag, 99), Some(expected), "{tag}");
        }
        assert_eq!((code("yue", 99), code("yue", 100)), (Some("zh"), Some("yue")));
        for unknown in ["tlh", "\0", "", "-", "e n"] {
            assert_eq!(code(unknown, 100), None, "{unknown}");
        }
        assert_eq!((tag("jw"), tag("de")), ("jv", "de"));
    }

    #[test]
    fn chinese_is_written_in_the_script_of_the_tag() {
        assert!(script_prompt("zh-Hant").is_some_and(|p| p.contains('話')));
        assert_eq!(script_prompt("zh-TW"), script_prompt("zh-Hant"));
        assert!(script_prompt("zh-Hans-TW").is_some_and(|p| p.contains('话')));
        assert_eq!((script_prompt("zh"), script_prompt("de-CN")), (None, None));
    }
}
