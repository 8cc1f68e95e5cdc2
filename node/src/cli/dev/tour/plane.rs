//! The part of the tour that goes over REST: a rule, an application, a report, a command, a message, a task.

use serde_json::Value;

use super::super::Place;
use super::super::kit::Kit;
use super::super::seed::{PROJECT, USER};
use super::at;

/// Lines to paste into a shell, each by itself; the first one sets what the others use.
pub(super) fn lines(places: &[Place], kit: &Kit) -> Vec<String> {
    let [first, others @ ..] = places else { return Vec::new() };
    let (second, third) = (others.first().unwrap_or(first), others.get(1).unwrap_or(first));
    let demo = &kit.credentials.demo;
    let rest = format!("http://{}", first.rest);
    let device = demo.devices().into_iter().find(|device| device["dialect"] == "huawei").unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (id, client_id, password) = (text(&device["username"]), text(&device["client_id"]), text(&device["password"]));
    let meter = demo.meter().device;
    let application = demo.application();
    let (key, code) = (text(&application["access_key"]), text(&application["access_code"]));
    let as_device = |node: &Place| format!("{} -i {client_id} -u {id} -P {password}", at(node.mqtt));
    let command = r#"{"service_id":"WaterMeter","command_name":"ON_OFF","paras":{"value":"ON"}}"#;
    let sign_in = format!(
        r#"{{"auth":{{"identity":{{"methods":["password"],"password":{{"user":{{"name":"{USER}","password":"{}"}}}}}}}}}}"#,
        demo.password
    );
    let field = |name: &str| format!("sed 's/.*\"{name}\":\"\\([^\"]*\\)\".*/\\1/'");
    let mut lines = vec![
        "Devices and applications; the first line signs in. A rule: what devices report goes to who asks for `reports`:".to_owned(),
        format!(
            "  A={rest}/v5/iot/{PROJECT} T=\"X-Auth-Token: $(curl -si {rest}/v3/auth/tokens -d '{sign_in}' | tr -d '\\r' | sed -n 's/^x-subject-token: //p')\""
        ),
        format!(
            "  RULE=$(curl -s -H \"$T\" $A/routing-rule/rules -d '{{\"rule_name\":\"reports\",\"subject\":{{\"resource\":\"device.property\",\"event\":\"report\"}}}}' | {})",
            field("rule_id")
        ),
        "  curl -sw '\\n' -H \"$T\" $A/routing-rule/actions -d '{\"rule_id\":\"'$RULE'\",\"channel\":\"MQTT_FORWARDING\",\"channel_detail\":{\"mqtt_forwarding\":{\"topic\":\"reports\"}}}'".to_owned(),
        "  curl -sw '\\n' -H \"$T\" -X PUT $A/routing-rule/rules/$RULE -d '{\"active\":true}'".to_owned(),
        "A device reports; an application that subscribes afterwards still gets it:".to_owned(),
        format!(
            "  mosquitto_pub {} -q 1 -t '$oc/devices/{id}/sys/properties/report' -m '{{\"services\":[{{\"service_id\":\"WaterMeter\",\"properties\":{{\"value\":21.5}}}}]}}'",
            as_device(second)
        ),
        format!(
            "  mosquitto_sub {} -V 311 -i app -u \"accessKey={key}|timestamp=$(date +%s%3N)|instanceId=\" -P {code} -t reports -C 1",
            at(third.mqtt)
        ),
        format!("A command to {meter}, which this program plays:"),
        format!("  curl -sw '\\n' -H \"$T\" $A/devices/{meter}/commands -d '{command}'"),
        format!("A message for {id}, which is away, and what it gets when it comes:"),
        format!("  curl -sw '\\n' -H \"$T\" $A/devices/{id}/messages -d '{{\"name\":\"note\",\"message\":\"hello\"}}'"),
        format!("  mosquitto_sub {} -t '$oc/devices/{id}/sys/messages/down' -C 1", as_device(third)),
        "The command to both of them, as a task: one succeeds, one is not online:".to_owned(),
        format!(
            "  TASK=$(curl -s -H \"$T\" $A/batchtasks -d '{{\"task_name\":\"on\",\"task_type\":\"createCommands\",\"targets\":[\"{meter}\",\"{id}\"],\"document\":{command}}}' | {})",
            field("task_id")
        ),
        "  sleep 1; curl -sw '\\n' -H \"$T\" $A/batchtasks/$TASK".to_owned(),
    ];
    lines.push(String::new());
    lines
}
