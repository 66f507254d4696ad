//! RTP and RTCP: bytes of a frame's body in, checked packets out (RFC 3550).
//!
//! Parsing is by `rtp-types`, which neither allocates nor panics. Header extensions are skipped: nothing in a
//! recording depends on them yet. RTCP is checked for its outer form only, so that the spool holds nothing broken;
//! of what is in it, sender reports alone are read: they say what a sender's timestamps mean on a clock.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use rtp_types::RtpPacket;

/// The fields of one RTP packet that a recording needs, and its payload without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rtp<'a> {
    /// Synchronisation source.
    pub ssrc: u32,
    /// Sequence number, modulo 2^16.
    pub sequence: u16,
    /// Media timestamp in ticks of the payload type's clock, modulo 2^32.
    pub timestamp: u32,
    /// Payload type, 0..=127.
    pub payload_type: u8,
    /// What lies between the header and the padding. Empty for a packet of padding alone.
    pub payload: &'a [u8],
}

/// Why bytes are no RTP or RTCP packet. Each is counted under its own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Not a whole RTP packet of version 2.
    #[error("body is not an rtp packet")]
    Rtp,
    /// RTCP sent as RTP: the second byte is 192..=223 (RFC 5761 section 4).
    #[error("body is rtcp in a frame of kind rtp")]
    RtcpAsRtp,
    /// A packet of DTLS or ZRTP, which agree on keys on the port that audio comes on.
    #[error("body is a key exchange, dtls or zrtp, in a frame of kind rtp")]
    KeyExchange,
    /// Not a compound RTCP packet.
    #[error("body is not a compound rtcp packet")]
    Rtcp,
}

/// The shortest RTP packet: a header without sources, extension or payload.
pub const HEADER_BYTES: usize = 12;

/// Parses one RTP packet.
///
/// # Errors
/// [`PacketError::Rtp`], or [`PacketError::RtcpAsRtp`] where the gateway mixed up the two kinds, or
/// [`PacketError::KeyExchange`].
pub fn parse_rtp(bytes: &[u8]) -> Result<Rtp<'_>, PacketError> {
    let wrong = |_| if is_key_exchange(bytes) { PacketError::KeyExchange } else { PacketError::Rtp };
    let packet = RtpPacket::parse(bytes).map_err(wrong)?;
    if bytes.get(1).is_some_and(|second| (192..=223).contains(second)) {
        return Err(PacketError::RtcpAsRtp);
    }
    let start = packet.payload_offset();
    let end = start.checked_add(packet.payload_len()).ok_or(PacketError::Rtp)?;
    Ok(Rtp {
        ssrc: packet.ssrc(),
        sequence: packet.sequence_number(),
        timestamp: packet.timestamp(),
        payload_type: packet.payload_type(),
        payload: bytes.get(start..end).ok_or(PacketError::Rtp)?,
    })
}

/// Whether bytes are a record of DTLS by its first byte (RFC 5764 section 5.1.2) and its version, or a packet of ZRTP by its
/// cookie (RFC 6189 section 5). Neither can be an RTP packet.
#[must_use]
pub fn is_key_exchange(bytes: &[u8]) -> bool {
    matches!(bytes, [20..=63, 0xfe, 0xfd | 0xff, ..] | [0x10..=0x1f, _, _, _, b'Z', b'R', b'T', b'P', ..])
}

/// Returns the fixed header of an RTP packet that [`parse_rtp`] accepted, as a packet without payload: what is
/// kept of a packet that came during a PAUSE, so that the timeline stays whole.
#[must_use]
pub fn header_only(bytes: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    for (to, from) in header.iter_mut().zip(bytes) {
        *to = *from;
    }
    // Version 2, no padding, no extension, no contributing sources: none of what they announce follows.
    if let Some(first) = header.first_mut() {
        *first = 0x80;
    }
    header
}

/// Checks that bytes are a compound RTCP packet: one or more packets of version 2, types 192..=223, whose lengths
/// add up to the whole.
///
/// # Errors
/// [`PacketError::Rtcp`].
pub fn check_rtcp(bytes: &[u8]) -> Result<(), PacketError> {
    let mut rest = bytes;
    if rest.is_empty() {
        return Err(PacketError::Rtcp);
    }
    while !rest.is_empty() {
        let [first, kind, high, low, ..] = *rest else { return Err(PacketError::Rtcp) };
        let words = usize::from(u16::from_be_bytes([high, low]));
        let length = words.saturating_add(1).saturating_mul(4);
        if first >> 6 != 2 || !(192..=223).contains(&kind) {
            return Err(PacketError::Rtcp);
        }
        rest = rest.get(length..).ok_or(PacketError::Rtcp)?;
    }
    Ok(())
}

