//! Reads settings one after the other: texts become values within bounds, and what is wrong is gathered.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;

use super::{
    Config, Fault, HIDDEN, PortRange, RecordingFormat, SECRETS, Secret, Settings, StorageKind, VARIABLES,
};
use crate::publish::key::longest;

/// `sun_path` of Linux has 108 bytes, the last of them a zero.
pub(super) const UNIX_PATH_MAX_BYTES: usize = 107;

/// ±30 dB is a factor of 32: more is a typing error, and would only be clipping or silence.
pub(super) const GAIN_DB: RangeInclusive<f32> = -30.0..=30.0;

/// Fewer can be guessed.
const SECRET_MIN_BYTES: usize = 16;

/// Cloud stores take names of 1,024 bytes; the rest is for what tells recordings of one name apart.
const KEY_MAX_BYTES: usize = 1000;

pub(super) const CALL_PLACEHOLDERS: [&str; 3] = ["{id}", "{connection_id}", "{conversation_id}"];
pub(super) const OTHER_PLACEHOLDERS: [&str; 5] = ["{tenant}", "{yyyy}", "{mm}", "{dd}", "{hh}"];

pub(super) const PATH_TAKES: &str = "a path that is not blank";
pub(super) const BUCKET_TAKES: &str = "a bucket or container with an optional /prefix, without a scheme; with the longest \
     key of AUDIO_OBJECT_KEY at most 1000 bytes";
pub(super) const BACKUP_TAKES: &str = "local or gcs or s3 or azure, or nothing for no backup";
pub(super) const SOCKET_TAKES: &str = "a path of at most 107 bytes";
pub(super) const UDP_TAKES: &str = "an address and a port such as 127.0.0.1:5055, or nothing for no UDP";
pub(super) const HTTP_TAKES: &str =
    "an address and a port such as 127.0.0.1:8080, or unix: and a path of at most 107 bytes";
pub(super) const TAP_KEY_TAKES: &str = "at least 16 bytes of text without control characters";
pub(super) const TOKEN_TAKES: &str = "at least 16 visible ASCII characters without a blank";
pub(super) const PORTS_TAKES: &str = "a range of at least four ports that begins with an even one, such as 20000-20999, or with an address before it: 10.0.0.5:20000-20999";
pub(super) const UIDS_TAKES: &str = "user ids as numbers, separated by commas";
pub(super) const OBJECT_KEY_TAKES: &str = "a relative name in .opus with {id}, {connection_id} or {conversation_id}; \
     also {tenant}, {yyyy}, {mm}, {dd}, {hh}; no other braces; no component that is empty, . or ..; at most 1000 bytes \
     where each id takes 160";

