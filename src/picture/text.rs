//! Text in the picture: times, lengths that fit, and nothing that XML does not allow.

use crate::time::Samples48k;

/// Writes a position as m:ss or h:mm:ss, with milliseconds if they are wanted.
#[must_use]
pub fn clock(at: Samples48k, has_ms: bool) -> String {
    let ms = at.to_ms();
    let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    let mut text = if h > 0 { format!("{h}:{m:02}:{s:02}") } else { format!("{m}:{s:02}") };
    if has_ms {
        text.push_str(&format!(".{:03}", ms % 1000));
    }
    text
}

/// Cuts text to so many characters.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few hundred")]
pub(super) fn shorten(text: &str, most: f64) -> String {
    let most = most.max(1.0) as usize;
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most - 1).chain(['\u{2026}']).collect(),
    }
}

/// Makes text fit for XML 1.0: what stands for markup is written as a reference, what is not allowed left out.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => {}
            c if c.is_control() => {}
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_what_xml_forbids_left_out() {
        assert_eq!(escape("<a b='c'>&\u{0}\u{1b}\u{fffe}\u{85}\""), "&lt;a b=&#39;c&#39;&gt;&amp;&quot;");
        assert_eq!(shorten("four", 4.0), "four");
        assert_eq!(shorten("fives", 4.0), "fiv\u{2026}");
    }

    #[test]
    fn times_have_hours_where_there_are_any() {
        assert_eq!(clock(Samples48k(61_500 * 48), true), "1:01.500");
        assert_eq!(clock(Samples48k(3_661_000 * 48), false), "1:01:01");
        assert_eq!(clock(Samples48k(-5), false), "0:00");
    }
}
