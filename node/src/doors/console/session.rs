//! Who is at the browser: a token of `iam.create_token`, in a cookie that no script can read and no other site has sent.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};

use super::{Console, Refused, arrival, document_of, fault_of, peer};
use crate::api::{self, Call, Caller, Fault, role_name};

/// The cookie's name over TLS and without: a page without TLS could not replace one that is for TLS alone.
const SECURE: &str = "__Secure-fulmar-console";
const PLAIN: &str = "fulmar-console";

/// What issues the token.
const SIGN_IN: &str = "iam.create_token";

fn encrypted(request: &HttpRequest) -> bool {
    arrival(request).is_some_and(|arrival| arrival.encrypted)
}

fn cookie(token: &str, secure: bool, lifetime_s: u64) -> String {
    let (name, only) = if secure { (SECURE, "; Secure") } else { (PLAIN, "") };
    format!("{name}={token}; Path=/console; Max-Age={lifetime_s}; HttpOnly; SameSite=Strict{only}")
}

/// The token that came, whatever it is worth; of two there is none, since one of them is not ours.
pub(super) fn token(request: &HttpRequest) -> Option<String> {
    let name = if encrypted(request) { SECURE } else { PLAIN };
    let lines = request.headers().get_all(header::COOKIE).filter_map(|line| line.to_str().ok());
    token_of(lines, name).map(str::to_owned)
}

fn token_of<'a>(lines: impl Iterator<Item = &'a str>, name: &str) -> Option<&'a str> {
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut ours = pairs.filter(|(named, _)| *named == name).map(|(_, value)| value);
    let token = ours.next()?;
    ours.next().is_none().then_some(token)
}

/// Who is signed in.
pub(super) fn caller(console: &Console, request: &HttpRequest) -> Option<Caller> {
    console.api.by_token(&token(request)?, peer(request)).ok()
}

fn person(console: &Console, caller: &Caller) -> Value {
    json!({
        "user": caller.name,
        "role": role_name(caller.role),
        "project_id": console.api.settings().project_id,
    })
}

/// Who is signed in; `null` for nobody, which is no error.
pub(super) fn show(console: &Console, request: &HttpRequest) -> HttpResponse {
    let caller = caller(console, request);
    HttpResponse::Ok().json(json!({ "status": 200, "body": caller.map(|caller| person(console, &caller)) }))
}

/// Takes `user` and `password`.
///
/// # Errors
/// The body is none of it.
pub(super) async fn sign_in(console: &Console, request: &HttpRequest, body: &[u8]) -> Result<HttpResponse, Refused> {
    let wrong = |what: &str| Refused::Bad(Fault::format(what));
    let given: Value = serde_json::from_slice(body).map_err(|_| wrong("The body is not JSON."))?;
    let (Some(user), Some(password)) = (given["user"].as_str(), given["password"].as_str()) else {
        return Err(wrong("user and password are required."));
    };
    let route = api::named(SIGN_IN).ok_or(Refused::NotFound)?;
    let identity = json!({ "methods": ["password"], "password": { "user": { "name": user, "password": password } } });
    let document = json!({ "body": { "auth": { "identity": identity } } });
    let id = uuid::Uuid::new_v4().to_string();
    let call = Call::of_document(console.api.clone(), peer(request), Caller::nobody(), route, document);
    let outcome = match call {
        Ok(call) => console.api.answer(route, call.through("console"), &id).await,
        Err(fault) => Err(fault),
    };
    let answer = match outcome {
        Ok(answer) => answer,
        Err(fault) => return Ok(HttpResponse::Ok().json(fault_of(&fault))),
    };
    let token = answer.headers.iter().find(|(name, _)| *name == "X-Subject-Token").map(|(_, token)| token.clone());
    let (Some(token), Some(caller)) = (token, console.api.caller(user)) else {
        return Ok(HttpResponse::Ok().json(document_of(Err(Fault::unauthenticated()))));
    };
    let cookie = cookie(&token, encrypted(request), console.api.settings().token_lifetime_s());
    Ok(HttpResponse::Ok()
        .insert_header((header::SET_COOKIE, cookie))
        .json(json!({ "status": 201, "body": person(console, &caller) })))
}

/// Takes the cookie away. The token itself is good until its time is over, as every token is.
pub(super) fn sign_out(request: &HttpRequest) -> HttpResponse {
    let gone = cookie("", encrypted(request), 0);
    HttpResponse::Ok().insert_header((header::SET_COOKIE, gone)).json(json!({ "status": 204, "body": null }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_for_this_place_and_no_script() {
        assert_eq!(
            cookie("f1.x", false, 60),
            "fulmar-console=f1.x; Path=/console; Max-Age=60; HttpOnly; SameSite=Strict"
        );
        assert_eq!(
            cookie("f1.x", true, 60),
            "__Secure-fulmar-console=f1.x; Path=/console; Max-Age=60; HttpOnly; SameSite=Strict; Secure"
        );
    }

    #[test]
    fn one_token_is_read_and_of_two_none() {
        let read = |lines: &[&'static str]| token_of(lines.iter().copied(), PLAIN);
        assert_eq!(read(&["a=b; fulmar-console=f1.x; c=d"]), Some("f1.x"));
        assert_eq!(read(&["a=b", "fulmar-console=f1.x"]), Some("f1.x"));
        for none in [&[][..], &["a=b"], &["xfulmar-console=y"], &["fulmar-console=a; fulmar-console=b"]] {
            assert_eq!(read(none), None, "{none:?}");
        }
    }
}
