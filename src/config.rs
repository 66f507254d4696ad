//! Settings: every `AUDIO_…` variable, its flag, default and meaning in one table, and the checked values in one
//! [`Config`].
//!
//! The command line is parsed by clap into [`Settings`], texts only, where a flag beats its variable. [`resolve`]
//! turns them into a [`Config`] or into [`Faults`], which names each wrong value, not just the first.
//! An empty variable counts as unset, except for `AUDIO_UDP_LISTEN`, where empty means "no UDP".
//! Nothing here reads the environment, resolves host names or touches a disk. Whether `AUDIO_LOG` is a filter that
//! can be parsed is left to the shell, which owns the log.
//!
//! To add a variable: one entry in the table below, one field and one line in [`resolve`], one row in README.md.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;

/// One row of the table of settings, as `--help` and README.md show it.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// The environment variable.
    pub name: &'static str,
    /// The flag of the same meaning, without its two dashes.
    pub flag: &'static str,
    /// The default, as it would be written, or `unset`.
    pub default: &'static str,
    /// What it means, with units.
    pub meaning: &'static str,
}

/// Writes [`VARIABLES`] and [`Settings`] from one table, so that they cannot disagree.
macro_rules! settings {
    ($($field:ident $name:literal $flag:literal $value:literal $default:literal $meaning:literal)*) => {
        /// Every setting there is, in the order of README.md.
        pub const VARIABLES: &[Variable] =
            &[$(Variable { name: $name, flag: $flag, default: $default, meaning: $meaning }),*];

        /// The settings as given: texts, by flag or by variable, for commands to flatten. [`resolve`] checks them.
        #[derive(clap::Args, Clone, Debug, Default)]
        pub struct Settings {
            $(#[arg(
                long = $flag, env = $name, value_name = $value, help_heading = "Settings",
                allow_negative_numbers = true, help = concat!($meaning, " [default: ", $default, "]")
            )]
            #[doc = $meaning]
            pub $field: Option<String>,)*
        }

        impl Settings {
            /// What the user gave for a variable, unless it counts as unset.
            fn given(&self, variable: &str) -> Option<&str> {
                let text = match variable {
                    $($name => self.$field.as_deref(),)*
                    _ => None,
                };
                text.filter(|text| !text.is_empty() || variable == "AUDIO_UDP_LISTEN")
            }
        }
    };
}

