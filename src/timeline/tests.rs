//! What placement makes of a few packets each; `tests/placement.rs` has whole calls.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const ORIGIN: Wall = Wall(1_000_000_000_000);

/// Packet `n` of 20 ms, arriving `delay_ms` after it was spoken.
fn rx(n: u16, delay_ms: i64) -> Rx {
    Rx {
        arrival: ORIGIN.plus_us((i64::from(n) * 20 + 20 + delay_ms) * 1000),
        ssrc: 1,
        timestamp: 0xffff_f000_u32.wrapping_add(u32::from(n) * 960),
        clock_hz: 48_000,
        samples: 960,
        sequence: 65_500_u16.wrapping_add(n),
        bytes: 60,
        digest: n,
        kind: RxKind::Audio,
        is_speech: None,
    }
}

fn positions(placement: &Placement) -> Vec<i64> {
    placement.packets.iter().map(|placed| placed.at.0 / 48).collect()
}

#[test]
fn jitter_does_not_move_audio_and_the_fastest_packet_sets_the_level() {
    let packets: Vec<_> = (0..100).map(|n| rx(n, if n == 50 || n == 51 { 10 } else { 35 })).collect();
    let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
    assert_eq!(positions(&placement), (0..100).map(|n| 10 + n * 20).collect::<Vec<_>>());
    assert_eq!(placement.counts, Counts::default());
    assert!(placement.packets[1..].iter().all(|placed| placed.gap == Gap::None));
    assert_eq!(placement.packets[0].gap, Gap::Start);
}

#[test]
fn loss_reordering_and_duplicates_are_told_apart() {
    let mut packets: Vec<_> = (0..20).map(|n| rx(n, 10)).collect();
    packets.remove(15);
    packets.remove(15);
    packets.swap(4, 5);
    packets.insert(9, packets[8]);
    let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
    let expected = Counts { lost: 2, duplicate: 1, reordered: 1, ..Counts::default() };
    assert_eq!(placement.counts, expected);
    assert_eq!(placement.packets.len(), 18);
    assert_eq!(placement.packets[15].gap, Gap::Loss);
    assert_eq!(positions(&placement)[14..16], [290, 350]);
}

#[test]
fn silence_suppression_is_no_loss() {
    let mut packets: Vec<_> = (0..10).map(|n| rx(n, 10)).collect();
    for packet in &mut packets[5..] {
        packet.timestamp = packet.timestamp.wrapping_add(400 * 48);
        packet.arrival = packet.arrival.plus_us(400_000);
    }
    for packet in &mut packets[8..] {
        packet.timestamp = packet.timestamp.wrapping_add(48_000);
        packet.arrival = packet.arrival.plus_us(1_000_000);
    }
    let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
    assert_eq!(placement.counts.lost, 0);
    assert_eq!((placement.packets[5].gap, positions(&placement)[5]), (Gap::Silence, 510));
    assert_eq!((placement.packets[8].gap, positions(&placement)[8]), (Gap::Pause, 1570));
}

#[test]
fn a_packet_without_audio_keeps_the_numbering_whole() {
    let mut packets: Vec<_> = (0..10).map(|n| rx(n, 10)).collect();
    packets[4].kind = RxKind::Beside;
    packets[4].timestamp = packets[2].timestamp;
    let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
    assert_eq!(placement.counts.lost, 0);
    assert_eq!((placement.packets[4].gap, positions(&placement)[4]), (Gap::Silence, 110));
}

#[test]
fn a_new_ssrc_is_placed_by_its_own_arrival() {
    let mut packets: Vec<_> = (0..10).map(|n| rx(n, 10)).collect();
    for (n, packet) in packets.iter_mut().enumerate().skip(5) {
        packet.ssrc = 2;
        packet.timestamp = 77 + 960 * u32::try_from(n).unwrap();
        packet.sequence = 7 + u16::try_from(n).unwrap();
        packet.arrival = packet.arrival.plus_us(500_000);
    }
    let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
    assert_eq!((placement.packets[5].gap, positions(&placement)[5]), (Gap::Pause, 610));
    assert_eq!(placement.counts, Counts::default());
}

#[test]
fn two_sources_at_once_do_not_double_the_call() {
    let mut packets = Vec::new();
    for n in 0..100 {
        packets.push(rx(n, 10));
        packets.push(Rx { ssrc: 2, ..rx(n, 12) });
    }
    let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
    assert_eq!(placement.packets.len(), 100);
    assert_eq!(placement.counts.overlapping, 100);
}

