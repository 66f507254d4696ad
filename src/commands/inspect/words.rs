//! The summary in words: the verdict first, then the recording, its channels, what is missing and where.

use std::fmt::Write as _;

use super::told::{Told, ToldChannel, ToldHole, ToldMore, plain};
use super::verdict::{Evidence, Verdict, channel_of, counted, has_roles, label};
use crate::id::Channel;
use crate::io::listen::{Head, Heard};
use crate::picture::clock;
use crate::time::Samples48k;

/// Holes of each kind told one by one, the longest: the picture has them all.
const HOLES_TOLD: usize = 5;
/// Marks and pauses told one by one.
const MARKS_TOLD: usize = 12;
/// The column in which values begin.
const INDENT: usize = 14;
/// The width of a channel's column.
const COLUMN: usize = 22;

/// Puts the summary together. `names` are what the file and the manifest are called.
pub(super) fn summary(evidence: &Evidence<'_>, verdict: &Verdict, [file, manifest]: [&str; 2]) -> String {
    let mut words = Words(String::new());
    words.0.push_str(&verdict.word);
    if !verdict.because.is_empty() {
        words.0.push_str(&format!(": {}", verdict.because));
    }
    words.0.push('\n');
    for warning in &verdict.warnings {
        words.0.push_str(&format!("warning: {warning}\n"));
    }
    words.0.push('\n');
    words.recording(evidence, file);
    words.call(evidence, manifest);
    words.channels(evidence);
    words.missing(evidence);
    if let Some(heard) = evidence.heard {
        words.checks(heard);
    }
    words.0
}

/// The outcome with its reasons, as the manifest has them.
pub(super) fn outcome(told: &Told) -> Option<String> {
    let outcome = told.outcome.clone()?;
    Some(if told.reasons.is_empty() { outcome } else { format!("{outcome}: {}", told.reasons.join(", ")) })
}

/// The text of a comment, or of the manifest where there is none.
pub(super) fn identity(evidence: &Evidence<'_>, comment: &str, told: Option<&String>) -> Option<String> {
    let tags = evidence.heard.and_then(|heard| heard.tags.as_ref());
    told.cloned().or_else(|| tags?.comment(comment).map(plain))
}

struct Words(String);

impl Words {
    fn row(&mut self, name: &str, value: &str) {
        self.0.push_str(&format!("{name:<INDENT$}{value}\n"));
    }

    fn recording(&mut self, evidence: &Evidence<'_>, file: &str) {
        let is_without = evidence.heard.is_none() && evidence.told.is_some_and(|told| told.sha256.is_none());
        self.row("File", if is_without { "none" } else { file });
        let Some(heard) = evidence.heard else { return };
        self.row("Format", &format(heard, evidence.told));
        self.row("Size", &size(heard));
        self.row("Length", &clock(heard.duration, true));
    }

    fn call(&mut self, evidence: &Evidence<'_>, manifest: &str) {
        let told = evidence.told;
        let started = identity(evidence, "START_TIME", told.and_then(|told| told.started_at.as_ref()));
        let connection =
            identity(evidence, "CONNECTION_ID", told.and_then(|told| told.connection_id.as_ref()));
        let conversation =
            identity(evidence, "CONVERSATION_ID", told.and_then(|told| told.conversation_id.as_ref()));
        let outcome = told.and_then(outcome).or_else(|| identity(evidence, "OUTCOME", None));
        let tenant = told.and_then(|told| told.tenant.clone());
        let part = told.and_then(|told| told.part).map(|part| part.to_string());
        for (name, value) in [
            ("Started", started),
            ("Connection", connection),
            ("Conversation", conversation),
            ("Tenant", tenant),
            ("Part", part),
            ("Outcome", outcome),
        ] {
            if let Some(value) = value {
                self.row(name, &value);
            }
        }
        if evidence.heard.is_some() && has_writer(evidence) {
            self.row("Written by", &identity(evidence, "ENCODER", None).unwrap_or_default());
        }
        let state = match (evidence.untold, told) {
            (Some(untold), _) => untold.to_owned(),
            (None, Some(told)) if told.is_later => format!("{manifest}, of a schema that is not known here"),
            (None, Some(told)) if told.sha256.is_none() || evidence.heard.is_none() => manifest.to_owned(),
            (None, Some(told)) if evidence.heard.is_some_and(|heard| is_same(heard, told)) => {
                format!("{manifest}, size and checksum agree")
            }
            (None, _) => format!("{manifest}, which does not agree with the file"),
        };
        self.row("Manifest", &state);
    }

