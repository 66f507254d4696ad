//! Control of live calls: END, HOLD, RELEASE, PAUSE, RESUME and MARK, as if the gateway had sent them.
//!
//! A request becomes a frame of the tap protocol and takes the same way: the same checks and refusals, the same record
//! in the spool, so that a restart keeps what was said. It is answered when that record is written. Only the key that
//! frames over UDP need is not asked for: who may ask here is said by the token.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::gate::Via;
use super::{Desk, Id, Problem, Whole, channel_of, json};
use crate::frame;
use crate::id::{CONNECTION_ID_MAX_BYTES, Channel, Scope};
use crate::metrics::DropReason;
use crate::spool::BODY_MAX_BYTES;
use crate::time::Wall;

/// The longest body: with the header and any id in front of it, a frame that a byte stream could have brought.
pub(super) const LENGTH_MAX: usize = BODY_MAX_BYTES - frame::HEADER_BYTES - CONNECTION_ID_MAX_BYTES;

/// The greatest number of packets that is believed. Beyond it programs that know only f64 write another number.
const WHOLE_MAX: u64 = (1 << f64::MANTISSA_DIGITS) - 1;

/// What a call can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    End,
    Hold,
    Release,
    Pause,
    Resume,
    Mark,
}

impl Command {
    pub(super) const ALL: [Self; 6] =
        [Self::End, Self::Hold, Self::Release, Self::Pause, Self::Resume, Self::Mark];

    /// The last word of its address.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Mark => "mark",
        }
    }

    /// The kind byte of its frame.
    fn kind(self) -> u8 {
        match self {
            Self::End => 2,
            Self::Hold => 4,
            Self::Release => 5,
            Self::Pause => 6,
            Self::Resume => 7,
            Self::Mark => 8,
        }
    }
}

/// The query: a channel, unless the whole call is meant, and when it was, in microseconds since 1970 by the clock of the
/// gateway's timestamps.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ControlQuery {
    channel: Option<String>,
    at: Option<u64>,
}

/// Tells a call something.
pub(super) async fn control(
    command: Command,
    State(desk): State<Arc<Desk>>,
    Id(id): Id,
    query: Result<Query<ControlQuery>, QueryRejection>,
    body: Result<Whole, Problem>,
) -> Result<Response, Problem> {
    let (Query(query), Whole(body)) = (query?, body?);
    let (named, body) = body_of(command, &body)?;
    let channel = query.channel.as_deref().map(channel_of).transpose()?.or(named);
    let at = match query.at.map(Wall::from_wire) {
        Some(None) => return Err(Problem::bad("at is in microseconds since 1970, and not 0")),
        at => at.flatten(),
    };
    if at.is_some_and(|at| !desk.ingest.is_credible(id.as_str(), at)) {
        let now = desk.ingest.wall().0;
        let detail =
            format!("at is in microseconds since 1970, within a day of the gateway's clock; now is {now}");
        return Err(Problem::bad(detail));
    }
    let scope = channel.map_or(Scope::Whole, Scope::Channel);
    let frame = frame::encode(command.kind(), scope, at, &id, &body);
    desk.ingest.take(&frame, Via::Unix)?;
    // What it is now, and not what becomes of it while the disk is waited for.
    let look = desk.ingest.look(id.as_str());
    let status = if desk.ingest.is_on_disk().await { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(json(status, &look))
}

/// The body of a frame that says so, and the channel that is named beside what belongs there.
fn body_of(command: Command, body: &[u8]) -> Result<(Option<Channel>, Vec<u8>), Problem> {
    if body.trim_ascii().is_empty() {
        return Ok((None, Vec::new()));
    }
    let mut object: Map<String, Value> = serde_json::from_slice(body).map_err(|_| DropReason::Json)?;
    let mut body = body.to_vec();
    let channel = match object.shift_remove("channel") {
        None => None,
        Some(name) => {
            body = serde_json::to_vec(&object).map_err(|_| DropReason::Json)?;
            // A number may be longer when it is written again.
            if body.len() > LENGTH_MAX {
                return Err(Problem::too_long());
            }
            Some(channel_of(name.as_str().unwrap_or_default())?)
        }
    };
    let body = match command {
        Command::End => end(&object)?,
        Command::Hold | Command::Release | Command::Resume if object.is_empty() => Vec::new(),
        Command::Hold | Command::Release | Command::Resume => return Err(DropReason::Body.into()),
        Command::Pause | Command::Mark => {
            frame::parse_body(command.kind(), &body).map_err(DropReason::from)?;
            body
        }
    };
    Ok((channel, body))
}

/// The body of an END: how many RTP frames the gateway has sent, if it says so.
fn end(object: &Map<String, Value>) -> Result<Vec<u8>, Problem> {
    match (object.len(), object.get("sent").map(whole)) {
        (0, None) => Ok(Vec::new()),
        (1, Some(Some(sent))) => Ok(sent.to_be_bytes().to_vec()),
        _ => Err(DropReason::Body.into()),
    }
}

/// A number of things. JSON tells no integers from other numbers, so 1500.0 is one.
#[expect(clippy::cast_possible_truncation, reason = "it has no fraction, and is cut to what u64 holds")]
fn whole(value: &Value) -> Option<u64> {
    let is_whole = |number: &f64| number.fract() == 0.0 && *number >= 0.0;
    let number = value.as_u64().or_else(|| value.as_f64().filter(is_whole).map(|number| number as u64));
    number.filter(|number| *number <= WHOLE_MAX)
}

impl From<DropReason> for Problem {
    /// What a refusal is over HTTP. The words are those for what a client can bring about.
    fn from(reason: DropReason) -> Self {
        let (status, detail) = match reason {
            DropReason::UnknownConnection => (StatusCode::NOT_FOUND, "no connection of this id is live"),
            DropReason::Late => {
                (StatusCode::CONFLICT, "the connection has ended, its recording is finalised")
            }
            DropReason::ReleaseWithoutHold => (StatusCode::CONFLICT, "there is no hold to be released"),
            DropReason::ControlFull => {
                (StatusCode::CONFLICT, "the connection has had more frames beside audio than a call can need")
            }
            DropReason::Json => (StatusCode::BAD_REQUEST, "the body is not a JSON object of the right form"),
            DropReason::Body => (StatusCode::BAD_REQUEST, "this takes no such body"),
            DropReason::Channel => (StatusCode::BAD_REQUEST, "this is about the whole call, not a channel"),
            DropReason::InternalError => (StatusCode::INTERNAL_SERVER_ERROR, "a bug: please report it"),
            DropReason::Draining | DropReason::ShuttingDown => {
                (StatusCode::SERVICE_UNAVAILABLE, "no new connections are taken, the daemon is going to end")
            }
            DropReason::Disabled => (StatusCode::SERVICE_UNAVAILABLE, "recording is switched off"),
            DropReason::SpoolOverflow => (StatusCode::SERVICE_UNAVAILABLE, "the disk does not take it"),
            other => (StatusCode::BAD_REQUEST, other.name()),
        };
        Self::new(status, detail).because(reason.name())
    }
}