#[test]
fn one_odd_number_of_a_packet_leaves_it_in_its_place() {
    let even: Vec<_> = (0..100).map(|n| rx(n, 10)).collect();
    let odd_time = |by: u32| {
        let mut packets = even.clone();
        packets[40].timestamp = packets[40].timestamp.wrapping_add(by);
        packets
    };
    let odd_sequence = |by: u16| {
        let mut packets = even.clone();
        packets[40].sequence = packets[40].sequence.wrapping_add(by);
        packets
    };
    let all = [0x7000_0000, 0x9000_0000, 48_000 * 60].map(odd_time);
    for packets in all.into_iter().chain([1000, 5000, 60_000, 30].map(odd_sequence)) {
        let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
        assert_eq!(positions(&placement), (0..100).map(|n| 10 + n * 20).collect::<Vec<_>>());
        assert_eq!(placement.counts, Counts::default());
    }
}

#[test]
fn a_sender_that_begins_each_utterance_at_the_same_numbers_is_heard_each_time() {
    for (utterances, length, apart) in
        [(6_u16, 150_u16, 250_u16), (12, 50, 150), (6, 150, 150), (5, 320, 400)]
    {
        // What they begin with is the same silence.
        for silent in [0, 1, 20] {
            let mut packets = Vec::new();
            for utterance in 0..utterances {
                for n in 0..length {
                    let at = utterance * apart + n;
                    let digest = if n < silent { 7 } else { at };
                    packets.push(Rx { arrival: rx(at, 10).arrival, digest, ..rx(n, 0) });
                }
            }
            let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
            let want: Vec<i64> = (0..utterances)
                .flat_map(|utterance| (0..length).map(move |n| 10 + i64::from(utterance * apart + n) * 20))
                .collect();
            assert_eq!(
                positions(&placement),
                want,
                "{utterances} of {length}, {apart} apart, {silent} silent"
            );
            assert_eq!(placement.counts, Counts::default());
        }
    }
}

#[test]
fn a_sender_that_begins_anew_is_heard_at_its_time_although_its_first_utterance_was_not_heard_from_its_start()
{
    // What is heard of each utterance. All begin at the same numbers; 3 seconds apart.
    let calls: [&[std::ops::Range<u16>]; 4] = [
        &[50..100, 0..100, 0..100],
        &[50..100, 0..30, 0..100],
        &[95..100, 0..100],
        &[60..100, 20..90, 0..40],
    ];
    for heard in calls {
        for silent in [0, 1, 20] {
            let (mut packets, mut want) = (Vec::new(), Vec::new());
            for (utterance, numbers) in (0..).zip(heard) {
                for n in numbers.clone() {
                    let at = utterance * 150 + n;
                    let digest = if n < silent { 7 } else { at };
                    packets.push(Rx { arrival: rx(at, 10).arrival, digest, ..rx(n, 0) });
                    want.push(10 + i64::from(at) * 20);
                }
            }
            let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
            assert_eq!(positions(&placement), want, "{heard:?}, {silent} silent");
            assert_eq!(placement.counts, Counts::default(), "{heard:?}, {silent} silent");
        }
    }
}

#[test]
fn what_was_held_up_on_its_way_is_put_right_however_late() {
    for late in [1_usize, 3, 30, 50] {
        let mut packets: Vec<_> = (0..300).map(|n| rx(n, 10)).collect();
        packets[100..100 + late].iter_mut().for_each(|packet| packet.arrival = rx(180, 9).arrival);
        packets.sort_by_key(|packet| packet.arrival);
        let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
        assert_eq!(positions(&placement), (0..300).map(|n| 10 + n * 20).collect::<Vec<_>>(), "{late} late");
        let reordered = u64::try_from(late).unwrap();
        assert_eq!(placement.counts, Counts { reordered, ..Counts::default() });
    }
}

#[test]
fn packets_that_are_sent_again_are_duplicates_however_late() {
    for late in [1_u16, 30, 200, 290] {
        let mut packets: Vec<_> = (0..400).map(|n| rx(n, 10)).collect();
        // All of the last seconds, after a connection was lost.
        let again = packets[300 - usize::from(late)..300]
            .iter()
            .map(|packet| Rx { arrival: rx(300, 5).arrival, ..*packet });
        let again: Vec<_> = again.collect();
        packets.splice(300..300, again);
        let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
        assert_eq!(placement.packets.len(), 400);
        assert_eq!(placement.counts, Counts { duplicate: u64::from(late), ..Counts::default() });
    }
}

