//! Object keys: a template of the operator's and ids of the gateway's make a name that stays inside the store.
//!
//! A value may be any text of up to 64 KiB, so what it puts into a key is made harmless first: `/`, `\` and `:`, control
//! characters, characters that have no width or turn the direction of writing, and a leading dot become `_`, and what
//! is longer than [`VALUE_MAX_BYTES`] is cut and told apart by a checksum of the whole. So is a component of the key
//! that is longer than [`COMPONENT_MAX_BYTES`] with all its values. Values that become alike by this are told apart by
//! `-2`, `-3` …, as any two recordings of one name are.

use crate::time::Wall;

/// The most bytes that one value puts into a key.
pub const VALUE_MAX_BYTES: usize = 160;

/// The most bytes that one component of a key has, `.opus` included: with `-9999999` and `_right` before that it stays
/// below the 255 bytes that a file name may have.
pub const COMPONENT_MAX_BYTES: usize = 240;

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

/// Fills a template that `config` has checked. The key has no empty component, none that is `.` or `..`, none of more
/// than [`COMPONENT_MAX_BYTES`], and no leading slash, whatever the values are.
#[must_use]
pub fn render(template: &str, names: &Names<'_>) -> String {
    let (year, month, day, hour, ..) = names.start.civil();
    let id = names.conversation_id.unwrap_or(names.connection_id);
    let key = fill(template, |name| match name {
        "id" => harmless(id),
        "connection_id" => harmless(names.connection_id),
        "conversation_id" => harmless(names.conversation_id.unwrap_or("none")),
        "tenant" => harmless(names.tenant.unwrap_or("none")),
        "yyyy" => format!("{year:04}"),
        "mm" => format!("{month:02}"),
        "dd" => format!("{day:02}"),
        "hh" => format!("{hour:02}"),
        _ => String::new(),
    });
    let components: Vec<String> = key.split('/').map(fitting).collect();
    components.join("/")
}

/// The bytes of the longest key that a template makes.
#[must_use]
pub fn longest(template: &str) -> usize {
    let bytes = |name: &str| match name {
        "yyyy" => 4,
        "mm" | "dd" | "hh" => 2,
        _ => VALUE_MAX_BYTES,
    };
    fill(template, |name| "x".repeat(bytes(name))).len()
}

/// Puts a value in the place of each name in braces.
fn fill(template: &str, value: impl Fn(&str) -> String) -> String {
    let mut key = String::with_capacity(template.len() + VALUE_MAX_BYTES);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        key.push_str(before);
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        key.push_str(&value(name));
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

/// The key of the recording that a manifest of this key is about.
#[must_use]
pub fn audio_of(manifest_key: &str) -> String {
    format!("{}.opus", manifest_key.strip_suffix(".json").unwrap_or(manifest_key))
}

/// The key of one channel alone, beside a recording's key: `side` is `left` or `right`.
#[must_use]
pub fn of_side(key: &str, side: &str) -> String {
    format!("{}_{side}.opus", key.strip_suffix(".opus").unwrap_or(key))
}

/// Makes a value fit for one component of a key.
#[must_use]
pub fn harmless(value: &str) -> String {
    let mut text: String = value.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    if text.starts_with('.') {
        text.replace_range(..1, "_");
    }
    if text.is_empty() {
        text.push('_');
    }
    shorten(&text, VALUE_MAX_BYTES, value)
}

/// Whether a character can be in a name. Those that are not seen, or that turn what stands behind them around, would
/// make names that are not what they look like.
fn is_plain(c: char) -> bool {
    let is_unseen = matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    );
    !matches!(c, '/' | '\\' | ':') && !c.is_control() && !is_unseen
}

/// Shortens a component that no file system takes. Its extension stays.
fn fitting(component: &str) -> String {
    let (stem, extension) = component.strip_suffix(".opus").map_or((component, ""), |stem| (stem, ".opus"));
    shorten(stem, COMPONENT_MAX_BYTES - ".opus".len(), stem) + extension
}

