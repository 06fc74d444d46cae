//! The types that the server and the browser share: sessions, their status and segments, and the calculations on them.
//! Every type that goes over the wire is defined here. No I/O and no clock: callers pass the time in.

mod engine;
mod error;
mod id;
pub mod page;
mod progress;
mod remark;
mod report;
mod segment;
mod selection;
mod session;
mod stages;
mod status;
pub mod text;
mod timestamp;
pub mod transcript;

pub use engine::{EngineId, EngineInfo, ModelDownload, ModelInfo, UnknownEngine};
pub use error::{ApiError, ErrorBody};
pub use id::{EventId, InvalidEventId, SessionId};
pub use progress::{
    ArrivalRange, Meter, arrival_moved, percent, queue_arrival, queue_wait, retry_after, stall_timeout,
};
pub use remark::Remark;
pub use report::{ConnectionReport, DELAY_BOUNDS_MS, Delays, ModeTimes, StreamFailures};
pub use segment::{Segment, SegmentEvent, Word, speaker_label, unsure_words};
pub use selection::{AnotherChoice, Channels, Track, UnknownChannels, UnknownTrack, no_such_track};
pub use session::{DetectedLanguage, Media, Session, SessionDetail, SessionPage, Title, TitleError, Transcript};
pub use stages::StageLog;
pub use status::{Failure, Heartbeat, Stage, State, Status, StatusList};
pub use text::{bytes, clock, duration};
pub use timestamp::Timestamp;
