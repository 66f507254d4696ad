//! The HTTP port: health, readiness, metrics, the begin of a drain, live connections (`live`), ports for plain RTP (`open`), control
//! (`control`), and stretches of their audio (`audio`). Errors are `application/problem+json` (RFC 9457).
//!
//! Where a token is set, everything but health and readiness needs it. A foreign web page is answered nothing. The port
//! has a bound on all that it does: connections and their times (`seats`), threads (`port`), and the work for requests,
//! which ends with them (`queue`): two spool files are read at a time, and some requests wait. A client that reads slowly
//! holds up nobody, at shutdown neither.

mod audio;
mod control;
mod live;
mod open;
mod port;
mod queue;
mod seats;

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path as PathOf, Request, State};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use socket2::SockRef;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::ingest::Ingest;
use super::log::Sparing;
use super::render::Options;
use super::rtp_ports::RtpPorts;
use super::scrape::Scrape;
use super::unix;
use crate::config::Secret;
use crate::id::{Channel, ConnectionId};
use crate::metrics::exposition::MEDIA_TYPE;
use queue::Queue;
use seats::{BODY_WITHIN, Phase, Seat};

/// Spool files read at once. The recorder's threads have work of their own.
const READERS_MAX: usize = 2;
/// Requests that wait for that.
const READERS_WAITING: usize = 8;
/// Requests that wait for a list, and likewise for a scrape. Each takes milliseconds.
const LOOKS_WAITING: usize = 16;
/// How long a request waits for the spool to be looked through after a start: a thousand files take a second or two.
const RECOVERED_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Connections that may wait to be accepted. With the usual 128 a burst of strangers makes others wait for a second.
const BACKLOG: i32 = 4096;
/// What begins a drain. It waits for nothing, the look through the spool neither.
const DRAIN: &str = "/v1/drain";
/// How soon a client may ask again for which there was no room.
const BUSY_SECS: u8 = 1;

/// A socket that clients connect to.
#[derive(Debug)]
pub enum Listener {
    /// Over TCP.
    Tcp(std::net::TcpListener),
    /// Over a Unix socket, for these users only if that is not `None`.
    Unix(std::os::unix::net::UnixListener, Option<Vec<u32>>),
}

/// Listens on `host:port` or `unix:` and a path. A Unix socket has mode 0660, replaces a dead one, and is for the
/// users `allowed`, if that is not `None`.
///
/// # Errors
/// Where the system refuses the address, or another process listens there.
pub async fn bind(address: &str, allowed: Option<Vec<u32>>) -> io::Result<Listener> {
    match address.strip_prefix("unix:") {
        Some(path) => Ok(Listener::Unix(unix::bind_stream(Path::new(path))?.into_std()?, allowed)),
        None => {
            let listener = tokio::net::TcpListener::bind(address).await?.into_std()?;
            SockRef::from(&listener).listen(BACKLOG)?;
            Ok(Listener::Tcp(listener))
        }
    }
}

impl Listener {
    /// Whether it listens on loopback.
    fn is_loopback(&self) -> bool {
        let Self::Tcp(listener) = self else { return false };
        listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback())
    }
}

/// What the answers are made of.
#[derive(Debug)]
pub struct Desk {
    ingest: Arc<Ingest>,
    options: Options,
    token: Option<Secret>,
    ports: Option<Arc<RtpPorts>>,
    scrape: Arc<Scrape>,
    refused: Sparing,
    /// What reads spool files.
    readers: Queue,
    lists: Queue,
    scrapes: Queue,
}

impl Desk {
    /// Answers for `ingest`, where there is a `token` only to clients that show it. Stretches are made with the
    /// `options` of recordings, metrics by `scrape`; plain RTP is taken on `ports`.
    #[must_use]
    pub fn new(
        ingest: Arc<Ingest>,
        options: Options,
        token: Option<Secret>,
        scrape: Scrape,
        ports: Option<Arc<RtpPorts>>,
    ) -> Self {
        let readers = Queue::new(READERS_MAX, READERS_WAITING);
        let (lists, scrapes) = (Queue::new(1, LOOKS_WAITING), Queue::new(1, LOOKS_WAITING));
        let (scrape, refused) = (Arc::new(scrape), Sparing::default());
        Self { ingest, options, token, ports, scrape, refused, readers, lists, scrapes }
    }

