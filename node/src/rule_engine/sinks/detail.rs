//! What actions say about their sinks: `channel_detail` of the REST API, read and checked. Errors name the member by its
//! path from there.

use fulmar_mqtt::TopicName;
use fulmar_platform::Secret;
use fulmar_platform::dialect::application::{TOPIC_BYTES_MAX, is_push_topic};
use serde_json::{Map, Value};

/// The path of a member, and what is wrong with it.
pub type Wrong = (String, String);

/// What stands for the topic that the event came on.
pub const SAME_TOPIC: &str = "$topic()";

const URL_BYTES_MAX: usize = 1024;

/// Minutes.
const TTL_MAX: u64 = 1440;
const TTL_STEP: u64 = 5;

const ADDRESSES_MAX: usize = 10;

const KAFKA_TOPIC_BYTES_MAX: usize = 249;

/// Members of one object.
pub(super) struct Members<'a> {
    members: &'a Map<String, Value>,
    place: String,
}

impl<'a> Members<'a> {
    /// The object in a member of `channel_detail`.
    fn of(detail: &'a Value, name: &str) -> Result<Members<'a>, Wrong> {
        let members = detail.get(name).and_then(Value::as_object);
        let members = members.ok_or_else(|| (name.to_owned(), "must be an object".to_owned()))?;
        Ok(Members { members, place: name.to_owned() })
    }

    fn wrong(&self, name: &str, problem: &str) -> Wrong {
        (format!("{}.{name}", self.place), problem.to_owned())
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, Wrong> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(name, "must be a string"))
    }

    fn required(&self, name: &str) -> Result<&'a str, Wrong> {
        self.text(name)?.filter(|text| !text.is_empty()).ok_or_else(|| self.wrong(name, "is required"))
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, Wrong> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(name, "must be true or false"))
    }

    fn secret(&self, name: &str) -> Result<Option<Secret>, Wrong> {
        Ok(self.text(name)?.filter(|text| !text.is_empty()).map(Secret::new))
    }
}

/// `mqtt_forwarding`: a topic of applications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    pub topic: String,
}

impl Push {
    /// # Errors
    /// The member that is wrong, and why.
    pub fn read(detail: &Value) -> Result<Push, Wrong> {
        let members = Members::of(detail, "mqtt_forwarding")?;
        let topic = members.required("topic")?;
        if !is_push_topic(topic) {
            let problem = format!("must be 1 to {TOPIC_BYTES_MAX} letters, digits, _, / and -");
            return Err(members.wrong("topic", &problem));
        }
        Ok(Push { topic: topic.to_owned() })
    }
}

/// `mqtt_device_forwarding`: a topic of devices, or that of the event, and how long it is kept for those that are away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// [`SAME_TOPIC`], or a topic.
    pub topic: String,
    pub ttl_minutes: u64,
}

impl Forward {
    /// # Errors
    /// The member that is wrong, and why.
    pub fn read(detail: &Value) -> Result<Forward, Wrong> {
        let members = Members::of(detail, "mqtt_device_forwarding")?;
        let topic = members.required("topic")?;
        let reserved = ["$push", "$SYS", "$share"].iter().any(|first| topic.split('/').next() == Some(first));
        let usable = topic == SAME_TOPIC
            || (!reserved && topic.len() <= TOPIC_BYTES_MAX && TopicName::new(topic.to_owned()).is_ok());
        if !usable {
            let problem =
                format!("must be {SAME_TOPIC}, or a topic of at most {TOPIC_BYTES_MAX} bytes without + and #");
            return Err(members.wrong("topic", &problem));
        }
        let ttl = members.get("ttl").map_or(Some(0), Value::as_u64);
        let ttl = ttl.filter(|ttl| *ttl <= TTL_MAX && ttl.is_multiple_of(TTL_STEP));
        let ttl_minutes = ttl.ok_or_else(|| members.wrong("ttl", "must be 0 to 1440 minutes, a multiple of 5"))?;
        Ok(Forward { topic: topic.to_owned(), ttl_minutes })
    }
}

/// `http_forwarding`: where parcels are posted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub url: String,
    /// The authority of the registry that vouches for the receiver; `None`: those that the system trusts.
    pub cert_id: Option<String>,
    /// The name that its certificate must be for, if that is not the host of the address.
    pub cn_name: Option<String>,
    /// Whether the name is said in the TLS handshake.
    pub sni: bool,
    /// Requests are signed with it.
    pub token: Option<Secret>,
}

