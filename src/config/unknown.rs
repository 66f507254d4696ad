//! Variables `AUDIO_…` that nobody knows: mostly a typing error, which would leave a setting at its default in silence.
//!
//! Kubernetes gives each container the address of each service of its namespace, so a service named `audio-gateway` makes
//! `AUDIO_GATEWAY_SERVICE_HOST` and more. Those are nobody's error and are left alone.

use super::{Fault, HIDDEN, SECRETS, VARIABLES};

/// How all settings begin.
const PREFIX: &str = "AUDIO_";
/// What names of secrets contain, as people write them: their values are not to be shown.
const SECRET_WORDS: [&str; 5] = ["KEY", "TOKEN", "SECRET", "PASS", "CREDENTIAL"];
/// What Kubernetes and Docker write before an address.
const SCHEMES: [&str; 3] = ["tcp://", "udp://", "sctp://"];

/// Returns a fault for each variable of an environment that begins with `AUDIO_` and is no setting, in the order of their
/// names. An empty one counts as unset.
#[must_use]
pub fn unknown(environment: impl IntoIterator<Item = (String, String)>) -> Vec<Fault> {
    let is_fault = |(name, value): &(String, String)| {
        name.starts_with(PREFIX)
            && !value.is_empty()
            && VARIABLES.iter().all(|row| row.name != name)
            && !is_service_address(name, value)
    };
    let mut found: Vec<_> = environment.into_iter().filter(is_fault).collect();
    found.sort_unstable();
    found.into_iter().map(|(name, value)| fault(name, value)).collect()
}

fn fault(name: String, value: String) -> Fault {
    let nearest = nearest(&name);
    let is_secret = SECRETS.contains(&nearest) || SECRET_WORDS.iter().any(|word| name.contains(word));
    let value = if is_secret { HIDDEN.to_owned() } else { value };
    let takes = format!("nothing, as there is no such variable; the nearest name is {nearest}");
    Fault { variable: name.into(), value, takes }
}

/// The setting whose name is most like another.
fn nearest(name: &str) -> &'static str {
    let likeness = |row: &str| {
        let (row, name) = (row.trim_start_matches(PREFIX), name.trim_start_matches(PREFIX));
        // What is left out or added as a whole word weighs less than letters that differ: `SPOOL` means `SPOOL_DIR`.
        let words = |text: &str| text.split('_').map(str::to_owned).collect::<Vec<_>>();
        let (row_words, name_words) = (words(row), words(name));
        let common = name_words.iter().filter(|word| row_words.contains(word)).count();
        let letters = strsim::normalized_damerau_levenshtein(row, name);
        letters
            + 0.5 * strsim::jaro_winkler(row, name)
            + 0.1 * f64::from(u8::try_from(common).unwrap_or(u8::MAX))
    };
    let by_likeness =
        |a: &&super::Variable, b: &&super::Variable| likeness(a.name).total_cmp(&likeness(b.name));
    VARIABLES.iter().max_by(by_likeness).map_or("", |row| row.name)
}

