//! Which RTP streams of captures are the caller, and which are the AI.

use std::cmp::Reverse;

use anyhow::bail;

use super::times;
use crate::id::Channel;
use crate::io::capture::{RtpStream, join, sides};

/// The caller's and the AI's streams, and those that nobody wanted.
pub(super) type Chosen = ([Option<RtpStream>; 2], Vec<RtpStream>);

/// Takes the caller's and the AI's streams out of the captures: first those that are named, so that neither channel
/// is left with the other's. Of several streams of one SSRC it takes the largest. The rest is taken by sides, each whole.
pub(super) fn choose(captures: &mut [Vec<RtpStream>], ssrcs: &[Vec<u32>; 2]) -> anyhow::Result<Chosen> {
    let is_one = captures.len() == 1;
    let capture_of = |channel: Channel| if is_one { 0 } else { channel.index() };
    let mut chosen = [None, None];
    for channel in Channel::BOTH {
        let mut named = Vec::new();
        for &ssrc in &ssrcs[channel.index()] {
            let streams = &mut captures[capture_of(channel)];
            let Some(index) = largest(streams, |stream| stream.ssrc == ssrc) else {
                let there: Vec<String> = streams.iter().map(describe).collect();
                bail!("no rtp stream for {channel} has ssrc {ssrc:#010x}; there is: {}", there.join("; "));
            };
            named.push(streams.remove(index));
        }
        named.sort_by_key(|stream| times(stream).next());
        chosen[channel.index()] = join(named);
    }
    for capture in captures.iter_mut() {
        *capture = sides(std::mem::take(capture));
    }
    for channel in Channel::BOTH {
        let streams = &mut captures[capture_of(channel)];
        if chosen[channel.index()].is_some() || streams.is_empty() {
            continue;
        }
        let other = chosen[1 - channel.index()].as_ref().filter(|_| is_one);
        let answer = other.and_then(|other| answer_to(other, streams));
        let index = match is_one {
            true => answer.unwrap_or(0),
            false => largest(streams, |_| true).unwrap_or(0),
        };
        chosen[channel.index()] = Some(streams.remove(index));
    }
    Ok((chosen, captures.iter_mut().flat_map(std::mem::take).collect()))
}

/// Finds the side that talks to another: between the same addresses, else between the same hosts.
fn answer_to(other: &RtpStream, sides: &[RtpStream]) -> Option<usize> {
    let host = |address: &str| address.rsplit_once(':').map(|(host, _)| host.to_owned());
    let is_exact = |side: &RtpStream| side.source == other.destination && side.destination == other.source;
    let is_of_hosts = |side: &RtpStream| {
        host(&side.source) == host(&other.destination) && host(&side.destination) == host(&other.source)
    };
    sides.iter().position(is_exact).or_else(|| sides.iter().position(is_of_hosts))
}

/// Finds the stream with the most packets, the first of several.
fn largest(streams: &[RtpStream], is_meant: impl Fn(&RtpStream) -> bool) -> Option<usize> {
    let meant = streams.iter().enumerate().filter(|(_, stream)| is_meant(stream));
    meant.max_by_key(|(index, stream)| (stream.packets.len(), Reverse(*index))).map(|(index, _)| index)
}

/// Tells of a stream in a line.
pub(super) fn describe(stream: &RtpStream) -> String {
    let types: Vec<String> = stream.payload_types.keys().map(u8::to_string).collect();
    let RtpStream { ssrc, later_ssrcs, source, destination, packets, .. } = stream;
    let (types, packets) = (types.join(" and "), packets.len());
    let later =
        if later_ssrcs.is_empty() { String::new() } else { format!(" and {} more", later_ssrcs.len()) };
    format!(
        "ssrc {ssrc:#010x}{later} from {source} to {destination}, {packets} packets of payload type {types}"
    )
}
