//! Labels: what of a call is written beside its objects in a cloud store, in a form that every store takes; and the
//! form in which names stand in addresses.
//!
//! Stores hand labels on as HTTP headers, so a value has visible ASCII only: any other byte, blanks and `%` among them, is
//! percent-encoded as in a URL. (Signatures of S3 do not tell one blank from two.) S3 takes 2 KB for all labels of an object together, so a value of more than
//! [`LABEL_MAX_BYTES`] is cut and ends in `...`; the manifest has it whole.

/// The most bytes of one label.
pub const LABEL_MAX_BYTES: usize = 400;

/// Makes a value a label.
#[must_use]
pub fn label(value: &str) -> String {
    cut_label(value, LABEL_MAX_BYTES)
}

/// Makes a value a label of so many bytes at most.
#[must_use]
pub fn cut_label(value: &str, max_bytes: usize) -> String {
    let mut text = String::with_capacity(value.len().min(max_bytes));
    for c in value.chars() {
        let before = text.len();
        let mut bytes = [0; 4];
        for byte in c.encode_utf8(&mut bytes).bytes() {
            if byte.is_ascii_graphic() && byte != b'%' {
                text.push(char::from(byte));
            } else {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
        if text.len() > max_bytes.saturating_sub("...".len()) {
            text.truncate(before);
            text.push_str("...");
            break;
        }
    }
    text
}

/// Makes a text one component of a URL's path.
#[must_use]
pub fn component(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_plain_stays_and_the_rest_can_be_decoded() {
        assert_eq!(label("call7-a_b~c"), "call7-a_b~c");
        assert_eq!(label("50%\u{e9}\n"), "50%25%C3%A9%0A");
        assert_eq!(label(" x  "), "%20x%20%20");
    }

    #[test]
    fn a_name_is_one_component_of_a_url() {
        assert_eq!(component("a/b c-~\u{e9}?.opus"), "a%2Fb%20c-~%C3%A9%3F.opus");
    }

    proptest! {
        #[test]
        fn any_text_makes_a_header_of_bounded_length(value in any::<String>(), times in 1..100usize) {
            let label = label(&value.repeat(times));
            prop_assert!(label.len() <= LABEL_MAX_BYTES);
            prop_assert!(label.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}
