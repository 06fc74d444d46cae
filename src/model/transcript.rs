//! Transcripts as files: Word, Markdown, plain text, SubRip, WebVTT, CSV and JSON. Pure; called for downloads, and by the
//! session page for copying.

mod csv;
mod docx;
mod markdown;
mod paragraphs;
mod subtitles;
mod words;

use super::{Segment, Session, State, Transcript, clock, speaker_label, text};
use serde::{Deserialize, Serialize};
use std::{fmt::Write, str::FromStr};
use subtitles::Cue;

/// A download format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Docx,
    Md,
    Txt,
    Srt,
    Vtt,
    Csv,
    Json,
}

/// The content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Text(String),
    /// The parts of a ZIP package, with their names in it.
    Package(Vec<(&'static str, String)>),
}

/// What the lines of subtitles may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineLimits {
    /// Lines of one cue.
    pub lines: u8,
    /// Characters of one line; a wide one, as of Chinese, counts twice.
    pub chars: u8,
}

impl LineLimits {
    /// The values that make sense.
    pub const LINES: std::ops::RangeInclusive<u8> = 1..=4;
    pub const CHARS: std::ops::RangeInclusive<u8> = 16..=100;
}

impl Default for LineLimits {
    /// What guidelines for subtitles ask for: two lines that can be read at a glance.
    fn default() -> Self {
        Self { lines: 2, chars: 42 }
    }
}

/// What somebody wants of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportOptions {
    /// Whether text, Markdown and Word say when a line or a paragraph begins.
    pub times: bool,
    /// How cues of subtitles are cut; none: a cue is a segment, in one line.
    pub limits: Option<LineLimits>,
    /// Whether CSV has a row for each word.
    pub by_word: bool,
}

/// A transcript to be written to a file.
#[derive(Clone, Copy, Debug)]
pub struct Export<'a> {
    pub transcript: &'a Transcript,
    /// The English name of the requested language, if there is one.
    pub language_name: Option<&'a str>,
    pub options: ExportOptions,
}

impl Export<'_> {
    /// The title without a file extension.
    fn title(&self) -> &str {
        stem(self.session().title.as_str())
    }

    fn session(&self) -> &Session {
        &self.transcript.session
    }

    /// Date, length and language, for the heading.
    fn facts(&self) -> Vec<String> {
        let session = self.session();
        let found = session.detected_language.as_ref();
        let language = match &session.language {
            Some(tag) => Some(self.language_name.unwrap_or(tag).to_owned()),
            None => found.map(|found| found.name.as_ref().unwrap_or(&found.language).clone()),
        };
        let length = session.status.duration_total.map(text::duration);
        [Some(text::date_time(session.created_at)), length, language].into_iter().flatten().collect()
    }

    /// The tag of the language that is spoken.
    fn language_tag(&self) -> Option<&str> {
        let session = self.session();
        session.language.as_deref().or(session.detected_language.as_ref().map(|found| found.language.as_str()))
    }

    /// What must be said of a transcript that doesn't have all.
    fn note(&self) -> Option<&'static str> {
        (self.session().status.state != State::Completed)
            .then_some("This transcript isn't complete: the recording wasn't transcribed to its end.")
    }

    /// Writes the transcript as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        markdown::markdown(self)
    }
}

/// A title without a file extension. The text after the dot in "Part 3.5" or "Dr. Smith" isn't one.
#[must_use]
pub fn stem(title: &str) -> &str {
    match title.rsplit_once('.') {
        Some((stem, ending))
            if !stem.is_empty()
                && ending.len() <= 5
                && ending.bytes().all(|b| b.is_ascii_alphanumeric())
                && ending.bytes().any(|b| b.is_ascii_alphabetic()) =>
        {
            stem
        }
        _ => title,
    }
}

impl Format {
    /// Every format, in the order in which they are offered.
    pub const ALL: [Format; 7] = [Self::Docx, Self::Md, Self::Txt, Self::Srt, Self::Vtt, Self::Csv, Self::Json];

