//! sidetape records calls. A voice gateway hands it a copy of every RTP packet of both directions over a local
//! socket; it leaves one stereo Ogg Opus file per call (left = caller, right = AI) and a manifest that says how far
//! to trust it. In the format `lossless` no Opus audio is decoded on the way.
//!
//! # The way of a packet
//! ```text
//!  datagram ─▶ frame ─▶ packet ─▶ connection ─▶ spool ─▶ ledger ─▶ timeline ─▶ recording ─▶ mux ─▶ publish
//!  io::udp     tap      RTP,      references,   durable  what the  48 kHz      both         one     name and
//!  io::unix    protocol RTCP      holds, sweep  log      spool     placement   channels     Ogg     store
//!                                                        says                  together     file
//! ```
//! Live, a packet goes as far as the spool: [`io::ingest`] is that path. When the connection has ended, [`io::finish`]
//! takes its spool file the rest of the way, through [`io::render`]: when, says [`io::outbox`], and where to,
//! [`io::store`]. Nothing else connects the two halves but the file; [`io::stretch`] and [`io::live`] read it while it is
//! still written.
//!
//! # The rooms
//! The core, in the order of the flow. A module imports only from above it, does no I/O, reads no clock, logs nothing;
//! `connection` and `spool` do not know each other. `tests/tidy.rs` checks all of this.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`time`], [`id`] | units of time; connection ids and channels |
//! | [`frame`], [`tap_key`] | bytes off the wire become types, once: the tap protocol, and whether a frame is genuine and new |
//! | [`packet`], [`red`], [`rtpmap`] | likewise RTP, copies in it, payload types |
//! | [`plain`] | plain RTP on ports of a call's own: whom to believe there, and the answer as SDP |
//! | [`opus`] | Opus packets as frames, split and joined without touching one |
//! | [`connection`] | one call's life as a state machine, its metadata, what a pause keeps out, and whether both sides are heard |
//! | [`spool`] | the durable log: its format, how to read around damage, and the names of its files |
//! | [`replay`] | a connection out of its spool file, and the file without what a pause takes out later |
//! | [`timeline`] | sequence numbers and timestamps unwrapped, packets placed on one 48 kHz clock |
//! | [`codec`] | G.711, G.722, L16 to samples; concealment; resampling to 48 kHz |
//! | [`sound`] | a channel as samples: decoded, concealed, resampled, each in its place |
//! | [`ledger`] | everything that a spool file says of its call, except the payloads |
//! | [`mux`] | the grid, the cells that both channels can fill, the Ogg pages |
//! | [`recording`] | both channels placed against each other, with marks and pauses |
//! | [`manifest`] | what the recording holds |
//! | [`picture`] | the same to look at: loudness over time, and what is missing, as SVG |
//! | [`publish`] | what the recording is called, and whose turn it is when many are to be made |
//! | [`config`], [`metrics`] | settings; counters, and the page of them that Prometheus reads |
//!
//! The shell, which has the sockets, disks, clocks, threads and the log: [`io`], [`daemon`], [`commands`]; and the other
//! end of the sockets, [`client`].
//!
//! # Durability, in steps
//! 1 append records to the spool file, 2 sync it now and then, 3 when the connection ends: seal, sync file and
//! directory, 4 render beside it, 5 put the audio into the store and compare size and checksum, 6 put the
//! manifest, 7 enter the catalogue (not built yet), 8 remove the spool file, sync the directory. Starting up runs the
//! same code from whatever step the disk shows. Where the spool's disk is full, step 4 is done elsewhere: `io::scratch`.
//!
//! What step 4 makes is not synced. It is a function of the spool, nothing reads it after a crash, and step 5 compares
//! what the store has with the sums that were taken while it was made. Most of it is gone before the disk would have
//! seen it, which halves what a call costs the disk.
//!
//! # Invariants
//! - Spool gone ⇒ audio and manifest are in the store.
//! - A final name never shows a partial file, and no file is ever overwritten.
//! - Every connection that was ever accepted ends in exactly one outcome.
//! - Rendering is a function of the spool file: the same file gives the same bytes.
//! - Nothing is dropped without a counter and a reason.
//! - Nothing received, read or configured can make the daemon panic.

pub mod client;
pub mod codec;
pub mod commands;
pub mod config;
pub mod connection;
pub mod daemon;
pub mod frame;
pub mod id;
pub mod io;
pub mod ledger;
pub mod manifest;
pub mod metrics;
pub mod mux;
pub mod opus;
pub mod packet;
pub mod picture;
pub mod plain;
pub mod publish;
pub mod recording;
pub mod red;
pub mod replay;
pub mod rtpmap;
pub mod sound;
pub mod spool;
pub mod tap_key;
pub mod time;
pub mod timeline;