    fn channels(&mut self, evidence: &Evidence<'_>) {
        let count = evidence.heard.map_or(2, |heard| heard.channels.len());
        let roles = has_roles(evidence);
        let columns: Vec<String> = (0..count).map(|index| label(index, count, roles).to_owned()).collect();
        self.0.push('\n');
        self.columns("Channel", &columns);
        let told = |index: usize| {
            channel_of(index, count).and_then(|channel| Some(&evidence.told?.channels[channel.index()]))
        };
        for (name, value) in COUNTS {
            let values: Vec<Option<String>> = (0..count).map(|index| told(index).and_then(value)).collect();
            let is_zero = values.iter().flatten().all(|value| value == "0");
            if values.iter().any(Option::is_some) && !(is_zero && RARE.contains(&name)) {
                let values: Vec<String> =
                    values.into_iter().map(|v| v.unwrap_or_else(|| "-".to_owned())).collect();
                self.columns(name, &values);
            }
        }
        let Some(heard) = evidence.heard else { return };
        let decibels = |value: Option<f64>| {
            value.map_or_else(|| "none, digital silence".to_owned(), |value| format!("{value:.1} dBFS"))
        };
        let levels: Vec<_> = heard.channels.iter().map(|channel| channel.level).collect();
        let loudness = levels.iter().map(|level| match level.active_dbfs {
            Some(active) => format!("{active:.1} dBFS"),
            None => "no sound".to_owned(),
        });
        self.columns("Level", &loudness.collect::<Vec<_>>());
        self.columns("Peak", &levels.iter().map(|level| decibels(level.peak_dbfs)).collect::<Vec<_>>());
        let active = levels.iter().map(|level| {
            let percent = 100 * level.active.0 / heard.duration.0.max(1);
            format!("{} % ({})", percent.clamp(0, 100), clock(level.active, true))
        });
        self.columns("Active", &active.collect::<Vec<_>>());
    }

    fn columns(&mut self, name: &str, values: &[String]) {
        let mut line = format!("{name:<INDENT$}");
        for value in values {
            write!(line, "{value:<COLUMN$}").expect("writing to a string cannot fail");
        }
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }

    fn missing(&mut self, evidence: &Evidence<'_>) {
        let Some(told) = evidence.told else { return };
        let mut lines = Vec::new();
        for channel in Channel::BOTH {
            for is_loss in [true, false] {
                let of_kind =
                    told.channels[channel.index()].holes.iter().filter(|hole| hole.is_loss == is_loss);
                lines.extend(holes(channel, is_loss, of_kind.copied().collect()));
            }
            let more = told.channels[channel.index()].more_holes.as_ref();
            lines.extend(more.map(|more| more_holes(channel, more)));
        }
        self.list("Holes", &lines);
        let pauses = told.paused.iter().map(|pause| {
            let who = pause.channel.map_or("both", Channel::name);
            format!("{who:<8}{}, not kept", span(pause.from, pause.to))
        });
        self.list("Paused", &first(pauses));
        let marks = told.marks.iter().map(|mark| {
            let who = mark.channel.map(|channel| format!(" ({channel})")).unwrap_or_default();
            format!("{:<11} {}{who}", clock(mark.at, true), mark.name)
        });
        self.list("Marks", &first(marks));
    }

    fn list(&mut self, name: &str, lines: &[String]) {
        for (index, line) in lines.iter().enumerate() {
            if index == 0 {
                self.0.push('\n');
            }
            self.row(if index == 0 { name } else { "" }, line);
        }
    }

    fn checks(&mut self, heard: &Heard) {
        let yes = |is_so: bool, good: &str, bad: String| if is_so { good.to_owned() } else { bad };
        let damaged: u64 = heard.damage.iter().map(|damage| damage.bytes).sum();
        let mut lines = vec![
            yes(
                damaged == 0,
                "every page has a right checksum",
                format!("{damaged} bytes are no whole page"),
            ),
            yes(
                heard.wrong_positions == 0 && heard.missing.is_empty() && heard.missing_pages == 0,
                "the positions of pages agree with their packets",
                format!(
                    "positions: {} wrong, {} stretches missing, {} pages missing",
                    heard.wrong_positions,
                    heard.missing.len(),
                    heard.missing_pages
                ),
            ),
            yes(heard.is_ended, "the end of the stream is marked", "no end of the stream".to_owned()),
            yes(
                heard.undecodable + heard.torn_packets == 0,
                "every packet decodes",
                format!("{} packets do not decode, {} are torn", heard.undecodable, heard.torn_packets),
            ),
        ];
        let Head { pre_skip, gain_q8, .. } = &heard.head;
        let mut also = format!("{} packets on {} pages, pre-skip {pre_skip}", heard.packets, heard.pages);
        if *gain_q8 != 0 {
            also.push_str(&format!(", gain {:.2} dB", f64::from(*gain_q8) / 256.0));
        }
        if heard.links > 1 {
            also.push_str(&format!(", {} streams one behind the other", heard.links));
        }
        if heard.foreign_pages > 0 {
            also.push_str(&format!(", {} pages of other streams", heard.foreign_pages));
        }
        lines.push(also);
        self.list("Checked", &lines);
    }
}

type Value = fn(&ToldChannel) -> Option<String>;