    /// The file name extension.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Docx => "docx",
            Self::Md => "md",
            Self::Txt => "txt",
            Self::Srt => "srt",
            Self::Vtt => "vtt",
            Self::Csv => "csv",
            Self::Json => "json",
        }
    }

    /// The media type, with its character set.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Docx => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            Self::Md => "text/markdown; charset=utf-8",
            Self::Txt => "text/plain; charset=utf-8",
            Self::Srt => "application/x-subrip; charset=utf-8",
            Self::Vtt => "text/vtt; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Json => "application/json",
        }
    }

    /// Writes a transcript in this format. It may be incomplete.
    #[must_use]
    pub fn write(self, export: &Export<'_>) -> Content {
        let (segments, options) = (&export.transcript.segments, export.options);
        // A speaker's name is part of the text, unless the format has a way of its own to say it.
        let cues = |named| match options.limits {
            Some(limits) => subtitles::cut(segments, limits, named),
            None => subtitles::uncut(segments, named),
        };
        Content::Text(match self {
            Self::Docx => return Content::Package(docx::parts(export)),
            Self::Md => export.markdown(),
            Self::Txt => txt(segments, options.times),
            Self::Srt => srt(&cues(true)),
            Self::Vtt => vtt(&cues(false)),
            Self::Csv => csv::csv(segments, options.by_word),
            Self::Json => {
                let transcript = serde_json::to_string_pretty(export.transcript);
                let mut text = transcript.expect("string keys and finite numbers always serialise");
                text.push('\n');
                text
            }
        })
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|f| f.extension() == name)
            .ok_or_else(|| "transcripts come as docx, md, txt, srt, vtt, csv and json".to_owned())
    }
}

/// How sure the engine is of a segment: what it said, or the mean of its words.
fn confidence(segment: &Segment) -> Option<f32> {
    let of_words = || {
        let all: Vec<f32> = segment.words.iter().filter_map(|word| word.confidence).collect();
        (!all.is_empty()).then(|| all.iter().sum::<f32>() / all.len() as f32)
    };
    segment.confidence.or_else(of_words)
}

/// The text of segments: a line for each.
#[must_use]
pub fn txt(segments: &[Segment], times: bool) -> String {
    let mut out = String::new();
    for segment in segments {
        let text = one_line(&segment.text);
        if text.is_empty() {
            continue;
        }
        if times {
            let _ = write!(out, "[{}] ", clock(segment.start));
        }
        if let Some(speaker) = segment.speaker {
            let _ = write!(out, "{}: ", speaker_label(speaker));
        }
        out.push_str(&text);
        out.push('\n');
    }
    out
}

/// SubRip: numbered cues, `HH:MM:SS,mmm`, CRLF-free.
fn srt(cues: &[Cue]) -> String {
    let mut out = String::new();
    for (cue, n) in cues.iter().zip(1..) {
        // Players take any "-->" for a line of times.
        let text = cue.lines.join("\n").replace("-->", "->");
        let (start, end) = (time(cue.start, ','), time(cue.end, ','));
        let _ = writeln!(out, "{n}\n{start} --> {end}\n{text}\n");
    }
    out
}

/// WebVTT (W3C): `HH:MM:SS.mmm`, with `&`, `<` and `>` escaped.
fn vtt(cues: &[Cue]) -> String {
    let mut out = String::from("WEBVTT\n\n");
    for cue in cues {
        let text = cue.lines.join("\n").replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let (start, end) = (time(cue.start, '.'), time(cue.end, '.'));
        // The format's own way to name who speaks.
        let voice = cue.speaker.map(|speaker| format!("<v {}>", speaker_label(speaker))).unwrap_or_default();
        let _ = writeln!(out, "{start} --> {end}\n{voice}{text}\n");
    }
    out
}

