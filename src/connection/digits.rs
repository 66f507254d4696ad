//! Which packets and marks tell of key presses: what is to be left out of them where digits are not kept.

use serde_json::{Map, Value};

use crate::packet::parse_rtp;
use crate::red;
use crate::rtpmap::{Codec, Rtpmap};

/// Names of marks that tell of key presses: their further fields are digits.
const MARKS_OF_KEY_PRESSES: [&str; 2] = ["telephone-event", "dtmf"];

/// What a payload type of key presses means that nobody told: of the clocks in use, the one by which they have lasted longest.
pub const KEY_PRESSES: Rtpmap = Rtpmap { codec: Codec::TelephoneEvent, clock_hz: 8000, channels: 1 };

/// Whether a payload type that nobody told, and by default means this, may be one of key presses.
#[must_use]
pub fn may_be_key_presses(default: Rtpmap) -> bool {
    matches!(default.codec, Codec::Opus | Codec::Unknown)
}

/// Whether a mark tells of a key press, so that its fields are digits.
#[must_use]
pub fn tells_key_press(fields: &Map<String, Value>) -> bool {
    let name = fields.get("name").and_then(Value::as_str).unwrap_or_default();
    MARKS_OF_KEY_PRESSES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Whether a packet tells digits. What nobody has told the payload type of may be a digit, if it looks like one.
pub(super) fn has_digits(body: &[u8], rtpmap: impl Fn(u8) -> Rtpmap, is_told: impl Fn(u8) -> bool) -> bool {
    let Ok(packet) = parse_rtp(body) else { return false };
    let is_digit = |payload_type: u8, payload: &[u8]| {
        let meant = rtpmap(payload_type);
        let is_untold = || may_be_key_presses(meant) && !is_told(payload_type);
        meant.codec == Codec::TelephoneEvent || is_untold() && has_form_of_key(payload)
    };
    match rtpmap(packet.payload_type).codec {
        Codec::Red => {
            let blocks = red::blocks(packet.payload).unwrap_or_default();
            blocks.iter().any(|block| is_digit(block.payload_type, block.payload))
        }
        _ => is_digit(packet.payload_type, packet.payload),
    }
}

/// Whether a payload has the form of a key press (RFC 4733 section 2.3): the events 0 to 16, a bit that is zero, four bytes. Opus
/// has packets of this form, narrowband speech in three bytes, which is less than encoders spend on speech.
#[must_use]
pub fn has_form_of_key(payload: &[u8]) -> bool {
    matches!(payload, [0..=16, flags, _, _] if flags & 0x40 == 0)
}
