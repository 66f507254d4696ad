//! Named moments: MARK frames, and key presses that came as telephone events (RFC 4733).
//!
//! Of either there are so many at most: a sender can put a new event into each packet. Their fields are kept as the JSON that
//! they came as, which takes a twentieth of the memory that the same takes as values.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Ledger, Moment};
use crate::connection::digits::tells_key_press;
use crate::id::{Channel, Scope};
use crate::time::Wall;

/// The most marks of a call, as many as there may be control frames. A key press a second for four hours makes 14,400.
pub const MARKS_MAX: usize = 65_536;

/// A segment of a long event is no longer than this, in ticks; the next one is the same key press (RFC 4733 section 2.5.1.3).
const SEGMENT_TICKS: u32 = 0xffff;

/// A named moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// When.
    pub when: Moment,
    /// What it is about.
    pub scope: Scope,
    /// Its name and further fields.
    pub fields: Fields,
    /// When, by the clock of each channel's packets.
    pub(super) own: [Wall; 2],
}

/// The fields of a mark, a JSON object as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields(Arc<str>);

impl Fields {
    /// Those of values.
    #[must_use]
    pub fn of(fields: &Map<String, Value>) -> Self {
        Self(serde_json::to_string(fields).unwrap_or_else(|_| "{}".to_owned()).into())
    }

    /// The fields as values.
    #[must_use]
    pub fn to_map(&self) -> Map<String, Value> {
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    /// Leaves the name alone. Returns whether there was more.
    pub(super) fn keep_name(&mut self) -> bool {
        let mut fields = self.to_map();
        let count = fields.len();
        fields.retain(|name, _| name == "name");
        if fields.len() < count {
            *self = Self::of(&fields);
        }
        fields.len() < count
    }
}

/// The telephone event of a channel that came last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    ssrc: u32,
    timestamp: u32,
    /// Nothing of one whose payload is not kept.
    event: Option<u8>,
}

impl Event {
    pub(super) fn new(ssrc: u32, timestamp: u32, payload: &[u8], is_withheld: bool) -> Option<Self> {
        let event = payload.first().copied().filter(|_| !is_withheld);
        (event.is_some() || is_withheld).then_some(Self { ssrc, timestamp, event })
    }

    /// Whether it is of the key press that another one is of: the packets of one are alike, and a long one comes in segments.
    fn goes_on_from(self, before: Self) -> bool {
        let ticks = self.timestamp.wrapping_sub(before.timestamp);
        let is_segment = ticks == SEGMENT_TICKS && self.event == before.event;
        self.ssrc == before.ssrc && (ticks == 0 || is_segment)
    }
}

impl Ledger {
    /// Enters a telephone event: the first packet of a key press says all, the key, and when.
    pub(super) fn key_press(&mut self, channel: Channel, when: Moment, event: Event) {
        let last = self.channels[channel.index()].event.replace(event);
        if last.is_some_and(|last| event.goes_on_from(last)) {
            return;
        }
        let key = event.event.filter(|_| !self.masks_digits);
        self.push_mark(|| Mark {
            own: [when.stamp().own(); 2],
            when,
            scope: Scope::Channel(channel),
            fields: Fields::of(&key_press_fields(key)),
        });
    }

    pub(super) fn mark(&mut self, scope: Scope, when: Moment, mut fields: Map<String, Value>) {
        // The spool file may be older than the wish to leave digits out.
        if self.masks_digits && tells_key_press(&fields) {
            fields.retain(|name, _| name == "name");
        }
        let own = Channel::BOTH.map(|channel| self.claims.by_packets(channel, when.stamp()).own());
        self.claims.enter_mark(when.stamp(), scope);
        self.push_mark(|| Mark { when, scope, fields: Fields::of(&fields), own });
    }

    fn push_mark(&mut self, mark: impl FnOnce() -> Mark) {
        if self.marks.len() < MARKS_MAX {
            self.marks.push(mark());
        } else {
            self.more_marks += 1;
        }
    }
}

