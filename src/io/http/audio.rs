//! A stretch of a live call: two are made at a time, on threads of their own, and some requests wait. What is being made
//! for a client that has gone is given up.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio_util::io::ReaderStream;
use tracing::warn;

use super::super::log::chain;
use super::super::stretch::{StretchError, Wanted, stretch_while};
use super::{Desk, Id, Problem, channel_of};
use crate::time::Wall;

/// A day: the most by which a stretch is widened.
const ROLL_MAX_MS: u32 = 86_400_000;
/// The media type of RFC 7845 section 9.
const OGG_OPUS: &str = "audio/ogg; codecs=opus";

/// The query of the `audio` route: times in microseconds since 1970, by the clock of the gateway's timestamps.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AudioQuery {
    channel: Option<String>,
    from: Option<i64>,
    to: Option<i64>,
    pre_roll_ms: Option<u32>,
    post_roll_ms: Option<u32>,
}

impl AudioQuery {
    fn wanted(&self) -> Result<Wanted, Problem> {
        let channel = self.channel.as_deref().map(channel_of).transpose()?;
        let (pre_ms, post_ms) = (self.pre_roll_ms.unwrap_or(0), self.post_roll_ms.unwrap_or(0));
        if pre_ms.max(post_ms) > ROLL_MAX_MS {
            return Err(Problem::bad(format!("pre_roll_ms and post_roll_ms are at most {ROLL_MAX_MS}")));
        }
        let from = Wall(self.from.unwrap_or(i64::MIN)).plus_us(-i64::from(pre_ms) * 1000);
        let to = Wall(self.to.unwrap_or(i64::MAX)).plus_us(i64::from(post_ms) * 1000);
        Ok(Wanted { channel, from, to })
    }
}

/// Answers with a stretch.
pub(super) async fn audio(
    State(desk): State<Arc<Desk>>,
    Id(id): Id,
    query: Result<Query<AudioQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let wanted = query.wanted()?;
    let Some(spool) = desk.ingest.live_spool(id.as_str()) else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "no connection of this id is live"));
    };
    let place = desk.readers.enter()?;
    let now = desk.ingest.now();
    // What came before this request shall be in the answer.
    desk.ingest.is_on_disk().await;
    let options = desk.options;
    let made = place.work(move |demand| stretch_while(demand, &spool, wanted, Some(now), &options)).await?;
    if desk.ingest.live_spool(id.as_str()).is_none() && matches!(made, Ok(Err(StretchError::Render(_)))) {
        return Err(Problem::new(StatusCode::NOT_FOUND, "the connection has ended meanwhile"));
    }
    let made = made.map_err(|error| {
        warn!(connection = id.as_str(), %error, "making a stretch panicked");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the stretch could not be made")
    })?;
    let made = made.inspect_err(|error| {
        if let StretchError::Render(error) = error {
            warn!(
                connection = id.as_str(),
                error = chain(error),
                "a stretch of a live call could not be made"
            );
        }
    })?;
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

impl From<StretchError> for Problem {
    fn from(error: StretchError) -> Self {
        let status = match &error {
            StretchError::Empty { .. } => StatusCode::BAD_REQUEST,
            StretchError::Outside { .. } | StretchError::NoAudio => StatusCode::RANGE_NOT_SATISFIABLE,
            // A full disk, or a file that is being written again.
            StretchError::Render(error) if error.is_worth_a_retry() => StatusCode::SERVICE_UNAVAILABLE,
            StretchError::Render(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, chain(&error))
    }
}
