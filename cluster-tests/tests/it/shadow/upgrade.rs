use super::*;

#[tokio::test]
async fn firmware_is_offered_from_any_node_over_https_only() {
    let huawei = Device::new(Vendor::Huawei, "upgraded");
    let aliyun = Device::new(Vendor::Aliyun, "upgraded");
    let (cluster, rest) = cluster(&[huawei.clone(), aliyun.clone()]).await;
    let third = at(&cluster, &rest, 2);
    let path = |device: &Device, what: &str| format!("/devices/{}/{what}", device.id());
    let offer = json!({
        "type": "firmware", "version": "2.0", "url": "https://files/f.bin", "size": 7,
        "sign_method": "Md5", "sign": "0123456789abcdef0123456789abcdef",
    });
    let away = third.call("POST", &path(&huawei, "upgrade"), Some(&offer)).await.unwrap_err().to_string();
    assert!(away.contains("403") && away.contains("IOTDA.014016"), "{away}");

    let mut client = connect(&cluster, 0, &huawei).await;
    third.call("POST", &path(&huawei, "upgrade"), Some(&offer)).await.unwrap();
    let down = format!("$oc/devices/{}/sys/events/down", huawei.id());
    let (_, event) = hear(&mut client, &down).await;
    let event = &event["services"][0];
    assert_eq!((&event["service_id"], &event["event_type"]), (&json!("$ota"), &json!("firmware_upgrade")));
    assert_eq!((&event["paras"]["url"], &event["paras"]["version"]), (&offer["url"], &offer["version"]));
    third.call("POST", &path(&huawei, "version-query"), None).await.unwrap();
    let (_, event) = hear(&mut client, &down).await;
    assert_eq!(event["services"][0]["event_type"], "version_query");
    let paras = json!({"fw_version": "2.0", "sw_version": "1.1"});
    let report = json!({"services": [{"service_id": "$ota", "event_type": "version_report", "paras": paras}]});
    say(&mut client, &format!("$oc/devices/{}/sys/events/up", huawei.id()), &report).await;
    wait_for("the version", DEADLINE, async || {
        let shown = third.call("GET", &format!("/devices/{}", huawei.id()), None).await.ok()?;
        (shown["fw_version"] == "2.0" && shown["sw_version"] == "1.1").then_some(())
    })
    .await
    .unwrap();

    let mut client = connect(&cluster, 1, &aliyun).await;
    third.call("POST", &path(&aliyun, "upgrade"), Some(&offer)).await.unwrap();
    let (_, notice) = hear(&mut client, "/ota/device/upgrade/a1B2c3D4e5F/upgraded").await;
    assert_eq!((&notice["code"], &notice["data"]["signMethod"]), (&json!("1000"), &json!("Md5")));
    for (member, value) in [("url", json!("http://files/f.bin")), ("version", json!(null)), ("size", json!(null))] {
        let mut bad = offer.clone();
        bad[member] = value;
        let refused = third.call("POST", &path(&aliyun, "upgrade"), Some(&bad)).await.unwrap_err().to_string();
        assert!(refused.contains("400") && refused.contains(member), "{refused}");
    }
}