/// Whether a variable is what Kubernetes, or a link of Docker, says of another service.
fn is_service_address(name: &str, value: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if name.ends_with("_SERVICE_HOST") {
        return true;
    }
    if name.ends_with("_SERVICE_PORT") {
        return is_number(value);
    }
    if name.contains("_SERVICE_PORT_") {
        return is_number(value);
    }
    if let Some((_, port)) = name.rsplit_once("_PORT_") {
        // `AUDIO_PORT_80_TCP` and `…_TCP_ADDR`, `…_PORT`, `…_PROTO`; the last of these has no `_PORT_` of its own.
        let mut parts = port.split('_');
        let is_port = parts.next().is_some_and(is_number);
        let is_protocol = parts.next().is_some_and(|name| ["TCP", "UDP", "SCTP"].contains(&name));
        return is_port && is_protocol;
    }
    name.ends_with("_PORT") && SCHEMES.iter().any(|scheme| value.starts_with(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(environment: &[(&str, &str)]) -> Vec<String> {
        let owned = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        unknown(owned).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_is_told_with_its_value_and_the_nearest_name() {
        assert_eq!(
            lines(&[
                ("PATH", "/bin"),
                ("AUDIO_STORAGE_PTH", "/rec"),
                ("AUDIO_SPOOL_DIR", "/spool"),
                ("AUDIO_LOG_LEVEL", "debug"),
                ("AUDIODEV", "/dev/dsp"),
                ("XAUDIO_FORMAT", "x"),
                ("AUDIO_TAIL", ""),
            ]),
            [
                "AUDIO_LOG_LEVEL=\"debug\": takes nothing, as there is no such variable; the nearest name is AUDIO_LOG",
                "AUDIO_STORAGE_PTH=\"/rec\": takes nothing, as there is no such variable; the nearest name is AUDIO_STORAGE_PATH",
            ]
        );
        for (wrong, right) in [
            ("AUDIO_SPOOL", "AUDIO_SPOOL_DIR"),
            ("AUDIO_SPOOLDIR", "AUDIO_SPOOL_DIR"),
            ("AUDIO_SPOOL_PATH", "AUDIO_SPOOL_DIR"),
            ("AUDIO_STORAGE", "AUDIO_STORAGE_PATH"),
            ("AUDIO_STORGE_TYPE", "AUDIO_STORAGE_TYPE"),
            ("AUDIO_HTTP_LISTN", "AUDIO_HTTP_LISTEN"),
            ("AUDIO_RETENTION_SEC", "AUDIO_RETENTION_SECS"),
            ("AUDIO_RETENTION", "AUDIO_RETENTION_SECS"),
            ("AUDIO_RTP_PORT", "AUDIO_RTP_PORTS"),
            ("AUDIO_MAX_CALLS", "AUDIO_MAX_CONNECTIONS"),
            ("AUDIO_LOGFORMAT", "AUDIO_LOG_FORMAT"),
            ("AUDIO_TAPKEY", "AUDIO_TAP_KEY"),
            ("AUDIO_Udp_LISTEN", "AUDIO_UDP_LISTEN"),
        ] {
            assert_eq!(nearest(wrong), right, "{wrong}");
        }
    }

    #[test]
    fn no_secret_is_shown_under_a_name_with_a_typing_error() {
        for name in ["AUDIO_TAP_KYE", "AUDIO_TAPKEY", "AUDIO_HTTP_TOKN", "AUDIO_TOKEN", "AUDIO_S3_PASSWORD"] {
            let line = &lines(&[(name, "hunter2")])[0];
            assert!(!line.contains("hunter2") && line.contains(HIDDEN), "{line}");
        }
    }

    #[test]
    fn what_kubernetes_says_of_a_service_is_nobodys_error() {
        assert_eq!(
            lines(&[
                ("AUDIO_SERVICE_HOST", "10.0.0.1"),
                ("AUDIO_GATEWAY_SERVICE_HOST", "10.0.0.1"),
                ("AUDIO_GATEWAY_SERVICE_PORT", "80"),
                ("AUDIO_GATEWAY_SERVICE_PORT_HTTP", "80"),
                ("AUDIO_GATEWAY_PORT", "tcp://10.0.0.1:80"),
                ("AUDIO_PORT_80_TCP", "tcp://10.0.0.1:80"),
                ("AUDIO_PORT_80_TCP_ADDR", "10.0.0.1"),
                ("AUDIO_PORT_80_TCP_PORT", "80"),
                ("AUDIO_PORT_80_TCP_PROTO", "tcp"),
            ]),
            [""; 0]
        );
        assert_eq!(lines(&[("AUDIO_RTP_PORT", "20000-20999"), ("AUDIO_PORT_RANGE", "1-2")]).len(), 2);
    }
}
