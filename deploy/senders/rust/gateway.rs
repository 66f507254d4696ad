//! A gateway as one would write it with webrtc-rs: RTP packets as its tracks give them, handed to sidetape.
//!
//!     cargo run --example gateway -- unix-stream:/run/sidetape/tap-stream.sock call-1 packets.txt
//!
//! A line of the file is a packet: `caller` or `ai`, milliseconds since the call began, the packet in hexadecimal digits.
//! `--faster N` plays it N times as fast, `--queue-bytes N` bounds the queue, `--stay` waits for the end of the input before
//! leaving. `AUDIO_TAP_KEY` is the daemon's key.

use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use rtp::packet::Packet;
use serde_json::json;
use sidetape::client::{Options, Sender};
use sidetape::config::Secret;
use sidetape::id::{Channel, ConnectionId, Scope};
use sidetape::time::Wall;
use webrtc_util::marshal::{Marshal as _, MarshalSize as _, Unmarshal as _};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// One call's way into the recording. In a gateway, `TrackRemote::read_rtp` gives the caller's packets, and what is
/// written to the local track are the AI's.
struct Tap {
    sender: Sender,
    call: ConnectionId,
    scratch: BytesMut,
}

impl Tap {
    /// On the media thread: copies the packet and returns.
    fn on_rtp(&mut self, channel: Channel, packet: &Packet, at: Wall) -> Result<()> {
        self.scratch.resize(packet.marshal_size(), 0);
        let length = packet.marshal_to(&mut self.scratch)?;
        self.sender.rtp_at(&self.call, channel, &self.scratch[..length], at);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || {
        arguments.next().ok_or("usage: gateway ENDPOINT CALL FILE [--faster N] [--queue-bytes N] [--stay]")
    };
    let (endpoint, call, file) = (next()?, next()?, next()?);
    let mut options = Options::new(endpoint.parse()?);
    options.key = std::env::var("AUDIO_TAP_KEY").ok().as_deref().map(Secret::new);
    let (mut faster, mut stays) = (1, false);
    while let Ok(flag) = next() {
        match flag.as_str() {
            "--faster" => faster = next()?.parse()?,
            "--stay" => stays = true,
            "--queue-bytes" => options.queue_bytes = next()?.parse()?,
            _ => return Err(format!("unknown flag {flag}").into()),
        }
    }

    let sender = Sender::start(options);
    let mut tap = Tap { sender: sender.clone(), call: ConnectionId::new(&call)?, scratch: BytesMut::new() };
    let meta = json!({"conversation_id": format!("{call} talks")});
    sender.meta(&tap.call, Scope::Whole, meta.as_object().ok_or("an object")?.clone());
    let (begun, begun_wall) = (Instant::now(), now());
    let mut longest = Duration::ZERO;
    for line in std::fs::read_to_string(file)?.lines() {
        let (channel, ms, packet) = parse(line)?;
        tokio::time::sleep_until((begun + Duration::from_millis(ms) / faster).into()).await;
        let handing_over = Instant::now();
        tap.on_rtp(channel, &packet, begun_wall.plus_us(i64::try_from(ms * 1000)?))?;
        longest = longest.max(handing_over.elapsed());
    }
    sender.end(&tap.call);
    println!("handed over");

    if stays {
        sender.settle(Duration::from_secs(60)).await;
        tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await?;
    }
    let is_settled = sender.settle(Duration::from_secs(60)).await;
    let counters = sender.counters();
    let told = json!({
        "longest_us": longest.as_micros(), "accepted": counters.accepted, "confirmed": counters.confirmed,
        "dropped": counters.dropped, "repeated": counters.repeated, "connects": counters.connects,
    });
    println!("{told}");
    if is_settled { Ok(()) } else { Err("the daemon has not confirmed all of it".into()) }
}

fn now() -> Wall {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_micros()).unwrap_or(0))
}

/// Reads a line of the file.
fn parse(line: &str) -> Result<(Channel, u64, Packet)> {
    let mut words = line.split_whitespace();
    let channel = match words.next() {
        Some("caller") => Channel::Caller,
        Some("ai") => Channel::Ai,
        _ => return Err(format!("no channel: {line}").into()),
    };
    let ms = words.next().ok_or("no time")?.parse()?;
    let digits = words.next().ok_or("no packet")?;
    let byte = |at| u8::from_str_radix(digits.get(at..at + 2).unwrap_or(""), 16);
    let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect::<std::result::Result<_, _>>()?;
    Ok((channel, ms, Packet::unmarshal(&mut Bytes::from(bytes))?))
}
