//! Generic clients: plain MQTT, known by user name and password or not at all. The identity is the client id.

use std::collections::HashMap;
use std::sync::Arc;

use bytestring::ByteString;
use fulmar_mqtt::{QoS, ReasonCode, TopicFilter, TopicName};

use crate::acl::{Access, Permissions, Rule};
use crate::dialect::application::is_reserved;
use crate::dialect::spaces::Spaces;
use crate::dialect::{Publishing, Subscribing, Voice};
use crate::registry::Registry;
use crate::{Admission, ConnectRequest, Decision, Dialect, Manners, Refusal, TENANT, Verification};

pub(crate) const WRONG_PASSWORD: Refusal =
    Refusal { reason: ReasonCode::BadUserNameOrPassword, detail: "wrong password or unknown user" };

/// What an unknown user's password is verified against while no user is configured: argon2id at its usual cost, over a
/// salt and an output that belong to no password.
const DUMMY_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$ZnVsbWFyLW5vLXVzZXI$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// What the configuration says about generic clients.
#[derive(Debug, Clone)]
pub struct GenericOptions {
    /// Clients that give neither user name nor password.
    pub anonymous: Access,
    /// (user name, argon2 hash as a PHC string). Of two with one name the first counts.
    pub users: Vec<(String, String)>,
    pub rules: Vec<Rule>,
    /// For whatever no rule speaks about.
    pub default: Access,
}

/// Decides about generic clients. A clone shares users and rules.
#[derive(Debug, Clone)]
pub struct Generic(Arc<Inner>);

struct Inner {
    anonymous: Access,
    users: HashMap<String, Arc<str>>,
    /// What unknown users are verified against: a configured hash, so that it costs what the others cost.
    decoy: Arc<str>,
    rules: Vec<Rule>,
    default: Access,
    /// Shared by all clients while there are no rules.
    unruled: Permissions,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Hashes stay out of logs.
        f.debug_struct("Generic").field("anonymous", &self.anonymous).field("users", &self.users.len()).finish()
    }
}

impl Generic {
    #[must_use]
    pub fn new(options: GenericOptions) -> Generic {
        let decoy = options.users.first().map_or(DUMMY_HASH, |(_, hash)| hash.as_str()).into();
        let mut users: HashMap<String, Arc<str>> = HashMap::with_capacity(options.users.len());
        for (name, hash) in options.users {
            users.entry(name).or_insert_with(|| hash.into());
        }
        Generic(Arc::new(Inner {
            anonymous: options.anonymous,
            users,
            decoy,
            rules: options.rules,
            default: options.default,
            unruled: Permissions::unruled(options.default),
        }))
    }

    /// Decides about a CONNECT. A user name is always checked, also where anonymous clients are allowed. `wrong` is for
    /// who gives a wrong password or is unknown.
    pub(crate) fn admit(&self, request: &ConnectRequest<'_>, registry: &Registry, wrong: Refusal) -> Decision {
        let connect = request.connect;
        let Some(name) = &connect.username else {
            return match (&connect.password, self.0.anonymous) {
                // [v5 3.1.2.9] a password may come without a user name; here it would be nobody's.
                (Some(_), _) => Decision::Refuse(Refusal {
                    reason: ReasonCode::BadUserNameOrPassword,
                    detail: "a password without a user name",
                }),
                (None, Access::Deny) => Decision::Refuse(Refusal {
                    reason: ReasonCode::NotAuthorized,
                    detail: "anonymous clients are not allowed",
                }),
                (None, Access::Allow) => self
                    .admission(request, registry, None)
                    .map_or_else(Decision::Refuse, |admission| Decision::Admit(Box::new(admission))),
            };
        };
        let user = self.0.users.get(&**name);
        let outcome = match (user, &connect.password) {
            (Some(_), Some(_)) => self.admission(request, registry, Some(name)),
            // Unknown, or without a password: refused whatever the verification says, after it has taken its time.
            _ => Err(wrong),
        };
        let hash = user.unwrap_or(&self.0.decoy).clone();
        let password = connect.password.as_ref().map_or_else(Vec::new, |password| password.to_vec());
        Decision::VerifyPassword(Box::new(Verification { hash, password, outcome, wrong }))
    }

    fn admission(
        &self,
        request: &ConnectRequest<'_>,
        registry: &Registry,
        user_name: Option<&str>,
    ) -> Result<Admission, Refusal> {
        let permissions = if self.0.rules.is_empty() {
            self.0.unruled.clone()
        } else {
            Permissions::compile(&self.0.rules, self.0.default, request.client_id, user_name)
        };
        let voice = Plain { permissions, spaces: Spaces::of(registry) };
        if let Some(will) = &request.connect.will
            && voice.publishing(&will.topic) != Publishing::Route
        {
            return Err(Refusal { reason: ReasonCode::NotAuthorized, detail: "the will's topic is not allowed" });
        }
        Ok(Admission {
            tenant: ByteString::from_static(TENANT),
            dialect: Dialect::Generic,
            identity: ByteString::from(request.client_id),
            voice: Arc::new(voice),
            manners: Manners::default(),
            oversize: None,
            exclusive_client_id: None,
            changes: Vec::new(),
            greeting: Vec::new(),
        })
    }
}

/// A generic client: what its access list says. Topics that start with `$` are the server's [v5 4.7.2], and those by
/// which Aliyun's cloud talks with its devices, and Sensoro's pushes records, are the platform's. What rules push is for
/// applications, whatever the list says.
#[derive(Debug)]
struct Plain {
    permissions: Permissions,
    spaces: Spaces,
}

impl Voice for Plain {
    fn publishing(&self, topic: &TopicName) -> Publishing {
        let text = topic.as_str();
        let reserved = text.starts_with('$')
            || (text.starts_with('/') && self.spaces.is_aliyun_system(text))
            || self.spaces.is_sensoro_record(topic);
        if reserved || !self.permissions.may_publish(topic) { Publishing::Deny } else { Publishing::Route }
    }

    fn subscribing(&self, filter: &TopicFilter) -> Subscribing {
        let granted = !is_reserved(filter) && self.permissions.may_subscribe(filter);
        if granted { Subscribing::Grant(QoS::ExactlyOnce) } else { Subscribing::Deny }
    }
}
