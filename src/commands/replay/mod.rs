//! `sidetape replay`: the RTP of captures, sent to a running daemon as the two channels of one connection.
//!
//! [`plan`] decides everything: which RTP streams of the captures are the channels, and which frames say so at what
//! times. It does no I/O and is told the time. `send.rs` then only sends, as fast as the daemon reads or as fast as
//! the call was. Frames carry the times of the capture, moved to begin now, and a recording is placed by those: it is
//! the same either way. RTCP in a capture is left out. A call that is longer than a recording may be, with a hold of hours
//! perhaps, is sent as several, one after the other, of one connection id: the daemon, to which all comes at once, could
//! not tell them apart.

mod arguments;
mod choose;
mod load;
mod send;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Map, Value};

use crate::client::Endpoint;
use crate::config::{Config, Faults, Settings, resolve};
use crate::frame::{Message, encode};
use crate::id::{CONNECTION_ID_MAX_BYTES, Channel, ConnectionId, Scope};
use crate::io::capture::{Datagram, RtpStream};
use crate::io::clock::Clock;
use crate::time::Wall;
pub use arguments::PayloadTypeMap;
use arguments::parse_ssrc;
use choose::{choose, describe};
use load::{load, told_cut};
pub use send::send;

/// Sends the RTP of captures to a running daemon, as one call.
#[derive(clap::Args, Clone, Debug)]
pub struct Replay {
    /// Captures (pcap, pcapng, rtpdump, rtpproxy). Of one, the side that is heard first is the caller, and the one that
    /// answers it the AI; of two, the largest side of the first and of the second
    #[arg(value_name = "FILE", required = true, num_args = 1..=2)]
    files: Vec<PathBuf>,
    /// Where the daemon listens: udp:HOST:PORT, unix-dgram:PATH or unix-stream:PATH [default: what AUDIO_UDP_LISTEN,
    /// AUDIO_UNIX_STREAM or AUDIO_UNIX_DGRAM say, as for the daemon]
    #[arg(long, value_name = "ENDPOINT")]
    to: Option<Endpoint>,
    /// The connection id [default: the first file's name and the time]
    #[arg(long, value_name = "ID", value_parser = ConnectionId::new)]
    id: Option<ConnectionId>,
    /// The conversation id, which names the recording
    #[arg(long, value_name = "ID")]
    conversation_id: Option<String>,
    /// What a payload type means, on both channels or on one, such as 99=L16/8000/2 or ai:96=opus/48000/2
    #[arg(long, value_name = "[caller:|ai:]PT=MAP")]
    rtpmap: Vec<PayloadTypeMap>,
    /// Send as fast as the call was, not as fast as the daemon reads
    #[arg(long)]
    realtime: bool,
    /// Leave the connection open
    #[arg(long)]
    no_end: bool,
    /// The caller's stream, decimal or 0x and hexadecimal; several for a side that changed it
    #[arg(long, value_name = "SSRC", value_parser = parse_ssrc)]
    caller_ssrc: Vec<u32>,
    /// The AI's stream, likewise
    #[arg(long, value_name = "SSRC", value_parser = parse_ssrc)]
    ai_ssrc: Vec<u32>,
}

/// What a replayed call is to be.
#[derive(Clone, Debug)]
pub struct Call {
    /// The connection id.
    pub connection: ConnectionId,
    /// When its first packet is said to have been received.
    pub start: Wall,
    /// The conversation id, if it has one.
    pub conversation_id: Option<String>,
    /// What payload types mean, where the defaults are wrong.
    pub rtpmaps: Vec<PayloadTypeMap>,
    /// The streams that are the caller and the AI, where that is not left to their order or size.
    pub ssrcs: [Vec<u32>; 2],
    /// The longest that a recording may be.
    pub longest: Duration,
    /// True: the connection is not ended.
    pub is_left_open: bool,
}

/// Frames to send, and what there is to say about them.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The frames in the order of their time.
    pub frames: Vec<TimedFrame>,
    /// Which of them begin another recording: what is before them has to be over.
    pub begins: Vec<usize>,
    /// How many of them carry the caller's and the AI's RTP.
    pub packets: [u64; 2],
    /// How many packets of the two are not sent, as the capture kept only their start.
    pub cut: [u64; 2],
    /// The time from the first packet to the last.
    pub span: Duration,
    /// RTP streams of the captures that are not sent.
    pub unused: Vec<RtpStream>,
}

