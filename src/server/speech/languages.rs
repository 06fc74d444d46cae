//! The languages that engines know, by code and by name, and how a language tag is matched with them. Pure. The main table is
//! Whisper's, with the codes of BCP 47; used by the engines, by `sessions` for its checks, by `store` for the names
//! of languages that were found, and by the upload page's data.

use crate::model::DetectedLanguage;
use std::iter;

/// The languages that Whisper knows, by English name. A tag is Whisper's own code, unless it is in [`CODES`].
pub const WHISPER: [(&str, &str); 100] = [
    ("af", "Afrikaans"),
    ("sq", "Albanian"),
    ("am", "Amharic"),
    ("ar", "Arabic"),
    ("hy", "Armenian"),
    ("as", "Assamese"),
    ("az", "Azerbaijani"),
    ("ba", "Bashkir"),
    ("eu", "Basque"),
    ("be", "Belarusian"),
    ("bn", "Bengali"),
    ("bs", "Bosnian"),
    ("br", "Breton"),
    ("bg", "Bulgarian"),
    ("my", "Burmese"),
    ("yue", "Cantonese"),
    ("ca", "Catalan"),
    ("zh", "Chinese"),
    ("hr", "Croatian"),
    ("cs", "Czech"),
    ("da", "Danish"),
    ("nl", "Dutch"),
    ("en", "English"),
    ("et", "Estonian"),
    ("fo", "Faroese"),
    ("fi", "Finnish"),
    ("fr", "French"),
    ("gl", "Galician"),
    ("ka", "Georgian"),
    ("de", "German"),
    ("el", "Greek"),
    ("gu", "Gujarati"),
    ("ht", "Haitian Creole"),
    ("ha", "Hausa"),
    ("haw", "Hawaiian"),
    ("he", "Hebrew"),
    ("hi", "Hindi"),
    ("hu", "Hungarian"),
    ("is", "Icelandic"),
    ("id", "Indonesian"),
    ("it", "Italian"),
    ("ja", "Japanese"),
    ("jv", "Javanese"),
    ("kn", "Kannada"),
    ("kk", "Kazakh"),
    ("km", "Khmer"),
    ("ko", "Korean"),
    ("lo", "Lao"),
    ("la", "Latin"),
    ("lv", "Latvian"),
    ("ln", "Lingala"),
    ("lt", "Lithuanian"),
    ("lb", "Luxembourgish"),
    ("mk", "Macedonian"),
    ("mg", "Malagasy"),
    ("ms", "Malay"),
    ("ml", "Malayalam"),
    ("mt", "Maltese"),
    ("mi", "Maori"),
    ("mr", "Marathi"),
    ("mn", "Mongolian"),
    ("ne", "Nepali"),
    ("no", "Norwegian"),
    ("nn", "Norwegian Nynorsk"),
    ("oc", "Occitan"),
    ("ps", "Pashto"),
    ("fa", "Persian"),
    ("pl", "Polish"),
    ("pt", "Portuguese"),
    ("pa", "Punjabi"),
    ("ro", "Romanian"),
    ("ru", "Russian"),
    ("sa", "Sanskrit"),
    ("sr", "Serbian"),
    ("sn", "Shona"),
    ("sd", "Sindhi"),
    ("si", "Sinhala"),
    ("sk", "Slovak"),
    ("sl", "Slovenian"),
    ("so", "Somali"),
    ("es", "Spanish"),
    ("su", "Sundanese"),
    ("sw", "Swahili"),
    ("sv", "Swedish"),
    ("tl", "Tagalog"),
    ("tg", "Tajik"),
    ("ta", "Tamil"),
    ("tt", "Tatar"),
    ("te", "Telugu"),
    ("th", "Thai"),
    ("bo", "Tibetan"),
    ("tr", "Turkish"),
    ("tk", "Turkmen"),
    ("uk", "Ukrainian"),
    ("ur", "Urdu"),
    ("uz", "Uzbek"),
    ("vi", "Vietnamese"),
    ("cy", "Welsh"),
    ("yi", "Yiddish"),
    ("yo", "Yoruba"),
];

