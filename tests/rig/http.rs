//! A small HTTP client: one request a connection.

use std::io::{Read, Write};

use serde_json::Value;

/// What an HTTP server answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The error that it is.
    pub(crate) fn problem(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.head);
        let problem: Value = serde_json::from_slice(&self.body).expect("an HTTP answer");
        assert_eq!(problem["status"], self.status, "{problem}");
        problem
    }
}

/// Asks an HTTP server something, over a connection of its own.
pub(crate) fn ask(mut link: impl Read + Write, method: &str, target: &str) -> Answer {
    write!(link, "{method} {target} HTTP/1.1\r\nHost: sidetape\r\nConnection: close\r\n\r\n")
        .expect("an HTTP answer");
    let mut bytes = Vec::new();
    link.read_to_end(&mut bytes).expect("an HTTP answer");
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole answer");
    let head = String::from_utf8(bytes[..end].to_vec()).expect("an HTTP answer");
    let status = head.split(' ').nth(1).expect("an HTTP answer").parse().expect("an HTTP answer");
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}
