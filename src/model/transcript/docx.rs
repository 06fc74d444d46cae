//! Word documents (WordprocessingML, ISO/IEC 29500) with paragraphs. The format's library crates bring a whole object model
//! and image codecs; a transcript needs a heading and paragraphs, which are these few parts. Pure: the caller packs them.

use super::{Export, paragraphs::paragraphs};
use crate::model::{clock, speaker_label};
use std::fmt::Write;

const MAIN: &str = "http://schemas.openxmlformats.org/wordprocessingml/2006/main";

const CONTENT_TYPES: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/><Override PartName="/word/styles.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.styles+xml"/><Override PartName="/docProps/core.xml" ContentType="application/vnd.openxmlformats-package.core-properties+xml"/></Types>
"#;

const RELATIONSHIPS: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/><Relationship Id="rId2" Type="http://schemas.openxmlformats.org/package/2006/relationships/metadata/core-properties" Target="docProps/core.xml"/></Relationships>
"#;

const DOCUMENT_RELATIONSHIPS: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/styles" Target="styles.xml"/></Relationships>
"#;

/// The parts of a document with their names in the package, in the order in which they are packed.
pub(super) fn parts(export: &Export<'_>) -> Vec<(&'static str, String)> {
    vec![
        ("[Content_Types].xml", CONTENT_TYPES.to_owned()),
        ("_rels/.rels", RELATIONSHIPS.to_owned()),
        ("docProps/core.xml", core(export)),
        ("word/_rels/document.xml.rels", DOCUMENT_RELATIONSHIPS.to_owned()),
        ("word/styles.xml", styles(export.language_tag())),
        ("word/document.xml", document(export)),
    ]
}

fn core(export: &Export<'_>) -> String {
    let title = escape(export.title());
    let created = export.transcript.session.created_at.to_string();
    format!(
        r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<cp:coreProperties xmlns:cp="http://schemas.openxmlformats.org/package/2006/metadata/core-properties" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:dcterms="http://purl.org/dc/terms/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><dc:title>{title}</dc:title><dc:creator>Hark</dc:creator><dcterms:created xsi:type="dcterms:W3CDTF">{created}</dcterms:created></cp:coreProperties>
"#
    )
}