/// Languages that Whisper doesn't know, by tag: those that ISO 639-1 has, and a few of others. An engine that knows any language
/// may be told to hear them.
const OTHERS: [(&str, &str); 89] = [
    ("aa", "Afar"),
    ("ab", "Abkhazian"),
    ("ae", "Avestan"),
    ("ak", "Akan"),
    ("an", "Aragonese"),
    ("ast", "Asturian"),
    ("av", "Avaric"),
    ("ay", "Aymara"),
    ("bi", "Bislama"),
    ("bm", "Bambara"),
    ("ce", "Chechen"),
    ("ceb", "Cebuano"),
    ("ch", "Chamorro"),
    ("ckb", "Central Kurdish"),
    ("co", "Corsican"),
    ("cr", "Cree"),
    ("cu", "Church Slavonic"),
    ("cv", "Chuvash"),
    ("dv", "Divehi"),
    ("dz", "Dzongkha"),
    ("ee", "Ewe"),
    ("eo", "Esperanto"),
    ("ff", "Fulah"),
    ("fj", "Fijian"),
    ("fy", "Western Frisian"),
    ("ga", "Irish"),
    ("gd", "Scottish Gaelic"),
    ("gn", "Guarani"),
    ("gsw", "Swiss German"),
    ("gv", "Manx"),
    ("ho", "Hiri Motu"),
    ("hz", "Herero"),
    ("ia", "Interlingua"),
    ("ie", "Interlingue"),
    ("ig", "Igbo"),
    ("ii", "Sichuan Yi"),
    ("ik", "Inupiaq"),
    ("io", "Ido"),
    ("iu", "Inuktitut"),
    ("kab", "Kabyle"),
    ("kg", "Kongo"),
    ("ki", "Kikuyu"),
    ("kj", "Kuanyama"),
    ("kl", "Greenlandic"),
    ("kr", "Kanuri"),
    ("ks", "Kashmiri"),
    ("ku", "Kurdish"),
    ("kv", "Komi"),
    ("kw", "Cornish"),
    ("ky", "Kyrgyz"),
    ("lg", "Ganda"),
    ("li", "Limburgish"),
    ("lu", "Luba-Katanga"),
    ("mh", "Marshallese"),
    ("na", "Nauruan"),
    ("nd", "North Ndebele"),
    ("ng", "Ndonga"),
    ("nr", "South Ndebele"),
    ("nv", "Navajo"),
    ("ny", "Nyanja"),
    ("oj", "Ojibwe"),
    ("om", "Oromo"),
    ("or", "Odia"),
    ("os", "Ossetian"),
    ("pi", "Pali"),
    ("qu", "Quechua"),
    ("rm", "Romansh"),
    ("rn", "Rundi"),
    ("rw", "Kinyarwanda"),
    ("sc", "Sardinian"),
    ("se", "Northern Sami"),
    ("sg", "Sango"),
    ("sm", "Samoan"),
    ("ss", "Swati"),
    ("st", "Southern Sotho"),
    ("ti", "Tigrinya"),
    ("tn", "Tswana"),
    ("to", "Tongan"),
    ("ts", "Tsonga"),
    ("tw", "Twi"),
    ("ty", "Tahitian"),
    ("ug", "Uyghur"),
    ("ve", "Venda"),
    ("vo", "Volapük"),
    ("wa", "Walloon"),
    ("wo", "Wolof"),
    ("xh", "Xhosa"),
    ("za", "Zhuang"),
    ("zu", "Zulu"),
];

/// Tags whose code in Whisper's list is another one.
const CODES: [(&str, &str); 1] = [("jv", "jw")];

/// Other tags and codes of the same languages: what BCP 47 has replaced, three-letter codes, and languages that Whisper
/// has under a wider one.
const ALIASES: [(&str, &str); 24] = [
    ("arb", "ar"),
    ("cmn", "zh"),
    ("deu", "de"),
    ("eng", "en"),
    ("fil", "tl"),
    ("fra", "fr"),
    ("in", "id"),
    ("ita", "it"),
    ("iw", "he"),
    ("ji", "yi"),
    ("jpn", "ja"),
    ("jw", "jv"),
    ("kor", "ko"),
    ("mo", "ro"),
    ("nb", "no"),
    ("nld", "nl"),
    ("pol", "pl"),
    ("por", "pt"),
    ("rus", "ru"),
    ("spa", "es"),
    ("swh", "sw"),
    ("tur", "tr"),
    ("zho", "zh"),
    ("zsm", "ms"),
];

/// Other names of the same languages, as servers write them.
const NAMES: [(&str, &str); 13] = [
    ("castilian", "es"),
    ("flemish", "nl"),
    ("haitian", "ht"),
    ("letzeburgesch", "lb"),
    ("mandarin", "zh"),
    ("moldavian", "ro"),
    ("moldovan", "ro"),
    ("myanmar", "my"),
    ("nynorsk", "nn"),
    ("panjabi", "pa"),
    ("pushto", "ps"),
    ("sinhalese", "si"),
    ("valencian", "ca"),
];

/// The languages that an engine knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Languages {
    /// Only these, by the tags of [`WHISPER`].
    Only(Vec<&'static str>),
    /// Nobody has said which.
    Any,
}

impl Languages {
    /// Only English.
    #[must_use]
    pub fn english() -> Self {
        Self::Only(vec!["en"])
    }

    /// All that Whisper knows; models before large-v3 don't know Cantonese.
    #[must_use]
    pub fn whisper(cantonese: bool) -> Self {
        Self::Only(WHISPER.iter().map(|(tag, _)| *tag).filter(|tag| cantonese || *tag != "yue").collect())
    }

    /// Whether a language tag is among them.
    #[must_use]
    pub fn contain(&self, tag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(tags) => base(tag).is_some_and(|base| tags.contains(&base)),
        }
    }
}

/// Finds the tag of the table for a BCP 47 tag: `nb-NO` and `no` are both `no`. A script or region makes no difference,
/// because no engine has models for them.
#[must_use]
pub fn base(tag: &str) -> Option<&'static str> {
    let language = tag.split(['-', '_']).next().unwrap_or_default().to_lowercase();
    let alias = ALIASES.iter().find(|(alias, _)| *alias == language).map(|(_, tag)| *tag);
    alias.or_else(|| WHISPER.iter().map(|(tag, _)| *tag).find(|tag| *tag == language))
}

