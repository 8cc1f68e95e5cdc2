//! The table of routes: what is matched, who may, who answers, and what the OpenAPI document says of it.

use std::future::Future;
use std::pin::Pin;

use fulmar_platform::registry::Role;
use futures_util::Stream;
use serde_json::Value;

use super::call::{Answer, Call};
use super::{
    BODY_BYTES_MAX, Fault, LONG_BODY_BYTES_MAX, access, alarms, apps, audit, authorities, backups, bans, batch_tasks,
    cluster, commands, devices, diagnosis, iam, messages, openapi, people, products, retained, rules, sensoro,
    sessions, settings, shadows, subscriptions, topics, traces,
};

/// The answer of a call that is answered once.
pub type Answering = Pin<Box<dyn Future<Output = Result<Answer, Fault>> + Send>>;

/// What a call gives one after the other, until it ends or nobody listens any more.
pub type Streaming = Pin<Box<dyn Stream<Item = Result<Value, Fault>> + Send>>;

/// What is given to a call one after the other.
pub type Uploads = Pin<Box<dyn Stream<Item = Result<Value, Fault>> + Send>>;

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    Role(Role),
}

/// How a call is carried out.
#[derive(Clone, Copy)]
pub enum Handler {
    Once(fn(Call) -> Answering),
    /// Many answers; an error ends them.
    Stream(fn(Call) -> Streaming),
    /// Many requests, and one answer. The call's own document is the first of them.
    Upload(fn(Call, Uploads) -> Answering),
}

/// A call's place in REST.
#[derive(Debug)]
pub struct Http {
    pub method: &'static str,
    /// Parameters in braces.
    pub path: &'static str,
    /// Names of the query's parameters.
    pub query: &'static [&'static str],
    /// The status of an answer that is none of errors.
    pub status: u16,
}

impl Http {
    /// The names of the path's parameters.
    pub fn params(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(parameter)
    }
}

/// One call.
pub struct Route {
    /// Room and function: `devices.show` is `Show` of the service `Devices`.
    pub name: &'static str,
    pub needs: Needs,
    /// `None`: not in REST.
    pub http: Option<Http>,
    /// Schemas of the bodies; empty for none, and for calls that REST does not have.
    pub(super) takes: &'static str,
    pub(super) gives: &'static str,
    /// Whether it changes something: those who may only view may not, and it is written to the audit.
    pub changes: bool,
    /// Whether it is answered without a lease, by what this node knows.
    pub(super) without_lease: bool,
    pub handler: Handler,
}

impl Route {
    /// Bytes of a request's body.
    #[must_use]
    pub fn body_bytes_max(&self) -> usize {
        match self.takes {
            "BatchTaskBody" | "BatchTargets" => LONG_BODY_BYTES_MAX,
            _ => BODY_BYTES_MAX,
        }
    }

    /// The first part of its name.
    #[must_use]
    pub fn room(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(room, _)| room)
    }

    /// Whether it returns or changes a secret: one caller may make few of these.
    #[must_use]
    pub fn sensitive(&self) -> bool {
        SENSITIVE.contains(&self.name)
    }

    /// Whether gRPC has it: everything but what anybody may read without a word, which describes REST.
    #[must_use]
    pub fn in_grpc(&self) -> bool {
        self.needs != Needs::Nothing || self.name == "iam.create_token"
    }

    /// The gRPC method: `Devices/Show`.
    #[must_use]
    pub fn method(&self) -> String {
        let mut named = String::new();
        let mut starts = true;
        for c in self.name.chars() {
            match c {
                '.' => named.push('/'),
                '_' => {}
                c if starts => named.push(c.to_ascii_uppercase()),
                c => named.push(c),
            }
            starts = matches!(c, '.' | '_');
        }
        named
    }
}

const VIEWER: Needs = Needs::Role(Role::Viewer);
const OPERATOR: Needs = Needs::Role(Role::Operator);
const ADMIN: Needs = Needs::Role(Role::Admin);

const PAGED: &[&str] = &["limit", "marker", "offset", "app_id", "product_name"];
const DEVICES: &[&str] = &[
    "product_id",
    "gateway_id",
    "is_cascade_query",
    "node_id",
    "device_name",
    "limit",
    "marker",
    "offset",
    "start_time",
    "end_time",
    "app_id",
];