settings! {
    cache_enabled "AUDIO_CACHE_ENABLED" "cache-enabled" "BOOL" "true"
        "false: frames are accepted and dropped, nothing is kept"
    storage_type "AUDIO_STORAGE_TYPE" "storage-type" "KIND" "local"
        "where recordings are published: local, gcs, s3 or azure"
    storage_path "AUDIO_STORAGE_PATH" "storage-path" "PATH" "./recordings"
        "directory, or bucket or container with an optional /prefix"
    object_key "AUDIO_OBJECT_KEY" "object-key" "TEMPLATE" "conversation_{id}_merged.opus"
        "name of a recording: {id} (conversation id, else connection id), {connection_id}, {conversation_id}, \
         {tenant}, and {yyyy} {mm} {dd} {hh} of the start in UTC"
    spool_dir "AUDIO_SPOOL_DIR" "spool-dir" "DIR" "./spool"
        "where what was received is kept until it is published"
    udp_listen "AUDIO_UDP_LISTEN" "udp-listen" "HOST:PORT" "127.0.0.1:5055"
        "UDP address for frames; empty: no UDP"
    allow_remote "AUDIO_ALLOW_REMOTE" "allow-remote" "BOOL" "false"
        "true: addresses that are not loopback may be listened on; nothing authenticates who sends to them"
    unix_dgram "AUDIO_UNIX_DGRAM" "unix-dgram" "PATH" "unset"
        "Unix datagram socket for frames"
    unix_stream "AUDIO_UNIX_STREAM" "unix-stream" "PATH" "unset"
        "Unix stream socket for frames, each behind its length as u16"
    http_listen "AUDIO_HTTP_LISTEN" "http-listen" "ADDRESS" "unset"
        "health and stretches of live calls over HTTP: host:port or unix:/path"
    format "AUDIO_FORMAT" "format" "FORMAT" "lossless"
        "lossless (received Opus is kept as it is) or compat (one coupled stereo encoding)"
    tail_ms "AUDIO_TAIL_MS" "tail-ms" "MS" "2000"
        "silence after the last audio, in milliseconds"
    keep_channels "AUDIO_KEEP_CHANNELS" "keep-channels" "BOOL" "false"
        "true: also publish each channel as a file, _left.opus and _right.opus"
    left_gain_db "AUDIO_LEFT_GAIN_DB" "left-gain-db" "DB" "0"
        "gain of the caller's channel in decibels; not 0 needs compat"
    right_gain_db "AUDIO_RIGHT_GAIN_DB" "right-gain-db" "DB" "0"
        "gain of the AI's channel in decibels; not 0 needs compat"
    ai_offset_ms "AUDIO_AI_OFFSET_MS" "ai-offset-ms" "MS" "0"
        "shifts the AI channel by so many milliseconds, later if positive"
    retention_secs "AUDIO_RETENTION_SECS" "retention-secs" "SECS" "1800"
        "a connection with no frame for so many seconds is stale: finalised and published"
    sweep_interval_secs "AUDIO_SWEEP_INTERVAL_SECS" "sweep-interval-secs" "SECS" "600"
        "seconds between two looks for stale connections"
    linger_ms "AUDIO_LINGER_MS" "linger-ms" "MS" "500"
        "wait for stragglers after the last reference is released, in milliseconds"
    resume_secs "AUDIO_RESUME_SECS" "resume-secs" "SECS" "15"
        "seconds that an unfinished connection waits for its gateway after a restart"
    spool_fsync_ms "AUDIO_SPOOL_FSYNC_MS" "spool-fsync-ms" "MS" "1000"
        "milliseconds between two syncs of the spool to disk"
    max_connections "AUDIO_MAX_CONNECTIONS" "max-connections" "COUNT" "20000"
        "beyond so many open connections new ones are refused"
    max_duration_secs "AUDIO_MAX_DURATION_SECS" "max-duration-secs" "SECS" "14400"
        "a recording longer than so many seconds is closed and goes on as a second part"
    min_free_bytes "AUDIO_MIN_FREE_BYTES" "min-free-bytes" "BYTES" "1073741824"
        "below so much free space on the spool's disk new connections are refused"
    shutdown_secs "AUDIO_SHUTDOWN_SECS" "shutdown-secs" "SECS" "30"
        "seconds of grace for open connections at SIGTERM"
    log "AUDIO_LOG" "log" "FILTER" "info"
        "what is logged: a level, or a filter such as info,sidetape::io=debug"
    log_format "AUDIO_LOG_FORMAT" "log-format" "FORMAT" "text"
        "text or json"
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
    /// Template of a recording's key, known to be sound: see [`resolve`].
    pub object_key: String,
    /// Where the spool lives.
    pub spool_dir: PathBuf,
    /// The UDP address, unless there is to be no UDP.
    pub udp_listen: Option<SocketAddr>,
    /// True: an address that is not loopback may be listened on.
    pub allow_remote: bool,
    /// Path of the Unix datagram socket, short enough for the kernel.
    pub unix_dgram: Option<PathBuf>,
    /// Path of the Unix stream socket, short enough for the kernel, and another than the datagram socket's.
    pub unix_stream: Option<PathBuf>,
    /// `host:port` with a numeric host, or `unix:` and a path.
    pub http_listen: Option<String>,
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
    /// How many connections may be open at once.
    pub max_connections: usize,
    /// How long one recording may get.
    pub max_duration: Duration,
    /// Free space on the spool's disk below which new connections are refused.
    pub min_free_bytes: u64,
    /// Grace for open connections at SIGTERM.
    pub shutdown: Duration,
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
    pub variable: &'static str,
    /// The value as given, or the default that a cross-check refused.
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
/// `{conversation_id}` among them, no empty, `.` or `..` component, and ends in `.opus`. What a placeholder stands
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
        object_key: reader.parsed("AUDIO_OBJECT_KEY", OBJECT_KEY_TAKES, object_key),
        spool_dir: reader.parsed("AUDIO_SPOOL_DIR", PATH_TAKES, path).into(),
        udp_listen: reader.parsed("AUDIO_UDP_LISTEN", UDP_TAKES, udp_listen),
        allow_remote: reader.boolean("AUDIO_ALLOW_REMOTE"),
        unix_dgram: reader.optional("AUDIO_UNIX_DGRAM", SOCKET_TAKES, socket_path),
        unix_stream: reader.optional("AUDIO_UNIX_STREAM", SOCKET_TAKES, socket_path),
        http_listen: reader.optional("AUDIO_HTTP_LISTEN", HTTP_TAKES, http_listen),
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
        max_connections: reader.whole("AUDIO_MAX_CONNECTIONS", "a whole number", 1..=1_000_000),
        max_duration: reader.secs("AUDIO_MAX_DURATION_SECS", 1..=7 * 86_400),
        min_free_bytes: reader.whole("AUDIO_MIN_FREE_BYTES", "whole bytes", 0..=u64::MAX),
        shutdown: reader.secs("AUDIO_SHUTDOWN_SECS", 0..=3_600),
        log: reader.text("AUDIO_LOG").to_owned(),
        log_format: reader.choice("AUDIO_LOG_FORMAT"),
    };
    reader.refuse_conflicts(&config);
    let mut faults = reader.faults;
    faults.extend(not_built(&config));
    if faults.is_empty() { Ok(config) } else { Err(Faults(faults)) }
}