/// What a sender says of its own clocks: the moment `ntp` is the media time `timestamp` (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReport {
    /// Whose packets it is about.
    pub ssrc: u32,
    /// The moment in units of 2^-32 s, by the sender's wall clock. 0 if it has none.
    pub ntp: u64,
    /// The same moment in ticks of the sender's RTP clock, modulo 2^32.
    pub timestamp: u32,
}

/// A packet of a compound one that is a sender report.
const SENDER_REPORT: u8 = 200;
/// A packet of a compound one in which sources take their leave.
const BYE: u8 = 203;
/// The length of a sender report without report blocks. One that claims less is cut off.
const SENDER_REPORT_BYTES: usize = 28;

/// Returns the sender reports of a compound RTCP packet, as far as its lengths can be followed.
pub fn sender_reports(bytes: &[u8]) -> impl Iterator<Item = SenderReport> + '_ {
    rtcp_packets(bytes)
        .filter(|(_, kind, _)| *kind == SENDER_REPORT)
        .filter_map(|(_, _, packet)| sender_report(packet))
}

/// Returns the sources that a compound RTCP packet says BYE of (RFC 3550 section 6.6), likewise.
pub fn byes(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    rtcp_packets(bytes).filter(|(_, kind, _)| *kind == BYE).flat_map(|(count, _, packet)| {
        let sources = packet.get(4..).unwrap_or_default().as_chunks::<4>().0;
        sources.iter().take(usize::from(count)).map(|source| u32::from_be_bytes(*source))
    })
}

/// The packets of a compound one: their counts, their types, and themselves.
fn rtcp_packets(bytes: &[u8]) -> impl Iterator<Item = (u8, u8, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let [first, kind, high, low, ..] = *rest else { return None };
        let words = usize::from(u16::from_be_bytes([high, low]));
        let length = words.saturating_add(1).saturating_mul(4);
        let (packet, behind) = rest.split_at_checked(length)?;
        rest = behind;
        (first >> 6 == 2).then_some((first & 31, kind, packet))
    })
}

