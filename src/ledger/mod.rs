//! What a spool says of its call: records in, one after the other, and everything but the payloads out.
//!
//! [`Ledger::record`] takes the records of a spool file in order, [`Ledger::close`] settles what only the whole file
//! can tell: which clock the arrivals are by, what each payload type meant when a packet came, and which packets lie in a pause
//! that was told of later. Memory: 56 bytes a packet.

mod cipher;
mod clock;
mod copies;
mod lone_times;
mod mark;
mod pause;
mod payload;
mod sense;
mod steps;
mod untold;
mod unwanted;

use std::num::NonZeroU8;
use std::time::Duration;

use crate::connection::call::{Counts, State};
use crate::connection::claims::Claims;
use crate::connection::metadata::{Metadata, decides};
use crate::connection::pauses::Stamp;
use crate::connection::refused::Refused;
use crate::frame::{Message, parse_body};
use crate::id::{Channel, Scope};
use crate::packet::{HEADER_BYTES, SenderReport, parse_rtp, sender_reports};
use crate::red::{self, Block};
use crate::replay::Anchor;
use crate::rtpmap::{Codec, Rtpmap};
use crate::spool::scan::Located;
use crate::spool::{BODY_OFFSET, Header, RecordKind, SealCause};
use crate::time::{Mono, Wall};
use crate::timeline::{Report, Rx, RxKind};
use cipher::Ciphers;
use copies::Copies;
use mark::Event;
pub use mark::{Fields, MARKS_MAX, Mark};
pub use pause::{PauseReason, PauseSpan, PauseSpans};
pub use payload::{Payload, format_of};
use payload::{enter_block, settle};
pub use sense::Doubts;
use untold::Untold;
use unwanted::Numbering;

/// SSRCs listed in a manifest. A call has a few; a hostile sender may use a new one for each packet.
const SSRCS_MAX: usize = 64;

/// Sender reports that are looked at, of one channel and of one packet. A call of four hours with one a second has 14,400; a
/// packet of RTCP has one of each of its sources.
const REPORTS_MAX: usize = 65_536;
const REPORTS_OF_PACKET_MAX: usize = 4;

/// A call as its spool tells it.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// The spool's own header.
    pub header: Header,
    /// What META frames said.
    pub metadata: Metadata,
    /// Caller and AI.
    pub channels: [ChannelLedger; 2],
    /// MARK frames, and DTMF, the first [`MARKS_MAX`].
    pub marks: Vec<Mark>,
    /// How many more there were.
    pub more_marks: u64,
    /// The times of caller and AI that are not kept.
    pub pauses: [PauseSpans; 2],
    /// CLEAR, in order.
    pub clears: Vec<Moment>,
    /// Why the connection was closed; `None` if the file has no SEAL.
    pub seal: Option<SealCause>,
    /// How often the daemon was started again in mid-call.
    pub restarts: u32,
    /// When the last frame came.
    pub last_frame: Wall,
    /// Sent RTP frames as one END for both channels counted them.
    pub declared_together: Option<u64>,
    /// Frames that were received and could not be spooled.
    pub dropped: u64,
    /// Frames that were refused.
    pub refused: Refused,
    /// Records that could not be understood although their checksum was right.
    pub unreadable: u64,
    /// Bytes of the file that others have taken away.
    pub lost_bytes: u64,
    /// Whether the digits of key presses are left out.
    pub masks_digits: bool,
    /// Whether the file has payloads of a time that is not to be kept. Complete after [`Ledger::close`].
    pub has_paused: bool,
    /// What frames said of the connection.
    pub claims: Claims,
    /// Whether the gateway's times could not be believed, and the daemon's are used.
    pub is_gateway_ignored: bool,
    /// What was wrong with the gateway's times otherwise.
    pub doubts: Doubts,
    /// How often the gateway's clock was set in mid-call. The times are brought to what it showed at first.
    pub clock_steps: u32,
    /// Where in the file the daemon was started again: its own clock is another one there.
    restarted_at: Vec<u64>,
    anchor: Anchor,
    is_begun: bool,
}