/// A frame as it goes over the wire, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedFrame {
    /// The time since the first packet.
    pub offset: Duration,
    /// The frame.
    pub bytes: Vec<u8>,
}

impl Replay {
    /// Reads the captures, sends the call, and prints what was sent.
    ///
    /// # Errors
    /// A file that holds no RTP, an SSRC that is not in it, a daemon that does not answer; and packets of which the capture kept
    /// only the start, once the others are sent.
    pub async fn run(self) -> anyhow::Result<()> {
        let config = config_of_environment(self.to.is_some())?;
        let (linger, longest) = (config.linger, config.max_duration);
        let key = config.tap_key.clone();
        let to = self.to.map_or_else(|| endpoint_of(config), Ok)?;
        let files = self.files.iter().map(|path| load(path)).collect::<anyhow::Result<Vec<_>>>()?;
        let kept_bytes = files.iter().map(|file| file.kept_bytes).max().unwrap_or(0);
        let files = files.into_iter().map(|file| file.streams).collect();
        let start = Clock::start().wall();
        let call = Call {
            connection: self.id.unwrap_or_else(|| named_after(&self.files[0], start)),
            start,
            conversation_id: self.conversation_id,
            rtpmaps: self.rtpmap,
            ssrcs: [self.caller_ssrc, self.ai_ssrc],
            longest,
            is_left_open: self.no_end,
        };
        let plan = plan(files, &call)?;
        for stream in &plan.unused {
            eprintln!("not sent: {}; --caller-ssrc and --ai-ssrc choose", describe(stream));
        }
        if plan.packets == [0, 0] {
            bail!("{}", told_cut(plan.cut, kept_bytes));
        }
        let elapsed = send(&plan, &to, key.as_ref(), self.realtime, linger).await?;
        let [caller, ai] = plan.packets;
        if !plan.begins.is_empty() {
            let (recordings, hours) = (plan.begins.len() + 1, longest.as_secs_f64() / 3600.0);
            println!(
                "longer than a recording may be ({hours:.1} h): sent as {recordings}, of one connection id"
            );
        }
        println!(
            "connection {}: sent {caller} packets of the caller and {ai} of the ai, {:.1} s of call in {:.1} s",
            call.connection,
            plan.span.as_secs_f64(),
            elapsed.as_secs_f64(),
        );
        if plan.cut != [0, 0] {
            bail!("{}", told_cut(plan.cut, kept_bytes));
        }
        Ok(())
    }
}

/// Plans a call out of the RTP streams of one capture or two, each ordered by the time of their first packets.
///
/// Two captures share a clock if their times overlap, else both begin at the same moment. META comes first, each
/// channel's END right after its last packet, and that of a channel without packets at the end of all; and so for each
/// recording that the call is to make.
///
/// # Errors
/// A capture without streams, or an SSRC that is in none.
pub fn plan(mut captures: Vec<Vec<RtpStream>>, call: &Call) -> anyhow::Result<Plan> {
    let is_one_clock = share_a_clock(&captures);
    let (channels, unused) = choose(&mut captures, &call.ssrcs)?;
    let begins = channels.each_ref().map(|stream| stream.as_ref().and_then(|stream| times(stream).min()));
    let common = begins.into_iter().flatten().min().unwrap_or(0);

    let mut audio = Vec::new();
    let (mut packets, mut cut) = ([0; 2], [0; 2]);
    for channel in Channel::BOTH {
        let begin = if is_one_clock { common } else { begins[channel.index()].unwrap_or(common) };
        for packet in channels[channel.index()].iter().flat_map(|stream| &stream.packets) {
            if packet.is_cut {
                cut[channel.index()] += 1;
                continue;
            }
            let offset = Duration::from_micros(packet.at_us.abs_diff(begin));
            audio.push((offset, channel, packet));
            packets[channel.index()] += 1;
        }
    }
    // Stable: packets of one time stay in the order of the capture.
    audio.sort_by_key(|(offset, ..)| *offset);
    let span = audio.last().map_or(Duration::ZERO, |(offset, ..)| *offset);
    let (mut frames, mut begins) = (Vec::new(), Vec::new());
    let mut rest = &audio[..];
    loop {
        let begin = rest.first().map_or(Duration::ZERO, |(offset, ..)| *offset);
        let (part, after) =
            rest.split_at(rest.partition_point(|(offset, ..)| *offset - begin <= call.longest));
        let is_left_open = call.is_left_open && after.is_empty();
        frames.extend(part_frames(call, part, begin, !begins.is_empty(), is_left_open));
        rest = after;
        if rest.is_empty() {
            break;
        }
        begins.push(frames.len());
    }
    Ok(Plan { frames, begins, packets, cut, span, unused })
}