impl Webhook {
    /// # Errors
    /// The member that is wrong, and why.
    pub fn read(detail: &Value) -> Result<Webhook, Wrong> {
        let members = Members::of(detail, "http_forwarding")?;
        let url = members.required("url")?;
        let parsed = reqwest::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let usable =
            parsed.as_ref().is_some_and(|url| url.has_host() && url.username().is_empty() && url.password().is_none());
        if !usable || url.len() > URL_BYTES_MAX {
            let problem =
                format!("must be an http or https address of at most {URL_BYTES_MAX} bytes, without credentials");
            return Err(members.wrong("url", &problem));
        }
        let token = members.secret("token")?;
        let letters =
            |text: &str| (3..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if token.as_ref().is_some_and(|token| !letters(token.expose())) {
            return Err(members.wrong("token", "must be 3 to 32 letters and digits"));
        }
        let signed = members.flag("signature_enable")?;
        if signed == Some(true) && token.is_none() {
            return Err(members.wrong("token", "is required where signature_enable is true"));
        }
        let cn_name = members.text("cn_name")?.filter(|name| !name.is_empty());
        let is_host = |name: &str| {
            let name = name.bytes();
            name.len() <= 253
                && name.into_iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
        };
        if cn_name.is_some_and(|name| !is_host(name)) {
            return Err(members.wrong("cn_name", "must be the name of a host"));
        }
        Ok(Webhook {
            url: url.to_owned(),
            cert_id: members.text("cert_id")?.filter(|id| !id.is_empty()).map(str::to_owned),
            cn_name: cn_name.map(str::to_owned),
            sni: members.flag("sni_enable")?.unwrap_or(true),
            token: token.filter(|_| signed != Some(false)),
        })
    }
}

/// How a client of Kafka shows who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    ScramSha512,
}

/// `dms_kafka_forwarding`: brokers and a topic there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kafka {
    /// `host:port`.
    pub addresses: Vec<String>,
    pub topic: String,
    /// User name and password; `None`: whoever connects may write.
    pub credentials: Option<(String, Secret, Mechanism)>,
    pub tls: bool,
    /// The authority of the registry that vouches for the brokers; `None`: those that the system trusts.
    pub cert_id: Option<String>,
}

impl Kafka {
    /// # Errors
    /// The member that is wrong, and why.
    pub fn read(detail: &Value) -> Result<Kafka, Wrong> {
        let members = Members::of(detail, "dms_kafka_forwarding")?;
        let list = members.get("addresses").and_then(Value::as_array);
        let list = list.filter(|list| (1..=ADDRESSES_MAX).contains(&list.len()));
        let list = list.ok_or_else(|| members.wrong("addresses", "must be a list of 1 to 10 objects"))?;
        let addresses = list.iter().enumerate().map(|(at, value)| {
            let place = format!("{}.addresses[{at}]", members.place);
            let object = value.as_object().ok_or_else(|| (place.clone(), "must be an object".to_owned()))?;
            address(&Members { members: object, place })
        });
        let addresses = addresses.collect::<Result<_, _>>()?;
        let topic = members.required("topic")?;
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if topic.len() > KAFKA_TOPIC_BYTES_MAX || !topic.bytes().all(is_letter) {
            return Err(members.wrong("topic", "must be 1 to 249 letters, digits, ., _ and -"));
        }
        let mechanism = match members.text("mechanism")?.filter(|name| !name.is_empty()) {
            None | Some("PLAIN" | "PAAS") => Mechanism::Plain,
            Some("SCRAM-SHA-512") => Mechanism::ScramSha512,
            Some(_) => return Err(members.wrong("mechanism", "must be PAAS or PLAIN or SCRAM-SHA-512")),
        };
        let tls = match members.text("security_protocol")?.filter(|name| !name.is_empty()) {
            None | Some("SASL_PLAINTEXT" | "PLAINTEXT") => false,
            Some("SASL_SSL" | "SSL") => true,
            Some(_) => {
                let problem = "must be SASL_SSL or SASL_PLAINTEXT or SSL or PLAINTEXT";
                return Err(members.wrong("security_protocol", problem));
            }
        };
        let username = members.text("username")?.filter(|name| !name.is_empty());
        let password = members.secret("password")?;
        let credentials = match (username, password) {
            (Some(name), Some(password)) => Some((name.to_owned(), password, mechanism)),
            (None, None) => None,
            (Some(_), None) => return Err(members.wrong("password", "is required where there is a username")),
            (None, Some(_)) => return Err(members.wrong("username", "is required where there is a password")),
        };
        let cert_id = members.text("cert_id")?.filter(|id| !id.is_empty()).map(str::to_owned);
        Ok(Kafka { addresses, topic: topic.to_owned(), credentials, tls, cert_id })
    }
}

