//! Live connections: all of them at a glance, and one with the manifest that it would get if it ended now.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value};
use tracing::warn;

use super::super::demand::Demand;
use super::super::live::manifest_so_far;
use super::super::log::chain;
use super::{Desk, Id, Problem, json};

/// Connections in one answer, unless asked for otherwise, and at most.
const COUNT: usize = 1000;
const COUNT_MAX: usize = 10_000;

/// The query of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
}

/// Answers with the live connections in the order of their ids, a page of them.
pub(super) async fn list(
    State(desk): State<Arc<Desk>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(ListQuery { limit, after }) = query?;
    let count = limit.unwrap_or(COUNT);
    if !(1..=COUNT_MAX).contains(&count) {
        return Err(Problem::bad(format!("limit is from 1 to {COUNT_MAX}")));
    }
    // Twenty thousand connections are some milliseconds of sorting and writing.
    let ingest = Arc::clone(&desk.ingest);
    let list = move |_: &Demand| json(StatusCode::OK, &ingest.look_at_all(after.as_deref(), count));
    let made = desk.lists.enter()?.work(list).await?;
    made.map_err(|error| {
        warn!(%error, "listing connections panicked");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the connections could not be listed")
    })
}

/// Answers with all that is known of one live connection.
pub(super) async fn one(State(desk): State<Arc<Desk>>, Id(id): Id) -> Result<Response, Problem> {
    let unknown = || Problem::new(StatusCode::NOT_FOUND, "no connection of this id is live");
    let (Some(spool), Some(look)) = (desk.ingest.live_spool(id.as_str()), desk.ingest.look(id.as_str()))
    else {
        return Err(unknown());
    };
    let place = desk.readers.enter()?;
    let now = desk.ingest.now();
    // What came before this request shall be in the answer. If the disk does not take it, what it has will do.
    desk.ingest.is_on_disk().await;
    let options = desk.options;
    let made = place.work(move |demand| manifest_so_far(&spool, now, &options, demand)).await?;
    let manifest = match made {
        Ok(Ok(manifest)) => manifest,
        _ if desk.ingest.live_spool(id.as_str()).is_none() => return Err(unknown()),
        Ok(Err(error)) => {
            warn!(connection = id.as_str(), error = chain(&error), "the spool of a live call cannot be read");
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "its spool file cannot be read now"));
        }
        Err(error) => {
            warn!(connection = id.as_str(), %error, "looking at a live call panicked");
            return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "it could not be looked at"));
        }
    };
    let Ok(Value::Object(look)) = serde_json::to_value(&look) else { unreachable!("a look is an object") };
    Ok(json(StatusCode::OK, &merged(look, manifest)))
}

/// Adds what `more` has and `look` has not; objects that both have are merged likewise.
fn merged(mut look: Map<String, Value>, more: Map<String, Value>) -> Map<String, Value> {
    for (name, value) in more {
        match (look.get_mut(&name), value) {
            (None, value) => {
                look.insert(name, value);
            }
            (Some(Value::Object(own)), Value::Object(value)) => *own = merged(std::mem::take(own), value),
            (Some(_), _) => {}
        }
    }
    look
}