/// The frames of one recording, in the order of their time.
fn part_frames(
    call: &Call,
    part: &[(Duration, Channel, &Datagram)],
    begin: Duration,
    is_another: bool,
    is_left_open: bool,
) -> Vec<TimedFrame> {
    let mut frames = meta_frames(call, begin, is_another);
    let mut ends = Channel::BOTH.map(|channel| (channel, 0, None));
    for (offset, channel, packet) in part {
        let scope = Scope::Channel(*channel);
        frames.push(call.frame(&Message::Rtp, scope, *offset, &packet.payload));
        let (_, sent, last) = &mut ends[channel.index()];
        *sent += 1;
        *last = Some(*offset);
    }
    if !is_left_open {
        let span = part.last().map_or(begin, |(offset, ..)| *offset);
        // Sorted by whether there are packets, so that what ends a silent channel is last of all.
        ends.sort_by_key(|(_, _, last)| last.is_none());
        for (channel, sent, last) in ends {
            let end = Message::End { sent: Some(sent) };
            let scope = Scope::Channel(channel);
            frames.push(call.frame(&end, scope, last.unwrap_or(span), &u64::to_be_bytes(sent)));
        }
    }
    // Stable: frames of one time stay in the order in which they were made.
    frames.sort_by_key(|frame| frame.offset);
    frames
}

/// What a daemon with this environment would be reached by: its addresses, unless another is given, and its key.
pub(super) fn config_of_environment(is_address_given: bool) -> anyhow::Result<Config> {
    let variable = |name| std::env::var(name).ok();
    let address = |name| if is_address_given { None } else { variable(name) };
    let settings = Settings {
        udp_listen: address("AUDIO_UDP_LISTEN"),
        unix_stream: address("AUDIO_UNIX_STREAM"),
        unix_dgram: address("AUDIO_UNIX_DGRAM"),
        allow_remote: variable("AUDIO_ALLOW_REMOTE"),
        tap_key: variable("AUDIO_TAP_KEY"),
        linger_ms: variable("AUDIO_LINGER_MS"),
        max_duration_secs: variable("AUDIO_MAX_DURATION_SECS"),
        ..Settings::default()
    };
    let config = resolve(&settings);
    let unknown = super::unknown_variables();
    if unknown.is_empty() {
        return Ok(config?);
    }
    let faults = config.err().unwrap_or_default().0;
    Err(Faults(faults.into_iter().chain(unknown).collect()).into())
}

/// Where a daemon listens, the first of UDP, byte stream and datagrams.
pub(super) fn endpoint_of(config: Config) -> anyhow::Result<Endpoint> {
    let udp = config.udp_listen.map(Endpoint::Udp);
    let endpoint = udp.or(config.unix_stream.map(Endpoint::UnixStream));
    endpoint.or(config.unix_dgram.map(Endpoint::UnixDatagram)).context("no address to send to")
}

/// Makes a connection id out of a file's name and a time: `demo-call-20260102-030405.678901`.
#[must_use]
pub fn named_after(file: &Path, now: Wall) -> ConnectionId {
    let (year, month, day, hour, minute, second) = now.civil();
    let us = now.0.rem_euclid(1_000_000);
    let time = format!("-{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}.{us:06}");
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let mut id: String = stem.chars().filter(|letter| !letter.is_control()).collect();
    id.truncate(id.floor_char_boundary(CONNECTION_ID_MAX_BYTES - time.len()));
    ConnectionId::new(&(id + &time)).expect("the name was cut to what an id may be")
}

impl Call {
    fn frame(&self, message: &Message, scope: Scope, offset: Duration, body: &[u8]) -> TimedFrame {
        let offset_us = i64::try_from(offset.as_micros()).unwrap_or(i64::MAX);
        let gateway = Some(self.start.plus_us(offset_us));
        TimedFrame { offset, bytes: encode(message.kind(), scope, gateway, &self.connection, body) }
    }
}

