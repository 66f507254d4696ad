//! The tap protocol, version 1: bytes of one frame in, a checked [`Frame`] out, and back.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 2 | magic `53 54` ("ST") |
//! | 2 | 1 | version, 1 |
//! | 3 | 1 | kind |
//! | 4 | 1 | channel: 0 caller, 1 ai, 255 the whole connection |
//! | 5 | 1 | N, the length of the connection id, 1..=128 |
//! | 6 | 2 | flags: bit 0 announces a trailer; unknown bits are ignored |
//! | 8 | 8 | gateway timestamp, microseconds since the Unix epoch; 0 = none |
//! | 16 | N | connection id, UTF-8 |
//! | 16+N | rest | body |
//! | the end | 28 | with flag bit 0: the trailer that [`crate::tap_key`] reads, no part of the body |
//!
//! Integers are big-endian. What is wrong with a frame is one [`FrameError`], a closed list, so that each refusal
//! can be counted by its reason. Parsing copies nothing but the JSON of the rare kinds that carry any.
//! RTP and RTCP inside the body are checked by [`crate::packet`].
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::{Channel, ConnectionId, IdError, Scope};
use crate::time::Wall;

/// The first two bytes of each frame, "ST".
pub const MAGIC: [u8; 2] = *b"ST";
/// The protocol version that this daemon speaks.
pub const VERSION: u8 = 1;
/// The bytes in front of the connection id.
pub const HEADER_BYTES: usize = 16;
/// The bit of the flags that announces a trailer behind the body.
pub const TRAILER_FLAG: u8 = 1;
/// The bytes of a trailer.
pub const TRAILER_BYTES: usize = 28;
/// The longest body of a PING.
pub const PING_MAX_BYTES: usize = 64;
/// The kind byte of the answer to a PING.
pub const PONG_KIND: u8 = 12;
/// The kind byte of a PAUSE.
const PAUSE_KIND: u8 = 6;

/// One frame whose every byte has been checked, borrowed from the datagram that carried it.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame<'a> {
    /// The channel that it is about, or the whole connection.
    pub scope: Scope,
    /// When the gateway received or sent what the frame carries, by its own clock, if it said so.
    pub gateway: Option<Wall>,
    /// The connection's id, already checked as [`ConnectionId::check`] does.
    pub connection: &'a str,
    /// What the frame says.
    pub message: Message,
    /// The body as it came, for the spool.
    pub body: &'a [u8],
}

/// What a frame says. The body of RTP and RTCP is left in [`Frame::body`].
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// One RTP packet.
    Rtp,
    /// The channel's stream has ended; with the number of RTP frames that the gateway sent on it, if it counted.
    End {
        /// How many RTP frames the gateway sent.
        sent: Option<u64>,
    },
    /// Metadata to merge.
    Meta(Map<String, Value>),
    /// One reference more.
    Hold,
    /// One HOLD given back.
    Release,
    /// What comes after is not kept.
    Pause(PauseMode),
    /// The end of PAUSE.
    Resume,
    /// A named moment.
    Mark(Map<String, Value>),
    /// The gateway dropped the AI audio that it had queued.
    Clear,
    /// One compound RTCP packet.
    Rtcp,
    /// An echo request.
    Ping,
}

/// What a PAUSE leaves in the recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PauseMode {
    /// Silence of the same length.
    #[default]
    Silence,
    /// Nothing: the time is cut out of the timeline.
    Cut,
}

impl PauseMode {
    /// The word for it in a PAUSE.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::Cut => "cut",
        }
    }
}

impl Message {
    /// The kind byte on the wire.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Self::Rtp => 1,
            Self::End { .. } => 2,
            Self::Meta(_) => 3,
            Self::Hold => 4,
            Self::Release => 5,
            Self::Pause(_) => 6,
            Self::Resume => 7,
            Self::Mark(_) => 8,
            Self::Clear => 9,
            Self::Rtcp => 10,
            Self::Ping => 11,
        }
    }
}

