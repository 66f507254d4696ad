//! Which packets and marks tell of key presses: what is to be left out of them where digits are not kept.

use serde_json::{Map, Value};

use crate::packet::parse_rtp;
use crate::red;
use crate::rtpmap::{Codec, Rtpmap};

/// Names of marks that tell of key presses: their further fields are digits.
const KEY_PRESSES: [&str; 2] = ["telephone-event", "dtmf"];

/// Whether a mark tells of a key press, so that its fields are digits.
#[must_use]
pub fn tells_key_press(fields: &Map<String, Value>) -> bool {
    let name = fields.get("name").and_then(Value::as_str).unwrap_or_default();
    KEY_PRESSES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Whether a packet tells digits. What nobody has told the payload type of may be a digit, if it looks like one.
pub(super) fn has_digits(body: &[u8], rtpmap: impl Fn(u8) -> Rtpmap, is_told: impl Fn(u8) -> bool) -> bool {
    let Ok(packet) = parse_rtp(body) else { return false };
    let is_digit = |payload_type: u8, payload: &[u8]| match rtpmap(payload_type).codec {
        Codec::TelephoneEvent => true,
        Codec::Opus | Codec::Unknown => !is_told(payload_type) && has_form_of_key(payload),
        _ => false,
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
