//! Recordings made by ffmpeg, sox and flite, through the server's decoders, and measures of what comes out. For
//! `decode` and `recordings`.

use std::f64::consts::TAU;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use clap::Parser;
use hark::server::audio::{AudioError, Decoded, Decoders, Limits, MAX_PEAKS, ProbeError, SAMPLE_RATE, Selection};
use hark::server::config::DecodeConfig;
use tempfile::TempDir;

pub const LIMITS: Limits = Limits { max_duration: 3600.0 };

/// Seconds of the usual tone.
pub const LENGTH: f64 = 3.0;

/// The root mean square of the usual tone, which is 0.4 (1 + 0.5 sin 2πt) sin 880πt.
pub const LEVEL: f64 = 0.3;

pub fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| {
        panic!("{program} is needed to make test recordings ({error}). Install ffmpeg, sox, libsox-fmt-mp3 and flite.")
    });
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

pub fn ffmpeg(arguments: &[&str]) -> Vec<u8> {
    run("ffmpeg", &[&["-hide_banner", "-loglevel", "error", "-nostdin", "-y"], arguments].concat())
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub struct Files(pub TempDir);

impl Files {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// Makes a file of the usual tone. `output` are ffmpeg's options for it.
    pub fn tone(&self, name: &str, rate: u32, layout: &str, output: &[&str]) -> PathBuf {
        self.wave(name, "0.4*(1+0.5*sin(2*PI*t))*sin(880*PI*t)", LENGTH, rate, layout, output)
    }

    pub fn wave(&self, name: &str, wave: &str, seconds: f64, rate: u32, layout: &str, output: &[&str]) -> PathBuf {
        let path = self.path(name);
        let waves = vec![wave; channels(layout).into()].join("|");
        let source = format!("aevalsrc=exprs={waves}:s={rate}:d={seconds}:c={layout}");
        ffmpeg(&[&["-f", "lavfi", "-i", &source], output, &["-ar", &rate.to_string(), text(&path)]].concat());
        path
    }

    /// Three and a half seconds of speech at 16 kHz, encoded.
    pub fn speech(&self, name: &str, output: &[&str]) -> PathBuf {
        let (source, path) = (self.path("speech.wav"), self.path(name));
        if !source.exists() {
            run(
                "flite",
                &[
                    "-voice",
                    "slt",
                    "-t",
                    "The quick brown fox jumps over the lazy dog, again and again.",
                    "-o",
                    text(&source),
                ],
            );
        }
        ffmpeg(&[&["-i", text(&source)], output, &[text(&path)]].concat());
        path
    }
}

#[derive(Parser)]
pub struct Flags {
    #[command(flatten)]
    pub config: DecodeConfig,
}

pub fn decoders_with(flags: &[&str]) -> Decoders {
    let config = Flags::parse_from([&["hark"], flags].concat()).config;
    Decoders::new(&config, Some(Path::new(env!("CARGO_BIN_EXE_hark"))))
}

/// Decoders with long timeouts, because tests run in parallel on a machine that may be busy.
pub fn decoders() -> Decoders {
    decoders_with(&["--probe-secs", "60", "--probe-wait-secs", "60"])
}

pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        // The log says how decoders ended.
        tracing_subscriber::fmt().with_test_writer().init();
        tokio::runtime::Runtime::new().unwrap()
    });
    RUNTIME.block_on(work)
}

/// Somebody who uploads.
pub fn anybody() -> hark::server::turns::Caller {
    hark::server::turns::Caller::Known(hark::server::owner::Owner::fresh())
}

pub fn probe(path: &Path, limits: &Limits) -> Result<hark::server::audio::AudioInfo, AudioError> {
    block_on(decoders().probe(path, *limits, anybody())).map_err(|error| match error {
        ProbeError::Audio(error) => error,
        ProbeError::Busy { .. } => panic!("the decoders are busy"),
    })
}

pub fn decode(path: &Path) -> Result<(Decoded, Vec<i16>), AudioError> {
    decode_within(path, &LIMITS)
}

pub fn decode_within(path: &Path, limits: &Limits) -> Result<(Decoded, Vec<i16>), AudioError> {
    decode_with(&decoders(), path, limits)
}

pub fn decode_with(decoders: &Decoders, path: &Path, limits: &Limits) -> Result<(Decoded, Vec<i16>), AudioError> {
    decode_selected(decoders, path, limits, Selection::default()).map(|(decoded, samples, _)| (decoded, samples))
}

/// Decodes what is selected. Returns also whether two speakers on two channels were to be found, and were.
pub fn decode_selected(
    decoders: &Decoders,
    path: &Path,
    limits: &Limits,
    selection: Selection,
) -> Result<(Decoded, Vec<i16>, bool), AudioError> {
    block_on(async {
        let mut decoding = decoders.decode(path, *limits, selection).await?;
        let mut samples = Vec::new();
        while let Some(piece) = decoding.next().await? {
            assert!(!piece.is_empty() && piece.len() <= 8_000);
            samples.extend(piece);
        }
        let is_apart = decoding.is_apart();
        let decoded = decoding.finish();
        assert!((decoded.duration - samples.len() as f64 / f64::from(SAMPLE_RATE)).abs() < 1e-9);
        assert!(decoded.waveform.peaks.len() <= MAX_PEAKS);
        Ok((decoded, samples, is_apart))
    })
}

pub fn rms(samples: &[i16]) -> f64 {
    (samples.iter().map(|&s| (f64::from(s) / 32_768.0).powi(2)).sum::<f64>() / samples.len() as f64).sqrt()
}

/// The share of the whole power at a frequency, by Goertzel's algorithm over tenths of a second.
pub fn share(samples: &[i16], frequency: f64) -> f64 {
    let (mut at, mut all) = (0.0, 0.0);
    for part in samples.chunks_exact(1_600) {
        let coefficient = 2.0 * (TAU * frequency / f64::from(SAMPLE_RATE)).cos();
        let (mut s1, mut s2) = (0.0, 0.0);
        for &sample in part {
            let sample = f64::from(sample);
            (s1, s2) = (sample + coefficient * s1 - s2, s1);
            all += sample * sample;
        }
        at += (s1 * s1 + s2 * s2 - coefficient * s1 * s2) * 2.0 / part.len() as f64;
    }
    at / all
}

pub fn channels(layout: &str) -> u16 {
    match layout {
        "mono" => 1,
        "stereo" => 2,
        "5.1" => 6,
        other => panic!("{other}"),
    }
}

/// All remarks on a recording.
pub fn messages(decoded: &Decoded) -> String {
    decoded.remarks.iter().map(|remark| format!("{}: {}\n", remark.code, remark.message)).collect()
}
