//! Datagrams in, the RTP streams among them out, and the sides of calls that those are.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use std::collections::{BTreeMap, HashMap};

use super::steps::Steps;
use super::{Datagram, forward};
use crate::packet::{HEADER_BYTES, header_only, parse_rtp};
use crate::time::Wall;

/// What sends two streams at once for no longer is one that changes its source.
const CHANGE_US: i64 = 500_000;
/// Within this a side may go on from, or to, another address with another source.
const MOVE_US: i64 = 10_000_000;

/// RTP packets of one source, or of several that one side of a call sent one after the other, in the order of the capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RtpStream {
    /// Synchronisation source, the first of several.
    pub ssrc: u32,
    /// The others, in the order in which they began; one that came back, or changed its address, again.
    pub later_ssrcs: Vec<u32>,
    /// Who sent it, as in [`Datagram::source`].
    pub source: String,
    /// Whom it was sent to, as in [`Datagram::destination`].
    pub destination: String,
    /// The packets, each parsed once already: [`parse_rtp`] accepts them. Of one that is cut, the head alone.
    pub packets: Vec<Datagram>,
    /// How many packets each payload type has.
    pub payload_types: BTreeMap<u8, usize>,
}

/// Groups the RTP packets among datagrams by source, destination and SSRC, and returns the groups that look like RTP,
/// ordered by the time of their first packet. Where the clock of the capture was set, times are mended.
///
/// Datagrams of other protocols look like RTP by two bits, so a group must hold packets of 3 numbers or more and of at most
/// 8 payload types, and at least half of the steps from one number to another be small: up to two lost, or a swap of two
/// neighbours. That a number is repeated says nothing: in the retries of a DNS query it is.
#[must_use]
pub fn rtp_streams(datagrams: Vec<Datagram>) -> Vec<RtpStream> {
    let mut groups: BTreeMap<(String, String, u32), (RtpStream, Vec<usize>)> = BTreeMap::new();
    for (place, mut datagram) in datagrams.into_iter().enumerate() {
        if datagram.is_cut {
            let Some(head) = head(&datagram.payload) else { continue };
            datagram.payload = head;
        }
        let Ok(rtp) = parse_rtp(&datagram.payload) else { continue };
        let key = (datagram.source.clone(), datagram.destination.clone(), rtp.ssrc);
        let (group, places) = groups.entry(key).or_default();
        let count = group.payload_types.entry(rtp.payload_type).or_default();
        *count = count.saturating_add(1);
        group.packets.push(datagram);
        places.push(place);
    }
    let named = groups.into_iter().map(|(key, (group, places))| {
        let (source, destination, ssrc) = key;
        (RtpStream { ssrc, source, destination, ..group }, places)
    });
    let (mut streams, places): (Vec<RtpStream>, Vec<Vec<usize>>) =
        named.filter(|(stream, _)| looks_like_rtp(stream)).unzip();
    mend_times(&mut streams, &places);
    forward::mend(&mut streams);
    streams.sort_by_key(begin_us);
    streams
}

/// Returns that of a packet which says where it belongs: what it has behind that may be among what was cut. Nothing where not
/// even that is there.
fn head(payload: &[u8]) -> Option<Vec<u8>> {
    let is_version_2 = payload.first().is_some_and(|first| first >> 6 == 2);
    (is_version_2 && payload.len() >= HEADER_BYTES).then(|| header_only(payload).to_vec())
}

/// Joins the streams that one side of a call sent one after the other: by another source from the same address, or the same
/// source from or to another. The sides are ordered as the streams are.
#[must_use]
pub fn sides(streams: Vec<RtpStream>) -> Vec<RtpStream> {
    let mut sides: Vec<(Vec<RtpStream>, i64)> = Vec::new();
    // Where streams went last: between two addresses, from or to one by one source, and from or to one by any.
    let mut flows: HashMap<(String, String), usize> = HashMap::new();
    let mut ends: HashMap<(bool, String, Option<u32>), usize> = HashMap::new();
    for stream in streams {
        let begin_us = begin_us(&stream);
        let follows = |side: &usize, within_us: i64| {
            let gap_us = sides.get(*side).map(|(_, end_us)| begin_us.saturating_sub(*end_us));
            gap_us.is_some_and(|gap_us| (-CHANGE_US..within_us).contains(&gap_us))
        };
        let addresses = [(false, &stream.source), (true, &stream.destination)];
        let at_end = |ssrc: Option<u32>, within_us: i64| {
            let mut keys = addresses.iter().map(|(is_to, address)| (*is_to, (*address).clone(), ssrc));
            keys.find_map(|key| ends.get(&key).copied().filter(|side| follows(side, within_us)))
        };
        let flow = (stream.source.clone(), stream.destination.clone());
        let of_flow = flows.get(&flow).copied().filter(|side| follows(side, i64::MAX));
        let of_source = of_flow.or_else(|| at_end(Some(stream.ssrc), i64::MAX));
        let side = of_source.or_else(|| at_end(None, MOVE_US)).unwrap_or(sides.len());
        for (is_to, address) in addresses {
            ends.insert((is_to, address.clone(), Some(stream.ssrc)), side);
            ends.insert((is_to, address.clone(), None), side);
        }
        flows.insert(flow, side);
        let stream_end_us = end_us(&stream);
        match sides.get_mut(side) {
            Some((streams, side_end_us)) => {
                *side_end_us = stream_end_us.max(*side_end_us);
                streams.push(stream);
            }
            None => sides.push((vec![stream], stream_end_us)),
        }
    }
    sides.into_iter().filter_map(|(streams, _)| join(streams)).collect()
}