/// Joins the lines of a text.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn time(seconds: f64, separator: char) -> String {
    let ms = (seconds.max(0.0) * 1000.0).round() as u64;
    let (h, m, s, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    format!("{h:02}:{m:02}:{s:02}{separator}{ms:03}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DetectedLanguage, EngineId, Media, SessionId, Status, Timestamp, Title};

    fn segments() -> Vec<Segment> {
        let piece = |index, start, end, text: &str| Segment::new(index, start, end, text);
        vec![
            piece(0, 0.0, 1.5, "hello there"),
            piece(1, 1.5, 2.0, "  "),
            piece(2, 61.0004, 3725.9996, "fish & chips\n\n<b>--> now"),
            piece(3, 359_999.0, 360_000.25, "naïve 😀"),
        ]
    }

    fn with_speakers() -> Vec<Segment> {
        let of = |segment: Segment| Segment { speaker: Some(if segment.index == 0 { 1 } else { 2 }), ..segment };
        segments().into_iter().take(3).map(of).collect()
    }

    fn transcript(segments: Vec<Segment>) -> Transcript {
        let id = SessionId(uuid::Uuid::nil());
        let mut status = Status::new(id, State::Processing, None, Timestamp(0));
        status.duration_total = Some(125.0);
        let session = Session {
            id,
            title: Title::new("My *talk*.mp3").expect("a title"),
            created_at: Timestamp(1_700_000_000_120),
            started_at: None,
            finished_at: None,
            engine: EngineId::Whisper,
            model: None,
            language: None,
            detected_language: Some(DetectedLanguage {
                language: "de".to_owned(),
                name: Some("German".to_owned()),
                probability: Some(0.9),
            }),
            vocabulary: None,
            channels: crate::model::Channels::Mix,
            track: None,
            media: Media::default(),
            status,
        };
        Transcript { session, segments }
    }

    fn write(format: Format, segments: Vec<Segment>, options: ExportOptions) -> String {
        let transcript = transcript(segments);
        match format.write(&Export { transcript: &transcript, language_name: None, options }) {
            Content::Text(text) => text,
            Content::Package(parts) => parts.into_iter().map(|(name, text)| format!("{name}\n{text}\n")).collect(),
        }
    }

    fn plain(format: Format, segments: Vec<Segment>) -> String {
        write(format, segments, ExportOptions::default())
    }

    #[test]
    fn plain_text_has_one_line_for_each_segment() {
        assert_eq!(plain(Format::Txt, segments()), "hello there\nfish & chips <b>--> now\nnaïve 😀\n");
        assert_eq!(plain(Format::Txt, Vec::new()), "");
        let times = ExportOptions { times: true, ..ExportOptions::default() };
        assert_eq!(
            write(Format::Txt, with_speakers(), times),
            "[0:00] Speaker 1: hello there\n[1:01] Speaker 2: fish & chips <b>--> now\n"
        );
    }

    #[test]
    fn subrip_matches_a_hand_written_file() {
        let expected = "1\n00:00:00,000 --> 00:00:01,500\nhello there\n\n\
                        2\n00:01:01,000 --> 01:02:06,000\nfish & chips <b>-> now\n\n\
                        3\n99:59:59,000 --> 100:00:00,250\nnaïve 😀\n\n";
        assert_eq!(plain(Format::Srt, segments()), expected);
        assert_eq!(plain(Format::Srt, Vec::new()), "");
    }

    #[test]
    fn webvtt_matches_a_hand_written_file() {
        let expected = "WEBVTT\n\n\
                        00:00:00.000 --> 00:00:01.500\nhello there\n\n\
                        00:01:01.000 --> 01:02:06.000\nfish &amp; chips &lt;b&gt;--&gt; now\n\n\
                        99:59:59.000 --> 100:00:00.250\nnaïve 😀\n\n";
        assert_eq!(plain(Format::Vtt, segments()), expected);
        assert_eq!(plain(Format::Vtt, Vec::new()), "WEBVTT\n\n");
    }

    #[test]
    fn speakers_are_named_as_each_format_does() {
        assert_eq!(plain(Format::Txt, with_speakers()), "Speaker 1: hello there\nSpeaker 2: fish & chips <b>--> now\n");
        assert_eq!(
            plain(Format::Srt, with_speakers()),
            "1\n00:00:00,000 --> 00:00:01,500\nSpeaker 1: hello there\n\n\
             2\n00:01:01,000 --> 01:02:06,000\nSpeaker 2: fish & chips <b>-> now\n\n"
        );
        assert_eq!(
            plain(Format::Vtt, with_speakers()),
            "WEBVTT\n\n\
             00:00:00.000 --> 00:00:01.500\n<v Speaker 1>hello there\n\n\
             00:01:01.000 --> 01:02:06.000\n<v Speaker 2>fish &amp; chips &lt;b&gt;--&gt; now\n\n"
        );
    }

    #[test]
    fn subtitles_are_cut_if_that_is_asked_for() {
        let limits = Some(LineLimits { lines: 1, chars: 16 });
        let cut = ExportOptions { limits, ..ExportOptions::default() };
        let one = Segment { end: 4.0, text: "one two three, four five six".to_owned(), ..segments()[0].clone() };
        let srt = write(Format::Srt, vec![one.clone()], cut);
        assert!(srt.contains("\none two three,\n\n2\n") && srt.ends_with("\nfour five six\n\n"), "{srt}");
        let vtt = write(Format::Vtt, vec![one], cut);
        assert!(vtt.contains("\none two three,\n\n") && vtt.ends_with("\nfour five six\n\n"), "{vtt}");
    }

    #[test]
    fn markdown_has_a_heading_and_paragraphs() {
        let times = ExportOptions { times: true, ..ExportOptions::default() };
        assert_eq!(
            write(Format::Md, with_speakers(), times),
            "# My \\*talk\\*\n\n14 Nov 2023, 22:13 UTC · 2 min 5 s · German\n\n\
             *This transcript isn't complete: the recording wasn't transcribed to its end.*\n\n\
             \\[0:00\\] **Speaker 1:** hello there\n\n\
             \\[1:01\\] **Speaker 2:** fish \\& chips \\<b\\>--\\> now\n"
        );
    }

    #[test]
    fn a_word_document_has_the_same() {
        let mut segments = with_speakers();
        segments[0].unsure = vec![1];
        let docx = write(Format::Docx, segments, ExportOptions::default());
        for part in [
            ">My *talk*</w:t>",
            ">14 Nov 2023, 22:13 UTC · 2 min 5 s · German</w:t>",
            ">Speaker 1: </w:t></w:r><w:r><w:t xml:space=\"preserve\">hello </w:t></w:r><w:r><w:rPr><w:rStyle w:val=\"Unsure\"/></w:rPr><w:t xml:space=\"preserve\">there</w:t></w:r></w:p>",
            "fish &amp; chips &lt;b&gt;--&gt; now",
            "<w:lang w:val=\"de\"/>",
        ] {
            assert!(docx.contains(part), "{part} in {docx}");
        }
    }

    #[test]
    fn formats_are_found_by_extension() {
        for format in Format::ALL {
            assert_eq!(format.extension().parse(), Ok(format));
        }
        assert!("pdf".parse::<Format>().is_err());
    }

    #[test]
    fn only_a_file_extension_is_removed() {
        for (title, expected) in [
            ("talk.mp3", "talk"),
            ("a.b.m4a", "a.b"),
            ("Dr. Smith on bees", "Dr. Smith on bees"),
            ("Part 3.5", "Part 3.5"),
            (".wav", ".wav"),
            ("Wow.", "Wow."),
            ("日本.語", "日本.語"),
        ] {
            assert_eq!(stem(title), expected);
        }
    }
}
