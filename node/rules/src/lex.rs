//! Text to tokens, each with the column it starts at.

use crate::error::{Error, Problem};
use crate::limits::TEXT_BYTES_MAX;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// A word as written: keyword, function or name.
    Word(String),
    /// `"..."`: always a name.
    Quoted(String),
    /// `'...'`.
    Text(String),
    Int(i64),
    Float(f64),
    /// Punctuation and operators; `<>` comes as `!=`.
    Sign(&'static str),
    End,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spanned {
    pub(crate) token: Token,
    pub(crate) column: usize,
}

impl Token {
    /// As an error names it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Token::Word(word) => word.clone(),
            Token::Quoted(name) => format!("\"{name}\""),
            Token::Text(_) => "a string".to_owned(),
            Token::Int(_) | Token::Float(_) => "a number".to_owned(),
            Token::Sign(sign) => format!("'{sign}'"),
            Token::End => "the end".to_owned(),
        }
    }
}

/// Longer signs first.
const SIGNS: [(&str, &str); 18] = [
    ("<>", "!="),
    ("!=", "!="),
    ("<=", "<="),
    (">=", ">="),
    ("<", "<"),
    (">", ">"),
    ("=", "="),
    ("+", "+"),
    ("-", "-"),
    ("*", "*"),
    ("/", "/"),
    ("%", "%"),
    ("(", "("),
    (")", ")"),
    ("[", "["),
    ("]", "]"),
    (",", ","),
    (".", "."),
];

/// All tokens of a text, closed by [`Token::End`].
pub(crate) fn tokens(text: &str) -> Result<Vec<Spanned>, Error> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Error { column: TEXT_BYTES_MAX + 1, problem: Problem::TooLong });
    }
    let bytes = text.as_bytes();
    if let Some(at) = bytes.iter().position(|byte| !byte.is_ascii()) {
        return Err(Error { column: at + 1, problem: Problem::NotAscii });
    }
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let column = at + 1;
        let fail = |problem| Err(Error { column, problem });
        let rest = bytes.get(at..).unwrap_or_default();
        let token = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                at += 1;
                continue;
            }
            b'\'' | b'"' => {
                let Some((inner, length)) = quoted(rest, byte) else {
                    return fail(Problem::Unterminated(if byte == b'"' { "a quoted name" } else { "a string" }));
                };
                at += length;
                if byte == b'"' { Token::Quoted(inner) } else { Token::Text(inner) }
            }
            b'0'..=b'9' => {
                let length = number_length(rest);
                let digits: String = rest.iter().take(length).map(|byte| char::from(*byte)).collect();
                at += length;
                if bytes.get(at).is_some_and(|next| word_byte(*next)) {
                    return fail(Problem::Number);
                }
                match (digits.parse::<i64>(), digits.parse::<f64>()) {
                    (Ok(number), _) => Token::Int(number),
                    (Err(_), Ok(number)) if number.is_finite() => Token::Float(number),
                    _ => return fail(Problem::Number),
                }
            }
            _ if word_byte(byte) => {
                let word: String =
                    rest.iter().take_while(|byte| word_byte(**byte)).map(|byte| char::from(*byte)).collect();
                at += word.len();
                Token::Word(word)
            }
            _ => match SIGNS.iter().find(|(written, _)| rest.starts_with(written.as_bytes())) {
                Some((written, sign)) => {
                    at += written.len();
                    Token::Sign(sign)
                }
                None => return fail(Problem::Character(char::from(byte))),
            },
        };
        tokens.push(Spanned { token, column });
    }
    tokens.push(Spanned { token: Token::End, column: bytes.len() + 1 });
    Ok(tokens)
}

fn word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
}

/// What stands between two quotes (a doubled one is one of them), and the length with both quotes.
fn quoted(rest: &[u8], quote: u8) -> Option<(String, usize)> {
    let mut inner = String::new();
    let mut at = 1;
    loop {
        let byte = *rest.get(at)?;
        at += 1;
        if byte == quote {
            if rest.get(at) != Some(&quote) {
                return Some((inner, at));
            }
            at += 1;
        }
        inner.push(char::from(byte));
    }
}

/// Digits, then a fraction and an exponent where they are whole.
fn number_length(rest: &[u8]) -> usize {
    let digits = |from: usize| rest.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count();
    let mut length = digits(0);
    if rest.get(length) == Some(&b'.') && digits(length + 1) > 0 {
        length += 1 + digits(length + 1);
    }
    if matches!(rest.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(rest.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    length
}
