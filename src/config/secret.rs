//! Secrets: texts that can be used, compared and handed on, but not printed.

use std::fmt;

use sha2::{Digest, Sha256};

/// What is shown where a secret stands.
pub const HIDDEN: &str = "(not shown)";

/// The variables whose values are secrets: not shown by `--help`, by a fault, or by anything that prints settings.
pub const SECRETS: [&str; 2] = ["AUDIO_TAP_KEY", "AUDIO_HTTP_TOKEN"];

/// A secret. Neither `{}` nor `{:?}` shows anything of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text that is not to be shown.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The bytes of the secret, for making a key of them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether `presented` is the secret. How long that takes says nothing about it: digests are compared, and of
    /// those nobody can choose the first bytes.
    #[must_use]
    pub fn is(&self, presented: &[u8]) -> bool {
        Sha256::digest(presented) == Sha256::digest(self.expose())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_compared_but_never_shown() {
        let secret = Secret::new("correct horse battery staple");
        assert!(secret.is(b"correct horse battery staple"));
        for other in ["", "correct horse battery stapl", "correct horse battery staple ", "(not shown)"] {
            assert!(!secret.is(other.as_bytes()), "{other}");
        }
        assert_eq!(
            format!("{secret} {secret:?} {:?}", Some(&secret)),
            "(not shown) (not shown) Some((not shown))"
        );
    }
}
