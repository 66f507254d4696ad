//! Plain RTP: calls of gateways that do not speak the tap protocol, on UDP ports of their own.
//!
//! A client asks for a call ([`Opening`]) and is told ports, as SDP, too. Each channel has one for RTP and the next one for
//! RTCP; RTCP is taken on both (RFC 5761). What comes there is turned into frames of the tap protocol, and goes on like
//! any other. A stream has ended when its sender says BYE.
//!
//! Whom to believe: the first address that sends RTP to a port has it, until it has been silent for
//! [`GIVES_WAY_AFTER`]. This keeps packets of a call before, or of somebody who guesses ports, out of a recording; it
//! is no authentication.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::id::{Channel, ConnectionId, Scope};
use crate::rtpmap::{Codec, Rtpmap};
use crate::time::Mono;

/// A sender that has been silent for so long may come back from another address, as behind a NAT.
pub const GIVES_WAY_AFTER: Duration = Duration::from_secs(5);
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

/// Whom a port believes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Source {
    latched: Option<(SocketAddr, Mono)>,
    ssrc: Option<u32>,
}

impl Source {
    /// Whether an RTP packet from an address is believed, which it then has the port by.
    pub fn admit(&mut self, from: SocketAddr, ssrc: u32, now: Mono) -> bool {
        let is_another =
            |(latched, last): (SocketAddr, Mono)| latched != from && now.since(last) < GIVES_WAY_AFTER;
        if self.latched.is_some_and(is_another) {
            return false;
        }
        self.latched = Some((from, now));
        self.ssrc = Some(ssrc);
        true
    }

    /// Whether RTCP from an address is believed: that of the host which sends the RTP, from whatever port.
    #[must_use]
    pub fn believes(&self, from: SocketAddr) -> bool {
        self.latched.is_none_or(|(latched, _)| latched.ip() == from.ip())
    }

    /// Whether these sources are among them the one that was heard last: its BYE ends the stream.
    #[must_use]
    pub fn ends_with(&self, mut byes: impl Iterator<Item = u32>) -> bool {
        byes.any(|bye| Some(bye) == self.ssrc)
    }
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
        let at = |ms: u64| Mono(ms * 1000);
        let mut source = Source::default();
        assert!(source.believes(two), "before anything is known");
        assert!(source.admit(one, 1, at(0)));
        assert!(!source.admit(two, 2, at(4_999)));
        assert!(source.admit(one, 3, at(5_000)), "a stream may change its SSRC");
        assert!(source.ends_with([1, 3].into_iter()) && !source.ends_with([1].into_iter()));
        assert!(source.believes(two) && !source.believes("10.0.0.2:1000".parse().unwrap()));
        assert!(source.admit(two, 2, at(10_000)) && !source.admit(one, 3, at(10_001)));
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
