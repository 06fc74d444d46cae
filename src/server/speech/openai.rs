//! The `openai` engine: any server with the OpenAI transcription API. It sends the recording in pieces cut at pauses,
//! as WAV, and shifts the times of each answer by the start of its piece. Silence isn't sent. A piece that can't be
//! transcribed is left out with a remark. Source of the events: OpenAI's API reference, "Transcription streaming events".

mod answer;
mod remote;

use self::remote::{Address, Failure, Remote, Wanted};
use super::{
    Availability, Engine, Request, SpeechError, languages, own_child, pass_on,
    pieces::{Cutter, Rules},
    pipe::{ChildError, read_samples, say, say_ready, say_segment, seconds},
    protocol::Line,
};
use crate::{
    model::{EngineId, clock},
    server::{
        config::{self, OpenaiConfig},
        print,
    },
};
use clap::Args;
use std::{path::PathBuf, time::Duration};
use tokio::process::Command;

/// The variable with the key. It is never an argument, because other users of the machine could read that.
const KEY: &str = "HARK_OPENAI_KEY";
/// The variable that names a file with the key.
const KEY_FILE: &str = "HARK_OPENAI_KEY_FILE";
/// The variable with names and terms, which may be private too.
const VOCABULARY: &str = "HARK_VOCABULARY";
/// A piece is silent if no 10 ms of it are louder than this (root mean square, of 32768): -66 dB.
const SILENCE: f64 = 16.0;
/// How many pieces may fail in a row. After so many the server is at fault and not the pieces, and leaving out the rest
/// of the recording would help nobody: the session fails, and Retry continues from where it was.
const MAX_FAILED: u32 = 8;
/// How many parts that were left out are named with their times: as many as leave room for the reason in a remark.
const MAX_NAMED: usize = 6;

pub(super) struct Openai {
    program: Option<PathBuf>,
    url: Option<String>,
    model: String,
    limits: OpenaiConfig,
}

impl Openai {
    pub(super) fn new(program: Option<PathBuf>, url: Option<String>, model: String, limits: OpenaiConfig) -> Self {
        let url = url.map(|u| u.trim_end_matches('/').to_owned()).filter(|u| !u.is_empty());
        Self { program, url, model, limits }
    }
}

impl Engine for Openai {
    fn id(&self) -> EngineId {
        EngineId::Openai
    }

    fn model(&self) -> String {
        self.model.clone()
    }

    fn availability(&self) -> Availability {
        match &self.url {
            None => Availability::Missing {
                reason: "No server is set.".to_owned(),
                install: format!("HARK_OPENAI_URL=https://host/v1 {KEY}=… hark serve"),
            },
            Some(url) if !url.starts_with("http://") && !url.starts_with("https://") => Availability::Missing {
                reason: "The server's address must begin with http:// or https://.".to_owned(),
                install: "HARK_OPENAI_URL=https://host/v1".to_owned(),
            },
            Some(_) => Availability::Ready,
        }
    }

    fn command(&self, request: &Request) -> Result<Command, SpeechError> {
        let url = self.url.as_deref().unwrap_or_default();
        let mut command = own_child(self.program.as_deref(), &["openai", "--url", url, "--model", &self.model])?;
        pass_on(&mut command, [KEY, KEY_FILE]);
        let OpenaiConfig { openai_timeout_secs, openai_tries } = &self.limits;
        command.args(["--timeout", &openai_timeout_secs.to_string(), "--tries", &openai_tries.to_string()]);
        command.args(["--offset", &request.offset.to_string()]);
        if let Some(language) = &request.language {
            command.args(["--language", language]);
        }
        if let Some(vocabulary) = &request.vocabulary {
            command.env(VOCABULARY, vocabulary);
        }
        Ok(command)
    }
}

