"""A device with yansongda-aliyun-iot-device: by way of HTTPS pre-authentication, direct, or over WSS."""

from aliyun_iot_device.mqtt import Client
from told import ARGUMENTS, commands, tell

try:
    client = Client(
        (ARGUMENTS["product_key"], ARGUMENTS["device_name"], ARGUMENTS["device_secret"]),
        f"cid-{ARGUMENTS['device_name']}",
        domain_direct=ARGUMENTS["direct"],
        tls=ARGUMENTS.get("tls", True),
        ca_certs=ARGUMENTS["ca"],
        transport=ARGUMENTS.get("transport", "tcp"),
    )
except ValueError as error:
    tell("refused", reason=str(error))
    raise SystemExit(0) from error
# paho keeps here what pre-authentication has given.
username = client._username.decode()
tell("prepared", host=client.mqtt_uri, port=client.mqtt_port, username=username)
if "stale_password" in ARGUMENTS:
    client.username_pw_set(username, ARGUMENTS["stale_password"])
client.on_connect = lambda c, userdata, flags, rc: tell("connect", rc=rc)
client.on_disconnect = lambda c, userdata, rc: tell("disconnect", rc=rc)
client.on_subscribe = lambda c, userdata, mid, granted: tell("subscribed", granted=list(granted))
client.on_publish = lambda c, userdata, mid: tell("published", mid=mid)
client.on_message = lambda c, userdata, m: tell("message", topic=m.topic, payload=m.payload.decode(), qos=m.qos)
client.connect()
client.loop_start()

for command in commands():
    if command["do"] == "publish":
        client.publish(command["payload"], command["qos"], command["topic"])
    elif command["do"] == "subscribe":
        client.subscribe(command["qos"], command["topic"])
    elif command["do"] == "disconnect":
        client.disconnect()
