use super::*;

const ID: &str = "a1B2c3D4e5F_sensor-001";

#[test]
fn time() {
    let registry = registry();
    let voice = voice(&registry, true);
    for (sent, echoed) in [
        (r#"{"deviceSendTime":"1571724098000"}"#, Some(r#""1571724098000""#)),
        (r#"{"deviceSendTime":1571724098000}"#, Some("1571724098000")),
        (r#"{"deviceSendTime":[1]}"#, None),
        ("{}", None),
        ("", None),
        ("7", None),
    ] {
        let answers = send(&*voice, &registry, "/ext/ntp/a1B2c3D4e5F/sensor-001/request", sent);
        let expected = echoed.map(|echoed| {
            format!(
                r#"{{"deviceSendTime":{echoed},"serverRecvTime":"1795228015000","serverSendTime":"1795228015000"}}"#
            )
        });
        let expected: Vec<(&str, &str)> =
            expected.iter().map(|text| ("/ext/ntp/a1B2c3D4e5F/sensor-001/response", text.as_str())).collect();
        assert_eq!(told(&answers), expected, "{sent}");
        assert_eq!(answers.problem.is_some(), expected.is_empty());
    }
}

#[test]
fn answers_to_requests_carry_the_id_of_their_topic() {
    let registry = registry();
    let voice = voice(&registry, true);
    for (to, id) in [
        ("/sys/a1B2c3D4e5F/sensor-001/rrpc/response/12345", "12345"),
        ("/ext/rrpc/abc/sys/a1B2c3D4e5F/sensor-001/thing/service/reboot", "abc"),
        ("/ext/rrpc/7/a1B2c3D4e5F/sensor-001/user/get", "7"),
    ] {
        let answers = send(&*voice, &registry, to, "any bytes");
        assert_eq!(answers.reports, [report(ID, id, Told::Response(Bytes::from_static(b"any bytes")))]);
        assert!(answers.downlinks.is_empty() && answers.problem.is_none());
    }
}

#[test]
fn firmware() {
    let mut registry = registry();
    let voice = voice(&registry, true);
    let ask = |registry: &Registry, kind: &str, payload: &str| {
        send(&*voice, registry, &format!("/ota/device/{kind}/a1B2c3D4e5F/sensor-001"), payload)
    };
    let version = |firmware: &str, software: &str| Told::Version {
        firmware: firmware.into(),
        software: software.into(),
        sdk: Box::default(),
    };
    for (payload, expected) in [
        (r#"{"id":1,"params":{"version":"1.0.0"}}"#, Some(version("1.0.0", ""))),
        (r#"{"id":1,"params":{"version":"1.0.0","module":"default"}}"#, Some(version("1.0.0", ""))),
        (r#"{"id":1,"params":{"version":"1.0.0","module":"mcu"}}"#, Some(version("", "mcu 1.0.0"))),
        (r#"{"id":1,"params":{}}"#, None),
        (r#"{"id":1}"#, None),
        ("x", None),
    ] {
        let answers = ask(&registry, "inform", payload);
        let expected: Vec<Report> = expected.into_iter().map(|what| report(ID, "1", what)).collect();
        assert_eq!(answers.reports, expected, "{payload}");
        assert_eq!((answers.problem.is_some(), answers.downlinks.len()), (expected.is_empty(), 0), "{payload}");
    }
    for (payload, versions) in [
        (r#"{"id":1,"params":{"version":"1.0.0"}}"#, ("1.0.0", "")),
        (r#"{"id":1,"params":{"version":"1.0.0","module":"mcu"}}"#, ("1.0.0", "mcu 1.0.0")),
        (r#"{"id":1,"params":{"version":"1.0.1"}}"#, ("1.0.1", "mcu 1.0.0")),
    ] {
        let answers = ask(&registry, "inform", payload);
        commit(&mut registry, &answers.changes);
        let device = &registry.device(ID).unwrap().0.record;
        assert_eq!((&*device.fw_version, &*device.sw_version), versions);
        assert!(ask(&registry, "inform", payload).changes.is_empty(), "it is known");
    }
    let long = format!(r#"{{"id":1,"params":{{"version":"{}"}}}}"#, "9".repeat(257));
    assert!(ask(&registry, "inform", &long).problem.is_some());
    let progress = r#"{"id":"2","params":{"step":"50","desc":"","module":""}}"#;
    assert_eq!(
        ask(&registry, "progress", progress).reports,
        [report(ID, "2", Told::Upgrade(Bytes::from_static(progress.as_bytes())))]
    );
    let answers = ask(&registry, "request", r#"{"id":3,"params":{"version":"1.0.0"}}"#);
    let reply = r#"{"code":"1000","data":{},"id":3,"message":"success"}"#;
    assert_eq!(told(&answers), [("/ota/device/request/a1B2c3D4e5F/sensor-001", reply)]);
}