/// Makes the META frames that a recording needs: for both channels, then for each, as what comes later wins. Another
/// recording of the call has to ask for its connection to open again.
fn meta_frames(call: &Call, offset: Duration, is_another: bool) -> Vec<TimedFrame> {
    let mut frames = Vec::new();
    for scope in [Scope::Whole, Scope::Channel(Channel::Caller), Scope::Channel(Channel::Ai)] {
        let mut meta = Map::new();
        if scope == Scope::Whole {
            // Whoever replays a call wants it kept, also where the daemon keeps calls by consent alone.
            meta.insert("record".to_owned(), Value::Bool(true));
        }
        if scope == Scope::Whole && is_another {
            meta.insert("reopen".to_owned(), Value::from(true));
        }
        if let (Scope::Whole, Some(id)) = (scope, &call.conversation_id) {
            meta.insert("conversation_id".to_owned(), Value::from(id.as_str()));
        }
        let maps = call.rtpmaps.iter().filter(|map| map.scope == scope);
        let maps: Map<_, _> =
            maps.map(|map| (map.payload_type.to_string(), Value::from(map.rtpmap.as_str()))).collect();
        if !maps.is_empty() {
            meta.insert("payload_types".to_owned(), Value::Object(maps));
        }
        if !meta.is_empty() {
            let body = Value::Object(meta.clone()).to_string();
            frames.push(call.frame(&Message::Meta(meta), scope, offset, body.as_bytes()));
        }
    }
    frames
}

/// Whether the times of the captures are by one clock, as far as one can tell: they overlap.
fn share_a_clock(captures: &[Vec<RtpStream>]) -> bool {
    let ranges = captures.iter().filter_map(|streams| {
        let all = || streams.iter().flat_map(times);
        all().min().zip(all().max())
    });
    let (begins, ends): (Vec<i64>, Vec<i64>) = ranges.unzip();
    begins.iter().max() <= ends.iter().min()
}

