"""Huawei IoTDA: devices by paho-mqtt, as their firmware behaves: nothing of the system's is subscribed to."""

import json
import time

from harness import Context, case, expect, require
from paho_client import V5, V31, V311, Client
from vendors import devices
from vendors.devices import HUAWEI, Device
from vendors.pki import certificate_for, context_of, der

HOUR = 3600


def fields(values) -> dict:
    return dict(zip(("client_id", "username", "password"), values))


def time_sync(device: Device, client: Client, sent) -> dict:
    """Asks for the time, and waits for the answer."""
    service = {"service_id": "$time_sync", "event_type": "time_sync_request", "paras": {"device_send_time": sent}}
    body = {"object_device_id": device.id, "services": [{**service, "event_time": "20261121T120000Z"}]}
    client.publish(device.topic("sys/events/up"), json.dumps(body), qos=1)
    message = client.take_one()
    expect((message.topic, message.qos), (device.topic("sys/events/down"), 0), "topic and QoS of the answer")
    answer = json.loads(message.payload)["services"][0]
    expect((answer["service_id"], answer["event_type"]), ("$time_sync", "time_sync_response"), "the answer")
    return answer["paras"]


@case("huawei-device", "secrets: signatures that are accepted", deadline=20)
def accepted(ctx):
    device = Device(ctx, HUAWEI)
    now = time.time()
    rows = [
        (0, now - 400 * 24 * HOUR, "sign 0 of another year"),
        (1, now, "sign 1 of this hour"),
        (1, now - HOUR, "sign 1 of the hour before"),
        (1, now + HOUR, "sign 1 of the next hour"),
    ]
    for sign, at, what in rows:
        client = Client(ctx, V311, **fields(devices.huawei(device.id, device.secret, sign, at)))
        expect(devices.connack(client), 0, what)
        client.disconnect()
    for version in (V31, V5):
        client = device.client(version)
        expect(devices.connack(client), 0, f"protocol {version}")
        client.disconnect()


@case("huawei-device", "secrets: what is refused, and with which code", deadline=20)
def refused(ctx):
    device = Device(ctx, HUAWEI)
    client_id, username, password = device.connect_fields()
    stale = fields(devices.huawei(device.id, device.secret, 1, time.time() - 3 * HOUR))
    rows = [
        (stale, 4, "sign 1 of three hours ago"),
        ({"password": "0" * 64}, 4, "a wrong secret"),
        ({"client_id": device.id}, 2, "a client id that is only the device's id"),
        ({"client_id": client_id.replace("_0_0_", "_0_7_")}, 2, "an unknown kind of signature"),
        ({"username": f"{HUAWEI}_nobody"}, 4, "another user name than in the client id"),
        ({"keepalive": 10}, 2, "a keep alive of 10 s"),
        ({"keepalive": 29}, 2, "a keep alive of 29 s"),
        ({"keepalive": 1201}, 2, "a keep alive of 1201 s"),
        ({"keepalive": 0}, 2, "no keep alive"),
        ({"keepalive": 30}, 0, "a keep alive of 30 s"),
        ({"keepalive": 1200}, 0, "a keep alive of 1200 s"),
    ]
    for changed, code, what in rows:
        expect(devices.connack(device.client(**changed)), code, what)
    nobody = fields(devices.huawei(f"{HUAWEI}_nobody", device.secret))
    expect(devices.connack(Client(ctx, V311, **nobody)), 4, "an unknown device")
    expect(devices.connack(device.client(V5, password="0" * 64)), 0x86, "MQTT 5: a wrong secret")
    expect(devices.connack(device.client(V5, keepalive=10)), 0x85, "MQTT 5: a keep alive of 10 s")


@case("huawei-device", "a frozen device is cut, and refused until it is thawed", deadline=20)
def frozen(ctx):
    device = Device(ctx, HUAWEI)
    client = device.client(node=1).connect()
    device.rest.call("POST", f"/devices/{device.id}/freeze")
    client.wait_closed()
    expect(device.status(), "FROZEN", "status")
    expect(devices.connack(device.client(node=2)), 5, "while it is frozen")
    expect(devices.connack(device.client(V5)), 0x87, "MQTT 5: while it is frozen")
    device.rest.call("POST", f"/devices/{device.id}/unfreeze")
    expect(devices.connack(device.client()), 0, "after that")


