//! Which clock the arrivals of a call are by: the gateway's times where they can be believed, else the daemon's.
//!
//! The gateway's times are better, because no socket lies between them and the network; the daemon's cannot step.

use std::time::Duration;

use super::{Ledger, Payload};
use crate::timeline::{Report, Rx};

/// Gateway and daemon clocks that differ by less are taken for one, where only some frames carry a gateway time.
const SAME_CLOCK_US: i64 = 2_000_000;

/// A gateway time this much farther from the daemon's than its neighbours' is wrong. A minute: a capture that is
/// replayed fast moves by a few packets' lengths from one to the next.
const LONE_TIME_US: i64 = 60_000_000;

impl Ledger {
    /// Decides which clock the arrivals are by.
    ///
    /// The gateway's times are better, where they can be believed. One that is far from both its neighbours, seen
    /// from the daemon's clock, is wrong and is replaced. If with that they still spread over longer than a recording
    /// may be, beyond the time in which they came, they are all ignored: no clock fault makes hours of silence.
    pub(super) fn settle_clocks(&mut self, longest: Duration) {
        self.choose_clock(longest);
        for ledger in &mut self.channels {
            let reports = ledger.heard.iter().map(|(when, report)| Report {
                arrival: when.at,
                ssrc: report.ssrc,
                ntp: report.ntp,
                timestamp: report.timestamp,
            });
            ledger.reports = reports.collect();
        }
    }

    fn choose_clock(&mut self, longest: Duration) {
        let mut offsets = Vec::new();
        for ledger in &mut self.channels {
            repair_lone_times(&mut ledger.rx, &ledger.payloads);
            let both = ledger.rx.iter().zip(&ledger.payloads);
            let stamped = both.filter(|(_, payload)| payload.has_gateway_time);
            offsets.extend(stamped.map(|(rx, payload)| rx.arrival.0.saturating_sub(payload.received.0)));
        }
        offsets.sort_unstable();
        // Without a single packet stamped by the gateway, all is by the daemon's clock, and so is what happened.
        let (Some(least), Some(greatest)) = (offsets.first(), offsets.last()) else { return };
        let median = offsets[offsets.len() / 2];
        let longest_us = i64::try_from(longest.as_micros()).unwrap_or(i64::MAX);
        self.is_gateway_ignored = greatest.saturating_sub(*least) > longest_us;
        if self.is_gateway_ignored {
            for ledger in &mut self.channels {
                ledger
                    .rx
                    .iter_mut()
                    .zip(&ledger.payloads)
                    .for_each(|(rx, payload)| rx.arrival = payload.received);
            }
            return;
        }
        let offset = if median.abs() < SAME_CLOCK_US { 0 } else { median };
        for ledger in &mut self.channels {
            let both = ledger.rx.iter_mut().zip(&ledger.payloads);
            both.filter(|(_, payload)| !payload.has_gateway_time)
                .for_each(|(rx, payload)| rx.arrival = payload.received.plus_us(offset));
        }
        let marks = self.marks.iter_mut().map(|mark| &mut mark.when);
        let pauses = self.pauses.iter_mut().map(|pause| &mut pause.when);
        let reports =
            self.channels.iter_mut().flat_map(|ledger| ledger.heard.iter_mut().map(|(when, _)| when));
        for when in marks.chain(pauses).chain(&mut self.clears).chain(reports) {
            when.at = when.gateway.unwrap_or(when.received.plus_us(offset));
        }
    }
}

/// Replaces each gateway time that is alone in being far off: by the daemon's clock and its neighbour's difference.
fn repair_lone_times(rx: &mut [Rx], payloads: &[Payload]) {
    let offset = |rx: &[Rx], at: usize| {
        let payload = payloads.get(at).filter(|payload| payload.has_gateway_time)?;
        Some(rx[at].arrival.0.saturating_sub(payload.received.0))
    };
    let is_far = |a: i64, b: i64| a.saturating_sub(b).abs() > LONE_TIME_US;
    for at in 0..rx.len() {
        let Some(own) = offset(rx, at) else { continue };
        let before = at.checked_sub(1).and_then(|before| offset(rx, before));
        let after = offset(rx, at + 1);
        let neighbour = match (before, after) {
            (Some(before), Some(after)) if is_far(before, after) => continue,
            (Some(before), _) => before,
            // The first of all is judged by the two behind it.
            (None, Some(after)) if offset(rx, at + 2).is_some_and(|third| !is_far(after, third)) => after,
            (None, _) => continue,
        };
        if is_far(own, neighbour) {
            rx[at].arrival = payloads[at].received.plus_us(neighbour);
        }
    }
}