/// One channel of a [`Ledger`].
#[derive(Clone, Debug, Default)]
pub struct ChannelLedger {
    /// The packets' metadata, in the order of their receipt. Complete after [`Ledger::close`].
    pub rx: Vec<Rx>,
    /// Where the payload of each stands, one for each of `rx`.
    pub payloads: Vec<Payload>,
    /// RTP frames received, of which something is in the spool.
    pub packets: u64,
    /// Others: of parts before this one, and those that nobody wanted.
    pub noted: Counts,
    /// Bytes of RTP payload received.
    pub bytes: u64,
    /// Synchronisation sources, in the order of their appearance, the first 64.
    pub ssrcs: Vec<u32>,
    /// RTP frames that the gateway says it sent.
    pub declared: Option<u64>,
    /// When the first and the last packet arrived.
    pub first_last: Option<(Wall, Wall)>,
    /// Codecs of the audio packets, in the order of their appearance.
    pub codecs: Vec<Codec>,
    /// Whether audio came that this program cannot record: then its spool is worth keeping. Complete after
    /// [`Ledger::close`].
    pub has_unusable: bool,
    /// Packets that are no audio because they are encrypted. Complete after [`Ledger::close`].
    pub encrypted: u64,
    /// What the senders said of their clocks, in the order of receipt. Complete after [`Ledger::close`].
    pub reports: Vec<Report>,
    heard: Vec<(Moment, SenderReport)>,
    /// The key press that came last.
    event: Option<Event>,
    /// One more than the level of a comfort noise packet that no audio has followed yet.
    noise: Option<NonZeroU8>,
    copies: Copies,
    ciphers: Ciphers,
    numbering: Numbering,
    untold: Untold,
}

/// When something happened, by both clocks until it is settled which one holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When, by the clock that the packets are placed by. Settled by [`Ledger::close`].
    pub at: Wall,
    received: Wall,
    gateway: Option<Wall>,
}

impl Ledger {
    /// Begins with the header of a spool file.
    #[must_use]
    pub fn new(header: Header) -> Self {
        Self {
            anchor: Anchor::of(&header),
            claims: Claims::new(Stamp::received(header.opened), true),
            last_frame: header.opened,
            header,
            metadata: Metadata::default(),
            channels: Default::default(),
            marks: Vec::new(),
            more_marks: 0,
            pauses: Default::default(),
            clears: Vec::new(),
            seal: None,
            restarts: 0,
            declared_together: None,
            dropped: 0,
            refused: Refused::default(),
            unreadable: 0,
            lost_bytes: 0,
            masks_digits: false,
            has_paused: false,
            is_gateway_ignored: false,
            doubts: Doubts::default(),
            clock_steps: 0,
            restarted_at: Vec::new(),
            is_begun: false,
        }
    }

    /// Makes room for the packets of a spool file of so many bytes, half of what it may hold on each channel. Lists
    /// that grow are copied, which takes longer than to fill them; room that is not used takes no memory.
    pub fn expect(&mut self, file_bytes: u64) {
        let packets = usize::try_from(file_bytes).unwrap_or(0) / (BODY_OFFSET + HEADER_BYTES) / 2;
        for ledger in &mut self.channels {
            ledger.rx.reserve(packets);
            ledger.payloads.reserve(packets);
        }
    }

    /// Enters the next record.
    pub fn record(&mut self, located: &Located<'_>) {
        let record = &located.record;
        let at = self.anchor.stamp(record);
        let received = at.received;
        let is_first = !std::mem::replace(&mut self.is_begun, true);
        match record.kind {
            RecordKind::State => match serde_json::from_slice(record.body) {
                Ok(state) => self.state(state, Moment::new(at), is_first),
                Err(_) => self.unreadable += 1,
            },
            RecordKind::Lost => match <[u8; 8]>::try_from(record.body) {
                Ok(bytes) => self.lost_bytes = self.lost_bytes.saturating_add(u64::from_be_bytes(bytes)),
                Err(_) => self.unreadable += 1,
            },
            RecordKind::Resumed => {
                self.restarted_at.push(located.body_offset);
                self.restarts += 1;
                match Anchor::of_resumed(record) {
                    Some(anchor) => self.anchor = anchor,
                    None => self.unreadable += 1,
                }
            }
            RecordKind::Seal => self.seal = SealCause::from_body(record.body).or(self.seal),
            RecordKind::Dropped => match <[u8; 4]>::try_from(record.body) {
                Ok(count) => self.dropped += u64::from(u32::from_be_bytes(count)),
                Err(_) => self.unreadable += 1,
            },
            RecordKind::Withheld => {
                self.claims.enter_withheld(at, record.scope);
                self.rtp(located, at, true);
            }
            RecordKind::Tap(1) => {
                self.claims.enter_packet(at, record.scope);
                self.rtp(located, at, false);
            }
            RecordKind::Tap(kind) => {
                let when = Moment::new(at);
                match parse_body(kind, record.body) {
                    Ok(Message::Rtcp) => self.rtcp(record.scope, when, record.body),
                    Ok(message) => self.message(record.scope, when, message),
                    Err(_) => self.unreadable += 1,
                }
            }
        }
        if matches!(record.kind, RecordKind::Tap(_) | RecordKind::Withheld) {
            self.last_frame = self.last_frame.max(received);
        }
    }

