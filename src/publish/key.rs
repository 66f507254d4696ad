//! Object keys: a template of the operator's and ids of the gateway's make a name that stays inside the store.
//!
//! A value may be any text of up to 128 bytes and more, so what it puts into a key is made harmless first: `/`, `\`
//! and `:`, control characters, and a leading dot become `_`, and what is longer than [`VALUE_MAX_BYTES`] is cut and
//! told apart by a checksum of the whole. Values that become alike by this are told apart by `-2`, `-3` …, as any two
//! recordings of one name are.

use crate::time::Wall;

/// The most bytes that one value puts into a key: with a prefix, a suffix, `-2` and the name of a temporary file it
/// stays below the 255 bytes that a file name may have.
pub const VALUE_MAX_BYTES: usize = 160;

/// What a template may name.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The connection id.
    pub connection_id: &'a str,
    /// The conversation id, if META gave one.
    pub conversation_id: Option<&'a str>,
    /// The tenant, if META gave one.
    pub tenant: Option<&'a str>,
    /// The start of the recording.
    pub start: Wall,
}

/// Fills a template that `config` has checked. The key has no empty component, none that is `.` or `..`, and no
/// leading slash, whatever the values are.
#[must_use]
pub fn render(template: &str, names: &Names<'_>) -> String {
    let (year, month, day, hour, ..) = names.start.civil();
    let id = names.conversation_id.unwrap_or(names.connection_id);
    let mut key = String::with_capacity(template.len() + id.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        key.push_str(before);
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        match name {
            "id" => key.push_str(&harmless(id)),
            "connection_id" => key.push_str(&harmless(names.connection_id)),
            "conversation_id" => key.push_str(&harmless(names.conversation_id.unwrap_or("none"))),
            "tenant" => key.push_str(&harmless(names.tenant.unwrap_or("none"))),
            "yyyy" => key.push_str(&format!("{year:04}")),
            "mm" => key.push_str(&format!("{month:02}")),
            "dd" => key.push_str(&format!("{day:02}")),
            "hh" => key.push_str(&format!("{hour:02}")),
            _ => {}
        }
        rest = after;
    }
    key.push_str(rest);
    key
}

/// The `attempt`-th name of a recording, counted from 1, and its manifest's: `-2`, `-3` … before the extension.
#[must_use]
pub fn numbered(key: &str, attempt: u32) -> (String, String) {
    let stem = key.strip_suffix(".opus").unwrap_or(key);
    let number = if attempt < 2 { String::new() } else { format!("-{attempt}") };
    (format!("{stem}{number}.opus"), format!("{stem}{number}.json"))
}

/// The key of one channel alone, beside a recording's key: `side` is `left` or `right`.
#[must_use]
pub fn of_side(key: &str, side: &str) -> String {
    format!("{}_{side}.opus", key.strip_suffix(".opus").unwrap_or(key))
}

/// Makes a value fit for one component of a key.
#[must_use]
pub fn harmless(value: &str) -> String {
    let mut text: String = value
        .chars()
        .map(|c| if matches!(c, '/' | '\\' | ':') || c.is_control() { '_' } else { c })
        .collect();
    if text.starts_with('.') {
        text.replace_range(..1, "_");
    }
    if text.is_empty() {
        text.push('_');
    }
    if text.len() > VALUE_MAX_BYTES {
        let sum = format!("~{:08x}", crc32c::crc32c(value.as_bytes()));
        let mut end = VALUE_MAX_BYTES - sum.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(&sum);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names<'a>(connection_id: &'a str, conversation_id: Option<&'a str>) -> Names<'a> {
        Names { connection_id, conversation_id, tenant: None, start: Wall(1_767_323_045_678_901) }
    }

    #[test]
    fn the_conversation_names_the_file_and_else_the_connection() {
        let template = "conversation_{id}_merged.opus";
        assert_eq!(render(template, &names("c", None)), "conversation_c_merged.opus");
        assert_eq!(render(template, &names("c", Some("v"))), "conversation_v_merged.opus");
        assert_eq!(
            render("{tenant}/{yyyy}/{mm}/{dd}/{hh}/{connection_id}.opus", &names("c", Some("v"))),
            "none/2026/01/02/03/c.opus"
        );
    }

    #[test]
    fn no_id_leads_out_of_the_store() {
        for id in ["..", "../../etc/passwd", "/abs", ".", "a/../b", "\\\\host\\share", "c:x"] {
            let key = render("{id}/{id}.opus", &names(id, None));
            assert_eq!(key.matches('/').count(), 1, "{key}");
            assert!(key.split('/').all(|part| !part.is_empty() && part != "." && part != ".."), "{key}");
        }
    }

    #[test]
    fn numbers_stand_before_the_extension() {
        assert_eq!(numbered("a/b.opus", 1), ("a/b.opus".to_owned(), "a/b.json".to_owned()));
        assert_eq!(numbered("a/b.opus", 3), ("a/b-3.opus".to_owned(), "a/b-3.json".to_owned()));
        assert_eq!(of_side("a/b-2.opus", "left"), "a/b-2_left.opus");
    }

    proptest! {
        #[test]
        fn any_value_is_one_component_of_bounded_length(value in "\\PC{0,300}") {
            let safe = harmless(&value);
            prop_assert!(!safe.is_empty() && safe.len() <= VALUE_MAX_BYTES);
            prop_assert!(!safe.starts_with('.') && !safe.contains(['/', '\\']));
        }
    }
}