/// What is told of each channel.
const COUNTS: [(&str, Value); 12] = [
    ("Codec", |c| Some(c.codec.clone().unwrap_or_else(|| "none".to_owned())).filter(|_| c.packets.is_some())),
    ("Packets", |c| number(c.packets)),
    ("Lost", |c| number(c.lost)),
    ("Recovered", |c| number(c.recovered)),
    ("Duplicate", |c| number(c.duplicate)),
    ("Reordered", |c| number(c.reordered)),
    ("Late", |c| number(c.late)),
    ("Socket lost", |c| number(c.socket_lost)),
    ("Slips", |c| number(c.slips)),
    ("Within", |c| Some(format!("{:.1} ms of its time", c.error_ms?))),
    ("Drift", |c| Some(format!("{:.1} ppm", c.drift_ppm?))),
    ("Silence", |c| Some(clock(Samples48k(i64::try_from(c.silence_ms?.min(1 << 40)).ok()? * 48), true))),
];

/// Not worth a line where they are zero.
const RARE: [&str; 4] = ["Late", "Socket lost", "Slips", "Recovered"];

fn number(count: Option<u64>) -> Option<String> {
    count.map(grouped)
}

/// A number with its thousands apart.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn has_writer(evidence: &Evidence<'_>) -> bool {
    identity(evidence, "ENCODER", None).is_some()
}

fn is_same(heard: &Heard, told: &Told) -> bool {
    let is_hash = told.sha256.as_ref().is_some_and(|sha256| sha256.eq_ignore_ascii_case(&heard.sha256));
    is_hash && told.bytes.is_none_or(|bytes| bytes == heard.bytes)
}

fn format(heard: &Heard, told: Option<&Told>) -> String {
    let Head { streams, coupled, family, channels, .. } = &heard.head;
    let layout = match (channels, streams, coupled) {
        (1, ..) => "mono",
        (_, 2, 0) => "two mono streams",
        (_, 1, 1) => "coupled stereo",
        _ => "stereo out of one mono stream",
    };
    let coded = |told: &Told| {
        let transcoded = told.channels.each_ref().map(|channel| channel.is_transcoded);
        match transcoded {
            [Some(false), Some(false)] => ", nothing transcoded",
            [Some(true), Some(true)] => ", both channels transcoded",
            [Some(true), Some(false)] => ", the caller transcoded",
            [Some(false), Some(true)] => ", the AI transcoded",
            _ => "",
        }
    };
    format!("Ogg Opus, {layout}{} (mapping family {family})", told.map(coded).unwrap_or_default())
}

fn size(heard: &Heard) -> String {
    let ms = u128::from(heard.duration.to_ms());
    let rate = (u128::from(heard.bytes) * 80).checked_div(ms);
    let rate = rate.map(|tenths| format!(", {}.{} kb/s", tenths / 10, tenths % 10)).unwrap_or_default();
    format!("{} bytes{rate}", grouped(heard.bytes))
}

fn span(from: Samples48k, to: Samples48k) -> String {
    format!("{}\u{2013}{}", clock(from, true), clock(to, true))
}

/// A line for each of the longest holes, in order, and one for the others.
fn holes(channel: Channel, is_loss: bool, mut holes: Vec<ToldHole>) -> Vec<String> {
    let who = channel.name();
    let kind = if is_loss { "lost" } else { "silence" };
    let length = |hole: &ToldHole| hole.to.0 - hole.from.0;
    holes.sort_by_key(|hole| std::cmp::Reverse(length(hole)));
    let others = holes.split_off(holes.len().min(HOLES_TOLD));
    holes.sort_by_key(|hole| hole.from);
    let mut lines: Vec<String> =
        holes.iter().map(|hole| format!("{who:<8}{} {kind}", span(hole.from, hole.to))).collect();
    if !others.is_empty() {
        let together = clock(Samples48k(others.iter().map(length).sum()), true);
        let shorter = counted(others.len(), "shorter one", "shorter ones");
        lines.push(format!("{who:<8}and {shorter}, {together} {kind} together"));
    }
    lines
}

/// A line for those that the manifest tells together.
fn more_holes(channel: Channel, more: &ToldMore) -> String {
    let (lost, silence) = (clock(more.lost, true), clock(more.silence, true));
    format!(
        "{:<8}and {} later ones, {lost} lost and {silence} silence together",
        channel.name(),
        grouped(more.count)
    )
}

/// The first few lines, and how many there are beyond.
fn first(lines: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    let more = lines.len().saturating_sub(MARKS_TOLD);
    let mut told: Vec<String> = lines.take(MARKS_TOLD).collect();
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_holes_are_told_in_order_and_the_others_together() {
        let hole = |from: i64, ms: i64| ToldHole {
            is_loss: true,
            from: Samples48k(from * 48_000),
            to: Samples48k(from * 48_000 + ms * 48),
        };
        let many: Vec<_> = (0..9).map(|index| hole(index, 20 + 10 * (index % 3))).collect();
        let lines = holes(Channel::Caller, true, many);
        assert_eq!(lines[0], "caller  0:01.000\u{2013}0:01.030 lost");
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[5], "caller  and 4 shorter ones, 0:00.090 lost together");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(0), "0");
    }
}
