//! The table of settings: each variable, its flag, default and meaning, once.

use std::fmt;

use super::secret::{HIDDEN, SECRETS};

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

        /// The settings as given: texts, by flag or by variable, for commands to flatten. [`super::resolve`] checks them.
        #[derive(clap::Args, Clone, Default)]
        pub struct Settings {
            $(#[arg(
                long = $flag, env = $name, value_name = $value, help_heading = "Settings",
                allow_negative_numbers = true, hide_env_values = SECRETS.contains(&$name), help = concat!($meaning, " [default: ", $default, "]")
            )]
            #[doc = $meaning]
            pub $field: Option<String>,)*
        }

        impl fmt::Debug for Settings {
            /// Shows what was set, but no secret.
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut shown = out.debug_struct("Settings");
                $(if let Some(text) = &self.$field {
                    let text = if SECRETS.contains(&$name) { HIDDEN } else { text };
                    shown.field($name, &text);
                })*
                shown.finish()
            }
        }

        impl Settings {
            /// What the user gave for a variable, unless it counts as unset.
            pub(super) fn given(&self, variable: &str) -> Option<&str> {
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
    backup_storage_type "AUDIO_BACKUP_STORAGE_TYPE" "backup-storage-type" "KIND" "unset"
        "where recordings go while the first storage fails: local, gcs, s3 or azure"
    backup_storage_path "AUDIO_BACKUP_STORAGE_PATH" "backup-storage-path" "PATH" "unset"
        "its directory, or bucket or container with an optional /prefix"
    backup_after_secs "AUDIO_BACKUP_AFTER_SECS" "backup-after-secs" "SECS" "300"
        "seconds for which the first storage must have failed until the backup is used"
    object_key "AUDIO_OBJECT_KEY" "object-key" "TEMPLATE" "conversation_{id}_merged.opus"
        "name of a recording: {id} (conversation id, else connection id), {connection_id}, {conversation_id}, \
         {tenant}, and {yyyy} {mm} {dd} {hh} of the start in UTC"
    spool_dir "AUDIO_SPOOL_DIR" "spool-dir" "DIR" "./spool"
        "where what was received is kept until it is published"
    udp_listen "AUDIO_UDP_LISTEN" "udp-listen" "HOST:PORT" "127.0.0.1:5055"
        "UDP address for frames; empty: no UDP"
    allow_remote "AUDIO_ALLOW_REMOTE" "allow-remote" "BOOL" "false"
        "true: addresses that are not loopback may be listened on; see tap-key and http-token for who may use them"
    tap_key "AUDIO_TAP_KEY" "tap-key" "SECRET" "unset"
        "shared secret of at least 16 bytes: frames over UDP must be signed with it; better set by the variable, \
         flags are visible to other users"
    unix_dgram "AUDIO_UNIX_DGRAM" "unix-dgram" "PATH" "unset"
        "Unix datagram socket for frames"
    unix_stream "AUDIO_UNIX_STREAM" "unix-stream" "PATH" "unset"
        "Unix stream socket for frames, each behind its length as u16"
    unix_allow_uids "AUDIO_UNIX_ALLOW_UIDS" "unix-allow-uids" "UIDS" "unset"
        "user ids, separated by commas, whose processes alone may connect to Unix stream sockets"
    http_listen "AUDIO_HTTP_LISTEN" "http-listen" "ADDRESS" "unset"
        "health, metrics, control and stretches of live calls over HTTP: host:port or unix:/path"
    http_token "AUDIO_HTTP_TOKEN" "http-token" "SECRET" "unset"
        "secret of at least 16 characters that HTTP clients must show as a bearer token, except for health; better \
         set by the variable"
    rtp_ports "AUDIO_RTP_PORTS" "rtp-ports" "PORTS" "unset"
        "UDP ports for plain RTP, which HTTP opens, four for a call: low-high or host:low-high"
    record "AUDIO_RECORD" "record" "WHEN" "always"
        "always, or consent: nothing of a call is kept before META says \"record\":true"
    dtmf "AUDIO_DTMF" "dtmf" "DIGITS" "keep"
        "keep, or mask: the digits of key presses are left out everywhere, their times stay"
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
    silence_alert_secs "AUDIO_SILENCE_ALERT_SECS" "silence-alert-secs" "SECS" "60"
        "a channel that is not heard while the other one talks for so many seconds is reported; 0: none is"
    max_connections "AUDIO_MAX_CONNECTIONS" "max-connections" "COUNT" "20000"
        "beyond so many open connections new ones are refused"
    max_duration_secs "AUDIO_MAX_DURATION_SECS" "max-duration-secs" "SECS" "14400"
        "a recording longer than so many seconds is closed and goes on as a second part"
    min_free_bytes "AUDIO_MIN_FREE_BYTES" "min-free-bytes" "BYTES" "1073741824"
        "below so much free space on the spool's disk new connections are refused"
    shutdown_secs "AUDIO_SHUTDOWN_SECS" "shutdown-secs" "SECS" "30"
        "seconds of grace at SIGTERM: what is not published by then is published by the next start"
    on_stop "AUDIO_ON_STOP" "on-stop" "CHOICE" "resume"
        "what becomes of open connections at SIGTERM: resume (the next start goes on with them, one recording each) or \
         finish (they are finalised and published now)"
    log "AUDIO_LOG" "log" "FILTER" "info"
        "what is logged: a level, or a filter such as info,sidetape::io=debug"
    log_format "AUDIO_LOG_FORMAT" "log-format" "FORMAT" "text"
        "text or json"
}