/// Why bytes are no frame. Each is counted under its own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer than 16 bytes.
    #[error("frame is shorter than its header")]
    Short,
    /// The first two bytes are not "ST".
    #[error("frame does not begin with the magic ST")]
    Magic,
    /// A version other than 1.
    #[error("frame has an unknown protocol version")]
    Version,
    /// A kind that the protocol does not have.
    #[error("frame is of unknown kind")]
    Kind,
    /// A channel byte that its kind does not take.
    #[error("channel does not fit the frame's kind")]
    Channel,
    /// The frame ends inside its connection id.
    #[error("frame ends inside its connection id")]
    IdTruncated,
    /// A connection id that breaks a rule.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The frame announces a trailer and is too short for one.
    #[error("frame ends inside its trailer")]
    TrailerTruncated,
    /// A body that its kind does not take.
    #[error("body does not fit the frame's kind")]
    Body,
    /// A body that should be a JSON object and is not.
    #[error("body is not a json object of the right form")]
    Json,
}

/// The connection and the channel that bytes are about, also where the body is not what the kind takes.
#[must_use]
pub fn address_of(bytes: &[u8]) -> Option<(Scope, &str)> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let [s, t, version, _, channel, id_bytes, ..] = *header;
    let (id, _) = rest.split_at_checked(usize::from(id_bytes))?;
    let is_frame = [s, t] == MAGIC && version == VERSION;
    Some((Scope::from_wire(channel)?, ConnectionId::check(id).ok()?)).filter(|_| is_frame)
}

/// Of a PAUSE that [`parse`] refuses for its body alone, the frame without a body: a PAUSE of the default mode. Whoever sends
/// one has something to say that is not to be kept.
#[must_use]
pub fn pause_without_body(bytes: &[u8]) -> Option<Vec<u8>> {
    let (_, id) = address_of(bytes)?;
    let mut pause = bytes.get(..HEADER_BYTES.saturating_add(id.len()))?.to_vec();
    let flags = pause.get_mut(7)?;
    *flags &= !TRAILER_FLAG;
    (pause.get(3) == Some(&PAUSE_KIND)).then_some(pause)
}

/// Parses one datagram, or one unit of the framed byte stream.
///
/// # Errors
/// The first rule that the bytes break.
pub fn parse(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(FrameError::Short)?;
    let [s, t, version, kind, channel, id_bytes, _, flags, stamp @ ..] = *header;
    if [s, t] != MAGIC {
        return Err(FrameError::Magic);
    }
    if version != VERSION {
        return Err(FrameError::Version);
    }
    if !(1..=11).contains(&kind) {
        return Err(FrameError::Kind);
    }
    let scope = Scope::from_wire(channel).ok_or(FrameError::Channel)?;
    if !kind_takes(kind, scope) {
        return Err(FrameError::Channel);
    }
    if id_bytes == 0 {
        return Err(IdError::Length.into());
    }
    let (id, body) = rest.split_at_checked(usize::from(id_bytes)).ok_or(FrameError::IdTruncated)?;
    let body = if flags & TRAILER_FLAG == 0 {
        body
    } else {
        body.split_last_chunk::<TRAILER_BYTES>().ok_or(FrameError::TrailerTruncated)?.0
    };
    let connection = ConnectionId::check(id)?;
    let message = parse_body(kind, body)?;
    Ok(Frame { scope, gateway: Wall::stamp_from_wire(u64::from_be_bytes(stamp)), connection, message, body })
}

/// Reads the body of a frame of `kind` (1..=11). Also used on what the spool kept of a frame.
///
/// # Errors
/// [`FrameError::Body`] or [`FrameError::Json`]; [`FrameError::Kind`] for a kind that is not in the protocol.
pub fn parse_body(kind: u8, body: &[u8]) -> Result<Message, FrameError> {
    let empty = |message| if body.is_empty() { Ok(message) } else { Err(FrameError::Body) };
    match kind {
        1 => Ok(Message::Rtp),
        2 if body.is_empty() => Ok(Message::End { sent: None }),
        2 => {
            let count = <[u8; 8]>::try_from(body).map_err(|_| FrameError::Body)?;
            Ok(Message::End { sent: Some(u64::from_be_bytes(count)) })
        }
        3 => Ok(Message::Meta(parse_object(body)?)),
        4 => empty(Message::Hold),
        5 => empty(Message::Release),
        6 if body.is_empty() => Ok(Message::Pause(PauseMode::Silence)),
        6 => parse_pause(&parse_object(body)?),
        7 => empty(Message::Resume),
        8 => {
            let mark = parse_object(body)?;
            let is_named = mark.get("name").is_some_and(Value::is_string);
            if is_named { Ok(Message::Mark(mark)) } else { Err(FrameError::Json) }
        }
        9 => empty(Message::Clear),
        10 => Ok(Message::Rtcp),
        11 if body.len() <= PING_MAX_BYTES => Ok(Message::Ping),
        11 => Err(FrameError::Body),
        _ => Err(FrameError::Kind),
    }
}