/// `{ip, port}` or `{domain, port}`.
fn address(members: &Members<'_>) -> Result<String, Wrong> {
    let (ip, domain) = (members.text("ip")?, members.text("domain")?);
    let host = domain.filter(|host| !host.is_empty()).or(ip.filter(|host| !host.is_empty()));
    let host = host.ok_or_else(|| members.wrong("ip", "is required, or domain"))?;
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':' | b'_');
    if host.len() > 253 || !host.bytes().all(is_letter) {
        return Err(
            members.wrong(if domain.is_some() { "domain" } else { "ip" }, "must be the name or address of a host")
        );
    }
    let port = members.get("port").and_then(Value::as_u64).filter(|port| (1..=65_535).contains(port));
    let port = port.ok_or_else(|| members.wrong("port", "must be 1 to 65535"))?;
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place<T>(read: Result<T, Wrong>) -> String {
        read.err().map(|(place, _)| place).unwrap_or_default()
    }

    #[test]
    fn each_channel_names_the_member_that_is_wrong() {
        let push = |topic: Value| place(Push::read(&json!({"mqtt_forwarding": {"topic": topic}})));
        assert_eq!(place(Push::read(&json!({}))), "mqtt_forwarding");
        assert_eq!(place(Push::read(&json!({"mqtt_forwarding": []}))), "mqtt_forwarding");
        for topic in [json!(null), json!(""), json!(1), json!("a b"), json!("a+"), json!("t".repeat(129))] {
            assert_eq!(push(topic), "mqtt_forwarding.topic");
        }
        assert_eq!(push(json!("app/t-1_")), "");

        let forward = |detail: Value| place(Forward::read(&json!({ "mqtt_device_forwarding": detail })));
        assert_eq!(forward(json!({"topic": "$topic()", "ttl": 0})), "");
        assert_eq!(forward(json!({"topic": "$oc/devices/d/user/x", "ttl": 1440})), "");
        for topic in ["a/+", "#", "$push/a", "$SYS/x", "$share/g/x"] {
            assert_eq!(forward(json!({"topic": topic})), "mqtt_device_forwarding.topic", "{topic}");
        }
        for ttl in [json!(7), json!(1445), json!(-5), json!("5"), json!(5.5)] {
            assert_eq!(forward(json!({"topic": "a", "ttl": ttl})), "mqtt_device_forwarding.ttl");
        }

        let hook = |detail: Value| place(Webhook::read(&json!({ "http_forwarding": detail })));
        assert_eq!(hook(json!({"url": "https://h.example/x?y=1", "token": "abc"})), "");
        for url in ["", "ftp://h", "h", "http://", "http://u:p@h/", &format!("http://h/{}", "x".repeat(1024))] {
            assert_eq!(hook(json!({"url": url})), "http_forwarding.url", "{url}");
        }
        for token in ["ab", "a-b-c", &"t".repeat(33)] {
            assert_eq!(hook(json!({"url": "http://h", "token": token})), "http_forwarding.token");
        }
        assert_eq!(hook(json!({"url": "http://h", "signature_enable": true})), "http_forwarding.token");
        assert_eq!(hook(json!({"url": "http://h", "signature_enable": 1})), "http_forwarding.signature_enable");
        assert_eq!(hook(json!({"url": "http://h", "sni_enable": "no"})), "http_forwarding.sni_enable");
        assert_eq!(hook(json!({"url": "http://h", "cn_name": "a b"})), "http_forwarding.cn_name");
        assert_eq!(hook(json!({"url": "http://h", "cert_id": 1})), "http_forwarding.cert_id");

        let address = json!([{"ip": "10.0.0.1", "port": 9092}]);
        let kafka = |more: Value| {
            let mut detail = json!({"addresses": address, "topic": "t"});
            for (name, value) in more.as_object().into_iter().flatten() {
                detail[name] = value.clone();
            }
            place(Kafka::read(&json!({ "dms_kafka_forwarding": detail })))
        };
        assert_eq!(kafka(json!({})), "");
        let sasl =
            json!({"username": "u", "password": "p", "mechanism": "SCRAM-SHA-512", "security_protocol": "SASL_SSL"});
        assert_eq!(kafka(sasl), "");
        for (more, wanted) in [
            (json!({"addresses": []}), "addresses"),
            (json!({"addresses": [1]}), "addresses[0]"),
            (json!({"addresses": [{"port": 1}]}), "addresses[0].ip"),
            (json!({"addresses": [{"ip": "h", "port": 0}]}), "addresses[0].port"),
            (json!({"addresses": [{"domain": "a/b", "port": 1}]}), "addresses[0].domain"),
            (json!({"topic": "a b"}), "topic"),
            (json!({"topic": null}), "topic"),
            (json!({"mechanism": "GSSAPI"}), "mechanism"),
            (json!({"security_protocol": "TLS"}), "security_protocol"),
            (json!({"username": "u"}), "password"),
            (json!({"password": "p"}), "username"),
        ] {
            assert_eq!(kafka(more), format!("dms_kafka_forwarding.{wanted}"));
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let hook =
            Webhook::read(&json!({"http_forwarding": {"url": "http://h", "token": "abcdef"}})).expect("is right");
        assert!(!format!("{hook:?}").contains("abcdef"));
    }
}
