//! Whisper's codes of languages and BCP 47 tags. Whisper has its own for some languages, and none for regions and
//! scripts. Pure. Called by `child`.

/// Tags of languages for which Whisper has another code, each with that code.
const OTHER_CODES: [(&str, &str); 11] = [
    ("nb", "no"),
    ("iw", "he"),
    ("jv", "jw"),
    ("fil", "tl"),
    ("in", "id"),
    ("ji", "yi"),
    ("mo", "ro"),
    ("cmn", "zh"),
    ("arb", "ar"),
    ("swh", "sw"),
    ("zsm", "ms"),
];
/// The number of languages of the models before large-v3, which added Cantonese.
const WITHOUT_CANTONESE: i32 = 99;

/// Returns Whisper's code for a BCP 47 tag, if a model with so many languages knows the language.
pub(super) fn code(tag: &str, languages: i32) -> Option<&'static str> {
    let primary = tag.split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase();
    if primary.is_empty() || !primary.bytes().all(|b| b.is_ascii_alphabetic()) {
        return None;
    }
    let code = OTHER_CODES.iter().find(|(tag, _)| *tag == primary).map_or(primary.as_str(), |(_, code)| code);
    let code = if code == "yue" && languages <= WITHOUT_CANTONESE { "zh" } else { code };
    whisper_rs::get_lang_str(whisper_rs::get_lang_id(code)?)
}

/// Returns the BCP 47 tag of one of Whisper's codes.
pub(super) fn tag(code: &str) -> &str {
    match code {
        "jw" => "jv",
        other => other,
    }
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
