//! The daemon: what is started in which order, and how it is drained.
//!
//! Start: open and lock the spool, start its threads, list what it holds, bind the sockets, log each address, receive, and
//! beside that recover what was listed. Stop: refuse new connections, receive what the sockets still hold, recover what
//! frames have come for, close open connections or leave them to the next start, write and sync the spool, finish what is
//! closed and can be finished in the time allowed. What cannot stays in the spool for the next start, too. A drain goes on
//! with everything but new connections until no other is left, and is followed by a stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::config::{Config, Digits, OnStop, Recording};
use crate::connection::Rules;
use crate::io::awaited::Awaited;
use crate::io::backup::Backup;
use crate::io::clock::Clock;
use crate::io::descriptors::Shares;
use crate::io::finish::Finisher;
use crate::io::gate::Gate;
use crate::io::ingest::{Ingest, Limits, PACKETS_MAX};
use crate::io::recover::{groups, recover};
use crate::io::render::Options;
use crate::io::rtp_ports::RtpPorts;
use crate::io::scrape::Scrape;
use crate::io::spool_dir::SpoolDir;
use crate::io::spool_writer::SpoolWriter;
use crate::io::stop::Stopped;
use crate::io::store::Store;
use crate::io::{http, threads, udp, unix};
use crate::metrics::Metrics;
use crate::time::Mono;

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(20);
/// Deadlines that have not been looked at for so long are not looked at any more.
const PULSE_MAX: Duration = Duration::from_secs(5);
/// How often the free space of the spool's disk is looked at.
const WATCH_DISK_EVERY: Duration = Duration::from_secs(1);
/// Sealed connections that may wait for a place to be finished. More wait with the spool's writer.
const SEALED_MAX: usize = 4096;
/// The kernel's default length of a Unix datagram queue, at which a bursting gateway is made to wait.
const SHORT_QUEUE: u32 = 10;

/// The addresses on which frames are received.
#[derive(Clone, Debug, Default)]
pub struct Bound {
    /// UDP.
    pub udp: Option<SocketAddr>,
    /// Unix datagrams.
    pub unix_dgram: Option<PathBuf>,
    /// Unix byte streams.
    pub unix_stream: Option<PathBuf>,
    /// HTTP over TCP.
    pub http: Option<SocketAddr>,
}

/// Whether deadlines are looked at: what a watchdog asks.
#[derive(Clone, Debug)]
pub struct Pulse {
    clock: Clock,
    last_us: Arc<AtomicU64>,
}

impl Pulse {
    fn beat(&self) {
        self.last_us.store(self.clock.now().0, Ordering::Relaxed);
    }

    /// Whether the last look was less than five seconds ago.
    #[must_use]
    pub fn is_felt(&self) -> bool {
        let last = Mono(self.last_us.load(Ordering::Relaxed));
        self.clock.now().since(last) < PULSE_MAX
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    pulse: Pulse,
    bound: Bound,
    grace: Duration,
    on_stop: OnStop,
    ingest: Arc<Ingest>,
    /// Ends the receivers and timers.
    stop: CancellationToken,
    receivers: TaskTracker,
    /// Reads what an earlier process left.
    recovery: oneshot::Receiver<()>,
    end_recovery: CancellationToken,
    finisher: Arc<Finisher>,
    finishing: JoinHandle<()>,
    /// Ends the attempts to publish.
    give_up: CancellationToken,
}

/// The waiting times of connections that a configuration asks for.
#[must_use]
pub fn rules(config: &Config) -> Rules {
    Rules {
        linger: config.linger,
        retention: config.retention,
        resume: config.resume,
        max_duration: config.max_duration,
        is_recorded: config.recording == Recording::Always,
        masks_digits: config.digits == Digits::Mask,
    }
}

/// What a configuration says of recordings.
#[must_use]
pub fn options(config: &Config) -> Options {
    Options {
        tail: config.tail,
        ai_offset_ms: config.ai_offset_ms,
        keep_channels: config.keep_channels,
        longest: config.max_duration,
        format: config.format,
        gains_db: [config.left_gain_db, config.right_gain_db],
        masks_digits: config.digits == Digits::Mask,
    }
}

/// The finisher that a configuration asks for.
///
/// # Errors
/// Where the settings of its store cannot be used.
pub async fn finisher(config: &Config, metrics: Arc<Metrics>) -> anyhow::Result<Arc<Finisher>> {
    let store = Store::open(config.storage, &config.storage_path).await?;
    let backup = match config.backup_storage {
        Some(kind) => {
            let store = Store::open(kind, &config.backup_path).await.context("opening the backup storage")?;
            Some(Backup { store, after: config.backup_after })
        }
        None => None,
    };
    let finisher = Finisher::new(store, config.object_key.clone(), options(config), metrics);
    Ok(Arc::new(finisher.with_backup(backup)))
}

impl Daemon {
    /// Starts a daemon; when this returns, frames are received.
    ///
    /// # Errors
    /// Where the spool or an address cannot be had; the error says which, and why.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let spool = Arc::new(SpoolDir::open(&config.spool_dir)?);
        let clock = Clock::start();
        let metrics = Arc::new(Metrics::default());
        let (sealed, to_finish) = mpsc::channel(SEALED_MAX);
        let writer = SpoolWriter::start(spool.path(), config.spool_fsync, rules(&config), sealed.clone())
            .context("starting the spool's threads")?;
        let limits = Limits {
            is_recording: config.cache_enabled,
            max_connections: config.max_connections,
            rules: rules(&config),
            max_packets: PACKETS_MAX,
        };
        let gate = Gate::new(config.tap_key.as_ref());
        let found =
            groups(&spool).with_context(|| format!("listing the spool {}", spool.path().display()))?;
        let ingest = Ingest::new(limits, gate, clock, Arc::clone(&metrics), Arc::clone(&spool), writer);
        ingest.recall(&found);
        let ingest = ingest.awaiting(Awaited::new(found)).watching(config.silence_alert);
        let ingest = Arc::new(ingest);
        ingest.watch_disk(config.min_free_bytes);
        let (sockets, bound) = Sockets::bind(&config).await?;

