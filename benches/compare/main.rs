//! What it costs to finish a call, beside the programs that one would take instead: `cargo bench --bench compare`.
//!
//! All get an hour of the demo's call, both directions, and run in turn on one machine in the same minutes; each is a
//! process of its own, and what counts is its processor time as the kernel tells it, the median of [`ROUNDS`].
//!
//! | program | from | to |
//! | --- | --- | --- |
//! | sidetape, `lossless` and `compat` | the spool file | one stereo file, placed, with manifest and checksums |
//! | FFmpeg, the replaced command | one mono Ogg Opus file of each channel | one stereo file, decoded and encoded, not placed |
//! | FFmpeg at 64 kb/s, complexity 9 | the same | the same, as `compat` encodes |
//! | libopus alone | the packets in memory | two decoders, one encoder, no container: what `compat` cannot do without |
//! | opus-tools | the same files | WAV of each by opusdec, then opusenc of both, which are interleaved for it at no charge |
//! | GStreamer | a capture of each channel | pcapparse, rtpjitterbuffer, oggmux: two mono files, not placed |
//! | janus-pp-rec | an MJR file of each channel | two mono files, not placed |
//!
//! `-- once` takes one round, in some three minutes. `cargo bench --bench compare -- growth` says how the
//! cost grows with the length of the call, and draws `benches/growth-length.svg`.
#![allow(clippy::unwrap_used, reason = "a benchmark may fail")]
#![allow(clippy::cast_possible_truncation, reason = "counts of a benchmark are small")]

mod call;
#[path = "../machine/mod.rs"]
mod machine;
#[path = "../plot/mod.rs"]
mod plot;
mod used;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use opus::{Application, Bitrate, Channels, Decoder, Encoder};
use sidetape::config::RecordingFormat;
use sidetape::id::Channel;
use sidetape::io::render::{Options, render};

use call::Call;
use machine::{day_and_processor, said};
use plot::{Line, draw};
use used::{Used, run};

const HOUR_S: i64 = 3600;
const ROUNDS: usize = 3;
/// As `compat` has it.
const BITS_PER_SECOND: i32 = 64_000;
/// Lengths in seconds, up to the longest recording.
const LENGTHS_S: [i64; 7] = [1, 10, 60, 600, 3600, 7200, 14_400];
/// 20 ms at 48 kHz.
const FRAME: usize = 960;

/// The command that the recorder replaces.
const FILTER: &str = "[0:a]aresample=48000,pan=mono|c0=c0[left]; [1:a]aresample=48000,pan=mono|c0=c0[right]; \
     [left][right]join=inputs=2:channel_layout=stereo[aout]";

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // These are the processes that are measured.
        ["render", format, spool] => drop(rendered(Path::new(spool), format == "compat", false)),
        ["libopus", left, right] => transcode(Path::new(left), Path::new(right)),
        [] => compare(ROUNDS),
        ["once"] => compare(1),
        ["growth"] => growth(),
        _ => panic!("nothing, once, or growth"),
    }
}

/// Renders a spool file; returns the stereo file, and those of the channels if they are kept.
fn rendered(spool: &Path, is_compat: bool, keep_channels: bool) -> Vec<PathBuf> {
    let options = Options {
        tail: Duration::from_secs(2),
        ai_offset_ms: 0,
        keep_channels,
        longest: Duration::from_secs(14_400),
        format: if is_compat { RecordingFormat::Compat } else { RecordingFormat::Lossless },
        gains_db: [0.0; 2],
        masks_digits: false,
    };
    render(spool, &options).unwrap().files.into_iter().map(|file| file.path).collect()
}

/// Runs this program again, as a process of its own.
fn ours(words: &[&str]) -> Used {
    run(Command::new(std::env::current_exe().unwrap()).args(words)).unwrap()
}

/// The Opus packets of an Ogg file.
fn packets(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = ogg::PacketReader::new(fs::File::open(path).unwrap());
    std::iter::from_fn(|| reader.read_packet().unwrap()).skip(2).map(|packet| packet.data).collect()
}