const RULES: &[&str] = &["resource", "event", "app_type", "app_id", "rule_name", "active", "limit", "marker", "offset"];
const ACTIONS: &[&str] = &["rule_id", "channel", "app_type", "app_id", "limit", "marker", "offset"];
const TASKS: &[&str] = &["app_id", "task_type", "status", "limit", "marker", "offset"];
const TASK: &[&str] = &["task_detail_status", "target", "limit", "marker", "offset"];

macro_rules! routes {
    ($($needs:ident $method:literal $path:literal $query:expr, $takes:literal => $status:literal $gives:literal $room:ident::$name:ident;)*) => {
        &[$(Route {
            name: concat!(stringify!($room), ".", stringify!($name)),
            needs: $needs,
            http: Some(Http { method: $method, path: $path, query: $query, status: $status }),
            takes: $takes,
            gives: $gives,
            changes: !matches!($method.as_bytes(), b"GET") && !matches!($needs, Needs::Nothing),
            without_lease: false,
            handler: Handler::Once(|call| Box::pin($room::$name(call))),
        }),*]
    };
}

/// Calls that REST does not have. `reads` change nothing, `looks` are answered also without a lease, by what this node
/// knows; `changes` are audited, `watches` give many answers; `follows` are both: they change something, or give secrets
/// away, and tell how far it is. `uploads` take many requests.
macro_rules! calls {
    (@changes reads) => { false };
    (@changes looks) => { false };
    (@changes watches) => { false };
    (@changes changes) => { true };
    (@changes follows) => { true };
    (@changes uploads) => { true };
    (@handler follows $room:ident $name:ident) => { Handler::Stream(|call| Box::pin($room::$name(call))) };
    (@handler watches $room:ident $name:ident) => { Handler::Stream(|call| Box::pin($room::$name(call))) };
    (@handler uploads $room:ident $name:ident) => { Handler::Upload(|call, parts| Box::pin($room::$name(call, parts))) };
    (@handler $kind:ident $room:ident $name:ident) => { Handler::Once(|call| Box::pin($room::$name(call))) };
    ($($needs:ident $kind:ident $room:ident::$name:ident;)*) => {
        &[$(Route {
            name: concat!(stringify!($room), ".", stringify!($name)),
            needs: $needs,
            http: None,
            takes: "",
            gives: "",
            changes: calls!(@changes $kind),
            without_lease: matches!(stringify!($kind).as_bytes(), b"looks"),
            handler: calls!(@handler $kind $room $name),
        }),*]
    };
}

const NOBODY: Needs = Needs::Nothing;