/// The styles that the document uses. `language`: a tag, for the spelling checker.
fn styles(language: Option<&str>) -> String {
    let language = language.map(|tag| format!(r#"<w:lang w:val="{}"/>"#, escape(tag))).unwrap_or_default();
    let paragraph = |id: &str, name: &str, next: &str, format: &str, text: &str| {
        format!(
            r#"<w:style w:type="paragraph" w:styleId="{id}"><w:name w:val="{name}"/><w:basedOn w:val="Normal"/><w:next w:val="{next}"/><w:qFormat/><w:pPr>{format}</w:pPr><w:rPr>{text}</w:rPr></w:style>"#
        )
    };
    let character = |id: &str, name: &str, text: &str| {
        format!(
            r#"<w:style w:type="character" w:customStyle="1" w:styleId="{id}"><w:name w:val="{name}"/><w:rPr>{text}</w:rPr></w:style>"#
        )
    };
    let spaced = |after: u32| format!(r#"<w:spacing w:after="{after}"/>"#);
    format!(
        r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<w:styles xmlns:w="{MAIN}"><w:docDefaults><w:rPrDefault><w:rPr><w:sz w:val="22"/><w:szCs w:val="22"/>{language}</w:rPr></w:rPrDefault><w:pPrDefault><w:pPr><w:spacing w:after="160" w:line="276" w:lineRule="auto"/></w:pPr></w:pPrDefault></w:docDefaults><w:style w:type="paragraph" w:default="1" w:styleId="Normal"><w:name w:val="Normal"/><w:qFormat/></w:style><w:style w:type="character" w:default="1" w:styleId="DefaultParagraphFont"><w:name w:val="Default Paragraph Font"/></w:style>{}{}{}{}{}</w:styles>
"#,
        paragraph("Title", "Title", "Normal", &spaced(80), r#"<w:b/><w:sz w:val="40"/><w:szCs w:val="40"/>"#),
        paragraph("Subtitle", "Subtitle", "Normal", &spaced(280), r#"<w:color w:val="595959"/>"#),
        character("Speaker", "Speaker", "<w:b/>"),
        character("Time", "Time", r#"<w:color w:val="595959"/>"#),
        character("Unsure", "Unsure", r#"<w:u w:val="dotted"/>"#),
    )
}

fn document(export: &Export<'_>) -> String {
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n<w:document xmlns:w=\"{MAIN}\"><w:body>"
    );
    let mut plain = |style: &str, text: &str| {
        let _ = write!(out, "<w:p>{}{}</w:p>", properties(Some(style), text), run(None, text));
    };
    plain("Title", export.title());
    plain("Subtitle", &export.facts().join(" · "));
    if let Some(note) = export.note() {
        plain("Normal", note);
    }
    let paragraphs = paragraphs(&export.transcript.segments);
    if paragraphs.iter().any(|paragraph| paragraph.runs.iter().any(|run| run.unsure)) {
        plain("Subtitle", "Words with a dotted line below are those that the engine wasn't sure of.");
    }
    for paragraph in paragraphs {
        let _ = write!(out, "<w:p>{}", properties(None, &paragraph.text()));
        if export.options.times {
            out.push_str(&run(Some("Time"), &format!("[{}] ", clock(paragraph.start))));
        }
        if let Some(speaker) = paragraph.speaker {
            out.push_str(&run(Some("Speaker"), &format!("{}: ", speaker_label(speaker))));
        }
        for part in &paragraph.runs {
            out.push_str(&run(part.unsure.then_some("Unsure"), &part.text));
        }
        out.push_str("</w:p>");
    }
    // A4 with margins of 2.5 cm, in twentieths of a point.
    out.push_str(
        r#"<w:sectPr><w:pgSz w:w="11906" w:h="16838"/><w:pgMar w:top="1417" w:right="1417" w:bottom="1417" w:left="1417" w:header="708" w:footer="708" w:gutter="0"/></w:sectPr></w:body></w:document>"#,
    );
    out.push('\n');
    out
}

/// The properties of a paragraph: its style, and its direction by the text.
fn properties(style: Option<&str>, text: &str) -> String {
    let style = style.map(|style| format!(r#"<w:pStyle w:val="{style}"/>"#)).unwrap_or_default();
    let direction = if is_right_to_left(text) { "<w:bidi/>" } else { "" };
    if style.is_empty() && direction.is_empty() { String::new() } else { format!("<w:pPr>{style}{direction}</w:pPr>") }
}

fn run(style: Option<&str>, text: &str) -> String {
    let style = style.map(|style| format!(r#"<w:rStyle w:val="{style}"/>"#)).unwrap_or_default();
    let direction = if is_right_to_left(text) { "<w:rtl/>" } else { "" };
    let both = format!("{style}{direction}");
    let properties = if both.is_empty() { both } else { format!("<w:rPr>{both}</w:rPr>") };
    format!(r#"<w:r>{properties}<w:t xml:space="preserve">{}</w:t></w:r>"#, escape(text))
}

/// Whether the first letter is one of a script that is written from right to left.
fn is_right_to_left(text: &str) -> bool {
    let first = text.chars().find(|c| c.is_alphabetic());
    first.is_some_and(|c| matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}' | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}'))
}

/// Escapes text for XML, and leaves out what XML 1.0 can't hold.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' => out.push(c),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {}
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_escaped() {
        assert_eq!(escape("a < b & \"c\" > d\u{0}\u{1b}\u{fffe}é😀"), "a &lt; b &amp; &quot;c&quot; &gt; dé😀");
    }

    #[test]
    fn the_direction_is_that_of_the_first_letter() {
        assert!(is_right_to_left("שלום world") && is_right_to_left("(12) مرحبا"));
        assert!(!is_right_to_left("Hello שלום") && !is_right_to_left("12") && !is_right_to_left(""));
    }
}
