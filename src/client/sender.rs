//! The sender for gateways: takes copies of packets, and never makes the media thread wait.
//!
//! Each call here copies its frame into the [`Backlog`] and returns; a task of its own sends it. What came within
//! [`GATHER`] goes out in one piece, over a byte stream in one system call. Nobody waits for the daemon: one that is slow,
//! stopped or gone costs memory up to the limit, then audio, and each frame that is given up is counted.
//!
//! A link is used from the first answered PING on, until it breaks. Then it is opened again after [`WAIT_MIN`], twice
//! that, up to [`WAIT_MAX`], and what the daemon may not have is sent once more. Over UDP nothing breaks: there a daemon
//! that has not answered for [`SILENCE`] is asked by PINGs, in the same rhythm, until it does.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use super::backlog::{Backlog, Counters, Pace};
use super::link::{Endpoint, FRAME_MAX_BYTES, Link, ping};
use crate::config::Secret;
use crate::frame::{Message, PauseMode, encode};
use crate::id::{Channel, ConnectionId, Scope};
use crate::io::clock::Clock;
use crate::time::Wall;

/// How long frames are gathered before they are sent together. A gateway that is killed loses as much.
const GATHER: Duration = Duration::from_millis(10);
/// The first wait before a link is opened again. A daemon starts in less than a second.
const WAIT_MIN: Duration = Duration::from_millis(50);
/// The longest. A restarted daemon waits `AUDIO_RESUME_SECS`, 15 by default, for its gateways.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How long a PING over datagrams may have no answer: longer than a daemon waits for a slow disk.
const SILENCE: Duration = Duration::from_secs(2);
/// How often datagrams are asked for, while a restart in between would cost some.
const BEAT: Duration = Duration::from_millis(100);
/// Over a byte stream the kernel holds some 200 kB; more on its way would only wait there.
const STREAM: Pace = Pace {
    batch_frames: usize::MAX,
    batch_bytes: 64 * 1024,
    unconfirmed_frames: usize::MAX,
    unconfirmed_bytes: 256 * 1024,
    beat: None,
};
/// Datagrams beyond what the smallest receive buffer holds would be lost: see [`super::tap_client`].
const DATAGRAMS: Pace = Pace {
    batch_frames: 16,
    batch_bytes: usize::MAX,
    unconfirmed_frames: 48,
    unconfirmed_bytes: usize::MAX,
    beat: Some(BEAT),
};

/// How to reach a daemon, and what may be kept for it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens. A byte stream is the one to take on one machine: nothing is lost there.
    pub endpoint: Endpoint,
    /// Its `AUDIO_TAP_KEY`, which frames over UDP must be signed with, where it has one.
    pub key: Option<Secret>,
    /// The most that frames may take which it has not surely got. 64 MiB are some minutes of ten calls.
    pub queue_bytes: usize,
}

/// A handle to hand frames over by. It can be cloned; when the last one is dropped, sending ends as it stands.
#[derive(Clone, Debug)]
pub struct Sender {
    shared: Arc<Shared>,
    _stop: Arc<DropGuard>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is something to send.
    wake: Notify,
    /// The daemon has confirmed something.
    confirmed: Notify,
}

#[derive(Debug)]
struct State {
    backlog: Backlog,
    /// How many RTP packets were handed over of each channel of each open call.
    handed_over: HashMap<ConnectionId, [u64; 2]>,
}

impl Options {
    /// 64 MiB for the daemon at `endpoint`, which has no key.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, key: None, queue_bytes: 64 * 1024 * 1024 }
    }
}