        let give_up = CancellationToken::new();
        let finisher = finisher(&config, metrics).await.context("opening the storage")?;
        finisher.start_threads().context("starting the threads that finish recordings")?;
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&finisher).bring_back(spool.path().to_owned(), stop.clone()));
        let (watched, least) = (Arc::clone(&ingest), config.min_free_bytes);
        tokio::spawn(Arc::clone(&finisher).watch_store(watched, least, stop.clone()));
        let finishing = tokio::spawn(Arc::clone(&finisher).run(to_finish, give_up.clone()));
        let receivers = TaskTracker::new();
        let shares = Shares::of_this_process();
        let ports = config.rtp_ports.map(|range| {
            let (ingest, tasks) = (Arc::clone(&ingest), receivers.clone());
            RtpPorts::new(range, shares.port_calls, ingest, stop.clone(), tasks)
        });
        sockets.serve(&ingest, &config, ports.clone(), shares, &stop, &receivers)?;
        let pulse = Pulse { clock, last_us: Arc::default() };
        receivers.spawn(keep_time(
            Arc::clone(&ingest),
            pulse.clone(),
            stop.clone(),
            config.sweep_interval,
            config.min_free_bytes,
        ));
        receivers.close();
        let end_recovery = CancellationToken::new();
        let recovery = {
            let (ingest, end) = (Arc::clone(&ingest), end_recovery.clone());
            let recover = move || recover(&ingest, ports.as_ref(), spool.path(), limits.rules, &sealed, &end);
            // Not one of the runtime's, which whoever asks over HTTP may keep busy.
            threads::once("recovery", recover).context("starting the thread that recovers the spool")?
        };
        let (spool_dir, storage) = (config.spool_dir.display(), &config.storage_path);
        let (record, dtmf, on_stop) = config.in_force();
        info!(version = env!("CARGO_PKG_VERSION"), spool = %spool_dir, %storage, record, dtmf, on_stop, "ready");
        let (grace, on_stop) = (config.shutdown, config.on_stop);
        Ok(Self {
            pulse,
            bound,
            grace,
            on_stop,
            ingest,
            stop,
            receivers,
            recovery,
            end_recovery,
            finisher,
            finishing,
            give_up,
        })
    }

    /// The addresses on which frames are received.
    #[must_use]
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// What tells whether it works.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// What is received: how many connections are open, and how a drain is begun and waited for.
    #[must_use]
    pub fn ingest(&self) -> &Ingest {
        &self.ingest
    }

    /// Stops: leaves open connections to the next start or finalises them, as the configuration says, publishes what is
    /// sealed within the time allowed, and leaves the rest in the spool.
    ///
    /// # Errors
    /// Where a task has panicked.
    pub async fn shutdown(self) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + self.grace;
        self.finisher.stop_trials();
        self.stop.cancel();
        self.receivers.wait().await;
        self.end_recovery.cancel();
        self.recovery.await.context("recovering the spool")?;
        let Stopped { finalised, left_open } = self.ingest.shut_down(self.on_stop);
        match self.on_stop {
            _ if (finalised, left_open) == (0, 0) => {}
            OnStop::Resume => {
                info!(
                    connections = left_open,
                    finalised, "stopping, open connections go on at the next start"
                );
            }
            OnStop::Finish => info!(connections = finalised, "stopping, open connections are finalised"),
        }
        let metrics_summary = self.ingest.metrics().dropped_summary();
        let ingest = self.ingest;
        let stopped = threads::once("spool-stop", move || ingest.stop_writer());
        stopped.context("starting the thread that stops the spool")?.await.context("stopping the spool")?;
        let mut finishing = self.finishing;
        if tokio::time::timeout_at(deadline, &mut finishing).await.is_err() {
            warn!("time is up, what is not published stays in the spool for the next start");
            self.give_up.cancel();
            finishing.await.context("finishing recordings")?;
        }
        info!(dropped = metrics_summary, "stopped");
        Ok(())
    }
}

