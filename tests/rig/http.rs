//! An HTTP client, byte by byte: what is asked and answered is seen as it is.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::io::{Read, Write};

use serde_json::Value;

use super::daemon::{Daemon, field};

/// What an HTTP server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The body of a good answer, which is JSON.
    pub(crate) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.header("content-type"), Some("application/json"), "{} {text}", self.head);
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn problem(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.head);
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status, "{problem}");
        problem
    }
}

/// Asks once.
pub(crate) fn ask(link: impl Read + Write, method: &str, target: &str) -> Answer {
    ask_with(link, method, target, "")
}

/// Asks once, with more header lines, each with its line end.
pub(crate) fn ask_with(link: impl Read + Write, method: &str, target: &str, lines: &str) -> Answer {
    exchange(link, method, target, lines, "")
}

/// Posts a body of JSON, or none.
pub(crate) fn post(link: impl Read + Write, target: &str, body: &str) -> Answer {
    let lines = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    exchange(link, "POST", target, &lines, body)
}

fn exchange(link: impl Read + Write, method: &str, target: &str, lines: &str, body: &str) -> Answer {
    say(link, method, target, &format!("Host: localhost\r\n{lines}"), body)
}

/// Asks once, with these header lines and no others.
pub(crate) fn say(
    mut link: impl Read + Write,
    method: &str,
    target: &str,
    lines: &str,
    body: &str,
) -> Answer {
    let head = format!("{method} {target} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n");
    link.write_all((head + body).as_bytes()).unwrap();
    let mut bytes = Vec::new();
    link.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole answer");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

/// The address of the HTTP port, as the log says.
pub(crate) fn http_address(daemon: &Daemon) -> String {
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("listening") && field(line, "socket") == Some("http"));
    line.and_then(|line| field(line, "address")).expect("a log line with the address").to_owned()
}
