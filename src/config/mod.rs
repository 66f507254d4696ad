//! Settings: every `AUDIO_…` variable, its flag, default and meaning in one table, and the checked values in one
//! [`Config`].
//!
//! The command line is parsed by clap into [`Settings`], texts only, where a flag beats its variable. [`resolve`]
//! turns them into a [`Config`] or into [`Faults`], which names each wrong value, not just the first.
//! An empty variable counts as unset, except for `AUDIO_UDP_LISTEN`, where empty means "no UDP".
//! Nothing here reads the environment, resolves host names or touches a disk. Whether `AUDIO_LOG` is a filter that
//! can be parsed is left to the shell, which owns the log.
//!
//! To add a variable: one entry in `table`, one field and one line in [`resolve`], one row in README.md.

mod read;
mod secret;
mod table;
mod unknown;

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use read::{
    BACKUP_TAKES, GAIN_DB, HTTP_TAKES, OBJECT_KEY_TAKES, PATH_TAKES, PORTS_TAKES, Reader, SOCKET_TAKES,
    TAP_KEY_TAKES, TOKEN_TAKES, UDP_TAKES, UIDS_TAKES, http_listen, name_of, object_key, path, port_range,
    socket_path, tap_key, token, udp_listen, uids,
};
pub use secret::{HIDDEN, SECRETS, Secret};
pub use table::{Settings, VARIABLES, Variable};
pub use unknown::unknown;

/// UDP ports of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The address.
    pub host: IpAddr,
    /// The first port, an even one.
    pub low: u16,
    /// The last port.
    pub high: u16,
}

impl PortRange {
    /// How many groups of so many ports there are in it.
    #[must_use]
    pub fn groups(&self, ports: u16) -> u16 {
        let count = u32::from(self.high.saturating_sub(self.low)) + 1;
        u16::try_from(count / u32::from(ports)).unwrap_or(u16::MAX)
    }
}

/// Where recordings are published. `AUDIO_STORAGE_TYPE` takes the names in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StorageKind {
    /// A directory of this machine.
    Local,
    /// A Google Cloud Storage bucket.
    Gcs,
    /// A bucket of S3 or of what speaks its protocol.
    S3,
    /// An Azure Blob Storage container.
    Azure,
}

impl StorageKind {
    /// Whether this build of the program has it.
    #[must_use]
    pub fn is_built(self) -> bool {
        match self {
            Self::Local => true,
            Self::Gcs => cfg!(feature = "gcs"),
            Self::S3 => cfg!(feature = "s3"),
            Self::Azure => cfg!(feature = "azure"),
        }
    }
}

/// How a recording is made. `AUDIO_FORMAT` takes the names in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RecordingFormat {
    /// Received Opus goes into the file unchanged, as two uncoupled mono streams.
    Lossless,
    /// Both channels are decoded and encoded as one coupled stereo stream.
    Compat,
}

impl RecordingFormat {
    /// The word for it in manifests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lossless => "lossless",
            Self::Compat => "compat",
        }
    }
}

/// Which calls are kept. `AUDIO_RECORD` takes the names in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Recording {
    /// All, but those of which META says otherwise.
    Always,
    /// Those of which META says so.
    Consent,
}

/// What becomes of the digits of key presses. `AUDIO_DTMF` takes the names in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Digits {
    /// They are kept.
    Keep,
    /// They are left out.
    Mask,
}

/// What becomes of open connections when the daemon is told to stop. `AUDIO_ON_STOP` takes the names in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnStop {
    /// They stay open in the spool, and the next start goes on with them as after a kill.
    Resume,
    /// They are finalised and published: for a place that nothing starts in again.
    Finish,
}

