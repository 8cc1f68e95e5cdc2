use super::*;

fn huawei(device: &Device, rest: &str) -> String {
    format!("$oc/devices/{}/sys/{rest}", device.id())
}

fn report(properties: Value) -> Value {
    json!({"services": [{"service_id": "Meter", "properties": properties, "event_time": null}]})
}

#[tokio::test]
async fn what_is_reported_at_one_node_is_shown_at_another_and_wishes_reach_the_device_wherever_it_is() {
    let device = Device::new(Vendor::Huawei, "shadowed");
    let (cluster, rest) = cluster(std::slice::from_ref(&device)).await;
    let (second, third) = (at(&cluster, &rest, 1), at(&cluster, &rest, 2));
    assert_eq!(shadow_when(&second, &device, "no shadow", Value::is_array).await, json!([]));
    let mut client = connect(&cluster, 0, &device).await;
    say(&mut client, &huawei(&device, "properties/report"), &report(json!({"level": 1, "mode": "a"}))).await;
    let reported = |wanted: Value| move |shadow: &Value| shadow[0]["reported"]["properties"] == wanted;
    shadow_when(&second, &device, "the report", reported(json!({"level": 1, "mode": "a"}))).await;
    // Many at once are gathered; the last one counts.
    for level in 2..40 {
        say(&mut client, &huawei(&device, "properties/report"), &report(json!({"level": level}))).await;
    }
    let shown = shadow_when(&third, &device, "the last", reported(json!({"level": 39, "mode": "a"}))).await;
    assert_eq!(shown[0]["version"], 0, "reports are no wishes");
    // What is left when the device goes is kept too.
    say(&mut client, &huawei(&device, "properties/report"), &report(json!({"level": 50}))).await;
    say(&mut client, &huawei(&device, "properties/report"), &report(json!({"level": 51}))).await;
    drop(client);
    shadow_when(&second, &device, "the last of all", reported(json!({"level": 51, "mode": "a"}))).await;

    let wished = desire(&second, &device, json!({"mode": "b", "level": 51}), Some(0)).await.unwrap();
    assert_eq!((&wished["shadow"][0]["version"], &wished["device_id"]), (&json!(1), &json!(device.id())));
    let conflict = desire(&third, &device, json!({"mode": "c"}), Some(0)).await.unwrap_err().to_string();
    assert!(conflict.contains("409") && conflict.contains("FULMAR.000060"), "{conflict}");
    let mut client = connect(&cluster, 2, &device).await;
    let (_, set) = hear(&mut client, &huawei(&device, "properties/set/request_id=")).await;
    let services = json!([{"service_id": "Meter", "properties": {"mode": "b"}}]);
    assert_eq!(set, json!({"object_device_id": device.id(), "services": services}));
    // It is there: another wish goes to it at once, and what has been told is not told again.
    desire(&rest, &device, json!({"level": 60}), Some(1)).await.unwrap();
    let (_, set) = hear(&mut client, &huawei(&device, "properties/set/request_id=")).await;
    assert_eq!(set["services"][0]["properties"], json!({"mode": "b", "level": 60}));
    say(&mut client, &huawei(&device, "properties/report"), &report(json!({"mode": "b"}))).await;
    let (_, set) = hear(&mut client, &huawei(&device, "properties/set/request_id=")).await;
    assert_eq!(set["services"][0]["properties"], json!({"level": 60}));
    say(&mut client, &huawei(&device, "shadow/get/request_id=x1"), &json!({"service_id": "Meter"})).await;
    let (topic, shown) = hear(&mut client, &huawei(&device, "shadow/get/response/")).await;
    assert!(topic.ends_with("request_id=x1"));
    assert_eq!(shown["shadow"][0]["reported"]["properties"], json!({"level": 51, "mode": "b"}));
    assert_eq!(shown["shadow"][0]["desired"]["properties"], json!({"level": 60, "mode": "b"}));

    let path = format!("/devices/{}/shadow", device.id());
    rest.call("DELETE", &path, None).await.unwrap();
    assert_eq!(second.call("GET", &path, None).await.unwrap()["shadow"], json!([]));
    let unknown = rest.call("GET", "/devices/nobody/shadow", None).await.unwrap_err().to_string();
    assert!(unknown.contains("404") && unknown.contains("IOTDA.014000"), "{unknown}");
    let bad = desire(&rest, &device, json!(1), None).await.unwrap_err().to_string();
    assert!(bad.contains("400") && bad.contains("shadow[0].desired"), "{bad}");
}