/// Cuts a text to so many bytes. What is cut is told apart by a checksum of the `whole`.
fn shorten(text: &str, max_bytes: usize, whole: &str) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let sum = format!("~{:08x}", crc32c::crc32c(whole.as_bytes()));
    let mut end = max_bytes - sum.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{sum}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::numbers::NUMBER_MAX;
    use proptest::prelude::*;

    fn names<'a>(connection_id: &'a str, conversation_id: Option<&'a str>) -> Names<'a> {
        Names { connection_id, conversation_id, tenant: None, start: Wall(1_767_323_045_678_901) }
    }

    /// Text of any characters, of those that mean something to file systems more often than not.
    fn any_text() -> impl Strategy<Value = String> {
        let odd = proptest::sample::select(vec![
            '.',
            '/',
            '\\',
            '\0',
            '\n',
            ':',
            '~',
            '-',
            '\u{202e}',
            '\u{1f600}',
        ]);
        let text = proptest::collection::vec(prop_oneof![odd, any::<char>()], 0..200);
        prop_oneof![
            text.prop_map(String::from_iter),
            proptest::sample::select(vec!["", ".", "..", "../../etc", "/abs", "...."])
                .prop_map(str::to_owned),
        ]
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
        assert_eq!(audio_of("a/b-3.json"), "a/b-3.opus");
    }

    #[test]
    fn ids_that_do_not_fit_into_one_name_together_are_cut_and_stay_apart() {
        let template = "{tenant}/{connection_id}-{id}-{id}.opus";
        let wide = "\u{1f600}".repeat(32);
        let key = |id: &str| render(template, &names(&wide, Some(id)));
        let (one, other) = (key(&format!("{wide}a")), key(&format!("{wide}b")));
        assert_ne!(one, other);
        for key in [one, other] {
            let (audio, manifest) = numbered(&key, NUMBER_MAX);
            for name in [of_side(&audio, "right"), manifest] {
                let longest = name.split('/').map(str::len).max().unwrap();
                assert!((230..=255).contains(&longest), "{longest}: {name}");
            }
        }
    }

    #[test]
    fn what_is_not_seen_is_shown_in_names() {
        for hidden in
            ["\u{202e}", "\u{200b}", "\u{2066}", "\u{2028}", "\u{feff}", "\u{0}", "\u{9b}", "\u{7f}"]
        {
            assert_eq!(harmless(&format!("a{hidden}b")), "a_b", "{hidden:?}");
        }
        assert_eq!(harmless("caf\u{e9} \u{1f600} -~"), "caf\u{e9} \u{1f600} -~");
    }

    proptest! {
        /// Ids are any text at all; the template is one that `config` lets pass.
        #[test]
        fn no_text_makes_a_key_that_leaves_the_store_or_that_no_disk_takes(
            texts in [any_text(), any_text(), any_text()],
            parts in proptest::collection::vec(0..8usize, 0..5),
            wall in any::<i64>(),
        ) {
            let parts = parts.iter().map(|n| {
                ["{tenant}/", "{connection_id}", "{conversation_id}.", "{yyyy}/", ".{id}", "a/", "{mm}{dd}{hh}-", "x"][*n]
            });
            let template = format!("{}{{id}}.opus", parts.collect::<String>());
            let [connection_id, conversation_id, tenant] = &texts;
            let names = Names {
                connection_id, conversation_id: Some(conversation_id), tenant: Some(tenant), start: Wall(wall),
            };
            let key = render(&template, &names);
            prop_assert_eq!(key.matches('/').count(), template.matches('/').count());
            prop_assert!(key.len() <= longest(&template) && key.ends_with(".opus"));
            for part in key.split('/') {
                prop_assert!(!matches!(part, "" | "." | ".."), "{}", key);
                prop_assert!(part.len() <= COMPONENT_MAX_BYTES, "{}", key);
                prop_assert!(!part.contains(char::is_control) && !part.contains(['\\', ':']));
            }
            prop_assert_eq!(render(&template, &names), key);
        }

        #[test]
        fn any_value_is_one_component_of_bounded_length(value in any_text()) {
            let safe = harmless(&value);
            prop_assert!(!safe.is_empty() && safe.len() <= VALUE_MAX_BYTES);
            prop_assert!(!safe.starts_with('.') && !safe.contains(['/', '\\']));
        }
    }
}
