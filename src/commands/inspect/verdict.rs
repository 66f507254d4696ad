//! Judges a recording: is the file sound, is the call whole, and is there something that nobody should overlook?

use super::told::Told;
use crate::id::Channel;
use crate::io::listen::{Heard, Level};
use crate::picture::{Tone, clock};
use crate::time::Samples48k;

/// How far the file's length may be from the manifest's, which is in whole milliseconds: 2 ms.
pub(super) const DURATION_SLACK: i64 = 96;
/// A channel of a call of this length that is active for less than a two-hundredth is all but silent: 10 s.
const LONG_ENOUGH: i64 = 480_000;

/// A judgement.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub(super) tone: Tone,
    /// One or two words.
    pub(super) word: String,
    /// Why.
    pub(super) because: String,
    /// What is wrong with the file or the manifest. With any, the inspection has failed.
    pub(super) faults: Vec<String>,
    /// What is strange about the sound.
    pub(super) warnings: Vec<String>,
}

/// What is to be judged.
pub(super) struct Evidence<'a> {
    pub(super) heard: Option<&'a Heard>,
    pub(super) told: Option<&'a Told>,
    /// Why the file could not be listened to.
    pub(super) unheard: Option<&'a str>,
    /// Why there is nothing told.
    pub(super) untold: Option<&'a str>,
}

impl<'a> Evidence<'a> {
    /// What was heard and told; each with why not, where it was not.
    pub(super) fn of(
        heard: &'a (Option<Heard>, Option<String>),
        told: &'a (Option<Told>, Option<String>),
    ) -> Self {
        Self {
            heard: heard.0.as_ref(),
            told: told.0.as_ref(),
            unheard: heard.1.as_deref(),
            untold: told.1.as_deref(),
        }
    }
}

/// Judges.
pub(super) fn judge(evidence: &Evidence<'_>) -> Verdict {
    let mut faults: Vec<String> = evidence.unheard.map(str::to_owned).into_iter().collect();
    let mut warnings = Vec::new();
    if let Some(heard) = evidence.heard {
        faults.extend(file_faults(heard));
        faults.extend(evidence.told.into_iter().flat_map(|told| disagreements(heard, told)));
        warnings.extend(sound_warnings(heard, has_roles(evidence)));
    }
    let outcome = evidence.told.and_then(|told| told.outcome.as_deref());
    let reasons = evidence.told.map(|told| told.reasons.join(", ")).unwrap_or_default();
    let (mut tone, word, because) = if evidence.unheard.is_some() {
        (Tone::Bad, "unreadable", faults.join("; "))
    } else if !faults.is_empty() {
        (Tone::Bad, "damaged", faults.join("; "))
    } else {
        match (outcome, evidence.untold) {
            (Some("ok"), _) if reasons.is_empty() => (Tone::Good, "whole", "nothing was lost".to_owned()),
            (Some("ok"), _) => (Tone::Good, "whole", reasons),
            (Some("absent"), _) if reasons.is_empty() => {
                (Tone::Warning, "absent", "no audio came on either channel".to_owned())
            }
            (Some("declined"), _) if reasons.is_empty() => {
                (Tone::Good, "declined", "nobody wanted it kept".to_owned())
            }
            (Some("failed"), _) => (Tone::Bad, "failed", reasons),
            (Some(outcome), _) => (Tone::Warning, outcome, reasons),
            (None, untold) => {
                let untold = untold.unwrap_or("the manifest names no outcome");
                (Tone::Unknown, "unknown", format!("the file itself is sound, but {untold}"))
            }
        }
    };
    if tone == Tone::Good && !warnings.is_empty() {
        tone = Tone::Warning;
    }
    Verdict { tone, word: word.to_owned(), because, faults, warnings }
}

/// Whether the channels are known to be caller and AI.
pub(super) fn has_roles(evidence: &Evidence<'_>) -> bool {
    let has_tag = |heard: &Heard| heard.tags.as_ref().is_some_and(|tags| tags.comment("CHANNELS").is_some());
    evidence.told.is_some() || evidence.heard.is_some_and(has_tag)
}

