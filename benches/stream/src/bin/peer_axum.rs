//! The baseline: status streams with `axum::response::sse` and a `tokio::sync::watch` channel for each session, as a first
//! implementation would have them.

use axum::{
    Router,
    extract::{Path, State},
    response::sse::{Event, KeepAlive, Sse},
    routing::{get, put},
    serve::ListenerExt,
};
use futures::{Stream, StreamExt};
use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, RwLock},
    time::Duration,
};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

type Sessions = Arc<RwLock<HashMap<String, watch::Sender<Arc<str>>>>>;

async fn publish(State(sessions): State<Sessions>, Path(id): Path<String>, body: String) {
    let body: Arc<str> = body.into();
    if let Some(sender) = sessions.read().expect("never poisoned").get(&id) {
        sender.send_replace(body);
        return;
    }
    let mut sessions = sessions.write().expect("never poisoned");
    sessions.entry(id).or_insert_with(|| watch::channel(Arc::clone(&body)).0).send_replace(body);
}

async fn stream(
    State(sessions): State<Sessions>,
    Path(id): Path<String>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let receiver = {
        let mut sessions = sessions.write().expect("never poisoned");
        sessions.entry(id).or_insert_with(|| watch::channel("".into()).0).subscribe()
    };
    let events = WatchStream::new(receiver).map(|status| Ok(Event::default().event("status").data(&*status)));
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let routes = Router::new()
        .route("/sessions/{id}", put(publish))
        .route("/sessions/{id}/stream", get(stream))
        .with_state(Sessions::default());
    let listener = tokio::net::TcpListener::bind(addr).await?.tap_io(|socket| drop(socket.set_nodelay(true)));
    axum::serve(listener, routes.into_make_service()).await
}
