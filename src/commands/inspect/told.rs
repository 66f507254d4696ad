//! What a manifest tells, read with tolerance: any field may be missing, of another type, or absurd.
//!
//! A manifest may come from a later version, from a backup, or from somebody's editor. What cannot be read as what it
//! should be is as good as not there. All text is made plain here, so that no control character of it reaches a
//! terminal.

use serde_json::Value;

use crate::id::Channel;
use crate::time::Samples48k;

/// The schema that this version writes.
const SCHEMA: u64 = 1;
/// Texts longer than this are cut.
const TEXT_MAX: usize = 200;
/// Of each list so many entries are looked at: twice what this version writes.
const ENTRIES_MAX: usize = 4000;
/// A position beyond this is absurd: ten days.
const TIME_MAX_MS: f64 = 864_000_000.0;

/// A manifest's content.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) is_later: bool,
    pub(super) connection_id: Option<String>,
    pub(super) conversation_id: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) outcome: Option<String>,
    pub(super) reasons: Vec<String>,
    pub(super) started_at: Option<String>,
    pub(super) duration: Option<Samples48k>,
    pub(super) part: Option<u64>,
    pub(super) has_file: bool,
    pub(super) bytes: Option<u64>,
    pub(super) sha256: Option<String>,
    pub(super) channels: [ToldChannel; 2],
    pub(super) marks: Vec<ToldMark>,
    pub(super) paused: Vec<ToldPause>,
}

/// One channel's counts, as text where they are only shown.
#[derive(Clone, Debug, Default)]
pub(super) struct ToldChannel {
    pub(super) codec: Option<String>,
    pub(super) is_transcoded: Option<bool>,
    pub(super) packets: Option<u64>,
    pub(super) lost: Option<u64>,
    pub(super) recovered: Option<u64>,
    pub(super) duplicate: Option<u64>,
    pub(super) reordered: Option<u64>,
    pub(super) late: Option<u64>,
    pub(super) socket_lost: Option<u64>,
    pub(super) slips: Option<u64>,
    pub(super) silence_ms: Option<u64>,
    pub(super) drift_ppm: Option<f64>,
    pub(super) error_ms: Option<f64>,
    pub(super) holes: Vec<ToldHole>,
    pub(super) more_holes: Option<ToldMore>,
}

/// Stretches that are told together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToldMore {
    pub(super) count: u64,
    pub(super) lost: Samples48k,
    pub(super) silence: Samples48k,
    /// Where they are. Manifests of earlier versions do not say.
    pub(super) minutes: Vec<ToldMinute>,
}

/// How much of them is between two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ToldMinute {
    pub(super) from: Samples48k,
    pub(super) to: Samples48k,
    pub(super) lost: Samples48k,
    pub(super) silence: Samples48k,
}

/// A stretch without audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ToldHole {
    pub(super) is_loss: bool,
    pub(super) from: Samples48k,
    pub(super) to: Samples48k,
}

/// A named moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToldMark {
    pub(super) at: Samples48k,
    pub(super) name: String,
    pub(super) channel: Option<Channel>,
}

/// A stretch that was not kept. Without a channel, of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ToldPause {
    pub(super) channel: Option<Channel>,
    pub(super) from: Samples48k,
    pub(super) to: Samples48k,
}

impl Told {
    /// Reads what there is of a manifest.
    pub(super) fn of(manifest: &Value) -> Self {
        let text = |name: &str| text(&manifest[name]);
        let file = &manifest["file"];
        Self {
            is_later: manifest["schema"].as_u64().is_none_or(|schema| schema > SCHEMA),
            connection_id: text("connection_id"),
            conversation_id: text("conversation_id"),
            tenant: text("tenant"),
            outcome: text("outcome"),
            reasons: entries(&manifest["reasons"]).filter_map(self::text).collect(),
            started_at: text("started_at"),
            duration: time(&manifest["duration_ms"]),
            part: manifest["part"].as_u64(),
            has_file: file.is_object(),
            bytes: file["bytes"].as_u64(),
            sha256: self::text(&file["sha256"]),
            channels: Channel::BOTH.map(|channel| ToldChannel::of(&manifest["channels"][channel.name()])),
            marks: entries(&manifest["marks"]).filter_map(mark).collect(),
            paused: entries(&manifest["paused"]).filter_map(pause).collect(),
        }
    }
}

impl ToldChannel {
    fn of(counts: &Value) -> Self {
        let count = |name: &str| counts[name].as_u64();
        Self {
            codec: text(&counts["codec"]),
            is_transcoded: counts["transcoded"].as_bool(),
            packets: count("packets"),
            lost: count("lost"),
            recovered: count("recovered"),
            duplicate: count("duplicate"),
            reordered: count("reordered"),
            late: count("late"),
            socket_lost: count("socket_lost"),
            slips: count("slips"),
            silence_ms: count("silence_ms"),
            drift_ppm: counts["drift_ppm"].as_f64(),
            error_ms: counts["error_ms"].as_f64(),
            holes: entries(&counts["holes"]).filter_map(hole).collect(),
            more_holes: more(&counts["more_holes"]),
        }
    }
}

