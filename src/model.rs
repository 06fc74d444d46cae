//! What the server and the browser share: sessions, their status and segments, and the arithmetic about them.
//! Types that cross the wire are defined here and nowhere else. No I/O, no clock: callers pass the time in.

mod engine;
mod error;
mod id;
mod progress;
mod segment;
mod session;
mod status;
pub mod text;
mod timestamp;
pub mod transcript;

pub use engine::{EngineId, EngineInfo, UnknownEngine};
pub use error::{ApiError, ErrorBody};
pub use id::{EventId, InvalidEventId, SessionId};
pub use progress::{Meter, percent, queue_arrival};
pub use segment::{Segment, SegmentEvent, Word};
pub use session::{Media, Session, SessionPage, Title, TitleError, Transcript};
pub use status::{Failure, Heartbeat, Stage, State, Status, StatusList};
pub use text::{bytes, clock, duration};
pub use timestamp::Timestamp;