#[test]
fn the_same_prompt_is_heard_each_time_it_is_played() {
    // Packets, when it begins again, and what of it is lost the first and the second time.
    for (length, apart, lost) in
        [(150_u16, 175_u16, [999, 999]), (150, 3000, [999, 40]), (150, 150, [70, 20]), (700, 900, [5, 600])]
    {
        let played = |at: u16| {
            let heard = (0..length).filter(move |n| *n != lost[usize::from(at > 0) % 2]);
            heard.map(move |n| Rx { arrival: rx(at + n, 10).arrival, ..rx(n, 0) })
        };
        let packets: Vec<_> = [0, apart, 2 * apart].into_iter().flat_map(played).collect();
        let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
        let want: Vec<i64> = packets.iter().map(|packet| (packet.arrival.0 - ORIGIN.0) / 1000 - 20).collect();
        assert_eq!(positions(&placement), want, "{length}, {apart} apart");
        assert_eq!(placement.counts.duplicate, 0, "{length}, {apart} apart");
    }
}

#[test]
fn a_prompt_that_is_sent_at_once_is_heard_again_behind_a_time_in_which_nothing_came() {
    let played = |at: u16| (0..150).map(move |n| Rx { arrival: rx(at, 10).arrival, ..rx(n, 0) });
    let packets: Vec<_> = [0, 400].into_iter().flat_map(played).collect();
    let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
    assert_eq!((placement.packets.len(), placement.counts), (300, Counts::default()));
}

#[test]
fn what_a_link_sends_again_later_is_no_prompt() {
    // All of it, so much later: between new packets, and behind the last one.
    for late in [30_u16, 120, 290, 700] {
        let again = (0..1000).map(|n| Rx { arrival: rx(n + late, 15).arrival, ..rx(n, 0) });
        let mut packets: Vec<_> = (0..1000).map(|n| rx(n, 10)).chain(again).collect();
        packets.sort_by_key(|packet| packet.arrival);
        let placement = place(&packets, Sender::RealTime, ORIGIN, &[], &[]);
        assert_eq!(placement.packets.len(), 1000, "{late} late");
        assert_eq!(placement.counts, Counts { duplicate: 1000, ..Counts::default() }, "{late} late");
    }
    // Some of it, in any order.
    let again = (0..1000_u16).step_by(7).map(|n| (n, n * 37 % 500 + 5));
    let again = again.map(|(n, late)| Rx { arrival: rx(n + late, 15).arrival, ..rx(n, 0) });
    let mut packets: Vec<_> = (0..1000).map(|n| rx(n, 10)).chain(again).collect();
    packets.sort_by_key(|packet| packet.arrival);
    let placement = place(&packets, Sender::RealTime, ORIGIN, &[], &[]);
    assert_eq!(placement.counts, Counts { duplicate: 143, ..Counts::default() });
}

#[test]
fn what_live_packets_overtook_is_late_however_many_there_are() {
    // What was held up for ten seconds comes a few at a time beside what is live.
    for beside in [2, 5, 50] {
        let delay =
            |n: u16| if (100..600).contains(&n) { (600 - n) * 20 + (n - 100) / beside * 20 } else { 0 };
        let mut packets: Vec<_> = (0..1500).map(|n| rx(n, 10 + i64::from(delay(n)))).collect();
        packets.sort_by_key(|packet| packet.arrival);
        let placement = place(&packets, Sender::RealTime, ORIGIN, &[], &[]);
        assert_eq!(positions(&placement), (0..1500).map(|n| 10 + n * 20).collect::<Vec<_>>(), "{beside}");
        let Counts { lost, stray, duplicate, .. } = placement.counts;
        assert_eq!((lost, stray, duplicate), (0, 0, 0), "{beside}");
    }
}

#[test]
fn stragglers_behind_the_last_live_packet_are_late() {
    let delay = |n: u16| if n > 800 && n.is_multiple_of(5) { i64::from(n * 31 % 2000) } else { 0 };
    let mut packets: Vec<_> = (0..1000).map(|n| rx(n, 10 + delay(n))).collect();
    packets.sort_by_key(|packet| packet.arrival);
    let placement = place(&packets, Sender::RealTime, ORIGIN, &[], &[]);
    assert_eq!(positions(&placement), (0..1000).map(|n| 10 + n * 20).collect::<Vec<_>>());
    assert_eq!((placement.counts.lost, placement.counts.stray), (0, 0));
}

