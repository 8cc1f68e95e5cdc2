//! The topics of the platform: whose one is, what it is about, and which way it goes.

/// A topic that names a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) product_key: &'a str,
    pub(super) name: &'a str,
    pub(super) about: About<'a>,
}

/// What a topic is about. What follows the device's names, without the slash before it, is in the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About<'a> {
    /// `/sys/{pk}/{dn}/thing/...`
    Thing(&'a str),
    /// `/sys/{pk}/{dn}/rrpc/request/{id}`
    Request,
    /// `/sys/{pk}/{dn}/rrpc/response/{id}`: the id.
    Response(&'a str),
    /// `/ext/rrpc/{id}/{a topic of the device}`: the id, and whether the topic is one of `/sys/`.
    Carried { id: &'a str, system: bool },
    /// `/ext/session/{pk}/{dn}/...`
    Session(&'a str),
    /// `/ext/ntp/{pk}/{dn}/...`
    Ntp(&'a str),
    /// `/ota/device/{kind}/{pk}/{dn}`: the kind.
    Ota(&'a str),
    /// `/shadow/{kind}/{pk}/{dn}`: the kind.
    Shadow(&'a str),
    /// `/{pk}/{dn}/...`
    Custom(&'a str),
}

/// What a device sends on `/sys/{pk}/{dn}/thing/...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Up<'a> {
    Properties,
    Batch,
    /// Properties and events of the past.
    History,
    /// Its identifier.
    Event(&'a str),
    /// Bytes that a script of the product would read.
    Raw,
    /// The answer to bytes that were sent to it.
    RawResponse,
    /// The answer to a property set, a service call or a notice.
    Response,
    UpdateTags,
    DeleteTags,
    GetDesired,
    DeleteDesired,
    GetConfig,
    GetTopology,
    AddTopology,
    DeleteTopology,
    RegisterSubDevices,
    RegisterByProxy,
    GetFirmware,
    /// A request that is not served.
    Unknown,
}

/// The topics under `/{pk}/{dn}/` of a product that defines none: what may be published to, and what subscribed to.
pub(super) const DEFAULT_PUBLISH: [&str; 4] = ["update", "update/error", "user/update", "user/update/error"];
pub(super) const DEFAULT_SUBSCRIBE: [&str; 2] = ["get", "user/get"];

impl<'a> Place<'a> {
    /// `None` for a topic that is none of a device, in whatever way.
    pub(super) fn parse(topic: &'a str) -> Option<Place<'a>> {
        let topic = topic.strip_prefix('/')?;
        let Some(rest) = topic.strip_prefix("ext/rrpc/") else { return Place::of(topic) };
        let (id, inner) = rest.split_once('/').filter(|(id, _)| !id.is_empty())?;
        let place = Place::of(inner)?;
        Some(Place { about: About::Carried { id, system: inner.starts_with("sys/") }, ..place })
    }

    /// A topic without its first slash.
    fn of(topic: &'a str) -> Option<Place<'a>> {
        let (head, rest) = topic.split_once('/')?;
        let (product_key, name, about) = match head {
            "sys" => {
                let (product_key, name, tail) = owner_first(rest)?;
                (product_key, name, system(tail)?)
            }
            "ext" => {
                let (service, rest) = rest.split_once('/')?;
                let (product_key, name, tail) = owner_first(rest)?;
                let about = match service {
                    "session" => About::Session(tail),
                    "ntp" => About::Ntp(tail),
                    _ => return None,
                };
                (product_key, name, about)
            }
            "ota" => {
                let (kind, product_key, name) = owner_last(rest.strip_prefix("device/")?)?;
                (product_key, name, About::Ota(kind))
            }
            "shadow" => {
                let (kind, product_key, name) = owner_last(rest)?;
                (product_key, name, About::Shadow(kind))
            }
            "broadcast" => return None,
            _ => {
                let (product_key, name, tail) = owner_first(topic)?;
                (product_key, name, About::Custom(tail))
            }
        };
        Some(Place { product_key, name, about })
    }
}

/// `{pk}/{dn}/{tail}`
fn owner_first(rest: &str) -> Option<(&str, &str, &str)> {
    let (product_key, rest) = rest.split_once('/')?;
    let (name, tail) = rest.split_once('/')?;
    Some((product_key, name, tail))
}

/// `{kind}/{pk}/{dn}`
fn owner_last(rest: &str) -> Option<(&str, &str, &str)> {
    owner_first(rest).filter(|(_, _, name)| !name.contains('/'))
}

fn system(tail: &str) -> Option<About<'_>> {
    let one_level = |id: &str| !id.is_empty() && !id.contains('/');
    if let Some(thing) = tail.strip_prefix("thing/") {
        Some(About::Thing(thing))
    } else if let Some(id) = tail.strip_prefix("rrpc/response/") {
        one_level(id).then_some(About::Response(id))
    } else {
        tail.strip_prefix("rrpc/request/").filter(|id| one_level(id)).map(|_| About::Request)
    }
}

/// The one level between a prefix and a suffix.
fn between<'a>(tail: &'a str, prefix: &str, suffix: &str) -> Option<&'a str> {
    let level = tail.strip_prefix(prefix)?.strip_suffix(suffix)?;
    (!level.is_empty() && !level.contains('/')).then_some(level)
}

/// What a device sends under `thing/`; `None` for what only the platform sends.
pub(super) fn up(tail: &str) -> Option<Up<'_>> {
    Some(match tail {
        "event/property/post" => Up::Properties,
        "event/property/batch/post" => Up::Batch,
        "event/property/history/post" => Up::History,
        "model/up_raw" => Up::Raw,
        "model/down_raw_reply" => Up::RawResponse,
        "service/property/set_reply" | "service/property/get_reply" | "config/push_reply" | "topo/change_reply" => {
            Up::Response
        }
        "deviceinfo/update" => Up::UpdateTags,
        "deviceinfo/delete" => Up::DeleteTags,
        "property/desired/get" => Up::GetDesired,
        "property/desired/delete" => Up::DeleteDesired,
        "config/get" => Up::GetConfig,
        "topo/get" => Up::GetTopology,
        "topo/add" => Up::AddTopology,
        "topo/delete" => Up::DeleteTopology,
        "sub/register" => Up::RegisterSubDevices,
        "proxy/provisioning/product_register" => Up::RegisterByProxy,
        "ota/firmware/get" => Up::GetFirmware,
        _ => {
            if let Some(event) = between(tail, "event/", "/post") {
                Up::Event(event)
            } else if between(tail, "service/", "_reply").is_some() {
                Up::Response
            } else if tail.is_empty() || tail.ends_with("_reply") || is_call(tail) {
                return None;
            } else {
                Up::Unknown
            }
        }
    })
}

/// Whether the platform sends this under `thing/`.
pub(super) fn down(tail: &str) -> bool {
    match tail.strip_suffix("_reply").map(up) {
        Some(request) => !matches!(request, None | Some(Up::Response | Up::RawResponse)),
        None => is_call(tail),
    }
}

/// What the platform sends of its own accord under `thing/`.
fn is_call(tail: &str) -> bool {
    matches!(tail, "service/property/set" | "service/property/get" | "model/down_raw" | "config/push" | "topo/change")
        || between(tail, "service/", "").is_some_and(|service| !service.ends_with("_reply"))
}

/// What a gateway sends on `/ext/session/{pk}/{dn}/...`.
pub(super) fn is_session_request(tail: &str) -> bool {
    matches!(tail, "combine/login" | "combine/logout" | "combine/batch_login" | "combine/batch_logout")
}
