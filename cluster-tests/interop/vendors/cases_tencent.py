"""Tencent: tencent-iot-device over TCP, WS and with a certificate, and tokens by paho-mqtt."""

import json
import os
import tempfile

from harness import Context, case, expect, require
from paho_client import V31, V311, Client
from vendors import devices
from vendors.devices import SECRETS, TENCENT, Device
from vendors.pki import context_of, device_certificate
from vendors.program import Program, need_vendor_names
from vendors.rest import Rest

# (tls, websocket, certificate) of the SDK.
WAYS = {
    "tencent-iot-device-tcp": (False, False, False),
    "tencent-iot-device-ws": (False, True, False),
    "tencent-iot-device-cert": (True, False, True),
}


def sdk(ctx: Context, device: Device, way=(False, False, False), secret=None, **fields) -> Program:
    need_vendor_names()
    tls, websocket, by_certificate = way
    folder = tempfile.mkdtemp(prefix="interop-tencent-")
    paths = {name: os.path.join(folder, name) for name in ("device.crt", "device.key", "device.json")}
    if by_certificate:
        certificate, key = device_certificate(device)
        for name, pem in (("device.crt", certificate), ("device.key", key)):
            with open(paths[name], "wb") as file:
                file.write(pem)
    with open(paths["device.json"], "w", encoding="utf-8") as file:
        content = {
            "auth_mode": "CERT" if by_certificate else "KEY",
            "productId": device.product,
            "productSecret": SECRETS[TENCENT],
            "deviceName": device.name,
            "region": "china",
            # In certificate mode the SDK makes a token of whatever is here.
            "key_deviceinfo": {"deviceSecret": secret or device.secret or "MDEyMzQ1Njc4OWFiY2RlZg=="},
            "cert_deviceinfo": {
                "devCaFile": ctx.endpoints.ca,
                "devCertFile": paths["device.crt"],
                "devPrivateKeyFile": paths["device.key"],
            },
        }
        json.dump(content, file)
    arguments = {"device_file": paths["device.json"], "tls": tls, "websocket": websocket}
    arguments.update({"product_id": device.product, "device_name": device.name, **fields})
    return Program(ctx, "tencent", "tencent_device.py", arguments)


@case(WAYS, "connects, asks for the time, publishes and subscribes", deadline=40)
def whole(ctx, way):
    need_vendor_names()
    certificate = {"auth_info": {"auth_type": "CERTIFICATES"}} if way[2] else {}
    device = Device(ctx, TENCENT, **certificate)
    program = sdk(ctx, device, way)
    expect(program.wait("connect")["rc"], 0, "on_connect")
    device.wait_status("ONLINE")
    told = program.ask("time", "time")
    require(abs(told["told"] - told["here"]) < 1000, f"getNtpAccurateTime() is off: {told}")
    topic = device.topic("data")
    program.ask("subscribe", "subscribed", topic=topic, qos=1)
    program.tell("publish", topic=topic, payload=json.dumps({"there": "and back"}), qos=1)
    got = program.wait("message")
    expect((got["topic"], got["payload"], got["qos"]), (topic, {"there": "and back"}, 1), "message")
    program.tell("disconnect")
    device.wait_status("OFFLINE")


@case("tencent-iot-device-tcp", "registers itself, and connects with the key it gets", deadline=40)
def registers(ctx):
    need_vendor_names()
    device = Device(ctx, TENCENT)
    # By this word the SDK knows that it has no key yet.
    program = sdk(ctx, device, secret="YOUR_DEVICE_SECRET", register=True)
    told = program.wait("registered")
    expect(told["code"], 0, f"dynregDevice: {told}")
    expect(program.wait("connect")["rc"], 0, "on_connect")
    device.wait_status("ONLINE")


def attempt(ctx: Context, device: Device, version=V311, door: str = "mqtt", **changed) -> int:
    names = ("method", "expiry", "connid")
    made = {name: changed.pop(name) for name in names if name in changed}
    product, name, secret = (changed.pop(k, v) for k, v in
                             (("product", device.product), ("name", device.name), ("secret", device.secret)))
    fields = dict(zip(("client_id", "username", "password"), devices.tencent(product, name, secret, **made)))
    return devices.connack(Client(ctx, version, door=door, **{**fields, **changed}))


@case("tencent-paho", "tokens: what is accepted", deadline=20)
def accepted(ctx):
    device = Device(ctx, TENCENT)
    rows = [
        ({"method": "hmacsha1"}, "hmacsha1"),
        ({"method": "hmacsha256"}, "hmacsha256"),
        ({"expiry": 92233720368547758}, "the C SDK's expiry"),
        ({"expiry": 99999999999999999999999999}, "an expiry beyond 64 bits"),
        ({"version": V31, "method": "hmacsha1"}, "MQTT 3.1"),
        ({"version": V31, "door": "ws"}, "MQTT 3.1 over WebSocket"),
        ({"keepalive": 900}, "a keep alive of 900 s"),
        ({"keepalive": 0}, "no keep alive"),
    ]
    for changed, what in rows:
        expect(attempt(ctx, device, **changed), 0, what)


