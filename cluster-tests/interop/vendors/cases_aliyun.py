"""Aliyun: aliyun-iot-linkkit, both SDKs for Node.js, yansongda-aliyun-iot-device, and what firmware may not do."""

import json
import os
import time
import urllib.parse
import urllib.request

from harness import Context, case, expect, require
from paho_client import V311, Client
from vendors import devices
from vendors.devices import ALIYUN, ALIYUN_KNOWN, ALIYUN_OPEN, SECRETS, Device
from vendors.program import HERE, Program, need_vendor_names
from vendors.rest import Answer, Rest, request

TSL = os.path.join(HERE, "programs", "model.tsl.json")
# (door, `secure`, protocol) of linkkit.
WAYS = {
    "linkkit-tcp": ("mqtt", "", "MQTTv311"),
    "linkkit-tls": ("mqtts", "TLS", "MQTTv311"),
    "linkkit-3.1": ("mqtt", "", "MQTTv31"),
}
NODE_SDKS = {"alibabacloud-iot-device-sdk": "alibabacloud-iot-device-sdk", "aliyun-iot-device-sdk": "aliyun-iot-device-sdk"}


def linkkit(ctx: Context, way, node: int = 0, **fields) -> Program:
    name, secure, protocol = way
    door = ctx.endpoints.door(name, node)
    arguments = {
        "host": door.host, "port": door.port, "secure": secure, "protocol": protocol,
        "ca": ctx.endpoints.ca, "tsl": TSL, **fields,
    }
    return Program(ctx, "aliyun", "linkkit_device.py", arguments)


def triple(device: Device) -> dict:
    return {"product_key": device.product, "device_name": device.name, "device_secret": device.secret}


@case(WAYS, "connects, and its replies come without a SUBSCRIBE", deadline=30)
def replies(ctx, way):
    device = Device(ctx, ALIYUN)
    program = linkkit(ctx, way, node=1, **triple(device))
    expect(program.wait("connect")["rc"], 0, "on_connect")
    program.wait("enabled")
    device.wait_status("ONLINE")
    code, posted = program.ask("post_property", "posted", properties={"temperature": 21.5})["result"]
    expect(code, 0, "thing_post_property")
    reply = program.wait("property_reply")
    expect((reply["id"], reply["code"]), (posted, 200), "on_thing_prop_post")
    code, posted = program.ask("trigger_event", "posted", name="alarm", params={"level": 2})["result"]
    expect(code, 0, "thing_trigger_event")
    reply = program.wait("event_reply")
    expect((reply["name"], reply["id"], reply["code"]), ("alarm", posted, 200), "on_thing_event_post")
    program.tell("disconnect")
    device.wait_status("OFFLINE")


@case(WAYS, "a topic of both kinds comes back to the publisher", deadline=30)
def both_kinds(ctx, way):
    device = Device(ctx, ALIYUN)
    program = linkkit(ctx, way, **triple(device))
    program.wait("connect")
    topic = device.topic("user/both")
    program.ask("subscribe", "subscribed", topic=topic, qos=1)
    program.tell("publish", topic=topic, payload="there and back", qos=1)
    got = program.wait("message")
    require("there and back" in got["payload"] and got["topic"] == topic, f"message: {got}")


@case(WAYS, "never connects with a wrong secret, and tries again", deadline=30)
def wrong_secret(ctx, way):
    device = Device(ctx, ALIYUN)
    refused = refusals(ctx)
    program = linkkit(ctx, way, **{**triple(device), "device_secret": "f" * 32})
    ctx.poll(lambda: refusals(ctx) >= refused + 2, lambda: "two refusals")
    expect(program.seen("connect"), [], "on_connect")
    require(program.ask("state", "state")["state"] != "CONNECTED", "CONNECTED with a wrong secret")
    expect(device.status(), "INACTIVE", "status")


