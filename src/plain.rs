//! Plain RTP: calls of gateways that do not speak the tap protocol, on UDP ports of their own.
//!
//! A client asks for a call ([`Opening`]) and is told ports, as SDP, too. Each channel has one for RTP and the next one for
//! RTCP; RTCP is taken on both (RFC 5761). What comes there is turned into frames of the tap protocol, and goes on like
//! any other. A stream has ended when its source says BYE and nothing follows within the linger.
//!
//! Whom to believe: the first address that sends RTP to a port has it, until it takes its leave or has been silent for
//! [`GIVES_WAY_AFTER`]. Another address that goes on with the same SSRC and numbers, as after a change of route, has it at
//! once. What another one sends while the first is silent is held ([`Held`]) until it is clear which of them goes on, so that
//! nothing is lost where a call moves to another gateway. This keeps packets of a call before, or of somebody who guesses
//! ports, out of a recording; it is no authentication.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::id::{Channel, ConnectionId, Scope};
use crate::packet::{Rtp, parse_rtp};
use crate::rtpmap::{Codec, Rtpmap};
use crate::time::Mono;

/// A sender that has been silent for so long may come back from another address, as behind a NAT: longer than silence
/// suppression leaves between two packets.
pub const GIVES_WAY_AFTER: Duration = Duration::from_secs(2);
/// How long packets that were sent before a BYE may still come behind it: the two have different sockets.
const STRAGGLES_FOR: Duration = Duration::from_millis(200);
/// What is held of other addresses for a channel: 2.2 s of G.711, of Opus at 128 kbit/s, of 16-bit sound at 8 kHz, in packets of
/// 10 ms and more.
const HELD_MAX: usize = 256;
const HELD_MAX_BYTES: usize = 48 * 1024;
/// Numbers that go on from others are no farther behind or ahead (RFC 3550 appendix A.1).
const MISORDER: i16 = 100;
const DROPOUT: i16 = 3000;
/// The key of a connection's metadata under which its ports stood in spool files of version 1. They are the daemon's to say.
pub const PORTS_KEY: &str = "rtp_ports";
/// Longer rtpmaps are none that anybody has registered.
const RTPMAP_MAX_BYTES: usize = 64;
/// What is offered where a client does not say what it will send.
const DEFAULT_PAYLOAD_TYPES: [u8; 5] = [111, 0, 8, 9, 101];

/// What a client says of a call that it will send as plain RTP: a META object, with these keys beside.
///
/// | key | value |
/// | --- | --- |
/// | `connection_id` | the id; made up if there is none |
/// | `caller`, `ai` | `{"payload_types": {"111": "opus/48000/2"}}` |
#[derive(Clone, Debug, PartialEq)]
pub struct Opening {
    /// The id, if the client has one.
    pub connection: Option<ConnectionId>,
    /// What each payload type means, by channel, as rtpmaps. Empty where the defaults hold. Of a codec that is not known here
    /// it is what the client said: an answer may not call it by another name.
    pub payload_types: [Vec<(u8, String)>; 2],
    /// The rest.
    pub metadata: Map<String, Value>,
}

/// An object that is no [`Opening`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    /// `connection_id` is no id.
    #[error("connection_id: 1 to 128 bytes of text without control characters")]
    Id,
    /// `caller` or `ai` is no object with `payload_types` and nothing else.
    #[error("{0}: an object such as {{\"payload_types\": {{\"111\": \"opus/48000/2\"}}}}")]
    Channel(&'static str),
    /// A payload type is none, or not an rtpmap.
    #[error("{channel}: {payload_type:?} is no payload type of 0 to 127 with an rtpmap such as opus/48000/2")]
    PayloadType {
        /// Where it stands.
        channel: &'static str,
        /// As given.
        payload_type: String,
    },
    /// `rtp_ports` is ours to say.
    #[error("rtp_ports is what the answer says")]
    Ports,
}