/// Whether frames of `kind` may carry this channel byte.
fn kind_takes(kind: u8, scope: Scope) -> bool {
    match kind {
        1 | 10 => scope != Scope::Whole,
        4 | 5 | 11 => scope == Scope::Whole,
        9 => scope == Scope::Channel(Channel::Ai),
        _ => true,
    }
}

fn parse_object(body: &[u8]) -> Result<Map<String, Value>, FrameError> {
    serde_json::from_slice(body).map_err(|_| FrameError::Json)
}

fn parse_pause(pause: &Map<String, Value>) -> Result<Message, FrameError> {
    match pause.get("mode") {
        None => Ok(Message::Pause(PauseMode::Silence)),
        Some(Value::String(mode)) if mode == "silence" => Ok(Message::Pause(PauseMode::Silence)),
        Some(Value::String(mode)) if mode == "cut" => Ok(Message::Pause(PauseMode::Cut)),
        Some(_) => Err(FrameError::Json),
    }
}

/// Writes a frame: the header, the id, and `body` as it stands. The caller sees to it that they fit together.
#[must_use]
pub fn encode(
    kind: u8,
    scope: Scope,
    gateway: Option<Wall>,
    connection: &ConnectionId,
    body: &[u8],
) -> Vec<u8> {
    let id = connection.as_str().as_bytes();
    let stamp = gateway.and_then(|wall| u64::try_from(wall.0).ok()).unwrap_or(0);
    let id_bytes = u8::try_from(id.len()).expect("a connection id has at most 128 bytes");
    let mut frame = Vec::with_capacity(HEADER_BYTES.saturating_add(id.len()).saturating_add(body.len()));
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&[VERSION, kind, scope.to_wire(), id_bytes, 0, 0]);
    frame.extend_from_slice(&stamp.to_be_bytes());
    frame.extend_from_slice(id);
    frame.extend_from_slice(body);
    frame
}

/// Whether the header of a frame announces a trailer.
#[must_use]
pub fn has_trailer(bytes: &[u8]) -> bool {
    bytes.get(7).is_some_and(|flags| flags & TRAILER_FLAG != 0)
}

