//! `sidetape replay`: the RTP of captures, sent to a running daemon as the two channels of one connection.
//!
//! [`plan`] decides everything: which RTP streams of the captures are the channels, and which frames say so at what
//! times. It does no I/O and is told the time. [`send`] then only sends, as fast as the daemon reads or as fast as
//! the call was. Frames carry the times of the capture, moved to begin now, and a recording is placed by those: it is
//! the same either way. RTCP in a capture is left out.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};

use crate::client::Endpoint;
use crate::client::tap_client::TapClient;
use crate::config::{Config, Secret, Settings, resolve};
use crate::frame::{Message, encode};
use crate::id::{CONNECTION_ID_MAX_BYTES, Channel, ConnectionId, Scope};
use crate::io::capture::{RtpStream, read_capture, rtp_streams};
use crate::io::clock::Clock;
use crate::rtpmap::Rtpmap;
use crate::time::Wall;

/// Sends the RTP of captures to a running daemon, as one call.
#[derive(clap::Args, Clone, Debug)]
pub struct Replay {
    /// Captures (pcap, pcapng, rtpdump, rtpproxy). Of one, the first two RTP streams are caller and AI; of two, the
    /// largest stream of the first and of the second
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
    /// The caller's stream, decimal or 0x and hexadecimal
    #[arg(long, value_name = "SSRC", value_parser = parse_ssrc)]
    caller_ssrc: Option<u32>,
    /// The AI's stream, decimal or 0x and hexadecimal
    #[arg(long, value_name = "SSRC", value_parser = parse_ssrc)]
    ai_ssrc: Option<u32>,
}

/// What a payload type means, on one channel or on both: one `--rtpmap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadTypeMap {
    scope: Scope,
    payload_type: u8,
    rtpmap: String,
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
    pub ssrcs: [Option<u32>; 2],
    /// True: the connection is not ended.
    pub is_left_open: bool,
}

/// Frames to send, and what there is to say about them.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The frames in the order of their time.
    pub frames: Vec<TimedFrame>,
    /// How many of them carry the caller's and the AI's RTP.
    pub packets: [u64; 2],
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
    /// A file that holds no RTP, an SSRC that is not in it, or a daemon that does not answer.
    pub async fn run(self) -> anyhow::Result<()> {
        let config = config_of_environment(self.to.is_some())?;
        let key = config.tap_key.clone();
        let to = self.to.map_or_else(|| endpoint_of(config), Ok)?;
        let files = self.files.iter().map(|path| load(path)).collect::<anyhow::Result<Vec<_>>>()?;
        let start = Clock::start().wall();
        let call = Call {
            connection: self.id.unwrap_or_else(|| named_after(&self.files[0], start)),
            start,
            conversation_id: self.conversation_id,
            rtpmaps: self.rtpmap,
            ssrcs: [self.caller_ssrc, self.ai_ssrc],
            is_left_open: self.no_end,
        };
        let plan = plan(files, &call)?;
        for stream in &plan.unused {
            eprintln!("not sent: {}; --caller-ssrc and --ai-ssrc choose", describe(stream));
        }
        let elapsed = send(&plan, &to, key.as_ref(), self.realtime).await?;
        let [caller, ai] = plan.packets;
        println!(
            "connection {}: sent {caller} packets of the caller and {ai} of the ai, {:.1} s of call in {:.1} s",
            call.connection,
            plan.span.as_secs_f64(),
            elapsed.as_secs_f64(),
        );
        Ok(())
    }
}