@case("huawei-device", "the time comes without a SUBSCRIBE, once, and with one still once", deadline=20)
def implicit(ctx):
    device = Device(ctx, HUAWEI)
    client = device.client(node=1).connect()
    for sent in (str(int(time.time() * 1000)), int(time.time() * 1000)):
        paras = time_sync(device, client, sent)
        expect(str(paras["device_send_time"]), str(sent), "device_send_time")
        for name in ("server_recv_time", "server_send_time"):
            require(abs(int(paras[name]) - time.time() * 1000) < 2000, f"{name}: {paras}")
    # Filters that also match what the device itself sends: nothing comes back, and no second copy.
    client.subscribe([(device.topic("sys/#"), 0), (device.topic("sys/events/down"), 0)])
    client.publish(device.topic("sys/properties/report"), b'{"services":[]}', qos=1)
    time_sync(device, client, "1")
    time_sync(device, client, "2")
    expect(client.messages, [], "further messages")


@case("huawei-device", "INACTIVE, ONLINE, OFFLINE, as every node sees it", deadline=20)
def life(ctx):
    device = Device(ctx, HUAWEI)
    expect(device.status(), "INACTIVE", "status before the first connection")
    client = device.client(node=1).connect()
    for node in range(3):
        device.rest.node = node
        device.wait_status("ONLINE")
    client.disconnect()
    for node in range(3):
        device.rest.node = node
        device.wait_status("OFFLINE")


@case("huawei-device", "a second connection on another node closes the first within 1 s", deadline=20)
def taken_over(ctx):
    device = Device(ctx, HUAWEI)
    first = device.client(node=0).connect()
    second = device.client(node=1).connect()
    began = time.monotonic()
    first.wait_closed()
    require(time.monotonic() - began < 1, "the first connection was still open after 1 s")
    expect(device.status(), "ONLINE", "status")
    time_sync(device, second, "1")


@case("huawei-device", "what another device may, it may not", deadline=20)
def isolated(ctx):
    own, other = Device(ctx, HUAWEI, "own"), Device(ctx, HUAWEI, "other")
    listener, client = other.client(node=1).connect(), own.client().connect()
    theirs = other.topic("user/topic")
    listener.subscribe(theirs, 1)
    for wanted in [theirs, "$oc/devices/+/sys/#", other.topic("sys/commands/#"), "$oc/#"]:
        expect(client.subscribe(wanted, 1), [128], f"SUBACK of {wanted}")
    client.publish(theirs, b"not mine", qos=1)
    client.publish(other.topic("sys/events/down"), b"{}", qos=1)
    time_sync(other, listener, "1")


@case("huawei-device", "QoS 2 ends the connection", deadline=20)
def exactly_once(ctx):
    device = Device(ctx, HUAWEI)
    client = device.client().connect()
    client.publish_nowait(device.topic("sys/messages/up"), b"{}", qos=2)
    client.wait_closed()


@case("huawei-device", "X.509: a certificate instead of a password", deadline=30)
def by_certificate(ctx):
    probe = Device(ctx, HUAWEI, "probe")
    pair, stranger = (certificate_for(probe.rest, f"{role}-{ctx.suffix}") for role in ("own", "stranger"))
    device = Device(ctx, HUAWEI, auth_info={"auth_type": "CERTIFICATES", "fingerprint": devices.fingerprint(der(pair[0]))})
    client_id, username, _ = devices.huawei(device.id, "unused")
    for certificate, code, what in ((stranger, 5, "another's certificate"), (pair, 0, "its own")):
        tls = context_of(ctx, certificate)
        client = Client(ctx, V311, door="mqtts", client_id=client_id, username=username, tls=tls)
        expect(devices.connack(client), code, what)
    time_sync(device, client, "1")
    bare = Client(ctx, V311, door="mqtts", client_id=client_id, username=username)
    expect(devices.connack(bare), 5, "no certificate")


@case("huawei-device", "X.509: the first certificate is the device's from then on", deadline=30)
def pinned(ctx):
    device = Device(ctx, HUAWEI, auth_info={"auth_type": "CERTIFICATES"})
    first, second = (certificate_for(device.rest, f"{role}-{ctx.suffix}") for role in ("first", "second"))
    client_id, username, _ = devices.huawei(device.id, "unused")
    for node, certificate, code in ((0, first, 0), (1, second, 5), (2, first, 0)):
        tls = context_of(ctx, certificate)
        client = Client(ctx, V311, door="mqtts", node=node, client_id=client_id, username=username, tls=tls)
        expect(devices.connack(client), code, f"connection {node}")
        if code == 0:
            client.disconnect()