/// Turns the bytes of a PING that [`parse`] accepted into its answer: the same id and body, kind 12, no trailer.
#[must_use]
pub fn pong(ping: &[u8]) -> Vec<u8> {
    let trailer_bytes = if has_trailer(ping) { TRAILER_BYTES } else { 0 };
    let mut answer = ping.to_vec();
    answer.truncate(ping.len().saturating_sub(trailer_bytes));
    if let Some([kind, _, _, _, flags]) = answer.get_mut(3..8) {
        *kind = PONG_KIND;
        *flags &= !TRAILER_FLAG;
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, scope: Scope, body: &[u8]) -> Vec<u8> {
        encode(kind, scope, Some(Wall(7)), &ConnectionId::new("call-1").unwrap(), body)
    }

    #[test]
    fn a_frame_reads_back_as_it_was_written() {
        let bytes = frame(1, Scope::Channel(Channel::Ai), b"rtp");
        let parsed = parse(&bytes).unwrap();
        assert_eq!(parsed.connection, "call-1");
        assert_eq!(parsed.gateway, Some(Wall(7)));
        assert_eq!(parsed.scope, Scope::Channel(Channel::Ai));
        assert_eq!((parsed.message, parsed.body), (Message::Rtp, &b"rtp"[..]));
    }

    #[test]
    fn each_kind_takes_only_its_own_channels() {
        for kind in 1..=11u8 {
            for (byte, scope) in
                [(0, Scope::Channel(Channel::Caller)), (1, Scope::Channel(Channel::Ai)), (255, Scope::Whole)]
            {
                let expected = match kind {
                    1 | 10 => byte != 255,
                    4 | 5 | 11 => byte == 255,
                    9 => byte == 1,
                    _ => true,
                };
                let body: &[u8] = match kind {
                    3 => b"{}",
                    8 => br#"{"name":"x"}"#,
                    _ => b"",
                };
                assert_eq!(parse(&frame(kind, scope, body)).is_ok(), expected, "kind {kind} channel {byte}");
            }
        }
    }

    #[test]
    fn every_broken_rule_has_its_own_reason() {
        let good = frame(1, Scope::Channel(Channel::Caller), b"");
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        assert_eq!(parse(&good[..15]), Err(FrameError::Short));
        assert_eq!(parse(&with(0, b'X')), Err(FrameError::Magic));
        assert_eq!(parse(&with(2, 2)), Err(FrameError::Version));
        assert_eq!(parse(&with(3, 0)), Err(FrameError::Kind));
        assert_eq!(parse(&with(3, PONG_KIND)), Err(FrameError::Kind));
        assert_eq!(parse(&with(4, 2)), Err(FrameError::Channel));
        assert_eq!(parse(&with(5, 0)), Err(FrameError::Id(IdError::Length)));
        assert_eq!(parse(&with(5, 200)), Err(FrameError::IdTruncated));
        assert_eq!(parse(&with(16, 0xff)), Err(FrameError::Id(IdError::NotUtf8)));
        assert_eq!(parse(&with(16, 7)), Err(FrameError::Id(IdError::Control)));
        assert_eq!(parse(&frame(2, Scope::Whole, b"1234567")), Err(FrameError::Body));
        assert_eq!(parse(&frame(4, Scope::Whole, b"x")), Err(FrameError::Body));
        assert_eq!(parse(&frame(11, Scope::Whole, &[0; 65])), Err(FrameError::Body));
        assert_eq!(parse(&frame(3, Scope::Whole, b"[1]")), Err(FrameError::Json));
        assert_eq!(parse(&frame(6, Scope::Whole, br#"{"mode":"loud"}"#)), Err(FrameError::Json));
        assert_eq!(parse(&frame(8, Scope::Whole, br#"{"title":"x"}"#)), Err(FrameError::Json));
    }

    #[test]
    fn what_a_frame_is_about_is_known_whatever_its_body_is() {
        let bytes = frame(6, Scope::Channel(Channel::Ai), br#"{"mode":"mute"}"#);
        assert_eq!(parse(&bytes), Err(FrameError::Json));
        assert_eq!(address_of(&bytes), Some((Scope::Channel(Channel::Ai), "call-1")));
        assert_eq!(address_of(&bytes[..20]), None, "cut inside the id");
        assert_eq!(address_of(&[&b"XX"[..], &bytes[2..]].concat()), None);
        let mut signed = [&bytes[..], &[7; TRAILER_BYTES]].concat();
        signed[7] |= TRAILER_FLAG;
        for bytes in [bytes, signed] {
            let pause = pause_without_body(&bytes).unwrap();
            let pause = parse(&pause).unwrap();
            assert_eq!(pause.message, Message::Pause(PauseMode::Silence));
            assert_eq!((pause.scope, pause.gateway), (Scope::Channel(Channel::Ai), Some(Wall(7))));
        }
        assert_eq!(pause_without_body(&frame(8, Scope::Whole, b"{}")), None, "another kind");
    }

    #[test]
    fn unknown_flag_bits_are_ignored() {
        let mut bytes = frame(4, Scope::Whole, b"");
        bytes[6] = 0xff;
        bytes[7] = 0xfe;
        assert!(parse(&bytes).is_ok());
    }

    #[test]
    fn a_trailer_is_no_part_of_the_body_and_not_answered() {
        let mut bytes = frame(11, Scope::Whole, b"abc");
        let plain = bytes.clone();
        bytes[7] = TRAILER_FLAG;
        assert_eq!(parse(&bytes), Err(FrameError::TrailerTruncated));
        bytes.extend_from_slice(&[0xaa; TRAILER_BYTES]);
        assert_eq!(parse(&bytes).unwrap().body, b"abc");
        assert_eq!(pong(&bytes), pong(&plain));
        bytes.pop();
        assert_eq!(parse(&bytes).unwrap().body.len(), 2, "a trailer is taken off from the end");
    }

    #[test]
    fn a_pong_is_the_ping_with_another_kind() {
        let answer = pong(&frame(11, Scope::Whole, b"abc"));
        assert_eq!(answer[3], PONG_KIND);
        assert_eq!(&answer[16..], b"call-1abc");
    }

    #[test]
    fn an_end_may_say_how_many_frames_were_sent() {
        let bytes = frame(2, Scope::Whole, &300u64.to_be_bytes());
        assert_eq!(parse(&bytes).unwrap().message, Message::End { sent: Some(300) });
    }
}
