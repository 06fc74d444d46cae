//! A proxy before Redis that loses some of what was published. It knows enough of RESP (both versions) to find where a
//! reply ends; everything but messages passes unchanged.

use super::servers::free_port;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A running proxy; ends when dropped.
pub struct LossyProxy {
    pub port: u16,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    passed: AtomicU64,
    lost: AtomicU64,
}

impl LossyProxy {
    /// Starts one before the Redis on `redis_port` that loses this `share` of the messages, the same ones for the same
    /// `seed` and order.
    pub async fn start(redis_port: u16, share: f64, seed: u64) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let counts = Arc::new(Counts::default());
        let counting = Arc::clone(&counts);
        let task = tokio::spawn(async move {
            for connection in 0.. {
                let Ok((client, _)) = listener.accept().await else { return };
                let (counts, rng) = (Arc::clone(&counting), StdRng::seed_from_u64(seed + connection));
                tokio::spawn(async move {
                    // Ends when either side does.
                    let _ = carry(client, redis_port, share, rng, &counts).await;
                });
            }
        });
        Self { port, counts, task }
    }

    /// Messages passed on, and messages lost.
    pub fn counts(&self) -> (u64, u64) {
        (self.counts.passed.load(Relaxed), self.counts.lost.load(Relaxed))
    }
}

impl Drop for LossyProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(client: TcpStream, port: u16, share: f64, mut rng: StdRng, counts: &Counts) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let down = async {
        let mut buffer = Vec::new();
        while from_server.read_buf(&mut buffer).await? > 0 {
            let mut used = 0;
            while let Some(length) = reply_length(&buffer[used..]) {
                let reply = &buffer[used..used + length];
                used += length;
                if is_message(reply) {
                    if rng.random_bool(share) {
                        counts.lost.fetch_add(1, Relaxed);
                        continue;
                    }
                    counts.passed.fetch_add(1, Relaxed);
                }
                to_client.write_all(reply).await?;
            }
            buffer.drain(..used);
        }
        to_client.shutdown().await
    };
    tokio::try_join!(up, down).map(drop)
}

/// How long the first reply is; none while it isn't whole.
fn reply_length(buffer: &[u8]) -> Option<usize> {
    let line = buffer.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let count = || std::str::from_utf8(&buffer[1..line - 2]).ok()?.parse::<i64>().ok();
    let parts = match buffer[0] {
        b'$' | b'=' | b'!' => {
            // A negative length is null, and has no body.
            let body = usize::try_from(count()?).map_or(0, |length| length + 2);
            return (buffer.len() >= line + body).then_some(line + body);
        }
        b'*' | b'~' | b'>' => count()?.max(0),
        b'%' => count()?.max(0) * 2,
        _ => return Some(line),
    };
    let mut end = line;
    for _ in 0..parts {
        end += reply_length(&buffer[end..])?;
    }
    Some(end)
}

/// Whether a reply hands a subscriber what was published: an array, or in RESP 3 a push.
fn is_message(reply: &[u8]) -> bool {
    let Some(first) = reply.strip_prefix(b"*3\r\n").or_else(|| reply.strip_prefix(b">3\r\n")) else { return false };
    first.starts_with(b"$7\r\nmessage\r\n") || first.starts_with(b"+message\r\n")
}

#[test]
fn replies_are_told_apart() {
    let message = b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$4\r\n\r\n\r\n\r\n";
    let others: [&[u8]; 5] = [b"+OK\r\n", b":3\r\n", b"$-1\r\n", b"%1\r\n+a\r\n*2\r\n:1\r\n_\r\n", b"*-1\r\n"];
    let mut all = message.to_vec();
    for other in others {
        assert_eq!(reply_length(other), Some(other.len()));
        assert!(!is_message(other));
        all.extend(other);
    }
    assert_eq!(reply_length(&all), Some(message.len()));
    assert!(is_message(&all[..message.len()]));
    for end in 0..message.len() {
        assert_eq!(reply_length(&message[..end]), None);
    }
}
