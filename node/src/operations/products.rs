//! Products, with their models and classes of custom topics.

use std::sync::Arc;

use fulmar_platform::model::Model;
use fulmar_platform::registry::{
    Endpoint, Kept, Kind, ObjectId, Product, Record, Registration, Registry, TopicAccess, TopicClass,
};
use fulmar_platform::{Dialect, Secret};
use serde_json::Value;

use super::apps::app_of;
use super::devices::Paging;
use super::{Error, Operations, Page, Target, check, page, secrets};

/// Classes of custom topics of a product.
const TOPICS_MAX: usize = 50;

/// Bytes of a product model as JSON.
const MODEL_BYTES_MAX: usize = 256 * 1024;

/// What may be said of a product besides its ids; what is missing stays, or has its default.
#[derive(Debug, Clone, Default)]
pub struct ProductChange {
    pub name: Option<String>,
    pub device_type: Option<String>,
    pub protocol_type: Option<String>,
    /// `json` or `binary`.
    pub data_format: Option<String>,
    pub manufacturer_name: Option<String>,
    pub industry: Option<String>,
    pub description: Option<String>,
    /// `service_capabilities`, as [`Model::read`] takes them.
    pub model: Option<Value>,
    pub registration: Option<Registration>,
    pub secret: Option<Secret>,
    /// `Some(None)` takes it away.
    pub endpoint: Option<Option<(String, u16)>>,
    /// Messages to its devices wait until these have subscribed.
    pub messages_require_subscribe: Option<bool>,
}

/// A product to add.
#[derive(Debug, Clone)]
pub struct NewProduct {
    pub id: Option<String>,
    pub app_id: Option<String>,
    /// Huawei, Aliyun or Tencent.
    pub dialect: Dialect,
    pub settings: ProductChange,
    pub topics: Vec<TopicClass>,
}

/// Whether devices may register themselves, in a word.
#[must_use]
pub fn registration_name(registration: Registration) -> &'static str {
    match registration {
        Registration::Off => "off",
        Registration::Known => "known",
        Registration::Open => "open",
    }
}

/// What a class of custom topics allows, in a word.
#[must_use]
pub fn access_name(access: TopicAccess) -> &'static str {
    match access {
        TopicAccess::Publish => "pub",
        TopicAccess::Subscribe => "sub",
        TopicAccess::Both => "all",
    }
}

impl ProductChange {
    fn apply(&self, product: &mut Product) -> Result<(), Error> {
        let set = |parameter: &str, new: &Option<String>, min: usize, max: usize, kept: &mut Box<str>| match new {
            Some(text) => {
                check::text(parameter, text, min, max)?;
                *kept = text.as_str().into();
                Ok::<(), Error>(())
            }
            None => Ok(()),
        };
        set("name", &self.name, 1, 64, &mut product.name)?;
        set("device_type", &self.device_type, 0, 32, &mut product.device_type)?;
        set("protocol_type", &self.protocol_type, 1, 32, &mut product.protocol_type)?;
        set("manufacturer_name", &self.manufacturer_name, 0, 64, &mut product.manufacturer_name)?;
        set("industry", &self.industry, 0, 64, &mut product.industry)?;
        set("description", &self.description, 0, check::DESCRIPTION_CHARS_MAX, &mut product.description)?;
        if let Some(format) = &self.data_format {
            if !matches!(format.as_str(), "json" | "binary") {
                return Err(Error::invalid("data_format", "must be json or binary"));
            }
            product.data_format = format.as_str().into();
        }
        if let Some(model) = &self.model {
            Model::read(model).map_err(|error| Error::invalid(&error.place, error.problem))?;
            let text = model.to_string();
            if text.len() > MODEL_BYTES_MAX {
                return Err(Error::invalid(
                    "service_capabilities",
                    format!("must have at most {MODEL_BYTES_MAX} bytes"),
                ));
            }
            product.model = text.into();
        }
        if let Some(secret) = &self.secret {
            if !(16..=64).contains(&secret.expose().len()) {
                return Err(Error::invalid("product_secret", "must have 16 to 64 characters"));
            }
            check::word("product_secret", secret.expose(), 64, "")?;
            product.secret = Some(secret.clone());
        }
        product.registration = self.registration.unwrap_or(product.registration);
        match &self.endpoint {
            Some(Some((host, port))) => {
                check::endpoint("endpoint", host, *port)?;
                product.endpoint = Some(Endpoint { host: host.as_str().into(), port: *port });
            }
            Some(None) => product.endpoint = None,
            None => {}
        }
        if let Some(required) = self.messages_require_subscribe {
            product.messages_require_subscribe = required;
        }
        if product.registration != Registration::Off && product.secret.is_none() {
            product.secret = Some(Secret::new(&secrets::product_secret(product.dialect)));
        }
        Ok(())
    }
}