def refusals(ctx: Context) -> int:
    """CONNECTs that node 0 has refused for what they presented."""
    door = ctx.endpoints.door("probes")
    with urllib.request.urlopen(f"http://{door.host}:{door.port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(int(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("fulmar_connects_refused_total{"))


@case("linkkit-tls", "register: a known device gets its secret and connects with it", deadline=40)
def register(ctx):
    device = Device(ctx, ALIYUN_KNOWN)
    fields = {"product_key": ALIYUN_KNOWN, "device_name": device.name}
    program = linkkit(ctx, WAYS["linkkit-tls"], auth_type="register", product_secret=SECRETS[ALIYUN_KNOWN], **fields)
    told = program.wait("registered")
    expect(told["rc"], 0, "on_device_dynamic_register")
    again = linkkit(ctx, WAYS["linkkit-tls"], node=1, device_secret=told["secret"], **fields)
    expect(again.wait("connect")["rc"], 0, "on_connect")
    device.wait_status("ONLINE")


@case("linkkit-tls", "register: a wrong product secret is refused once", deadline=40)
def register_refused(ctx):
    device = Device(ctx, ALIYUN_KNOWN)
    fields = {"product_key": ALIYUN_KNOWN, "device_name": device.name}
    program = linkkit(ctx, WAYS["linkkit-tls"], auth_type="register", product_secret="wrongwrongwrong1", **fields)
    expect(program.wait("registered")["rc"], -0x301, "on_device_dynamic_register")


@case("linkkit-tls", "regnwl: a device that nobody has added gets a token and connects with it", deadline=40)
def regnwl(ctx):
    devices.ensure_products(Rest(ctx))
    name = f"new-{ctx.suffix}"
    fields = {"product_key": ALIYUN_OPEN, "device_name": name}
    program = linkkit(ctx, WAYS["linkkit-tls"], auth_type="regnwl", product_secret=SECRETS[ALIYUN_OPEN], **fields)
    told = program.wait("registered")
    expect(told["rc"], 0, "on_device_dynamic_register_nwl_reply")
    own = {name: told[name] for name in ("client_id", "username", "password")}
    again = linkkit(ctx, WAYS["linkkit-tls"], node=1, **fields, **own)
    expect(again.wait("connect")["rc"], 0, "on_connect")
    again.wait("enabled")
    again.ask("post_property", "posted", properties={"temperature": 1})
    expect(again.wait("property_reply")["code"], 200, "on_thing_prop_post")


def node_device(ctx: Context, package: str, device: Device, node: int = 0, **config) -> Program:
    door = ctx.endpoints.door("mqtt", node)
    own = {"productKey": device.product, "deviceName": device.name, "deviceSecret": device.secret}
    url = {"brokerUrl": f"mqtt://{door.host}:{door.port}/"}
    return Program(ctx, "node", "aliyun_device.mjs", {"package": package, "config": {**own, **url, **config}})


@case(NODE_SDKS, "posts properties and events, and gets its own ids back", deadline=30)
def node_callbacks(ctx, package):
    device = Device(ctx, ALIYUN)
    program = node_device(ctx, package, device, node=1)
    program.wait("connect")
    device.wait_status("ONLINE")
    # It subscribes by itself; an event's reply needs that.
    wanted = 16 if package.startswith("alibaba") else 11
    last = program.wait("suback", lambda e: e["number"] == wanted)
    require(all(s["granted"] != [128] for s in [last, *program.seen("suback")]), f"refused: {program.seen('suback')}")
    program.tell("post_properties", properties={"temperature": 20})
    expect(program.wait("property_reply")["answer"]["code"], 200, "postProps")
    program.tell("post_event", name="alarm", params={"level": 1})
    expect(program.wait("event_reply")["answer"]["code"], 200, "postEvent")


@case("alibabacloud-iot-device-sdk", "what was sent while it was away reaches the restarted process", deadline=40)
def node_restart(ctx):
    device, other = Device(ctx, ALIYUN), Client(ctx, V311, "app").connect()
    topic = device.topic("user/down")
    first = node_device(ctx, "alibabacloud-iot-device-sdk", device, clean=False)
    first.wait("connect")
    first.ask("subscribe", "subscribed", topic=topic, qos=1)
    first.kill()
    device.wait_status("OFFLINE")
    other.publish(topic, json.dumps({"while": "away"}), qos=1)
    # Another clientId, since it carries the time, and another node.
    second = node_device(ctx, "alibabacloud-iot-device-sdk", device, node=2, clean=False)
    got = second.wait("message", lambda e: e["topic"] == topic)
    expect(json.loads(got["payload"]), {"while": "away"}, "message")


@case("alibabacloud-iot-device-sdk", "registers over HTTPS and connects with the secret it gets", deadline=40)
def node_register(ctx):
    device = Device(ctx, ALIYUN_KNOWN)
    door = ctx.endpoints.door("https")
    own = {"productKey": ALIYUN_KNOWN, "deviceName": device.name, "productSecret": SECRETS[ALIYUN_KNOWN]}
    url = {"registerURL": f"https://{door.host}:{door.port}/auth/register/device"}
    arguments = {"package": "alibabacloud-iot-device-sdk", "register": {**own, **url}}
    program = Program(ctx, "node", "aliyun_device.mjs", arguments, env={"NODE_EXTRA_CA_CERTS": ctx.endpoints.ca})
    answer = program.wait("registered")["answer"]
    expect(answer.get("code"), 200, f"register: {answer}")
    device.secret = answer["data"]["deviceSecret"]
    node_device(ctx, "alibabacloud-iot-device-sdk", device, node=1).wait("connect")


def yansongda(ctx: Context, device: Device, **fields) -> Program:
    need_vendor_names()
    arguments = {"direct": False, "ca": ctx.endpoints.ca, **triple(device), **fields}
    return Program(ctx, "aliyun", "yansongda_device.py", arguments, env={"REQUESTS_CA_BUNDLE": ctx.endpoints.ca})


# The names lead elsewhere: iot-auth to node 0, public.iot-as-mqtt to node 1. See session.py.
ELSEWHERE = {"host": "public.iot-as-mqtt.cn-shanghai.aliyuncs.com", "port": 8883}


@case("yansongda", "pre-authentication on one node, MQTT on another", deadline=30)
def pre_authenticated(ctx):
    need_vendor_names()
    device = Device(ctx, ALIYUN, endpoint=ELSEWHERE)
    program = yansongda(ctx, device)
    prepared = program.wait("prepared")
    expect((prepared["host"], prepared["port"]), (ELSEWHERE["host"], ELSEWHERE["port"]), "where it is sent")
    require("&" not in prepared["username"], "an iotId is no deviceName&productKey")
    expect(program.wait("connect")["rc"], 0, "on_connect")
    device.wait_status("ONLINE")
    topic = device.topic("user/both")
    program.ask("subscribe", "subscribed", topic=topic, qos=1)
    program.tell("publish", topic=topic, payload="by token", qos=1)
    expect(program.wait("message")["payload"], "by token", "message")


@case("yansongda", "pre-authentication answers 400 to whatever is wrong", deadline=30)
def pre_authentication_refused(ctx):
    need_vendor_names()
    device = Device(ctx, ALIYUN)
    for wrong in [{"device_secret": "f" * 32}, {"device_name": "nobody"}, {"product_key": "a1Nothing00"}]:
        program = yansongda(ctx, device, **wrong)
        require("'code': 400" in program.wait("refused")["reason"], f"{wrong}: {program.story()}")


@case("yansongda", "a token that was not given is refused", deadline=30)
def stale_token(ctx):
    need_vendor_names()
    device = Device(ctx, ALIYUN, endpoint=ELSEWHERE)
    program = yansongda(ctx, device, stale_password="0d32064af7f04c9ea4e1d6b2c5b7a8f9")
    expect(program.wait("connect")["rc"], 4, "on_connect")


@case({"yansongda-direct": {"direct": True, "tls": False}, "yansongda-direct-tls": {"direct": True},
       "yansongda-wss": {"transport": "websockets"}}, "connects to the vendor's own host names and ports", deadline=30)
def vendor_ports(ctx, fields):
    need_vendor_names()
    device = Device(ctx, ALIYUN)
    program = yansongda(ctx, device, **fields)
    expect(program.wait("connect")["rc"], 0, "on_connect")
    topic = device.topic("user/both")
    program.ask("subscribe", "subscribed", topic=topic, qos=1)
    program.tell("publish", topic=topic, payload="here", qos=1)
    expect(program.wait("message")["payload"], "here", "message")


def pre_authenticate(ctx: Context, device: Device, door: str = "https", node: int = 0, **changed) -> Answer:
    """As C firmware does it: HMAC-SHA1 over every field but those that say how."""
    fields = {
        "productKey": device.product, "deviceName": device.name, "clientId": f"cid-{device.name}",
        "timestamp": str(int(time.time())), **changed,
    }
    content = "".join(name + fields[name] for name in sorted(fields))
    sign = devices.digest("sha1", device.secret.encode(), content)
    form = {**fields, "signmethod": "hmacsha1", "sign": sign, "resources": "mqtt", "version": "default"}
    headers = {"Content-Type": "application/x-www-form-urlencoded;charset=utf-8"}
    body = urllib.parse.urlencode(form).encode()
    return request(ctx.endpoints, "POST", "/auth/devicename", body, headers, door=door, node=node)


@case("aliyun-http", "a token of one node is good on the others, until the secret changes", deadline=30)
def token_anywhere(ctx):
    device = Device(ctx, ALIYUN)
    answer = pre_authenticate(ctx, device)
    # Parsers in firmware read this by hand.
    require(answer.text.startswith('{"code":200,') and len(answer.text) < 300, f"answer: {answer.text}")
    given = answer.json["data"]
    require(len(given["iotId"]) <= 64 and len(given["iotToken"]) <= 64, f"answer: {answer.text}")
    names = {"username": given["iotId"], "password": given["iotToken"]}
    for node, client_id in ((1, f"cid-{device.name}"), (2, f"cid-{device.name}|securemode=-1,signmethod=hmacsha1,gw=0|")):
        client = Client(ctx, V311, door="mqtts", node=node, client_id=client_id, **names, tls=devices.unnamed(ctx))
        expect(devices.connack(client), 0, f"at node {node}")
        client.disconnect()
    other = Device(ctx, ALIYUN, "other")
    theirs = pre_authenticate(ctx, other).json["data"]["iotToken"]
    rows = [("another device's token", theirs), ("a flipped token", given["iotToken"][:-1] + "g")]
    for what, password in rows:
        client = Client(ctx, V311, door="mqtts", client_id="c", username=given["iotId"], password=password, tls=devices.unnamed(ctx))
        expect(devices.connack(client), 4, what)
    device.rest.call("POST", f"/devices/{device.id}/action?action_id=resetSecret", {"secret": "f" * 32})
    client = Client(ctx, V311, door="mqtts", client_id="c", **names, tls=devices.unnamed(ctx))
    expect(devices.connack(client), 4, "a token of the secret before")


@case("aliyun-http", "pre-authentication: what is refused, and how", deadline=30)
def pre_authentication_codes(ctx):
    device = Device(ctx, ALIYUN)
    for changed in [{"productKey": "a1Nothing00"}, {"deviceName": "nobody"}]:
        expect(pre_authenticate(ctx, device, **changed).json["code"], 400, f"{changed}")
    device.secret = "f" * 32
    expect(pre_authenticate(ctx, device).json["code"], 400, "a wrong secret")
    plain = pre_authenticate(ctx, Device(ctx, ALIYUN, "plain"), door="rest")
    require(plain.status >= 400 or plain.json.get("code") != 200, f"without TLS: {plain.status} {plain.text}")


# What firmware that no SDK was written for may send, and may not do.


@case("aliyun-paho", "every way to sign", deadline=20)
def signing(ctx):
    device = Device(ctx, ALIYUN)
    for method in ("hmacmd5", "hmacsha1", "hmacsha256"):
        fields = devices.aliyun(ALIYUN, device.name, device.secret, method=method)
        client = Client(ctx, V311, client_id=fields[0], username=fields[1], password=fields[2].upper())
        expect(devices.connack(client), 0, method)
        client.disconnect()


@case("aliyun-paho", "refusals and their codes", deadline=20)
def refused(ctx):
    device = Device(ctx, ALIYUN)
    client_id, username, password = device.connect_fields()
    rows = [
        ({"password": "0" * 64}, 4, "a wrong password"),
        ({"username": f"nobody&{ALIYUN}"}, 4, "an unknown device"),
        ({"username": f"{device.name}&a1Nothing00"}, 4, "an unknown product"),
        ({"client_id": client_id.replace("cid-", "other-")}, 4, "another clientId than was signed"),
        ({"keepalive": 29}, 2, "a keep alive of 29 s"),
        ({"keepalive": 0}, 2, "no keep alive"),
        ({"keepalive": 1300}, 0, "a keep alive of 1300 s, which is held to 1200"),
    ]
    for changed, code, what in rows:
        expect(devices.connack(device.client(**changed)), code, what)
    device.rest.call("POST", f"/devices/{device.id}/freeze")
    expect(devices.connack(device.client()), 5, "a frozen device")


@case("aliyun-paho", "a message beyond 256 KB is dropped, and the next one passes", deadline=20)
def oversize(ctx):
    device = Device(ctx, ALIYUN)
    client = device.client().connect()
    topic = device.topic("user/both")
    client.subscribe(topic, 1)
    client.publish(topic, b"x" * (256 * 1024 + 1), qos=1)
    client.publish(topic, b"next", qos=1)
    expect(client.take_one().payload, b"next", "the first message that comes")


@case("aliyun-paho", "the topics of another device are out of reach", deadline=20)
def isolated(ctx):
    own, other = Device(ctx, ALIYUN, "own"), Device(ctx, ALIYUN, "other")
    listener, client = other.client().connect(), own.client().connect()
    theirs = other.topic("user/both")
    listener.subscribe(theirs, 1)
    for wanted in [theirs, f"/{ALIYUN}/+/user/both", "/sys/#", "#", f"/sys/{ALIYUN}/{other.name}/thing/#"]:
        expect(client.subscribe(wanted, 1), [128], f"SUBACK of {wanted}")
    client.publish(theirs, b"not mine", qos=1)
    listener.publish(theirs, b"mine", qos=1)
    expect(listener.take_one().payload, b"mine", "the first message that comes")


@case("aliyun-paho", "another device with the same client id closes the first", deadline=20)
def one_client_id(ctx):
    first, second = Device(ctx, ALIYUN, "one"), Device(ctx, ALIYUN, "two")
    clients = []
    for node, device in enumerate((first, second)):
        fields = devices.aliyun(ALIYUN, device.name, device.secret, cid=f"same-{ctx.suffix}")
        names = dict(zip(("client_id", "username", "password"), fields))
        clients.append(Client(ctx, V311, node=node, **names).connect())
    clients[0].wait_closed()
    first.wait_status("OFFLINE")
    expect(second.status(), "ONLINE", "status of the second")


@case("aliyun-paho", "a second connection on another node closes the first within 1 s", deadline=20)
def taken_over(ctx):
    device = Device(ctx, ALIYUN)
    for round_number in range(3):
        first = device.client(node=round_number % 3).connect()
        second = device.client(node=(round_number + 1) % 3, role="b").connect()
        began = time.monotonic()
        first.wait_closed()
        require(time.monotonic() - began < 1, "the first connection was still open after 1 s")
        expect(device.status(), "ONLINE", "status")
        second.disconnect()
        second.close()
