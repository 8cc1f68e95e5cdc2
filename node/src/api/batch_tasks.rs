//! Batch tasks.

use fulmar_broker::plane::tasks::{Kind, Stage, Status, TARGETS_MAX, Target, Task};
use fulmar_platform::dialect::time;
use fulmar_platform::registry::ObjectId;
use serde_json::{Value, json};

use super::call::{Answer, Call, page_json};
use super::{Fault, now_ms};
use crate::operations::input::Input;
use crate::operations::{Error, NewTask, Operations, Redone, TaskFilter};

/// Targets of a task that are shown with it; all of them are among its details.
const TARGETS_SHOWN_MAX: usize = 100;

/// What a list shows of a task.
fn summary(task: &Task) -> Value {
    let (head, progress) = (&task.head, task.progress());
    let mut policy =
        json!({ "retry_count": head.policy.retry_count, "retry_interval": head.policy.retry_interval_s / 60 });
    if let Some(at) = head.policy.schedule_at {
        policy["schedule_time"] = time::compact(at.0).into();
    }
    json!({
        "task_id": task.id.to_string(),
        "app_id": head.app_id,
        "task_name": head.name,
        "task_type": head.kind.as_str(),
        "task_policy": policy,
        "status": task.status.as_str(),
        "status_desc": task.description(),
        "task_progress": {
            "total": head.total,
            "processing": progress.processing,
            "success": progress.success,
            "fail": progress.fail,
            "waitting": progress.waitting,
            "fail_wait_retry": progress.fail_wait_retry,
            "stopped": progress.stopped,
            "removed": 0,
        },
        "create_time": time::compact(task.created.0),
    })
}

/// With its document, but for the secrets in it, and its targets, where these are few.
fn task_json(task: &Task) -> Value {
    let mut json = summary(task);
    if task.targets.len() <= TARGETS_SHOWN_MAX {
        json["targets"] = task.targets.iter().map(|target| &*target.id).collect();
    }
    if let Ok(filter) = serde_json::from_str::<Value>(&task.head.filter) {
        json["targets_filter"] = filter;
    }
    if let Ok(mut document) = serde_json::from_slice::<Value>(&task.head.document) {
        if task.head.kind == Kind::CreateDevices {
            without_secrets(&mut document);
        }
        json["document"] = document;
    }
    json
}

/// Takes the secrets of devices out of what they are to be made of.
fn without_secrets(document: &mut Value) {
    let one = |device: &mut Value| {
        if let Some(auth) = device.get_mut("auth_info").and_then(Value::as_object_mut) {
            auth.remove("secret");
        }
    };
    if let Some(devices) = document.get_mut("devices").and_then(Value::as_array_mut) {
        devices.iter_mut().for_each(one);
    }
    one(document);
}

fn detail(target: &Target) -> Value {
    let mut json = json!({ "target": target.id, "status": target.stage.as_str() });
    if !target.output.is_empty() {
        json["output"] = (&*target.output).into();
    }
    if let Some(failure) = &target.failure {
        json["error"] = json!({ "error_code": failure.code, "error_msg": failure.message });
    }
    json
}

fn id(call: &Call) -> Result<ObjectId, Fault> {
    let text = call.param("task_id");
    Ok(ObjectId::parse(text).ok_or_else(|| Error::NoTask(text.to_owned()))?)
}

/// A parameter of the query that is one of some words.
fn word<T>(call: &Call, name: &str, parse: fn(&str) -> Option<T>) -> Result<Option<T>, Fault> {
    let Some(text) = call.query(name) else { return Ok(None) };
    parse(text).map(Some).ok_or_else(|| Fault::invalid(&format!("{name} has no value {text}")))
}

pub(super) async fn create(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    let new = NewTask::read(&Input::of(&body)?, now_ms())?;
    drop(body); // which may be long
    let task = call.operations().create_task(new).await?;
    Answer::created(&task.id.to_string(), task_json(&task))
}

pub(super) async fn list(call: Call) -> Result<Answer, Fault> {
    let filter = TaskFilter {
        app_id: call.query_owned("app_id"),
        kind: word(&call, "task_type", Kind::parse)?,
        status: word(&call, "status", Status::parse)?,
    };
    let page = call.operations().list_tasks(&filter, &call.paging()?);
    let tasks: Vec<Value> = page.items.iter().map(summary).collect();
    Answer::ok(json!({ "batchtasks": tasks, "page": page_json(&page) }))
}

pub(super) async fn show(call: Call) -> Result<Answer, Fault> {
    let task = call.operations().show_task(id(&call)?)?;
    // Targets are never removed from a task; the vendor has a word for it.
    let removed = call.query("task_detail_status") == Some("Removed");
    let stage = if removed { None } else { word(&call, "task_detail_status", Stage::parse)? };
    let paging = call.paging()?;
    let nobody = removed.then_some("");
    let page = Operations::list_targets(&task, stage, nobody.or_else(|| call.query("target")), &paging);
    let details: Vec<Value> = page.items.iter().map(detail).collect();
    Answer::ok(json!({ "batchtask": task_json(&task), "task_details": details, "page": page_json(&page) }))
}

pub(super) async fn delete(call: Call) -> Result<Answer, Fault> {
    call.operations().delete_task(id(&call)?).await?;
    Answer::empty()
}

/// The targets that a body names; `None`: it names none, and means all.
fn named(body: &Value) -> Result<Option<Vec<&str>>, Fault> {
    let targets = Input::of(body)?.texts("targets")?;
    match &targets {
        Some(targets) if targets.is_empty() || targets.len() > TARGETS_MAX as usize => {
            Err(Fault::invalid(&format!("targets must be 1 to {TARGETS_MAX} devices, or not there for all")))
        }
        _ => Ok(targets),
    }
}

fn results(redone: &[Redone]) -> Result<Answer, Fault> {
    let result = |Redone { target, error }: &Redone| match error {
        None => json!({ "target": target, "status": "success" }),
        Some((code, text)) => {
            json!({ "target": target, "status": "failure", "error_code": code, "error_msg": text })
        }
    };
    Answer::ok(json!({ "targets": redone.iter().map(result).collect::<Vec<Value>>() }))
}

pub(super) async fn retry(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    results(&call.operations().retry_task(id(&call)?, named(&body)?).await?)
}

pub(super) async fn stop(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    results(&call.operations().stop_task(id(&call)?, named(&body)?).await?)
}

pub(super) async fn confirm(call: Call) -> Result<Answer, Fault> {
    let body = call.json()?;
    results(&call.operations().confirm_task(id(&call)?, named(&body)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_new_devices_are_not_shown() {
        for (mut document, wanted) in [
            (
                json!({"devices": [{"node_id": "n", "auth_info": {"secret": "s", "secure_access": true}}, 1]}),
                json!({"devices": [{"node_id": "n", "auth_info": {"secure_access": true}}, 1]}),
            ),
            (json!({"product_id": "p", "auth_info": {"secret": "s"}}), json!({"product_id": "p", "auth_info": {}})),
            (json!({"auth_info": 1}), json!({"auth_info": 1})),
        ] {
            without_secrets(&mut document);
            assert_eq!(document, wanted);
        }
    }

    #[test]
    fn named_targets_are_some_or_all() {
        assert_eq!(named(&json!({})).unwrap(), None);
        assert_eq!(named(&json!({"targets": ["a", "b"]})).unwrap(), Some(vec!["a", "b"]));
        for wrong in [json!([]), json!({"targets": []}), json!({"targets": "a"}), json!({"targets": [1]})] {
            assert_eq!(named(&wrong).unwrap_err().status, 400, "{wrong}");
        }
    }
}