/// Returns a fault for each value that is known but that this version of the program cannot serve yet.
/// This is the only place that says so: a value becomes available when its line here goes.
#[must_use]
pub fn not_built(config: &Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut refuse = |variable, value, takes| faults.push(Fault { variable, value, takes });
    if config.storage != StorageKind::Local {
        let name = name_of(&config.storage);
        refuse("AUDIO_STORAGE_TYPE", name.clone(), format!("local: this build has no {name}"));
    }
    faults
}

/// `sun_path` of Linux has 108 bytes, the last of them a zero.
const UNIX_PATH_MAX_BYTES: usize = 107;

/// ±30 dB is a factor of 32: more is a typing error, and would only be clipping or silence.
const GAIN_DB: RangeInclusive<f32> = -30.0..=30.0;

const CALL_PLACEHOLDERS: [&str; 3] = ["{id}", "{connection_id}", "{conversation_id}"];
const OTHER_PLACEHOLDERS: [&str; 5] = ["{tenant}", "{yyyy}", "{mm}", "{dd}", "{hh}"];

const PATH_TAKES: &str = "a path that is not blank";
const SOCKET_TAKES: &str = "a path of at most 107 bytes";
const UDP_TAKES: &str = "an address and a port such as 127.0.0.1:5055, or nothing for no UDP";
const HTTP_TAKES: &str =
    "an address and a port such as 127.0.0.1:8080, or unix: and a path of at most 107 bytes";
const OBJECT_KEY_TAKES: &str = "a relative name in .opus with {id}, {connection_id} or {conversation_id}; \
     also {tenant}, {yyyy}, {mm}, {dd}, {hh}; no other braces; no component that is empty, . or ..";

/// Reads the settings one after the other and gathers what is wrong with them.
struct Reader<'a> {
    settings: &'a Settings,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    /// The text of a variable: what was given, else the default.
    fn text(&self, variable: &str) -> &'a str {
        self.settings.given(variable).unwrap_or_else(|| default_of(variable))
    }

    fn refuse(&mut self, variable: &'static str, takes: &str) {
        let value = self.text(variable).to_owned();
        self.faults.push(Fault { variable, value, takes: takes.to_owned() });
    }

    /// The value of a variable that has a default. After a fault the default stands in, so that reading goes on.
    fn parsed<T>(&mut self, variable: &'static str, takes: &str, parse: impl Fn(&str) -> Option<T>) -> T {
        if let Some(value) = parse(self.text(variable)) {
            return value;
        }
        self.refuse(variable, takes);
        parse(default_of(variable)).expect("the defaults in the table are valid")
    }

    /// The value of a variable that is unset by default.
    fn optional<T>(
        &mut self,
        variable: &'static str,
        takes: &str,
        parse: fn(&str) -> Option<T>,
    ) -> Option<T> {
        let value = parse(self.settings.given(variable)?);
        if value.is_none() {
            self.refuse(variable, takes);
        }
        value
    }

    fn boolean(&mut self, variable: &'static str) -> bool {
        self.parsed(variable, "true or false", |text| match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        })
    }

    fn choice<T: ValueEnum>(&mut self, variable: &'static str) -> T {
        let names: Vec<String> = T::value_variants().iter().map(name_of).collect();
        self.parsed(variable, &names.join(" or "), |text| T::from_str(text, false).ok())
    }

    fn whole<T>(&mut self, variable: &'static str, unit: &str, range: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        let takes = format!("{unit} from {} to {}", range.start(), range.end());
        self.parsed(variable, &takes, |text| text.parse().ok().filter(|value| range.contains(value)))
    }

    fn secs(&mut self, variable: &'static str, range: RangeInclusive<u64>) -> Duration {
        Duration::from_secs(self.whole(variable, "whole seconds", range))
    }

    fn millis(&mut self, variable: &'static str, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.whole(variable, "whole milliseconds", range))
    }

    /// Checks that need more than one value.
    fn refuse_conflicts(&mut self, config: &Config) {
        let gains =
            [("AUDIO_LEFT_GAIN_DB", config.left_gain_db), ("AUDIO_RIGHT_GAIN_DB", config.right_gain_db)];
        for (variable, gain_db) in gains {
            if gain_db != 0.0 && config.format != RecordingFormat::Compat {
                self.refuse(variable, "0 unless AUDIO_FORMAT=compat");
            }
        }
        let http = config.http_listen.as_deref().and_then(socket_addr);
        for (variable, address) in [("AUDIO_UDP_LISTEN", config.udp_listen), ("AUDIO_HTTP_LISTEN", http)] {
            let is_remote = address.is_some_and(|address| !address.ip().to_canonical().is_loopback());
            if is_remote && !config.allow_remote {
                self.refuse(variable, "a loopback address unless AUDIO_ALLOW_REMOTE=true");
            }
        }
        if config.unix_dgram.is_some() && config.unix_dgram == config.unix_stream {
            self.refuse("AUDIO_UNIX_STREAM", "another path than AUDIO_UNIX_DGRAM");
        }
        // A path that was given but refused has its own fault, which is enough.
        let is_given = |variable| self.settings.given(variable).is_some();
        if config.udp_listen.is_none() && !is_given("AUDIO_UNIX_DGRAM") && !is_given("AUDIO_UNIX_STREAM") {
            self.refuse("AUDIO_UDP_LISTEN", "an address unless AUDIO_UNIX_DGRAM or AUDIO_UNIX_STREAM is set");
        }
    }
}

