//! What stands in for the cloud's identity service: tokens for passwords, and the project.

use fulmar_platform::dialect::time;
use serde_json::{Value, json};

use super::call::{Answer, Call};
use super::verify::{Attempt, Unverified};
use super::{Fault, now_ms, token};

/// Bytes of a user's name; a longer one is nobody's.
const USER_BYTES_MAX: usize = 128;

fn refused() -> Fault {
    Fault::identity(401, "The username or password is wrong, or the scope is not this cluster's.")
}

/// Whether an object names something by this name or id; one that is not there names nothing wrong.
fn names(object: &Value, name: &str, id: &str) -> bool {
    let is = |member: &str, wanted: &str| object.get(member).and_then(Value::as_str).is_none_or(|text| text == wanted);
    object.is_null() || (object.is_object() && is("name", name) && is("id", id))
}

/// `POST /v3/auth/tokens`
pub(super) async fn create_token(call: Call) -> Result<Answer, Fault> {
    let bad = |message: &str| Fault::identity(400, message);
    let body = call.json().map_err(|_| bad("The body is not JSON."))?;
    let identity = &body["auth"]["identity"];
    let by_password = identity["methods"].as_array().is_some_and(|methods| methods.iter().any(|m| m == "password"));
    let user = &identity["password"]["user"];
    if !by_password || !user.is_object() {
        return Err(bad("auth.identity must have the method password and a user."));
    }
    let name = user["name"].as_str().or_else(|| user["id"].as_str());
    let name = name.ok_or_else(|| bad("auth.identity.password.user.name is required."))?.to_owned();
    if name.len() > USER_BYTES_MAX {
        return Err(bad(&format!("auth.identity.password.user.name may have {USER_BYTES_MAX} bytes.")));
    }
    let password = user["password"].as_str();
    let password = password.ok_or_else(|| bad("auth.identity.password.user.password is required."))?.to_owned();
    let settings = &call.api.settings;
    let (domain, scope) = (settings.domain_name.as_str(), &body["auth"]["scope"]);
    let scoped = names(&scope["project"], &settings.project_name, &settings.project_id)
        && names(&scope["domain"], domain, domain)
        && names(&scope["project"]["domain"], domain, domain);
    let known = call.api.user(&name);
    let there = known.is_some();
    let (hash, role) = known.unwrap_or((call.api.decoy.clone(), fulmar_platform::registry::Role::Viewer));
    let attempt = Attempt { user: name.clone(), peer: call.peer };
    let verified = call.api.verifier.verify(attempt, hash.clone(), password).await.map_err(|why| match why {
        Unverified::Locked => {
            call.api.audit_sign_in(&call, &name, 429);
            Fault::identity(429, "Too many failed sign-ins; try again later.")
        }
        Unverified::Busy => Fault::identity(503, "Passwords cannot be verified now."),
    })?;
    if !(verified && there && scoped && names(&user["domain"], domain, domain)) {
        tracing::info!(peer = %call.peer, user = name, "a sign-in was refused");
        call.api.audit_sign_in(&call, &name, 401);
        return Err(refused());
    }
    let key = call.operations().read(|registry| registry.key().cloned());
    let key = key.ok_or_else(|| Fault::identity(503, "The cluster has not begun."))?;
    let issued_s = now_ms() / 1000;
    let claims = token::Claims { user: name, issued_s, expires_s: issued_s + settings.token_lifetime_s };
    let token = token::issue(&key, &claims, &hash);
    tracing::info!(peer = %call.peer, user = claims.user, "signed in");
    let in_domain = json!({ "id": domain, "name": domain });
    let body = json!({ "token": {
        "methods": ["password"],
        "issued_at": time::iso_ms(claims.issued_s * 1000),
        "expires_at": time::iso_ms(claims.expires_s * 1000),
        "user": { "id": claims.user, "name": claims.user, "domain": in_domain },
        "project": { "id": settings.project_id, "name": settings.project_name, "domain": in_domain },
        "roles": [{ "id": super::people::role_name(role), "name": super::people::role_name(role) }],
        "catalog": [],
    } });
    Ok(Answer { status: 201, body: Some(body), headers: vec![("X-Subject-Token", token)], about: None })
}

/// `GET /v3/projects`: the one project, whatever name is asked for. SDKs ask by the name of their region, and every
/// region means this cluster.
pub(super) async fn list_projects(call: Call) -> Result<Answer, Fault> {
    let settings = &call.api.settings;
    let name = call.query("name").unwrap_or(&settings.project_name);
    Answer::ok(json!({
        "projects": [{
            "id": settings.project_id, "name": name, "domain_id": settings.domain_name, "enabled": true,
            "is_domain": false, "parent_id": settings.domain_name, "description": "",
        }],
        "links": { "next": null, "previous": null },
    }))
}
