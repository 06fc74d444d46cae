//! The accept loop: how many connections there may be, how long each may be silent, and who serves it: `stream::direct`
//! if its first request opens a stream, hyper otherwise. Called by a node that serves, and for a worker's monitor.

use super::{
    address::{self, ClientAddress, PeerAddress},
    config::{HttpConfig, StreamPath},
    connections::{Admission, ConnectionLimits, ConnectionPermit, Connections, Full, SpareConnection},
    error::Error,
    state::AppState,
    stream::{self, AnswerUnderWay, Begun, Hub, Peer, RequestUnderWay, Silence},
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

/// How long open requests have to finish once the node is told to stop.
const GRACE: Duration = Duration::from_secs(8);
/// What HTTP/2 holds of a request's body that nobody has read yet, and of an answer that its client doesn't take, in
/// bytes; and what of all bodies of a connection.
const STREAM_BUFFER: u32 = 64 * 1024;
const CONNECTION_BUFFER: u32 = 256 * 1024;
/// How long a connection beyond the limits has for its request and the answer.
const SPARE_TIME: Duration = Duration::from_secs(5);
/// The smallest buffer that hyper takes. A health check is smaller.
const SPARE_BUFFER: usize = 8 * 1024;
/// How long an HTTP/2 client has to go once it is told that its idle connection ends.
const GOODBYE: Duration = Duration::from_secs(2);
/// What is answered also beyond the limits.
const HEALTH: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Serves `router` on `listener` until `stop`, then ends what is open.
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
                        drop(tasks.spawn(Arc::clone(&server).begin(socket, from, permit, tasks.clone())));
                    }
                    Admission::Refused(spare, full) => {
                        drop(tasks.spawn(Arc::clone(&server).refuse(socket, from, spare, full)));
                        server.connections.settle().await;
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Out of file descriptors: waiting gives others time to close theirs.
                time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    state.hub.close();
    server.stop.cancel();
    tasks.close();
    if time::timeout(GRACE, tasks.wait()).await.is_err() {
        let open = tasks.len();
        tracing::warn!(grace_secs = GRACE.as_secs(), open, "some requests did not end in time and were cut off");
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
    silence: Silence,
    stop: CancellationToken,
}

impl Server {
    fn new(state: &AppState, router: Router, limits: ConnectionLimits) -> Self {
        let config: &HttpConfig = &state.settings.http;
        let secs = |secs: u32| Duration::from_secs(secs.into());
        let mut http1 = http1::Builder::new();
        // How long a head may take is watched here, so that a connection may be idle for longer than that.
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
            silence: Silence {
                idle: secs(config.idle_secs),
                head: Some(secs(config.head_secs)),
                answer: secs(config.stalled_secs),
            },
            stop: CancellationToken::new(),
        }
    }

    /// The first request of a connection decides who serves it. What goes on for long is a task of its own, so that
    /// it isn't as large as everything that came before.
    async fn begin(
        self: Arc<Self>,
        socket: TcpStream,
        from: PeerAddress,
        permit: ConnectionPermit,
        tasks: TaskTracker,
    ) {
        let direct = (self.path == StreamPath::Direct).then_some(&self.router);
        let begun = self.stop.run_until_cancelled(stream::begin(socket, from, self.head, direct)).await;
        match begun.unwrap_or(Begun::Gone) {
            Begun::Stream(writer) => drop(tasks.spawn(writer.counted(permit))),
            Begun::Http1(socket, before) => drop(tasks.spawn(self.serve_http1(socket, from, before, permit))),
            Begun::Http2(socket, before) => drop(tasks.spawn(self.serve_http2(socket, from, before, permit))),
            Begun::Gone => {}
        }
    }

    async fn serve_http1(self: Arc<Self>, socket: TcpStream, from: PeerAddress, before: Bytes, _: ConnectionPermit) {
        let peer = self.hub.peer();
        let socket = TokioIo::new(stream::Socket::new(socket, before, Arc::clone(&peer)));
        let connection = self.http1.serve_connection(socket, self.service(from, Arc::clone(&peer)));
        self.drive(connection, &peer, self.silence).await;
    }

    async fn serve_http2(self: Arc<Self>, socket: TcpStream, from: PeerAddress, before: Bytes, _: ConnectionPermit) {
        let peer = self.hub.peer();
        let socket = TokioIo::new(stream::Socket::new(socket, before, Arc::clone(&peer)));
        let connection = self.http2.serve_connection(socket, self.service(from, Arc::clone(&peer)));
        // Its heads come in frames between those of other requests, and whoever keeps one back can't answer a ping.
        self.drive(connection, &peer, Silence { head: None, ..self.silence }).await;
    }

    /// The routes, for hyper.
    fn service(
        &self,
        from: PeerAddress,
        peer: Arc<Peer>,
    ) -> impl hyper::service::Service<
        Request<Incoming>,
        Response = Response<TrackedBody>,
        Error = Infallible,
        Future: Send + 'static,
    > + use<> {
        let router = self.router.clone();
        service_fn(move |request: Request<Incoming>| {
            let under_way = RequestUnderWay::new(&peer);
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(from);
            request.extensions_mut().insert(Arc::clone(&peer));
            let answer = router.clone().call(request);
            async move {
                let Ok(response) = answer.await;
                Ok(response.map(|body| TrackedBody { body, under_way: AnswerUnderWay::new(under_way) }))
            }
        })
    }

    /// Runs a connection until it ends, is cut off, is silent for too long, or the node stops.
    async fn drive<C>(&self, connection: C, peer: &Peer, silence: Silence)
    where
        C: GracefulConnection,
        C::Error: std::fmt::Display,
    {
        tokio::pin!(connection);
        let stopped = self.stop.cancelled();
        tokio::pin!(stopped);
        let look = time::sleep(silence.first_look());
        tokio::pin!(look);
        let (mut stopping, mut leaving) = (false, false);
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
                () = look.as_mut() => match peer.next_look(silence) {
                    Some(later) => look.as_mut().reset(time::Instant::now() + later),
                    None if leaving || silence.head.is_some() => return,
                    None => {
                        leaving = true;
                        connection.as_mut().graceful_shutdown();
                        look.as_mut().reset(time::Instant::now() + GOODBYE);
                    }
                },
            }
        }
    }

    /// Answers a connection beyond the limits: a health check as ever, and everybody else that they must come back.
    async fn refuse(self: Arc<Self>, socket: TcpStream, from: PeerAddress, spare: SpareConnection, full: Full) {
        let service = service_fn(|request: Request<Incoming>| {
            let healthy = HEALTH.contains(&request.uri().path());
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(from);
            let mut router = self.router.clone();
            let limit = self.limits.per_address;
            async move {
                if healthy {
                    return router.call(request).await;
                }
                let error = match full {
                    Full::Node => Error::ConnectionsFull,
                    Full::Address => Error::TooManyConnections { limit },
                };
                Ok(error.into_response())
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
            _ = time::timeout(SPARE_TIME, connection) => {}
            () = spare.evicted() => {}
            () = self.stop.cancelled() => {}
        }
    }
}

/// The body of an answer. The request is under way until it has been sent or given up.
struct TrackedBody {
    body: Body,
    under_way: AnswerUnderWay,
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.under_way.goes_on();
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
