//! What META frames have said about a connection, merged.
//!
//! Later values win, key by key; `labels` merge one level deeper. The keys that the daemon understands are taken
//! out if they have the right form; everything else is kept as given. The whole is bounded by [`MAX_BYTES`], so that
//! a gateway that sends ever new keys cannot fill the memory. Merging an object takes time by its own size and that of what it
//! replaces, not by the size of all. What a payload type means holds from the moment at which it was
//! said; what came before the first such moment is taken to mean the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::{Channel, Scope};
use crate::rtpmap::Rtpmap;
use crate::time::Wall;

/// The most JSON, in bytes of text, that one connection's metadata may amount to.
pub const MAX_BYTES: usize = 64 * 1024;
/// How often a payload type may get another meaning. Of more, the last one counts.
const MEANINGS_MAX: usize = 63;
/// The longest trace context that is believed: W3C has 55 characters in version 00.
const TRACEPARENT_MAX_BYTES: usize = 256;
/// What one meaning of a payload type amounts to.
const MEANING_BYTES: usize = 64;

/// The merged metadata of one connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Names the file instead of the connection id.
    pub conversation_id: Option<String>,
    /// Whose call it is.
    pub tenant: Option<String>,
    /// Free labels: an object of strings.
    pub labels: Map<String, Value>,
    /// Everything that the daemon does not understand itself.
    pub meta: Map<String, Value>,
    /// What was agreed on with those who speak, as the gateway puts it.
    pub consent: Option<Map<String, Value>>,
    /// The call's place in a distributed trace (W3C Trace Context).
    pub traceparent: Option<String>,
    /// Which of the keys that the daemon understands have come with values that it does not.
    #[serde(default)]
    pub not_understood: BTreeSet<String>,
    payload_types: [BTreeMap<u8, Vec<Meaning>>; 2],
    /// What it amounts to in all.
    #[serde(skip)]
    bytes: usize,
}

/// What a payload type means from some moment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Meaning {
    /// When that was received.
    from: Wall,
    rtpmap: Rtpmap,
}

/// The metadata would grow beyond [`MAX_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metadata of one connection exceeds 64 KiB")]
pub struct MetadataFull;

/// Whether a META object asks for a finished connection to open again.
#[must_use]
pub fn asks_to_reopen(meta: &Map<String, Value>) -> bool {
    meta.get("reopen") == Some(&Value::Bool(true))
}

/// What a META object decides about keeping the call, if anything. A `record` that is no boolean never has more kept than was
/// agreed on: `"true"` and 1 change nothing, nor does `null`, and everything else says no.
#[must_use]
pub fn decides(meta: &Map<String, Value>) -> Option<bool> {
    match meta.get("record")? {
        Value::Bool(is_recorded) => Some(*is_recorded),
        Value::Null => None,
        Value::String(text) if text.eq_ignore_ascii_case("true") => None,
        Value::Number(number) if number.as_f64() == Some(1.0) => None,
        _ => Some(false),
    }
}

impl Metadata {
    /// Merges one META object that was received at a moment, with `scope`.
    ///
    /// # Errors
    /// [`MetadataFull`]; nothing of the object is merged then.
    pub fn merge(
        &mut self,
        received: Wall,
        scope: Scope,
        object: &Map<String, Value>,
    ) -> Result<(), MetadataFull> {
        let (mut added, mut replaced) = (0, 0);
        for (key, value) in object {
            let (new, old) = self.sizes(scope, key, value);
            added += new;
            replaced += old;
        }
        let bytes = (self.bytes + added).saturating_sub(replaced);
        if bytes > MAX_BYTES {
            return Err(MetadataFull);
        }
        self.bytes = bytes;
        self.apply(received, scope, object);
        Ok(())
    }

