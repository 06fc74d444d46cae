//! The modules of the server. `node` puts them together and runs them; `main` and the tests call [`Node::start`] and
//! [`Node::serve`].

mod accept;
pub mod address;
pub mod audio;
pub mod body;
pub mod bus;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connections;
mod counts;
pub mod disk;
pub mod doctor;
pub mod error;
pub mod event;
pub mod folders;
pub mod guard;
pub mod health;
pub mod http;
pub mod identity;
pub mod jobs;
pub mod keys;
mod language;
pub mod manage;
pub mod media;
pub mod node;
pub mod outside;
pub mod owner;
pub mod pages;
mod programs;
pub mod report_limits;
pub mod retention;
pub mod router;
pub mod sessions;
pub mod shares;
pub mod space;
pub mod speech;
pub mod state;
pub mod store;
pub mod stream;
pub mod stuck;
pub mod telemetry;
pub mod uploads;

pub use node::{Node, StartError};
