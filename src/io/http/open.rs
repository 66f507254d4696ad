//! Opens a call whose gateway sends plain RTP: `POST /v1/connections`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Desk, Problem, Whole, json};
use crate::io::rtp_ports::OpenError;
use crate::metrics::DropReason;
use crate::plain::Opening;
use crate::publish::label::component;

const SDP: &str = "application/sdp";

/// Opens a call, and answers with its ports: in JSON, which holds the SDP, too, or as SDP alone for who asks for that.
pub(super) async fn open(
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
    body: Result<Whole, Problem>,
) -> Result<Response, Problem> {
    let Some(ports) = &desk.ports else {
        let detail = "this daemon has no ports for plain RTP: AUDIO_RTP_PORTS is not set";
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, detail));
    };
    let Whole(body) = body?;
    let object = serde_json::from_slice(&body).map_err(|_| DropReason::Json)?;
    let opening = Opening::parse(object).map_err(|error| Problem::bad(error.to_string()))?;
    let opened = ports.open(&opening)?;
    // A client that was answered is recorded, whatever happens to this process.
    let is_on_disk = desk.ingest.is_on_disk().await;
    let status = if is_on_disk { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    let session = u64::try_from(desk.ingest.wall().0).unwrap_or(0);
    let sdp = opening.sdp(&opened.connection, session, opened.address, opened.ports);
    let place = format!("/v1/connections/{}", component(opened.connection.as_str()));
    let place = [(header::LOCATION, place)];
    let accepts_sdp = headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes() == SDP.as_bytes());
    if accepts_sdp {
        return Ok((status, place, [(header::CONTENT_TYPE, SDP)], sdp).into_response());
    }
    let channel = |port: u16| json!({ "rtp": port, "rtcp": port + 1 });
    let [caller, ai] = opened.ports.map(channel);
    let answer: Value = json!({
        "connection_id": opened.connection,
        "address": opened.address,
        "caller": caller,
        "ai": ai,
        "sdp": sdp,
    });
    Ok((place, json(status, &answer)).into_response())
}

impl From<OpenError> for Problem {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Live => Self::new(StatusCode::CONFLICT, error.to_string()).because("live"),
            OpenError::NoPorts => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()).because("no_ports")
            }
            OpenError::Refused(reason) => reason.into(),
        }
    }
}
