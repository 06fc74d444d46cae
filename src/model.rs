//! The types that the server and the browser share: sessions, their status and segments, and the calculations on them.
//! Every type that goes over the wire is defined here. No I/O and no clock: callers pass the time in.

mod admin;
pub mod advice;
pub mod ago;
mod arm;
pub mod dashboard;
mod engine;
mod error;
pub mod figures;
pub mod find;
mod id;
mod list;
pub mod load;
pub mod many;
pub mod page;
pub mod playback;
mod progress;
mod remark;
mod report;
mod search;
mod segment;
mod selection;
mod session;
mod stages;
pub mod stats;
mod status;
pub mod text;
mod timestamp;
pub mod transcript;
pub mod upload;

pub use admin::{AdminAction, AdminOutcome, AdminSession, AdminSessionPage};
pub use arm::{Arm, Browser};
pub use engine::{EngineId, EngineInfo, ModelDownload, ModelInfo, UnknownEngine};
pub use error::{ApiError, ErrorBody};
pub use id::{EventId, InvalidEventId, SessionId};
pub use list::{Condition, Filter, InvalidFilter, Order};
pub use progress::{
    ArrivalRange, Meter, arrival_moved, percent, queue_arrival, queue_wait, retry_after, round_speed, stall_timeout,
};
pub use remark::Remark;
pub use report::{Byes, ConnectionReport, DELAY_BOUNDS_MS, Delays, ModeTimes, Requests, StreamFailures};
pub use search::{FoundSession, SearchHit, SearchPage};
pub use segment::{Segment, SegmentEvent, Word, speaker_label, unsure_words};
pub use selection::{AnotherChoice, Channels, Track, UnknownChannels, UnknownTrack, no_such_track};
pub use session::{DetectedLanguage, Media, Session, SessionDetail, SessionPage, Title, TitleError, Transcript};
pub use stages::StageLog;
pub use status::{Deleted, Failure, Heartbeat, Renamed, Stage, StageName, State, Status, StatusList};
pub use text::{bytes, clock, duration};
pub use timestamp::Timestamp;
