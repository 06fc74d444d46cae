//! What a child process writes to its standard error. All of it is read, because a process whose pipe is full stands still,
//! and one whose pipe is closed may die of it; the last lines are kept for the log. Used by `audio` and `speech`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    task::JoinHandle,
    time,
};

/// How many lines are kept, and how many characters of each. There may be a line for each damaged packet of a recording.
const LINES: usize = 5;
const LINE_CHARS: usize = 300;
/// Bytes after which a line is cut.
const LINE_BYTES: usize = 4 * LINE_CHARS;
/// How long the rest is waited for after the process has ended: what it started may keep the pipe open.
const REST: Duration = Duration::from_secs(1);

/// Reads standard error in a task of its own, which ends with the pipe.
pub(super) struct StderrTail {
    lines: Arc<Mutex<VecDeque<String>>>,
    /// None once it has been waited for.
    reading: Option<JoinHandle<()>>,
}

impl StderrTail {
    /// `source`: what writes, for the log, where each line is told at the level `debug`.
    pub(super) fn read(stderr: impl AsyncRead + Unpin + Send + 'static, source: &'static str) -> Self {
        let lines = Arc::default();
        let reading = Some(tokio::spawn(collect(stderr, Arc::clone(&lines), source)));
        Self { lines, reading }
    }

    /// The last lines, of a process that has ended. May be dropped and called again.
    pub(super) async fn last_lines(&mut self) -> String {
        if let Some(reading) = &mut self.reading {
            let _ = time::timeout(REST, reading).await;
            self.reading = None;
        }
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        Vec::from(lines.clone()).join(" / ")
    }
}

async fn collect(mut stderr: impl AsyncRead + Unpin, lines: Arc<Mutex<VecDeque<String>>>, source: &'static str) {
    let keep = |line: &mut Vec<u8>| {
        let text: String = String::from_utf8_lossy(line).trim().chars().take(LINE_CHARS).collect();
        line.clear();
        if text.is_empty() {
            return;
        }
        tracing::debug!(line = text, "standard error of {source}");
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(text);
    };
    let (mut buffer, mut line) = (vec![0; 4_096], Vec::new());
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        // Progress bars return to the beginning of their line and never end it.
        for part in buffer[..read].split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            line.extend_from_slice(part);
            if part.ends_with(b"\n") || part.ends_with(b"\r") || line.len() >= LINE_BYTES {
                keep(&mut line);
            }
        }
    }
    keep(&mut line);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn last_lines(written: &[u8]) -> String {
        StderrTail::read(std::io::Cursor::new(written.to_vec()), "a test").last_lines().await
    }

    #[tokio::test]
    async fn the_last_lines_are_kept() {
        assert_eq!(last_lines(b"").await, "");
        assert_eq!(last_lines(b"1\n2\n\n 3 \r\n4\n5\n6").await, "2 / 3 / 4 / 5 / 6");
    }

    #[tokio::test]
    async fn what_is_no_text_is_read_on() {
        assert_eq!(last_lines(b"caf\xe9\nafter it\n").await, "caf\u{fffd} / after it");
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_cut() {
        let mut bar: Vec<u8> = (0..100).flat_map(|percent| format!("\r{percent}%").into_bytes()).collect();
        assert_eq!(last_lines(&bar).await, "95% / 96% / 97% / 98% / 99%");
        bar = vec![b'x'; 10_000_000];
        assert_eq!(last_lines(&bar).await, vec!["x".repeat(LINE_CHARS); LINES].join(" / "));
    }
}