fn check_topics(topics: &[TopicClass]) -> Result<(), Error> {
    if topics.len() > TOPICS_MAX {
        return Err(Error::invalid("topics", format!("must have at most {TOPICS_MAX} elements")));
    }
    for (index, topic) in topics.iter().enumerate() {
        check::topic_class(&format!("topics[{index}].topic"), &topic.filter)?;
        if topics.iter().take(index).any(|other| other.filter == topic.filter) {
            return Err(Error::invalid(&format!("topics[{index}].topic"), "is there twice"));
        }
    }
    Ok(())
}

impl Operations {
    /// The product's secret, if it has one, is in the answer.
    ///
    /// # Errors
    /// The id is taken, or something is missing or unusable.
    pub async fn create_product(&self, new: &NewProduct) -> Result<Arc<Product>, Error> {
        if !new.dialect.has_devices() {
            return Err(Error::invalid("dialect", "must be huawei, aliyun or tencent"));
        }
        let id = new.id.clone().unwrap_or_else(|| secrets::product_id(new.dialect));
        check::product_id("product_id", new.dialect, &id)?;
        let settings = &new.settings;
        for (parameter, missing) in [
            ("name", settings.name.is_none()),
            // Only Huawei's products have these.
            ("device_type", settings.device_type.is_none() && new.dialect == Dialect::Huawei),
            ("protocol_type", settings.protocol_type.is_none() && new.dialect == Dialect::Huawei),
            ("data_format", settings.data_format.is_none() && new.dialect == Dialect::Huawei),
            ("service_capabilities", settings.model.is_none() && new.dialect == Dialect::Huawei),
        ] {
            if missing {
                return Err(Error::invalid(parameter, "is required"));
            }
        }
        check_topics(&new.topics)?;
        let app_id = self.read(|registry| app_of(registry, new.app_id.as_deref()).map(|app| app.record.id.clone()))?;
        let mut product = Product {
            name: "".into(),
            secret: (new.dialect != Dialect::Huawei)
                .then(|| Secret::new(&secrets::product_secret(new.dialect)))
                .filter(|_| settings.secret.is_none()),
            topics: new.topics.clone(),
            ..Product::new(&id, &app_id, new.dialect, self.now_ms())
        };
        settings.apply(&mut product)?;
        let product = Arc::new(product);
        self.create(Target { kind: Kind::Product, id: &id }, Record::Product(product.clone())).await?;
        Ok(product)
    }

    /// # Errors
    /// It is not there, or something is unusable.
    pub async fn update_product(&self, id: &str, change: &ProductChange) -> Result<Arc<Product>, Error> {
        self.change_product(id, |product| change.apply(product)).await
    }

    /// Replaces the classes of custom topics. Devices that are connected keep those that they came with.
    ///
    /// # Errors
    /// The product is not there, or a class is none.
    pub async fn set_topics(&self, id: &str, topics: &[TopicClass]) -> Result<Arc<Product>, Error> {
        check_topics(topics)?;
        self.change_product(id, |product| {
            product.topics = topics.to_vec();
            Ok(())
        })
        .await
    }

    async fn change_product(
        &self,
        id: &str,
        change: impl Fn(&mut Product) -> Result<(), Error>,
    ) -> Result<Arc<Product>, Error> {
        self.revise(Target { kind: Kind::Product, id }, |registry| {
            let kept = registry.product(id).ok_or_else(|| Error::missing(Kind::Product, id))?;
            let mut product = (*kept.record).clone();
            change(&mut product)?;
            let product = Arc::new(product);
            Ok((Record::Product(product.clone()), kept.revision, product))
        })
        .await
    }

    /// A page of products, newest first; `app` and `name`: only those of this resource space and name.
    #[must_use]
    pub fn list_products(&self, app: Option<&str>, name: Option<&str>, paging: &Paging) -> Page<Arc<Product>> {
        // A copy shares everything, so that nobody who applies entries waits for it.
        let registry = self.read(Registry::clone);
        let wanted = |kept: &&Kept<Product>| {
            app.is_none_or(|app| *kept.record.app_id == *app) && name.is_none_or(|name| *kept.record.name == *name)
        };
        let listed = registry.products().filter(wanted).map(|kept| (kept.oid, kept.record.clone()));
        let mut products: Vec<(ObjectId, Arc<Product>)> = listed.collect();
        products.sort_unstable_by_key(|(oid, _)| std::cmp::Reverse(*oid));
        page(products.into_iter(), paging)
    }
}