/// Every call that has a place in REST.
pub const ROUTES: &[Route] = routes! {
    NOBODY "GET" "/openapi.json" &[], "" => 200 "" openapi::serve;
    NOBODY "POST" "/v3/auth/tokens" &["nocatalog"], "TokenRequest" => 201 "Token" iam::create_token;
    VIEWER "GET" "/v3/projects" &["name"], "" => 200 "Projects" iam::list_projects;

    OPERATOR "POST" "/v5/iot/{project_id}/apps" &[], "AppBody" => 201 "App" apps::create;
    VIEWER "GET" "/v5/iot/{project_id}/apps" &["default_app"], "" => 200 "Apps" apps::list;
    VIEWER "GET" "/v5/iot/{project_id}/apps/{app_id}" &[], "" => 200 "App" apps::show;
    OPERATOR "PUT" "/v5/iot/{project_id}/apps/{app_id}" &[], "AppBody" => 200 "App" apps::update;
    OPERATOR "DELETE" "/v5/iot/{project_id}/apps/{app_id}" &[], "" => 204 "" apps::delete;
    ADMIN "POST" "/v5/iot/{project_id}/auth/accesscode" &[], "AccessCodeBody" => 201 "AccessCode" apps::create_access_code;

    OPERATOR "POST" "/v5/iot/{project_id}/products" &[], "ProductBody" => 201 "Product" products::create;
    VIEWER "GET" "/v5/iot/{project_id}/products" PAGED, "" => 200 "Products" products::list;
    VIEWER "GET" "/v5/iot/{project_id}/products/{product_id}" &["app_id"], "" => 200 "Product" products::show;
    OPERATOR "PUT" "/v5/iot/{project_id}/products/{product_id}" &[], "ProductBody" => 200 "Product" products::update;
    OPERATOR "DELETE" "/v5/iot/{project_id}/products/{product_id}" &["app_id"], "" => 204 "" products::delete;
    VIEWER "GET" "/v5/iot/{project_id}/products/{product_id}/topics" &[], "" => 200 "Topics" products::topics;
    OPERATOR "PUT" "/v5/iot/{project_id}/products/{product_id}/topics" &[], "Topics" => 200 "Topics" products::set_topics;
    ADMIN "POST" "/v5/iot/{project_id}/products/{product_id}/ca" &[], "" => 201 "Authority" authorities::create_product_ca;

    OPERATOR "POST" "/v5/iot/{project_id}/devices" &[], "DeviceBody" => 201 "Device" devices::add;
    VIEWER "GET" "/v5/iot/{project_id}/devices" DEVICES, "" => 200 "Devices" devices::list;
    VIEWER "GET" "/v5/iot/{project_id}/devices/{device_id}" &[], "" => 200 "Device" devices::show;
    OPERATOR "PUT" "/v5/iot/{project_id}/devices/{device_id}" &[], "DeviceUpdate" => 200 "Device" devices::update;
    OPERATOR "DELETE" "/v5/iot/{project_id}/devices/{device_id}" &[], "" => 204 "" devices::delete;
    OPERATOR "POST" "/v5/iot/{project_id}/devices/{device_id}/action" &["action_id"], "SecretBody" => 200 "DeviceSecret" devices::action;
    OPERATOR "POST" "/v5/iot/{project_id}/devices/{device_id}/freeze" &[], "" => 204 "" devices::freeze;
    OPERATOR "POST" "/v5/iot/{project_id}/devices/{device_id}/unfreeze" &[], "" => 204 "" devices::unfreeze;
    OPERATOR "POST" "/v5/iot/{project_id}/devices/{device_id}/reset-fingerprint" &[], "FingerprintBody" => 200 "Fingerprint" devices::reset_fingerprint;
    OPERATOR "POST" "/v5/iot/{project_id}/devices/{device_id}/change-gateway" &[], "GatewayBody" => 200 "Device" devices::change_gateway;
    OPERATOR "POST" "/v5/iot/{project_id}/devices/{device_id}/certificate" &[], "" => 201 "DeviceCertificate" devices::issue_certificate;
    OPERATOR "POST" "/v5/iot/{project_id}/devices/{device_id}/commands" &[], "CommandBody" => 200 "CommandAnswer" commands::create;
    VIEWER "GET" "/v5/iot/{project_id}/devices/{device_id}/properties" &["service_id"], "" => 200 "RequestAnswer" commands::get_properties;
    OPERATOR "PUT" "/v5/iot/{project_id}/devices/{device_id}/properties" &[], "PropertiesBody" => 200 "RequestAnswer" commands::set_properties;
    OPERATOR "POST" "/v5/iot/{project_id}/devices/{device_id}/rrpc" &[], "RrpcBody" => 200 "RequestAnswer" commands::request;
    OPERATOR "POST" "/v5/iot/{project_id}/devices/{device_id}/async-commands" &[], "" => 400 "Error" commands::create_async;
    VIEWER "GET" "/v5/iot/{project_id}/devices/{device_id}/async-commands" &[], "" => 400 "Error" commands::list_async;
    VIEWER "GET" "/v5/iot/{project_id}/devices/{device_id}/async-commands/{command_id}" &[], "" => 400 "Error" commands::show_async;

    OPERATOR "POST" "/v5/iot/{project_id}/batchtasks" &[], "BatchTaskBody" => 201 "BatchTask" batch_tasks::create;
    VIEWER "GET" "/v5/iot/{project_id}/batchtasks" TASKS, "" => 200 "BatchTasks" batch_tasks::list;
    VIEWER "GET" "/v5/iot/{project_id}/batchtasks/{task_id}" TASK, "" => 200 "BatchTaskDetails" batch_tasks::show;
    OPERATOR "DELETE" "/v5/iot/{project_id}/batchtasks/{task_id}" &[], "" => 204 "" batch_tasks::delete;
    OPERATOR "POST" "/v5/iot/{project_id}/batchtasks/{task_id}/retry" &[], "BatchTargets" => 200 "BatchTargetResults" batch_tasks::retry;
    OPERATOR "POST" "/v5/iot/{project_id}/batchtasks/{task_id}/stop" &[], "BatchTargets" => 200 "BatchTargetResults" batch_tasks::stop;
    OPERATOR "POST" "/v5/iot/{project_id}/batchtasks/{task_id}/confirm" &[], "BatchTargets" => 200 "BatchTargetResults" batch_tasks::confirm;
    OPERATOR "POST" "/v5/iot/{project_id}/devices/{device_id}/messages" &[], "MessageBody" => 201 "MessageResult" messages::create;
    VIEWER "GET" "/v5/iot/{project_id}/devices/{device_id}/messages" &[], "" => 200 "Messages" messages::list;
    VIEWER "GET" "/v5/iot/{project_id}/devices/{device_id}/messages/{message_id}" &[], "" => 200 "Message" messages::show;
    OPERATOR "DELETE" "/v5/iot/{project_id}/devices/{device_id}/messages/{message_id}" &[], "" => 204 "" messages::delete;
    OPERATOR "POST" "/v5/iot/{project_id}/broadcast-messages" &[], "BroadcastBody" => 201 "Broadcast" messages::broadcast;

    OPERATOR "POST" "/v5/iot/{project_id}/routing-rule/rules" &[], "RuleBody" => 201 "Rule" rules::create;
    VIEWER "GET" "/v5/iot/{project_id}/routing-rule/rules" RULES, "" => 200 "Rules" rules::list;
    VIEWER "GET" "/v5/iot/{project_id}/routing-rule/rules/{rule_id}" &[], "" => 200 "Rule" rules::show;
    OPERATOR "PUT" "/v5/iot/{project_id}/routing-rule/rules/{rule_id}" &[], "RuleUpdate" => 200 "Rule" rules::update;
    OPERATOR "DELETE" "/v5/iot/{project_id}/routing-rule/rules/{rule_id}" &[], "" => 204 "" rules::delete;
    OPERATOR "POST" "/v5/iot/{project_id}/routing-rule/rules/{rule_id}/test" &[], "RuleTrial" => 200 "RuleTried" rules::test;
    OPERATOR "POST" "/v5/iot/{project_id}/routing-rule/test" &[], "RuleTrial" => 200 "RuleTried" rules::test_texts;
    VIEWER "GET" "/v5/iot/{project_id}/routing-rule/rules/{rule_id}/status" &[], "" => 200 "RuleStatus" rules::status;
    OPERATOR "POST" "/v5/iot/{project_id}/routing-rule/actions" &[], "RuleActionBody" => 201 "RuleAction" rules::create_action;
    OPERATOR "GET" "/v5/iot/{project_id}/routing-rule/actions" ACTIONS, "" => 200 "RuleActions" rules::list_actions;
    OPERATOR "GET" "/v5/iot/{project_id}/routing-rule/actions/{action_id}" &[], "" => 200 "RuleAction" rules::show_action;
    OPERATOR "PUT" "/v5/iot/{project_id}/routing-rule/actions/{action_id}" &[], "RuleActionBody" => 200 "RuleAction" rules::update_action;
    OPERATOR "DELETE" "/v5/iot/{project_id}/routing-rule/actions/{action_id}" &[], "" => 204 "" rules::delete_action;
    VIEWER "GET" "/v5/iot/{project_id}/devices/{device_id}/shadow" &[], "" => 200 "Shadow" shadows::show;
    OPERATOR "PUT" "/v5/iot/{project_id}/devices/{device_id}/shadow" &[], "ShadowBody" => 200 "Shadow" shadows::update;
    OPERATOR "DELETE" "/v5/iot/{project_id}/devices/{device_id}/shadow" &[], "" => 204 "" shadows::delete;
    OPERATOR "POST" "/v5/iot/{project_id}/devices/{device_id}/upgrade" &[], "UpgradeBody" => 204 "" shadows::offer_upgrade;
    OPERATOR "POST" "/v5/iot/{project_id}/devices/{device_id}/version-query" &[], "" => 204 "" shadows::query_version;

    ADMIN "POST" "/v5/iot/{project_id}/certificates" &[], "AuthorityBody" => 201 "Authority" authorities::upload;
    VIEWER "GET" "/v5/iot/{project_id}/certificates" &[], "" => 200 "Authorities" authorities::list;
    ADMIN "DELETE" "/v5/iot/{project_id}/certificates/{certificate_id}" &[], "" => 204 "" authorities::delete;

    OPERATOR "POST" "/v5/iot/{project_id}/sensoro-apps" &[], "SensoroAppBody" => 201 "SensoroApp" sensoro::create;
    VIEWER "GET" "/v5/iot/{project_id}/sensoro-apps" &[], "" => 200 "SensoroApps" sensoro::list;
    OPERATOR "PUT" "/v5/iot/{project_id}/sensoro-apps/{sensoro_app_id}" &[], "SensoroAppBody" => 200 "SensoroApp" sensoro::update;
    OPERATOR "POST" "/v5/iot/{project_id}/sensoro-apps/{sensoro_app_id}/reset-secret" &[], "" => 200 "SensoroApp" sensoro::rotate_secret;
    OPERATOR "POST" "/v5/iot/{project_id}/sensoro-apps/{sensoro_app_id}/records" &[], "SensoroRecord" => 204 "" sensoro::push;
    OPERATOR "DELETE" "/v5/iot/{project_id}/sensoro-apps/{sensoro_app_id}" &[], "" => 204 "" sensoro::delete;

    ADMIN "POST" "/v5/iot/{project_id}/users" &[], "UserBody" => 201 "User" people::create_user;
    ADMIN "GET" "/v5/iot/{project_id}/users" &[], "" => 200 "Users" people::list_users;
    ADMIN "PUT" "/v5/iot/{project_id}/users/{user_name}" &[], "UserUpdate" => 200 "User" people::update_user;
    ADMIN "DELETE" "/v5/iot/{project_id}/users/{user_name}" &[], "" => 204 "" people::delete_user;
    ADMIN "POST" "/v5/iot/{project_id}/access-keys" &[], "AccessKeyBody" => 201 "AccessKey" people::create_access_key;
    ADMIN "GET" "/v5/iot/{project_id}/access-keys" &[], "" => 200 "AccessKeys" people::list_access_keys;
    ADMIN "DELETE" "/v5/iot/{project_id}/access-keys/{access_key}" &[], "" => 204 "" people::delete_access_key;
};

