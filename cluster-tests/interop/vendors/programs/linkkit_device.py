"""A device with aliyun-iot-linkkit."""

from linkkit import linkkit
from told import ARGUMENTS, commands, tell

kit = linkkit.LinkKit(
    host_name="127.0.0.1",
    product_key=ARGUMENTS["product_key"],
    device_name=ARGUMENTS["device_name"],
    device_secret=ARGUMENTS.get("device_secret", ""),
    product_secret=ARGUMENTS.get("product_secret"),
    auth_type=ARGUMENTS.get("auth_type"),
    client_id=ARGUMENTS.get("client_id"),
    username=ARGUMENTS.get("username"),
    password=ARGUMENTS.get("password"),
)
with open(ARGUMENTS["ca"], encoding="ascii") as ca:
    kit.config_mqtt(
        port=ARGUMENTS["port"],
        endpoint=ARGUMENTS["host"],
        protocol=ARGUMENTS.get("protocol", "MQTTv311"),
        secure=ARGUMENTS.get("secure", ""),
        cadata=ca.read(),
        check_hostname=ARGUMENTS.get("check_hostname", False),
        keep_alive=ARGUMENTS.get("keep_alive", 60),
    )
kit.thing_setup(ARGUMENTS["tsl"])
kit.on_thing_enable = lambda _: tell("enabled")
kit.on_connect = lambda session, rc, _: tell("connect", session=session, rc=rc)
kit.on_disconnect = lambda rc, _: tell("disconnect", rc=rc)
kit.on_thing_prop_post = lambda id, code, data, message, _: tell(
    "property_reply", id=id, code=code, data=data, message=message
)
kit.on_thing_event_post = lambda name, id, code, data, message, _: tell(
    "event_reply", name=name, id=id, code=code, message=message
)
kit.on_topic_message = lambda topic, payload, qos, _: tell("message", topic=topic, payload=str(payload), qos=qos)
kit.on_subscribe_topic = lambda mid, granted, _: tell("subscribed", granted=granted)
kit.on_publish_topic = lambda mid, _: tell("published", mid=mid)
# Three values with `register`, four with `regnwl`.
kit.on_device_dynamic_register = lambda rc, value, _: tell("registered", rc=rc, secret=value)
kit.on_device_dynamic_register_nwl_reply = lambda rc, client_id, username, password: tell(
    "registered", rc=rc, client_id=client_id, username=username, password=password
)
kit.on_thing_prop_changed = lambda params, _: tell("property_set", params=params)


def on_service(name, id, params, _):
    tell("service", name=name, id=id, params=params)
    # As an author does it, at once and with the SDK's own call, whichever way the service was called.
    if ARGUMENTS.get("answers", True):
        kit.thing_answer_service(name, id, 200, {"opened": params.get("angle")})


kit.on_thing_call_service = on_service
kit.on_thing_shadow_get = lambda payload, _: tell("shadow", payload=payload)
kit.on_ota_message_arrived = lambda kind, version, size, url, method, sign, module, extra: tell(
    "firmware", kind=kind, version=version, size=size, url=url, method=method, sign=sign, module=module
)
kit.connect_async()
tell("started")

for command in commands():
    if command["do"] == "post_property":
        tell("posted", result=kit.thing_post_property(command["properties"]))
    elif command["do"] == "trigger_event":
        tell("posted", result=kit.thing_trigger_event((command["name"], command["params"])))
    elif command["do"] == "subscribe":
        kit.subscribe_topic(command["topic"], command["qos"])
    elif command["do"] == "publish":
        kit.publish_topic(command["topic"], command["payload"], command["qos"])
    elif command["do"] == "update_shadow":
        tell("sent", result=kit.thing_update_shadow(command["reported"], command["version"]))
    elif command["do"] == "get_shadow":
        tell("sent", result=kit.thing_get_shadow())
    elif command["do"] == "report_version":
        # What it gives says that it failed, also when it has not.
        kit.ota_report_version(command.get("module", ""), command["version"])
        tell("sent")
    elif command["do"] == "query_firmware":
        kit.query_ota_firmware()
        tell("sent")
    elif command["do"] == "download":
        result = kit.download_ota_firmware(command["url"], command["path"], command["method"], command["sign"])
        tell("downloaded", result=getattr(result, "name", str(result)))
    elif command["do"] == "state":
        tell("state", state=kit.check_state().name)
    elif command["do"] == "disconnect":
        kit.disconnect()
