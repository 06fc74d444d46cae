//! The accept loop: it limits how many connections there are and how long each may be silent, and decides who serves
//! it: `stream::direct` if its first request opens a stream, hyper otherwise. Requests of HTTP/2, of which a connection
//! carries many, are limited as connections are. A node that serves calls it, and so does
//! any node with an address for monitoring.

use super::{
    address::{self, ClientAddress, PeerAddress},
    config::{HttpConfig, StreamPath},
    connections::{Admission, ConnectionLimits, ConnectionPermit, Connections, Full, RequestPermit, SpareConnection},
    error::Error,
    guard,
    state::AppState,
    stream::{self, ConnectionTimeouts, Dispatch, Hub, InFlightRequest, InFlightResponse, Peer},
};
use axum::{
    Router,
    body::{Body, HttpBody},
    http::{Request, Response},
    response::IntoResponse,
};
use bytes::Bytes;
use http_body::Frame;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;
use tracing::Instrument;

/// How long requests in flight have to finish when the node stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(8);
/// How much HTTP/2 buffers of a request's body that wasn't read yet, and of an answer that its client doesn't read, in
/// bytes; and how much of all bodies of a connection.
const STREAM_BUFFER: u32 = 64 * 1024;
const CONNECTION_BUFFER: u32 = 256 * 1024;
/// How long a connection beyond the limits has for its request and its answer.
const SPARE_TIMEOUT: Duration = Duration::from_secs(5);
/// The smallest buffer that hyper allows. A health check is smaller.
const SPARE_BUFFER: usize = 8 * 1024;
/// How long an HTTP/2 client has to close an idle connection after it received `GOAWAY`.
const HTTP2_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The paths that are answered beyond the limits too.
const HEALTH: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Serves `router` on `listener` until `stop`, then closes all connections.
pub(super) async fn accept(
    state: &AppState,
    router: Router,
    limits: ConnectionLimits,
    listener: TcpListener,
    stop: &CancellationToken,
) {
    let server = Arc::new(Server::new(state, router, limits));
    let tasks = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((socket, peer)) => {
                stream::prepare(&socket);
                let from = PeerAddress(peer.ip());
                let proxy = address::is_proxy(peer.ip(), &state.settings.network.trusted_proxies);
                let counted = (!proxy).then(|| ClientAddress::of(peer.ip()));
                match Connections::admit(&server.connections, counted) {
                    Admission::Served(permit) => {
                        let dispatched = Arc::clone(&server).dispatch(socket, from, permit, tasks.clone());
                        drop(tasks.spawn(dispatched.in_current_span()));
                    }
                    Admission::Refused(spare, full) => {
                        drop(tasks.spawn(Arc::clone(&server).refuse(socket, from, spare, full)));
                        server.connections.wait_for_evicted().await;
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted; trying again in 100 ms");
                // The usual reason is a lack of file descriptors; waiting gives other connections time to close.
                time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    state.hub.close();
    server.stop.cancel();
    tasks.close();
    if time::timeout(SHUTDOWN_TIMEOUT, tasks.wait()).await.is_err() {
        let (open, secs) = (tasks.len(), SHUTDOWN_TIMEOUT.as_secs());
        tracing::warn!(
            open,
            grace_secs = secs,
            "{open} connections did not end within {secs} s of the stop and were cut off"
        );
    }
}

/// Serves connections, each in a task of its own.
struct Server {
    router: Router,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    hub: Arc<Hub>,
    path: StreamPath,
    connections: Arc<Connections>,
    limits: ConnectionLimits,
    head: stream::HeadLimits,
    timeouts: ConnectionTimeouts,
    stop: CancellationToken,
}

impl Server {
    fn new(state: &AppState, router: Router, limits: ConnectionLimits) -> Self {
        let config: &HttpConfig = &state.settings.http;
        let secs = |secs: u32| Duration::from_secs(secs.into());
        let mut http1 = http1::Builder::new();
        // `drive` limits the time for a head, so that a connection may be idle for longer than that.
        http1.max_buf_size(config.max_head_bytes as usize).header_read_timeout(None);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(secs(config.ping_secs))
            .keep_alive_timeout(secs(config.ping_secs))
            .max_concurrent_streams(config.max_requests_per_connection)
            .max_header_list_size(config.max_head_bytes)
            .initial_stream_window_size(STREAM_BUFFER)
            .initial_connection_window_size(CONNECTION_BUFFER)
            .max_send_buf_size(STREAM_BUFFER as usize);
        Self {
            router,
            http1,
            http2,
            hub: Arc::clone(&state.hub),
            path: state.settings.streams.stream_path,
            connections: Arc::new(Connections::new(limits)),
            limits,
            head: stream::HeadLimits { bytes: config.max_head_bytes as usize, time: secs(config.head_secs) },
            timeouts: ConnectionTimeouts {
                idle: secs(config.idle_secs),
                head: Some(secs(config.head_secs)),
                answer: secs(config.stalled_secs),
            },
            stop: CancellationToken::new(),
        }
    }

    /// Decides by a connection's first request who serves it. The rest of the connection runs in a task of its own, so
    /// that the task holds nothing that only the beginning needed.
    async fn dispatch(
        self: Arc<Self>,
        socket: TcpStream,
        from: PeerAddress,
        permit: ConnectionPermit,
        tasks: TaskTracker,
    ) {
        let direct = (self.path == StreamPath::Direct).then_some(&self.router);
        let dispatched = self.stop.run_until_cancelled(stream::dispatch(socket, from, self.head, direct)).await;
        match dispatched.unwrap_or(Dispatch::Closed) {
            Dispatch::Stream(writer) => drop(tasks.spawn(writer.with_permit(permit))),
            Dispatch::Http1(socket, already_read) => {
                drop(tasks.spawn(self.serve_http1(socket, from, already_read, permit).in_current_span()))
            }
            Dispatch::Http2(socket, already_read) => {
                drop(tasks.spawn(self.serve_http2(socket, from, already_read, permit).in_current_span()))
            }
            Dispatch::Closed => {}
        }
    }

    async fn serve_http1(
        self: Arc<Self>,
        socket: TcpStream,
        from: PeerAddress,
        already_read: Bytes,
        _: ConnectionPermit,
    ) {
        let peer = self.hub.peer();
        let socket = TokioIo::new(stream::Socket::new(socket, already_read, Arc::clone(&peer)));
        let connection = self.http1.serve_connection(socket, self.service(from, Arc::clone(&peer), None));
        self.drive(connection, &peer, self.timeouts).await;
    }

    async fn serve_http2(
        self: Arc<Self>,
        socket: TcpStream,
        from: PeerAddress,
        already_read: Bytes,
        permit: ConnectionPermit,
    ) {
        let peer = self.hub.peer();
        let socket = TokioIo::new(stream::Socket::new(socket, already_read, Arc::clone(&peer)));
        let service = self.service(from, Arc::clone(&peer), Some(permit.address()));
        let connection = self.http2.serve_connection(socket, service);
        // There is no timeout for heads: they come in frames between those of other requests, and a client that stops
        // in the middle of one can't answer a ping.
        self.drive(connection, &peer, ConnectionTimeouts { head: None, ..self.timeouts }).await;
    }

    /// The routes as a service for hyper. `counted`: for whom each request counts; none where a connection has only one.
    fn service(
        &self,
        from: PeerAddress,
        peer: Arc<Peer>,
        counted: Option<Option<ClientAddress>>,
    ) -> impl hyper::service::Service<
        Request<Incoming>,
        Response = Response<InFlightBody>,
        Error = Infallible,
        Future: Send + 'static,
    > + use<> {
        let (router, connections, limits) = (self.router.clone(), Arc::clone(&self.connections), self.limits);
        service_fn(move |request: Request<Incoming>| {
            let in_flight = InFlightRequest::new(&peer);
            let permit = counted.map(|address| Connections::admit_request(&connections, address)).transpose();
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(from);
            request.extensions_mut().insert(Arc::clone(&peer));
            let answer = permit.map(|permit| (router.clone().call(request), permit));
            async move {
                let (response, permit) = match answer {
                    Ok((answer, permit)) => {
                        let Ok(response) = answer.await;
                        (response, permit)
                    }
                    Err(full) => (refusal(full, limits), None),
                };
                Ok(response.map(|body| InFlightBody {
                    body,
                    in_flight: InFlightResponse::new(in_flight),
                    _permit: permit,
                }))
            }
        })
    }

    /// Runs a connection until it ends, is cut off, reaches a timeout, or the node stops.
    async fn drive<C>(&self, connection: C, peer: &Peer, timeouts: ConnectionTimeouts)
    where
        C: GracefulConnection,
        C::Error: std::fmt::Display,
    {
        tokio::pin!(connection);
        let stopped = self.stop.cancelled();
        tokio::pin!(stopped);
        let check = time::sleep(timeouts.first_check());
        tokio::pin!(check);
        let (mut stopping, mut closing) = (false, false);
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection broke off");
                    }
                    return;
                }
                () = std::future::poll_fn(|cx| peer.poll_cut(cx)) => return,
                () = stopped.as_mut(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = check.as_mut() => match peer.next_check(timeouts) {
                    Some(later) => check.as_mut().reset(time::Instant::now() + later),
                    None if closing || timeouts.head.is_some() => return,
                    None => {
                        closing = true;
                        connection.as_mut().graceful_shutdown();
                        check.as_mut().reset(time::Instant::now() + HTTP2_CLOSE_TIMEOUT);
                    }
                },
            }
        }
    }

    /// Answers a connection beyond the limits: a health check as usual, any other request with the error that says when
    /// to come back.
    async fn refuse(self: Arc<Self>, socket: TcpStream, from: PeerAddress, spare: SpareConnection, full: Full) {
        let service = service_fn(|request: Request<Incoming>| {
            let is_health_check = HEALTH.contains(&request.uri().path());
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(from);
            let mut router = self.router.clone();
            let limits = self.limits;
            async move {
                if is_health_check {
                    return router.call(request).await;
                }
                Ok(refusal(full, limits))
            }
        });
        let socket = TokioIo::new(stream::Socket::new(socket, Bytes::new(), self.hub.peer()));
        let mut http1 = http1::Builder::new();
        let connection = http1
            .keep_alive(false)
            .max_buf_size(SPARE_BUFFER)
            .header_read_timeout(None)
            .serve_connection(socket, service);
        tokio::select! {
            _ = time::timeout(SPARE_TIMEOUT, connection) => {}
            () = spare.evicted() => {}
            () = self.stop.cancelled() => {}
        }
    }
}

/// The answer beyond a limit, which no route gives.
fn refusal(full: Full, limits: ConnectionLimits) -> Response<Body> {
    let error = match full {
        Full::Node => Error::ConnectionsFull,
        Full::Address => Error::TooManyConnections { limit: limits.per_address },
    };
    let mut response = error.into_response();
    guard::add_headers(response.headers_mut(), None);
    response
}

/// The body of an answer. The request is in flight until the body was sent or abandoned.
struct InFlightBody {
    body: Body,
    in_flight: InFlightResponse,
    _permit: Option<RequestPermit>,
}

impl HttpBody for InFlightBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.in_flight.mark_progress();
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
