//! A stand-in for servers with the OpenAI transcription API, with the habits that real ones have. Its answer is a function
//! of the request, and it records every request.

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{FromRequest, Multipart, Request},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// A request that the server received.
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub path: String,
    pub seconds: f64,
    /// The loudest sample, by which tests know a piece again.
    pub peak: u16,
    /// Every field of the form but the file.
    pub fields: Vec<(String, String)>,
    pub authorisation: Option<String>,
}

impl Received {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    async fn read(request: Request) -> Self {
        let authorisation = request.headers().get(header::AUTHORIZATION).map(|v| v.to_str().unwrap().to_owned());
        let mut received = Self { path: request.uri().path().to_owned(), authorisation, ..Self::default() };
        let mut form = Multipart::from_request(request, &()).await.unwrap();
        while let Some(field) = form.next_field().await.unwrap() {
            let name = field.name().unwrap().to_owned();
            let bytes = field.bytes().await.unwrap();
            if name == "file" {
                assert_eq!((&bytes[..4], &bytes[8..12]), (&b"RIFF"[..], &b"WAVE"[..]));
                let samples = bytes[44..].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
                received.seconds = samples.len() as f64 / 16_000.0;
                received.peak = samples.map(i16::unsigned_abs).max().unwrap_or_default();
            } else {
                received.fields.push((name, String::from_utf8(bytes.to_vec()).unwrap()));
            }
        }
        received
    }
}

/// A running server.
pub struct FakeServer {
    /// Its address, with `/v1`.
    pub url: String,
    requests: Arc<Mutex<Vec<Received>>>,
}

impl FakeServer {
    /// Starts a server that answers with this function, which is also given how many requests came before.
    pub async fn start(answer: impl Fn(usize, &Received) -> Response + Send + Sync + 'static) -> Self {
        let requests: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (log, answer) = (Arc::clone(&requests), Arc::new(answer));
        let router = Router::new().fallback(async move |request: Request| {
            let received = Received::read(request).await;
            let mut log = log.lock().unwrap();
            log.push(received.clone());
            answer(log.len() - 1, &received)
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, requests }
    }

    pub fn requests(&self) -> Vec<Received> {
        self.requests.lock().unwrap().clone()
    }
}

/// An answer of a media type.
pub fn typed(kind: &'static str, body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, kind)], body.into()).into_response()
}

pub fn json(body: impl Into<String>) -> Response {
    typed("application/json", body.into())
}

/// An answer with a line of text in the piece's first second.
pub fn text(text: &str) -> Response {
    json(serde_json::json!({"text": text, "segments": [{"start": 0.0, "end": 1.0, "text": text}]}).to_string())
}

/// An error response in OpenAI's form, after which the client need not wait.
pub fn refused(status: StatusCode, message: &str) -> Response {
    let body = serde_json::json!({"error": {"message": message, "type": "server_error"}}).to_string();
    (status, [(header::RETRY_AFTER, "0"), (header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Events of a stream.
pub fn events(data: &[&str]) -> Response {
    typed("text/event-stream", data.iter().map(|data| format!("data: {data}\n\n")).collect::<String>())
}

/// A body that goes on for ever, as fast as it is read.
pub fn endless() -> Body {
    let piece = Bytes::from(vec![b' '; 64 * 1024]);
    Body::from_stream(futures::stream::repeat_with(move || Ok::<_, std::convert::Infallible>(piece.clone())))
}

/// A body that goes on for ever, a byte every tenth of a second.
pub fn dripping() -> Body {
    let next = async |()| {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from_static(b" ")), ()))
    };
    Body::from_stream(futures::stream::unfold((), next))
}
