//! The page of metrics, as Prometheus reads it.

use std::net::TcpStream;

use super::http::ask;
use super::wait_for;

/// A page that was read once.
#[derive(Clone, Debug)]
pub(crate) struct Page(pub(crate) String);

impl Page {
    /// Reads the page of the daemon at an address.
    pub(crate) fn of(address: &str) -> Self {
        let answer = ask(TcpStream::connect(address).expect("the HTTP port"), "GET", "/metrics");
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        Self(String::from_utf8(answer.body).expect("text"))
    }

    /// Reads the page again and again until a sample has a value that will do.
    pub(crate) fn when(address: &str, sample: &str, will_do: impl Fn(f64) -> bool) -> Self {
        wait_for(sample, || Some(Self::of(address)).filter(|page| will_do(page.value(sample))))
    }

    /// The value of a sample: `name`, or `name{label="value"}`.
    pub(crate) fn value(&self, sample: &str) -> f64 {
        let found = self.0.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        found.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {sample} in {}", self.0))
    }

    /// The sum of all samples of a metric.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let samples = self.0.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        samples
            .map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect(line))
            .sum()
    }
}