/// What `compat` cannot do without: both channels decoded, and encoded as one.
fn transcode(left: &Path, right: &Path) {
    let channels = [packets(left), packets(right)];
    let decoded = channels.map(|packets| {
        let mut decoder = Decoder::new(48_000, Channels::Mono).unwrap();
        let mut samples = vec![0.0; packets.len() * 6 * FRAME];
        let mut at = 0;
        for packet in &packets {
            at += decoder.decode_float(packet, &mut samples[at..], false).unwrap();
        }
        samples.truncate(at);
        samples
    });
    let mut encoder = Encoder::new(48_000, Channels::Stereo, Application::Audio).unwrap();
    encoder.set_bitrate(Bitrate::Bits(BITS_PER_SECOND)).unwrap();
    let (mut woven, mut packet, mut bytes) = (vec![0.0; 2 * FRAME], vec![0; 4000], 0);
    for (left, right) in decoded[0].chunks_exact(FRAME).zip(decoded[1].chunks_exact(FRAME)) {
        for (pair, (left, right)) in woven.chunks_exact_mut(2).zip(left.iter().zip(right)) {
            pair.copy_from_slice(&[*left, *right]);
        }
        bytes += encoder.encode_float(&woven, &mut packet).unwrap();
    }
    assert!(bytes > 0);
}

/// A program that is tried: what it is called, what it makes, and how it is run.
struct Peer<'p> {
    name: &'static str,
    outputs: Vec<PathBuf>,
    run: Box<dyn Fn() -> Result<Used, String> + 'p>,
}