    /// What a key and its value amount to, and what it replaces.
    fn sizes(&self, scope: Scope, key: &str, value: &Value) -> (usize, usize) {
        let text = |old: &Option<String>| old.as_ref().map_or(0, |old| key.len() + size_bytes(old));
        let whole = key.len() + size_bytes(value);
        match Known::of(key, value) {
            Some(Known::ConversationId(_)) => (whole, text(&self.conversation_id)),
            Some(Known::Tenant(_)) => (whole, text(&self.tenant)),
            Some(Known::Traceparent(_)) => (whole, text(&self.traceparent)),
            Some(Known::Consent(_)) => {
                (whole, self.consent.as_ref().map_or(0, |old| key.len() + size_bytes(old)))
            }
            // Each may be another meaning than the last, or one more.
            Some(Known::PayloadTypes(maps)) => (maps.len() * scope.channels().count() * MEANING_BYTES, 0),
            Some(Known::Labels(labels)) => sizes_in(&self.labels, labels.iter()),
            Some(Known::Command) => (0, 0),
            None => sizes_in(&self.meta, std::iter::once((&key.to_owned(), value))),
        }
    }

    fn apply(&mut self, received: Wall, scope: Scope, object: &Map<String, Value>) {
        for (key, value) in object {
            if is_not_understood(key, value) {
                self.not_understood.insert(key.clone());
            }
            match Known::of(key, value) {
                Some(Known::ConversationId(id)) => self.conversation_id = Some(id.to_owned()),
                Some(Known::Tenant(tenant)) => self.tenant = Some(tenant.to_owned()),
                Some(Known::Traceparent(trace)) => self.traceparent = Some(trace.to_owned()),
                Some(Known::Consent(consent)) => self.consent = Some(consent.clone()),
                Some(Known::PayloadTypes(maps)) => {
                    let (counted, added) = (
                        maps.len() * scope.channels().count(),
                        self.map_payload_types(received, scope, maps),
                    );
                    // What was no news takes no room.
                    self.bytes = self.bytes.saturating_sub(counted.saturating_sub(added) * MEANING_BYTES);
                }
                Some(Known::Labels(labels)) => {
                    self.labels.extend(labels.iter().map(|(name, label)| (name.clone(), label.clone())));
                }
                Some(Known::Command) => {}
                None => drop(self.meta.insert(key.clone(), value.clone())),
            }
        }
    }

    /// What `payload_type` means on `channel` now: as the gateway said, or the default of contract section 3.
    #[must_use]
    pub fn rtpmap(&self, channel: Channel, payload_type: u8) -> Rtpmap {
        self.said_rtpmap(channel, payload_type).unwrap_or_else(|| Rtpmap::default_for(payload_type))
    }

    /// The same, if the gateway has said it.
    #[must_use]
    pub fn said_rtpmap(&self, channel: Channel, payload_type: u8) -> Option<Rtpmap> {
        Some(self.payload_types[channel.index()].get(&payload_type)?.last()?.rtpmap)
    }

    /// Whether a payload type was told a meaning that is not understood.
    #[must_use]
    pub fn has_unknown_meanings(&self) -> bool {
        self.not_understood.contains("payload_types")
    }

    /// How many meanings of a payload type have been told so far.
    #[must_use]
    pub fn meanings(&self, channel: Channel, payload_type: u8) -> u8 {
        let said = self.payload_types[channel.index()].get(&payload_type).map_or(0, Vec::len);
        u8::try_from(said).unwrap_or(u8::MAX)
    }

    /// What it meant when so many meanings had been told: the order of receipt decides, not the clock, because frames that are
    /// read at once have one time. Before the first one it meant the same as that.
    #[must_use]
    pub fn rtpmap_after(&self, channel: Channel, payload_type: u8, meanings: u8) -> Rtpmap {
        let said = self.payload_types[channel.index()].get(&payload_type).map_or(&[][..], Vec::as_slice);
        let meaning = said.get(usize::from(meanings).saturating_sub(1)).or(said.last());
        meaning.map_or_else(|| Rtpmap::default_for(payload_type), |meaning| meaning.rtpmap)
    }

