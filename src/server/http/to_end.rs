//! Runs what changes something to its end once its body has come, even if the client has gone. hyper drops the future that
//! answers a request together with the connection, and a change that is dropped between two steps is stored and never
//! announced, or half done. Called by `http` for the API and the pages of administrators, and by `router` for pages.

use crate::server::body::WholeBody;
use axum::{
    body::{Body, HttpBody},
    extract::Request,
    http::{Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::Instrument;

/// Answers a request with `answer`; to its end if it may change something. What only reads ends with its client: a player that
/// asks for a copy, or somebody who searches, has no use for the answer any more.
pub(super) async fn finish_changes<F>(request: Request, answer: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response> + Send + 'static,
{
    match *request.method() {
        Method::GET | Method::HEAD | Method::OPTIONS => answer(request).await,
        _ => finish(request, answer).await,
    }
}

/// Passes on a request, to its end whatever it is.
pub async fn run_to_end(request: Request, next: Next) -> Response {
    finish(request, |request| next.run(request)).await
}

/// Answers a request in a task of its own, which nobody drops. Its body is read there with the limits that it has; if the
/// client goes before all of it has come, it breaks off, so an upload ends with its client.
async fn finish<F>(request: Request, answer: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response> + Send + 'static,
{
    let (parts, body) = request.into_parts();
    // `client` lives for as long as somebody waits for the answer.
    let (body, client) = if body.is_end_stream() {
        (body, None)
    } else {
        let (body, client) = WholeBody::new(body);
        (Body::new(body), Some(client))
    };
    let response = tokio::spawn(answer(Request::from_parts(parts, body)).in_current_span()).await;
    drop(client);
    match response {
        Ok(response) => response,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The node has been stopped.
            Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, body::to_bytes, middleware, routing::any};
    use bytes::Bytes;
    use std::{convert::Infallible, sync::Arc};
    use tokio::{
        sync::{Notify, mpsc},
        task::JoinHandle,
    };
    use tower::ServiceExt;

    /// A request whose body and handler go on when the test says so.
    struct UnderWay {
        body: mpsc::UnboundedSender<Bytes>,
        begun: Arc<Notify>,
        read: Arc<Notify>,
        go_on: Arc<Notify>,
        /// The bytes that the handler got, or none if the body broke off; nothing if the handler didn't come to its end.
        ended: mpsc::UnboundedReceiver<Option<usize>>,
        answer: JoinHandle<StatusCode>,
    }

    impl UnderWay {
        fn begin(method: &Method) -> Self {
            let [begun, read, go_on] = [(); 3].map(|()| Arc::new(Notify::new()));
            let (body, pieces) = mpsc::unbounded_channel::<Bytes>();
            let (end, ended) = mpsc::unbounded_channel();
            let handler = {
                let (begun, read, go_on) = (Arc::clone(&begun), Arc::clone(&read), Arc::clone(&go_on));
                async move |request: Request| {
                    begun.notify_one();
                    let bytes = to_bytes(request.into_body(), usize::MAX).await.ok().map(|bytes| bytes.len());
                    read.notify_one();
                    go_on.notified().await;
                    let _ = end.send(bytes);
                }
            };
            let routes = Router::new()
                .route("/", any(handler))
                .layer(middleware::from_fn(|request, next: Next| finish_changes(request, |request| next.run(request))));
            let pieces = futures::stream::unfold(pieces, |mut pieces| async {
                Some((Ok::<_, Infallible>(pieces.recv().await?), pieces))
            });
            let request = Request::builder().method(method).uri("/").body(Body::from_stream(pieces)).unwrap();
            let answer = tokio::spawn(async move { routes.oneshot(request).await.unwrap().status() });
            Self { body, begun, read, go_on, ended, answer }
        }

        /// Drops what waits for the answer, as hyper does when the client has gone.
        async fn client_goes(&mut self) {
            self.answer.abort();
            assert!((&mut self.answer).await.unwrap_err().is_cancelled());
        }
    }

    #[tokio::test]
    async fn a_change_is_made_to_its_end_though_its_client_has_gone() {
        for (method, expected) in [(Method::POST, Some(Some(1))), (Method::DELETE, Some(Some(1))), (Method::GET, None)]
        {
            let mut request = UnderWay::begin(&method);
            request.body.send(Bytes::from_static(b"x")).unwrap();
            drop(std::mem::replace(&mut request.body, mpsc::unbounded_channel().0));
            request.read.notified().await;
            request.client_goes().await;
            request.go_on.notify_one();
            assert_eq!(request.ended.recv().await, expected, "{method}");
        }
    }

    #[tokio::test]
    async fn a_body_breaks_off_with_its_client() {
        for (gone, expected) in [(false, Some(2)), (true, None)] {
            let mut request = UnderWay::begin(&Method::PUT);
            request.begun.notified().await;
            request.body.send(Bytes::from_static(b"xy")).unwrap();
            if gone {
                request.client_goes().await;
            }
            // As hyper does when it drops a connection: the body just ends.
            drop(std::mem::replace(&mut request.body, mpsc::unbounded_channel().0));
            request.go_on.notify_one();
            assert_eq!(request.ended.recv().await, Some(expected), "gone: {gone}");
        }
    }
}
