//! What is given to `sidetape replay` as text.

use std::str::FromStr;

use anyhow::{Context, bail};

use crate::id::{Channel, Scope};
use crate::rtpmap::Rtpmap;

/// What a payload type means, on one channel or on both: one `--rtpmap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadTypeMap {
    pub(super) scope: Scope,
    pub(super) payload_type: u8,
    pub(super) rtpmap: String,
}

/// Reads an SSRC, decimal or hexadecimal.
pub(super) fn parse_ssrc(text: &str) -> anyhow::Result<u32> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.context("not a 32-bit number, decimal or 0x and hexadecimal")
}

impl FromStr for PayloadTypeMap {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (scope, rest) = match text.split_once(':') {
            None => (Scope::Whole, text),
            Some(("caller", rest)) => (Scope::Channel(Channel::Caller), rest),
            Some(("ai", rest)) => (Scope::Channel(Channel::Ai), rest),
            Some((other, _)) => bail!("no such channel: {other:?}"),
        };
        let (number, rtpmap) = rest.split_once('=').context("no payload type and = before the rtpmap")?;
        let number = number.parse().ok().filter(|number| *number < 128);
        let payload_type = number.context("payload type is not a number from 0 to 127")?;
        Rtpmap::parse(rtpmap)?;
        Ok(Self { scope, payload_type, rtpmap: rtpmap.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssrcs_and_rtpmaps_are_read_as_people_write_them() {
        assert_eq!(parse_ssrc("0x5CA11e40").unwrap(), 0x5ca1_1e40);
        assert_eq!(parse_ssrc("4294967295").unwrap(), u32::MAX);
        for wrong in ["", "0x", "5ca11e40", "4294967296", "-1"] {
            assert!(parse_ssrc(wrong).is_err(), "{wrong}");
        }
        let map: PayloadTypeMap = "caller:127=Speex/16000".parse().unwrap();
        assert_eq!((map.scope, map.payload_type), (Scope::Channel(Channel::Caller), 127));
        for wrong in ["", "96", "96=opus", "128=opus/48000/2", "=opus/48000/2", "both:96=opus/48000/2"] {
            assert!(wrong.parse::<PayloadTypeMap>().is_err(), "{wrong}");
        }
    }
}
