//! Bounds of the language, and what happens at them.

/// Bytes (the language is ASCII, so also characters) of one `where` or `select`. Longer text is refused.
pub const TEXT_BYTES_MAX: usize = 2_500;

/// Brackets, NOTs, signs, calls and CASEs inside each other. Deeper text is refused.
pub const DEPTH_MAX: usize = 32;

/// Characters of a name given with AS. Longer ones are refused.
pub const ALIAS_CHARS_MAX: usize = 32;

/// Steps, list elements looked at and bytes of text compared or made, for one event. Past it the evaluation ends with
/// [`crate::Overrun::Work`].
pub const WORK_MAX: usize = 4 << 20;

/// Bytes of a projection, by [`crate::Value::weight`]. Past it the projection ends with [`crate::Overrun::Output`].
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;

const _: () = assert!(TEXT_BYTES_MAX <= u16::MAX as usize); // a program has no more steps than its text has bytes
const _: () = assert!(OUTPUT_BYTES_MAX <= WORK_MAX);
