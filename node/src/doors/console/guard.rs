//! What keeps other sites out: the policy that browsers hold the page to, and the marks that its own requests bear.

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderMap, HeaderValue};

use super::Refused;
use crate::api::Socket;

/// Bytes of a request to sign in.
pub(super) const SIGN_IN_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a `Host`, and of names, that are put into a policy.
const HOST_BYTES_MAX: usize = 260;

/// What every answer says beside the policy.
pub(super) const HEADERS: [(&str, &str); 6] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("x-frame-options", "DENY"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
];

/// The header that a page of another site cannot add without being asked first.
const MARK: &str = "x-fulmar-console";

/// What the page may load and connect to: this door, and the WebSockets of this node, which the test client speaks to.
pub(super) fn policy(host: &str, sockets: &[Socket]) -> HeaderValue {
    let mut connect = String::from("'self'");
    if let Some(name) = name_of(host) {
        for socket in sockets {
            connect.push_str(&format!(" {}://{name}:{}", socket.scheme, socket.port));
        }
    }
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src {connect}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    );
    // Its parts are of ASCII that was looked at.
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// The name in a `Host`, without its port; none for what is no name.
fn name_of(host: &str) -> Option<&str> {
    let well = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.len() > HOST_BYTES_MAX {
        return None;
    }
    if host.starts_with('[') {
        let (address, _) = host.split_once(']')?;
        let inside = address.strip_prefix('[')?;
        let valid = !inside.is_empty() && inside.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, ':' | '.'));
        return if valid { host.get(..address.len() + 1) } else { None };
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    (!name.is_empty() && name.chars().all(well)).then_some(name)
}

/// Lets in what the page itself has sent.
///
/// # Errors
/// It lacks the mark, or another site may have caused it.
pub(super) fn own(request: &HttpRequest) -> Result<(), Refused> {
    let headers = request.headers();
    if is_own(headers) { Ok(()) } else { Err(Refused::Foreign) }
}

/// Lets in what does not come from another site; for requests that change nothing.
///
/// # Errors
/// A browser says that another site has caused it.
pub(super) fn same_site(request: &HttpRequest) -> Result<(), Refused> {
    let headers = request.headers();
    let foreign = says(headers, "sec-fetch-site", |site| site != "same-origin") || from_elsewhere(headers);
    if foreign { Err(Refused::Foreign) } else { Ok(()) }
}

fn is_own(headers: &HeaderMap) -> bool {
    let marked = headers.get(MARK).is_some_and(|value| value == "1");
    let told = headers.contains_key("sec-fetch-site") || headers.contains_key(header::ORIGIN);
    let foreign = says(headers, "sec-fetch-site", |site| site != "same-origin") || from_elsewhere(headers);
    marked && told && !foreign
}

/// Whether any header of a name says something; what is no text says everything.
fn says(headers: &HeaderMap, name: &str, what: impl Fn(&str) -> bool) -> bool {
    headers.get_all(name).any(|value| value.to_str().map_or(true, &what))
}

/// Whether `Origin` is there and is not this host.
fn from_elsewhere(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    says(headers, "origin", |origin| {
        let named = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        named.is_none_or(|named| !named.eq_ignore_ascii_case(host))
    })
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderName;

    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    #[test]
    fn only_the_page_itself_is_let_in() {
        let host = ("host", "fulmar.example:8080");
        let mark = ("x-fulmar-console", "1");
        let origin = ("origin", "http://fulmar.example:8080");
        let site = ("sec-fetch-site", "same-origin");
        for own in [&[host, mark, origin][..], &[host, mark, site], &[host, mark, origin, site]] {
            assert!(is_own(&headers(own)), "{own:?}");
        }
        for foreign in [
            &[host, origin, site][..],
            &[host, mark],
            &[host, ("x-fulmar-console", "2"), origin],
            &[host, mark, ("origin", "http://evil.example")],
            &[host, mark, ("origin", "null"), site],
            &[host, mark, ("origin", "http://fulmar.example:8081"), site],
            &[host, mark, ("origin", "file://fulmar.example:8080")],
            &[host, mark, origin, ("origin", "http://evil.example")],
            &[host, mark, origin, ("sec-fetch-site", "same-site")],
            &[host, mark, origin, ("sec-fetch-site", "cross-site")],
            &[mark, origin],
        ] {
            assert!(!is_own(&headers(foreign)), "{foreign:?}");
        }
    }

    #[test]
    fn the_policy_names_this_nodes_sockets_and_nothing_that_a_host_smuggles_in() {
        let sockets = [Socket { scheme: "ws", port: 8083 }, Socket { scheme: "wss", port: 8084 }];
        let said = |host: &str| policy(host, &sockets).to_str().expect("text").to_owned();
        for (host, name) in [("a.example:8080", "a.example"), ("127.0.0.1", "127.0.0.1"), ("[::1]:80", "[::1]")] {
            let connect = format!("connect-src 'self' ws://{name}:8083 wss://{name}:8084; ");
            assert!(said(host).contains(&connect), "{}", said(host));
        }
        for host in ["", "a b", "a;script-src *", "[::1", "[x]:1", "é", "*", &"a".repeat(300)] {
            assert!(said(host).contains("connect-src 'self'; "), "{host}: {}", said(host));
        }
        let all = said("a");
        assert!(all.starts_with("default-src 'none'; script-src 'self'; style-src 'self'; "), "{all}");
        assert!(!all.contains("unsafe") && all.contains("frame-ancestors 'none'"), "{all}");
    }
}
