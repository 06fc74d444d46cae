//! Status streams: every change is encoded once as a frame, and every stream sends clones of it. `http::status` opens
//! streams, the bus publishes into the hub, and the accept loop gives connections to `direct`.

mod body;
mod direct;
mod frame;
mod gzip;
mod hub;
mod life;
mod lock;
mod meters;
mod permits;
mod slot;
mod socket;
mod source;
mod status_stream;
mod ticks;
mod topic;
mod watchers;

pub use body::StatusBody;
pub use direct::{Direct, Handover};
pub(crate) use direct::{Dispatch, HeadLimits, dispatch};
pub use frame::{Bye, Frame, Kind};
pub use hub::{Current, Hub, StreamLimits};
pub use permits::{Refusal, StreamPermit};
pub use socket::Peer;
pub(crate) use socket::{ConnectionTimeouts, InFlightRequest, InFlightResponse, Socket, prepare};
pub use status_stream::{RequestedAt, Source, SourceError, SourceFuture, StatusStream};
pub use topic::Outgoing;
