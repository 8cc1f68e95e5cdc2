//! `[auth]`: who may connect, and who may publish and subscribe where.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use argon2::password_hash::PasswordHash;
use fulmar_platform::acl::{Access, Action, Pattern, Rule, Who};
use fulmar_platform::{Generic, GenericOptions};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::problem::{ConfigError, Problems};
use super::tree::Tree;
use super::units::Secret;

const HASH_ALLOWED: &str = "an argon2 hash as a PHC string, as in \"$argon2id$v=19$m=19456,t=2,p=1$...\"";

/// Memory of one verification that a hash may ask for: 256 MiB. More would let one CONNECT exhaust a node.
const HASH_MEMORY_KIB_MAX: u32 = 256 * 1024;

/// Authentication and access of generic clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Clients without user name and password: `allow` or `deny`. One that gives a user name is checked in either case.
    /// Default `deny`.
    pub anonymous: Permission,
    /// What holds where no rule in `acl` speaks: `allow` or `deny`. Publishing to topics that start with `$` is denied in
    /// any case. Default `allow`.
    pub acl_default: Permission,
    /// File of further users, one `name:hash` a line, hashes as in `password_hash`; empty lines and lines that start
    /// with `#` are passed over. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users_file: Option<PathBuf>,
    /// Users. Default none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub user: Vec<User>,
    /// Rules of access, in order: the first that speaks about a request decides it. An allow rule decides a subscribe
    /// only if it covers the whole filter, a deny rule as soon as it overlaps it. Default none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub acl: Vec<AclRule>,
}

/// `allow` or `deny`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    Allow,
    Deny,
}

/// A user and the hash of its password, given here or in a file of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Name, as in CONNECT. Required, different for each user.
    pub username: String,
    /// Argon2 hash of the password as a PHC string (`$argon2id$v=19$...`). This or `password_hash_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<Secret>,
    /// File that holds the hash on its first line. This or `password_hash`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash_file: Option<PathBuf>,
}

/// One rule of access.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AclRule {
    /// Whom it is about: `all`, `anonymous` (clients without a user name) or a list of user names. Default `all`.
    #[serde(default)]
    pub users: AclUsers,
    /// What it is about: `publish`, `subscribe` or `all`. Default `all`.
    #[serde(default)]
    pub action: AclAction,
    /// What it says: `allow` or `deny`. Required.
    pub permission: Permission,
    /// Topic filters that it is about. `%c` is the client id, `%u` the user name, `%%` a percent sign. A name with `+`,
    /// `#` or `/` in it, or `$` at its start, is not put in: an allow rule then allows nothing, a deny rule denies
    /// everything from that level on. Required, at least one.
    pub filters: Vec<String>,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AclAction {
    Publish,
    Subscribe,
    #[default]
    All,
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AclUsers {
    #[default]
    All,
    Anonymous,
    Named(Vec<String>),
}

impl Default for Auth {
    fn default() -> Auth {
        Auth {
            anonymous: Permission::Deny,
            acl_default: Permission::Allow,
            users_file: None,
            user: Vec::new(),
            acl: Vec::new(),
        }
    }
}

impl<'de> Deserialize<'de> for AclUsers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AclUsers, D::Error> {
        struct UsersVisitor;

        impl<'de> Visitor<'de> for UsersVisitor {
            type Value = AclUsers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"all\", \"anonymous\" or a list of user names")
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<AclUsers, E> {
                match value {
                    "all" => Ok(AclUsers::All),
                    "anonymous" => Ok(AclUsers::Anonymous),
                    _ => Err(E::invalid_value(de::Unexpected::Str(value), &self)),
                }
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<AclUsers, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                Ok(AclUsers::Named(names))
            }
        }

        deserializer.deserialize_any(UsersVisitor)
    }
}

impl Serialize for AclUsers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            AclUsers::All => serializer.serialize_str("all"),
            AclUsers::Anonymous => serializer.serialize_str("anonymous"),
            AclUsers::Named(names) => names.serialize(serializer),
        }
    }
}

impl JsonSchema for AclUsers {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AclUsers".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`all`, `anonymous` or a list of user names",
            "anyOf": [
                { "type": "string", "enum": ["all", "anonymous"] },
                { "type": "array", "items": { "type": "string" }, "minItems": 1 },
            ],
        })
    }
}

impl Permission {
    #[must_use]
    pub fn access(self) -> Access {
        match self {
            Permission::Allow => Access::Allow,
            Permission::Deny => Access::Deny,
        }
    }
}

impl AclRule {
    /// The rule as the platform reads it. Filters that are no patterns were refused when the configuration was loaded.
    fn rule(&self) -> Rule {
        Rule {
            who: match &self.users {
                AclUsers::All => Who::Everyone,
                AclUsers::Anonymous => Who::Anonymous,
                AclUsers::Named(names) => Who::Users(names.clone()),
            },
            action: match self.action {
                AclAction::Publish => Action::Publish,
                AclAction::Subscribe => Action::Subscribe,
                AclAction::All => Action::All,
            },
            access: self.permission.access(),
            patterns: self
                .filters
                .iter()
                .map(|filter| Pattern::parse(filter).expect("filters are checked when the configuration is loaded"))
                .collect(),
        }
    }

