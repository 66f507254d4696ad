//! The HTTP port: health, readiness, metrics, and stretches of live calls ([`audio`]). Errors are `application/problem+json`
//! (RFC 9457).
//!
//! Where a token is set, everything but health and readiness needs it. The port only looks at the recorder, and has a
//! bound on its own work: two stretches are made at a time, on threads of their own, and more requests wait. A client
//! that reads slowly holds up nobody, at shutdown neither.

mod audio;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::ingest::Ingest;
use super::log::Sparing;
use super::render::Options;
use super::scrape::Scrape;
use super::unix::{self, Door};
use crate::config::Secret;
use crate::metrics::exposition::MEDIA_TYPE;

/// Stretches made at once. Each reads a spool file once; the recorder's threads have work of their own.
const STRETCHES_MAX: usize = 2;
/// How long requests that are being answered may go on when the daemon stops.
const GRACE: Duration = Duration::from_secs(1);

/// A socket that clients connect to.
#[derive(Debug)]
pub enum Listener {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over a Unix socket.
    Unix(Door),
}

impl axum::serve::Listener for Door {
    type Io = UnixStream;
    type Addr = ();

    async fn accept(&mut self) -> (UnixStream, ()) {
        (Self::accept(self).await, ())
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Listens on `host:port` or `unix:` and a path. A Unix socket has mode 0660, replaces a dead one, and is for the
/// users `allowed`, if that is not `None`.
///
/// # Errors
/// Where the system refuses the address, or another process listens there.
pub async fn bind(address: &str, allowed: Option<Vec<u32>>) -> io::Result<Listener> {
    match address.strip_prefix("unix:") {
        Some(path) => Ok(Listener::Unix(Door::new(unix::bind_stream(Path::new(path))?, allowed))),
        None => Ok(Listener::Tcp(TcpListener::bind(address).await?)),
    }
}

/// What the answers are made of.
#[derive(Debug)]
pub struct Desk {
    ingest: Arc<Ingest>,
    options: Options,
    token: Option<Secret>,
    scrape: Arc<Scrape>,
    refused: Sparing,
    permits: Semaphore,
    /// One scrape at a time.
    scraping: Semaphore,
}

impl Desk {
    /// Answers for `ingest`, where there is a `token` only to clients that show it. Stretches are made with the
    /// `options` of recordings, metrics by `scrape`.
    #[must_use]
    pub fn new(ingest: Arc<Ingest>, options: Options, token: Option<Secret>, scrape: Scrape) -> Self {
        let (permits, scraping) = (Semaphore::new(STRETCHES_MAX), Semaphore::new(1));
        let (scrape, refused) = (Arc::new(scrape), Sparing::default());
        Self { ingest, options, token, scrape, refused, permits, scraping }
    }
}

/// Answers until `stop`, and for a second more what has been asked before.
pub async fn serve(listener: Listener, desk: Desk, stop: CancellationToken) {
    let desk = Arc::new(desk);
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/connections/{id}/audio", get(audio::audio))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is no such address") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address is only read, with GET")
        })
        .layer(from_fn_with_state(Arc::clone(&desk), authorize))
        .with_state(desk);
    let stopped = stop.clone().cancelled_owned();
    let serving = async {
        match listener {
            Listener::Tcp(listener) => axum::serve(listener, routes).with_graceful_shutdown(stopped).await,
            Listener::Unix(listener) => axum::serve(listener, routes).with_graceful_shutdown(stopped).await,
        }
    };
    let time_is_up = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        ended = serving => if let Err(error) = ended {
            warn!(%error, "the HTTP port has failed");
        },
        () = time_is_up => debug!("answers that were still being sent are cut off"),
    }
}

/// Lets a request pass that shows the token, or that needs none: those of orchestrators, which tell nothing of calls.
async fn authorize(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    let is_health = matches!(request.uri().path(), "/healthz" | "/readyz");
    let is_let_in = desk.token.as_ref().is_none_or(|token| is_health || shows(request.headers(), token));
    if is_let_in {
        return next.run(request).await;
    }
    if let Some(count) = desk.refused.count() {
        warn!(count, "requests without the token are refused");
    }
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "this address needs the token of AUDIO_HTTP_TOKEN");
    ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
}

/// Whether a request carries the token as RFC 6750 section 2.1 says.
fn shows(headers: &HeaderMap, token: &Secret) -> bool {
    let value = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let Some((scheme, presented)) = value.split_first_chunk::<7>() else { return false };
    scheme.eq_ignore_ascii_case(b"bearer ") && token.is(presented.trim_ascii())
}

/// An error as the client sees it.
struct Problem {
    status: StatusCode,
    detail: String,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let body = json!({ "title": title, "status": self.status.as_u16(), "detail": self.detail });
        (self.status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

async fn ready(State(desk): State<Arc<Desk>>) -> Result<&'static str, Problem> {
    match desk.ingest.refusal() {
        None => Ok("ready\n"),
        Some(reason) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, reason)),
    }
}

async fn metrics(State(desk): State<Arc<Desk>>) -> Result<Response, Problem> {
    let gone = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping");
    let _permit = desk.scraping.acquire().await.map_err(gone)?;
    let scrape = Arc::clone(&desk.scrape);
    let page = tokio::task::spawn_blocking(move || scrape.page()).await.map_err(|error| {
        warn!(%error, "making the page of metrics panicked");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be read")
    })?;
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], page).into_response())
}
