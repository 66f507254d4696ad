//! What META frames have said about a connection, merged.
//!
//! Later values win, key by key; `labels` merge one level deeper. The keys that the daemon understands are taken
//! out if they have the right form; everything else is kept as given. The whole is bounded by [`MAX_BYTES`], so that
//! a gateway that sends ever new keys cannot fill the memory.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::id::{Channel, Scope};
use crate::rtpmap::Rtpmap;

/// The most JSON, in bytes of text, that one connection's metadata may amount to.
pub const MAX_BYTES: usize = 64 * 1024;

/// The merged metadata of one connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// Names the file instead of the connection id.
    pub conversation_id: Option<String>,
    /// Whose call it is.
    pub tenant: Option<String>,
    /// Free labels: an object of strings.
    pub labels: Map<String, Value>,
    /// Everything that the daemon does not understand itself.
    pub meta: Map<String, Value>,
    payload_types: [BTreeMap<u8, Rtpmap>; 2],
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

impl Metadata {
    /// Merges one META object that came with `scope`.
    ///
    /// # Errors
    /// [`MetadataFull`]; nothing of the object is merged then.
    pub fn merge(&mut self, scope: Scope, object: &Map<String, Value>) -> Result<(), MetadataFull> {
        let mut merged = self.clone();
        merged.apply(scope, object);
        let bytes: usize = merged.to_objects().iter().map(|(_, object)| size_bytes(object)).sum();
        if bytes > MAX_BYTES {
            return Err(MetadataFull);
        }
        *self = merged;
        Ok(())
    }

    fn apply(&mut self, scope: Scope, object: &Map<String, Value>) {
        for (key, value) in object {
            match (key.as_str(), value) {
                ("conversation_id", Value::String(id)) if is_name(id) => {
                    self.conversation_id = Some(id.clone());
                }
                ("tenant", Value::String(tenant)) if is_name(tenant) => self.tenant = Some(tenant.clone()),
                ("payload_types", Value::Object(maps)) => self.map_payload_types(scope, maps),
                ("labels", Value::Object(labels)) => {
                    self.labels.extend(labels.iter().map(|(name, label)| (name.clone(), label.clone())));
                }
                ("reopen", Value::Bool(_)) => {}
                _ => {
                    self.meta.insert(key.clone(), value.clone());
                }
            }
        }
    }

    /// What `payload_type` means on `channel`: as the gateway said, or the default of contract section 3.
    #[must_use]
    pub fn rtpmap(&self, channel: Channel, payload_type: u8) -> Rtpmap {
        let said = self.payload_types[channel.index()].get(&payload_type);
        said.copied().unwrap_or_else(|| Rtpmap::default_for(payload_type))
    }

    /// The META objects that bring an empty metadata to this state: what the next part of a long call begins with.
    #[must_use]
    pub fn to_objects(&self) -> Vec<(Scope, Map<String, Value>)> {
        let mut whole = self.meta.clone();
        let texts = [("conversation_id", &self.conversation_id), ("tenant", &self.tenant)];
        for (key, text) in texts {
            whole.extend(text.iter().map(|text| (key.to_owned(), Value::from(text.as_str()))));
        }
        if !self.labels.is_empty() {
            whole.insert("labels".to_owned(), Value::Object(self.labels.clone()));
        }
        let mut objects = vec![(Scope::Whole, whole)];
        for channel in Channel::BOTH {
            let maps = &self.payload_types[channel.index()];
            let maps: Map<_, _> =
                maps.iter().map(|(pt, map)| (pt.to_string(), Value::from(map.to_string()))).collect();
            let object = Map::from_iter([("payload_types".to_owned(), Value::Object(maps))]);
            objects.push((Scope::Channel(channel), object));
        }
        objects
    }

    fn map_payload_types(&mut self, scope: Scope, maps: &Map<String, Value>) {
        for (number, text) in maps {
            let number = number.parse::<u8>().ok().filter(|number| *number < 128);
            let map = text.as_str().and_then(|text| Rtpmap::parse(text).ok());
            let (Some(number), Some(map)) = (number, map) else { continue };
            for channel in Channel::BOTH.into_iter().filter(|channel| scope.covers(*channel)) {
                self.payload_types[channel.index()].insert(number, map);
            }
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

fn size_bytes(object: &Map<String, Value>) -> usize {
    serde_json::to_vec(object).map_or(usize::MAX, |text| text.len())
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
        metadata.merge(Scope::Whole, &first).unwrap();
        metadata.merge(Scope::Whole, &object(r#"{"conversation_id":"b","labels":{"y":"3"},"n":2}"#)).unwrap();
        assert_eq!(metadata.conversation_id.as_deref(), Some("b"));
        assert_eq!(metadata.labels, object(r#"{"x":"1","y":"3"}"#));
        assert_eq!(metadata.meta, object(r#"{"team":"red","n":2}"#));
    }

    #[test]
    fn payload_types_hold_for_the_channel_they_were_sent_on() {
        let mut metadata = Metadata::default();
        let maps = object(r#"{"payload_types":{"96":"L16/16000","200":"opus/48000","97":"nonsense"}}"#);
        metadata.merge(Scope::Channel(Channel::Ai), &maps).unwrap();
        assert_eq!(metadata.rtpmap(Channel::Ai, 96).codec, Codec::L16);
        assert_eq!(metadata.rtpmap(Channel::Ai, 97).codec, Codec::Opus, "nonsense leaves the default");
        assert_eq!(metadata.rtpmap(Channel::Caller, 96).codec, Codec::Opus);
    }

    #[test]
    fn a_value_of_the_wrong_form_is_kept_as_given() {
        let mut metadata = Metadata::default();
        metadata.merge(Scope::Whole, &object(r#"{"conversation_id":7,"tenant":""}"#)).unwrap();
        assert_eq!(metadata.conversation_id, None);
        assert_eq!(metadata.meta, object(r#"{"conversation_id":7,"tenant":""}"#));
    }

    #[test]
    fn metadata_is_bounded() {
        let mut metadata = Metadata::default();
        let big = |key: &str| object(&format!(r#"{{"{key}":"{}"}}"#, "y".repeat(40_000)));
        metadata.merge(Scope::Whole, &big("x")).unwrap();
        metadata.merge(Scope::Whole, &big("x")).expect("the same again takes no more room");
        let before = metadata.clone();
        assert_eq!(metadata.merge(Scope::Whole, &big("z")), Err(MetadataFull));
        assert_eq!(metadata, before);
    }

    #[test]
    fn the_objects_of_a_metadata_make_it_again() {
        let mut metadata = Metadata::default();
        let said = r#"{"conversation_id":"c","tenant":"t","labels":{"a":"b"},"payload_types":{"96":"L16/8000/2"},"z":[1]}"#;
        metadata.merge(Scope::Channel(Channel::Caller), &object(said)).unwrap();
        let mut again = Metadata::default();
        for (scope, object) in metadata.to_objects() {
            again.merge(scope, &object).unwrap();
        }
        assert_eq!(again, metadata);
    }
}
