//! The records themselves, field by field.

use fulmar_platform::Dialect;
use fulmar_platform::registry::{
    AccessCode, AccessKey, App, Auth, AuthKind, Authority, Device, Endpoint, Product, Registration, Role, SensoroApp,
    TopicAccess, TopicClass, User,
};
use fulmar_proto::types::v1 as proto;

use super::super::{each, optional, required};
use super::{Error, Problem, Wire, known};

impl Wire for App {
    type Message = proto::App;

    fn to_message(&self) -> proto::App {
        let App { ref id, ref name, default, created_ms } = *self;
        proto::App { id: id.to_string(), name: name.to_string(), is_default: default, created_ms }
    }

    fn from_message(message: proto::App) -> Result<App, Error> {
        let proto::App { id, name, is_default, created_ms } = message;
        Ok(App { id: id.into(), name: name.into(), default: is_default, created_ms })
    }
}

impl Wire for Product {
    type Message = proto::Product;

    fn to_message(&self) -> proto::Product {
        proto::Product {
            id: self.id.to_string(),
            app_id: self.app_id.to_string(),
            name: self.name.to_string(),
            dialect: match self.dialect {
                Dialect::Generic => proto::Dialect::Generic,
                Dialect::Huawei => proto::Dialect::Huawei,
                Dialect::Aliyun => proto::Dialect::Aliyun,
                Dialect::Tencent => proto::Dialect::Tencent,
                Dialect::Sensoro => proto::Dialect::Sensoro,
                Dialect::Application => proto::Dialect::Application,
            }
            .into(),
            secret: self.secret.as_ref().map(Wire::to_message),
            registration: match self.registration {
                Registration::Off => proto::Registration::Off,
                Registration::Known => proto::Registration::Known,
                Registration::Open => proto::Registration::Open,
            }
            .into(),
            device_type: self.device_type.to_string(),
            protocol_type: self.protocol_type.to_string(),
            data_format: self.data_format.to_string(),
            manufacturer_name: self.manufacturer_name.to_string(),
            industry: self.industry.to_string(),
            description: self.description.to_string(),
            model: self.model.to_string(),
            topics: self.topics.iter().map(Wire::to_message).collect(),
            endpoint: self.endpoint.as_ref().map(Wire::to_message),
            messages_require_subscribe: self.messages_require_subscribe,
            created_ms: self.created_ms,
        }
    }

    fn from_message(message: proto::Product) -> Result<Product, Error> {
        let dialect = known("dialect", message.dialect, |dialect| match dialect {
            proto::Dialect::Unspecified => None,
            proto::Dialect::Generic => Some(Dialect::Generic),
            proto::Dialect::Huawei => Some(Dialect::Huawei),
            proto::Dialect::Aliyun => Some(Dialect::Aliyun),
            proto::Dialect::Tencent => Some(Dialect::Tencent),
            proto::Dialect::Sensoro => Some(Dialect::Sensoro),
            proto::Dialect::Application => Some(Dialect::Application),
        })?;
        let registration = known("registration", message.registration, |registration| match registration {
            proto::Registration::Off => Some(Registration::Off),
            proto::Registration::Known => Some(Registration::Known),
            proto::Registration::Open => Some(Registration::Open),
        })?;
        Ok(Product {
            id: message.id.into(),
            app_id: message.app_id.into(),
            name: message.name.into(),
            dialect,
            secret: optional("secret", message.secret)?,
            registration,
            device_type: message.device_type.into(),
            protocol_type: message.protocol_type.into(),
            data_format: message.data_format.into(),
            manufacturer_name: message.manufacturer_name.into(),
            industry: message.industry.into(),
            description: message.description.into(),
            model: message.model.into(),
            topics: each("topics", message.topics, Wire::from_message)?,
            endpoint: optional("endpoint", message.endpoint)?,
            messages_require_subscribe: message.messages_require_subscribe,
            created_ms: message.created_ms,
        })
    }
}

impl Wire for TopicClass {
    type Message = proto::TopicClass;

    fn to_message(&self) -> proto::TopicClass {
        let access = match self.access {
            TopicAccess::Publish => proto::TopicAccess::Publish,
            TopicAccess::Subscribe => proto::TopicAccess::Subscribe,
            TopicAccess::Both => proto::TopicAccess::Both,
        };
        proto::TopicClass { filter: self.filter.to_string(), access: access.into() }
    }