    /// The same, with what payload types mean now as all that they have meant: what the next part begins with.
    #[must_use]
    pub fn latest(&self) -> Self {
        let latest = |said: &BTreeMap<u8, Vec<Meaning>>| {
            let last = |(number, said): (&u8, &Vec<Meaning>)| Some((*number, vec![*said.last()?]));
            said.iter().filter_map(last).collect()
        };
        Self { payload_types: self.payload_types.each_ref().map(latest), ..self.clone() }
    }

    /// Takes over what was noted of a connection where this differs from it: something was lost in between.
    pub fn correct(&mut self, noted: &Self) {
        let history = std::mem::replace(self, noted.clone()).payload_types;
        for (own, before) in self.payload_types.iter_mut().zip(history) {
            for (number, said) in before {
                let noted = own.insert(number, said).unwrap_or_default();
                let own = own.entry(number).or_default();
                let is_new = |meaning: &Meaning| own.last().is_none_or(|last| last.rtpmap != meaning.rtpmap);
                let new: Vec<_> = noted.last().copied().into_iter().filter(is_new).collect();
                own.extend(new);
            }
        }
    }

    /// Returns how many meanings there are more.
    fn map_payload_types(&mut self, from: Wall, scope: Scope, maps: &Map<String, Value>) -> usize {
        let mut added = 0;
        for (number, text) in maps {
            let Some((number, rtpmap)) = meaning_of(number, text) else { continue };
            for channel in scope.channels() {
                let said = self.payload_types[channel.index()].entry(number).or_default();
                let is_full = said.len() >= MEANINGS_MAX;
                match said.last_mut() {
                    Some(last) if last.rtpmap == rtpmap => {}
                    Some(last) if is_full => last.rtpmap = rtpmap,
                    _ => {
                        said.push(Meaning { from, rtpmap });
                        added += 1;
                    }
                }
            }
        }
        added
    }

    /// The same, that knows again what it amounts to: a note of it does not say so.
    #[must_use]
    pub fn counted(mut self) -> Self {
        let texts = [
            ("conversation_id", &self.conversation_id),
            ("tenant", &self.tenant),
            ("traceparent", &self.traceparent),
        ];
        let texts = texts.iter().filter_map(|(key, text)| Some(key.len() + size_bytes(text.as_ref()?)));
        let texts: usize = texts.sum();
        let consent = self.consent.as_ref().map_or(0, |consent| "consent".len() + size_bytes(consent));
        let objects: usize =
            [&self.labels, &self.meta].map(|object| sizes_in(&Map::new(), object.iter()).0).iter().sum();
        let meanings: usize = self.payload_types.iter().flat_map(BTreeMap::values).map(Vec::len).sum();
        self.bytes = texts + consent + objects + meanings * MEANING_BYTES;
        self
    }
}

