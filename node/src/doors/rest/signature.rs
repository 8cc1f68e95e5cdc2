//! Signed requests: `SDK-HMAC-SHA256`, and `V11-HMAC-SHA256` with a derived key, as Huawei's SDKs sign. What is signed is
//! taken from the request's own list of headers. Absent here: who has which key.

use fulmar_platform::Secret;
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

/// Seconds that the clocks of client and server may differ.
const SKEW_S: u64 = 15 * 60;

/// What stays as it is in a signed path or query: RFC 3986's unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

const HEADERS_MAX: usize = 64;

/// Bytes of an access key; a longer one is nobody's.
const ACCESS_KEY_BYTES_MAX: usize = 128;

const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// A request as its signature sees it.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    /// As it came, without the query.
    pub(super) path: &'a str,
    /// As it came; empty if there is none.
    pub(super) query: &'a str,
    /// The value of a header, by its name in lower case; `None` if it is not there, is there twice or is no text.
    pub(super) header: &'a dyn Fn(&str) -> Option<String>,
    pub(super) body: &'a [u8],
}

/// How a request says it was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signed {
    pub(super) access_key: String,
    /// Of the derived key: `date/region/service`.
    scope: Option<String>,
    headers: Vec<String>,
    signature: Vec<u8>,
}

/// Why a signature is not taken. For the log, where it says what to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Bad {
    #[error("the algorithm is not SDK-HMAC-SHA256 or V11-HMAC-SHA256")]
    Algorithm,
    #[error("the authorization header cannot be read")]
    Malformed,
    #[error("host and x-sdk-date must be signed")]
    Headers,
    #[error("x-sdk-date is no time")]
    Date,
    #[error("x-sdk-date is more than 15 minutes from now")]
    Skew,
    #[error("x-sdk-content-sha256 is not the body's")]
    Content,
    #[error("the signature is another")]
    Signature,
}

impl Signed {
    /// Reads an `Authorization` header.
    ///
    /// # Errors
    /// It is none of the two kinds, or does not name what it should.
    pub(super) fn read(authorization: &str) -> Result<Signed, Bad> {
        let (algorithm, parameters) = authorization.split_once(' ').ok_or(Bad::Malformed)?;
        let derived = match algorithm {
            "SDK-HMAC-SHA256" => false,
            "V11-HMAC-SHA256" => true,
            _ => return Err(Bad::Algorithm),
        };
        let parameter = |name: &str| {
            parameters.split(',').find_map(|one| one.trim().strip_prefix(name)?.strip_prefix('=')).ok_or(Bad::Malformed)
        };
        let (access_key, scope) = if derived {
            let (access_key, scope) = parameter("Credential")?.split_once('/').ok_or(Bad::Malformed)?;
            if scope.split('/').count() != 3 || scope.split('/').any(str::is_empty) {
                return Err(Bad::Malformed);
            }
            (access_key, Some(scope.to_owned()))
        } else {
            (parameter("Access")?, None)
        };
        let headers: Vec<String> = parameter("SignedHeaders")?.split(';').map(str::to_ascii_lowercase).collect();
        let signature = hex::decode(parameter("Signature")?).map_err(|_| Bad::Malformed)?;
        if access_key.is_empty() || access_key.len() > ACCESS_KEY_BYTES_MAX || headers.len() > HEADERS_MAX {
            return Err(Bad::Malformed);
        }
        if !["host", "x-sdk-date"].iter().all(|wanted| headers.iter().any(|header| header == wanted)) {
            return Err(Bad::Headers);
        }
        Ok(Signed { access_key: access_key.to_owned(), scope, headers, signature })
    }

    /// Whether the request was signed with this secret key, not long ago.
    ///
    /// # Errors
    /// It was not.
    pub(super) fn verify(&self, request: &Request<'_>, secret_key: &Secret, now_s: u64) -> Result<(), Bad> {
        let date = (request.header)("x-sdk-date").ok_or(Bad::Date)?;
        let at_s = fulmar_platform::dialect::time::parse_compact(&date).ok_or(Bad::Date)?;
        if at_s.abs_diff(now_s) > SKEW_S {
            return Err(Bad::Skew);
        }
        let hashed = hex::encode(Sha256::digest(self.canonical(request)?.as_bytes()));
        let expected = match &self.scope {
            None => {
                let signed = format!("SDK-HMAC-SHA256\n{date}\n{hashed}");
                hmac(secret_key.expose().as_bytes(), signed.as_bytes())
            }
            Some(scope) => {
                if scope.split('/').next() != date.get(..8) {
                    return Err(Bad::Date);
                }
                let extracted = hmac(self.access_key.as_bytes(), secret_key.expose().as_bytes());
                let key = hex::encode(hmac(&extracted, &[scope.as_bytes(), &[1]].concat()));
                let signed = format!("V11-HMAC-SHA256\n{date}\n{scope}\n{hashed}");
                hmac(key.as_bytes(), signed.as_bytes())
            }
        };
        if bool::from(expected.ct_eq(&self.signature)) { Ok(()) } else { Err(Bad::Signature) }
    }

    fn canonical(&self, request: &Request<'_>) -> Result<String, Bad> {
        let mut path: Vec<String> = request.path.split('/').map(encode_again).collect();
        if path.last().is_some_and(|last| !last.is_empty()) {
            path.push(String::new());
        }
        let mut query: Vec<(String, String)> = request
            .query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (encode_again(name), encode_again(value)))
            .collect();
        query.sort();
        let query: Vec<String> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut headers = String::new();
        for name in &self.headers {
            let value = (request.header)(name).ok_or(Bad::Headers)?;
            headers.push_str(&format!("{name}:{}\n", value.trim()));
        }
        let content = (request.header)("x-sdk-content-sha256").filter(|_| !request.body.is_empty());
        let actual = hex::encode(Sha256::digest(request.body));
        let content = match content {
            // Bodies that are not JSON may go unsigned; no operation takes any.
            Some(unsigned) if unsigned == UNSIGNED => unsigned,
            Some(given) if given.eq_ignore_ascii_case(&actual) => given,
            Some(_) => return Err(Bad::Content),
            None => actual,
        };
        let (method, signed) = (request.method, self.headers.join(";"));
        Ok(format!("{method}\n{}\n{}\n{headers}\n{signed}\n{content}", path.join("/"), query.join("&")))
    }

    /// Whether the body was left out of the signature.
    #[must_use]
    pub(super) fn unsigned_body(request: &Request<'_>) -> bool {
        !request.body.is_empty() && (request.header)("x-sdk-content-sha256").is_some_and(|content| content == UNSIGNED)
    }
}

fn encode_again(text: &str) -> String {
    let decoded: Vec<u8> = percent_decode_str(text).collect();
    match std::str::from_utf8(&decoded) {
        Ok(decoded) => utf8_percent_encode(decoded, ENCODED).to_string(),
        Err(_) => percent_encoding::percent_encode(&decoded, ENCODED).to_string(),
    }
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    // A key of any length will do for HMAC.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
