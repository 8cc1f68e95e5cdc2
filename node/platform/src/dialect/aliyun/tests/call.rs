use fulmar_mqtt::QoS;
use serde_json::{Map, json};

use super::super::call::{Firmware, call_service, call_service_at_once, offer_firmware, request, set_properties};
use super::*;

#[test]
fn what_the_platform_sends_is_exact() {
    let device = device(PK, DN, Some(DS));
    let params = Map::from_iter([("temp".to_owned(), json!(23))]);
    let firmware = Firmware {
        size: 432_945,
        version: "2.0.0",
        url: "https://example.org/firmware",
        sign_method: "Md5",
        sign: "00ff",
        module: None,
    };
    for (downlink, to, text, qos) in [
        (
            set_properties(&device, "77", &params),
            "/sys/a1B2c3D4e5F/sensor-001/thing/service/property/set",
            r#"{"id":"77","version":"1.0","params":{"temp":23},"method":"thing.service.property.set"}"#,
            QoS::AtLeastOnce,
        ),
        (
            call_service(&device, "reboot", "78", &params),
            "/sys/a1B2c3D4e5F/sensor-001/thing/service/reboot",
            r#"{"id":"78","version":"1.0","params":{"temp":23},"method":"thing.service.reboot"}"#,
            QoS::AtLeastOnce,
        ),
        (
            call_service_at_once(&device, "79", "reboot", &params),
            "/ext/rrpc/79/sys/a1B2c3D4e5F/sensor-001/thing/service/reboot",
            r#"{"id":"79","version":"1.0","params":{"temp":23},"method":"thing.service.reboot"}"#,
            QoS::AtMostOnce,
        ),
        (
            request(&device, "80", Bytes::from_static(b"any bytes")),
            "/sys/a1B2c3D4e5F/sensor-001/rrpc/request/80",
            "any bytes",
            QoS::AtMostOnce,
        ),
        (
            offer_firmware(&device, 1_507_707_025, &firmware),
            "/ota/device/upgrade/a1B2c3D4e5F/sensor-001",
            r#"{"code":"1000","data":{"size":432945,"version":"2.0.0","url":"https://example.org/firmware","signMethod":"Md5","sign":"00ff"},"id":1507707025,"message":"success"}"#,
            QoS::AtLeastOnce,
        ),
    ] {
        let downlink = downlink.unwrap();
        assert_eq!((downlink.topic.as_str(), payload(&downlink), downlink.qos), (to, text, qos));
        let registry = registry();
        assert!(voice(&registry, true).implicit(&downlink.topic).is_some(), "{to} comes without subscription");
    }
    assert_eq!(call_service(&device, "a/b", "1", &params), None);
    assert_eq!(call_service(&device, "#", "1", &params), None);
    assert_eq!(call_service_at_once(&device, "", "reboot", &params), None);
    assert_eq!(request(&device, "1/2", Bytes::new()), None);
}

#[test]
fn answers_find_their_requests() {
    let registry = registry();
    let voice = voice(&registry, true);
    let device = device(PK, DN, Some(DS));
    let nothing = Map::new();
    for (downlink, suffix, id) in [
        (set_properties(&device, "77", &nothing), "_reply", "77"),
        (call_service(&device, "reboot", "78", &nothing), "_reply", "78"),
        (call_service_at_once(&device, "79", "reboot", &nothing), "", "79"),
    ] {
        let to = format!("{}{suffix}", downlink.unwrap().topic);
        let answers = send(&*voice, &registry, &to, &json!({"id": id, "code": 200, "data": {}}).to_string());
        assert_eq!((&*answers.reports[0].request_id, answers.downlinks.len()), (id, 0), "{to}");
        assert!(matches!(answers.reports[0].what, Told::Response(_)));
    }
}