/// A key that the daemon understands, with a value of the right form.
enum Known<'a> {
    ConversationId(&'a str),
    Tenant(&'a str),
    Traceparent(&'a str),
    Consent(&'a Map<String, Value>),
    PayloadTypes(&'a Map<String, Value>),
    Labels(&'a Map<String, Value>),
    /// Not kept: `reopen`, `record`.
    Command,
}

impl<'a> Known<'a> {
    fn of(key: &str, value: &'a Value) -> Option<Self> {
        match (key, value) {
            ("conversation_id", Value::String(id)) if is_name(id) => Some(Self::ConversationId(id)),
            ("tenant", Value::String(tenant)) if is_name(tenant) => Some(Self::Tenant(tenant)),
            ("traceparent", Value::String(trace))
                if is_name(trace) && trace.len() <= TRACEPARENT_MAX_BYTES =>
            {
                Some(Self::Traceparent(trace))
            }
            ("consent", Value::Object(consent)) => Some(Self::Consent(consent)),
            ("payload_types", Value::Object(maps)) => Some(Self::PayloadTypes(maps)),
            ("labels", Value::Object(labels)) => Some(Self::Labels(labels)),
            ("reopen" | "record", Value::Bool(_)) => Some(Self::Command),
            _ => None,
        }
    }
}

/// The keys that [`Known`] takes.
const KNOWN: [&str; 8] =
    ["conversation_id", "tenant", "traceparent", "consent", "payload_types", "labels", "reopen", "record"];

/// Whether a key that the daemon understands has a value that it does not. `null` says nothing, which can be understood.
fn is_not_understood(key: &str, value: &Value) -> bool {
    match Known::of(key, value) {
        Some(Known::PayloadTypes(maps)) => maps.iter().any(|(number, map)| meaning_of(number, map).is_none()),
        Some(_) => false,
        None => KNOWN.contains(&key) && !value.is_null(),
    }
}

/// A payload type and its meaning, of an entry that has both.
fn meaning_of(number: &str, map: &Value) -> Option<(u8, Rtpmap)> {
    let number = number.parse().ok().filter(|number| *number < 128)?;
    Some((number, Rtpmap::parse(map.as_str()?).ok()?))
}

/// What entries amount to, and what they replace in an object.
fn sizes_in<'a>(
    object: &Map<String, Value>,
    entries: impl Iterator<Item = (&'a String, &'a Value)>,
) -> (usize, usize) {
    let (mut added, mut replaced) = (0, 0);
    for (key, value) in entries {
        added += key.len() + size_bytes(value);
        replaced += object.get(key).map_or(0, |old| key.len() + size_bytes(old));
    }
    (added, replaced)
}

fn size_bytes(value: &impl Serialize) -> usize {
    // Quotes, colon and comma of a key, too.
    const AROUND: usize = 4;
    let mut size = Size(AROUND);
    serde_json::to_writer(&mut size, value).map_or(usize::MAX, |()| size.0)
}

/// Counts what is written.
struct Size(usize);

impl std::io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtpmap::Codec;

    fn object(json: &str) -> Map<String, Value> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn later_values_win_and_labels_merge() {
        let mut metadata = Metadata::default();
        let first = object(r#"{"conversation_id":"a","labels":{"x":"1","y":"2"},"team":"red","n":1}"#);
        metadata.merge(Wall(5), Scope::Whole, &first).unwrap();
        metadata
            .merge(Wall(5), Scope::Whole, &object(r#"{"conversation_id":"b","labels":{"y":"3"},"n":2}"#))
            .unwrap();
        assert_eq!(metadata.conversation_id.as_deref(), Some("b"));
        assert_eq!(metadata.labels, object(r#"{"x":"1","y":"3"}"#));
        assert_eq!(metadata.meta, object(r#"{"team":"red","n":2}"#));
    }

    #[test]
    fn payload_types_hold_for_the_channel_they_were_sent_on() {
        let mut metadata = Metadata::default();
        let maps = object(r#"{"payload_types":{"96":"L16/16000","200":"opus/48000","97":"nonsense"}}"#);
        metadata.merge(Wall(5), Scope::Channel(Channel::Ai), &maps).unwrap();
        assert_eq!(metadata.rtpmap(Channel::Ai, 96).codec, Codec::L16);
        assert_eq!(metadata.rtpmap(Channel::Ai, 97).codec, Codec::Opus, "nonsense leaves the default");
        assert_eq!(metadata.rtpmap(Channel::Caller, 96).codec, Codec::Opus);
        assert!(metadata.not_understood.iter().eq(["payload_types"]));
    }

    #[test]
    fn a_value_of_the_wrong_form_is_kept_as_given() {
        let mut metadata = Metadata::default();
        metadata.merge(Wall(5), Scope::Whole, &object(r#"{"conversation_id":7,"tenant":""}"#)).unwrap();
        assert_eq!(metadata.conversation_id, None);
        assert_eq!(metadata.meta, object(r#"{"conversation_id":7,"tenant":""}"#));
        assert!(metadata.not_understood.iter().eq(["conversation_id", "tenant"]));
        let fine = r#"{"conversation_id":"c","tenant":null,"labels":{"n":1},"record":true,"x":[1]}"#;
        let mut metadata = Metadata::default();
        metadata.merge(Wall(5), Scope::Whole, &object(fine)).unwrap();
        assert!(metadata.not_understood.is_empty(), "{:?}", metadata.not_understood);
    }

    #[test]
    fn a_record_that_is_no_boolean_never_has_more_kept() {
        let says = |value: &str| decides(&object(&format!(r#"{{"record":{value}}}"#)));
        assert_eq!((says("true"), says("false")), (Some(true), Some(false)));
        for value in [r#""false""#, r#""no""#, "0", "2", "[]", "{}"] {
            assert_eq!(says(value), Some(false), "{value}");
        }
        for value in [r#""true""#, r#""True""#, "1", "1.0", "null"] {
            assert_eq!(says(value), None, "{value}");
        }
        assert_eq!(decides(&object("{}")), None);
    }

    #[test]
    fn metadata_is_bounded() {
        let mut metadata = Metadata::default();
        let big = |key: &str| object(&format!(r#"{{"{key}":"{}"}}"#, "y".repeat(40_000)));
        metadata.merge(Wall(5), Scope::Whole, &big("x")).unwrap();
        metadata.merge(Wall(5), Scope::Whole, &big("x")).expect("the same again takes no more room");
        let before = metadata.clone();
        assert_eq!(metadata.merge(Wall(5), Scope::Whole, &big("z")), Err(MetadataFull));
        assert_eq!(metadata, before);
    }

    #[test]
    fn what_was_noted_of_a_metadata_makes_it_again() {
        let mut metadata = Metadata::default();
        let said = r#"{"conversation_id":"c","tenant":"t","labels":{"a":"b"},"payload_types":{"96":"L16/8000/2"},
            "z":[1],"consent":{"by":"voice"},"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}"#;
        metadata.merge(Wall(5), Scope::Channel(Channel::Caller), &object(said)).unwrap();
        assert_eq!(metadata.meta, object(r#"{"z":[1]}"#));
        let noted = serde_json::to_string(&metadata).unwrap();
        assert_eq!(serde_json::from_str::<Metadata>(&noted).unwrap().counted(), metadata);
    }

    #[test]
    fn a_meaning_holds_from_its_moment_and_the_first_for_what_came_before() {
        let mut metadata = Metadata::default();
        let map = |text: &str| object(&format!(r#"{{"payload_types":{{"96":"{text}"}}}}"#));
        let mut told = vec![metadata.meanings(Channel::Caller, 96)];
        for (at, text) in [(100, "L16/16000"), (150, "L16/16000"), (150, "PCMU/8000")] {
            metadata.merge(Wall(at), Scope::Whole, &map(text)).unwrap();
            told.push(metadata.meanings(Channel::Caller, 96));
        }
        assert_eq!(told, [0, 1, 1, 2]);
        let codec = |metadata: &Metadata, told| metadata.rtpmap_after(Channel::Caller, 96, told).codec;
        assert_eq!(
            [0, 1, 2, 3].map(|told| codec(&metadata, told)),
            [Codec::L16, Codec::L16, Codec::Pcmu, Codec::Pcmu]
        );
        let latest = metadata.latest();
        assert_eq!([0, 1, 2].map(|told| codec(&latest, told)), [Codec::Pcmu; 3]);
        metadata.correct(&latest);
        assert_eq!(codec(&metadata, 1), Codec::L16, "the history is kept");
    }

    #[test]
    fn what_it_amounts_to_is_known_after_any_merges() {
        let mut metadata = Metadata::default();
        let texts = [
            r#"{"conversation_id":"a","x":1,"labels":{"a":"1"}}"#,
            r#"{"conversation_id":"longer","x":{"y":[1,2,3]},"labels":{"a":"22","b":"3"},"tenant":7}"#,
            r#"{"payload_types":{"96":"opus/48000/2","97":"nonsense"},"consent":{"a":1},"tenant":"t"}"#,
            r#"{"payload_types":{"96":"opus/48000/2","0":"PCMU/8000"},"traceparent":"00-1","x":null}"#,
        ];
        for text in texts.iter().chain(&texts) {
            metadata.merge(Wall(5), Scope::Whole, &object(text)).unwrap();
            assert_eq!(metadata.clone().counted(), metadata, "{text}");
        }
    }
}