/// How log lines are written. `AUDIO_LOG_FORMAT` takes the names in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The settings as the rest of the program uses them: typed, within bounds, and not in conflict with each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// False: frames are accepted and dropped.
    pub cache_enabled: bool,
    /// Where recordings are published.
    pub storage: StorageKind,
    /// Directory, or bucket or container with an optional `/prefix`. Not blank.
    pub storage_path: String,
    /// Where recordings go while the first storage fails, and the directory or bucket there.
    pub backup_storage: Option<StorageKind>,
    /// Set where `backup_storage` is.
    pub backup_path: String,
    /// How long the first storage must have failed.
    pub backup_after: Duration,
    /// Template of a recording's key, known to be sound: see [`resolve`].
    pub object_key: String,
    /// Where the spool lives.
    pub spool_dir: PathBuf,
    /// The UDP address, unless there is to be no UDP.
    pub udp_listen: Option<SocketAddr>,
    /// True: an address that is not loopback may be listened on.
    pub allow_remote: bool,
    /// What frames over UDP must be signed with.
    pub tap_key: Option<Secret>,
    /// Path of the Unix datagram socket, short enough for the kernel.
    pub unix_dgram: Option<PathBuf>,
    /// Path of the Unix stream socket, short enough for the kernel, and another than the datagram socket's.
    pub unix_stream: Option<PathBuf>,
    /// The users whose processes may connect to Unix stream sockets; without it all whom the sockets' mode lets in.
    pub unix_allow_uids: Option<Vec<u32>>,
    /// `host:port` with a numeric host, or `unix:` and a path.
    pub http_listen: Option<String>,
    /// What HTTP clients must show, except for health.
    pub http_token: Option<Secret>,
    /// Ports for plain RTP.
    pub rtp_ports: Option<PortRange>,
    /// Which calls are kept.
    pub recording: Recording,
    /// What becomes of the digits of key presses.
    pub digits: Digits,
    /// How a recording is made.
    pub format: RecordingFormat,
    /// Silence after the last audio.
    pub tail: Duration,
    /// True: each channel is also published as a file of its own.
    pub keep_channels: bool,
    /// Gain of the caller's channel, in decibels.
    pub left_gain_db: f32,
    /// Gain of the AI's channel, in decibels.
    pub right_gain_db: f32,
    /// Shift of the AI channel, in milliseconds, later if positive.
    pub ai_offset_ms: i64,
    /// How long a connection may go without a frame before it is stale.
    pub retention: Duration,
    /// Time between two looks for stale connections.
    pub sweep_interval: Duration,
    /// Wait for stragglers after the last reference is released.
    pub linger: Duration,
    /// How long an unfinished connection waits for its gateway after a restart.
    pub resume: Duration,
    /// Time between two syncs of the spool.
    pub spool_fsync: Duration,
    /// For how long one channel may talk without the other being heard; zero if that is not watched.
    pub silence_alert: Duration,
    /// How many connections may be open at once.
    pub max_connections: usize,
    /// How long one recording may get.
    pub max_duration: Duration,
    /// Free space on the spool's disk below which new connections are refused.
    pub min_free_bytes: u64,
    /// How long publishing may take at SIGTERM.
    pub shutdown: Duration,
    /// What becomes of open connections at SIGTERM.
    pub on_stop: OnStop,
    /// The log filter, not yet parsed.
    pub log: String,
    /// How log lines are written.
    pub log_format: LogFormat,
}

/// One wrong value: the variable, what it was set to, and what it takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={value:?}: takes {takes}")]
pub struct Fault {
    /// The variable's name; the flag of the same meaning may have been used.
    pub variable: Cow<'static, str>,
    /// The value as given, or the default that a cross-check refused; [`HIDDEN`] for a secret.
    pub value: String,
    /// What the variable takes.
    pub takes: String,
}