impl Opening {
    /// Reads an object.
    ///
    /// # Errors
    /// [`OpeningError`] names the key that is wrong.
    pub fn parse(mut object: Map<String, Value>) -> Result<Self, OpeningError> {
        let connection = match object.remove("connection_id") {
            None => None,
            Some(id) => {
                let id = id.as_str().and_then(|id| ConnectionId::new(id).ok());
                Some(id.ok_or(OpeningError::Id)?)
            }
        };
        let mut channel = |channel: Channel| match object.remove(channel.name()) {
            None => Ok(Vec::new()),
            Some(said) => payload_types(channel.name(), &said),
        };
        let payload_types = [channel(Channel::Caller)?, channel(Channel::Ai)?];
        if object.contains_key(PORTS_KEY) {
            return Err(OpeningError::Ports);
        }
        Ok(Self { connection, payload_types, metadata: object })
    }

    /// The META objects with which the connection begins.
    #[must_use]
    pub fn to_objects(&self) -> Vec<(Scope, Map<String, Value>)> {
        let mut objects = vec![(Scope::Whole, self.metadata.clone())];
        for (channel, maps) in Channel::BOTH.into_iter().zip(&self.payload_types) {
            let maps: Map<_, _> =
                maps.iter().map(|(pt, map)| (pt.to_string(), map.as_str().into())).collect();
            if !maps.is_empty() {
                objects.push((
                    Scope::Channel(channel),
                    Map::from_iter([("payload_types".to_owned(), maps.into())]),
                ));
            }
        }
        objects
    }

    /// The answer as SDP (RFC 8866): a media section for each channel, named by its `a=label` (RFC 4574).
    #[must_use]
    pub fn sdp(&self, connection: &ConnectionId, session: u64, address: IpAddr, ports: [u16; 2]) -> String {
        let kind = if address.is_ipv4() { "IP4" } else { "IP6" };
        let mut text = format!(
            "v=0\r\no=sidetape {session} 1 IN {kind} {address}\r\ns={connection}\r\nc=IN {kind} {address}\r\nt=0 0\r\na=recvonly\r\n"
        );
        let default = DEFAULT_PAYLOAD_TYPES.map(|number| (number, Rtpmap::default_for(number).to_string()));
        for ((channel, said), port) in Channel::BOTH.into_iter().zip(&self.payload_types).zip(ports) {
            let maps = if said.is_empty() { &default[..] } else { said };
            let numbers: String = maps.iter().map(|(number, _)| format!(" {number}")).collect();
            let mut line = |line: std::fmt::Arguments<'_>| {
                write!(text, "{line}\r\n").expect("a string takes all");
            };
            line(format_args!("m=audio {port} RTP/AVP{numbers}"));
            line(format_args!("a=label:{}", channel.name()));
            for (number, map) in maps {
                line(format_args!("a=rtpmap:{number} {map}"));
            }
        }
        text
    }
}

fn payload_types(channel: &'static str, said: &Value) -> Result<Vec<(u8, String)>, OpeningError> {
    let maps = said.as_object().filter(|said| said.len() == 1);
    let maps = maps.and_then(|said| said.get("payload_types")?.as_object());
    let map = |(number, map): (&String, &Value)| {
        let parsed = number.parse().ok().filter(|number| *number < 128);
        let map = map.as_str().and_then(rtpmap_text);
        let wrong = || OpeningError::PayloadType { channel, payload_type: number.clone() };
        parsed.zip(map).ok_or_else(wrong)
    };
    maps.ok_or(OpeningError::Channel(channel))?.iter().map(map).collect()
}

