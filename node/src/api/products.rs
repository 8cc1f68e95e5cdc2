//! Products and their classes of custom topics.

use fulmar_platform::dialect::time;
use fulmar_platform::registry::{Kind, Product};
use serde_json::{Value, json};

use super::Fault;
use super::call::{Answer, Call, page_json};
use crate::operations::input::Input;
use crate::operations::{Error, NewProduct, ProductChange, access_name, registration_name};

/// Without the model and without the secret.
fn summary(call: &Call, product: &Product) -> Value {
    let app_name = call.operations().read(|registry| registry.app(&product.app_id).map(|app| app.record.name.clone()));
    json!({
        "app_id": product.app_id,
        "app_name": app_name,
        "product_id": product.id,
        "name": product.name,
        "device_type": product.device_type,
        "protocol_type": product.protocol_type,
        "data_format": product.data_format,
        "manufacturer_name": product.manufacturer_name,
        "industry": product.industry,
        "description": product.description,
        "create_time": time::compact(product.created_ms),
        "dialect": product.dialect.as_str(),
        "dynamic_registration": registration_name(product.registration),
        "messages_require_subscribe": product.messages_require_subscribe,
    })
}

fn product_json(call: &Call, product: &Product) -> Value {
    let mut json = summary(call, product);
    json["service_capabilities"] = serde_json::from_str(&product.model).unwrap_or_default();
    if let Some(endpoint) = &product.endpoint {
        json["endpoint"] = json!({ "host": endpoint.host, "port": endpoint.port });
    }
    json
}

/// The secret is shown to whoever has just set or made it.
fn with_secret(mut json: Value, product: &Product) -> Value {
    if let Some(secret) = &product.secret {
        json["product_secret"] = secret.expose().into();
    }
    json
}

fn topics_json(product: &Product) -> Value {
    let topics = product.topics.iter();
    let topics = topics.map(|topic| json!({ "topic": topic.filter, "access": access_name(topic.access) }));
    json!({ "product_id": product.id, "topics": topics.collect::<Vec<_>>() })
}

fn find(call: &Call) -> Result<std::sync::Arc<Product>, Error> {
    let id = call.param("product_id");
    let found = call.operations().read(|registry| registry.product(id).map(|kept| kept.record.clone()));
    let app = call.query("app_id");
    let found = found.filter(|product| app.is_none_or(|app| app == &*product.app_id));
    found.ok_or_else(|| Error::Missing { kind: Kind::Product, id: id.to_owned() })
}

pub(super) async fn create(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let product = call.operations().create_product(&NewProduct::read(&Input::of(&body)?)?).await?;
    Answer::created(&product.id, with_secret(product_json(&call, &product), &product))
}

pub(super) async fn list(call: Call) -> Result<Answer, Fault> {
    let page = call.operations().list_products(call.query("app_id"), call.query("product_name"), &call.paging()?);
    let products: Vec<Value> = page.items.iter().map(|product| summary(&call, product)).collect();
    Answer::ok(json!({ "products": products, "page": page_json(&page) }))
}

pub(super) async fn show(call: Call) -> Result<Answer, Fault> {
    Answer::ok(product_json(&call, &*find(&call)?))
}

pub(super) async fn update(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let change = ProductChange::read(&Input::of(&body)?)?;
    let shown = change.secret.is_some() || change.registration.is_some();
    let product = call.operations().update_product(call.param("product_id"), &change).await?;
    let json = product_json(&call, &product);
    Answer::ok(if shown { with_secret(json, &product) } else { json })
}

pub(super) async fn delete(call: Call) -> Result<Answer, Fault> {
    let product = find(&call)?;
    call.operations().delete(Kind::Product, &product.id).await?;
    Answer::empty()
}

pub(super) async fn topics(call: Call) -> Result<Answer, Fault> {
    Answer::ok(topics_json(&*find(&call)?))
}

pub(super) async fn set_topics(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let topics = Input::of(&body)?.topics()?.ok_or_else(|| Fault::invalid("topics is required"))?;
    let product = call.operations().set_topics(call.param("product_id"), &topics).await?;
    Answer::ok(topics_json(&product))
}
