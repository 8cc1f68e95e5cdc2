//! What a new task may look like. Everything that can be is checked when it is made, and not when it is carried out.

use std::collections::HashSet;

use fulmar_broker::LogTime;
use fulmar_broker::plane::tasks::{DOCUMENT_BYTES_MAX, Kind, Policy, RETRIES_MAX, TARGET_BYTES_MAX, TARGETS_MAX};
use serde_json::Value;

use super::super::Error;
use super::super::input::Input;
use super::work::Work;

/// Minutes between two tries.
const RETRY_INTERVAL_MAX: u64 = 1440;

const NAME_CHARS_MAX: usize = 128;

/// A task to make.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTask {
    pub name: String,
    pub kind: Kind,
    pub app_id: Option<String>,
    /// Each once, in the order in which they were named.
    pub targets: Vec<Box<str>>,
    /// All devices of this product, where none is named.
    pub product_id: Option<String>,
    /// JSON of what the targets are found by; empty: they are named.
    pub filter: String,
    /// JSON; empty: none.
    pub document: String,
    /// Of an upgrade.
    pub version: String,
    pub policy: Policy,
}

impl NewTask {
    /// Reads the body of `POST /batchtasks`. `now_ms`: a task cannot be for a time before it.
    ///
    /// # Errors
    /// The first member that is wrong.
    pub fn read(input: &Input<'_>, now_ms: u64) -> Result<NewTask, Error> {
        let name = input.required("task_name")?;
        let plain = |c: char| c.is_alphanumeric() || c == '_';
        if !(1..=NAME_CHARS_MAX).contains(&name.chars().count()) || !name.chars().all(plain) {
            return Err(Error::invalid("task_name", format!("must be 1 to {NAME_CHARS_MAX} letters, digits or _")));
        }
        let kind = kind(&input.required("task_type")?)?;
        let document = input.value("document");
        if document.is_some_and(|document| !document.is_object()) {
            return Err(Error::invalid("document", "must be an object"));
        }
        let work = Work::read(kind, document)?;
        let text = document.map(Value::to_string).unwrap_or_default();
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(Error::invalid("document", format!("must have at most {DOCUMENT_BYTES_MAX} bytes")));
        }
        let policy = policy(input, now_ms)?;
        let app_id = input.text("app_id")?;
        let version = work.version().to_owned();
        let mut new = NewTask {
            name,
            kind,
            app_id,
            targets: Vec::new(),
            product_id: None,
            filter: String::new(),
            document: text,
            version,
            policy,
        };
        new.targets = match (targets(input)?, work.devices()) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid("targets", "must not be there: document.devices says which are made"));
            }
            (Some(targets), None) => targets.iter().map(|target| work.target(target)).collect::<Result<_, _>>()?,
            (None, Some(devices)) => devices,
            (None, None) => {
                new.find_by(input)?;
                return Ok(new);
            }
        };
        let mut seen = HashSet::new();
        match (work.devices().is_some(), new.targets.iter().position(|target| !seen.insert(target.clone()))) {
            (true, Some(at)) => {
                return Err(Error::invalid(&format!("document.devices[{at}]"), "has the id of another one"));
            }
            (false, Some(_)) => {
                seen.clear();
                new.targets.retain(|target| seen.insert(target.clone()));
            }
            (_, None) => {}
        }
        Ok(new)
    }

    /// What is to be looked for, where no target is named.
    fn find_by(&mut self, input: &Input<'_>) -> Result<(), Error> {
        if self.kind == Kind::CreateDevices {
            return Err(Error::invalid("targets", "is required: node ids, or document.devices in their place"));
        }
        let Some(filter) = input.object("targets_filter")? else {
            if input.value("document_source").is_some() {
                return Err(Error::invalid("document_source", "is not supported: no files are kept; name targets"));
            }
            return Err(Error::invalid("targets", "is required, or targets_filter"));
        };
        if filter.value("group_ids").is_some() {
            return Err(Error::invalid("targets_filter.group_ids", "is not supported: there are no groups of devices"));
        }
        let product = filter.required("product_id")?;
        if let Some(name) = filter.unasked() {
            return Err(Error::invalid(&name, "is not known; targets_filter has product_id"));
        }
        self.filter = serde_json::json!({ "product_id": product }).to_string();
        self.product_id = Some(product);
        Ok(())
    }
}