fn compare(rounds: usize) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let call = Call::of(HOUR_S);
    let spool = at("call.spool");
    call.write_spool(&spool);
    let files = rendered(&spool, false, true);
    let (stereo, left, right) = (files[0].clone(), at("left.opus"), at("right.opus"));
    fs::copy(&files[1], &left).unwrap();
    fs::copy(&files[2], &right).unwrap();
    let lossless_bytes = size(&stereo);
    for (channel, name) in [(Channel::Caller, "left"), (Channel::Ai, "right")] {
        call.write_mjr(channel, &at(&format!("{name}.mjr")));
        call.write_pcap(channel, &at(&format!("{name}.pcap")));
    }
    let woven = at("woven.wav");
    let has_tools = weave(&left, &right, dir.path(), &woven);

    let ffmpeg = |more: &'static [&'static str], out: PathBuf| {
        let (left, right) = (left.clone(), right.clone());
        move || {
            let mut command = Command::new("ffmpeg");
            command.args(["-v", "error", "-nostdin", "-y", "-i"]).arg(&left).arg("-i").arg(&right);
            command
                .args(["-filter_complex", FILTER, "-map", "[aout]", "-c:a", "libopus"])
                .args(more)
                .arg(&out);
            run(&mut command)
        }
    };
    let each = |of: &dyn Fn(&str) -> Command| {
        let used = ["left", "right"].map(|name| run(&mut of(name)));
        let [left, right] = used;
        Ok(left?.then(right?))
    };
    let spool_text = spool.to_str().unwrap();
    let (joined, joined_64) = (at("ffmpeg.opus"), at("ffmpeg64.opus"));
    let peers = [
        Peer {
            name: "sidetape, `lossless`",
            outputs: vec![stereo.clone()],
            run: Box::new(|| Ok(ours(&["render", "lossless", spool_text]))),
        },
        Peer {
            name: "FFmpeg, the replaced command",
            outputs: vec![joined.clone()],
            run: Box::new(ffmpeg(&[], joined.clone())),
        },
        Peer {
            name: "GStreamer",
            outputs: vec![at("left.gst.opus"), at("right.gst.opus")],
            run: Box::new(|| {
                each(&|name| {
                    let mut command = Command::new("gst-launch-1.0");
                    let pipeline = format!(
                        "-q filesrc location={0}.pcap ! pcapparse ! application/x-rtp,media=audio,clock-rate=48000,encoding-name=OPUS,payload=111 \
                         ! rtpjitterbuffer mode=none ! rtpopusdepay ! opusparse ! oggmux ! filesink location={0}.gst.opus",
                        at(name).display()
                    );
                    command.args(pipeline.split_whitespace());
                    command
                })
            }),
        },
        Peer {
            name: "janus-pp-rec",
            outputs: vec![at("left.janus.opus"), at("right.janus.opus")],
            run: Box::new(|| {
                each(&|name| {
                    let mut command = Command::new("janus-pp-rec");
                    command.arg(at(&format!("{name}.mjr"))).arg(at(&format!("{name}.janus.opus")));
                    command
                })
            }),
        },
        Peer {
            name: "sidetape, `compat`",
            outputs: vec![stereo.clone()],
            run: Box::new(|| Ok(ours(&["render", "compat", spool_text]))),
        },
        Peer {
            name: "FFmpeg, 64 kb/s, complexity 9",
            outputs: vec![joined_64.clone()],
            run: Box::new(ffmpeg(
                &["-b:a", "64k", "-compression_level", "9", "-application", "audio"],
                joined_64.clone(),
            )),
        },
        Peer {
            name: "libopus alone",
            outputs: Vec::new(),
            run: Box::new(|| Ok(ours(&["libopus", left.to_str().unwrap(), right.to_str().unwrap()]))),
        },
        Peer {
            name: "opus-tools",
            outputs: vec![at("tools.opus")],
            run: Box::new(|| {
                let decoded =
                    each(&|name| opusdec(&at(&format!("{name}.opus")), &at(&format!("{name}.wav"))))?;
                let mut encode = Command::new("opusenc");
                encode.args(["--quiet", "--bitrate", "64", "--comp", "9"]).arg(&woven).arg(at("tools.opus"));
                has_tools.clone()?;
                Ok(decoded.then(run(&mut encode)?))
            }),
        },
    ];

    let mut runs: Vec<Vec<Used>> = peers.iter().map(|_| Vec::new()).collect();
    let (mut bytes, mut missing) = (vec![0; peers.len()], vec![String::new(); peers.len()]);
    for _ in 0..rounds {
        for (n, peer) in peers.iter().enumerate() {
            match (peer.run)() {
                Ok(used) => {
                    runs[n].push(used);
                    bytes[n] = peer.outputs.iter().map(|path| size(path)).sum();
                }
                Err(why) => missing[n] = why,
            }
        }
    }
    print_head(&call);
    println!("| program | processor time | by the clock | memory | bytes |\n| --- | --- | --- | --- | --- |");
    let mut medians = Vec::new();
    for (((peer, runs), bytes), missing) in peers.iter().zip(runs).zip(&bytes).zip(&missing) {
        if runs.is_empty() {
            println!("| {} | {missing} | | | |", peer.name);
            medians.push(f64::NAN);
            continue;
        }
        let used = Used::median(runs);
        // What is lossless, or encoded at more than half of the rate, cannot be so short.
        if !peer.outputs.is_empty() && *bytes < call.opus_bytes() / 2 {
            println!("| {} | made {bytes} bytes of it, which is no recording | | | |", peer.name);
            medians.push(f64::NAN);
            continue;
        }
        let bytes = if *bytes == 0 { String::new() } else { bytes.to_string() };
        println!(
            "| {} | {:.3} s | {:.2} s | {:.0} MiB | {bytes} |",
            peer.name, used.cpu_s, used.wall_s, used.peak_mib
        );
        medians.push(used.cpu_s);
    }
    let opus_bytes = call.opus_bytes();
    println!("\n| goal | | wanted |\n| --- | --- | --- |");
    let over = |over: f64, under: f64| (over.is_finite() && under > 0.0).then_some(over / under);
    let goal = |what: &str, found: Option<f64>, digits: usize, wanted: &str| match found {
        Some(found) => println!("| {what} | {found:.digits$} | {wanted} |"),
        None => println!("| {what} | not measured, see above | {wanted} |"),
    };
    let lossless = lossless_bytes as f64;
    goal("`lossless`, FFmpeg's time over ours", over(medians[1], medians[0]), 0, "at least 1,000");
    goal("its size over that of FFmpeg's file", over(lossless, bytes[1] as f64), 2, "at most 0.5");
    goal("its size over that of the received Opus", over(lossless, opus_bytes as f64), 3, "at most 1.02");
    let dense = dense_overhead(&at("dense.spool"));
    goal("the same where both sides send all the time", Some(dense), 3, "at most 1.02");
    goal("`compat`, FFmpeg's time over ours", over(medians[5], medians[4]), 2, "at least 1.3");
    goal("`compat`, our time over that of libopus alone", over(medians[4], medians[6]), 3, "at most 1.05");
}