    fn from_message(message: proto::TopicClass) -> Result<TopicClass, Error> {
        let access = known("access", message.access, |access| match access {
            proto::TopicAccess::Unspecified => None,
            proto::TopicAccess::Publish => Some(TopicAccess::Publish),
            proto::TopicAccess::Subscribe => Some(TopicAccess::Subscribe),
            proto::TopicAccess::Both => Some(TopicAccess::Both),
        })?;
        Ok(TopicClass { filter: message.filter.into(), access })
    }
}

impl Wire for Endpoint {
    type Message = proto::Endpoint;

    fn to_message(&self) -> proto::Endpoint {
        proto::Endpoint { host: self.host.to_string(), port: self.port.into() }
    }

    fn from_message(message: proto::Endpoint) -> Result<Endpoint, Error> {
        let port = u16::try_from(message.port).map_err(|_| Error::new("port", Problem::Range(message.port.into())))?;
        Ok(Endpoint { host: message.host.into(), port })
    }
}

impl Wire for Device {
    type Message = proto::Device;

    fn to_message(&self) -> proto::Device {
        let tag = |(key, value): &(Box<str>, Box<str>)| proto::Tag { key: key.to_string(), value: value.to_string() };
        proto::Device {
            id: self.id.to_string(),
            product_id: self.product_id.to_string(),
            app_id: self.app_id.to_string(),
            node_id: self.node_id.to_string(),
            name: self.name.to_string(),
            description: self.description.to_string(),
            gateway_id: self.gateway_id.to_string(),
            auth: Some(self.auth.to_message()),
            frozen: self.frozen,
            fw_version: self.fw_version.to_string(),
            sw_version: self.sw_version.to_string(),
            sdk_version: self.sdk_version.to_string(),
            extension_info: self.extension_info.to_string(),
            tags: self.tags.iter().map(tag).collect(),
            endpoint: self.endpoint.as_ref().map(Wire::to_message),
            sensoro_app_id: self.sensoro_app_id.to_string(),
            created_ms: self.created_ms,
        }
    }

    fn from_message(message: proto::Device) -> Result<Device, Error> {
        Ok(Device {
            id: message.id.into(),
            product_id: message.product_id.into(),
            app_id: message.app_id.into(),
            node_id: message.node_id.into(),
            name: message.name.into(),
            description: message.description.into(),
            gateway_id: message.gateway_id.into(),
            auth: required("auth", message.auth)?,
            frozen: message.frozen,
            fw_version: message.fw_version.into(),
            sw_version: message.sw_version.into(),
            sdk_version: message.sdk_version.into(),
            extension_info: message.extension_info.into(),
            tags: message.tags.into_iter().map(|tag| (tag.key.into(), tag.value.into())).collect(),
            endpoint: optional("endpoint", message.endpoint)?,
            sensoro_app_id: message.sensoro_app_id.into(),
            created_ms: message.created_ms,
        })
    }
}

impl Wire for Auth {
    type Message = proto::DeviceAuth;

    fn to_message(&self) -> proto::DeviceAuth {
        proto::DeviceAuth {
            kind: match self.kind {
                AuthKind::Secret => proto::AuthKind::Secret,
                AuthKind::Certificate => proto::AuthKind::Certificate,
            }
            .into(),
            secret: self.secret.as_ref().map(Wire::to_message),
            secondary_secret: self.secondary_secret.as_ref().map(Wire::to_message),
            fingerprint: self.fingerprint.as_deref().map(str::to_owned),
            secondary_fingerprint: self.secondary_fingerprint.as_deref().map(str::to_owned),
            token: self.token.as_ref().map(Wire::to_message),
            secure_access: self.secure_access,
            timeout_s: self.timeout_s,
        }
    }

    fn from_message(message: proto::DeviceAuth) -> Result<Auth, Error> {
        let kind = known("kind", message.kind, |kind| match kind {
            proto::AuthKind::Secret => Some(AuthKind::Secret),
            proto::AuthKind::Certificate => Some(AuthKind::Certificate),
        })?;
        Ok(Auth {
            kind,
            secret: optional("secret", message.secret)?,
            secondary_secret: optional("secondary_secret", message.secondary_secret)?,
            fingerprint: message.fingerprint.map(Into::into),
            secondary_fingerprint: message.secondary_fingerprint.map(Into::into),
            token: optional("token", message.token)?,
            secure_access: message.secure_access,
            timeout_s: message.timeout_s,
        })
    }
}

