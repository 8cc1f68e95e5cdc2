//! What the API takes and refuses.

use cluster_tests::devices::Vendor;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_requests_are_told_what_is_wrong() {
    let (_cluster, rest) = cluster(&[], "").await;
    let create = |more: Value| {
        let mut body = json!({ "task_name": "t", "task_type": "freezeDevices", "targets": ["d"] });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let upgrade = json!({ "version": "2", "url": "http://h/f" });
    for (body, status, code, word) in [
        (json!([]), 400, "IOTDA.000006", "body"),
        (create(json!({ "task_name": "a-b" })), 400, "IOTDA.000006", "task_name"),
        (create(json!({ "task_type": "moduleUpgrade" })), 400, "IOTDA.000006", "moduleUpgrade"),
        (create(json!({ "targets": [] })), 400, "IOTDA.000006", "targets"),
        (create(json!({ "targets": null, "targets_filter": { "group_ids": [] } })), 400, "IOTDA.000006", "group_ids"),
        (
            create(json!({ "targets": null, "targets_filter": { "product_id": "none" } })),
            400,
            "IOTDA.000006",
            "targets_filter.product_id",
        ),
        (
            create(json!({ "targets": null, "targets_filter": { "product_id": Vendor::Huawei.product_id() } })),
            400,
            "IOTDA.000006",
            "targets",
        ),
        (create(json!({ "task_type": "firmwareUpgrade", "document": upgrade })), 400, "IOTDA.000006", "document.url"),
        (create(json!({ "app_id": "none" })), 403, "IOTDA.001000", "none"),
        (
            create(json!({ "task_policy": { "schedule_time": "20200101T000000Z" } })),
            400,
            "IOTDA.000006",
            "task_policy.schedule_time",
        ),
    ] {
        let (told, error) = rest.ask("POST", "/batchtasks", Some(&body)).await.unwrap();
        assert_eq!((told, error["error_code"].as_str().unwrap()), (status, code), "{body}: {error}");
        assert!(error["error_msg"].as_str().unwrap().contains(word), "{body}: {error}");
    }
    for (method, path, status) in [
        ("GET", "/batchtasks?status=Waiting", 400),
        ("GET", "/batchtasks?task_type=x", 400),
        ("GET", "/batchtasks?limit=51", 400),
        ("GET", "/batchtasks/none", 404),
        ("GET", "/batchtasks/000000000000000000000001", 404),
        ("GET", "/batchtasks/000000000000000000000001?task_detail_status=x", 404),
        ("DELETE", "/batchtasks/000000000000000000000001", 404),
        ("POST", "/batchtasks/000000000000000000000001/stop", 404),
        ("POST", "/batchtasks/000000000000000000000001/retry", 404),
        ("POST", "/batchtasks/000000000000000000000001/confirm", 404),
        ("PUT", "/batchtasks/000000000000000000000001", 405),
    ] {
        let (told, error) = rest.ask(method, path, None).await.unwrap();
        assert_eq!(told, status, "{method} {path}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_may_have_very_many_targets() {
    const MOST: usize = 30_000;
    let (cluster, rest) = cluster(&[], "").await;
    let long = |number: usize| format!("{}{number:05}", "x".repeat(100));
    let targets: Vec<String> = (0..MOST).map(long).collect();
    // So far in the future that nothing is done.
    let policy = json!({ "schedule_time": "20990101T000000Z" });
    let id = create(&rest, "freezeDevices", json!({ "targets": targets, "task_policy": policy })).await;
    let elsewhere = rest.at(cluster.member(1).rest);
    let task = show(&elsewhere, &id).await;
    assert_eq!((count(&task, "total"), count(&task, "waitting")), (MOST as u64, MOST as u64));
    let path = format!("/batchtasks/{id}?target={}", long(MOST - 1));
    let page = elsewhere.call("GET", &path, None).await.unwrap();
    assert_eq!(page["task_details"], json!([{ "target": long(MOST - 1), "status": "Waitting" }]));
    let asked = json!({ "targets": [long(0)] });
    let told = rest.call("POST", &format!("/batchtasks/{id}/confirm"), Some(&asked)).await.unwrap();
    assert_eq!(told["targets"][0]["status"], "failure");
    let path = format!("/batchtasks/{id}/retry");
    let (status, error) = rest.ask("POST", &path, Some(&asked)).await.unwrap();
    assert_eq!((status, &error["error_code"]), (409, &json!("FULMAR.000053")));
    rest.call("POST", &format!("/batchtasks/{id}/stop"), None).await.unwrap();
    let task = show(&rest, &id).await;
    assert_eq!((&task["status"], count(&task, "stopped")), (&json!("Stopped"), MOST as u64));
    // Newest first, page by page.
    let policy = json!({ "schedule_time": "20990101T000000Z" });
    let other = create(&rest, "deleteDevices", json!({ "targets": ["d", "d"], "task_policy": policy })).await;
    let first = elsewhere.call("GET", "/batchtasks?limit=1", None).await.unwrap();
    assert_eq!((&first["batchtasks"][0]["task_id"], &first["page"]["count"]), (&json!(other), &json!(2)));
    assert_eq!(count(&first["batchtasks"][0], "total"), 1, "who is named twice is one target");
    let marker = first["page"]["marker"].as_str().unwrap();
    let second = elsewhere.call("GET", &format!("/batchtasks?limit=1&marker={marker}"), None).await.unwrap();
    assert_eq!(second["batchtasks"][0]["task_id"], json!(id));
    rest.call("DELETE", &format!("/batchtasks/{id}"), None).await.unwrap();
    rest.call("DELETE", &format!("/batchtasks/{other}"), None).await.unwrap();
    let none = elsewhere.call("GET", "/batchtasks", None).await.unwrap();
    assert_eq!(none, json!({ "batchtasks": [], "page": { "count": 0 } }));
}