/// Calls that only gRPC and the console have.
const CALLS: &[Route] = calls! {
    VIEWER looks access::details;
    VIEWER looks cluster::list_members;
    ADMIN changes cluster::join;
    ADMIN changes cluster::remove;
    ADMIN follows cluster::drain;
    ADMIN follows cluster::rebalance;
    VIEWER looks cluster::metrics;
    VIEWER watches cluster::watch;
    VIEWER watches devices::watch;
    VIEWER reads sessions::list;
    VIEWER reads sessions::show;
    OPERATOR changes sessions::disconnect;
    OPERATOR changes sessions::clear;
    VIEWER watches sessions::watch;
    VIEWER reads subscriptions::list;
    VIEWER reads retained::list;
    VIEWER reads retained::get;
    OPERATOR changes retained::delete;
    VIEWER watches retained::export;

    ADMIN follows backups::create;
    ADMIN uploads backups::restore;
    VIEWER reads bans::list;
    OPERATOR changes bans::create;
    OPERATOR changes bans::delete;
    VIEWER reads settings::list;
    ADMIN changes settings::set;
    ADMIN changes settings::reset;
    VIEWER reads settings::history;
    VIEWER reads alarms::list;
    OPERATOR changes alarms::clear;
    VIEWER watches alarms::watch;
    ADMIN reads audit::list;

    OPERATOR changes traces::start;
    OPERATOR changes traces::stop;
    VIEWER looks traces::list;
    OPERATOR looks traces::show;
    OPERATOR watches traces::follow;
    VIEWER looks diagnosis::why;
    VIEWER looks diagnosis::slow;
    VIEWER looks topics::top;
};