impl Wire for User {
    type Message = proto::User;

    fn to_message(&self) -> proto::User {
        proto::User {
            name: self.name.to_string(),
            password_hash: Some(self.password_hash.to_message()),
            role: match self.role {
                Role::Viewer => proto::Role::Viewer,
                Role::Operator => proto::Role::Operator,
                Role::Admin => proto::Role::Admin,
            }
            .into(),
            created_ms: self.created_ms,
        }
    }

    fn from_message(message: proto::User) -> Result<User, Error> {
        let role = known("role", message.role, |role| match role {
            proto::Role::Unspecified => None,
            proto::Role::Viewer => Some(Role::Viewer),
            proto::Role::Operator => Some(Role::Operator),
            proto::Role::Admin => Some(Role::Admin),
        })?;
        let password_hash = required("password_hash", message.password_hash)?;
        Ok(User { name: message.name.into(), password_hash, role, created_ms: message.created_ms })
    }
}

impl Wire for AccessKey {
    type Message = proto::AccessKey;

    fn to_message(&self) -> proto::AccessKey {
        let AccessKey { ref ak, ref sk, ref user, created_ms } = *self;
        proto::AccessKey { ak: ak.to_string(), sk: Some(sk.to_message()), user: user.to_string(), created_ms }
    }

    fn from_message(message: proto::AccessKey) -> Result<AccessKey, Error> {
        let proto::AccessKey { ak, sk, user, created_ms } = message;
        Ok(AccessKey { ak: ak.into(), sk: required("sk", sk)?, user: user.into(), created_ms })
    }
}

impl Wire for AccessCode {
    type Message = proto::AccessCode;

    fn to_message(&self) -> proto::AccessCode {
        proto::AccessCode {
            kind: self.kind.to_string(),
            access_key: self.access_key.to_string(),
            access_code: Some(self.access_code.to_message()),
            created_ms: self.created_ms,
        }
    }

    fn from_message(message: proto::AccessCode) -> Result<AccessCode, Error> {
        let proto::AccessCode { kind, access_key, access_code, created_ms } = message;
        let access_code = required("access_code", access_code)?;
        Ok(AccessCode { kind: kind.into(), access_key: access_key.into(), access_code, created_ms })
    }
}

impl Wire for Authority {
    type Message = proto::Authority;

    fn to_message(&self) -> proto::Authority {
        proto::Authority {
            id: self.id.to_string(),
            name: self.name.to_string(),
            product_id: self.product_id.to_string(),
            certificate_der: self.certificate_der.to_vec().into(),
            key_pem: self.key_pem.as_ref().map(Wire::to_message),
            created_ms: self.created_ms,
        }
    }

    fn from_message(message: proto::Authority) -> Result<Authority, Error> {
        Ok(Authority {
            id: message.id.into(),
            name: message.name.into(),
            product_id: message.product_id.into(),
            certificate_der: message.certificate_der.as_ref().into(),
            key_pem: optional("key_pem", message.key_pem)?,
            created_ms: message.created_ms,
        })
    }
}

impl Wire for SensoroApp {
    type Message = proto::SensoroApp;

    fn to_message(&self) -> proto::SensoroApp {
        proto::SensoroApp {
            id: self.id.to_string(),
            secret: Some(self.secret.to_message()),
            key: Some(self.key.to_message()),
            qos: self.qos.into(),
            safe_mode: self.safe_mode,
            callback_url: self.callback_url.to_string(),
            created_ms: self.created_ms,
        }
    }

    fn from_message(message: proto::SensoroApp) -> Result<SensoroApp, Error> {
        Ok(SensoroApp {
            id: message.id.into(),
            secret: required("secret", message.secret)?,
            key: required("key", message.key)?,
            qos: u8::try_from(message.qos).map_err(|_| Error::new("qos", Problem::Range(message.qos.into())))?,
            safe_mode: message.safe_mode,
            callback_url: message.callback_url.into(),
            created_ms: message.created_ms,
        })
    }
}