#[test]
fn numbers_that_another_source_used_are_not_lost() {
    let flipping: Vec<_> = (0..1500).map(|n| Rx { ssrc: u32::from(n / 250 % 2), ..rx(n, 10) }).collect();
    let placement = place(&flipping, Sender::RealTime, ORIGIN, &[], &[]);
    assert_eq!((placement.counts, placement.packets.len()), (Counts::default(), 1500));
    // With a numbering of its own, by count; and what is lost from a source is still counted.
    let mut packets: Vec<_> = flipping
        .iter()
        .map(|packet| Rx {
            sequence: packet.sequence.wrapping_add(u16::from(packet.ssrc == 1) * 9000),
            ..*packet
        })
        .collect();
    assert_eq!(place(&packets, Sender::RealTime, ORIGIN, &[], &[]).counts, Counts::default());
    packets.remove(100);
    packets.remove(300);
    assert_eq!(place(&packets, Sender::RealTime, ORIGIN, &[], &[]).counts.lost, 2);
}

#[test]
fn a_tone_of_another_source_does_not_hide_what_is_lost() {
    // A second is lost; the gateway plays a tone in it, whose packets are as many, or nearly.
    for (tone, has_ended) in [(50_u16, true), (46, true), (50, false)] {
        let voice = (0..200).filter(|n| !(100..150).contains(n)).map(|n| rx(n, 10));
        let tone = (100..100 + tone).chain(if has_ended { 0..0 } else { 150..170 });
        let tone = tone.map(|n: u16| Rx { ssrc: 2, sequence: n.wrapping_add(9000), ..rx(n, 12) });
        let mut packets: Vec<_> = voice.chain(tone).collect();
        packets.sort_by_key(|packet| packet.arrival);
        let placement = place(&packets, Sender::RealTime, ORIGIN, &[], &[]);
        assert_eq!(placement.counts.lost, 50);
    }
}

#[test]
fn of_two_sources_the_first_is_heard_as_long_as_it_goes_on() {
    for apart_ms in [0, 3, 10, 17, 50] {
        for lost in [0, 7] {
            let first = (0..500).filter(|n| lost == 0 || n % 97 > lost).map(|n| rx(n, i64::from(n * 7 % 5)));
            let second = (100..900).map(|n| Rx { ssrc: 2, ..rx(n, apart_ms + i64::from(n * 11 % 6)) });
            let mut packets: Vec<_> = first.chain(second).collect();
            packets.sort_by_key(|packet| packet.arrival);
            let placement = place(&packets, Sender::RealTime, ORIGIN, &[], &[]);
            let sources: Vec<u32> =
                placement.packets.iter().map(|placed| packets[index(placed.rx)].ssrc).collect();
            let changes = sources.windows(2).filter(|pair| pair[0] != pair[1]).count();
            assert_eq!(changes, 1, "{apart_ms} ms apart");
            assert_eq!(sources.iter().filter(|ssrc| **ssrc == 2).count() / 10, 40, "{apart_ms} ms apart");
        }
    }
}

/// How much of a source was placed, in packets.
fn heard(packets: &[Rx], ssrc: u32) -> usize {
    let placement = place(packets, Sender::RealTime, ORIGIN, &[], &[]);
    let positions = placement.packets.iter();
    positions.filter(|placed| packets[index(placed.rx)].ssrc == ssrc).count()
}

#[test]
fn a_new_source_is_heard_wherever_nothing_of_the_first_one_lies() {
    let second = || (501..900).map(|n| Rx { ssrc: 2, ..rx(n, 10) });
    let of = |first: Vec<Rx>, second: &mut dyn Iterator<Item = Rx>| {
        let mut packets: Vec<_> = first.into_iter().chain(second).collect();
        packets.sort_by_key(|packet| packet.arrival);
        packets
    };
    for straggler in [530, 545] {
        let first = (0..500).chain([straggler]).map(|n| rx(n, 10)).collect();
        assert_eq!(heard(&of(first, &mut second()), 2), 399, "a packet of the first at {straggler}");
    }
    // Comfort noise, a packet each 400 ms: the first source never stops, but it does not speak.
    for phase in [0, 5, 10] {
        let updates = (520..880).step_by(20);
        let numbers = (0..500).chain(updates);
        let first = (0..).zip(numbers).map(|(n, at)| {
            let arrival = rx(at, 10).arrival.plus_us(phase * 1000);
            Rx {
                arrival,
                sequence: n,
                bytes: 5,
                timestamp: rx(at, 0).timestamp.wrapping_add(48 * u32::try_from(phase).unwrap()),
                ..rx(at, 0)
            }
        });
        let packets = of(first.collect(), &mut second());
        assert_eq!(heard(&packets, 2), 399, "{phase} ms apart");
        // The first one speaks again, and is heard at once.
        let again = (700..800).map(|n| rx(n, 10));
        let packets = of((0..500).map(|n| rx(n, 10)).chain(again).collect(), &mut second());
        assert_eq!((heard(&packets, 1), heard(&packets, 2)), (600, 299));
    }
}