    /// Waits until the calls of an earlier process are known. False if that takes too long.
    async fn is_recovered(&self) -> bool {
        let until = Instant::now() + RECOVERED_WITHIN;
        while !self.ingest.is_recovered() && Instant::now() < until {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.ingest.is_recovered()
    }
}

/// Answers on threads of its own, over `connections_max` connections at most, until `stop`, and for a second more what has
/// been asked before. What is returned resolves when they have ended.
///
/// # Errors
/// Where the system gives no threads.
pub fn serve(
    listener: Listener,
    desk: Desk,
    connections_max: usize,
    stop: CancellationToken,
) -> io::Result<oneshot::Receiver<()>> {
    let is_loopback = listener.is_loopback();
    let desk = Arc::new(desk);
    let mut routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route(DRAIN, post(drain))
        .route("/v1/connections", get(live::list).post(open::open))
        .route("/v1/connections/{id}", get(live::one))
        .route("/v1/connections/{id}/audio", get(audio::audio));
    for command in control::Command::ALL {
        let address = format!("/v1/connections/{{id}}/{}", command.name());
        let told = move |desk, id, query, body| control::control(command, desk, id, query, body);
        routes = routes.route(&address, post(told));
    }
    let routes = routes
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is no such address") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address takes another method")
        })
        .layer(DefaultBodyLimit::max(control::LENGTH_MAX))
        .layer(from_fn_with_state((Arc::clone(&desk), is_loopback), authorize))
        .layer(from_fn(port::take_turns))
        .with_state(desk);
    port::start(listener, routes, connections_max, stop)
}

/// Lets a request pass that shows the token, or that needs none: those of orchestrators, which tell nothing of calls.
async fn authorize(
    State((desk, is_loopback)): State<(Arc<Desk>, bool)>,
    request: Request,
    next: Next,
) -> Response {
    let is_health = matches!(request.uri().path(), "/healthz" | "/readyz");
    let shows_token = desk.token.as_ref().is_some_and(|token| shows(request.headers(), token));
    let is_let_in = desk.token.is_none() || is_health || shows_token;
    let forbidden = |detail| Problem::new(StatusCode::FORBIDDEN, detail).into_response();
    // A page in a browser on this machine can reach loopback, too. Not even whether there is a daemon is told to it.
    if is_of_another_site(request.headers()) {
        return forbidden("pages of other sites are not answered");
    }
    // Only with a token a page needs the help of its user.
    if is_let_in && !shows_token && request.headers().contains_key(header::ORIGIN) {
        return forbidden("web pages are answered only if they show the token of AUDIO_HTTP_TOKEN");
    }
    // Elsewhere than on loopback others ask by the name of a service, and whoever reaches the port is let in.
    if desk.token.is_none() && !is_health && is_loopback && !is_to_an_address(&request) {
        return forbidden("Host is an IP address or localhost, unless AUDIO_HTTP_TOKEN is set");
    }
    if is_let_in {
        let path = request.uri().path();
        let is_about_calls = path.starts_with("/v1/") && path != DRAIN;
        if is_about_calls && !desk.is_recovered().await {
            let detail = "the spool is still being read after the start";
            return Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
        }
        return next.run(request).await;
    }
    if let Some(count) = desk.refused.count() {
        warn!(count, "requests without the token are refused");
    }
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "this address needs the token of AUDIO_HTTP_TOKEN");
    ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
}

/// Whether a browser says that a page of another site is behind a request, be it for an image or a sound, which has no
/// `Origin`: <https://www.w3.org/TR/fetch-metadata/>. What a user does himself is `none`; pages cannot change the header.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").iter();
    sites.any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"))
}