fn kind(name: &str) -> Result<Kind, Error> {
    match name {
        "moduleUpgrade" => Err(Error::invalid("task_type", "moduleUpgrade is not supported: devices have no modules")),
        "createAsyncCommands" => Err(Error::invalid(
            "task_type",
            "createAsyncCommands is not supported: devices of MQTT have no asynchronous commands; use createCommands",
        )),
        _ => Kind::parse(name).ok_or_else(|| {
            let known: Vec<&str> = Kind::ALL.into_iter().map(Kind::as_str).collect();
            Error::invalid("task_type", format!("must be one of {}", known.join(", ")))
        }),
    }
}

fn targets<'a>(input: &Input<'a>) -> Result<Option<Vec<&'a str>>, Error> {
    let Some(targets) = input.texts("targets")?.filter(|targets| !targets.is_empty()) else { return Ok(None) };
    if targets.len() > TARGETS_MAX as usize {
        return Err(Error::invalid("targets", format!("must be at most {TARGETS_MAX}; there are {}", targets.len())));
    }
    match targets.iter().position(|target| target.is_empty() || target.len() > TARGET_BYTES_MAX) {
        Some(at) => {
            Err(Error::invalid(&format!("targets[{at}]"), format!("must have 1 to {TARGET_BYTES_MAX} characters")))
        }
        None => Ok(Some(targets)),
    }
}