/// Reads the settings one after the other and gathers what is wrong with them.
pub(super) struct Reader<'a> {
    pub(super) settings: &'a Settings,
    pub(super) faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    /// The text of a variable: what was given, else the default.
    pub(super) fn text(&self, variable: &str) -> &'a str {
        self.settings.given(variable).unwrap_or_else(|| default_of(variable))
    }

    pub(super) fn refuse(&mut self, variable: &'static str, takes: &str) {
        let value = if SECRETS.contains(&variable) { HIDDEN } else { self.text(variable) }.to_owned();
        self.faults.push(Fault { variable: variable.into(), value, takes: takes.to_owned() });
    }

    /// The value of a variable that has a default. After a fault the default stands in, so that reading goes on.
    pub(super) fn parsed<T>(
        &mut self,
        variable: &'static str,
        takes: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        if let Some(value) = parse(self.text(variable)) {
            return value;
        }
        self.refuse(variable, takes);
        parse(default_of(variable)).expect("the defaults in the table are valid")
    }

    /// The value of a variable that is unset by default.
    pub(super) fn optional<T>(
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

    pub(super) fn boolean(&mut self, variable: &'static str) -> bool {
        self.parsed(variable, "true or false", |text| match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        })
    }

    pub(super) fn choice<T: ValueEnum>(&mut self, variable: &'static str) -> T {
        let names: Vec<String> = T::value_variants().iter().map(name_of).collect();
        self.parsed(variable, &names.join(" or "), |text| T::from_str(text, false).ok())
    }

    pub(super) fn whole<T>(&mut self, variable: &'static str, unit: &str, range: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        let takes = format!("{unit} from {} to {}", range.start(), range.end());
        self.parsed(variable, &takes, |text| text.parse().ok().filter(|value| range.contains(value)))
    }

    pub(super) fn secs(&mut self, variable: &'static str, range: RangeInclusive<u64>) -> Duration {
        Duration::from_secs(self.whole(variable, "whole seconds", range))
    }

    pub(super) fn millis(&mut self, variable: &'static str, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.whole(variable, "whole milliseconds", range))
    }

    /// A backup has a kind and a place, which is another than that of the first choice.
    fn refuse_odd_backup(&mut self, config: &Config) {
        let path = config.backup_path.as_str();
        match config.backup_storage {
            None if !path.is_empty() => {
                self.refuse("AUDIO_BACKUP_STORAGE_PATH", "nothing unless AUDIO_BACKUP_STORAGE_TYPE is set");
            }
            Some(_) if path.is_empty() => {
                self.refuse("AUDIO_BACKUP_STORAGE_TYPE", "AUDIO_BACKUP_STORAGE_PATH beside it");
            }
            Some(kind) if kind == config.storage && path == config.storage_path => {
                self.refuse("AUDIO_BACKUP_STORAGE_PATH", "another place than AUDIO_STORAGE_PATH");
            }
            Some(kind) if kind != StorageKind::Local && !is_bucket(path, &config.object_key) => {
                self.refuse("AUDIO_BACKUP_STORAGE_PATH", BUCKET_TAKES);
            }
            _ => {}
        }
    }

    /// Checks that need more than one value.
    pub(super) fn refuse_conflicts(&mut self, config: &Config) {
        let gains =
            [("AUDIO_LEFT_GAIN_DB", config.left_gain_db), ("AUDIO_RIGHT_GAIN_DB", config.right_gain_db)];
        for (variable, gain_db) in gains {
            if gain_db != 0.0 && config.format != RecordingFormat::Compat {
                self.refuse(variable, "0 unless AUDIO_FORMAT=compat");
            }
        }
        if config.storage != StorageKind::Local && !is_bucket(&config.storage_path, &config.object_key) {
            self.refuse("AUDIO_STORAGE_PATH", BUCKET_TAKES);
        }
        self.refuse_odd_backup(config);
        let http = config.http_listen.as_deref().and_then(socket_addr);
        for (variable, address) in [("AUDIO_UDP_LISTEN", config.udp_listen), ("AUDIO_HTTP_LISTEN", http)] {
            let is_remote = address.is_some_and(|address| !address.ip().to_canonical().is_loopback());
            if is_remote && !config.allow_remote {
                self.refuse(variable, "a loopback address unless AUDIO_ALLOW_REMOTE=true");
            }
        }
        let is_remote = config.rtp_ports.is_some_and(|ports| !ports.host.to_canonical().is_loopback());
        if is_remote && !config.allow_remote {
            self.refuse("AUDIO_RTP_PORTS", "a loopback address unless AUDIO_ALLOW_REMOTE=true");
        }
        if config.rtp_ports.is_some()
            && config.http_listen.is_none()
            && self.settings.given("AUDIO_HTTP_LISTEN").is_none()
        {
            self.refuse("AUDIO_RTP_PORTS", "nothing unless AUDIO_HTTP_LISTEN is set, which opens them");
        }
        if config.unix_dgram.is_some() && config.unix_dgram == config.unix_stream {
            self.refuse("AUDIO_UNIX_STREAM", "another path than AUDIO_UNIX_DGRAM");
        }
        if config.unix_dgram.is_some() && config.unix_allow_uids.is_some() {
            self.refuse(
                "AUDIO_UNIX_DGRAM",
                "nothing where AUDIO_UNIX_ALLOW_UIDS is set: the sender of a datagram cannot be checked",
            );
        }
        // A path that was given but refused has its own fault, which is enough.
        let is_given = |variable| self.settings.given(variable).is_some();
        if config.udp_listen.is_none() && !is_given("AUDIO_UNIX_DGRAM") && !is_given("AUDIO_UNIX_STREAM") {
            self.refuse("AUDIO_UDP_LISTEN", "an address unless AUDIO_UNIX_DGRAM or AUDIO_UNIX_STREAM is set");
        }
    }
}

