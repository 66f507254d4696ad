//! Datagrams in, the RTP streams among them out.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use std::collections::BTreeMap;

use super::Datagram;
use crate::packet::parse_rtp;

/// RTP packets of one source, in the order of the capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RtpStream {
    /// Synchronisation source.
    pub ssrc: u32,
    /// Who sent it, as in [`Datagram::source`].
    pub source: String,
    /// Whom it was sent to, as in [`Datagram::destination`].
    pub destination: String,
    /// The packets, each parsed once already: [`parse_rtp`] accepts them.
    pub packets: Vec<Datagram>,
    /// How many packets each payload type has.
    pub payload_types: BTreeMap<u8, usize>,
}

/// Groups the RTP packets among datagrams by source, destination and SSRC, and returns the groups that look like RTP,
/// ordered by the time of their first packet.
///
/// Datagrams of other protocols look like RTP by two bits, so a group must hold 3 packets or more of at most 8 payload
/// types, at least half of them small steps apart: up to two lost, a repetition, or a swap of two neighbours.
#[must_use]
pub fn rtp_streams(datagrams: Vec<Datagram>) -> Vec<RtpStream> {
    let mut groups: BTreeMap<(String, String, u32), RtpStream> = BTreeMap::new();
    for datagram in datagrams {
        let Ok(rtp) = parse_rtp(&datagram.payload) else { continue };
        let key = (datagram.source.clone(), datagram.destination.clone(), rtp.ssrc);
        let group = groups.entry(key).or_default();
        let count = group.payload_types.entry(rtp.payload_type).or_default();
        *count = count.saturating_add(1);
        group.packets.push(datagram);
    }
    let named = groups.into_iter().map(|(key, group)| {
        let (source, destination, ssrc) = key;
        RtpStream { ssrc, source, destination, ..group }
    });
    let mut streams: Vec<RtpStream> = named.filter(looks_like_rtp).collect();
    streams.sort_by_key(|stream| stream.packets.first().map(|packet| packet.at_us));
    streams
}

fn looks_like_rtp(stream: &RtpStream) -> bool {
    let packets = stream.packets.iter().filter_map(|packet| parse_rtp(&packet.payload).ok());
    let sequences: Vec<u16> = packets.map(|rtp| rtp.sequence).collect();
    let steps = sequences.iter().zip(sequences.iter().skip(1)).map(|(from, to)| to.wrapping_sub(*from));
    let small_steps = steps.filter(|&step| step <= 3 || step == u16::MAX).count();
    let enough = sequences.len().saturating_sub(1).div_ceil(2);
    sequences.len() >= 3 && stream.payload_types.len() <= 8 && small_steps >= enough
}