impl Sender {
    /// Begins to look for the daemon, and to take frames for it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let backlog = Backlog::new(options.queue_bytes);
        let state = Mutex::new(State { backlog, handed_over: HashMap::new() });
        let shared = Arc::new(Shared { state, wake: Notify::new(), confirmed: Notify::new() });
        let stop = CancellationToken::new();
        let run = run(Arc::clone(&shared), options);
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(run).await });
        Self { shared, _stop: Arc::new(stop.drop_guard()) }
    }

    /// Hands over an RTP packet that the gateway received (caller) or sent (ai) now.
    pub fn rtp(&self, call: &ConnectionId, channel: Channel, packet: &[u8]) {
        self.rtp_at(call, channel, packet, Clock::start().wall());
    }

    /// The same, of a packet received or sent at another time.
    pub fn rtp_at(&self, call: &ConnectionId, channel: Channel, packet: &[u8], at: Wall) {
        let frame = encode(Message::Rtp.kind(), Scope::Channel(channel), Some(at), call, packet);
        let mut state = self.shared.lock();
        match state.handed_over.get_mut(call) {
            Some(counts) => counts[channel.index()] += 1,
            None => {
                let counts = if channel == Channel::Caller { [1, 0] } else { [0, 1] };
                state.handed_over.insert(call.clone(), counts);
            }
        }
        state.push(frame);
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Hands over a compound RTCP packet.
    pub fn rtcp(&self, call: &ConnectionId, channel: Channel, packet: &[u8]) {
        self.push(&Message::Rtcp, Scope::Channel(channel), call, packet);
    }

    /// Says what a call is: its `conversation_id`, `payload_types` and the like. The first META or RTP opens it.
    pub fn meta(&self, call: &ConnectionId, scope: Scope, meta: Map<String, Value>) {
        self.object(Message::Meta, scope, call, meta);
    }

    /// Marks a moment of a call by a name, and any further fields.
    pub fn mark(&self, call: &ConnectionId, scope: Scope, name: &str, mut fields: Map<String, Value>) {
        fields.insert("name".to_owned(), name.into());
        self.object(Message::Mark, scope, call, fields);
    }

    /// Keeps what comes after out of the recording, until [`Sender::resume`].
    pub fn pause(&self, call: &ConnectionId, scope: Scope, mode: PauseMode) {
        let body: &[u8] = match mode {
            PauseMode::Silence => br#"{"mode":"silence"}"#,
            PauseMode::Cut => br#"{"mode":"cut"}"#,
        };
        self.push(&Message::Pause(mode), scope, call, body);
    }

    /// Ends a pause.
    pub fn resume(&self, call: &ConnectionId, scope: Scope) {
        self.push(&Message::Resume, scope, call, b"");
    }

    /// Says that the AI was interrupted: what is queued of it will not be heard.
    pub fn clear(&self, call: &ConnectionId) {
        self.push(&Message::Clear, Scope::Channel(Channel::Ai), call, b"");
    }

    /// Ends both channels of a call, and says how many RTP packets were handed over on each, so that the manifest
    /// tells what was lost between here and the daemon. Each call needs it.
    pub fn end(&self, call: &ConnectionId) {
        let at = Some(Clock::start().wall());
        let mut state = self.shared.lock();
        let counts = state.handed_over.remove(call).unwrap_or_default();
        for channel in Channel::BOTH {
            let sent = counts[channel.index()];
            let end = Message::End { sent: Some(sent) };
            state.push(encode(end.kind(), Scope::Channel(channel), at, call, &sent.to_be_bytes()));
        }
        drop(state);
        self.shared.wake.notify_one();
    }

    /// What has become of the frames so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.lock().backlog.counters()
    }

    /// Waits until the daemon has read all that was handed over, and says whether it has within `patience`. A gateway
    /// that stops asks this last.
    pub async fn settle(&self, patience: Duration) -> bool {
        let settled = async {
            loop {
                let confirmed = self.shared.confirmed.notified();
                tokio::pin!(confirmed);
                // Before looking, so that what is confirmed in between wakes it.
                confirmed.as_mut().enable();
                if self.shared.lock().backlog.is_settled() {
                    return;
                }
                confirmed.await;
            }
        };
        tokio::time::timeout(patience, settled).await.is_ok()
    }

    fn object(
        &self,
        message: fn(Map<String, Value>) -> Message,
        scope: Scope,
        call: &ConnectionId,
        object: Map<String, Value>,
    ) {
        let body = serde_json::to_vec(&object).expect("a map of values is JSON");
        self.push(&message(object), scope, call, &body);
    }

    fn push(&self, message: &Message, scope: Scope, call: &ConnectionId, body: &[u8]) {
        let frame = encode(message.kind(), scope, Some(Clock::start().wall()), call, body);
        self.shared.lock().push(frame);
        self.shared.wake.notify_one();
    }
}

impl Shared {
    /// Nothing is done under this lock but moving frames.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, frame: Vec<u8>) {
        if frame.len() > FRAME_MAX_BYTES {
            self.backlog.refuse();
        } else {
            self.backlog.push(frame);
        }
    }
}

/// Opens a link, uses it until it breaks, and begins anew.
async fn run(shared: Arc<Shared>, options: Options) {
    let endpoint = &options.endpoint;
    let mut wait = WAIT_MIN;
    loop {
        let used = match Link::open(endpoint, options.key.as_ref()).await {
            Ok(link) => converse(&shared, endpoint, link, &mut wait).await,
            Err(error) => error,
        };
        let was_connected = shared.lock().backlog.break_off();
        if was_connected {
            warn!(%endpoint, error = %used, "sidetape is gone, frames are queued");
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(WAIT_MAX);
    }
}

/// Sends what there is and reads the answers, until the link breaks. `wait` begins anew once the daemon has answered.
async fn converse(shared: &Shared, endpoint: &Endpoint, mut link: Link, wait: &mut Duration) -> io::Error {
    let is_lossy = endpoint.is_lossy();
    let pace = if is_lossy { DATAGRAMS } else { STREAM };
    let mut is_up = false;
    // When to ask whether somebody is there. Over a stream once is enough: the answer comes, or the link breaks.
    let mut ask_at = Some(Instant::now());
    let mut heard_at = Instant::now();
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        if is_up {
            loop {
                let batch = shared.lock().backlog.next_batch(pace, Instant::now());
                let Some(batch) = batch else { break };
                let ping = ping(batch.number);
                let frames = batch.frames.iter().map(|frame| &**frame).chain([&ping[..]]);
                if let Err(error) = link.send(frames).await {
                    return error;
                }
            }
            let since = shared.lock().backlog.unanswered_since();
            ask_at = since.filter(|_| is_lossy).map(|since| since.max(heard_at) + SILENCE);
        }
        let due = async {
            match ask_at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            answer = link.pong() => match answer {
                Ok(number) => {
                    *wait = WAIT_MIN;
                    heard_at = Instant::now();
                    shared.lock().backlog.confirm(number, heard_at, is_lossy);
                    shared.confirmed.notify_waiters();
                    if !is_up {
                        is_up = true;
                        shared.lock().backlog.connect();
                        info!(%endpoint, "sidetape answers");
                    }
                }
                Err(error) => return error,
            },
            () = shared.wake.notified(), if is_up => tokio::time::sleep(GATHER).await,
            // The next round of the loop looks whether one is due.
            _ = beat.tick(), if is_up && is_lossy => {}
            () = due => {
                if is_up {
                    is_up = false;
                    shared.lock().backlog.miss();
                    warn!(%endpoint, "sidetape does not answer, frames are queued");
                }
                let number = shared.lock().backlog.next_number();
                if let Err(error) = link.send(std::iter::once(&ping(number)[..])).await {
                    return error;
                }
                ask_at = is_lossy.then(|| Instant::now() + *wait);
                *wait = (*wait * 2).min(WAIT_MAX);
            }
        }
    }
}