/// Calls that return or change secrets. Those that add devices are not among them, for a fleet is added at once; nor are
/// sign-ins, which have bounds of their own.
const SENSITIVE: &[&str] = &[
    "apps.create_access_code",
    "authorities.create_product_ca",
    "authorities.delete",
    "authorities.upload",
    "devices.action",
    "devices.issue_certificate",
    "devices.reset_fingerprint",
    "people.create_access_key",
    "people.create_user",
    "people.delete_access_key",
    "people.delete_user",
    "people.update_user",
    "sensoro.rotate_secret",
];

/// Every call.
pub fn all() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().chain(CALLS)
}

/// A call by its name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Route> {
    all().find(|route| route.name == name)
}

/// What is at a path.
pub enum Found {
    /// With the parameters of the path.
    Route(&'static Route, &'static Http, Vec<(&'static str, String)>),
    /// The path is there, but takes only these methods.
    OtherMethods(Vec<&'static str>),
    Nothing,
}

fn parameter(segment: &'static str) -> Option<&'static str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

/// Finds the route of a path, whose segments are decoded.
#[must_use]
pub fn find(method: &str, segments: &[String]) -> Found {
    let mut others = Vec::new();
    for route in ROUTES {
        let Some(http) = &route.http else { continue };
        let wanted: Vec<&'static str> = http.path.split('/').skip(1).collect();
        if wanted.len() != segments.len() {
            continue;
        }
        let matches = |(wanted, given): (&&'static str, &String)| match parameter(wanted) {
            Some(_) => !given.is_empty(),
            None => **wanted == **given,
        };
        if !wanted.iter().zip(segments).all(matches) {
            continue;
        }
        if http.method == method {
            let named = wanted.iter().zip(segments);
            let path = named.filter_map(|(wanted, given)| Some((parameter(wanted)?, given.clone()))).collect();
            return Found::Route(route, http, path);
        }
        others.push(http.method);
    }
    if others.is_empty() { Found::Nothing } else { Found::OtherMethods(others) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(path: &str) -> Vec<String> {
        path.split('/').skip(1).map(str::to_owned).collect()
    }

    #[test]
    fn each_route_is_found_by_its_own_path() {
        for route in ROUTES {
            let http = route.http.as_ref().expect("it is in REST");
            let Found::Route(found, _, path) = find(http.method, &segments(http.path)) else {
                panic!("{} {} is not found", http.method, http.path);
            };
            assert_eq!(found.name, route.name);
            assert_eq!(path.len(), http.path.matches('{').count());
        }
        let mut names: Vec<_> = all().map(|route| route.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().count(), "names differ");
    }

    #[test]
    fn other_paths_and_methods_are_not() {
        for path in ["/", "/v5", "/v5/iot/p", "/v5/iot/p/devices/", "/v5/iot/p/devices/d/", "/v5/iot//devices", "/v3"] {
            assert!(matches!(find("GET", &segments(path)), Found::Nothing), "{path}");
        }
        match find("PATCH", &segments("/v5/iot/p/devices/d")) {
            Found::OtherMethods(methods) => assert_eq!(methods, ["GET", "PUT", "DELETE"]),
            _ => panic!("the path is there"),
        }
    }

    #[test]
    fn sensitive_calls_are_in_the_table_and_change_something() {
        assert!(SENSITIVE.is_sorted());
        for name in SENSITIVE {
            assert!(named(name).is_some_and(|route| route.sensitive() && route.changes), "{name}");
        }
        assert_eq!(all().filter(|route| route.sensitive()).count(), SENSITIVE.len());
    }

    #[test]
    fn only_reading_is_for_viewers() {
        for route in all() {
            let viewer = matches!(route.needs, Needs::Role(Role::Viewer));
            assert!(!viewer || !route.changes, "{}", route.name);
        }
    }
}