    fn check(&self, key: &str, problems: &mut Problems<'_>) {
        if self.users == AclUsers::Named(Vec::new()) {
            problems
                .add(&format!("{key}.users"), "is empty; allowed: \"all\", \"anonymous\" or at least one user name");
        }
        if self.filters.is_empty() {
            problems.add(&format!("{key}.filters"), "is empty; allowed: at least one topic filter");
        }
        for (index, filter) in self.filters.iter().enumerate() {
            let key = format!("{key}.filters.{index}");
            match Pattern::parse(filter) {
                Err(error) => problems.add(&key, format!("{filter:?} {error}")),
                Ok(_)
                    if filter.starts_with('$')
                        && self.action == AclAction::Publish
                        && self.permission == Permission::Allow =>
                {
                    problems
                        .add(&key, format!("{filter:?} has no effect: clients publish to no topic of the server's"));
                }
                Ok(_) => {}
            }
        }
    }
}

impl Auth {
    /// Reads the files that are named, and builds what decides about generic clients.
    ///
    /// # Errors
    /// Each user whose hash cannot be read or is none.
    pub fn generic(&self) -> Result<Generic, ConfigError> {
        let tree = Tree::empty();
        let mut problems = Problems::new(&tree);
        let users = self.users(&mut problems);
        problems.into_result()?;
        Ok(Generic::new(GenericOptions {
            anonymous: self.anonymous.access(),
            users,
            rules: self.acl.iter().map(AclRule::rule).collect(),
            default: self.acl_default.access(),
        }))
    }

    pub(super) fn check(&self, problems: &mut Problems<'_>) {
        for (index, user) in self.user.iter().enumerate() {
            let key = format!("auth.user.{index}");
            // The first part of a line in a users file ends at the colon.
            if user.username.is_empty() || user.username.contains([':', '\n', '\0']) {
                problems.add(&format!("{key}.username"), "is empty or contains ':'; allowed: any other text");
            }
            match (&user.password_hash, &user.password_hash_file) {
                (Some(_), Some(_)) => {
                    problems.add(&format!("{key}.password_hash_file"), "is given beside password_hash; choose one");
                }
                (None, None) => problems.add(&key, "needs password_hash or password_hash_file"),
                (Some(hash), None) => check_hash(&format!("{key}.password_hash"), hash.expose(), "is", problems),
                (None, Some(_)) => {}
            }
        }
        for (index, rule) in self.acl.iter().enumerate() {
            rule.check(&format!("auth.acl.{index}"), problems);
        }
    }

    pub(super) fn check_relations(&self, problems: &mut Problems<'_>) {
        let mut names = HashSet::new();
        for (index, user) in self.user.iter().enumerate() {
            if !names.insert(user.username.as_str()) {
                problems.add(&format!("auth.user.{index}.username"), format!("is {:?} a second time", user.username));
            }
        }
    }

    /// All users as (name, hash), with what their files say.
    pub(super) fn users(&self, problems: &mut Problems<'_>) -> Vec<(String, String)> {
        let mut users = Vec::new();
        for (index, user) in self.user.iter().enumerate() {
            let key = format!("auth.user.{index}.password_hash_file");
            let hash = match (&user.password_hash, &user.password_hash_file) {
                (Some(hash), _) => Some(hash.expose().to_owned()),
                (None, Some(path)) => read(&key, path, problems).map(|text| {
                    let hash = text.lines().next().unwrap_or_default().trim().to_owned();
                    check_hash(&key, &hash, &format!("names {}, whose first line is", path.display()), problems);
                    hash
                }),
                (None, None) => None,
            };
            users.extend(hash.map(|hash| (user.username.clone(), hash)));
        }
        if let Some(path) = &self.users_file
            && let Some(text) = read("auth.users_file", path, problems)
        {
            users.extend(parse_users(path, &text, &users, problems));
        }
        users
    }
}

pub(super) fn read(key: &str, path: &Path, problems: &mut Problems<'_>) -> Option<String> {
    std::fs::read_to_string(path)
        .map_err(|error| problems.add(key, format!("names {}, which cannot be read: {error}", path.display())))
        .ok()
}

fn parse_users(
    path: &Path,
    text: &str,
    others: &[(String, String)],
    problems: &mut Problems<'_>,
) -> Vec<(String, String)> {
    let mut names: HashSet<&str> = others.iter().map(|(name, _)| name.as_str()).collect();
    let mut users = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // What a line holds is never shown: it may be a password.
        let place = format!("names {}, line {}, which", path.display(), index + 1);
        match line.split_once(':') {
            Some((name, hash)) if !name.is_empty() => {
                if !names.insert(name) {
                    problems.add("auth.users_file", format!("{place} names the user {name:?} a second time"));
                }
                check_hash("auth.users_file", hash, &format!("{place} has"), problems);
                users.push((name.into(), hash.into()));
            }
            _ => problems.add("auth.users_file", format!("{place} is not name:hash")),
        }
    }
    users
}

/// Says that a hash is none, without saying what it is: it may be a password.
pub(super) fn check_hash(key: &str, hash: &str, is: &str, problems: &mut Problems<'_>) {
    let parsed = PasswordHash::new(hash).ok().filter(|parsed| {
        argon2::Algorithm::try_from(parsed.algorithm).is_ok() && parsed.salt.is_some() && parsed.hash.is_some()
    });
    match parsed.and_then(|parsed| argon2::Params::try_from(&parsed).ok()) {
        None => problems.add(key, format!("{is} something else; allowed: {HASH_ALLOWED}")),
        Some(params) if params.m_cost() > HASH_MEMORY_KIB_MAX => {
            problems.add(key, format!("{is} a hash with m={}; allowed: up to {HASH_MEMORY_KIB_MAX}", params.m_cost()));
        }
        Some(_) => {}
    }
}
