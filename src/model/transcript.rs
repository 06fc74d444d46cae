//! Transcripts as files: plain text, SubRip, WebVTT and JSON. Pure; called for downloads.

use super::{Segment, Transcript, speaker_label};
use serde::{Deserialize, Serialize};
use std::{fmt::Write, str::FromStr};

/// A download format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Txt,
    Srt,
    Vtt,
    Json,
}

impl Format {
    /// Every format, in the order in which they are offered.
    pub const ALL: [Format; 4] = [Self::Txt, Self::Srt, Self::Vtt, Self::Json];

    /// The file name extension.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Txt => "txt",
            Self::Srt => "srt",
            Self::Vtt => "vtt",
            Self::Json => "json",
        }
    }

    /// The media type, with its character set.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Txt => "text/plain; charset=utf-8",
            Self::Srt => "application/x-subrip; charset=utf-8",
            Self::Vtt => "text/vtt; charset=utf-8",
            Self::Json => "application/json",
        }
    }

    /// Writes a transcript in this format. It may be incomplete.
    #[must_use]
    pub fn write(self, transcript: &Transcript) -> String {
        match self {
            Self::Txt => txt(&transcript.segments),
            Self::Srt => srt(&transcript.segments),
            Self::Vtt => vtt(&transcript.segments),
            Self::Json => {
                let mut text =
                    serde_json::to_string_pretty(transcript).expect("string keys and finite numbers always serialise");
                text.push('\n');
                text
            }
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|f| f.extension() == name)
            .ok_or_else(|| "transcripts come as txt, srt, vtt and json".to_owned())
    }
}

/// One line per segment.
fn txt(segments: &[Segment]) -> String {
    let mut out = String::new();
    for (segment, text) in segments.iter().map(|s| (s, one_line(&s.text))).filter(|(_, text)| !text.is_empty()) {
        let _ = writeln!(out, "{}{text}", speaker_prefix(segment));
    }
    out
}

/// SubRip: numbered cues, `HH:MM:SS,mmm`, CRLF-free.
fn srt(segments: &[Segment]) -> String {
    let mut out = String::new();
    let cues = segments.iter().map(|s| (s, one_line(&s.text))).filter(|(_, text)| !text.is_empty());
    for (n, (segment, text)) in cues.enumerate() {
        // Players take any "-->" for a line of times.
        let text = text.replace("-->", "->");
        let (start, end) = (time(segment.start, ','), time(segment.end, ','));
        let _ = writeln!(out, "{}\n{start} --> {end}\n{}{text}\n", n + 1, speaker_prefix(segment));
    }
    out
}

/// WebVTT (W3C): `HH:MM:SS.mmm`, with `&`, `<` and `>` escaped.
fn vtt(segments: &[Segment]) -> String {
    let mut out = String::from("WEBVTT\n\n");
    for (segment, text) in segments.iter().map(|s| (s, one_line(&s.text))).filter(|(_, text)| !text.is_empty()) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let (start, end) = (time(segment.start, '.'), time(segment.end, '.'));
        // The format's own way to name who speaks.
        let voice = segment.speaker.map(|speaker| format!("<v {}>", speaker_label(speaker))).unwrap_or_default();
        let _ = writeln!(out, "{start} --> {end}\n{voice}{text}\n");
    }
    out
}

/// Who says a segment, where formats have no way of their own to say it.
fn speaker_prefix(segment: &Segment) -> String {
    segment.speaker.map(|speaker| format!("{}: ", speaker_label(speaker))).unwrap_or_default()
}

/// Joins the lines of a text: a cue ends at an empty line, so its text must not contain one.
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

    fn segments() -> Vec<Segment> {
        let piece = |index, start, end, text: &str| Segment {
            index,
            start,
            end,
            text: text.to_owned(),
            confidence: None,
            words: Vec::new(),
            unsure: Vec::new(),
            speaker: None,
        };
        vec![
            piece(0, 0.0, 1.5, "hello there"),
            piece(1, 1.5, 2.0, "  "),
            piece(2, 61.0004, 3725.9996, "fish & chips\n\n<b>--> now"),
            piece(3, 359_999.0, 360_000.25, "naïve 😀"),
        ]
    }

    #[test]
    fn plain_text_has_one_line_for_each_segment() {
        assert_eq!(txt(&segments()), "hello there\nfish & chips <b>--> now\nnaïve 😀\n");
        assert_eq!(txt(&[]), "");
    }

    #[test]
    fn subrip_matches_a_hand_written_file() {
        let expected = "1\n00:00:00,000 --> 00:00:01,500\nhello there\n\n\
                        2\n00:01:01,000 --> 01:02:06,000\nfish & chips <b>-> now\n\n\
                        3\n99:59:59,000 --> 100:00:00,250\nnaïve 😀\n\n";
        assert_eq!(srt(&segments()), expected);
        assert_eq!(srt(&[]), "");
    }

    #[test]
    fn webvtt_matches_a_hand_written_file() {
        let expected = "WEBVTT\n\n\
                        00:00:00.000 --> 00:00:01.500\nhello there\n\n\
                        00:01:01.000 --> 01:02:06.000\nfish &amp; chips &lt;b&gt;--&gt; now\n\n\
                        99:59:59.000 --> 100:00:00.250\nnaïve 😀\n\n";
        assert_eq!(vtt(&segments()), expected);
        assert_eq!(vtt(&[]), "WEBVTT\n\n");
    }

    #[test]
    fn speakers_are_named_as_each_format_does() {
        let segments: Vec<Segment> = segments()
            .into_iter()
            .take(3)
            .map(|segment| Segment { speaker: Some(if segment.index == 0 { 1 } else { 2 }), ..segment })
            .collect();
        assert_eq!(txt(&segments), "Speaker 1: hello there\nSpeaker 2: fish & chips <b>--> now\n");
        assert_eq!(
            srt(&segments),
            "1\n00:00:00,000 --> 00:00:01,500\nSpeaker 1: hello there\n\n\
             2\n00:01:01,000 --> 01:02:06,000\nSpeaker 2: fish & chips <b>-> now\n\n"
        );
        assert_eq!(
            vtt(&segments),
            "WEBVTT\n\n\
             00:00:00.000 --> 00:00:01.500\n<v Speaker 1>hello there\n\n\
             00:01:01.000 --> 01:02:06.000\n<v Speaker 2>fish &amp; chips &lt;b&gt;--&gt; now\n\n"
        );
    }

    #[test]
    fn formats_are_found_by_extension() {
        for format in Format::ALL {
            assert_eq!(format.extension().parse(), Ok(format));
        }
        assert!("pdf".parse::<Format>().is_err());
    }
}
