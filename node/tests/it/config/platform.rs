//! What listeners let in beside plain MQTT, and how dialects are held to.

use fulmar::config::Config;
use fulmar_platform::Settings;
use fulmar_platform::dialect::aliyun;

use super::problems;

#[test]
fn a_wrong_value_is_told() {
    for (toml, expected) in [
        (
            "[[listener]]\naddress = \"0.0.0.0:1\"\nroles = [\"api\"]",
            "3: listener.0.roles need HTTP, which a listener with protocol \"mqtt\" does not speak; set protocol to \"http\", \"ws\" or \"auto\"",
        ),
        (
            "[[listener]]\naddress = \"0.0.0.0:1\"\nprotocol = \"http\"",
            "3: listener.0.protocol is \"http\", which serves nothing without roles; name \"device_auth\", \"api\" or \"console\" in roles",
        ),
        (
            "[[listener]]\naddress = \"0.0.0.0:1\"\nprotocol = \"http\"\nroles = [\"apy\"]",
            "4: listener.0.roles.0 is \"apy\"; allowed: `device_auth`, `api`, `console`; did you mean `api`?",
        ),
        (
            "[[listener]]\naddress = \"0.0.0.0:1\"\ndialects = [\"generic\", \"alyun\"]",
            "3: listener.0.dialects.1 is \"alyun\"; allowed: `application`, `tencent`, `aliyun`, `huawei`, `sensoro`, `generic`; did you mean `aliyun`?",
        ),
        (
            "[[listener]]\naddress = \"0.0.0.0:1\"\ndialects = []",
            "3: listener.0.dialects is empty; leave it out for all, or name at least one",
        ),
        (
            "[platform.aliyun]\nkeep_alive_grace = \"hlaf\"",
            "2: platform.aliyun.keep_alive_grace is \"hlaf\"; allowed: \"half\" or a span of time, as in \"5s\"",
        ),
        (
            "[platform.aliyun]\nkeep_alive_grace = \"1h\"",
            "2: platform.aliyun.keep_alive_grace is 1h; allowed: 0s to 10m",
        ),
        (
            "[platform.aliyun]\nendpoint_host = \"http://a\"",
            "2: platform.aliyun.endpoint_host is \"http://a\"; allowed: the name or address of a host",
        ),
        ("[platform]\nbatch_concurrency = 0", "2: platform.batch_concurrency is 0; allowed: 1 to 1024"),
        ("[platform]\ncommand_timeout = \"2m\"", "2: platform.command_timeout is 2m; allowed: 100ms to 1m"),
        (
            "[platform.huawei]\ntimestamp_tolerance = \"90m\"",
            "2: platform.huawei.timestamp_tolerance is 90m; allowed: whole hours, as in \"1h\"",
        ),
    ] {
        assert_eq!(problems(toml), [format!("fulmar.toml:{expected}")]);
    }
}

#[test]
fn dialects_are_told_what_the_configuration_says() {
    let settings = |toml: &str| Config::from_toml_str(toml).unwrap().platform.settings();
    let (plain, default) = (settings(""), Settings::default());
    assert_eq!(plain.huawei.timestamp_tolerance_h, default.huawei.timestamp_tolerance_h);
    assert_eq!(plain.aliyun.keep_alive_grace, default.aliyun.keep_alive_grace);
    assert_eq!(plain.aliyun.exclusive_client_id, default.aliyun.exclusive_client_id);
    assert_eq!(plain.aliyun.plain_auth, default.aliyun.plain_auth);
    assert!(plain.aliyun.endpoint.is_none() && default.aliyun.endpoint.is_none());
    let all = settings(
        r#"
        [platform.huawei]
        timestamp_tolerance = "2h"
        [platform.aliyun]
        keep_alive_grace = "half"
        exclusive_client_id = false
        endpoint_host = "iot.example"
        endpoint_port = 8883
        plain_auth = true
        "#,
    );
    assert_eq!(all.huawei.timestamp_tolerance_h, 2);
    assert_eq!(all.aliyun.keep_alive_grace, aliyun::Grace::Half);
    assert!(!all.aliyun.exclusive_client_id && all.aliyun.plain_auth);
    let endpoint = all.aliyun.endpoint.unwrap();
    assert_eq!((&*endpoint.host, endpoint.port), ("iot.example", 8883));
}