/// What a channel of a file is called.
pub(super) fn label(index: usize, count: usize, has_roles: bool) -> &'static str {
    match (count, index, has_roles) {
        (1, ..) => "mono",
        (_, 0, true) => "caller (left)",
        (_, 0, false) => "left",
        (_, _, true) => "AI (right)",
        (_, _, false) => "right",
    }
}

fn file_faults(heard: &Heard) -> Vec<String> {
    let mut faults = Vec::new();
    let mut say = |is_so: bool, fault: String| {
        if is_so {
            faults.push(fault);
        }
    };
    if let Some(first) = heard.damage.first() {
        let bytes: u64 = heard.damage.iter().map(|damage| damage.bytes).sum();
        let places = counted(heard.damage.len(), "place", "places");
        say(
            true,
            format!("{bytes} bytes in {places} are unreadable, first at {}: {}", first.offset, first.fault),
        );
    }
    say(heard.stopped.is_some(), heard.stopped.unwrap_or_default().to_owned());
    let pages = usize::try_from(heard.missing_pages).unwrap_or(usize::MAX);
    say(pages > 0, format!("{} missing", counted(pages, "page is", "pages are")));
    if let Some((from, _)) = heard.missing.first() {
        let missing = heard.missing.iter().map(|(from, to)| to.0 - from.0).sum();
        let (missing, from) = (clock(Samples48k(missing), true), clock(*from, true));
        say(true, format!("{missing} of audio is missing from the file, first at {from}"));
    }
    say(heard.torn_packets > 0, format!("{} packets are torn", heard.torn_packets));
    say(heard.undecodable > 0, format!("{} packets do not decode", heard.undecodable));
    say(heard.wrong_positions > 0, format!("{} page positions are wrong", heard.wrong_positions));
    say(heard.tags.is_none(), "the comment header is missing or unreadable".to_owned());
    say(heard.packets == 0, "there is no audio in it".to_owned());
    say(!heard.is_ended, "it is cut off: the end-of-stream flag is missing".to_owned());
    faults
}

fn disagreements(heard: &Heard, told: &Told) -> Vec<String> {
    let mut faults = Vec::new();
    if let Some(bytes) = told.bytes.filter(|bytes| *bytes != heard.bytes) {
        faults.push(format!("it has {} bytes, the manifest says {bytes}", heard.bytes));
    }
    if told.sha256.as_ref().is_some_and(|sha256| !sha256.eq_ignore_ascii_case(&heard.sha256)) {
        faults.push("its sha256 is not the manifest's".to_owned());
    }
    if let Some(duration) = told.duration
        && duration.0.abs_diff(heard.duration.0) > DURATION_SLACK.unsigned_abs()
    {
        let [is, should] = [heard.duration, duration].map(|duration| clock(duration, true));
        faults.push(format!("it plays {is}, the manifest says {should}"));
    }
    faults
}

fn sound_warnings(heard: &Heard, has_roles: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    let count = heard.channels.len();
    for (index, channel) in heard.channels.iter().enumerate() {
        let name = match label(index, count, has_roles) {
            "mono" => "the file",
            "caller (left)" => "the caller's channel",
            "AI (right)" => "the AI's channel",
            "left" => "the left channel",
            _ => "the right channel",
        };
        let Level { active, .. } = channel.level;
        if heard.packets == 0 {
            continue;
        }
        if active.0 == 0 {
            warnings.push(format!("{name} is silent all the way"));
        } else if heard.duration.0 >= LONG_ENOUGH && active.0 < heard.duration.0 / 200 {
            warnings.push(format!("{name} is all but silent: {} of sound", clock(active, true)));
        }
    }
    if heard.is_identical {
        warnings.push("both channels are identical".to_owned());
    }
    warnings
}

/// A number with its noun.
pub(super) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// The manifest's channel for a channel of the file, if the file has both.
pub(super) fn channel_of(index: usize, count: usize) -> Option<Channel> {
    Channel::BOTH.get(index).copied().filter(|_| count == 2)
}
