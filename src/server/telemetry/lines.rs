//! The lines that requests make in the log, of each kind at most so many a second, so that ten thousand streams that come back
//! at once don't fill a disk. What is left out is counted and told. Called where such a line is written; the node calls
//! [`next_second`].

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The most lines of each kind in a second; `HARK_LOG_RATE`.
static RATE: AtomicU32 = AtomicU32::new(20);

/// Lines of one kind.
#[derive(Debug)]
pub struct Lines {
    what: &'static str,
    /// In this second.
    written: AtomicU32,
    left_out: AtomicU32,
}

pub static STREAMS: Lines = Lines::about("closed status streams");
pub static REFUSED_STREAMS: Lines = Lines::about("refused status streams");
pub static REFUSED_UPLOADS: Lines = Lines::about("refused uploads");
pub static REFUSED_CONNECTIONS: Lines = Lines::about("refused connections");
pub static REFUSED_REPORTS: Lines = Lines::about("refused reports of pages");
pub static WORKER_REQUESTS: Lines = Lines::about("requests of outside workers");
pub static REFUSED_MESSAGES: Lines = Lines::about("refused reports of outside workers");

static ALL: [&Lines; 7] = [
    &STREAMS,
    &REFUSED_STREAMS,
    &REFUSED_UPLOADS,
    &REFUSED_CONNECTIONS,
    &REFUSED_REPORTS,
    &WORKER_REQUESTS,
    &REFUSED_MESSAGES,
];

impl Lines {
    const fn about(what: &'static str) -> Self {
        Self { what, written: AtomicU32::new(0), left_out: AtomicU32::new(0) }
    }

    /// Whether another line may be written. One that may not is counted.
    pub fn admit(&self) -> bool {
        let admitted = self.written.fetch_add(1, Relaxed) < RATE.load(Relaxed);
        if !admitted {
            self.left_out.fetch_add(1, Relaxed);
        }
        admitted
    }

    fn next_second(&self) -> u32 {
        self.written.store(0, Relaxed);
        self.left_out.swap(0, Relaxed)
    }
}

/// Sets the most lines of each kind in a second.
pub fn set_rate(rate: u32) {
    RATE.store(rate, Relaxed);
}

/// Begins the next second, and tells what was left out in the one before. Call it once a second.
pub fn next_second() {
    for lines in ALL {
        let left_out = lines.next_second();
        if left_out > 0 {
            tracing::info!(
                left_out,
                "{left_out} lines about {} were left out of the log; HARK_LOG_RATE says how many it has in a second",
                lines.what
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_rate_are_counted() {
        let lines = Lines::about("tests");
        let rate = RATE.load(Relaxed);
        let admitted = (0..rate + 5).filter(|_| lines.admit()).count();
        assert_eq!((admitted, lines.next_second()), (rate as usize, 5));
        assert!(lines.admit());
        assert_eq!(lines.next_second(), 0);
    }
}
