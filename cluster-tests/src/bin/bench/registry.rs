//! The registry of many devices, in this process: what a device weighs, and what finding one costs. Rates are of CPU
//! time, so that whatever else the machine does counts little.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use cluster_tests::{proc, sys};
use fulmar_platform::registry::{App, Auth, Change, Device, Expect, Product, Record, Registration, Registry};
use fulmar_platform::{Dialect, Secret};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::options::RegistryOptions;
use crate::report::{Report, round};

/// As many devices as the small registry has that the large one is compared with.
const FEW: u32 = 10_000;

/// Milliseconds since 1970 at which everything is created.
const NOW_MS: u64 = 1_700_000_000_000;

const PRODUCT: &str = "a1B2c3D4e5F";

const DEVICES_PER_GATEWAY: u32 = 100;

pub(crate) fn run(options: &RegistryOptions) -> Result<()> {
    // First, so that it reuses no memory that something else has left.
    let mut many = Many::build(options.devices)?;
    let connected = many.connect_all()?;
    let lookups = many.lookups(options);
    let lookups_few = Many::build(FEW.min(options.devices))?.lookups(options);
    let report = Report {
        scenario: "registry".to_owned(),
        broker: "in process".to_owned(),
        parameters: json!({ "devices": options.devices, "lookups": options.lookups }),
        measured_s: round(many.took_s + lookups.took_s),
        seed: options.seed,
        registry: Some(json!({
            "bytes_per_device": round(many.bytes as f64 / f64::from(options.devices)),
            "rss_bytes": many.bytes,
            "puts_per_s": (f64::from(options.devices) / many.took_s).round(),
            "lookups_per_s_of_few": lookups_few.per_s(),
            "lookups_per_s": lookups.per_s(),
            "few": FEW.min(options.devices),
            "connected": connected,
        })),
        ..Report::default()
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// A registry, and what it took to make it.
struct Many {
    registry: Registry,
    devices: u32,
    /// By which the process grew.
    bytes: u64,
    took_s: f64,
}

struct Lookups {
    count: u32,
    took_s: f64,
}

impl Lookups {
    fn per_s(&self) -> f64 {
        (f64::from(self.count) / self.took_s).round()
    }
}

impl Many {
    fn build(devices: u32) -> Result<Many> {
        let mut registry = Registry::default();
        let (before, begun) = (rss()?, sys::own_cpu());
        put(&mut registry, Record::App(Arc::new(app())))?;
        put(&mut registry, Record::Product(Arc::new(product())))?;
        for number in 0..devices {
            put(&mut registry, Record::Device(Arc::new(device(number))))?;
        }
        let took_s = (sys::own_cpu() - begun).as_secs_f64();
        Ok(Many { registry, devices, bytes: rss()?.saturating_sub(before), took_s })
    }

    /// Finds devices by their ids, in random order.
    fn lookups(&self, options: &RegistryOptions) -> Lookups {
        let mut random = StdRng::seed_from_u64(options.seed);
        let ids: Vec<String> = (0..options.lookups).map(|_| id(random.random_range(0..self.devices))).collect();
        let begun = sys::own_cpu();
        for id in &ids {
            black_box(self.registry.device(black_box(id)));
        }
        Lookups { count: options.lookups, took_s: (sys::own_cpu() - begun).as_secs_f64() }
    }

    /// Every device connects once, with an exclusive client id: how much each grows by.
    fn connect_all(&mut self) -> Result<Value> {
        let (before, begun) = (rss()?, sys::own_cpu());
        let mut events = Vec::new();
        for number in 0..self.devices {
            let epoch = u64::from(number) + 1;
            let other =
                self.registry.connected(&id(number), epoch, NOW_MS, Some(&format!("client{number:08}")), &mut events);
            ensure!(other.is_none() && events.len() == 1, "device {number} did not connect");
            events.clear();
        }
        let took_s = (sys::own_cpu() - begun).as_secs_f64();
        let bytes = rss()?.saturating_sub(before);
        Ok(json!({
            "bytes_per_device": round(bytes as f64 / f64::from(self.devices)),
            "connects_per_s": (f64::from(self.devices) / took_s).round(),
        }))
    }
}

fn rss() -> Result<u64> {
    proc::rss_bytes(std::process::id()).context("memory of this process")
}

fn put(registry: &mut Registry, record: Record) -> Result<()> {
    let change = Change::Put { record, expect: Expect::Absent };
    registry.apply(&change, NOW_MS, &mut Vec::new())?;
    Ok(())
}

fn id(number: u32) -> String {
    format!("{PRODUCT}_{}", node_id(number))
}

fn node_id(number: u32) -> String {
    format!("device-{number:012}")
}

fn app() -> App {
    App { id: "0123456789abcdef01234567".into(), name: "bench".into(), default: true, created_ms: NOW_MS }
}

fn product() -> Product {
    Product {
        id: PRODUCT.into(),
        app_id: app().id,
        name: "bench".into(),
        dialect: Dialect::Aliyun,
        secret: Some(Secret::new("0123456789abcdef")),
        registration: Registration::Off,
        device_type: "meter".into(),
        protocol_type: "MQTT".into(),
        data_format: "json".into(),
        manufacturer_name: "bench".into(),
        industry: "".into(),
        description: "".into(),
        model: "[]".into(),
        topics: vec![],
        endpoint: None,
        messages_require_subscribe: false,
        created_ms: NOW_MS,
    }
}

/// With what most devices have: ids, a name, a secret of 32 characters; one in a hundred is a gateway of the others.
fn device(number: u32) -> Device {
    let gateway = number - number % DEVICES_PER_GATEWAY;
    let gateway_id = if gateway == number { String::new() } else { id(gateway) };
    Device {
        id: id(number).into(),
        product_id: PRODUCT.into(),
        app_id: app().id,
        node_id: node_id(number).into(),
        name: format!("Meter {number}").into(),
        description: "".into(),
        gateway_id: gateway_id.into(),
        auth: Auth { secret: Some(Secret::new(&format!("{number:032x}"))), ..Auth::default() },
        frozen: false,
        fw_version: "1.0.0".into(),
        sw_version: "1.0.0".into(),
        sdk_version: "".into(),
        extension_info: "".into(),
        tags: vec![],
        endpoint: None,
        sensoro_app_id: "".into(),
        created_ms: NOW_MS,
    }
}
