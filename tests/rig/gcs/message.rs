//! Requests of Google Cloud Storage's JSON API taken apart, and its answers put together.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::super::wire::{Head, from_percent};
use super::Object;

/// What will be sent back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
}

/// A request, taken apart.
pub(super) struct Request<'r> {
    pub(super) head: &'r Head,
    pub(super) here: &'r str,
    pub(super) path: Vec<&'r str>,
    pub(super) query: HashMap<&'r str, String>,
}

impl<'r> Request<'r> {
    pub(super) fn new(head: &'r Head, here: &'r str) -> Self {
        let (path, query) = head.target().split_once('?').unwrap_or((head.target(), ""));
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let query = pairs.map(|(name, value)| (name, from_percent(&value.replace('+', " ")))).collect();
        Self { head, here, path: path.trim_start_matches('/').split('/').collect(), query }
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.query.get(name).and_then(|value| value.parse().ok())
    }

    /// The session that it belongs to.
    pub(super) fn session(&self) -> Option<u64> {
        let is_upload = self.path.first() == Some(&"upload") && self.head.method() != "POST";
        if is_upload { self.number("upload_id") } else { None }
    }
}

/// The range that a request of a session carries: where it begins, and how long the object is if that is known by then.
pub(super) enum Range {
    /// No data: what is there is asked for, and finished if it has this length.
    Nothing { total: Option<u64> },
    /// From here on. The last byte, and the length; without both the body's end is the object's.
    From { begin: u64, end: Option<u64>, total: Option<u64> },
}

impl Range {
    pub(super) fn parse(text: Option<&str>) -> Option<Self> {
        let Some(text) = text else { return Some(Self::From { begin: 0, end: None, total: None }) };
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let total = if total == "*" { None } else { Some(total.parse().ok()?) };
        if range == "*" {
            return Some(Self::Nothing { total });
        }
        let (begin, end) = range.split_once('-')?;
        let end = if end == "*" { None } else { Some(end.parse().ok()?) };
        Some(Self::From { begin: begin.parse().ok()?, end, total })
    }

    /// Whether an object that has come this far is complete.
    pub(super) fn is_complete(&self, length: u64) -> bool {
        match self {
            Self::Nothing { total } => *total == Some(length),
            Self::From { end: None, total: None, .. } => true,
            Self::From { total, .. } => *total == Some(length),
        }
    }
}

impl Reply {
    pub(super) fn json(value: &Value) -> Self {
        let head = Head::answer(200).with("Content-Type", "application/json; charset=UTF-8");
        Self { head, body: value.to_string().into_bytes() }
    }
}

/// A refusal in the service's form.
pub(super) fn problem(status: u16, reason: &str, message: &str) -> Reply {
    let error = json!({ "domain": "global", "reason": reason, "message": message });
    let body = json!({ "error": { "code": status, "message": message, "errors": [error] } });
    let head = Head::answer(status).with("Content-Type", "application/json; charset=UTF-8");
    Reply { head, body: body.to_string().into_bytes() }
}

/// An object's bytes, or the range of them that was asked for.
pub(super) fn media(asked: &Head, object: &Object) -> Result<Reply, Reply> {
    let length = object.bytes.len();
    let range = asked.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (begin, end) = match range {
        None => (0, length),
        Some(("", last)) => (length.saturating_sub(last.parse().unwrap_or(length)), length),
        Some((begin, last)) => {
            let end = last.parse::<usize>().map_or(length, |last| length.min(last + 1));
            (begin.parse().unwrap_or(length), end)
        }
    };
    if range.is_some() && begin >= end {
        return Err(problem(416, "requestedRangeNotSatisfiable", "Request range not satisfiable"));
    }
    let text = |field: &str| object.resource[field].as_str().unwrap_or_default().to_owned();
    let mut head = Head::answer(if range.is_some() { 206 } else { 200 })
        .with("Content-Type", &object.content_type)
        .with("ETag", text("etag"))
        .with("x-goog-generation", object.generation)
        .with("x-goog-metageneration", 1)
        .with("x-goog-hash", format!("crc32c={}", text("crc32c")))
        .with("x-goog-storage-class", "STANDARD")
        .with("x-goog-stored-content-encoding", "identity")
        .with("x-goog-stored-content-length", length);
    if range.is_some() {
        head = head.with("Content-Range", format!("bytes {begin}-{}/{length}", end - 1));
    }
    for (name, value) in &object.metadata {
        head = head.with(&format!("x-goog-meta-{name}"), value);
    }
    if asked.method() == "HEAD" {
        return Ok(Reply { head: head.with("Content-Length", end - begin), body: Vec::new() });
    }
    Ok(Reply { head, body: object.bytes[begin..end].to_vec() })
}

pub(super) fn insert_of(json: &[u8]) -> Result<Value, Reply> {
    let value = serde_json::from_slice(json).ok().filter(Value::is_object);
    value.ok_or_else(|| problem(400, "parseError", "Parse Error"))
}

pub(super) fn name_of(request: &Request<'_>, insert: &Value) -> Result<String, Reply> {
    let name = request.query.get("name").map(String::as_str).or(insert["name"].as_str());
    name.filter(|name| !name.is_empty())
        .map(str::to_owned)
        .ok_or_else(|| problem(400, "required", "Required"))
}

/// The parts of a body as RFC 2046 section 5.1 has them: the headers and the content of each.
pub(super) fn parts<'b>(body: &'b [u8], boundary: &str) -> Option<Vec<(Head, &'b [u8])>> {
    let mut found = Vec::new();
    let mut rest = body.strip_prefix(format!("--{boundary}").as_bytes())?;
    let delimiter = format!("\r\n--{boundary}");
    while !rest.starts_with(b"--") {
        rest = rest.strip_prefix(b"\r\n")?;
        let mut head = Head::default();
        loop {
            let end = rest.windows(2).position(|two| two == b"\r\n")?;
            let line = std::str::from_utf8(&rest[..end]).ok()?;
            rest = &rest[end + 2..];
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':')?;
            head = head.with(name, value.trim());
        }
        let end = find(rest, delimiter.as_bytes())?;
        found.push((head, &rest[..end]));
        rest = &rest[end + delimiter.len()..];
    }
    Some(found)
}

/// Where a pattern begins. By its first bytes, because a media body is long and this is not optimised.
pub(super) fn find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + text.get(from..)?.iter().position(|byte| *byte == pattern[0])?;
        if text[at..].starts_with(pattern) {
            return Some(at);
        }
        from = at + 1;
    }
}