fn sender_report(packet: &[u8]) -> Option<SenderReport> {
    if packet.len() < SENDER_REPORT_BYTES {
        return None;
    }
    let (_, body) = packet.split_first_chunk::<4>()?;
    let (ssrc, body) = body.split_first_chunk()?;
    let (ntp, body) = body.split_first_chunk()?;
    let (timestamp, _) = body.split_first_chunk()?;
    Some(SenderReport {
        ssrc: u32::from_be_bytes(*ssrc),
        ntp: u64::from_be_bytes(*ntp),
        timestamp: u32::from_be_bytes(*timestamp),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtp(first: u8, second: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first, second, 0, 9, 0, 0, 0, 8, 0, 0, 0, 7];
        bytes.extend_from_slice(rest);
        bytes
    }

    #[test]
    fn padding_and_extension_are_not_payload() {
        let mut body = vec![0xbe, 0xde, 0, 1, 0x10, 0xff, 0, 0];
        body.extend_from_slice(b"opus");
        body.extend_from_slice(&[0, 0, 3]);
        let bytes = rtp(0xb0, 111, &body);
        let packet = parse_rtp(&bytes).unwrap();
        assert_eq!(packet.payload, b"opus");
        assert_eq!((packet.sequence, packet.timestamp, packet.ssrc), (9, 8, 7));
        assert_eq!(packet.payload_type, 111);
    }

    #[test]
    fn the_packet_that_panics_the_rtp_crate_is_harmless_here() {
        let bytes = [
            0x90, 0xe0, 0xb7, 0xba, 0x73, 0x85, 0xae, 0x8f, 0x5e, 0xba, 0xc9, 0x9a, 0x10, 0, 0, 1, 0xc0,
            0xdf, 0xa8, 0x85,
        ];
        assert!(parse_rtp(&bytes).unwrap().payload.is_empty());
    }

    #[test]
    fn wrong_versions_cut_headers_and_rtcp_are_refused() {
        assert_eq!(parse_rtp(&rtp(0x40, 111, b"x")), Err(PacketError::Rtp));
        assert_eq!(parse_rtp(&rtp(0x80, 111, b"")[..11]), Err(PacketError::Rtp));
        assert_eq!(parse_rtp(&rtp(0x8f, 111, b"x")), Err(PacketError::Rtp));
        assert_eq!(parse_rtp(&rtp(0xa0, 111, &[200])), Err(PacketError::Rtp));
        assert_eq!(parse_rtp(&rtp(0x80, 200, b"")), Err(PacketError::RtcpAsRtp));
    }

    #[test]
    fn key_exchanges_are_told_from_other_things_that_are_no_rtp() {
        let dtls = [&[22, 0xfe, 0xff, 0, 0][..], &[0; 40]].concat();
        let zrtp = [&[0x10, 0, 0, 1][..], b"ZRTP", &[0; 40]].concat();
        let stun = [&[0, 1, 0, 0][..], &[0x21, 0x12, 0xa4, 0x42], &[0; 12]].concat();
        assert_eq!(parse_rtp(&dtls), Err(PacketError::KeyExchange));
        assert_eq!(parse_rtp(&zrtp), Err(PacketError::KeyExchange));
        assert_eq!(parse_rtp(&stun), Err(PacketError::Rtp));
    }

    #[test]
    fn a_header_alone_is_a_packet_of_the_same_time() {
        let bytes = rtp(0xb1, 111, &[0; 40]);
        let kept = header_only(&bytes);
        let packet = parse_rtp(&kept).unwrap();
        assert_eq!((packet.sequence, packet.timestamp, packet.ssrc), (9, 8, 7));
        assert!(packet.payload.is_empty());
    }

    #[test]
    fn sources_that_take_their_leave_are_told() {
        let report = [0x80, 201, 0, 1, 0, 0, 0, 1];
        let bye = [0x82, 203, 0, 2, 0, 0, 0, 7, 0, 0, 1, 0];
        let compound = [&report[..], &bye, &[0x81, 203, 0, 0]].concat();
        assert_eq!(check_rtcp(&compound), Ok(()));
        assert_eq!(byes(&compound).collect::<Vec<_>>(), [7, 256]);
        // A count that the length does not hold, and a length that the packet does not.
        assert_eq!(byes(&[0x83, 203, 0, 1, 0, 0, 0, 9]).collect::<Vec<_>>(), [9]);
        assert_eq!(byes(&bye[..11]).count() + byes(&report).count(), 0);
    }

    #[test]
    fn compound_rtcp_must_add_up() {
        let report = [0x80, 201, 0, 1, 0, 0, 0, 1];
        assert_eq!(check_rtcp(&report), Ok(()));
        assert_eq!(check_rtcp(&[report, report].concat()), Ok(()));
        assert_eq!(check_rtcp(&report[..7]), Err(PacketError::Rtcp));
        assert_eq!(check_rtcp(&[]), Err(PacketError::Rtcp));
        assert_eq!(check_rtcp(&[0x80, 111, 0, 0]), Err(PacketError::Rtcp));
    }

    #[test]
    fn sender_reports_are_found_wherever_they_stand() {
        let mut report = vec![0x80, 200, 0, 6, 0, 0, 0, 7];
        report.extend_from_slice(&0xe000_0001_8000_0000_u64.to_be_bytes());
        report.extend_from_slice(&960_u32.to_be_bytes());
        report.extend_from_slice(&[0; 8]);
        let receiver = [0x80, 201, 0, 1, 0, 0, 0, 1];
        let expected = SenderReport { ssrc: 7, ntp: 0xe000_0001_8000_0000, timestamp: 960 };
        let compound = [&receiver[..], &report, &receiver, &report].concat();
        assert_eq!(sender_reports(&compound).collect::<Vec<_>>(), [expected, expected]);
        assert_eq!(sender_reports(&compound[..compound.len() - 1]).count(), 1, "cut off");
        let short = [0x80, 200, 0, 1, 0, 0, 0, 7];
        assert_eq!(sender_reports(&[&short[..], &report].concat()).count(), 1, "too short for a report");
        for length in 0..compound.len() {
            let _ = sender_reports(&compound[length..]).count();
        }
    }
}