/// What an answer says for an rtpmap.
fn rtpmap_text(text: &str) -> Option<String> {
    let map = Rtpmap::parse(text).ok()?;
    if map.codec != Codec::Unknown {
        return Some(map.to_string());
    }
    // It becomes a line of SDP: nothing but a token of RFC 8866 may be in its name.
    let text = text.trim();
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`{|}~".contains(c);
    let (name, _) = text.split_once('/')?;
    (text.len() <= RTPMAP_MAX_BYTES && name.chars().all(is_of_token)).then(|| text.to_owned())
}

/// The ports for RTP that a connection had before a restart, by its metadata.
#[must_use]
pub fn ports_of(metadata: &Map<String, Value>) -> Option<[u16; 2]> {
    let port = |channel: Channel| {
        let port = metadata.get(PORTS_KEY)?.get(channel.name())?.as_u64()?;
        u16::try_from(port).ok().filter(|port| *port != 0 && *port != u16::MAX)
    };
    Some([port(Channel::Caller)?, port(Channel::Ai)?])
}

/// Whether a datagram is RTCP, on a port that takes both (RFC 5761 section 4).
#[must_use]
pub fn is_rtcp(bytes: &[u8]) -> bool {
    matches!(bytes, [first, 192..=223, ..] if first >> 6 == 2)
}

/// Whom a port believes, and whether that one has taken its leave.
#[derive(Clone, Debug, Default)]
pub struct Source {
    latched: Option<(SocketAddr, Mono)>,
    /// The SSRC that was heard last, and its number.
    heard: Option<(u32, u16)>,
    left: Option<Left>,
    /// What other addresses sent since the one that has the port was last heard, and a little before.
    held: VecDeque<Held>,
    held_bytes: usize,
    /// Whether nothing is held until somebody has the port.
    is_barred: bool,
}

/// A packet of an address that does not have the port, and may have it soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who sent it.
    pub from: SocketAddr,
    /// When it came.
    pub at: Mono,
    /// The whole packet.
    pub bytes: Box<[u8]>,
}

/// A BYE of the source that was heard last.
#[derive(Clone, Copy, Debug)]
struct Left {
    at: Mono,
    /// When the last packet came, or the BYE.
    last: Mono,
}

impl Source {
    /// Whether an RTP packet from an address is believed, which it then has the port by. From another address than before it
    /// is if it goes on from what was heard, if that has taken its leave, or if it has been silent for [`GIVES_WAY_AFTER`].
    pub fn admit(&mut self, from: SocketAddr, packet: &Rtp<'_>, now: Mono) -> bool {
        let step = self.heard.map(|(ssrc, sequence)| (ssrc == packet.ssrc, step(sequence, packet.sequence)));
        let goes_on = step.is_some_and(|(is_same, step)| is_same && (-MISORDER..=DROPOUT).contains(&step));
        let gives_way = |last| goes_on || self.left.is_some() || now.since(last) >= GIVES_WAY_AFTER;
        if self.latched.is_some_and(|(latched, last)| latched != from && !gives_way(last)) {
            return false;
        }
        self.latched = Some((from, now));
        self.is_barred = false;
        let is_news = step.is_none_or(|(is_same, step)| !is_same || step > 0 || !goes_on);
        if let Some(left) = &mut self.left {
            left.last = now;
            let is_same = step.is_some_and(|(is_same, _)| is_same);
            if is_news && !(is_same && now.since(left.at) < STRAGGLES_FOR) {
                self.left = None;
            }
        }
        if is_news {
            self.heard = Some((packet.ssrc, packet.sequence));
        }
        true
    }

    /// Holds a packet that was not admitted. False where there is no more room: then it is refused.
    pub fn hold(&mut self, from: SocketAddr, bytes: &[u8], now: Mono) -> bool {
        let held_bytes = self.held_bytes.saturating_add(bytes.len());
        let has_room = !self.is_barred && self.held.len() < HELD_MAX && held_bytes <= HELD_MAX_BYTES;
        if has_room {
            self.held_bytes = held_bytes;
            self.held.push_back(Held { from, at: now, bytes: bytes.into() });
        }
        has_room
    }

    /// Whether something is held.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// When the address whose packets are held has the port although none follows: it sent before the port was given up. Or when
    /// they are given up, because none of them came behind the last packet of the one that has it.
    #[must_use]
    pub fn gives_way_at(&self) -> Option<Mono> {
        let (_, last) = self.latched.filter(|_| self.is_holding())?;
        Some(last.after(GIVES_WAY_AFTER))
    }

    /// Gives the port to whoever sent the last of what is held, if the one that had it has been silent for so long, and before
    /// that packet.
    pub fn give_way(&mut self, now: Mono) {
        let heard = self.latched.map(|(_, heard)| heard);
        if self.gives_way_at().is_some_and(|at| now >= at)
            && let Some(last) = self.held.back().filter(|last| heard.is_none_or(|heard| last.at > heard))
        {
            self.latched = Some((last.from, last.at));
            self.heard = parse_rtp(&last.bytes).ok().map(|packet| (packet.ssrc, packet.sequence));
        }
    }

    /// Takes out what need not be held any longer: each packet, and whether it is believed. What came just before the last
    /// packet of another one stays, until that one would give way: that packet may have been on the way for longer.
    pub fn settled(&mut self, now: Mono) -> Vec<(Held, bool)> {
        let mut settled = Vec::new();
        let Some((latched, last)) = self.latched else { return settled };
        let is_taken = self.held.iter().any(|held| held.from == latched);
        let is_over = is_taken || now.since(last) >= GIVES_WAY_AFTER;
        while let Some(held) = self.held.pop_front() {
            if !is_over && last.since(held.at) < STRAGGLES_FOR {
                self.held.push_front(held);
                break;
            }
            self.held_bytes = self.held_bytes.saturating_sub(held.bytes.len());
            let is_believed = held.from == latched;
            settled.push((held, is_believed));
        }
        settled
    }

    /// Holds nothing until somebody has the port, and takes out what is held: what comes now is not to be kept, and behind a
    /// pause only what comes in its time is told from what was said in it.
    pub fn bar(&mut self) -> VecDeque<Held> {
        self.is_barred = true;
        self.refused()
    }

    /// Takes out all that is held, of a channel that ends: nothing shows any more who would have gone on.
    pub fn refused(&mut self) -> VecDeque<Held> {
        self.held_bytes = 0;
        std::mem::take(&mut self.held)
    }

    /// Whether RTCP from an address is believed: that of the host which sends the RTP, from whatever port.
    #[must_use]
    pub fn believes(&self, from: SocketAddr) -> bool {
        self.latched.is_none_or(|(latched, _)| latched.ip() == from.ip())
    }

    /// Takes note of sources that take their leave. Only that of the one heard last matters: another one may follow it, or it
    /// may go on itself, as a sender does that changes its track.
    pub fn take_leave(&mut self, mut byes: impl Iterator<Item = u32>, now: Mono) {
        if byes.any(|bye| self.heard.is_some_and(|(ssrc, _)| ssrc == bye)) {
            self.left.get_or_insert(Left { at: now, last: now });
        }
    }

    /// When the stream is over if nothing follows: so long after a BYE, and what straggled behind it.
    #[must_use]
    pub fn ends_at(&self, linger: Duration) -> Option<Mono> {
        self.left.map(|left| left.last.after(linger))
    }

    /// Notes that the end was told.
    pub fn note_end(&mut self) {
        self.left = None;
    }
}

/// The signed step from one sequence number to another.
fn step(from: u16, to: u16) -> i16 {
    to.wrapping_sub(from).cast_signed()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn opening(value: Value) -> Result<Opening, OpeningError> {
        let Value::Object(object) = value else { panic!("an object") };
        Opening::parse(object)
    }

    #[test]
    fn an_opening_is_a_meta_object_with_the_codecs_of_both_channels() {
        let opening = opening(json!({
            "connection_id": "c", "conversation_id": "k", "tenant": "t",
            "caller": { "payload_types": { "96": "OPUS/48000/2", "0": "PCMU/8000" } },
        }))
        .unwrap();
        assert_eq!(opening.connection.as_ref().map(ConnectionId::as_str), Some("c"));
        let objects = opening.to_objects();
        assert_eq!(objects.len(), 2, "nothing is said of the AI");
        assert_eq!(Value::from(objects[0].1.clone()), json!({ "conversation_id": "k", "tenant": "t" }));
        assert_eq!(objects[1].0, Scope::Channel(Channel::Caller));
        assert_eq!(
            Value::from(objects[1].1.clone()),
            json!({ "payload_types": { "96": "opus/48000/2", "0": "PCMU/8000" } })
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (value, said) in [
            (json!({ "connection_id": "" }), "connection_id"),
            (json!({ "connection_id": 7 }), "connection_id"),
            (json!({ "caller": {} }), "caller"),
            (json!({ "ai": { "payload_types": {}, "codec": 1 } }), "ai"),
            (json!({ "ai": { "payload_types": { "128": "opus/48000/2" } } }), "\"128\""),
            (json!({ "ai": { "payload_types": { "96": "opus" } } }), "\"96\""),
            (json!({ "rtp_ports": {} }), "rtp_ports"),
        ] {
            let error = opening(value).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn the_answer_names_each_channel_its_port_and_its_codecs() {
        let opening = opening(json!({ "ai": { "payload_types": { "8": "PCMA/8000" } } })).unwrap();
        let id = ConnectionId::new("a call").unwrap();
        let sdp = opening.sdp(&id, 7, [127, 0, 0, 1].into(), [20_000, 20_002]);
        let expected = "v=0\r\no=sidetape 7 1 IN IP4 127.0.0.1\r\ns=a call\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\na=recvonly\r\n\
            m=audio 20000 RTP/AVP 111 0 8 9 101\r\na=label:caller\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:0 PCMU/8000\r\n\
            a=rtpmap:8 PCMA/8000\r\na=rtpmap:9 G722/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
            m=audio 20002 RTP/AVP 8\r\na=label:ai\r\na=rtpmap:8 PCMA/8000\r\n";
        assert_eq!(sdp, expected);
        assert!(opening.sdp(&id, 7, "::1".parse().unwrap(), [1, 2]).contains("c=IN IP6 ::1\r\n"));
    }

    const LINGER: Duration = Duration::from_millis(500);

    fn at(ms: u64) -> Mono {
        Mono(ms * 1000)
    }

    fn rtp(ssrc: u32, sequence: u16) -> Rtp<'static> {
        Rtp { ssrc, sequence, timestamp: 0, payload_type: 0, payload: &[] }
    }

    #[test]
    fn a_codec_that_is_not_known_is_called_what_the_client_calls_it() {
        let types =
            json!({ "payload_types": { "96": "AMR/8000", "97": "AMR-WB/16000/1", "0": "pcmu/8000" } });
        let opening = opening(json!({ "ai": types })).unwrap();
        let sdp = opening.sdp(&ConnectionId::new("c").unwrap(), 7, [127, 0, 0, 1].into(), [20_000, 20_002]);
        let (_, ai) = sdp.split_once("m=audio 20002 RTP/AVP 96 97 0\r\na=label:ai\r\n").unwrap();
        assert_eq!(ai, "a=rtpmap:96 AMR/8000\r\na=rtpmap:97 AMR-WB/16000/1\r\na=rtpmap:0 PCMU/8000\r\n");
        assert_eq!(opening.to_objects()[1].1["payload_types"]["96"], "AMR/8000");
        for wrong in
            ["AMR\r\na=inactive/8000", "A MR/8000", "\u{e9}/8000", &format!("{}/8000", "A".repeat(64))]
        {
            let types = json!({ "payload_types": { "96": wrong } });
            assert!(Opening::parse(Map::from_iter([("ai".to_owned(), types)])).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_port_belongs_to_who_sends_first_until_that_is_silent() {
        let [one, two] = ["10.0.0.1:1000", "10.0.0.1:2000"].map(|text| text.parse().unwrap());
        let mut source = Source::default();
        assert!(source.believes(two), "before anything is known");
        assert!(source.admit(one, &rtp(1, 7), at(0)));
        assert!(!source.admit(two, &rtp(2, 8), at(1_999)));
        assert!(source.admit(one, &rtp(3, 900), at(2_000)), "a stream may change its SSRC");
        assert!(source.believes(two) && !source.believes("10.0.0.2:1000".parse().unwrap()));
        assert!(source.admit(two, &rtp(2, 8), at(4_000)) && !source.admit(one, &rtp(3, 901), at(4_001)));
    }

    #[test]
    fn a_stream_that_goes_on_from_another_address_is_taken_at_once() {
        let [one, two] = ["10.0.0.1:1000", "10.9.9.9:2000"].map(|text| text.parse().unwrap());
        let mut source = Source::default();
        assert!(source.admit(one, &rtp(1, 65_530), at(0)));
        assert!(!source.admit(two, &rtp(1, 30_000), at(20)), "the numbers of something else");
        assert!(source.admit(two, &rtp(1, 3), at(40)));
        assert!(source.admit(one, &rtp(1, 65_535), at(41)), "what was still on the way");
        assert!(source.admit(two, &rtp(1, 4), at(60)));
    }

    /// What of the held packets is settled: of which address, when, and whether it is believed.
    fn settled(source: &mut Source, now: u64) -> Vec<(SocketAddr, Mono, bool)> {
        source
            .settled(at(now))
            .into_iter()
            .map(|(held, is_believed)| (held.from, held.at, is_believed))
            .collect()
    }

    #[test]
    fn what_another_address_sends_is_held_until_the_first_is_silent_or_goes_on() {
        let [one, two, three] =
            ["10.0.0.1:1000", "10.9.9.9:2000", "10.6.6.6:6"].map(|text| text.parse().unwrap());
        let mut source = Source::default();
        let other = |source: &mut Source, from, ms| {
            let is_admitted = source.admit(from, &rtp(2, u16::try_from(ms).unwrap()), at(ms));
            assert!(is_admitted || source.hold(from, &[0; 172], at(ms)), "at {ms} ms");
            is_admitted
        };
        assert!(source.admit(one, &rtp(1, 7), at(0)));
        assert!(!other(&mut source, two, 10) && !other(&mut source, two, 100));
        assert!(source.admit(one, &rtp(1, 8), at(250)), "it goes on");
        assert_eq!(settled(&mut source, 250), [(two, at(10), false)], "but may have been overtaken");
        assert!(source.admit(one, &rtp(1, 9), at(300)));
        assert_eq!(settled(&mut source, 300), [(two, at(100), false)]);
        // It is not heard again: of who follows nothing is lost, and nothing of others is taken.
        for ms in (310..2_290).step_by(20) {
            assert!(!other(&mut source, two, ms));
        }
        assert!(!other(&mut source, three, 2_290));
        assert_eq!(settled(&mut source, 2_290), []);
        assert!(other(&mut source, two, 2_310));
        let all = settled(&mut source, 2_310);
        assert_eq!((all.len(), all[0], all[99]), (100, (two, at(310), true), (three, at(2_290), false)));
        assert!(all[..99].iter().all(|(_, _, is_believed)| *is_believed));
    }

    #[test]
    fn who_was_heard_only_before_the_first_fell_silent_does_not_get_its_port() {
        let [one, two, three] =
            ["10.0.0.1:1000", "10.9.9.9:2000", "10.6.6.6:6"].map(|text| text.parse().unwrap());
        let packet = [&[0x80, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 2][..], &[0; 160]].concat();
        let mut source = Source::default();
        assert!(source.admit(one, &rtp(1, 6), at(0)) && source.hold(two, &packet, at(50)));
        assert!(source.admit(one, &rtp(1, 7), at(100)));
        assert_eq!(settled(&mut source, 100), [], "it may be about to go on");
        source.give_way(at(2_100));
        assert_eq!(settled(&mut source, 2_100), [(two, at(50), false)]);
        assert_eq!(source.gives_way_at(), None, "and nobody waits for it");
        assert!(source.believes(one) && !source.believes(two));
        // One that goes on has what it sent before, too: the last of the first was on the way for longer.
        assert!(source.admit(one, &rtp(1, 8), at(3_000)));
        assert!(source.hold(two, &packet, at(3_010)) && source.hold(three, &packet, at(3_020)));
        assert!(source.admit(one, &rtp(1, 9), at(3_100)));
        assert!(source.hold(two, &packet, at(3_110)));
        source.give_way(at(5_100));
        let expected = [(two, at(3_010), true), (three, at(3_020), false), (two, at(3_110), true)];
        assert_eq!(settled(&mut source, 5_100), expected);
        assert!(source.believes(two));
    }

    #[test]
    fn what_is_held_is_taken_when_nothing_more_comes_and_is_bounded() {
        let [one, two] = ["10.0.0.1:1000", "10.9.9.9:2000"].map(|text| text.parse().unwrap());
        let mut source = Source::default();
        source.admit(one, &rtp(1, 7), at(0));
        assert_eq!(source.gives_way_at(), None, "nobody else is there");
        assert!(source.hold(
            two,
            &[&[0x80, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 2][..], &[0; 160]].concat(),
            at(500)
        ));
        assert_eq!(source.gives_way_at(), Some(at(2000)));
        source.give_way(at(1_999));
        assert_eq!(settled(&mut source, 1_999), []);
        source.give_way(at(2_000));
        assert_eq!(settled(&mut source, 2_000), [(two, at(500), true)]);
        assert!(!source.admit(one, &rtp(1, 8), at(2_001)), "the port is another's now");
        assert!(source.admit(two, &rtp(2, 10), at(2_002)));
        let held = (0..1000).filter(|ms| source.hold(one, &[0; 172], at(2_100 + ms))).count();
        assert_eq!(held, HELD_MAX);
        assert_eq!(source.refused().len(), HELD_MAX);
        let held = (0..1000).filter(|ms| source.hold(one, &[0; 1000], at(3_100 + ms))).count();
        assert_eq!(held, HELD_MAX_BYTES / 1000);
        assert_eq!(source.bar().len(), held);
        assert!(!source.hold(one, &[0; 10], at(4_000)), "until it has the port");
        assert!(source.admit(one, &rtp(1, 9), at(5_000)) && source.hold(two, &[0; 10], at(5_001)));
    }

    #[test]
    fn a_bye_ends_a_stream_that_nothing_follows() {
        let one = "10.0.0.1:1000".parse().unwrap();
        let mut source = Source::default();
        source.take_leave([1].into_iter(), at(0));
        assert_eq!(source.ends_at(LINGER), None, "of a source that was not heard");
        source.admit(one, &rtp(1, 5), at(0));
        source.take_leave([2, 3].into_iter(), at(10));
        assert_eq!(source.ends_at(LINGER), None, "of others");
        source.take_leave([2, 1].into_iter(), at(20));
        assert_eq!(source.ends_at(LINGER), Some(at(520)));
        // What was sent before it and comes behind it, at whatever pace, is waited for and keeps nothing open.
        source.admit(one, &rtp(1, 7), at(40));
        source.admit(one, &rtp(1, 6), at(400));
        source.take_leave([1].into_iter(), at(410));
        assert_eq!(source.ends_at(LINGER), Some(at(900)));
    }

    #[test]
    fn a_stream_goes_on_behind_a_bye_with_another_source_or_the_same() {
        let [one, two] = ["10.0.0.1:1000", "10.0.0.1:2000"].map(|text| text.parse().unwrap());
        let mut source = Source::default();
        source.admit(one, &rtp(1, 5), at(0));
        source.take_leave([1].into_iter(), at(10));
        assert!(source.admit(two, &rtp(9, 500), at(20)), "from another address, too");
        assert_eq!(source.ends_at(LINGER), None);
        source.take_leave([1].into_iter(), at(30));
        assert_eq!(source.ends_at(LINGER), None, "that one had left before");
        source.take_leave([9].into_iter(), at(40));
        for n in 1..20 {
            assert!(source.admit(two, &rtp(9, 500 + n), at(40 + u64::from(n) * 20)));
        }
        assert_eq!(source.ends_at(LINGER), None);
    }

    #[test]
    fn rtcp_is_told_from_rtp_on_one_port() {
        assert!(is_rtcp(&[0x80, 200, 0, 6]) && is_rtcp(&[0x81, 203, 0, 1]));
        assert!(
            !is_rtcp(&[0x80, 111, 0, 6])
                && !is_rtcp(&[0x80, 0x80 | 111])
                && !is_rtcp(&[0x00, 200])
                && !is_rtcp(&[0x80])
        );
    }
}