fn times(stream: &RtpStream) -> impl Iterator<Item = i64> {
    stream.packets.iter().map(|packet| packet.at_us)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::parse;

    const START: Wall = Wall(1_700_000_000_000_000);

    /// A stream of payload type 111 with packets at these times.
    fn stream(ssrc: u32, at_us: &[i64]) -> RtpStream {
        let packets = at_us.iter().zip(0_u8..).map(|(&at_us, n)| Datagram {
            at_us,
            source: format!("192.0.2.1:{}", 4000 + ssrc),
            destination: format!("192.0.2.2:{}", 5000 + ssrc),
            payload: vec![0x80, 111, 0, n, 0, 0, 0, 0, 0, 0, 0, n, ssrc.to_be_bytes()[3]],
            is_cut: false,
        });
        let packets: Vec<Datagram> = packets.collect();
        let payload_types = [(111, packets.len())].into();
        let (source, destination) = (packets[0].source.clone(), packets[0].destination.clone());
        RtpStream { ssrc, source, destination, packets, payload_types, ..RtpStream::default() }
    }

    fn call() -> Call {
        Call {
            connection: ConnectionId::new("c").unwrap(),
            start: START,
            conversation_id: None,
            rtpmaps: Vec::new(),
            ssrcs: Default::default(),
            longest: Duration::from_secs(14_400),
            is_left_open: false,
        }
    }

    /// A frame as `time channel kind`, RTP with the last byte of its SSRC, END with its count, META with its text.
    fn told(frame: &TimedFrame) -> String {
        let parsed = parse(&frame.bytes).unwrap();
        let at_us = parsed.gateway.unwrap().0 - START.0;
        assert_eq!(u128::try_from(at_us).unwrap(), frame.offset.as_micros());
        let channel = match parsed.scope {
            Scope::Channel(channel) => channel.name(),
            Scope::Whole => "both",
        };
        let what = match parsed.message {
            Message::Rtp => format!("rtp {}", parsed.body[12]),
            Message::End { sent } => format!("end {}", sent.unwrap()),
            Message::Meta(meta) => Value::Object(meta).to_string(),
            other => panic!("{other:?} in a replay"),
        };
        format!("{at_us} {channel} {what}")
    }

    fn told_all(plan: &Plan) -> Vec<String> {
        plan.frames.iter().map(told).collect()
    }

    /// The streams of the caller and the AI, and those that are not sent.
    fn roles(captures: Vec<Vec<RtpStream>>, ssrcs: [Option<u32>; 2]) -> ([Option<u8>; 2], Vec<u32>) {
        let ssrcs = ssrcs.map(|ssrc| ssrc.into_iter().collect());
        let plan = plan(captures, &Call { ssrcs, ..call() }).unwrap();
        let role = |channel| {
            let frames = plan.frames.iter().map(|frame| parse(&frame.bytes).unwrap());
            let mut of_channel = frames.filter(|frame| frame.scope == Scope::Channel(channel));
            of_channel.find(|frame| frame.message == Message::Rtp).map(|frame| frame.body[12])
        };
        (Channel::BOTH.map(role), plan.unused.iter().map(|stream| stream.ssrc).collect())
    }

    #[test]
    fn frames_go_out_in_the_order_of_time_and_each_channel_ends_after_its_last() {
        let caller = stream(1, &[5_000, 25_000, 24_000]);
        let plan = plan(vec![vec![caller, stream(2, &[15_000, 35_000])]], &call()).unwrap();
        assert_eq!(
            told_all(&plan),
            [
                r#"0 both {"record":true}"#,
                "0 caller rtp 1",
                "10000 ai rtp 2",
                "19000 caller rtp 1",
                "20000 caller rtp 1",
                "20000 caller end 3",
                "30000 ai rtp 2",
                "30000 ai end 2",
            ]
        );
        assert_eq!((plan.packets, plan.span), ([3, 2], Duration::from_millis(30)));
    }

    #[test]
    fn a_packet_of_which_only_the_start_was_captured_is_counted_and_not_sent() {
        let mut caller = stream(1, &[0, 20_000, 40_000]);
        caller.packets[1].is_cut = true;
        let plan = plan(vec![vec![caller]], &call()).unwrap();
        assert_eq!(
            told_all(&plan)[1..],
            ["0 caller rtp 1", "40000 caller rtp 1", "40000 caller end 2", "40000 ai end 0"]
        );
        assert_eq!((plan.packets, plan.cut), ([2, 0], [1, 0]));
    }

    #[test]
    fn a_channel_without_packets_ends_last_and_with_none_sent() {
        let plan = plan(vec![vec![stream(1, &[0, 1])]], &call()).unwrap();
        assert_eq!(told_all(&plan)[3..], ["1 caller end 2", "1 ai end 0"]);
        let mut of_ai = call();
        of_ai.ssrcs[1] = vec![1];
        let plan = super::plan(vec![vec![stream(1, &[0, 1])]], &of_ai).unwrap();
        assert_eq!(told_all(&plan)[3..], ["1 ai end 2", "1 caller end 0"]);
    }

    #[test]
    fn a_connection_that_is_left_open_gets_no_end() {
        let left_open = Call { is_left_open: true, ..call() };
        let plan = plan(vec![vec![stream(1, &[0, 1])]], &left_open).unwrap();
        assert_eq!(told_all(&plan)[1..], ["0 caller rtp 1", "1 caller rtp 1"]);
    }

    #[test]
    fn what_there_is_to_say_comes_first_and_what_is_said_of_one_channel_after_what_is_said_of_both() {
        let options = ["ai:99=L16/16000", "99=L16/8000/2", "0=PCMA/8000"];
        let talkative = Call {
            conversation_id: Some("talk".to_owned()),
            rtpmaps: options.map(|option| option.parse().unwrap()).into(),
            ..call()
        };
        let plan = plan(vec![vec![stream(1, &[7])]], &talkative).unwrap();
        assert_eq!(
            told_all(&plan)[..3],
            [
                r#"0 both {"record":true,"conversation_id":"talk","payload_types":{"99":"L16/8000/2","0":"PCMA/8000"}}"#,
                r#"0 ai {"payload_types":{"99":"L16/16000"}}"#,
                "0 caller rtp 1",
            ]
        );
    }

    #[test]
    fn one_capture_gives_its_first_two_streams_and_two_give_their_largest() {
        let three = || vec![stream(1, &[0]), stream(2, &[1]), stream(3, &[2, 3])];
        assert_eq!(roles(vec![three()], [None, None]), ([Some(1), Some(2)], vec![3]));
        assert_eq!(roles(vec![three()], [None, Some(1)]), ([Some(2), Some(1)], vec![3]));
        assert_eq!(roles(vec![three()], [Some(3), None]), ([Some(3), Some(1)], vec![2]));
        let two = || vec![three(), vec![stream(4, &[0, 9]), stream(5, &[1, 9])]];
        assert_eq!(roles(two(), [None, None]), ([Some(3), Some(4)], vec![1, 2, 5]));
        assert_eq!(roles(two(), [Some(2), Some(5)]), ([Some(2), Some(5)], vec![1, 3, 4]));
    }

    #[test]
    fn the_ai_is_the_side_that_answers_the_caller_and_each_side_is_whole() {
        let between = |ssrc, at_us: &[i64], source: &str, destination: &str| {
            let (source, destination) = (source.to_owned(), destination.to_owned());
            RtpStream { source, destination, ..stream(ssrc, at_us) }
        };
        // A server between the two passes on what it gets: the second stream is the first again.
        let streams = || {
            vec![
                between(1, &[0, 20], "10.0.0.1:4000", "10.0.0.2:5000"),
                between(2, &[1, 21], "10.0.0.2:6000", "10.0.0.3:7000"),
                between(3, &[5, 25], "10.0.0.2:5000", "10.0.0.1:4000"),
                between(4, &[40, 60], "10.0.0.1:4000", "10.0.0.2:5000"),
            ]
        };
        assert_eq!(roles(vec![streams()], [None, None]), ([Some(1), Some(3)], vec![2]));
        let whole = plan(vec![streams()], &call()).unwrap();
        assert_eq!(whole.packets, [4, 2]);
        let named = Call { ssrcs: [vec![4, 1], vec![2]], ..call() };
        let named = plan(vec![streams()], &named).unwrap();
        assert_eq!((named.packets, named.unused.len()), ([4, 2], 1));
    }

    #[test]
    fn a_call_longer_than_a_recording_may_be_is_sent_as_several() {
        let hours = |count: i64| count * 3_600_000_000;
        let caller = stream(1, &[0, 20_000, hours(5), hours(5) + 20_000]);
        let ai = stream(2, &[10_000, hours(5) + 10_000, hours(8) + 10_000]);
        let plan = plan(vec![vec![caller, ai]], &call()).unwrap();
        let (five, eight) = (hours(5), hours(8) + 10_000);
        assert_eq!(
            told_all(&plan)[..6],
            [
                r#"0 both {"record":true}"#,
                "0 caller rtp 1",
                "10000 ai rtp 2",
                "10000 ai end 1",
                "20000 caller rtp 1",
                "20000 caller end 2"
            ]
        );
        let second = |text: &str, us: i64| format!("{} {text}", five + us);
        assert_eq!(
            told_all(&plan)[plan.begins[0]..plan.begins[0] + 6],
            [
                second(r#"both {"record":true,"reopen":true}"#, 0),
                second("caller rtp 1", 0),
                second("ai rtp 2", 10_000),
                second("caller rtp 1", 20_000),
                second("caller end 2", 20_000),
                format!("{eight} ai rtp 2"),
            ]
        );
        assert_eq!((plan.begins.len(), plan.packets), (1, [4, 3]));
        assert_eq!(told_all(&plan).last().unwrap(), &format!("{eight} ai end 2"));
    }

    #[test]
    fn an_ssrc_that_is_not_there_is_refused_with_those_that_are() {
        let wrong = Call { ssrcs: [Vec::new(), vec![0xabc]], ..call() };
        let error = plan(vec![vec![stream(1, &[0])]], &wrong).unwrap_err().to_string();
        assert!(
            error.starts_with("no rtp stream for ai has ssrc 0x00000abc; there is: ssrc 0x00000001 from")
        );
    }

    #[test]
    fn captures_that_overlap_share_a_clock_and_others_begin_together() {
        let at = |second: &[i64]| {
            let plan = plan(vec![vec![stream(1, &[100, 200])], vec![stream(2, second)]], &call()).unwrap();
            let ai = plan.frames.iter().filter(|frame| told(frame).contains("ai rtp"));
            ai.map(|frame| frame.offset.as_micros()).collect::<Vec<_>>()
        };
        assert_eq!(at(&[150, 400]), [50, 300]);
        assert_eq!(at(&[200, 400]), [100, 300]);
        assert_eq!(at(&[201, 401]), [0, 200]);
        assert_eq!(at(&[0, 50]), [0, 50]);
    }

    #[test]
    fn an_id_is_made_of_any_file_name() {
        let now = Wall(1_767_323_045_000_901);
        assert_eq!(named_after(Path::new("/a/x y.pcap"), now).as_str(), "x y-20260102-030405.000901");
        assert_eq!(named_after(Path::new("/"), now).as_str(), "-20260102-030405.000901");
        let long = named_after(Path::new(&format!("\n{}", "\u{e9}".repeat(127))), now);
        assert_eq!(long.as_str().len(), 127, "a letter of two bytes is not cut");
    }
}