#[test]
fn a_payload_says_how_long_it_is_whatever_timestamps_say() {
    // Ticks of a packet, samples in it at 48 kHz.
    for (ticks, samples) in [(80, 960), (160, 1920), (160, 1440), (20, 960), (1, 960), (0, 960), (320, 960)] {
        let packet = |n: u16| Rx {
            arrival: ORIGIN
                .plus_us(i64::from(n + 1) * i64::from(samples) * 1000 / 48 + i64::from(n % 5) * 900),
            timestamp: 777 + u32::from(n) * ticks,
            clock_hz: 8000,
            samples,
            ..rx(n, 0)
        };
        let packets: Vec<_> = (0..500).map(packet).collect();
        for sender in [Sender::RealTime, Sender::Any] {
            let placement = place(&packets, sender, ORIGIN, &[], &[]);
            let last = placement.packets.last().unwrap().at.0;
            assert!((last - 499 * i64::from(samples)).abs() < 480, "{ticks} for {samples}: {last}");
            let is_tight = |pair: &[Placed]| (pair[1].at.0 - pair[0].at.0 - i64::from(samples)).abs() <= 24;
            assert!(placement.packets.windows(2).all(is_tight), "{ticks} for {samples}");
        }
    }
}

#[test]
fn what_was_cleared_before_it_was_heard_is_left_out() {
    // Two seconds of speech, delivered at once; cleared half a second later; then the next sentence.
    let at = |us: i64| ORIGIN.plus_us(us);
    let mut packets: Vec<_> =
        (0..100).map(|n| Rx { arrival: at(20_000 + i64::from(n)), ..rx(n, 0) }).collect();
    packets.extend((100..150).map(|n| Rx { arrival: at(800_000 + i64::from(n) * 20_000), ..rx(n, 0) }));
    let placement = place(&packets, Sender::Any, ORIGIN, &[at(500_000)], &[]);
    assert_eq!(placement.counts.cleared, 75);
    let after = placement.packets.iter().find(|placed| placed.rx >= 100).unwrap();
    assert_eq!((after.gap, after.at.0 / 48), (Gap::Pause, 2780));
}

#[test]
fn an_empty_channel_has_no_placement() {
    assert_eq!(place(&[], Sender::Any, ORIGIN, &[], &[]), Placement::default());
}