/// The mark of a key press; without the key, where that is not to be kept.
fn key_press_fields(event: Option<u8>) -> Map<String, Value> {
    let keys = "0123456789*#ABCD";
    let key =
        |event: u8| keys.chars().nth(usize::from(event)).map_or_else(|| event.to_string(), String::from);
    let name = ("name".to_owned(), Value::from("telephone-event"));
    let event = event.map(|event| ("event".to_owned(), Value::from(key(event))));
    Map::from_iter([name].into_iter().chain(event))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LONGEST, enter, ledger, rtp_at};
    use super::*;
    use crate::timeline::RxKind;

    #[test]
    fn a_key_press_is_one_mark_however_many_packets_it_takes() {
        let mut ledger = ledger();
        for n in 0..5 {
            enter(&mut ledger, 1, 600, None, &rtp_at(101, n, 0, &[11, 0, 0, 160]));
        }
        ledger.close(LONGEST);
        assert_eq!(ledger.marks.len(), 1);
        assert_eq!(ledger.marks[0].fields.to_map()["event"], "#");
        assert_eq!(ledger.channels[0].rx[0].kind, RxKind::Beside);
    }

    #[test]
    fn a_long_key_press_comes_in_segments_and_two_of_one_key_are_two() {
        let mut ledger = ledger();
        for (n, timestamp) in [(0, 0), (1, 0xffff), (2, 0x1_fffe), (3, 0x1_fffe + 4000)] {
            enter(&mut ledger, 1, 600, None, &rtp_at(101, n, timestamp, &[5, 10, 0xff, 0xff]));
        }
        enter(&mut ledger, 1, 600, None, &rtp_at(101, 4, 0x1_fffe + 4000 + 0xffff, &[6, 10, 0xff, 0xff]));
        let keys: Vec<_> = ledger.marks.iter().map(|mark| mark.fields.to_map()["event"].clone()).collect();
        assert_eq!(keys, ["5", "5", "6"]);
    }

    #[test]
    fn a_mark_without_a_time_is_in_a_pause_by_the_clock_of_the_packets() {
        let stamp = |ms: i64| Some(Wall(5_000_000_000 + ms * 1000));
        let mut whole = Vec::new();
        // Of the five marks, those at 200 and 300 ms are in the pause, which is told of behind them.
        for is_told in [true, false] {
            let mut ledger = ledger();
            for ms in [0, 100, 200, 300, 400u64] {
                let body = rtp_at(111, u8::try_from(ms / 100).unwrap(), 0, &[0xf8, 1]);
                let at_us = 600 + ms * 1000;
                let gateway = stamp(ms.try_into().unwrap());
                enter(&mut ledger, 1, at_us, gateway, &body);
                let mark = format!(r#"{{"name":"m","digits":"{ms}"}}"#);
                enter(&mut ledger, 8, at_us, gateway.filter(|_| is_told), mark.as_bytes());
            }
            enter(&mut ledger, 6, 410_000, stamp(150), b"");
            enter(&mut ledger, 7, 410_000, stamp(350), b"");
            ledger.close(LONGEST);
            assert!(ledger.has_paused);
            let marks = ledger.marks.iter().map(|mark| mark.fields.to_map());
            let digits = marks.map(|mut mark| mark.remove("digits").is_some());
            whole.push(digits.collect::<Vec<_>>());
        }
        assert_eq!(whole, vec![vec![true, true, false, false, true]; 2]);
    }

    #[test]
    fn the_last_mark_is_taken_out_although_no_packet_comes_behind_it() {
        let mut ledger = ledger();
        let stamp = |ms: i64| Some(Wall(5_000_000_000 + ms * 1000));
        enter(&mut ledger, 1, 600, stamp(0), &rtp_at(111, 0, 0, &[0xf8, 1]));
        enter(&mut ledger, 8, 500_600, None, br#"{"name":"m","digits":"4111"}"#);
        enter(&mut ledger, 6, 600_600, stamp(300), b"");
        ledger.close(LONGEST);
        assert!(ledger.has_paused && !ledger.marks[0].fields.to_map().contains_key("digits"));
    }

    #[test]
    fn a_call_has_so_many_marks_and_the_rest_is_counted() {
        let mut ledger = ledger();
        for n in 0..u32::try_from(MARKS_MAX).unwrap() + 10 {
            enter(&mut ledger, 1, 600, None, &rtp_at(101, 0, n * 960, &[1, 10, 0, 160]));
        }
        enter(&mut ledger, 8, 700, None, br#"{"name":"one more"}"#);
        assert_eq!((ledger.marks.len(), ledger.more_marks), (MARKS_MAX, 11));
    }
}