pub(super) fn default_of(variable: &str) -> &'static str {
    let row = VARIABLES.iter().find(|row| row.name == variable);
    row.expect("each variable that is read is in the table").default
}

pub(super) fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|possible| possible.get_name().to_owned()).unwrap_or_default()
}

/// An address and a port, where `localhost` stands for 127.0.0.1 as it does nearly everywhere.
pub(super) fn socket_addr(text: &str) -> Option<SocketAddr> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric.as_deref().unwrap_or(text).parse().ok()
}

pub(super) fn udp_listen(text: &str) -> Option<Option<SocketAddr>> {
    if text.is_empty() {
        return Some(None);
    }
    socket_addr(text).map(Some)
}

pub(super) fn path(text: &str) -> Option<String> {
    (!text.trim().is_empty()).then(|| text.to_owned())
}

/// Whether a path is a bucket or container and an optional prefix, short enough for the longest key.
fn is_bucket(path: &str, template: &str) -> bool {
    let path = path.strip_suffix('/').unwrap_or(path);
    let (bucket, prefix) =
        path.split_once('/').map_or((path, None), |(bucket, prefix)| (bucket, Some(prefix)));
    let is_name = bucket.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    let is_inside = path.split('/').all(|component| !matches!(component, "" | "." | ".."));
    let is_plain = !path.contains(char::is_control);
    let bytes = longest(template) + prefix.map_or(0, |prefix| prefix.len() + 1);
    is_name && is_inside && is_plain && bytes <= KEY_MAX_BYTES
}

pub(super) fn socket_path(text: &str) -> Option<PathBuf> {
    path(text).filter(|text| text.len() <= UNIX_PATH_MAX_BYTES).map(PathBuf::from)
}

pub(super) fn http_listen(text: &str) -> Option<String> {
    match text.strip_prefix("unix:") {
        Some(path) => socket_path(path).map(|_| text.to_owned()),
        None => socket_addr(text).map(|address| address.to_string()),
    }
}

pub(super) fn tap_key(text: &str) -> Option<Secret> {
    let is_strong = text.len() >= SECRET_MIN_BYTES && !text.contains(char::is_control);
    is_strong.then(|| Secret::new(text))
}

pub(super) fn token(text: &str) -> Option<Secret> {
    let is_strong = text.len() >= SECRET_MIN_BYTES && text.chars().all(|c| c.is_ascii_graphic());
    is_strong.then(|| Secret::new(text))
}

pub(super) fn port_range(text: &str) -> Option<PortRange> {
    let (host, ports) = text.rsplit_once(':').unwrap_or(("127.0.0.1", text));
    let host = match host {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => host.trim_start_matches('[').trim_end_matches(']').parse().ok()?,
    };
    let (low, high) = ports.split_once('-')?;
    let range = PortRange { host, low: low.parse().ok()?, high: high.parse().ok()? };
    let is_sound = range.low >= 2 && range.low.is_multiple_of(2) && range.high.checked_sub(range.low)? >= 3;
    is_sound.then_some(range)
}

pub(super) fn uids(text: &str) -> Option<Vec<u32>> {
    text.split(',').map(|uid| uid.trim().parse().ok()).collect()
}

pub(super) fn object_key(text: &str) -> Option<String> {
    let is_inside = text.split('/').all(|component| !matches!(component, "" | "." | ".."));
    let names_the_call = CALL_PLACEHOLDERS.iter().any(|placeholder| text.contains(placeholder));
    let mut literal = text.to_owned();
    for placeholder in CALL_PLACEHOLDERS.iter().chain(&OTHER_PLACEHOLDERS) {
        literal = literal.replace(placeholder, "_");
    }
    let is_plain = !literal.contains(['{', '}']) && !literal.contains(char::is_control);
    let is_short = longest(text) <= KEY_MAX_BYTES;
    (is_inside && names_the_call && is_plain && is_short && text.ends_with(".opus")).then(|| text.to_owned())
}