fn default_of(variable: &str) -> &'static str {
    let row = VARIABLES.iter().find(|row| row.name == variable);
    row.expect("each variable that is read is in the table").default
}

fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|possible| possible.get_name().to_owned()).unwrap_or_default()
}

/// An address and a port, where `localhost` stands for 127.0.0.1 as it does nearly everywhere.
fn socket_addr(text: &str) -> Option<SocketAddr> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric.as_deref().unwrap_or(text).parse().ok()
}

fn udp_listen(text: &str) -> Option<Option<SocketAddr>> {
    if text.is_empty() {
        return Some(None);
    }
    socket_addr(text).map(Some)
}

fn path(text: &str) -> Option<String> {
    (!text.trim().is_empty()).then(|| text.to_owned())
}

fn socket_path(text: &str) -> Option<PathBuf> {
    path(text).filter(|text| text.len() <= UNIX_PATH_MAX_BYTES).map(PathBuf::from)
}

fn http_listen(text: &str) -> Option<String> {
    match text.strip_prefix("unix:") {
        Some(path) => socket_path(path).map(|_| text.to_owned()),
        None => socket_addr(text).map(|address| address.to_string()),
    }
}

fn object_key(text: &str) -> Option<String> {
    let is_inside = text.split('/').all(|component| !matches!(component, "" | "." | ".."));
    let names_the_call = CALL_PLACEHOLDERS.iter().any(|placeholder| text.contains(placeholder));
    let mut literal = text.to_owned();
    for placeholder in CALL_PLACEHOLDERS.iter().chain(&OTHER_PLACEHOLDERS) {
        literal = literal.replace(placeholder, "_");
    }
    let is_plain = !literal.contains(['{', '}']) && !literal.contains(char::is_control);
    (is_inside && names_the_call && is_plain && text.ends_with(".opus")).then(|| text.to_owned())
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
            faults(&["--sweep-interval-secs=ten", "--keep-channels=maybe", "--log-format", "xml"]),
            [
                "AUDIO_KEEP_CHANNELS=\"maybe\": takes true or false",
                "AUDIO_SWEEP_INTERVAL_SECS=\"ten\": takes whole seconds from 1 to 86400",
                "AUDIO_LOG_FORMAT=\"xml\": takes text or json",
            ]
        );
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
    fn object_keys_name_the_call_and_stay_inside_the_storage() {
        let good =
            "{id}.opus {tenant}/{yyyy}/{mm}/{dd}/{hh}/a-{conversation_id}.opus {connection_id}_{id}.opus";
        for good in good.split(' ') {
            assert_eq!(faults(&["--object-key", good]), [""; 0], "{good}");
        }
        let bad = "/{id}.opus a//{id}.opus ../{id}.opus ./{id}.opus {id}.ogg a.opus {tenant}.opus {nope}{id}.opus \
                   {id.opus id}.opus {{id}}.opus {id}}.opus {id}{.opus {id}/ {}{id}.opus {id}/.. \u{7}{id}.opus";
        for bad in bad.split(' ') {
            assert_eq!(faults(&["--object-key", bad]).len(), 1, "{bad}");
        }
    }

    #[test]
    fn what_is_known_but_not_built_stops_the_start_too() {
        let flags = ["--storage-type=gcs", "--format=compat", "--left-gain-db=3"];
        assert_eq!(faults(&flags), ["AUDIO_STORAGE_TYPE=\"gcs\": takes local: this build has no gcs"]);
        assert!(faults(&["--right-gain-db=-0.5"])[0].ends_with("takes 0 unless AUDIO_FORMAT=compat"));
    }
}