/// Every wrong value at once, a line each. Never empty when [`resolve`] returns it.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Fault::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Checks all settings, alone and against each other, and returns the configuration they make.
///
/// The template of the object key is sound if it has known placeholders only, one of `{id}`, `{connection_id}` and
/// `{conversation_id}` among them, no empty, `.` or `..` component, makes no key of more than 1,000 bytes, and ends in
/// `.opus`. What a placeholder stands
/// for is not known here: whoever fills it in keeps it from adding components.
///
/// # Errors
/// [`Faults`] with every value that is wrong or not built yet.
pub fn resolve(settings: &Settings) -> Result<Config, Faults> {
    let mut reader = Reader { settings, faults: Vec::new() };
    let config = Config {
        cache_enabled: reader.boolean("AUDIO_CACHE_ENABLED"),
        storage: reader.choice("AUDIO_STORAGE_TYPE"),
        storage_path: reader.parsed("AUDIO_STORAGE_PATH", PATH_TAKES, path),
        backup_storage: reader.optional("AUDIO_BACKUP_STORAGE_TYPE", BACKUP_TAKES, |text| {
            StorageKind::from_str(text, false).ok()
        }),
        backup_path: reader.optional("AUDIO_BACKUP_STORAGE_PATH", PATH_TAKES, path).unwrap_or_default(),
        backup_after: reader.secs("AUDIO_BACKUP_AFTER_SECS", 0..=86_400),
        object_key: reader.parsed("AUDIO_OBJECT_KEY", OBJECT_KEY_TAKES, object_key),
        spool_dir: reader.parsed("AUDIO_SPOOL_DIR", PATH_TAKES, path).into(),
        udp_listen: reader.parsed("AUDIO_UDP_LISTEN", UDP_TAKES, udp_listen),
        allow_remote: reader.boolean("AUDIO_ALLOW_REMOTE"),
        tap_key: reader.optional("AUDIO_TAP_KEY", TAP_KEY_TAKES, tap_key),
        unix_dgram: reader.optional("AUDIO_UNIX_DGRAM", SOCKET_TAKES, socket_path),
        unix_stream: reader.optional("AUDIO_UNIX_STREAM", SOCKET_TAKES, socket_path),
        unix_allow_uids: reader.optional("AUDIO_UNIX_ALLOW_UIDS", UIDS_TAKES, uids),
        http_listen: reader.optional("AUDIO_HTTP_LISTEN", HTTP_TAKES, http_listen),
        http_token: reader.optional("AUDIO_HTTP_TOKEN", TOKEN_TAKES, token),
        rtp_ports: reader.optional("AUDIO_RTP_PORTS", PORTS_TAKES, port_range),
        recording: reader.choice("AUDIO_RECORD"),
        digits: reader.choice("AUDIO_DTMF"),
        format: reader.choice("AUDIO_FORMAT"),
        tail: reader.millis("AUDIO_TAIL_MS", 0..=60_000),
        keep_channels: reader.boolean("AUDIO_KEEP_CHANNELS"),
        left_gain_db: reader.whole("AUDIO_LEFT_GAIN_DB", "decibels", GAIN_DB),
        right_gain_db: reader.whole("AUDIO_RIGHT_GAIN_DB", "decibels", GAIN_DB),
        ai_offset_ms: reader.whole("AUDIO_AI_OFFSET_MS", "whole milliseconds", -60_000..=60_000),
        retention: reader.secs("AUDIO_RETENTION_SECS", 1..=7 * 86_400),
        sweep_interval: reader.secs("AUDIO_SWEEP_INTERVAL_SECS", 1..=86_400),
        linger: reader.millis("AUDIO_LINGER_MS", 0..=60_000),
        resume: reader.secs("AUDIO_RESUME_SECS", 0..=3_600),
        spool_fsync: reader.millis("AUDIO_SPOOL_FSYNC_MS", 1..=60_000),
        silence_alert: reader.secs("AUDIO_SILENCE_ALERT_SECS", 0..=3_600),
        max_connections: reader.whole("AUDIO_MAX_CONNECTIONS", "a whole number", 1..=1_000_000),
        max_duration: reader.secs("AUDIO_MAX_DURATION_SECS", 1..=7 * 86_400),
        min_free_bytes: reader.whole("AUDIO_MIN_FREE_BYTES", "whole bytes", 0..=u64::MAX),
        shutdown: reader.secs("AUDIO_SHUTDOWN_SECS", 0..=3_600),
        on_stop: reader.choice("AUDIO_ON_STOP"),
        log: reader.text("AUDIO_LOG").to_owned(),
        log_format: reader.choice("AUDIO_LOG_FORMAT"),
    };
    reader.refuse_conflicts(&config);
    let mut faults = reader.faults;
    faults.extend(not_built(&config));
    if faults.is_empty() { Ok(config) } else { Err(Faults(faults)) }
}

impl Config {
    /// What `AUDIO_RECORD`, `AUDIO_DTMF` and `AUDIO_ON_STOP` are, which say what is kept of a call.
    #[must_use]
    pub fn in_force(&self) -> (String, String, String) {
        (name_of(&self.recording), name_of(&self.digits), name_of(&self.on_stop))
    }
}