/// The arguments of the child.
#[derive(Args, Debug)]
pub struct OpenaiArgs {
    /// The server's address, up to and with `/v1`.
    #[arg(long)]
    url: String,
    /// The model asked of it.
    #[arg(long)]
    model: String,
    /// The language spoken.
    #[arg(long)]
    language: Option<String>,
    /// The timeout of an answer, in seconds.
    #[arg(long)]
    timeout: u32,
    /// How often a piece is sent while the server is busy or fails.
    #[arg(long)]
    tries: u32,
    /// Where in the recording the samples begin, in seconds.
    #[arg(long)]
    offset: f64,
}

/// Runs the child, which sends a request for each piece.
pub(super) async fn child(args: &OpenaiArgs) -> Result<(), ChildError> {
    let key_file = std::env::var_os(KEY_FILE).map(PathBuf::from);
    let key = config::read_secret(KEY, key_file.as_deref()).map_err(|e| ChildError::new("internal", e))?;
    let timeout = Duration::from_secs(u64::from(args.timeout));
    let address = Address { url: &args.url, key, timeout, tries: args.tries };
    let language = args.language.as_deref().map(languages::code);
    let wanted = Wanted { model: &args.model, language, vocabulary: std::env::var(VOCABULARY).ok() };
    let remote = Remote::new(address, wanted)?;
    say_ready(&args.model)?;
    let mut pieces = Pieces {
        remote,
        offset: args.offset,
        done: 0,
        answered: false,
        detects: args.language.is_none(),
        left_out: None,
        all_left_out: AllLeftOut::default(),
    };
    let mut cutter = Cutter::new(Rules::LONG);
    let mut at_end = false;
    while !at_end {
        let samples =
            tokio::task::spawn_blocking(read_samples).await.map_err(|e| ChildError::new("io", e.to_string()))??;
        at_end = samples.is_none();
        let complete = match samples {
            Some(samples) => cutter.push(&samples),
            None => vec![cutter.finish()],
        };
        for piece in complete.iter().filter(|p| !p.is_empty()) {
            pieces.transcribe(piece).await?;
        }
    }
    pieces.finish()
}

/// The pieces of a recording, one after the other.
struct Pieces<'a> {
    remote: Remote<'a>,
    /// Where in the recording the first sample is, in seconds.
    offset: f64,
    /// Samples that are done.
    done: usize,
    /// Whether any piece was answered.
    answered: bool,
    /// Whether the server finds out the language, and hasn't said yet which it is.
    detects: bool,
    left_out: Option<LeftOut>,
    all_left_out: AllLeftOut,
}

/// Pieces that failed, one directly after the other.
struct LeftOut {
    /// In samples.
    start: usize,
    end: usize,
    count: u32,
    /// What the server did, to go on after "the transcription server".
    why: String,
}

/// All parts of the recording that were left out and reported. One remark tells of them all, because a session has room for
/// few.
#[derive(Default)]
struct AllLeftOut {
    count: usize,
    /// In seconds.
    length: f64,
    /// The first ones, as people read them.
    named: Vec<String>,
}

impl AllLeftOut {
    /// Adds a part, in seconds of the recording.
    fn add(&mut self, start: f64, end: f64) {
        self.count += 1;
        self.length += end - start;
        if self.named.len() < MAX_NAMED {
            self.named.push(format!("{} to {}", clock(start), clock(end)));
        }
    }

    /// The remark's message. `why` is what the server did last.
    fn message(&self, why: &str) -> String {
        let named = self.named.join(", ");
        if self.count == 1 {
            return format!("{named} could not be transcribed: the transcription server {why}");
        }
        let more = match self.count - self.named.len() {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let (count, length) = (self.count, clock(self.length.round()));
        format!(
            "{count} parts, {length} in all, could not be transcribed: {named}{more}. In the end the transcription server {why}"
        )
    }
}

impl Pieces<'_> {
    async fn transcribe(&mut self, piece: &[i16]) -> Result<(), ChildError> {
        if !is_silent(piece) {
            let failed = self.left_out.as_ref().map_or(0, |left_out| left_out.count);
            match self.remote.transcribe(piece, failed).await {
                Ok(answer) => {
                    self.tell_left_out()?;
                    self.answered = true;
                    if let Some(language) = answer.language.filter(|_| self.detects) {
                        self.detects = false;
                        say(&Line::Language { language: language.to_owned(), probability: None })?;
                    }
                    for segment in answer.segments(seconds(piece.len()), seconds(self.done)) {
                        say_segment(segment)?;
                    }
                }
                Err(Failure::Piece(why)) => self.leave_out(piece.len(), why)?,
                Err(Failure::Server(error)) => return Err(error),
            }
        }
        self.done += piece.len();
        say(&Line::Progress { processed: seconds(self.done), settled: None })?;
        Ok(())
    }