/// The size of the recording over that of the received Opus, of a call in which neither side pauses.
fn dense_overhead(spool: &Path) -> f64 {
    let call = Call::dense(HOUR_S);
    call.write_spool(spool);
    size(&rendered(spool, false, false)[0]) as f64 / call.opus_bytes() as f64
}

fn opusdec(from: &Path, to: &Path) -> Command {
    let mut command = Command::new("opusdec");
    command.args(["--quiet", "--rate", "48000"]).arg(from).arg(to);
    command
}

/// Makes one WAV of both channels, for who cannot; or says what is missing of opus-tools.
fn weave(left: &Path, right: &Path, dir: &Path, to: &Path) -> Result<(), String> {
    let pcm = |from: &Path, name: &str| {
        let path = dir.join(name);
        run(&mut opusdec(from, &path))?;
        let made = fs::read(path).map_err(|error| format!("opusdec: made no file ({error})"))?;
        // 44 bytes of header, 16-bit samples.
        let samples = made.get(44..).ok_or("opusdec: made a file without sound")?;
        Ok::<_, String>(samples.to_vec())
    };
    let (left, right) = (pcm(left, "l.wav")?, pcm(right, "r.wav")?);
    let samples: Vec<u8> =
        left.chunks_exact(2).zip(right.chunks_exact(2)).flat_map(|(l, r)| [l, r].concat()).collect();
    let mut wav = b"RIFF".to_vec();
    wav.extend((36 + samples.len() as u32).to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0\x02\0");
    wav.extend(48_000u32.to_le_bytes());
    wav.extend((48_000u32 * 4).to_le_bytes());
    wav.extend(b"\x04\0\x10\0data");
    wav.extend((samples.len() as u32).to_le_bytes());
    wav.extend(samples);
    fs::write(to, wav).unwrap();
    Ok(())
}

/// The size of a file, 0 if it was not made.
fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

fn growth() {
    let dir = tempfile::tempdir().unwrap();
    print_head(&Call::of(1));
    println!(
        "| length | packets | `lossless` | a second of call | memory |\n| --- | --- | --- | --- | --- |"
    );
    let (mut times, mut memory) = (Vec::new(), Vec::new());
    for seconds in LENGTHS_S {
        let (call, spool) = (Call::of(seconds), dir.path().join("call.spool"));
        call.write_spool(&spool);
        let runs = (0..ROUNDS).map(|_| ours(&["render", "lossless", spool.to_str().unwrap()])).collect();
        let used = Used::median(runs);
        println!(
            "| {seconds} s | {} | {:.1} ms | {:.1} µs | {:.1} MiB |",
            call.packets(),
            used.cpu_s * 1e3,
            used.cpu_s * 1e6 / seconds as f64,
            used.peak_mib
        );
        times.push((seconds as f64, used.cpu_s * 1e3));
        memory.push((seconds as f64, used.peak_mib));
    }
    draw(
        Path::new("benches/growth-length.svg"),
        "Finishing a call in the format lossless",
        "length of the call in seconds",
        &[Line { name: "processor time, ms", points: times }, Line { name: "memory, MiB", points: memory }],
    );
}

/// When and where, and with what.
fn print_head(call: &Call) {
    let begun = Instant::now();
    println!("{}", day_and_processor());
    for (program, arguments) in [
        ("ffmpeg", &["-version"][..]),
        ("gst-launch-1.0", &["--version"]),
        ("opusenc", &["--version"]),
        ("dpkg-query", &["--showformat=janus-tools ${Version}", "--show", "janus-tools"]),
    ] {
        if let Some(version) = said(program, arguments) {
            println!("- {version}");
        }
    }
    println!("- {} packets of Opus, {} bytes\n", call.packets(), call.opus_bytes());
    assert!(begun.elapsed() < Duration::from_secs(60));
}