/// Makes one of several streams, named by the first.
#[must_use]
pub fn join(streams: Vec<RtpStream>) -> Option<RtpStream> {
    let mut streams = streams.into_iter();
    let mut side = streams.next()?;
    for stream in streams {
        side.later_ssrcs.push(stream.ssrc);
        side.packets.extend(stream.packets);
        for (payload_type, count) in stream.payload_types {
            let sum = side.payload_types.entry(payload_type).or_default();
            *sum = sum.saturating_add(count);
        }
    }
    // Packets of one stream stay in the order in which they were captured.
    if !side.later_ssrcs.is_empty() {
        side.packets.sort_by_key(|packet| packet.at_us);
    }
    Some(side)
}

fn begin_us(stream: &RtpStream) -> i64 {
    stream.packets.first().map_or(0, |packet| packet.at_us)
}

fn end_us(stream: &RtpStream) -> i64 {
    stream.packets.last().map_or(0, |packet| packet.at_us)
}

/// Mends the times of packets in the order in which they stand in the file.
fn mend_times(streams: &mut [RtpStream], places: &[Vec<usize>]) {
    let mut order: Vec<(usize, usize)> = Vec::new();
    for (stream, places) in places.iter().enumerate() {
        order.extend(places.iter().map(|place| (*place, stream)));
    }
    order.sort_unstable();
    let mut steps = Steps::default();
    let mut heads: Vec<_> = streams.iter_mut().map(|stream| (stream.packets.iter_mut(), None)).collect();
    for (_, stream) in order {
        let Some((packets, progress)) = heads.get_mut(stream) else { continue };
        let Some(packet) = packets.next() else { continue };
        let Ok(rtp) = parse_rtp(&packet.payload) else { continue };
        packet.at_us = steps.mend(packet.at_us, &rtp, progress).clamp(0, Wall::MAX.0);
    }
}

fn looks_like_rtp(stream: &RtpStream) -> bool {
    let packets = stream.packets.iter().filter_map(|packet| parse_rtp(&packet.payload).ok());
    let mut sequences: Vec<u16> = packets.map(|rtp| rtp.sequence).collect();
    sequences.dedup();
    let steps = sequences.iter().zip(sequences.iter().skip(1)).map(|(from, to)| to.wrapping_sub(*from));
    let small_steps = steps.filter(|&step| step <= 3 || step == u16::MAX).count();
    let enough = sequences.len().saturating_sub(1).div_ceil(2);
    sequences.len() >= 3 && stream.payload_types.len() <= 8 && small_steps >= enough
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "a test may panic")]
mod tests {
    use super::*;

    const MS: i64 = 1000;

    /// A packet of 20 ms of Opus by its number, sent in time.
    fn packet(between: (&str, &str), ssrc: u32, number: u16, at_ms: i64) -> Datagram {
        let timestamp = u32::from(number) * 960;
        let head = [0x80, 111, number.to_be_bytes()[0], number.to_be_bytes()[1]];
        Datagram {
            at_us: at_ms * MS,
            source: between.0.to_owned(),
            destination: between.1.to_owned(),
            payload: [&head[..], &timestamp.to_be_bytes(), &ssrc.to_be_bytes(), &[1]].concat(),
            is_cut: false,
        }
    }

    /// Both directions of a call, each packet of the one 10 ms before that of the other, with the clock of the capture as it
    /// is at that time.
    fn call(numbers: std::ops::Range<u16>, clock: impl Fn(i64) -> i64) -> Vec<Datagram> {
        let both = |number: u16| {
            let at_ms = 1_000_000 + i64::from(number) * 20;
            [
                packet(("a:1", "b:2"), 1, number, clock(at_ms)),
                packet(("b:2", "a:1"), 2, number, clock(at_ms + 10)),
            ]
        };
        numbers.flat_map(both).collect()
    }