/// Plans a call out of the RTP streams of one capture or two, each ordered by the time of their first packets.
///
/// Two captures share a clock if their times overlap, else both begin at the same moment. META comes first, each
/// channel's END right after its last packet, and that of a channel without packets at the end of all.
///
/// # Errors
/// A capture without streams, or an SSRC that is in none.
pub fn plan(mut captures: Vec<Vec<RtpStream>>, call: &Call) -> anyhow::Result<Plan> {
    let is_one_clock = share_a_clock(&captures);
    let channels = choose(&mut captures, call.ssrcs)?;
    let begins = channels.each_ref().map(|stream| stream.as_ref().and_then(|stream| times(stream).min()));
    let common = begins.into_iter().flatten().min().unwrap_or(0);

    let mut frames = meta_frames(call);
    let mut packets = [0; 2];
    let mut ends = Vec::new();
    for channel in Channel::BOTH {
        let scope = Scope::Channel(channel);
        let begin = if is_one_clock { common } else { begins[channel.index()].unwrap_or(common) };
        let mut last = None;
        for packet in channels[channel.index()].iter().flat_map(|stream| &stream.packets) {
            let offset = Duration::from_micros(packet.at_us.abs_diff(begin));
            frames.push(call.frame(&Message::Rtp, scope, offset, &packet.payload));
            packets[channel.index()] += 1;
            last = last.max(Some(offset));
        }
        ends.push((channel, last));
    }
    let span = ends.iter().filter_map(|&(_, last)| last).max().unwrap_or_default();
    if !call.is_left_open {
        // Sorted by whether there are packets, so that what ends a silent channel is last of all.
        ends.sort_by_key(|&(_, last)| last.is_none());
        for (channel, last) in ends {
            let sent = packets[channel.index()];
            let end = Message::End { sent: Some(sent) };
            let scope = Scope::Channel(channel);
            frames.push(call.frame(&end, scope, last.unwrap_or(span), &sent.to_be_bytes()));
        }
    }
    // Stable: frames of one time stay in the order in which they were made.
    frames.sort_by_key(|frame| frame.offset);
    Ok(Plan { frames, packets, span, unused: captures.into_iter().flatten().collect() })
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
        ..Settings::default()
    };
    Ok(resolve(&settings)?)
}

/// Where a daemon listens, the first of UDP, byte stream and datagrams.
pub(super) fn endpoint_of(config: Config) -> anyhow::Result<Endpoint> {
    let udp = config.udp_listen.map(Endpoint::Udp);
    let endpoint = udp.or(config.unix_stream.map(Endpoint::UnixStream));
    endpoint.or(config.unix_dgram.map(Endpoint::UnixDatagram)).context("no address to send to")
}