/// A channel of whatever: stalls, bursts, jumps of timestamps and numbers, other sources, silence and loss.
fn whatever(moves: &[(u8, u16)], sender: Sender) -> Vec<Rx> {
    let (mut packets, mut at_us, mut media, mut sequence, mut ssrc) = (Vec::new(), 0_i64, 0_u32, 0_u16, 1);
    let mut free_us = 0;
    for (number, (kind, size)) in (0_u16..).zip(moves.iter().cycle()).take(moves.len() * 20) {
        let size_us = i64::from(*size) * 100;
        let samples = [120, 480, 960, 960, 1920, 2880, 5760][usize::from(*size) % 7];
        if number % 20 == 0 {
            match kind {
                0 => free_us = at_us + size_us,
                1 => at_us += size_us,
                2 => (at_us, media) = (at_us + size_us, media.wrapping_add(u32::from(*size) * 5)),
                3 => media = media.wrapping_add(u32::from(*size) * 7),
                4 => media = media.wrapping_sub(u32::from(*size) * 7),
                5 => ssrc = u32::from(*size) % 3,
                6 => sequence = sequence.wrapping_add(*size),
                7 => media = media.wrapping_add(samples / 2),
                8 => (sequence, media) = (0, 0),
                _ => {}
            }
        }
        let is_fast = sender == Sender::Any && kind % 2 == 0;
        at_us += i64::from(samples) * 1000 / 48 / if is_fast { 7 } else { 1 };
        let arrival_us = at_us.max(free_us) + i64::from(number.wrapping_mul(31) % 7) * 500;
        packets.push(Rx {
            arrival: ORIGIN.plus_us(arrival_us),
            ssrc,
            timestamp: media,
            sequence,
            samples,
            ..rx(number, 0)
        });
        (media, sequence) = (media.wrapping_add(samples), sequence.wrapping_add(1));
    }
    packets.sort_by_key(|packet| packet.arrival);
    packets
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_of_a_sender_in_real_time_is_placed_later_than_it_arrived(
        moves in vec((0..12_u8, 0..20_000_u16), 1..40)
    ) {
        let packets = whatever(&moves, Sender::RealTime);
        let placement = place(&packets, Sender::RealTime, ORIGIN, &[], &[]);
        for placed in &placement.packets {
            let packet = &packets[index(placed.rx)];
            let end_us = (placed.at.0 + i64::from(packet.samples)) * 1000 / 48;
            let late_us = end_us - (packet.arrival.0 - ORIGIN.0);
            prop_assert!(late_us <= 1_100, "{late_us} us late: {packet:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn nothing_of_a_sender_in_bursts_is_placed_later_than_a_queue_plays_it(
        // Of one source with one numbering: what several leave out of each other cannot be told from outside.
        moves in vec((1..4_u8, 5000..20_000_u16), 3..12)
    ) {
        let packets = whatever(&moves, Sender::Any);
        let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
        prop_assert_eq!(placement.packets.len(), packets.len());
        if placement.mode == Mode::Burst {
            let latest_us = behind_queue_us(&packets, &placement);
            prop_assert!(latest_us <= 61_000, "{} us", latest_us);
        }
    }
}

#[test]
fn a_call_that_no_level_places_is_placed_by_arrival_and_says_so() {
    // Stalls, jumps of timestamps, and audio that comes too fast for real time and too slowly for bursts.
    let calls: [&[(u8, u16)]; 2] = [
        &[(1, 10_024), (2, 9229), (3, 11_483), (1, 5282), (3, 9525), (3, 18_539)],
        &[(3, 10_134), (2, 18_277), (1, 19_264), (0, 17_157), (2, 14_666)],
    ];
    for moves in calls {
        let packets = whatever(moves, Sender::Any);
        let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
        assert!(placement.is_uncertain);
        assert_eq!((placement.mode, placement.packets.len()), (Mode::Paced, packets.len()));
        let end = |placed: &Placed| placed.at.0 + i64::from(packets[index(placed.rx)].samples);
        assert!(placement.packets.windows(2).all(|pair| pair[1].at.0 >= end(&pair[0]) - 1));
        assert!(placement.packets.windows(2).all(|pair| follows(&packets, pair)), "in order of numbers");
        let late_us =
            |placed: &Placed| end(placed) * 1000 / 48 - (packets[index(placed.rx)].arrival.0 - ORIGIN.0);
        assert!(placement.packets.iter().map(late_us).max() <= Some(50));
        assert!(placement.error_us >= 60_000, "{}", placement.error_us);
    }
}

fn follows(packets: &[Rx], pair: &[Placed]) -> bool {
    let sequence = |placed: &Placed| packets[index(placed.rx)].sequence;
    sequence(&pair[1]).wrapping_sub(sequence(&pair[0])) == 1
}

/// How much later than a queue plays it a packet is placed at most. The queue plays each when it has arrived and what was before
/// is over, with the silence that timestamps show.
fn behind_queue_us(packets: &[Rx], placement: &Placement) -> i64 {
    let us = |samples: i64| samples * 1000 / 48;
    // One that was overtaken counts as arriving with what overtook it.
    let mut arrival_us = i64::MAX;
    let arrivals = placement.packets.iter().rev().map(|placed| {
        arrival_us = arrival_us.min(packets[index(placed.rx)].arrival.0 - ORIGIN.0);
        arrival_us
    });
    let arrivals: Vec<i64> = arrivals.collect();
    let (mut latest_us, mut before): (i64, Option<(i64, &Rx)>) = (i64::MIN, None);
    for (placed, arrival_us) in placement.packets.iter().zip(arrivals.into_iter().rev()) {
        let packet = &packets[index(placed.rx)];
        let length_us = us(i64::from(packet.samples));
        let silence_us = |before: &Rx| {
            let ticks = packet.timestamp.wrapping_sub(before.timestamp).cast_signed();
            us(i64::from(ticks) - i64::from(before.samples)).max(0)
        };
        let arrived_us = arrival_us - length_us;
        let played_us =
            before.map_or(arrived_us, |(end_us, before)| arrived_us.max(end_us + silence_us(before)));
        latest_us = latest_us.max(us(placed.at.0) - played_us);
        before = Some((played_us + length_us, packet));
    }
    latest_us
}
