use super::*;

fn topic(device: &Device, rest: &str) -> String {
    format!("$oc/devices/{}/sys/events/{rest}", device.id())
}

/// Asks as a gateway, and gives the event that comes back.
async fn ask(client: &mut Client, gateway: &Device, kind: &str, paras: Value) -> Value {
    let event = json!({"service_id": "$sub_device_manager", "event_type": kind, "event_id": "e", "paras": paras});
    say(client, &topic(gateway, "up"), &json!({"services": [event]})).await;
    told(client, gateway).await
}

async fn told(client: &mut Client, gateway: &Device) -> Value {
    let (_, down) = hear(client, &topic(gateway, "down")).await;
    down["services"][0].clone()
}

async fn status_when(rest: &Rest, device: &str, wanted: &str) {
    let path = format!("/devices/{device}");
    wait_for(&format!("{device} is {wanted}"), DEADLINE, async || {
        let shown = rest.call("GET", &path, None).await.ok()?;
        (shown["status"] == wanted).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_gateway_has_its_devices_and_hears_of_them() {
    let gateway = Device::new(Vendor::Huawei, "gateway");
    let (cluster, rest) = cluster(std::slice::from_ref(&gateway)).await;
    let second = at(&cluster, &rest, 1);
    let mut client = connect(&cluster, 0, &gateway).await;
    let devices = json!([{"node_id": "one", "product_id": "prod1"}, {"node_id": "two", "product_id": "nothing"}]);
    let added = ask(&mut client, &gateway, "add_sub_device_request", json!({"devices": devices})).await;
    assert_eq!((&added["event_type"], &added["event_id"]), (&json!("add_sub_device_response"), &json!("e")));
    assert_eq!(added["paras"]["successful_devices"][0]["device_id"], "prod1_one");
    assert_eq!(added["paras"]["failed_devices"][0]["node_id"], "two");
    let shown = second.call("GET", "/devices/prod1_one", None).await.unwrap();
    assert_eq!((&shown["gateway_id"], &shown["status"]), (&json!(gateway.id()), &json!("INACTIVE")));

    let online = json!({"device_statuses": [{"device_id": "prod1_one", "status": "ONLINE"}]});
    let answer = ask(&mut client, &gateway, "sub_device_update_status", online).await;
    assert_eq!(answer["paras"]["failed_devices"], json!([]));
    status_when(&second, "prod1_one", "ONLINE").await;
    // What is desired of a device behind it goes to the gateway.
    let wish = json!({"shadow": [{"service_id": "Meter", "desired": {"level": 1}}]});
    second.call("PUT", "/devices/prod1_one/shadow", Some(&wish)).await.unwrap();
    let set = format!("$oc/devices/{}/sys/properties/set/", gateway.id());
    assert_eq!(hear(&mut client, &set).await.1["object_device_id"], "prod1_one");
    let batch = json!({"devices": [
        {"device_id": "prod1_one", "services": [{"service_id": "Meter", "properties": {"level": 1}}]},
    ]});
    let up = format!("$oc/devices/{}/sys/gateway/sub_devices/properties/report", gateway.id());
    say(&mut client, &up, &batch).await;
    wait_for("the report of the device behind", DEADLINE, async || {
        let shown = second.call("GET", "/devices/prod1_one/shadow", None).await.ok()?;
        (shown["shadow"][0]["reported"]["properties"]["level"] == 1).then_some(())
    })
    .await
    .unwrap();

    // What others do to its devices the gateway is told; what it has done itself it is not told again.
    let body = json!({"product_id": "prod1", "node_id": "three", "gateway_id": gateway.id()});
    second.call("POST", "/devices", Some(&body)).await.unwrap();
    let notice = told(&mut client, &gateway).await;
    assert_eq!(notice["event_type"], "add_sub_device_notify");
    assert_eq!(notice["paras"]["devices"][0]["device_id"], "prod1_three");
    second.call("DELETE", "/devices/prod1_three", None).await.unwrap();
    let notice = told(&mut client, &gateway).await;
    assert_eq!(notice["event_type"], "delete_sub_device_notify");

    drop(client);
    status_when(&second, "prod1_one", "OFFLINE").await;
    let mut client = connect(&cluster, 2, &gateway).await;
    let deleted = ask(&mut client, &gateway, "delete_sub_device_request", json!({"devices": ["prod1_one"]})).await;
    assert_eq!(deleted["paras"]["successful_devices"], json!(["prod1_one"]));
    assert!(second.call("GET", "/devices/prod1_one", None).await.unwrap_err().to_string().contains("404"));
}
