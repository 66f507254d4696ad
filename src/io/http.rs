//! The HTTP port: health, readiness, and stretches of live calls. Errors are `application/problem+json` (RFC 9457).
//!
//! Where a token is set, everything but health and readiness needs it. The port only looks at the recorder, and has a
//! bound on its own work: two stretches are made at a time, on threads of their own, and more requests wait. A client
//! that reads slowly holds up nobody, at shutdown neither.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path as PathOf, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::json;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::ingest::Ingest;
use super::log::{Sparing, chain};
use super::render::Options;
use super::stretch::{StretchError, Wanted, stretch};
use super::unix::{self, Door};
use crate::config::Secret;
use crate::id::Channel;
use crate::time::Wall;

/// Stretches made at once. Each reads a spool file once; the recorder's threads have work of their own.
const STRETCHES_MAX: usize = 2;
/// What was received is on disk this soon (promise 1 of the contract).
const ON_DISK_WITHIN: Duration = Duration::from_millis(100);
/// How long requests that are being answered may go on when the daemon stops.
const GRACE: Duration = Duration::from_secs(1);
/// A day: the most by which a stretch is widened.
const ROLL_MAX_MS: u32 = 86_400_000;
/// The media type of RFC 7845 section 9.
const OGG_OPUS: &str = "audio/ogg; codecs=opus";

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
    refused: Sparing,
    permits: Semaphore,
}

impl Desk {
    /// Answers for `ingest`, where there is a `token` only to clients that show it. Stretches are made with the
    /// `options` of recordings.
    #[must_use]
    pub fn new(ingest: Arc<Ingest>, options: Options, token: Option<Secret>) -> Self {
        Self { ingest, options, token, refused: Sparing::default(), permits: Semaphore::new(STRETCHES_MAX) }
    }
}

/// Answers until `stop`, and for a second more what has been asked before.
pub async fn serve(listener: Listener, desk: Desk, stop: CancellationToken) {
    let desk = Arc::new(desk);
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/v1/connections/{id}/audio", get(audio))
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

impl From<StretchError> for Problem {
    fn from(error: StretchError) -> Self {
        let status = match &error {
            StretchError::Empty { .. } => StatusCode::BAD_REQUEST,
            StretchError::Outside { .. } | StretchError::NoAudio => StatusCode::RANGE_NOT_SATISFIABLE,
            StretchError::Render(error) => {
                warn!(error = %chain(error), "a stretch of a live call could not be made");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self::new(status, chain(&error))
    }
}

async fn ready(State(desk): State<Arc<Desk>>) -> Result<&'static str, Problem> {
    match desk.ingest.refusal() {
        None => Ok("ready\n"),
        Some(reason) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, reason)),
    }
}

/// The query of the `audio` route: times in microseconds since 1970, by the clock of the gateway's timestamps.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AudioQuery {
    channel: Option<String>,
    from: Option<i64>,
    to: Option<i64>,
    pre_roll_ms: Option<u32>,
    post_roll_ms: Option<u32>,
}

impl AudioQuery {
    fn wanted(&self) -> Result<Wanted, Problem> {
        let bad = |detail: String| Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        let channel = match self.channel.as_deref() {
            None => None,
            Some(name) => match Channel::BOTH.into_iter().find(|channel| channel.name() == name) {
                None => return bad(format!("channel is caller or ai, or left out for both, not {name:?}")),
                found => found,
            },
        };
        let (pre_ms, post_ms) = (self.pre_roll_ms.unwrap_or(0), self.post_roll_ms.unwrap_or(0));
        if pre_ms.max(post_ms) > ROLL_MAX_MS {
            return bad(format!("pre_roll_ms and post_roll_ms are at most {ROLL_MAX_MS}"));
        }
        let from = Wall(self.from.unwrap_or(i64::MIN)).plus_us(-i64::from(pre_ms) * 1000);
        let to = Wall(self.to.unwrap_or(i64::MAX)).plus_us(i64::from(post_ms) * 1000);
        Ok(Wanted { channel, from, to })
    }
}

async fn audio(
    State(desk): State<Arc<Desk>>,
    id: Result<PathOf<String>, PathRejection>,
    query: Result<Query<AudioQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let (PathOf(id), Query(query)) = (id?, query?);
    let wanted = query.wanted()?;
    let Some(spool) = desk.ingest.live_spool(&id) else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "no connection of this id is live"));
    };
    let now = desk.ingest.now();
    // What came before this request shall be in the answer.
    tokio::time::sleep(ON_DISK_WITHIN).await;
    let gone = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping");
    let permit = desk.permits.acquire().await.map_err(gone)?;
    let options = desk.options;
    let made = tokio::task::spawn_blocking(move || stretch(&spool, wanted, Some(now), &options)).await;
    drop(permit);
    if desk.ingest.live_spool(&id).is_none() && matches!(made, Ok(Err(StretchError::Render(_)))) {
        return Err(Problem::new(StatusCode::NOT_FOUND, "the connection has ended meanwhile"));
    }
    let made = made.map_err(|error| {
        warn!(connection = ?id, %error, "making a stretch panicked");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the stretch could not be made")
    })??;
    let number = |number: String| HeaderValue::try_from(number).unwrap_or(HeaderValue::from_static("0"));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(OGG_OPUS)),
        (header::CONTENT_LENGTH, number(made.bytes.to_string())),
        (HeaderName::from_static("sidetape-from"), number(made.from.0.to_string())),
        (HeaderName::from_static("sidetape-to"), number(made.to.0.to_string())),
    ];
    let body = Body::from_stream(ReaderStream::new(tokio::fs::File::from_std(made.file)));
    Ok((headers, body).into_response())
}