    /// How far the times of both streams are from those that are true, at most.
    fn error_ms(streams: &[RtpStream]) -> i64 {
        let begin_us = begin_us(&streams[0]);
        let of_packet = |packet: &Datagram, late_ms: i64| {
            let number = i64::from(parse_rtp(&packet.payload).unwrap().sequence);
            (packet.at_us - begin_us - (number * 20 + late_ms) * MS).abs() / MS
        };
        let late = |stream: &RtpStream| if stream.ssrc == 1 { 0 } else { 10 };
        let errors =
            streams.iter().flat_map(|stream| stream.packets.iter().map(move |p| of_packet(p, late(stream))));
        errors.max().unwrap()
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_turn_the_call_around() {
        let back = |at_ms: i64| if at_ms < 1_015_000 { at_ms } else { at_ms - 100_000 };
        let streams = rtp_streams(call(0..1500, back));
        assert_eq!(streams.iter().map(|stream| stream.packets.len()).collect::<Vec<_>>(), [1500, 1500]);
        assert!(error_ms(&streams) <= 1, "{} ms", error_ms(&streams));
        // Twice, and then right again.
        let often = |at_ms: i64| match at_ms {
            ..1_005_000 => at_ms,
            1_005_000..1_010_000 => at_ms - 3_600_000,
            1_010_000..1_015_000 => at_ms - 3_602_000,
            _ => at_ms - 3_600_000,
        };
        assert!(error_ms(&rtp_streams(call(0..1500, often))) <= 1);
        // In a pause of one side, and with a single time that is wrong.
        let mut paused = call(0..1500, back);
        paused.retain(|packet| {
            let rtp = parse_rtp(&packet.payload).unwrap();
            rtp.ssrc == 1 || !(700..800).contains(&rtp.sequence)
        });
        assert!(error_ms(&rtp_streams(paused)) <= 1);
        let mut wrong = call(0..1500, |at_ms| at_ms);
        wrong[900].at_us -= 5_000 * MS;
        assert!(error_ms(&rtp_streams(wrong)) <= 20);
    }

    #[test]
    fn a_clock_that_is_set_forward_makes_no_pause() {
        for ahead_ms in [1500, 5000, 3_600_000] {
            let ahead = |at_ms: i64| if at_ms < 1_015_000 { at_ms } else { at_ms + ahead_ms };
            assert!(error_ms(&rtp_streams(call(0..1500, ahead))) <= 1, "{ahead_ms} ms");
            // Between the packets of the one and the other, and at the beginning and the end of the call.
            for step_ms in [1_015_005, 1_000_050, 1_029_000] {
                let ahead = |at_ms: i64| if at_ms < step_ms { at_ms } else { at_ms + ahead_ms };
                assert!(error_ms(&rtp_streams(call(0..1500, ahead))) <= 1, "{ahead_ms} ms at {step_ms}");
            }
        }
        let often = |at_ms: i64| match at_ms {
            ..1_005_000 => at_ms,
            1_005_000..1_010_000 => at_ms + 3_000,
            1_010_000..1_015_000 => at_ms + 60_000,
            _ => at_ms - 3_600_000,
        };
        assert!(error_ms(&rtp_streams(call(0..1500, often))) <= 1);
    }

    #[test]
    fn a_hold_or_a_link_that_stands_still_is_no_step_of_the_clock() {
        let held = |at_ms: i64| if at_ms < 1_015_000 { at_ms } else { at_ms + 5000 };
        let span_ms = |packets: Vec<Datagram>| {
            let streams = rtp_streams(packets);
            (end_us(&streams[0]) - begin_us(&streams[0])) / MS
        };
        // The timestamps of one direction go on with the clock.
        let mut told = call(0..1500, held);
        for packet in
            told.iter_mut().filter(|packet| packet.source == "a:1" && packet.at_us >= 1_020_000 * MS)
        {
            let timestamp = parse_rtp(&packet.payload).unwrap().timestamp + 5 * 48_000;
            packet.payload[4..8].copy_from_slice(&timestamp.to_be_bytes());
        }
        assert_eq!(span_ms(told), 34_980);
        // There is but one direction.
        let mut one = call(0..1500, held);
        one.retain(|packet| packet.source == "a:1");
        assert_eq!(span_ms(one), 34_980);
        // The two take up the call again at moments of their own.
        let mut apart = call(0..1500, held);
        apart
            .iter_mut()
            .filter(|p| p.source == "b:2" && p.at_us > 1_020_000 * MS)
            .for_each(|p| p.at_us += 200 * MS);
        assert_eq!(span_ms(apart), 34_980);
        // What waited comes at once, or twice as fast as it was spoken.
        for times in [50, 2] {
            let stalled = |at_ms: i64| match at_ms {
                1_015_000..1_018_000 => 1_018_000 + (at_ms - 1_015_000) / times,
                1_018_000..1_021_000 if times == 2 => 1_019_500 + (at_ms - 1_018_000) / 2,
                _ => at_ms,
            };
            let streams = rtp_streams(call(0..1500, stalled));
            let first_late = streams[0].packets[750].at_us - streams[0].packets[749].at_us;
            assert_eq!(first_late / MS, 3020, "{times}");
        }
    }

    #[test]
    fn packets_that_are_written_out_of_order_are_no_step_of_the_clock() {
        let mut mixed = call(0..500, |at_ms| at_ms);
        // The two directions come from two interfaces, whose packets are written by turns, a second of each.
        mixed.sort_by_key(|packet| (packet.at_us / (1000 * MS), packet.source.clone(), packet.at_us));
        let streams = rtp_streams(mixed);
        assert_eq!((error_ms(&streams), streams.len()), (0, 2));
        // One packet that was overtaken.
        let mut late = call(0..500, |at_ms| at_ms);
        late.swap(400, 404);
        let at_us = [late[400].at_us, late[404].at_us];
        (late[400].at_us, late[404].at_us) = (at_us[1], at_us[0]);
        assert!(error_ms(&rtp_streams(late)) <= 60);
    }

    #[test]
    fn what_repeats_one_number_is_no_rtp() {
        // Retries of a DNS query, of a query with another id each, and of answers: the number is their flags.
        let query = |id: u8, flags: u8| {
            let payload =
                [0x80, id, flags, 0, 0, 1, 0, 0, 0, 0, 0, 0, 4, b'_', b's', b'i', b'p', 0, 0, 33, 0, 1];
            Datagram {
                at_us: 0,
                source: "a:2791".to_owned(),
                destination: "b:53".to_owned(),
                payload: payload.to_vec(),
                is_cut: false,
            }
        };
        assert_eq!(rtp_streams((0..5).map(|_| query(0x6b, 1)).collect()), []);
        assert_eq!(rtp_streams((0..60).map(|id| query(id, 1)).collect()), []);
        assert_eq!(rtp_streams((0..60).map(|id| query(id, 0x81)).collect()), []);
        // A capture on all interfaces has each packet twice.
        let twice: Vec<_> = call(0..50, |at_ms| at_ms).into_iter().flat_map(|p| [p.clone(), p]).collect();
        assert_eq!(rtp_streams(twice).len(), 2);
    }

    /// Streams as (addresses, SSRC, begin and end in seconds); the sides that they make, by their SSRCs.
    fn sides_of(streams: &[((&str, &str), u32, std::ops::Range<i64>)]) -> Vec<Vec<u32>> {
        let stream = |(between, ssrc, seconds): &((&str, &str), u32, std::ops::Range<i64>)| {
            let at = |(number, second)| packet(*between, *ssrc, number, second * 1000);
            (0..).zip(seconds.clone()).map(at).collect::<Vec<_>>()
        };
        let mut all: Vec<Datagram> = streams.iter().flat_map(stream).collect();
        all.sort_by_key(|packet| packet.at_us);
        let sides = sides(rtp_streams(all));
        for side in &sides {
            assert!(side.packets.is_sorted_by_key(|packet| packet.at_us));
            assert_eq!(side.payload_types[&111], side.packets.len());
        }
        sides.iter().map(|side| [&[side.ssrc], &side.later_ssrcs[..]].concat()).collect()
    }

    #[test]
    fn a_side_that_changes_its_source_or_its_address_is_one_side() {
        let (to, back) = (("a:1", "b:2"), ("b:2", "a:1"));
        assert_eq!(
            sides_of(&[(to, 1, 0..9), (back, 2, 5..60), (to, 3, 9..40), (to, 4, 40..60)]),
            [vec![1, 3, 4], vec![2]]
        );
        // Hours later; from another port; the same source from another host, after a long pause.
        assert_eq!(sides_of(&[(to, 1, 0..9), (to, 3, 20_000..20_009)]), [[1, 3]]);
        assert_eq!(sides_of(&[(to, 1, 0..9), (("a:9", "b:2"), 3, 10..20)]), [[1, 3]]);
        assert_eq!(sides_of(&[(to, 1, 0..9), (("c:1", "b:2"), 1, 100..120)]), [[1, 1]]);
    }

    #[test]
    fn two_sources_at_once_and_another_call_are_sides_of_their_own() {
        let to = ("a:1", "b:2");
        assert_eq!(sides_of(&[(to, 1, 0..9), (to, 3, 5..60)]), [[1], [3]]);
        assert_eq!(sides_of(&[(to, 1, 0..9), (("c:1", "b:2"), 3, 30..40)]), [[1], [3]]);
        assert_eq!(
            sides_of(&[(to, 1, 0..9), (("a:1", "b:2"), 0, 9..20), (("d:1", "e:2"), 3, 9..20)]),
            [vec![1, 0], vec![3]]
        );
    }
}