    /// Settles clocks and payload types once all records are in. `longest` is the longest that a recording may be.
    pub fn close(&mut self, longest: Duration) {
        self.take_out_paused();
        self.doubt_gateway();
        self.settle_clocks(longest);
        for channel in Channel::BOTH {
            let ledger = &mut self.channels[channel.index()];
            ledger.find_encrypted(|payload_type, meanings| {
                self.metadata.rtpmap_after(channel, payload_type, meanings)
            });
            ledger.restore_lost();
            for (rx, payload) in ledger.rx.iter_mut().zip(&ledger.payloads) {
                let mut rtpmap =
                    self.metadata.rtpmap_after(channel, payload.payload_type, payload.meanings());
                if self.metadata.meanings(channel, payload.payload_type) == 0 {
                    rtpmap = ledger.untold.meaning(payload.payload_type, rtpmap);
                }
                settle(rx, payload, rtpmap);
                let is_encrypted = rx.kind == RxKind::Unusable && payload.is_encrypted();
                ledger.encrypted += u64::from(is_encrypted);
                ledger.has_unusable |= rx.kind == RxKind::Unusable && !is_encrypted;
                let codec = rtpmap.codec;
                if !codec.is_beside_audio() && !ledger.codecs.contains(&codec) {
                    ledger.codecs.push(codec);
                }
                let (first, last) = ledger.first_last.get_or_insert((rx.arrival, rx.arrival));
                (*first, *last) = ((*first).min(rx.arrival), (*last).max(rx.arrival));
            }
        }
    }

    /// What the payload type of a packet meant when it came.
    #[must_use]
    pub fn rtpmap_of(&self, channel: Channel, payload: &Payload) -> Rtpmap {
        self.metadata.rtpmap_after(channel, payload.payload_type, payload.meanings())
    }

    /// Brings an instant of the daemon's steady clock to the clock that the packets are placed by, as the last packet
    /// told their difference. After [`Ledger::close`].
    #[must_use]
    pub fn time_of(&self, now: Mono) -> Wall {
        let last = self.channels.iter().filter_map(|channel| channel.rx.last().zip(channel.payloads.last()));
        let last = last.max_by_key(|(_, payload)| payload.received);
        let ahead_us = last.map_or(0, |(rx, payload)| rx.arrival.0.saturating_sub(payload.received.0));
        self.anchor.wall_of(now).plus_us(ahead_us)
    }