fn policy(input: &Input<'_>, now_ms: u64) -> Result<Policy, Error> {
    let Some(policy) = input.object("task_policy")? else { return Ok(Policy::default()) };
    let schedule_at = match policy.text("schedule_time")? {
        None => None,
        Some(text) => {
            let seconds = fulmar_platform::dialect::time::parse_compact(&text);
            let place = "task_policy.schedule_time";
            let seconds = seconds.ok_or_else(|| Error::invalid(place, "must be a time as in 20151212T121212Z"))?;
            // Whole seconds are given: the one that it is now has not passed.
            if seconds < now_ms / 1000 {
                return Err(Error::invalid(place, "has passed"));
            }
            Some(LogTime(seconds.saturating_mul(1000)))
        }
    };
    let retry_count = policy.number("retry_count", RETRIES_MAX.into())?.unwrap_or_default();
    let interval = policy.number("retry_interval", RETRY_INTERVAL_MAX)?.unwrap_or_default();
    Ok(Policy {
        schedule_at,
        retry_count: u8::try_from(retry_count).unwrap_or(RETRIES_MAX),
        retry_interval_s: u32::try_from(interval * 60).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_449_922_332_500;

    fn read(body: &Value) -> Result<NewTask, Error> {
        NewTask::read(&Input::of(body).expect("an object"), NOW)
    }

    fn with(more: Value) -> Value {
        let mut body = json!({"task_name": "t", "task_type": "freezeDevices", "targets": ["d"]});
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        body
    }

    #[test]
    fn a_task_is_read() {
        let task = read(&with(json!({
            "task_name": "任务_1", "app_id": "a", "targets": ["d2", "d1", "d2"], "targets_filter": 5,
            "task_policy": {"schedule_time": "20151212T121212Z", "retry_count": 5, "retry_interval": 1440},
        })))
        .expect("a task");
        assert_eq!((&*task.targets, task.app_id.as_deref()), (&["d2".into(), "d1".into()][..], Some("a")));
        let at = Some(LogTime(1_449_922_332_000));
        assert_eq!(task.policy, Policy { schedule_at: at, retry_count: 5, retry_interval_s: 86_400 });
        let task = read(&with(json!({"targets": [], "targets_filter": {"product_id": "p"}}))).expect("a task");
        assert_eq!((task.product_id.as_deref(), &*task.filter), (Some("p"), r#"{"product_id":"p"}"#));
        let document = json!({"devices": [{"product_id": "p", "node_id": "n"}, {"product_id": "p", "node_id": "m", "device_id": "x"}]});
        let body = with(json!({"task_type": "createDevices", "targets": null, "document": document}));
        assert_eq!(*read(&body).expect("a task").targets, ["p_n".into(), "x".into()]);
        let body = with(json!({"task_type": "createDevices", "targets": ["n", "m"], "document": {"product_id": "p"}}));
        assert_eq!(*read(&body).expect("a task").targets, ["p_n".into(), "p_m".into()]);
        let document = json!({"version": "2", "url": "https://h/f"});
        let task = read(&with(json!({"task_type": "firmwareUpgrade", "document": document}))).expect("a task");
        assert_eq!(task.version, "2");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let devices =
            |list: Value| json!({"task_type": "createDevices", "targets": null, "document": {"devices": list}});
        let upgrade = |document: Value| json!({"task_type": "softwareUpgrade", "document": document});
        for (more, wanted) in [
            (json!({"task_name": null}), "task_name is required"),
            (json!({"task_name": ""}), "task_name must be 1 to 128 letters, digits or _"),
            (json!({"task_name": "a b"}), "task_name must be 1 to 128 letters, digits or _"),
            (json!({"task_name": "x".repeat(129)}), "task_name must be 1 to 128 letters, digits or _"),
            (json!({"task_name": 1}), "task_name must be a string"),
            (json!({"task_type": null}), "task_type is required"),
            (
                json!({"task_type": "freeze"}),
                "task_type must be one of softwareUpgrade, firmwareUpgrade, createDevices, updateDevices, deleteDevices, \
                 freezeDevices, unfreezeDevices, createCommands, createMessages, updateDeviceShadows",
            ),
            (
                json!({"task_type": "moduleUpgrade"}),
                "task_type moduleUpgrade is not supported: devices have no modules",
            ),
            (
                json!({"task_type": "createAsyncCommands"}),
                "task_type createAsyncCommands is not supported: devices of MQTT have no asynchronous commands; use createCommands",
            ),
            (json!({"targets": null}), "targets is required, or targets_filter"),
            (json!({"targets": "d"}), "targets must be a list"),
            (json!({"targets": ["d", 1]}), "targets[1] must be a string"),
            (json!({"targets": [""]}), "targets[0] must have 1 to 128 characters"),
            (json!({"targets": vec!["d"; 30_001]}), "targets must be at most 30000; there are 30001"),
            (
                json!({"targets": null, "targets_filter": {"group_ids": ["g"]}}),
                "targets_filter.group_ids is not supported: there are no groups of devices",
            ),
            (json!({"targets": null, "targets_filter": {}}), "targets_filter.product_id is required"),
            (
                json!({"targets": null, "targets_filter": {"product_id": "p", "x": 1}}),
                "targets_filter.x is not known; targets_filter has product_id",
            ),
            (
                json!({"targets": null, "document_source": "f"}),
                "document_source is not supported: no files are kept; name targets",
            ),
            (json!({"document": []}), "document must be an object"),
            (json!({"task_policy": 1}), "task_policy must be an object"),
            (
                json!({"task_policy": {"schedule_time": "x"}}),
                "task_policy.schedule_time must be a time as in 20151212T121212Z",
            ),
            (json!({"task_policy": {"schedule_time": "20151212T121211Z"}}), "task_policy.schedule_time has passed"),
            (json!({"task_policy": {"retry_count": 6}}), "task_policy.retry_count must be a whole number from 0 to 5"),
            (
                json!({"task_policy": {"retry_interval": 1441}}),
                "task_policy.retry_interval must be a whole number from 0 to 1440",
            ),
            (json!({"task_type": "createCommands"}), "document is required"),
            (json!({"task_type": "createCommands", "document": {}}), "document.paras is required"),
            (json!({"task_type": "createCommands", "document": {"paras": []}}), "document.paras must be an object"),
            (json!({"task_type": "createMessages", "document": {}}), "document.message is required"),
            (
                json!({"task_type": "updateDevices", "document": {"device_name": 1}}),
                "document.device_name must be a string",
            ),
            (json!({"task_type": "updateDeviceShadows", "document": {"shadow": {}}}), "document.shadow must be a list"),
            (upgrade(json!({"url": "https://h/f"})), "document.version is required"),
            (upgrade(json!({"version": "2"})), "document.url is required"),
            (
                upgrade(json!({"version": "2", "url": "http://h/f"})),
                "document.url must start with https://: what is not encrypted is not offered to devices",
            ),
            (devices(json!([])), "document.devices must not be empty"),
            (devices(json!([{"product_id": "p"}])), "document.devices[0].node_id is required"),
            (
                devices(json!([{"product_id": "p", "node_id": "n"}, {"product_id": "p", "node_id": "n"}])),
                "document.devices[1] has the id of another one",
            ),
            (
                json!({"task_type": "createDevices", "document": {"devices": [{"product_id": "p", "node_id": "n"}]}}),
                "targets must not be there: document.devices says which are made",
            ),
            (
                json!({"task_type": "createDevices", "targets": null, "document": {"product_id": "p"}}),
                "targets is required: node ids, or document.devices in their place",
            ),
            (
                json!({"task_type": "createDevices", "document": {"product_id": "p", "device_id": "x"}}),
                "document.device_id must not be there: the targets are node ids",
            ),
        ] {
            assert_eq!(read(&with(more.clone())).expect_err(wanted).to_string(), wanted, "{more}");
        }
        let long = json!({"task_type": "createMessages", "document": {"message": "x".repeat(DOCUMENT_BYTES_MAX)}});
        assert_eq!(read(&with(long)).expect_err("long").to_string(), "document must have at most 262144 bytes");
    }
}
