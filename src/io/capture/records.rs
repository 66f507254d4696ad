//! Captures of RTP alone in, which are nothing but records: rtpdump and rtpproxy's; datagrams out.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::{Capture, Datagram, unix_us};

/// The first bytes of an rtpdump file. A line end follows the address and port that was listened on.
pub(super) const RTPDUMP_MAGIC: &[u8] = b"#!rtpplay1.0";

/// Reads an rtpdump file (rtptools): a line of text, a header of 16 bytes, then records of 8 bytes and a packet.
///
/// | bytes | header, big-endian | bytes | record, big-endian |
/// | --- | --- | --- | --- |
/// | 4 + 4 | start, seconds and microseconds | 2 | length of the record |
/// | 4 + 2 | IPv4 address and port of the source | 2 | length of the packet, 0 for RTCP |
/// | 2 | padding | 4 | milliseconds since the start |
pub(super) fn read_rtpdump(bytes: &[u8]) -> Option<Capture> {
    let mut halves = bytes.strip_prefix(RTPDUMP_MAGIC)?.splitn(2, |&byte| byte == b'\n');
    let destination = String::from_utf8_lossy(halves.next()?).trim().replace('/', ":");
    let (seconds, rest) = halves.next()?.split_first_chunk()?;
    let (us, rest) = rest.split_first_chunk()?;
    let (address, rest) = rest.split_first_chunk::<4>()?;
    let (port, rest) = rest.split_first_chunk()?;
    let (_padding, mut rest) = rest.split_first_chunk::<2>()?;
    let start_us = unix_us(u32::from_be_bytes(*seconds), u32::from_be_bytes(*us));
    let source = SocketAddr::new(Ipv4Addr::from(*address).into(), u16::from_be_bytes(*port)).to_string();

    let mut capture = Capture::default();
    while let Some((&[l0, l1, p0, p1, m0, m1, m2, m3], body)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([l0, l1])).checked_sub(8);
        let Some((packet, after)) = length.and_then(|length| body.split_at_checked(length)) else { break };
        rest = after;
        if [p0, p1] == [0, 0] {
            continue;
        }
        let since_start_us = i64::from(u32::from_be_bytes([m0, m1, m2, m3])).saturating_mul(1000);
        // What rtpdump was told to keep the headers of alone.
        let is_cut = usize::from(u16::from_be_bytes([p0, p1])) > packet.len();
        if is_cut {
            capture.kept_bytes = capture.kept_bytes.max(packet.len());
        }
        capture.datagrams.push(Datagram {
            at_us: start_us.saturating_add(since_start_us),
            source: source.clone(),
            destination: destination.clone(),
            payload: packet.to_vec(),
            is_cut,
        });
    }
    capture.torn_bytes = rest.len();
    Some(capture)
}

/// Reads an ad-hoc recording of rtpproxy: nothing but records, each a header of 30 bytes and a packet.
/// Returns nothing if the first record makes no sense; a later one ends the reading.
pub(super) fn read_rtpproxy(bytes: &[u8]) -> Option<Capture> {
    let (first, mut rest) = split_rtpproxy_record(bytes)?;
    let mut datagrams = vec![first];
    while let Some((datagram, after)) = split_rtpproxy_record(rest) {
        datagrams.push(datagram);
        rest = after;
    }
    Some(Capture { datagrams, torn_bytes: rest.len(), ..Capture::default() })
}

/// Splits the next record off an rtpproxy recording.
///
/// | bytes | field |
/// | --- | --- |
/// | 2 | address family in the machine's order, which is little-endian here: 2 for IPv4, else IPv6 |
/// | 2 | port of the source, big-endian |
/// | 16 | its address; one of IPv4 is in the first four bytes |
/// | 8 | arrival in seconds since the epoch, a little-endian double |
/// | 2 | length of the packet, little-endian |
fn split_rtpproxy_record(bytes: &[u8]) -> Option<(Datagram, &[u8])> {
    let (&[family, 0], rest) = bytes.split_first_chunk()? else { return None };
    let (port, rest) = rest.split_first_chunk()?;
    let (address, rest) = rest.split_first_chunk::<16>()?;
    let (time, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (packet, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    let address: IpAddr = match (family, address) {
        (2, [a, b, c, d, ..]) => Ipv4Addr::new(*a, *b, *c, *d).into(),
        // Linux, NetBSD and OpenBSD, FreeBSD, macOS.
        (10 | 24 | 28 | 30, _) => Ipv6Addr::from(*address).into(),
        _ => return None,
    };
    // Nearly any eight bytes are a double, but few are a time up to the year 2286.
    let seconds = Some(f64::from_le_bytes(*time)).filter(|seconds| (1.0..1e10).contains(seconds))?;
    let nearest_us = Duration::try_from_secs_f64(seconds).ok()?.saturating_add(Duration::from_nanos(500));
    let datagram = Datagram {
        at_us: i64::try_from(nearest_us.as_micros()).ok()?,
        source: SocketAddr::new(address, u16::from_be_bytes(*port)).to_string(),
        destination: "rtpproxy".to_owned(),
        payload: packet.to_vec(),
        is_cut: false,
    };
    Some((datagram, rest))
}