    fn rtp(&mut self, located: &Located<'_>, at: Stamp, is_withheld: bool) {
        let record = &located.record;
        let (Scope::Channel(channel), Ok(packet)) = (record.scope, parse_rtp(record.body)) else {
            self.unreadable += 1;
            return;
        };
        self.note_unit(record.gateway, at);
        let (arrival, received) = (at.own(), at.received);
        let carried = self.metadata.rtpmap(channel, packet.payload_type);
        let before_payload = packet.payload.as_ptr().addr() - record.body.as_ptr().addr();
        let payload_at = located.body_offset + u64::try_from(before_payload).unwrap_or(0);
        let redundant = (carried.codec == Codec::Red).then(|| red::blocks(packet.payload)).flatten();
        let own =
            Block { payload_type: packet.payload_type, age: 0, older_ticks: 0, payload: packet.payload };
        let blocks = redundant.as_deref().unwrap_or(std::slice::from_ref(&own));
        let metadata = &self.metadata;
        let ledger = &mut self.channels[channel.index()];
        ledger.packets += 1;
        ledger.bytes += u64::try_from(packet.payload.len()).unwrap_or(0);
        if ledger.ssrcs.len() < SSRCS_MAX && !ledger.ssrcs.contains(&packet.ssrc) {
            ledger.ssrcs.push(packet.ssrc);
        }
        ledger.bridge_unwanted(packet.ssrc, packet.sequence);
        let mut rtpmap = carried;
        for block in blocks {
            let is_copy = block.age > 0;
            let sequence = packet.sequence.wrapping_sub(block.age);
            // What was kept out of a packet that is kept is zero, and nothing at all if it was empty.
            let is_kept = !is_withheld && block.payload.iter().any(|byte| *byte != 0);
            let told = ledger.numbering.told(packet.ssrc, sequence);
            let known = told.or((is_kept && !is_copy).then(|| ledger.numbering.all_behind(sequence)));
            let Some(sequence) = known else { continue };
            if is_copy && !(is_kept && ledger.copies.are_wanted(&ledger.rx, packet.ssrc, sequence)) {
                continue;
            }
            let meanings = metadata.meanings(channel, block.payload_type);
            rtpmap = metadata.rtpmap(channel, block.payload_type);
            if is_kept {
                ledger.untold.note(block.payload_type, block.payload);
            }
            if meanings == 0 {
                rtpmap = ledger.untold.meaning(block.payload_type, rtpmap);
            }
            let before_block = block.payload.as_ptr().addr() - packet.payload.as_ptr().addr();
            let offset = payload_at + u64::try_from(before_block).unwrap_or(0);
            let times = (arrival, received, at.gateway.is_some());
            let (rx, payload) = enter_block(&packet, block, (rtpmap, meanings), offset, times, is_withheld);
            let rx = Rx { sequence, ..rx };
            if is_copy {
                ledger.copies.enter(ledger.rx.len(), rx, payload, block.older_ticks);
                continue;
            }
            if rtpmap.codec == Codec::ComfortNoise {
                ledger.noise = block.payload.first().and_then(|level| NonZeroU8::new((level & 0x7f) + 1));
            }
            let noise = if rtpmap.codec.is_beside_audio() { None } else { ledger.noise.take() };
            if !is_withheld {
                ledger.ciphers.see(&packet, block, (rtpmap, meanings), ledger.rx.len());
            }
            ledger.copies.note(ledger.rx.len(), &rx);
            ledger.rx.push(rx);
            ledger.payloads.push(Payload { noise, ..payload });
        }
        if rtpmap.codec == Codec::TelephoneEvent
            && let Some(payload) = blocks.last().map(|block| block.payload)
            && let Some(event) = Event::new(packet.ssrc, packet.timestamp, payload, is_withheld)
        {
            self.key_press(channel, Moment::new(at), event);
        }
    }

    fn rtcp(&mut self, scope: Scope, when: Moment, body: &[u8]) {
        for channel in Channel::BOTH.into_iter().filter(|own| scope.covers(*own)) {
            let heard = &mut self.channels[channel.index()].heard;
            let room = REPORTS_MAX.saturating_sub(heard.len()).min(REPORTS_OF_PACKET_MAX);
            heard.extend(sender_reports(body).take(room).map(|report| (when, report)));
        }
    }

    fn message(&mut self, scope: Scope, when: Moment, message: Message) {
        match message {
            Message::End { sent: Some(sent) } => match scope {
                Scope::Channel(channel) => self.channels[channel.index()].declared = Some(sent),
                Scope::Whole => self.declared_together = Some(sent),
            },
            // What would not fit was refused when it came, and is not in the spool.
            Message::Meta(object) => {
                self.unreadable += u64::from(self.metadata.merge(when.received, scope, &object).is_err());
                if let Some(is_recorded) = decides(&object) {
                    self.decide(when, is_recorded);
                }
            }
            Message::Mark(fields) => self.mark(scope, when, fields),
            Message::Pause(mode) => self.begin_pause(scope, when, mode),
            Message::Resume => self.end_pause(scope, when),
            Message::Clear => self.clears.push(when),
            _ => {}
        }
    }

    /// Takes what the file says of the whole state: at its beginning, and where something may have been lost before.
    fn state(&mut self, state: State, when: Moment, is_first: bool) {
        for (ledger, counts) in self.channels.iter_mut().zip(state.counts) {
            ledger.noted = counts;
            ledger.declared = counts.declared.or(ledger.declared);
        }
        self.declared_together = state.declared_together.or(self.declared_together);
        self.refused = state.refused;
        if is_first {
            self.metadata = state.metadata.counted();
        } else {
            self.metadata.correct(&state.metadata);
            self.metadata = std::mem::take(&mut self.metadata).counted();
        }
        self.restore_pauses(state.claims, when, is_first);
    }
}