    fn leave_out(&mut self, length: usize, why: String) -> Result<(), ChildError> {
        let end = self.done + length;
        let (start, count) = self.left_out.as_ref().map_or((self.done, 0), |before| (before.start, before.count));
        print::error(format_args!("the transcription server {why}"));
        self.left_out = Some(LeftOut { start, end, count: count + 1, why });
        if count + 1 == MAX_FAILED { Err(self.failed()) } else { Ok(()) }
    }

    /// Reports pieces that failed, once it is known that the server still answers others.
    fn tell_left_out(&mut self) -> Result<(), ChildError> {
        let Some(LeftOut { start, end, why, .. }) = self.left_out.take() else { return Ok(()) };
        self.all_left_out.add(self.offset + seconds(start), self.offset + seconds(end));
        let message = self.all_left_out.message(&why);
        say(&Line::Remark { code: "left_out".to_owned(), message, replaces: true })?;
        Ok(())
    }

    fn failed(&self) -> ChildError {
        let why = self.left_out.as_ref().map(|left_out| left_out.why.as_str()).unwrap_or_default();
        ChildError::new("refused", format!("The transcription server {why}"))
    }

    fn finish(mut self) -> Result<(), ChildError> {
        if self.left_out.is_some() && !self.answered {
            return Err(self.failed());
        }
        self.tell_left_out()
    }
}

/// Whether there is nothing to hear. Servers answer silence with invented text or with an error.
fn is_silent(piece: &[i16]) -> bool {
    piece.chunks(160).all(|frame| {
        let sum: f64 = frame.iter().map(|sample| f64::from(*sample).powi(2)).sum();
        (sum / frame.len() as f64).sqrt() < SILENCE
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Remark;

    #[test]
    fn one_remark_tells_of_all_that_was_left_out() {
        let mut all = AllLeftOut::default();
        all.add(14.5, 29.2);
        assert_eq!(all.message("failed."), "0:14 to 0:29 could not be transcribed: the transcription server failed.");
        all.add(43.0, 58.0);
        assert_eq!(
            all.message("failed."),
            "2 parts, 0:30 in all, could not be transcribed: 0:14 to 0:29, 0:43 to 0:58. In the end the transcription server failed."
        );
        for n in 0..1000 {
            let start = 36_000.0 + f64::from(n) * 30.0;
            all.add(start, start + 15.0);
        }
        let message = all.message(&"x".repeat(200));
        assert!(
            message.starts_with("1002 parts, 4:10:30 in all, could not be transcribed: 0:14 to 0:29, "),
            "{message}"
        );
        // The numbers are in what is kept of it, and the beginning of the reason too.
        let kept = Remark::new("left_out", &message).message;
        assert!(
            kept.contains("10:01:30 to 10:01:45, and 996 more. In the end the transcription server xxxxx"),
            "{kept}"
        );
    }

    #[test]
    fn only_what_nobody_could_hear_is_silent() {
        let hum = |level: f32| (0..16_000).map(|n| ((n as f32 * 0.3).sin() * level) as i16).collect::<Vec<_>>();
        assert!(is_silent(&[]) && is_silent(&[0; 16_000]) && is_silent(&hum(10.0)));
        assert!(!is_silent(&hum(60.0)));
        // A single click of speech in a long pause.
        let mut click = vec![0; 16_000];
        click.extend(&hum(500.0)[..400]);
        assert!(!is_silent(&click));
    }
}