#[tokio::test]
async fn a_shadow_outlives_the_node_of_its_device_and_restarts() {
    let device = Device::new(Vendor::Huawei, "moving");
    let (mut cluster, rest) = cluster(std::slice::from_ref(&device)).await;
    let second = at(&cluster, &rest, 1);
    let mut client = connect(&cluster, 0, &device).await;
    say(&mut client, &huawei(&device, "properties/report"), &report(json!({"level": 1}))).await;
    shadow_when(&second, &device, "the report", |shadow| shadow[0]["reported"]["properties"]["level"] == 1).await;
    cluster.kill(0).await.unwrap();
    drop(client);
    let wish = async || desire(&second, &device, json!({"level": 2}), None).await.ok();
    wait_for("the wish is taken", DEADLINE, wish).await.unwrap();
    let mut client = connect(&cluster, 2, &device).await;
    let (_, set) = hear(&mut client, &huawei(&device, "properties/set/request_id=")).await;
    assert_eq!(set["services"][0]["properties"], json!({"level": 2}));
    cluster.start_again(0).unwrap();
    cluster.ready(0, DEADLINE).await.unwrap();
    let first = at(&cluster, &rest, 0);
    let kept = shadow_when(&first, &device, "it is kept", |shadow| !shadow[0].is_null()).await;
    assert_eq!(kept[0]["desired"]["properties"], json!({"level": 2}));
    assert_eq!(kept[0]["reported"]["properties"], json!({"level": 1}));
}

#[tokio::test]
async fn documents_of_aliyun_and_tencent() {
    let aliyun = Device::new(Vendor::Aliyun, "shadowed");
    let tencent = Device::new(Vendor::Tencent, "shadowed");
    let (cluster, rest) = cluster(&[aliyun.clone(), tencent.clone()]).await;
    let second = at(&cluster, &rest, 1);

    let mut client = connect(&cluster, 0, &aliyun).await;
    let (up, down) = ("/shadow/update/a1B2c3D4e5F/shadowed", "/shadow/get/a1B2c3D4e5F/shadowed");
    let update =
        |version: i64, value: u64| json!({"method": "update", "state": {"reported": {"a": value}}, "version": version});
    say(&mut client, up, &update(5, 1)).await;
    let (_, reply) = hear(&mut client, down).await;
    assert_eq!((&reply["method"], &reply["payload"]["status"]), (&json!("reply"), &json!("success")));
    say(&mut client, up, &update(5, 2)).await;
    let (_, reply) = hear(&mut client, down).await;
    assert_eq!(reply["payload"]["content"]["errorcode"], "409");
    let shown = shadow_when(&second, &aliyun, "the document", |shadow| shadow[0]["version"] == 5).await;
    assert_eq!((&shown[0]["service_id"], &shown[0]["reported"]["properties"]), (&json!("default"), &json!({"a": 1})));
    desire(&second, &aliyun, json!({"a": 3}), Some(5)).await.unwrap();
    let (_, control) = hear(&mut client, down).await;
    assert_eq!((&control["method"], &control["version"]), (&json!("control"), &json!(6)));
    assert_eq!(control["payload"]["state"]["desired"], json!({"a": 3}));
    // The thing model has the same properties.
    let posted = json!({"id": "1", "version": "1.0", "params": {"b": 9}, "method": "thing.event.property.post"});
    say(&mut client, "/sys/a1B2c3D4e5F/shadowed/thing/event/property/post", &posted).await;
    let both = json!({"a": 1, "b": 9});
    shadow_when(&second, &aliyun, "the post", |shadow| shadow[0]["reported"]["properties"] == both).await;

    desire(&second, &tencent, json!({"x": 1}), None).await.unwrap();
    let mut client = connect(&cluster, 2, &tencent).await;
    let down = "$shadow/operation/result/ABCDE12345/shadowed";
    listen(&mut client, down).await;
    let (_, delta) = hear(&mut client, down).await;
    assert_eq!((&delta["type"], &delta["payload"]["state"]), (&json!("delta"), &json!({"x": 1})));
    let up = "$shadow/operation/ABCDE12345/shadowed";
    let done = json!({"type": "update", "state": {"reported": {"x": 1}, "desired": null}, "clientToken": "t-1"});
    say(&mut client, up, &done).await;
    let (_, reply) = hear(&mut client, down).await;
    assert_eq!((&reply["result"], &reply["clientToken"]), (&json!(0), &json!("t-1")));
    say(&mut client, up, &json!({"type": "get", "clientToken": "t-2"})).await;
    let (_, reply) = hear(&mut client, down).await;
    assert_eq!(reply["payload"]["state"], json!({"reported": {"x": 1}}));
    let refused = json!({"shadow": [{"service_id": "Meter", "desired": {"x": 1}}]});
    let refused = rest.call("PUT", &format!("/devices/{}/shadow", tencent.id()), Some(&refused)).await;
    assert!(refused.unwrap_err().to_string().contains("shadow[0].service_id"));
}
