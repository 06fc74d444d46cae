//! One upload in parts: what is asked of the server next, from what it has answered. Pure, without a clock.
//! `feed/browser/upload.rs` asks, and `feed/uploads.rs` is the queue of all uploads.

/// The smallest part, in bytes, and the first one. They grow with the speed of the connection.
const MIN_PART: u64 = 256 * 1024;
const FIRST_PART: u64 = 512 * 1024;
/// How long a part should take, in seconds: short enough to show progress and to lose little, long enough to be worth a request.
const QUICK: f64 = 1.0;
const SLOW: f64 = 4.0;
/// The pause after a failure, in seconds: it doubles up to the longest.
const FIRST_PAUSE: u32 = 1;
const MAX_PAUSE: u32 = 30;
/// A server that asks for a longer pause than this, in seconds, isn't asked again by itself.
const MAX_ASKED_PAUSE: u32 = 30;
/// How often in a row the server may answer with an error that may pass. The network may fail as often as it likes.
const MAX_ERRORS: u32 = 8;

/// What is asked next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The hash of the file, of the browser.
    Hash,
    /// To begin an upload.
    Create,
    /// How much of the upload is there.
    Ask,
    /// To append the file's bytes from the first to the second place.
    Send(u64, u64),
    /// For the session with this id, which the upload has become, or which has the same recording.
    Load { id: String, sent_before: bool },
    /// Nothing for so many seconds, or until the network is back.
    Wait(u32),
    /// Nothing more: it failed, with a message for people.
    Fail(String),
}

/// An answer of the server, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The HTTP status; 0 if there was no answer.
    pub status: u16,
    /// The message of an error of Hark itself.
    pub message: Option<String>,
    /// The seconds of `Retry-After`.
    pub retry_after: Option<u32>,
    /// How many bytes are there.
    pub offset: Option<u64>,
    /// The session's id.
    pub session: Option<String>,
}

/// An upload under way.
#[derive(Clone, Debug, PartialEq)]
pub struct Transfer {
    /// The size of the file, in bytes.
    bytes: u64,
    /// The largest part, and the size of the next one.
    limit: u64,
    part: u64,
    /// How many bytes are there.
    offset: u64,
    /// Whether the upload has an address.
    begun: bool,
    /// How often it had to pause since a part has arrived, and how often in a row the server has answered with an error.
    pauses: u32,
    errors: u32,
}

impl Transfer {
    /// An upload of a file of so many bytes, in parts of at most `limit`. `begun`: whether an earlier page has begun it.
    #[must_use]
    pub fn new(bytes: u64, limit: u64, begun: bool) -> Self {
        Self { bytes, limit, part: FIRST_PART.min(limit), offset: 0, begun, pauses: 0, errors: 0 }
    }

    /// How many bytes of it are there.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the server may have something of it.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.begun
    }

    /// The first step, and the step after a pause.
    #[must_use]
    pub fn next(&self) -> Step {
        if self.begun { Step::Ask } else { Step::Hash }
    }

    /// The step after an answer, which has taken so many seconds.
    #[must_use]
    pub fn on(&mut self, answer: Answer, seconds: f64) -> Step {
        match answer.status {
            200..=299 => self.taken(answer, seconds),
            // Gone or expired: it begins anew.
            404 | 410 if self.begun => {
                (self.begun, self.offset) = (false, 0);
                Step::Hash
            }
            413 if answer.message.is_none() && self.begun && self.part > MIN_PART => {
                // Something between here and Hark accepts only smaller ones.
                self.limit = (self.part / 2).max(MIN_PART);
                self.part = self.limit;
                Step::Ask
            }
            413 if answer.message.is_none() => {
                Step::Fail("Something between here and Hark refuses files of this size.".to_owned())
            }
            0 | 502 | 504 => self.pause(None),
            408 | 409 | 423 | 425 | 429 | 500 | 503
                if answer.retry_after.is_none_or(|pause| pause <= MAX_ASKED_PAUSE) && self.errors < MAX_ERRORS =>
            {
                self.errors += 1;
                self.pause(answer.retry_after)
            }
            status => {
                // No recording, or not the file that it was: the server has removed it.
                self.begun &= ![422, 460].contains(&status);
                let unknown = || format!("The server answered with status {status}. Try again.");
                Step::Fail(answer.message.unwrap_or_else(unknown))
            }
        }
    }

    fn taken(&mut self, answer: Answer, seconds: f64) -> Step {
        self.errors = 0;
        if let Some(id) = answer.session {
            return Step::Load { id, sent_before: !self.begun };
        }
        let before = self.offset;
        let grows = self.begun && answer.offset.is_some_and(|offset| offset == before + self.part);
        self.begun = true;
        self.offset = answer.offset.unwrap_or_default().min(self.bytes);
        if self.offset > before {
            self.pauses = 0;
        }
        if grows && seconds < QUICK {
            self.part = (self.part * 2).min(self.limit);
        } else if grows && seconds > SLOW {
            self.part = (self.part / 2).max(MIN_PART.min(self.limit));
        }
        Step::Send(self.offset, self.bytes.min(self.offset + self.part))
    }

    fn pause(&mut self, asked: Option<u32>) -> Step {
        self.pauses = self.pauses.saturating_add(1);
        self.part = (self.part / 2).max(MIN_PART.min(self.limit));
        let pause = FIRST_PAUSE << self.pauses.saturating_sub(1).min(5);
        Step::Wait(pause.min(MAX_PAUSE).max(asked.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests;