impl ChannelLedger {
    /// Has one withheld packet stand for those in front of this one that came while the call was not wanted.
    fn bridge_unwanted(&mut self, ssrc: u32, sequence: u16) {
        let Some(sequence) = self.numbering.note(ssrc, sequence) else { return };
        let Some((rx, payload)) = self.rx.last().zip(self.payloads.last()) else { return };
        let (rx, payload) = (*rx, *payload);
        self.rx.push(Rx { ssrc, sequence, timestamp: rx.timestamp.wrapping_add(1), bytes: 0, ..rx });
        let mut stand_in = Payload { noise: None, is_copy: false, ..payload };
        stand_in.withhold();
        self.payloads.push(stand_in);
    }
}

impl Moment {
    fn new(at: Stamp) -> Self {
        Self { at: at.own(), received: at.received, gateway: at.gateway }
    }

    fn stamp(self) -> Stamp {
        Stamp { received: self.received, gateway: self.gateway }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ConnectionId;
    use crate::spool::Record;

    pub(super) const LONGEST: Duration = Duration::from_secs(14_400);

    pub(super) fn ledger() -> Ledger {
        Ledger::new(Header::derived(ConnectionId::new("c").unwrap(), Wall(1_000_000_000), Mono(500), 1))
    }

    pub(super) fn enter(ledger: &mut Ledger, kind: u8, at_us: u64, gateway: Option<Wall>, body: &[u8]) {
        let record = Record {
            kind: RecordKind::Tap(kind),
            scope: Scope::Channel(Channel::Caller),
            at: Mono(at_us),
            gateway,
            body,
        };
        ledger.record(&Located { record, body_offset: 1000 });
    }

    fn rtp(payload_type: u8, sequence: u8, payload: &[u8]) -> Vec<u8> {
        rtp_at(payload_type, sequence, 0, payload)
    }

    pub(super) fn rtp_at(payload_type: u8, sequence: u8, timestamp: u32, payload: &[u8]) -> Vec<u8> {
        let head = [0x80, payload_type, 0, sequence];
        [&head[..], &timestamp.to_be_bytes(), &[0, 0, 0, 5], payload].concat()
    }

    #[test]
    fn arrival_is_the_gateways_time_or_the_daemons() {
        let mut ledger = ledger();
        enter(&mut ledger, 1, 600, Some(Wall(9_000_000_000)), &rtp(111, 1, &[0xf8]));
        enter(&mut ledger, 1, 700, None, &rtp(111, 2, &[0xf8]));
        ledger.close(LONGEST);
        let arrivals: Vec<_> = ledger.channels[0].rx.iter().map(|rx| rx.arrival.0).collect();
        assert_eq!(arrivals, [9_000_000_000, 9_000_000_100], "brought to the gateway's clock");
        assert_eq!(ledger.channels[0].payloads[0].offset, 1012);
    }

    #[test]
    fn one_wrong_gateway_time_is_replaced_and_many_are_ignored() {
        let hour = 3_600_000_000;
        let mut ledger = ledger();
        for n in 0..10u8 {
            let right = 5 * hour + i64::from(n) * 20_000;
            let wrong = if n == 4 { 9 * hour } else { right };
            enter(&mut ledger, 1, 600 + u64::from(n) * 20_000, Some(Wall(wrong)), &rtp(111, n, &[0xf8]));
        }
        let mut many = ledger.clone();
        ledger.close(LONGEST);
        assert_eq!(ledger.channels[0].rx[4].arrival, Wall(5 * hour + 80_000));
        assert!(!ledger.is_gateway_ignored);
        for n in 10..20u8 {
            let wrong = Wall(100_000 * hour + i64::from(n));
            enter(&mut many, 1, 600 + u64::from(n) * 20_000, Some(wrong), &rtp(111, n, &[0xf8]));
        }
        enter(&mut many, 9, 300_600, Some(Wall(100_000 * hour)), b"");
        many.close(LONGEST);
        assert!(many.is_gateway_ignored);
        assert_eq!(many.clears[0].at, Wall(1_000_000_000 + 100 + 300_000), "what happened as well");
        assert_eq!(many.channels[0].rx[15].arrival, Wall(1_000_000_000 + 100 + 300_000));
    }

    #[test]
    fn what_happened_is_by_the_same_clock_as_the_packets() {
        let hour = 3_600_000_000;
        let mut ledger = ledger();
        enter(&mut ledger, 8, 500, None, br#"{"name":"before"}"#);
        enter(&mut ledger, 1, 600, Some(Wall(5 * hour)), &rtp(111, 1, &[0xf8]));
        enter(&mut ledger, 8, 700, Some(Wall(5 * hour + 90)), br#"{"name":"stamped"}"#);
        enter(&mut ledger, 9, 800, None, b"");
        ledger.close(LONGEST);
        let marks: Vec<_> = ledger.marks.iter().map(|mark| mark.when.at.0 - 5 * hour).collect();
        assert_eq!(marks, [-100, 90]);
        assert_eq!(ledger.clears[0].at.0, 5 * hour + 200);
    }

    #[test]
    fn a_restart_brings_its_own_clock() {
        let mut ledger = ledger();
        enter(&mut ledger, 1, 600, None, &rtp(111, 1, &[0xf8]));
        let wall = 1_000_900_000i64.to_be_bytes();
        ledger.record(&Located { record: Record::resumed(Mono(10), &wall), body_offset: 0 });
        enter(&mut ledger, 1, 30, None, &rtp(111, 2, &[0xf8]));
        ledger.close(LONGEST);
        let arrivals: Vec<_> = ledger.channels[0].rx.iter().map(|rx| rx.arrival.0).collect();
        assert_eq!(arrivals, [1_000_000_100, 1_000_900_020]);
        assert_eq!(ledger.restarts, 1);
    }

    #[test]
    fn a_payload_type_means_the_same_for_the_whole_call_even_if_its_meta_came_late() {
        let mut ledger = ledger();
        enter(&mut ledger, 1, 600, None, &rtp(96, 1, b"not opus"));
        enter(&mut ledger, 3, 601, None, br#"{"payload_types":{"96":"speex/16000"}}"#);
        ledger.close(LONGEST);
        assert_eq!(ledger.channels[0].codecs, [Codec::Unknown]);
        assert_eq!(ledger.channels[0].rx[0].kind, RxKind::Unusable);
    }

    #[test]
    fn a_payload_type_that_is_used_again_means_what_was_told_before_the_packet() {
        let mut ledger = ledger();
        // All at one reading of the clock, as frames that are read at once are.
        enter(&mut ledger, 1, 600, None, &rtp(96, 1, &[0xff; 160]));
        for (sequence, map) in [(2, "PCMU/8000"), (3, "PCMU/8000"), (4, "PCMA/8000"), (5, "opus/48000/2")] {
            let meta = format!(r#"{{"payload_types":{{"96":"{map}"}}}}"#);
            enter(&mut ledger, 3, 600, None, meta.as_bytes());
            enter(&mut ledger, 1, 600, None, &rtp(96, sequence, &[0xf8; 160]));
        }
        ledger.close(LONGEST);
        let caller = &ledger.channels[0];
        let meant = caller.payloads.iter().map(|payload| ledger.rtpmap_of(Channel::Caller, payload).codec);
        assert!(meant.eq([Codec::Pcmu, Codec::Pcmu, Codec::Pcmu, Codec::Pcma, Codec::Opus]));
        assert_eq!(
            caller.rx.iter().map(|rx| rx.clock_hz).collect::<Vec<_>>(),
            [8000, 8000, 8000, 8000, 48_000]
        );
        assert_eq!(size_of::<Payload>(), 24, "an hour has 180,000 of them");
    }

    #[test]
    fn sender_reports_arrive_by_the_same_clock_as_the_packets() {
        let hour = 3_600_000_000;
        let mut ledger = ledger();
        enter(&mut ledger, 1, 600, Some(Wall(5 * hour)), &rtp(111, 1, &[0xf8]));
        let mut report = vec![0x80, 200, 0, 6, 0, 0, 0, 5];
        report.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0]);
        enter(&mut ledger, 10, 700, None, &report);
        ledger.close(LONGEST);
        let arrival = Wall(5 * hour + 100);
        let expected = Report { arrival, ssrc: 5, ntp: (1 << 56) + 2, timestamp: 3 };
        assert_eq!(ledger.channels[0].reports, [expected]);
        assert!(ledger.channels[1].reports.is_empty());
    }

    #[test]
    fn counts_that_an_end_declares_are_kept() {
        let mut ledger = ledger();
        enter(&mut ledger, 2, 600, None, &9u64.to_be_bytes());
        assert_eq!(ledger.channels[0].declared, Some(9));
    }
}