/// Returns a fault for each value that is known but that this version of the program cannot serve yet.
/// This is the only place that says so: a value becomes available when its line here goes.
#[must_use]
pub fn not_built(config: &Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut refuse = |variable: &'static str, value, takes| {
        faults.push(Fault { variable: variable.into(), value, takes });
    };
    let backup = config.backup_storage.map(|kind| ("AUDIO_BACKUP_STORAGE_TYPE", kind));
    let kinds = [("AUDIO_STORAGE_TYPE", config.storage)].into_iter().chain(backup);
    for (variable, kind) in kinds.filter(|(_, kind)| !kind.is_built()) {
        let name = name_of(&kind);
        let built: Vec<_> =
            StorageKind::value_variants().iter().filter(|kind| kind.is_built()).map(name_of).collect();
        let takes = format!("{}: this build has no {name} (cargo feature `{name}`)", built.join(" or "));
        refuse(variable, name, takes);
    }
    faults
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    /// A command with settings.
    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        settings: Settings,
    }

    /// The settings that a command line of flags makes.
    fn settings(flags: &[&str]) -> Settings {
        Command::try_parse_from([&["sidetape"], flags].concat()).unwrap().settings
    }

    /// The faults of a command line, a line each.
    fn faults(flags: &[&str]) -> Vec<String> {
        let faults = resolve(&settings(flags)).err().unwrap_or_default();
        faults.to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_table_and_the_command_line_name_the_same_variables() {
        let command = Command::command();
        let arguments: Vec<_> = command.get_arguments().collect();
        assert_eq!(arguments.len(), VARIABLES.len());
        for (argument, row) in arguments.iter().zip(VARIABLES) {
            assert_eq!(argument.get_env().unwrap(), row.name);
            assert_eq!(argument.get_long(), Some(row.flag));
            assert_eq!(row.flag, row.name.trim_start_matches("AUDIO_").to_lowercase().replace('_', "-"));
            assert!(argument.get_help().unwrap().to_string().contains(row.default));
        }
        let about = command.get_about().map(ToString::to_string);
        assert_eq!(about.as_deref(), Some("A command with settings"), "flattening leaves it alone");
    }

    #[test]
    fn without_any_setting_the_defaults_of_the_table_hold() {
        let config = resolve(&Settings::default()).unwrap();
        assert_eq!(config.udp_listen, Some(([127, 0, 0, 1], 5055).into()));
        assert_eq!((config.unix_dgram, config.unix_stream, config.http_listen), (None, None, None));
        assert_eq!(config.object_key, "conversation_{id}_merged.opus");
        assert_eq!((config.tail, config.retention), (Duration::from_secs(2), Duration::from_secs(1800)));
        assert_eq!(config.on_stop, OnStop::Resume);
        assert!(config.cache_enabled && !config.keep_channels && !config.allow_remote);
    }

    #[test]
    fn an_empty_value_is_unset_except_that_it_turns_udp_off() {
        let off = ["--udp-listen=", "--unix-dgram=/run/tap", "--tail-ms=", "--storage-path="];
        let config = resolve(&settings(&off)).unwrap();
        assert_eq!((config.udp_listen, config.tail), (None, Duration::from_secs(2)));
        assert_eq!(config.storage_path, "./recordings");
        assert_eq!(faults(&["--udp-listen=", "--unix-dgram="]).len(), 1, "nothing would be listened on");
    }

    #[test]
    fn every_fault_is_reported_and_not_just_the_first() {
        assert_eq!(
            faults(&[
                "--sweep-interval-secs=ten",
                "--keep-channels=maybe",
                "--log-format",
                "xml",
                "--on-stop=drain"
            ]),
            [
                "AUDIO_KEEP_CHANNELS=\"maybe\": takes true or false",
                "AUDIO_SWEEP_INTERVAL_SECS=\"ten\": takes whole seconds from 1 to 86400",
                "AUDIO_ON_STOP=\"drain\": takes resume or finish",
                "AUDIO_LOG_FORMAT=\"xml\": takes text or json",
            ]
        );
    }

    #[test]
    fn the_range_of_each_number_is_in_the_readme() {
        let readme = include_str!("../../README.md");
        let mut ranges = 0;
        for row in VARIABLES {
            let refused = faults(&[&format!("--{}=1G", row.flag)]);
            let range = refused.iter().find_map(|fault| {
                let takes = fault.strip_prefix(&format!("{}=\"1G\": takes ", row.name))?;
                let (low, high) = takes.rsplit_once(" from ")?.1.split_once(" to ")?;
                high.parse::<f64>().is_ok().then(|| (low.to_owned(), high.to_owned()))
            });
            let Some((low, high)) = range else { continue };
            let told =
                readme.lines().find(|line| line.starts_with(&format!("| `{}` | `", row.name))).unwrap();
            let is_open = high == u64::MAX.to_string();
            let range = if is_open { "in bytes".to_owned() } else { format!("{low} to {high}") };
            assert!(told.contains(&range), "README.md lacks {range}: {told}");
            ranges += 1;
        }
        assert!(ranges > 12, "{ranges}");
    }

    #[test]
    fn ports_are_a_range_of_an_address_that_begins_with_an_even_one() {
        let range = |text: &str| resolve(&settings(&["--http-listen=127.0.0.1:8080", "--rtp-ports", text]));
        let found = range("20000-20999").unwrap().rtp_ports.unwrap();
        assert_eq!((found.host, found.groups(4)), (IpAddr::from([127, 0, 0, 1]), 250));
        assert_eq!(range("[::1]:2-5").unwrap().rtp_ports.unwrap().groups(4), 1);
        assert_eq!(range("localhost:65532-65535").unwrap().rtp_ports.unwrap().groups(4), 1);
        for bad in
            ["20001-20999", "20000-20002", "20000", "0-100", "20000-70000", "x:20000-20999", "21000-20000"]
        {
            assert!(range(bad).is_err(), "{bad}");
        }
        assert!(range("10.0.0.1:20000-20999").is_err(), "it is not loopback");
        assert_eq!(faults(&["--rtp-ports=20000-20999"]).len(), 1, "nobody could open them");
    }

    #[test]
    fn booleans_and_numbers_are_read_as_people_write_them() {
        let given = ["--cache-enabled=Off", "--keep-channels", "YES", "--ai-offset-ms", "-250"];
        let config = resolve(&settings(&given)).unwrap();
        assert!(!config.cache_enabled && config.keep_channels);
        assert_eq!(config.ai_offset_ms, -250);
        for bad in ["-60001", "1.5", "1e3", " 1"] {
            assert_eq!(faults(&["--ai-offset-ms", bad]).len(), 1, "{bad}");
        }
    }

    #[test]
    fn only_loopback_is_listened_on_unless_remote_is_allowed() {
        for local in ["localhost:5055", "127.8.9.1:0", "[::1]:5055", "[::ffff:127.0.0.1]:5055"] {
            assert_eq!(faults(&["--udp-listen", local]), [""; 0], "{local}");
        }
        for remote in ["0.0.0.0:5055", "[::]:5055", "192.0.2.1:5055"] {
            assert!(faults(&["--udp-listen", remote])[0].contains("AUDIO_ALLOW_REMOTE=true"), "{remote}");
            assert_eq!(faults(&["--udp-listen", remote, "--allow-remote=true"]), [""; 0]);
        }
        for wrong in ["5055", ":5055", "example.org:5055", "127.0.0.1", "127.0.0.1:70000"] {
            assert_eq!(faults(&["--udp-listen", wrong]).len(), 1, "{wrong}");
        }
    }

    #[test]
    fn unix_sockets_need_short_paths_of_their_own() {
        assert_eq!(faults(&["--unix-dgram=/a", "--unix-stream=/b"]), [""; 0]);
        assert!(faults(&["--unix-dgram=/a", "--unix-stream=/a"])[0].starts_with("AUDIO_UNIX_STREAM"));
        assert_eq!(faults(&["--unix-dgram", &"x".repeat(107)]), [""; 0]);
        assert_eq!(faults(&["--unix-dgram", &"x".repeat(108), "--udp-listen="]).len(), 1);
    }

    #[test]
    fn secrets_are_long_enough_to_be_some_and_no_fault_shows_them() {
        let (key, token) = ("sixteen bytes of", "0123456789abcdef");
        let given = settings(&["--tap-key", key, "--http-token", token]);
        assert!(!format!("{given:?} {:?}", resolve(&given)).contains("six"), "{given:?}");
        let config = resolve(&given).unwrap();
        assert!(
            config.tap_key.unwrap().is(key.as_bytes()) && config.http_token.unwrap().is(token.as_bytes())
        );
        for (flag, bad) in [
            ("--tap-key", "fifteen bytes o"),
            ("--tap-key", "a key of a file with a newline\n"),
            ("--http-token", "0123456789abcde"),
            ("--http-token", "two words that are long"),
            ("--http-token", "\u{e9}0123456789abcdef"),
        ] {
            let faults = faults(&[flag, bad]);
            assert!(
                faults.len() == 1 && faults[0].contains("=\"(not shown)\": takes at least 16 "),
                "{faults:?}"
            );
        }
    }

    #[test]
    fn peers_can_be_checked_where_the_system_tells_them() {
        let stream = ["--udp-listen=", "--unix-stream=/a"];
        let config = resolve(&settings(&[&stream[..], &["--unix-allow-uids=0, 1000,4294967295"]].concat()));
        assert_eq!(config.unwrap().unix_allow_uids, Some(vec![0, 1000, u32::MAX]));
        for bad in ["root", "1,,2", "-1", "4294967296", ","] {
            assert_eq!(faults(&[&stream[..], &["--unix-allow-uids", bad]].concat()).len(), 1, "{bad}");
        }
        let both = faults(&["--unix-dgram=/b", "--unix-allow-uids=0"]);
        assert!(both.len() == 1 && both[0].starts_with("AUDIO_UNIX_DGRAM=\"/b\""), "{both:?}");
    }

    #[test]
    fn object_keys_name_the_call_and_stay_inside_the_storage() {
        let good =
            "{id}.opus {tenant}/{yyyy}/{mm}/{dd}/{hh}/a-{conversation_id}.opus {connection_id}_{id}.opus";
        for good in good.split(' ') {
            assert_eq!(faults(&["--object-key", good]), [""; 0], "{good}");
        }
        let bad = "/{id}.opus a//{id}.opus ../{id}.opus ./{id}.opus {id}.ogg a.opus {tenant}.opus {nope}{id}.opus \
                   {id.opus id}.opus {{id}}.opus {id}}.opus {id}{.opus {id}/ {}{id}.opus {id}/.. \u{7}{id}.opus";
        let long = format!("{}{{id}}.opus", "{tenant}/".repeat(6));
        for bad in bad.split(' ').chain([long.as_str()]) {
            assert_eq!(faults(&["--object-key", bad]).len(), 1, "{bad}");
        }
        assert_eq!(faults(&["--object-key", &long["{tenant}/".len()..]]), [""; 0]);
    }

    #[test]
    #[cfg(feature = "s3")]
    fn a_bucket_is_named_without_a_scheme_and_its_prefix_is_sound() {
        let of = |path: &str| faults(&["--storage-type=s3", "--storage-path", path]);
        for good in ["bucket", "bucket/", "my.bucket-1/a b/c/"] {
            assert_eq!(of(good), [""; 0], "{good}");
        }
        let long = format!("bucket/{}", "x".repeat(900));
        for bad in [
            "s3://bucket",
            "/bucket",
            "b//c",
            "b/../c",
            "b/./c",
            "b/c//",
            "./recordings",
            "b c",
            long.as_str(),
        ] {
            assert!(of(bad).len() == 1 && of(bad)[0].starts_with("AUDIO_STORAGE_PATH"), "{bad}");
        }
    }

    #[test]
    fn what_is_known_but_not_built_stops_the_start_too() {
        for kind in ["gcs", "s3", "azure"] {
            let faults = faults(&["--storage-type", kind, "--storage-path=bucket/calls"]);
            let is_built = StorageKind::from_str(kind, false).unwrap().is_built();
            assert_eq!(faults.is_empty(), is_built, "{faults:?}");
            assert!(is_built || faults[0].contains(&format!("this build has no {kind}")), "{faults:?}");
        }
        assert!(faults(&["--right-gain-db=-0.5"])[0].ends_with("takes 0 unless AUDIO_FORMAT=compat"));
    }
}
