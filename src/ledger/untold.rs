//! Key presses (RFC 4733) of a payload type that nobody has told the meaning of.
//!
//! By default such a type is Opus. The form of a key press is one that encoders do not spend on speech, and a channel has its
//! audio in another type: one of which all payloads have that form is key presses. Memory: two bits a payload type.

use crate::connection::digits::{KEY_PRESSES, has_form_of_key, may_be_key_presses};
use crate::rtpmap::Rtpmap;

/// What the payload types of a channel were seen with, a bit for each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Untold {
    like_keys: u128,
    unlike_keys: u128,
}

impl Untold {
    /// Notes a payload that is kept.
    pub(super) fn note(&mut self, payload_type: u8, payload: &[u8]) {
        let bit = bit(payload_type);
        *(if has_form_of_key(payload) { &mut self.like_keys } else { &mut self.unlike_keys }) |= bit;
    }

    /// What a payload type is that was not told, and by default means this: key presses, or that.
    pub(super) fn meaning(&self, payload_type: u8, default: Rtpmap) -> Rtpmap {
        let bit = bit(payload_type);
        let is_open = may_be_key_presses(default);
        let has_others = (self.like_keys | self.unlike_keys) & !bit != 0;
        let are_keys = self.like_keys & bit != 0 && self.unlike_keys & bit == 0 && has_others;
        if is_open && are_keys { KEY_PRESSES } else { default }
    }
}

fn bit(payload_type: u8) -> u128 {
    1 << (payload_type & 0x7f)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LONGEST, enter, ledger, rtp_at};
    use super::super::{Codec, Ledger};
    use crate::timeline::RxKind;

    const KEY: [u8; 4] = [3, 10, 0, 160];

    /// A channel with these packets, of payload type and payload.
    fn heard(packets: &[(u8, &[u8])], meta: Option<&str>) -> Ledger {
        let mut ledger = ledger();
        for (n, (payload_type, payload)) in (0..).zip(packets) {
            let rtp = rtp_at(*payload_type, n, u32::from(n) * 160, payload);
            enter(&mut ledger, 1, 600 + u64::from(n), None, &rtp);
        }
        if let Some(meta) = meta {
            enter(&mut ledger, 3, 900, None, meta.as_bytes());
        }
        ledger.close(LONGEST);
        ledger
    }

    #[test]
    fn key_presses_of_a_payload_type_that_nobody_told_are_no_audio() {
        for audio in [&[0x55; 160][..], &[0x78, 1, 2, 3, 4, 5]] {
            let payload_type = if audio.len() == 160 { 8 } else { 111 };
            let ledger = heard(&[(payload_type, audio), (96, &KEY), (96, &KEY), (payload_type, audio)], None);
            let caller = &ledger.channels[0];
            let kinds: Vec<_> = caller.rx.iter().map(|rx| rx.kind).collect();
            assert_eq!(kinds, [RxKind::Audio, RxKind::Beside, RxKind::Beside, RxKind::Audio]);
            assert_eq!(caller.codecs.len(), 1);
            assert!(!caller.has_unusable);
            assert_eq!(ledger.marks[0].fields.to_map()["event"], "3");
        }
    }

    #[test]
    fn what_may_be_speech_or_was_told_stays_what_it_is() {
        let pcma = &[0x55; 160][..];
        // Of the form of a key press, but nothing else is on the channel; or not all of its type are.
        let alone = heard(&[(96, &KEY), (96, &KEY)], None);
        let once = heard(&[(8, pcma), (96, &KEY), (96, &[0x78, 1, 2, 3, 4, 5])], None);
        let meta = r#"{"payload_types":{"96":"opus/48000/2"}}"#;
        let told = heard(&[(8, pcma), (96, &KEY)], Some(meta));
        for ledger in [alone, once, told] {
            assert!(ledger.channels[0].codecs.contains(&Codec::Opus));
            assert!(ledger.channels[0].rx.iter().all(|rx| rx.kind != RxKind::Beside));
        }
    }
}