/// Whether a request is to an IP address or to localhost. That of a page whose own name was made to resolve to loopback
/// (DNS rebinding) is to that name. It may have no `Origin`, but a `Host` it has: browsers leave that out of none.
fn is_to_an_address(request: &Request) -> bool {
    let is_address = |authority: &Authority| {
        let host = authority.host();
        let number = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        host.eq_ignore_ascii_case("localhost") || number.parse::<IpAddr>().is_ok()
    };
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let is_host_address = |host: &HeaderValue| {
        Authority::try_from(host.as_bytes()).is_ok_and(|authority| is_address(&authority))
    };
    request.uri().authority().is_none_or(is_address) && hosts.all(is_host_address)
}

/// Whether a request carries the token as RFC 6750 section 2.1 says.
fn shows(headers: &HeaderMap, token: &Secret) -> bool {
    let value = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let Some((scheme, presented)) = value.split_first_chunk::<7>() else { return false };
    scheme.eq_ignore_ascii_case(b"bearer ") && token.is(presented.trim_ascii())
}

/// An error as the client sees it.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    detail: String,
    /// The word for it in the log and in the metrics, where the recorder refused.
    reason: Option<&'static str>,
    /// After how many seconds it may be different.
    retry_after: Option<u8>,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), reason: None, retry_after: None }
    }

    fn busy() -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests wait for this already");
        Self { retry_after: Some(BUSY_SECS), ..problem }
    }

    fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    fn too_long() -> Self {
        let detail = format!("the body has more than {} bytes", control::LENGTH_MAX);
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping")
    }

    fn because(self, reason: &'static str) -> Self {
        Self { reason: Some(reason), ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let mut body =
            serde_json::json!({ "title": title, "status": self.status.as_u16(), "detail": self.detail });
        if let Some(reason) = self.reason {
            body["reason"] = reason.into();
        }
        let head = [(header::CONTENT_TYPE, "application/problem+json")];
        let retry_after = self.retry_after.map(|seconds| [(header::RETRY_AFTER, seconds.to_string())]);
        match retry_after {
            Some(retry_after) => (self.status, head, retry_after, body.to_string()).into_response(),
            None => (self.status, head, body.to_string()).into_response(),
        }
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::too_long(),
            _ => Self::bad(rejection.body_text()),
        }
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

/// The connection id in an address.
struct Id(ConnectionId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let PathOf(id) = PathOf::<String>::from_request_parts(parts, state).await?;
        ConnectionId::new(&id).map(Self).map_err(|error| Problem::bad(error.to_string()))
    }
}

/// The body of a request, whole.
struct Whole(Bytes);

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let seat = request.extensions().get::<Arc<Seat>>().cloned();
        let enter = |phase| seat.iter().for_each(|seat| seat.enter(phase));
        enter(Phase::Body);
        let body = tokio::time::timeout(BODY_WITHIN, Bytes::from_request(request, state)).await;
        enter(Phase::Work);
        let late = || Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time");
        Ok(Self(body.map_err(|_| late())??))
    }
}

fn channel_of(name: &str) -> Result<Channel, Problem> {
    let found = Channel::BOTH.into_iter().find(|channel| channel.name() == name);
    found.ok_or_else(|| Problem::bad(format!("channel is caller or ai, or left out for both, not {name:?}")))
}

/// An answer in JSON.
fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let text = serde_json::to_string(body).expect("answers have only keys of text");
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn ready(State(desk): State<Arc<Desk>>) -> Result<&'static str, Problem> {
    match desk.ingest.refusal() {
        None => Ok("ready\n"),
        Some(reason) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, reason).because(reason)),
    }
}

async fn drain(State(desk): State<Arc<Desk>>) -> Response {
    desk.ingest.drain();
    let answer = serde_json::json!({ "draining": true, "open": desk.ingest.left_open() });
    json(StatusCode::ACCEPTED, &answer)
}

async fn metrics(State(desk): State<Arc<Desk>>) -> Result<Response, Problem> {
    let scrape = Arc::clone(&desk.scrape);
    let page = desk.scrapes.enter()?.work(move |_| scrape.page()).await?.map_err(|error| {
        warn!(%error, "making the page of metrics panicked");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be read")
    })?;
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], page).into_response())
}