/// The sockets that a configuration asks for.
struct Sockets {
    udp: Option<std::net::UdpSocket>,
    datagram: Option<tokio::net::UnixDatagram>,
    stream: Option<unix::Door>,
    http: Option<http::Listener>,
}

impl Sockets {
    async fn bind(config: &Config) -> anyhow::Result<(Self, Bound)> {
        let mut bound = Bound::default();
        let mut sockets = Self { udp: None, datagram: None, stream: None, http: None };
        if let Some(address) = config.udp_listen {
            let socket = udp::bind(address).with_context(|| format!("listening on udp {address}"))?;
            let address = socket.local_addr().context("reading the udp address")?;
            info!(socket = "udp", %address, "listening");
            if is_open_to_others(address) && config.tap_key.is_none() {
                warn!(socket = "udp", %address, "anybody who reaches this port can forge frames, AUDIO_TAP_KEY prevents it");
            }
            bound.udp = Some(address);
            sockets.udp = Some(socket);
        }
        if let Some(path) = &config.unix_dgram {
            let socket = unix::bind_datagram(path);
            sockets.datagram =
                Some(socket.with_context(|| format!("listening on unix datagram {}", path.display()))?);
            let queue = unix::datagram_queue_length();
            info!(socket = "unix_dgram", path = %path.display(), queue, "listening");
            if queue.is_some_and(|length| length <= SHORT_QUEUE) {
                warn!(
                    queue,
                    "net.unix.max_dgram_qlen is short, a gateway that sends bursts will be made to wait"
                );
            }
            bound.unix_dgram = Some(path.clone());
        }
        if let Some(path) = &config.unix_stream {
            let socket = unix::bind_stream(path)
                .with_context(|| format!("listening on unix stream {}", path.display()))?;
            sockets.stream = Some(unix::Door::new(socket, config.unix_allow_uids.clone()));
            info!(socket = "unix_stream", path = %path.display(), "listening");
            bound.unix_stream = Some(path.clone());
        }
        if let Some(address) = &config.http_listen {
            let listener = http::bind(address, config.unix_allow_uids.clone())
                .await
                .with_context(|| format!("listening on http {address}"))?;
            match &listener {
                http::Listener::Tcp(listener) => {
                    let address = listener.local_addr().context("reading the http address")?;
                    info!(socket = "http", %address, "listening");
                    if is_open_to_others(address) && config.http_token.is_none() {
                        warn!(socket = "http", %address, "anybody who reaches this port can listen to calls and end them, AUDIO_HTTP_TOKEN prevents it");
                    }
                    bound.http = Some(address);
                }
                http::Listener::Unix(..) => info!(socket = "http", %address, "listening"),
            }
            sockets.http = Some(listener);
        }
        if let Some(range) = config.rtp_ports {
            let (address, low, high) = (range.host, range.low, range.high);
            info!(socket = "plain_rtp", %address, low, high, "ports are opened on demand");
            if is_open_to_others(SocketAddr::new(address, low)) {
                warn!(socket = "plain_rtp", %address, "anybody who reaches these ports can forge what is recorded, keep them in a network of your own");
            }
        }
        Ok((sockets, bound))
    }

    fn serve(
        self,
        ingest: &Arc<Ingest>,
        config: &Config,
        ports: Option<Arc<RtpPorts>>,
        shares: Shares,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> anyhow::Result<()> {
        if let Some(listener) = self.http {
            let inode = self.udp.as_ref().and_then(udp::inode);
            let scrape = Scrape::new(Arc::clone(ingest), config.min_free_bytes, inode);
            let desk = http::Desk::new(
                Arc::clone(ingest),
                options(config),
                config.http_token.clone(),
                scrape,
                ports,
            );
            let end = http::serve(listener, desk, shares.http, stop.clone());
            tasks.spawn(end.context("starting the threads that answer over HTTP")?);
        }
        if let Some(socket) = self.udp {
            let end = udp::serve(socket, Arc::clone(ingest), stop.clone());
            tasks.spawn(end.context("starting the thread that receives udp")?);
        }
        if let Some(socket) = self.datagram {
            tasks.spawn(unix::serve_datagrams(socket, Arc::clone(ingest), stop.clone()));
        }
        if let Some(door) = self.stream {
            tasks.spawn(unix::serve_streams(door, Arc::clone(ingest), shares.streams, stop.clone()));
        }
        Ok(())
    }
}

fn is_open_to_others(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// Handles deadlines, sweeps, and the look at the disk.
async fn keep_time(
    ingest: Arc<Ingest>,
    pulse: Pulse,
    stop: CancellationToken,
    sweep_every: Duration,
    min_free_bytes: u64,
) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let now = tokio::time::Instant::now();
    let mut sweep = tokio::time::interval_at(now + sweep_every, sweep_every);
    let mut watch = tokio::time::interval(WATCH_DISK_EVERY);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                ingest.handle_timers();
                pulse.beat();
            }
            _ = sweep.tick() => {
                ingest.sweep();
            }
            _ = watch.tick() => ingest.watch_disk(min_free_bytes),
            () = stop.cancelled() => return,
        }
    }
}
