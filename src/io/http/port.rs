//! The port itself: connections are accepted, served, and closed when their clients take too long.
//!
//! It has threads of its own, few and behind those that record where the processor is short: whatever is asked here, no
//! frame waits for it. Neither does finishing, nor the store.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use axum::{Extension, Router};
use hyper::body::{Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::seats::{Phase, Seat, Seats};
use super::{Listener, READERS_MAX};
use crate::io::unix::Door;

/// Threads that wait for sockets and answer what needs no disk.
const WORKERS: usize = 1;
/// Threads for work that blocks: what reads spool files, a list, a scrape, and what reads the files that are sent.
const BLOCKING_MAX: usize = READERS_MAX + 2 + 4;
/// How far these threads stand back behind those of the recorder where the processor is short: at this they get a third
/// of what one of those gets, so that a probe is answered.
const NICE: i32 = 5;
/// Open beyond the seats: the connection that is being let in or turned away, and those that are about to be closed.
const SPARE: usize = 8;
/// The longest head, and what is held of a body or an answer at once.
const BUFFER_MAX_BYTES: usize = 32 * 1024;
/// How often it is looked whether a client takes too long.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long requests that are being answered may go on when the daemon stops.
const GRACE: Duration = Duration::from_secs(1);
/// How long a client that is turned away may take to read that.
const TURNED_AWAY_WITHIN: Duration = Duration::from_secs(1);
/// How long the port rests when the system gives no connection, mostly for want of descriptors.
const REST: Duration = Duration::from_millis(100);
/// What a client is told for which there is no room.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n\
    Content-Type: application/problem+json\r\nContent-Length: 82\r\n\r\n\
    {\"title\":\"Service Unavailable\",\"status\":503,\"detail\":\"too many requests at once\"}\n";

/// Starts threads that answer by `routes` over `seats` connections at most, until `stop`, and for a second more what has
/// been asked before. What is returned resolves when they have ended.
///
/// # Errors
/// Where the system gives no threads.
pub(super) fn start(
    listener: Listener,
    routes: Router,
    seats: usize,
    stop: CancellationToken,
) -> io::Result<oneshot::Receiver<()>> {
    let (ended, end) = oneshot::channel();
    let (told, ready) = std::sync::mpsc::sync_channel(1);
    let run = move || {
        stand_back();
        let begun = runtime().and_then(|runtime| {
            let _within = runtime.enter();
            Ok((Entrance::new(listener)?, runtime))
        });
        let (entrance, runtime) = match begun {
            Ok(begun) => begun,
            Err(error) => return drop(told.send(Err(error))),
        };
        drop(told.send(Ok(())));
        runtime.block_on(serve(entrance, routes, seats, stop));
        // What a thread is still at was told that nobody waits for it.
        runtime.shutdown_background();
        // Nobody may wait for it any more.
        drop(ended);
    };
    std::thread::Builder::new().name("http".to_owned()).spawn(run)?;
    ready.recv().map_err(io::Error::other)??;
    Ok(end)
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_MAX)
        .thread_name("http")
        .on_thread_start(stand_back)
        .enable_all()
        .build()
}

fn stand_back() {
    // Of this thread: where Linux says process it means thread.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        debug!(%error, "a thread for HTTP does not stand back behind others");
    }
}

/// A socket that clients connect to, within the runtime that waits for it.
enum Entrance {
    Tcp(tokio::net::TcpListener),
    Unix(Door),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Entrance {
    fn new(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => Self::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Listener::Unix(listener, allowed) => {
                Self::Unix(Door::new(tokio::net::UnixListener::from_std(listener)?, allowed))
            }
        })
    }

    async fn accept(&self) -> Box<dyn Stream> {
        let listener = match self {
            Self::Unix(door) => return Box::new(door.accept().await),
            Self::Tcp(listener) => listener,
        };
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Box::new(stream),
                Err(error) => {
                    warn!(%error, "a connection over HTTP could not be taken");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }
}

async fn serve(entrance: Entrance, routes: Router, seats_max: usize, stop: CancellationToken) {
    let seats = Seats::new(seats_max);
    // Whoever had to go has a descriptor until his task has run.
    let descriptors = Arc::new(Semaphore::new(seats_max + SPARE));
    let links = TaskTracker::new();
    let next = async || {
        let descriptor = Arc::clone(&descriptors).acquire_owned().await.expect("it is never closed");
        (descriptor, entrance.accept().await)
    };
    loop {
        let (descriptor, stream) = tokio::select! {
            next = next() => next,
            () = stop.cancelled() => break,
        };
        match seats.take_soon().await {
            Some(occupied) => {
                let (routes, stop) = (routes.clone(), stop.clone());
                links.spawn(async move {
                    attend(stream, &occupied.seat, routes, &stop).await;
                    drop((occupied, descriptor));
                });
            }
            None => {
                links.spawn(async move {
                    turn_away(stream).await;
                    drop(descriptor);
                });
            }
        }
    }
    links.close();
    if tokio::time::timeout(GRACE, links.wait()).await.is_err() {
        debug!("answers that were still being sent are cut off");
    }
}

/// Serves a connection to its end.
async fn attend(stream: Box<dyn Stream>, seat: &Arc<Seat>, routes: Router, stop: &CancellationToken) {
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(|mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Arc::clone(seat));
        routes.call(request)
    });
    let stream = TokioIo::new(Watched { stream, seat: Arc::clone(seat) });
    let link = http1::Builder::new().max_buf_size(BUFFER_MAX_BYTES).serve_connection(stream, service);
    let mut link = pin!(link);
    let mut is_stopping = false;
    loop {
        tokio::select! {
            ended = link.as_mut() => {
                if let Err(error) = ended {
                    debug!(%error, "a connection over HTTP broke");
                }
                return;
            }
            () = seat.given_up.cancelled() => return,
            () = stop.cancelled(), if !is_stopping => {
                link.as_mut().graceful_shutdown();
                is_stopping = true;
            }
            () = tokio::time::sleep(LOOK_EVERY) => if seat.is_overdue(Instant::now()) {
                return debug!("a client over HTTP takes too long");
            }
        }
    }
}

/// Says that there is no room, and gives the client a moment to read it: one that is closed on what it has sent would not.
async fn turn_away(mut stream: Box<dyn Stream>) {
    let mut rest = vec![0; 1024];
    let say = async {
        stream.write_all(FULL).await?;
        stream.shutdown().await?;
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    match tokio::time::timeout(TURNED_AWAY_WITHIN, say).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a client that was turned away has gone before"),
        Err(_) => debug!("a client that was turned away stayed"),
    }
}

/// Notes when it is the daemon's turn, and when the client has the answer.
pub(super) async fn take_turns(
    Extension(seat): Extension<Arc<Seat>>,
    request: Request,
    next: Next,
) -> Response {
    seat.enter(Phase::Work);
    let answer = next.run(request).await;
    seat.enter(Phase::Answer);
    answer.map(|body| Body::new(Answer { body, seat }))
}

/// The body of an answer, dropped when all of it is handed to the connection.
struct Answer {
    body: Body,
    seat: Arc<Seat>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.seat.note_answered();
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that notes at its seat when bytes pass.
struct Watched {
    stream: Box<dyn Stream>,
    seat: Arc<Seat>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        match read {
            Poll::Pending => self.seat.note_empty(),
            Poll::Ready(_) if buffer.filled().len() > before => self.seat.note_read(),
            Poll::Ready(_) => {}
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.seat.note_written();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_turned_away_gets_a_whole_answer() {
        let text = str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["status"], 503);
    }
}