/// All ways to write a language that engines know by this tag, without script and region: the tags for which [`base`] finds it.
pub fn spellings(tag: &str) -> impl Iterator<Item = &str> {
    iter::once(tag).chain(ALIASES.iter().filter(move |(_, known)| *known == tag).map(|(alias, _)| *alias))
}

/// The code that Whisper and servers with its API have for a tag: `no` for `nb-NO`. Of a language that isn't in the
/// table, the tag without script and region.
#[must_use]
pub fn code(tag: &str) -> String {
    match base(tag) {
        Some(tag) => CODES.iter().find(|(own, _)| *own == tag).map_or(tag, |(_, code)| *code).to_owned(),
        None => tag.split(['-', '_']).next().unwrap_or_default().to_lowercase(),
    }
}

/// The name of a language in English.
#[must_use]
pub fn name(tag: &str) -> Option<&'static str> {
    let code = base(tag).map_or_else(|| code(tag), str::to_owned);
    WHISPER.iter().chain(&OTHERS).find(|(tag, _)| *tag == code).map(|(_, name)| *name)
}

/// What an engine has found, with the name of the language.
#[must_use]
pub fn detected(language: String, probability: Option<f32>) -> DetectedLanguage {
    let name = name(&language).map(str::to_owned);
    DetectedLanguage { language, name, probability }
}

/// Finds the tag for what a server says of a language: a code, a tag or an English name.
#[must_use]
pub fn recognise(said: &str) -> Option<&'static str> {
    let said = said.trim().to_lowercase();
    let by_name = WHISPER.iter().find(|(_, name)| name.to_lowercase() == said).map(|(tag, _)| *tag);
    by_name.or_else(|| NAMES.iter().find(|(name, _)| *name == said).map(|(_, tag)| *tag)).or_else(|| base(&said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_with_regions_and_other_codes_are_the_same_language() {
        for (tag, expected, whisper) in [
            ("en", "en", "en"),
            ("en-US", "en", "en"),
            ("EN_gb", "en", "en"),
            ("nb", "no", "no"),
            ("nb-NO", "no", "no"),
            ("nn-NO", "nn", "nn"),
            ("zh-Hant-TW", "zh", "zh"),
            ("iw", "he", "he"),
            ("jv", "jv", "jw"),
            ("jw", "jv", "jw"),
            ("yue-HK", "yue", "yue"),
        ] {
            assert_eq!((base(tag), code(tag).as_str()), (Some(expected), whisper), "{tag}");
        }
        assert_eq!((base("tlh"), code("tlh-Latn").as_str(), name("tlh")), (None, "tlh", None));
        assert_eq!([name("nb-NO"), name("ga-IE"), name("ZU")], [Some("Norwegian"), Some("Irish"), Some("Zulu")]);
    }

    #[test]
    fn every_spelling_of_a_language_leads_to_it_and_none_is_left_out() {
        let known = || WHISPER.iter().map(|(tag, _)| *tag);
        let others = OTHERS.iter().map(|(tag, _)| *tag);
        for written in known().chain(ALIASES.iter().map(|(alias, _)| *alias)).chain(others) {
            let found: Vec<&str> = known().filter(|tag| spellings(tag).any(|way| way == written)).collect();
            assert_eq!(found, base(written).into_iter().collect::<Vec<_>>(), "{written}");
        }
    }

    #[test]
    fn a_language_is_recognised_by_name_and_by_code() {
        for (said, tag) in [
            ("english", "en"),
            ("English", "en"),
            ("en", "en"),
            ("en-us", "en"),
            ("mandarin", "zh"),
            ("castilian", "es"),
        ] {
            assert_eq!(recognise(said), Some(tag), "{said}");
        }
        assert_eq!((recognise(""), recognise("auto"), recognise("unknown")), (None, None, None));
    }

    #[test]
    fn an_engine_knows_the_languages_of_its_model() {
        assert!(Languages::english().contain("en-GB") && !Languages::english().contain("de"));
        let base = Languages::whisper(false);
        assert!(base.contain("nb") && base.contain("de-AT") && !base.contain("yue") && !base.contain("tlh"));
        assert!(Languages::whisper(true).contain("yue") && Languages::Any.contain("tlh"));
    }

    #[test]
    fn the_table_is_in_order_and_aliases_lead_into_it() {
        assert!(WHISPER.windows(2).all(|pair| pair[0].1 < pair[1].1));
        for tag in ALIASES.iter().chain(&NAMES).map(|(_, tag)| tag).chain(CODES.iter().map(|(tag, _)| tag)) {
            assert!(WHISPER.iter().any(|(own, _)| own == tag), "{tag}");
        }
        assert!(OTHERS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(OTHERS.iter().all(|(tag, _)| base(tag).is_none()));
        // An alias isn't a language of its own.
        assert!(ALIASES.iter().all(|(alias, _)| WHISPER.iter().all(|(tag, _)| tag != alias)));
    }
}