/// Sends a plan, signed if there is a key, and returns how long that took, once the daemon has read all of it. A progress bar runs on standard
/// error meanwhile, if that is a terminal.
///
/// # Errors
/// A daemon that does not answer.
pub async fn send(
    plan: &Plan,
    to: &Endpoint,
    key: Option<&Secret>,
    is_realtime: bool,
) -> anyhow::Result<Duration> {
    let begin = tokio::time::Instant::now();
    let mut client = TapClient::connect(to, key).await?;
    let frames = u64::try_from(plan.frames.len()).unwrap_or(u64::MAX);
    let style = ProgressStyle::with_template("sending the call {wide_bar} {pos} of {len} frames")
        .expect("the template is valid");
    let bar = ProgressBar::new(frames).with_style(style);
    for frame in &plan.frames {
        if is_realtime {
            tokio::time::sleep_until(begin + frame.offset).await;
        }
        client.send(&frame.bytes).await?;
        bar.inc(1);
    }
    client.confirm().await?;
    bar.finish();
    if !bar.is_hidden() {
        // The bar stays, and leaves the cursor behind it.
        eprintln!();
    }
    Ok(begin.elapsed())
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

/// Makes the META frames that a call needs: for both channels, then for each, as what comes later wins.
fn meta_frames(call: &Call) -> Vec<TimedFrame> {
    let mut frames = Vec::new();
    for scope in [Scope::Whole, Scope::Channel(Channel::Caller), Scope::Channel(Channel::Ai)] {
        let mut meta = Map::new();
        if scope == Scope::Whole {
            // Whoever replays a call wants it kept, also where the daemon keeps calls by consent alone.
            meta.insert("record".to_owned(), Value::Bool(true));
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
            frames.push(call.frame(&Message::Meta(meta), scope, Duration::ZERO, body.as_bytes()));
        }
    }
    frames
}

/// Takes the caller's and the AI's streams out of the captures: first those that are named, so that neither channel
/// is left with the other's. Of several streams of one SSRC it takes the largest.
fn choose(
    captures: &mut [Vec<RtpStream>],
    ssrcs: [Option<u32>; 2],
) -> anyhow::Result<[Option<RtpStream>; 2]> {
    let is_one = captures.len() == 1;
    let capture_of = |channel: Channel| if is_one { 0 } else { channel.index() };
    let mut chosen = [None, None];
    for channel in Channel::BOTH {
        let Some(ssrc) = ssrcs[channel.index()] else { continue };
        let streams = &mut captures[capture_of(channel)];
        let Some(index) = largest(streams, |stream| stream.ssrc == ssrc) else {
            let there: Vec<String> = streams.iter().map(describe).collect();
            bail!("no rtp stream for {channel} has ssrc {ssrc:#010x}; there is: {}", there.join("; "));
        };
        chosen[channel.index()] = Some(streams.remove(index));
    }
    for channel in Channel::BOTH {
        let streams = &mut captures[capture_of(channel)];
        if ssrcs[channel.index()].is_some() || streams.is_empty() {
            continue;
        }
        let index = if is_one { 0 } else { largest(streams, |_| true).unwrap_or(0) };
        chosen[channel.index()] = Some(streams.remove(index));
    }
    Ok(chosen)
}

/// Finds the stream with the most packets, the first of several.
fn largest(streams: &[RtpStream], is_meant: impl Fn(&RtpStream) -> bool) -> Option<usize> {
    let meant = streams.iter().enumerate().filter(|(_, stream)| is_meant(stream));
    meant.max_by_key(|(index, stream)| (stream.packets.len(), Reverse(*index))).map(|(index, _)| index)
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

fn describe(stream: &RtpStream) -> String {
    let types: Vec<String> = stream.payload_types.keys().map(u8::to_string).collect();
    let RtpStream { ssrc, source, destination, packets, .. } = stream;
    let (types, packets) = (types.join(" and "), packets.len());
    format!("ssrc {ssrc:#010x} from {source} to {destination}, {packets} packets of payload type {types}")
}

fn load(path: &Path) -> anyhow::Result<Vec<RtpStream>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let datagrams = read_capture(&bytes).with_context(|| format!("cannot read {}", path.display()))?;
    let streams = rtp_streams(datagrams);
    if streams.is_empty() {
        bail!("no rtp stream of 3 packets or more in {}", path.display());
    }
    Ok(streams)
}

fn parse_ssrc(text: &str) -> anyhow::Result<u32> {
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
    use crate::frame::parse;
    use crate::io::capture::Datagram;

    const START: Wall = Wall(1_700_000_000_000_000);

    /// A stream of payload type 111 with packets at these times.
    fn stream(ssrc: u32, at_us: &[i64]) -> RtpStream {
        let packets = at_us.iter().zip(0_u8..).map(|(&at_us, n)| Datagram {
            at_us,
            source: "192.0.2.1:4000".to_owned(),
            destination: "192.0.2.2:5000".to_owned(),
            payload: vec![0x80, 111, 0, n, 0, 0, 0, 0, 0, 0, 0, n, ssrc.to_be_bytes()[3]],
        });
        let packets: Vec<Datagram> = packets.collect();
        let payload_types = [(111, packets.len())].into();
        RtpStream { ssrc, packets, payload_types, ..RtpStream::default() }
    }

    fn call() -> Call {
        Call {
            connection: ConnectionId::new("c").unwrap(),
            start: START,
            conversation_id: None,
            rtpmaps: Vec::new(),
            ssrcs: [None; 2],
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
    fn a_channel_without_packets_ends_last_and_with_none_sent() {
        let plan = plan(vec![vec![stream(1, &[0, 1])]], &call()).unwrap();
        assert_eq!(told_all(&plan)[3..], ["1 caller end 2", "1 ai end 0"]);
        let mut of_ai = call();
        of_ai.ssrcs[1] = Some(1);
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
    fn an_ssrc_that_is_not_there_is_refused_with_those_that_are() {
        let wrong = Call { ssrcs: [None, Some(0xabc)], ..call() };
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
