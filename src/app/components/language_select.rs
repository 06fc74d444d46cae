//! The choice of the recording's language, by BCP 47 tag. The engine decides which languages it supports.

use leptos::{html, prelude::*};

/// The languages that are most spoken and recorded. The API accepts any tag.
const LANGUAGES: [(&str, &str); 36] = [
    ("ar", "Arabic"),
    ("bg", "Bulgarian"),
    ("ca", "Catalan"),
    ("zh", "Chinese"),
    ("hr", "Croatian"),
    ("cs", "Czech"),
    ("da", "Danish"),
    ("nl", "Dutch"),
    ("en", "English"),
    ("et", "Estonian"),
    ("fi", "Finnish"),
    ("fr", "French"),
    ("de", "German"),
    ("el", "Greek"),
    ("he", "Hebrew"),
    ("hi", "Hindi"),
    ("hu", "Hungarian"),
    ("id", "Indonesian"),
    ("it", "Italian"),
    ("ja", "Japanese"),
    ("ko", "Korean"),
    ("lv", "Latvian"),
    ("lt", "Lithuanian"),
    ("nb", "Norwegian"),
    ("fa", "Persian"),
    ("pl", "Polish"),
    ("pt", "Portuguese"),
    ("ro", "Romanian"),
    ("ru", "Russian"),
    ("sk", "Slovak"),
    ("sl", "Slovenian"),
    ("es", "Spanish"),
    ("sv", "Swedish"),
    ("tr", "Turkish"),
    ("uk", "Ukrainian"),
    ("vi", "Vietnamese"),
];

/// The select element. The first option leaves the choice to the engine.
#[component]
pub fn LanguageSelect(
    /// Set to the element.
    select: NodeRef<html::Select>,
) -> impl IntoView {
    let options = LANGUAGES.map(|(tag, name)| view! { <option value=tag>{name}</option> });
    view! {
        <select class="input" id="language" name="language" data-testid="language-select" node_ref=select>
            <option value="">"Let the engine decide"</option>
            {options.into_iter().collect_view()}
        </select>
    }
}