@case("tencent-paho", "tokens: what is refused, and with which code", deadline=20)
def refused(ctx):
    device, other = Device(ctx, TENCENT), Device(ctx, TENCENT, "other")
    _, username, password = device.connect_fields()
    rows = [
        ({"expiry": 1600000000}, 4, "an expired token"),
        ({"secret": "ZmVkY2JhOTg3NjU0MzIxMA=="}, 4, "a wrong key"),
        ({"username": username.replace(";abcde;", ";edcba;"), "password": password}, 4, "another connid than was signed"),
        ({"client_id": f"{TENCENT}{other.name}"}, 4, "another ClientId than in UserName"),
        ({"password": password.split(";")[0]}, 4, "a password without its method"),
        ({"name": "nobody"}, 5, "an unknown device"),
        ({"product": "ZZZZZ99999"}, 5, "an unknown product"),
        ({"keepalive": 901}, 2, "a keep alive of 901 s"),
    ]
    for changed, code, what in rows:
        expect(attempt(ctx, device, **changed), code, what)
    device.rest.call("POST", f"/devices/{device.id}/freeze")
    expect(attempt(ctx, device), 5, "a frozen device")


@case("tencent-paho", "topics: what each may be used for, and whose they are", deadline=20)
def topics(ctx):
    device, other = Device(ctx, TENCENT), Device(ctx, TENCENT, "other")
    client, listener = device.client().connect(), other.client(node=1).connect()
    rows = [
        (device.topic("control"), [1]),
        (device.topic("data"), [1]),
        (device.topic("custom"), [1]),
        (f"$sys/operation/result/{TENCENT}/{device.name}", [1]),
        (f"$rrpc/rxd/{TENCENT}/{device.name}/+", [1]),
        (device.topic("event"), [128]),
        (device.topic("unknown"), [128]),
        (other.topic("data"), [128]),
        (f"{TENCENT}/+/data", [128]),
        (f"$sys/operation/result/{TENCENT}/{other.name}", [128]),
        ("#", [128]),
    ]
    for wanted, codes in rows:
        expect(client.subscribe(wanted, 1), codes, f"SUBACK of {wanted}")
    listener.subscribe([(other.topic("data"), 1), (other.topic("control"), 1)])
    client.publish(device.topic("control"), b"not for devices", qos=1)
    client.publish(other.topic("data"), b"not mine", qos=1)
    client.publish(device.topic("data"), b"mine", qos=1)
    expect(client.take_one().payload, b"mine", "the first message that comes")
    listener.publish(other.topic("data"), b"mine too", qos=1)
    expect(listener.take_one().payload, b"mine too", "the first message that comes to the other")


@case("tencent-paho", "a message of 17 KB is dropped without PUBACK, and the next one passes", deadline=20)
def oversize(ctx):
    device = Device(ctx, TENCENT)
    client = device.client().connect()
    client.subscribe(device.topic("data"), 1)
    client.publish_nowait(device.topic("data"), b"x" * (17 * 1024), qos=0)
    client.publish(device.topic("data"), b"next", qos=1)
    expect(client.take_one().payload, b"next", "the first message that comes")


@case("tencent-paho", "without a keep alive it survives a minute of silence", deadline=90)
def silent(ctx):
    device = Device(ctx, TENCENT)
    client = device.client(keepalive=0).connect()
    client.subscribe(device.topic("data"), 1)
    ctx.let_time_pass(60)
    client.publish(device.topic("data"), b"still here", qos=1)
    expect(client.take_one().payload, b"still here", "message")


@case("tencent-paho", "a certificate is proof enough, and only the device's own is", deadline=20)
def certificates(ctx):
    certificate = {"auth_info": {"auth_type": "CERTIFICATES"}}
    device, other = Device(ctx, TENCENT, **certificate), Device(ctx, TENCENT, "other", **certificate)
    client_id, username = f"{TENCENT}{device.name}", f"{TENCENT}{device.name};12010126;abcde;4102444800"
    for door in ("mqtts", "wss"):
        for owner, code in ((device, 0), (other, 5)):
            tls = context_of(ctx, device_certificate(owner))
            client = Client(ctx, V311, door=door, client_id=client_id, username=username, password=None, tls=tls)
            expect(devices.connack(client), code, f"{door} with the certificate of {owner.name}")
            if code == 0:
                client.disconnect()
