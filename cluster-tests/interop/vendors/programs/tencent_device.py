"""A device with tencent-iot-device, which keeps itself as a singleton: one device a process."""

import json
import time

from hub.hub import QcloudHub
from told import ARGUMENTS, commands, tell

hub = QcloudHub(
    device_file=ARGUMENTS["device_file"], tls=ARGUMENTS["tls"], useWebsocket=ARGUMENTS["websocket"]
).hub
if ARGUMENTS.get("register"):
    try:
        code, psk = hub.dynregDevice()
    except Exception as error:  # whatever urllib and the SDK have to say
        code, psk = None, repr(error)
    tell("registered", code=code, psk=psk)
    if code != 0:
        raise SystemExit(0)


def on_message(topic, qos, payload, userdata):
    tell("message", topic=topic, qos=qos, payload=payload)


hub.registerMqttCallback(
    lambda session, rc, userdata: tell("connect", session=session, rc=rc),
    lambda rc, userdata: tell("disconnect", rc=rc),
    on_message,
    lambda mid, userdata: tell("published", mid=mid),
    lambda qos, mid, userdata: tell("subscribed", qos=qos),
    lambda mid, userdata: tell("unsubscribed", mid=mid),
)
hub.connect()
whose = (ARGUMENTS.get("product_id"), ARGUMENTS.get("device_name"))


def on_rrpc(topic, qos, payload, userdata):
    tell("rrpc", topic=topic, payload=payload)
    if ARGUMENTS.get("answers", True):
        reply = {"heard": payload}
        hub.rrpcReply(*whose, reply, len(reply))


for command in commands():
    if command["do"] == "time":
        # Milliseconds, by the SDK's own exchange on $sys/operation.
        tell("time", told=hub.getNtpAccurateTime(), here=time.time() * 1000)
    elif command["do"] == "subscribe":
        hub.registerUserCallback(command["topic"], on_message)
        hub.subscribe(command["topic"], command["qos"])
    elif command["do"] == "publish":
        hub.publish(command["topic"], json.loads(command["payload"]), command["qos"])
    elif command["do"] == "rrpc":
        tell("ready", result=hub.rrpcInit(*whose, on_rrpc))
    elif command["do"] == "shadow":
        tell("ready", result=hub.shadowInit(*whose, lambda t, q, payload, u: tell("shadow", payload=payload)))
    elif command["do"] == "get_shadow":
        hub.getShadow(*whose)
    elif command["do"] == "report_shadow":
        entry = type("Property", (), {"key": command["key"], "data": command["value"], "type": "int"})
        document = hub.shadowJsonConstructReport(*whose, entry)
        hub.shadowUpdate(*whose, document, len(document))
    elif command["do"] == "clear_desired":
        document = hub.shadowJsonConstructDesireAllNull(*whose)
        hub.shadowUpdate(*whose, document, len(document))
    elif command["do"] == "ota":
        tell("ready", result=hub.otaInit(*whose, lambda t, q, payload, u: tell("ota", payload=payload)))
    elif command["do"] == "report_version":
        hub.otaReportVersion(*whose, command["version"])
    elif command["do"] == "fetching":
        tell("fetching", fetching=hub.otaIsFetching(*whose))
    elif command["do"] == "upgraded":
        hub.otaReportUpgradeSuccess(*whose, command["version"])
    elif command["do"] == "disconnect":
        hub.disconnect()
