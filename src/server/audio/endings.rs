//! The endings of files that can be read, for browsers, whose file pickers hide all others. Hark itself goes by a file's content
//! and not by its name. The upload page gets them with its limits.

/// The endings of the formats that the built-in decoders read.
const BUILT_IN: &[&str] = &[
    "wav", "wave", "bwf", "aif", "aiff", "aifc", "afc", "caf", "mp2", "mp3", "m2a", "mpa", "aac", "ogg", "oga", "ogv",
    "ogx", "opus", "spx", "flac", "mp4", "m4a", "m4b", "m4r", "m4v", "mov", "qt", "f4v", "ism", "isma", "ismv", "mj2",
    "psp", "webm", "weba", "mkv", "mka", "mk3d",
];

/// The demuxers of ffmpeg that read more than that, each with the endings of its files.
const BY_FFMPEG: &[(&str, &[&str])] = &[
    ("3gp", &["3gp", "3g2", "3gpp"]),
    ("aa", &["aa"]),
    ("aax", &["aax"]),
    ("ac3", &["ac3"]),
    ("act", &["act"]),
    ("amr", &["amr", "awb"]),
    ("ape", &["ape", "apl", "mac"]),
    ("asf", &["asf", "wma", "wmv"]),
    ("ast", &["ast"]),
    ("au", &["au", "snd"]),
    ("avi", &["avi", "divx"]),
    ("dsf", &["dsf"]),
    ("dss", &["dss"]),
    ("dts", &["dts"]),
    ("dtshd", &["dtshd"]),
    ("eac3", &["eac3", "ec3"]),
    ("flv", &["flv"]),
    ("gsm", &["gsm"]),
    ("iff", &["iff", "8svx"]),
    ("ircam", &["ircam", "sf"]),
    ("iss", &["iss"]),
    ("loas", &["loas", "latm"]),
    ("mlp", &["mlp"]),
    ("mpc", &["mpc", "mp+", "mpp"]),
    ("mpeg", &["mpg", "mpeg", "mpe", "vob"]),
    ("mpegts", &["ts", "mts", "m2t", "m2ts"]),
    ("mxf", &["mxf"]),
    ("nistsphere", &["nist", "sph"]),
    ("nut", &["nut"]),
    ("oma", &["oma", "omg", "aa3"]),
    ("qcp", &["qcp"]),
    ("rm", &["rm", "ra", "rmvb"]),
    ("rso", &["rso"]),
    ("shn", &["shn"]),
    ("smjpeg", &["mjpg"]),
    ("sox", &["sox"]),
    ("tak", &["tak"]),
    ("truehd", &["thd"]),
    ("tta", &["tta"]),
    ("voc", &["voc"]),
    ("w64", &["w64"]),
    ("wsd", &["wsd"]),
    ("wtv", &["wtv"]),
    ("wv", &["wv"]),
    ("xwma", &["xwma", "xwm"]),
];

/// What can be read, as the `accept` attribute of an input for files: all that the browser's system knows as sound or film, and
/// the endings that it may not know.
#[must_use]
pub fn accepted(ffmpeg: bool) -> String {
    let by_ffmpeg = BY_FFMPEG.iter().filter(|_| ffmpeg).flat_map(|(_, endings)| *endings);
    let endings: String = BUILT_IN.iter().chain(by_ffmpeg).map(|ending| format!(",.{ending}")).collect();
    format!("audio/*,video/*{endings}")
}

#[cfg(test)]
mod tests {
    use super::{super::ffmpeg, *};
    use std::{collections::BTreeSet, process::Command};

    /// Demuxers whose files have endings that are in the list for another reason: they are another name, or an older or a bare
    /// form, of what is listed, or the built-in decoders read the same files.
    const OTHERWISE_LISTED: [&str; 16] = [
        "aac", "aiff", "amrnb", "amrwb", "asf_o", "caf", "flac", "m4a", "matroska", "mov", "mp3", "mp4", "mpc8", "ogg",
        "wav", "webm",
    ];
    /// What ffmpeg also names: pictures, and subtitles alone.
    const NO_SOUND: [&str; 2] = ["avif", "mks"];

    fn all() -> BTreeSet<&'static str> {
        BY_FFMPEG.iter().flat_map(|(_, endings)| *endings).chain(BUILT_IN).copied().collect()
    }

    #[test]
    fn every_demuxer_that_may_be_used_has_its_endings_listed() {
        let allowed: BTreeSet<&str> = ffmpeg::DEMUXERS.split(',').collect();
        let listed = BY_FFMPEG.iter().map(|(demuxer, _)| *demuxer).chain(OTHERWISE_LISTED).collect();
        assert_eq!(allowed, listed);
    }

    #[test]
    fn every_ending_that_ffmpeg_names_is_listed() {
        let all = all();
        let mut named = 0;
        for demuxer in ffmpeg::DEMUXERS.split(',') {
            let help =
                Command::new("ffmpeg").args(["-hide_banner", "-h", &format!("demuxer={demuxer}")]).output().unwrap();
            let help = String::from_utf8(help.stdout).unwrap();
            let endings = help.lines().find_map(|line| line.trim().strip_prefix("Common extensions: "));
            for ending in endings.unwrap_or_default().trim_end_matches('.').split(',').filter(|e| !e.is_empty()) {
                assert!(all.contains(ending) || NO_SOUND.contains(&ending), "{demuxer}: {ending}");
                named += 1;
            }
        }
        assert!(named > 40, "{named}");
    }

    /// The decoders name a format by its usual ending.
    #[test]
    fn every_format_of_the_built_in_decoders_is_listed() {
        let lines = include_str!("decode/codecs.rs").lines().filter(|line| line.trim().starts_with("FORMAT_ID_"));
        let formats: BTreeSet<&str> = lines.filter_map(|line| line.split("=> \"").nth(1)?.split('"').next()).collect();
        assert!(formats.len() >= 12, "{formats:?}");
        for format in formats {
            assert!(BUILT_IN.contains(&format), "{format}");
        }
    }

    #[test]
    fn no_ending_is_listed_twice_and_each_can_be_written_in_an_attribute() {
        let count = BUILT_IN.len() + BY_FFMPEG.iter().map(|(_, endings)| endings.len()).sum::<usize>();
        assert_eq!(all().len(), count);
        assert!(all().iter().all(|e| e.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'+')));
        assert!(!accepted(false).contains(".wma") && accepted(true).contains(",.wma,"));
        assert!(accepted(false).starts_with("audio/*,video/*,.wav,"));
    }
}
