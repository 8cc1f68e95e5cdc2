//! Text that must not be seen.

use std::fmt;

use subtle::ConstantTimeEq;

/// A password, a key or a token. Neither its text nor its length is shown by `{:?}`; comparing takes the same time
/// wherever two of one length differ.
#[derive(Clone, Default)]
pub struct Secret(Box<str>);

impl Secret {
    #[must_use]
    pub fn new(text: &str) -> Secret {
        Secret(text.into())
    }

    /// The text, for whoever has to compute with it or to hand it out once.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is this text.
    #[must_use]
    pub fn is(&self, text: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(text).into()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.is(other.0.as_bytes())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