fn more(told: &Value) -> Option<ToldMore> {
    let length = |of: &Value, name: &str| time(&of[name]).unwrap_or_default();
    let (lost, silence) = (length(told, "lost_ms"), length(told, "silence_ms"));
    let minute = |of: &Value| {
        let (from, to) = stretch(of)?;
        Some(ToldMinute { from, to, lost: length(of, "lost_ms"), silence: length(of, "silence_ms") })
    };
    let minutes = entries(&told["minutes"]).filter_map(minute).collect();
    Some(ToldMore { count: told["count"].as_u64().filter(|count| *count > 0)?, lost, silence, minutes })
}

fn entries(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten().take(ENTRIES_MAX)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(plain)
}

#[expect(clippy::cast_possible_truncation, reason = "bounded before")]
fn time(ms: &Value) -> Option<Samples48k> {
    let ms = ms.as_f64().filter(|ms| (0.0..=TIME_MAX_MS).contains(ms))?;
    Some(Samples48k((ms * 48.0).round() as i64))
}

fn stretch(value: &Value) -> Option<(Samples48k, Samples48k)> {
    let (from, to) = (time(&value["from_ms"])?, time(&value["to_ms"])?);
    (from <= to).then_some((from, to))
}

fn hole(value: &Value) -> Option<ToldHole> {
    let (from, to) = stretch(value)?;
    Some(ToldHole { is_loss: value["lost"].as_bool()?, from, to })
}

fn mark(value: &Value) -> Option<ToldMark> {
    let mut name = text(&value["name"]).unwrap_or_else(|| "unnamed".to_owned());
    // What was pressed is what one looks for.
    if let (true, Some(event)) = (name == "telephone-event", text(&value["event"])) {
        name = format!("key {event}");
    }
    Some(ToldMark { at: time(&value["offset_ms"])?, name, channel: channel(&value["channel"]) })
}

fn pause(value: &Value) -> Option<ToldPause> {
    let (from, to) = stretch(value)?;
    Some(ToldPause { channel: channel(&value["channel"]), from, to })
}

fn channel(value: &Value) -> Option<Channel> {
    Channel::BOTH.into_iter().find(|channel| value.as_str() == Some(channel.name()))
}

/// Makes text from outside fit for a terminal: what is no visible character is written as an escape, and what is
/// endless is cut.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == TEXT_MAX {
            plain.push('\u{2026}');
            break;
        }
        // Besides control characters: those that turn the direction of writing, and those without width.
        let is_hidden = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        match is_hidden {
            true => plain.extend(c.escape_default()),
            false => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_of_the_wrong_type_is_as_good_as_not_there() {
        let told = Told::of(&json!({
            "schema": "two", "connection_id": 7, "outcome": ["ok"], "reasons": {"a": 1}, "duration_ms": -1,
            "file": [1], "channels": {"caller": "none", "ai": {"lost": -3, "drift_ppm": "x", "holes": [
                {"lost": true, "from_ms": 5, "to_ms": 4}, {"lost": 1, "from_ms": 1, "to_ms": 2}, 7,
                {"lost": true, "from_ms": 1e300, "to_ms": 1e300}, {"lost": false, "from_ms": 1, "to_ms": 2}]}},
            "marks": [{"offset_ms": 1e40}, {"offset_ms": 20}, "x"], "paused": 9,
        }));
        assert!(told.is_later && !told.has_file);
        assert_eq!((told.connection_id, told.outcome, told.duration), (None, None, None));
        assert_eq!(told.channels[1].lost, None);
        let hole = ToldHole { is_loss: false, from: Samples48k(48), to: Samples48k(96) };
        assert_eq!(told.channels[1].holes, [hole]);
        let mark = ToldMark { at: Samples48k(960), name: "unnamed".to_owned(), channel: None };
        assert_eq!((told.marks, told.paused), (vec![mark], Vec::new()));
        assert!(Told::of(&Value::Null).is_later);
    }

    #[test]
    fn nothing_in_a_text_moves_the_cursor_or_turns_the_line() {
        assert_eq!(plain("a\x1b[2Jb\nc\u{202e}d\u{9b}"), "a\\u{1b}[2Jb\\nc\\u{202e}d\\u{9b}");
        assert_eq!(plain("caf\u{e9} \u{4f60}"), "caf\u{e9} \u{4f60}");
        assert_eq!(plain(&"x".repeat(500)).chars().count(), TEXT_MAX + 1);
    }
}
