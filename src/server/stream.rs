//! The status plane: every change becomes one frame, and every stream hands out clones of it.
//! `http::status` opens streams; the bus publishes into the hub.

mod body;
mod frame;
mod hub;

pub use body::{Snapshot, SnapshotPage, StatusBody};
pub use frame::Frame;
pub use hub::{Bye, Hub, Subscription};
