//! What the headers of a store's answer say, of any store that speaks HTTP: when to come back, and what time it is there.

use std::time::Duration;

use jiff::fmt::rfc2822;

use crate::time::Wall;

/// How long the store asks to be left alone: seconds, or a moment by its own clock (RFC 9110, section 10.2.3).
pub(super) fn retry_after(text: Option<&str>, date: Option<&str>) -> Option<Duration> {
    let text = text?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = seconds_of(text)?.saturating_sub(seconds_of(date?)?);
    u64::try_from(until).ok().map(Duration::from_secs)
}

/// Whether this machine's clock is not the store's, by the answer's `Date`.
pub(super) fn is_far_off(date: Option<&str>, now: Wall, most_secs: u64) -> bool {
    let Some(there) = date.and_then(seconds_of) else { return false };
    there.abs_diff(now.0.div_euclid(1_000_000)) > most_secs
}

fn seconds_of(date: &str) -> Option<i64> {
    rfc2822::parse(date).ok().map(|date| date.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: Option<&str> = Some("Tue, 15 Nov 1994 08:12:31 GMT");

    #[test]
    fn a_clock_is_wrong_when_signed_requests_are_refused_for_it() {
        let is_wrong = |date, now| is_far_off(date, Wall(now), 840);
        assert!(!is_wrong(DATE, 784_887_151_000_000));
        assert!(is_wrong(DATE, 784_887_151_000_000 + 841_000_000));
        assert!(is_wrong(DATE, 784_887_151_000_000 - 841_000_000));
        assert!(!is_wrong(Some("yesterday"), 0) && !is_wrong(None, 0));
    }

    #[test]
    fn a_store_says_in_either_way_when_to_come_back() {
        assert_eq!(retry_after(Some(" 7 "), None), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(Some("Tue, 15 Nov 1994 08:13:01 GMT"), DATE), Some(Duration::from_secs(30)));
        assert_eq!(retry_after(Some("Tue, 15 Nov 1994 08:12:01 GMT"), DATE), None, "it is over");
        assert_eq!(retry_after(Some("Tue, 15 Nov 1994 08:13:01 GMT"), None), None);
        assert_eq!(retry_after(Some("soon"), DATE), None);
        assert_eq!(retry_after(None, DATE), None);
    }
}
