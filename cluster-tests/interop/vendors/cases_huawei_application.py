"""Huawei IoTDA: applications over MQTT: how they sign in, and what they may. Devices on node 1."""

import json
import time

from harness import Context, case, expect, require
from paho_client import V5, V31
from vendors import devices
from vendors.application import Application, Rule, access_code, new_access_code, subscribed, username
from vendors.devices import HUAWEI, Device
from vendors.huawei import firmware

MINUTE_MS = 60_000
CONNECTIONS = 10


@case("huawei-application", "signing in: what is accepted, and what is refused with which code", deadline=30)
def signing_in(ctx):
    key, code = access_code(ctx)
    now = int(time.time() * 1000)
    rows = [
        ({}, 0, "as in the vendor's sample"),
        ({"username": username(key, instance="")}, 0, "no instanceId"),
        ({"username": f"accessKey={key}|other=1|instanceId=|timestamp={now}"}, 0, "another order, and an unknown part"),
        ({"username": username(key, now + 4 * MINUTE_MS)}, 0, "4 minutes ahead"),
        ({"username": username(key, now - 4 * MINUTE_MS)}, 0, "4 minutes behind"),
        ({"username": username(key, now + 6 * MINUTE_MS)}, 4, "6 minutes ahead"),
        ({"username": username(key, now - 6 * MINUTE_MS)}, 4, "6 minutes behind"),
        ({"username": f"accessKey={key}|timestamp={now // 1000}|instanceId="}, 4, "a timestamp of 10 digits"),
        ({"username": f"accessKey={key}|timestamp=0{now}|instanceId="}, 4, "a timestamp of 14 digits"),
        ({"username": f"accessKey={key}|timestamp=+{now}"[:60]}, 4, "a timestamp with a sign"),
        ({"username": f"accessKey={key}|instanceId="}, 4, "no timestamp"),
        ({"username": f"accessKey=|timestamp={now}"}, 4, "an empty key"),
        ({"username": username("unknown1")}, 4, "an unknown key"),
        ({"username": f"accessKey={key}|accessKey={key}|timestamp={now}"}, 4, "a key twice"),
        ({"password": code + "x"}, 4, "a wrong code"),
        ({"password": ""}, 4, "an empty code"),
        ({"keepalive": 10}, 2, "a keep alive of 10 s"),
        ({"keepalive": 1201}, 2, "a keep alive of 1201 s"),
        ({"version": V31}, 1, "MQTT 3.1"),
    ]
    for changed, wanted, what in rows:
        client = Application(ctx, **changed)
        expect(devices.connack(client), wanted, what)
        if wanted == 0:
            client.disconnect()
    newer = Application(ctx, version=V5)
    newer.attempt()
    require(newer.connack[0].is_failure, "MQTT 5 was let in")


@case("huawei-application", "what it may: subscribe to topics of rules, QoS 0, and publish nothing", deadline=30)
def limits(ctx):
    rule = Rule(ctx, "device.property:report")
    app = Application(ctx)
    app.connect()
    rows = [
        (f"it/{ctx.suffix}/nobody", 0, [128]),
        ("#", 0, [128]),
        (f"it/{ctx.suffix}/+", 0, [128]),
        ("$oc/devices/+/sys/properties/report", 0, [128]),
        ("$push/#", 0, [128]),
        (rule.topic, 1, [0]),
        (rule.topic, 2, [0]),
        (f"$share/g/{rule.topic}", 1, [0]),
        (f"$share/g/it/{ctx.suffix}/nobody", 1, [128]),
    ]
    for topic, qos, wanted in rows:
        expect(app.subscribe(topic, qos), wanted, f"SUBACK of {topic} at QoS {qos}")
    app.publish_nowait(rule.topic, b"{}", 0)
    app.wait_closed()


@case("huawei-application", "the same client id again closes the older connection", deadline=20)
def same_id(ctx):
    first = Application(ctx, node=2, client_id=f"same-{ctx.suffix}").connect()
    second = Application(ctx, node=1, client_id=f"same-{ctx.suffix}").connect()
    first.wait_closed()
    second.disconnect()


def share(ctx: Context, topic_of, count: int = 100) -> None:
    """Two applications on two nodes get each of `count` events once, and both get some."""
    device = Device(ctx, HUAWEI)
    rule = Rule(ctx, "device.property:report", where=f"notify_data.header.device_id = '{device.id}'", select="*")
    apps = [Application(ctx, node, role=f"a{node}") for node in (0, 2)]
    for app in apps:
        app.connect()
        expect(app.subscribe(topic_of(rule), 0), [0], "SUBACK")
    meter = firmware(device)
    for value in range(count):
        meter.report({"value": value})

    def values():
        bodies = [json.loads(m.payload)["notify_data"]["body"] for app in apps for m in list(app.messages)]
        return sorted(body["services"][0]["properties"]["value"] for body in bodies)

    ctx.poll(lambda: len(values()) >= count, lambda: f"{count} events, have {len(values())}")
    meter.report({"value": count})
    ctx.poll(lambda: count in values(), lambda: "the last event")
    expect(values(), list(range(count + 1)), "events of both")
    require(all(len(app.messages) >= count // 4 for app in apps), f"shares: {[len(app.messages) for app in apps]}")


@case("huawei-application", "two with $share split 100 events, none lost, none twice", deadline=60)
def shared(ctx):
    share(ctx, lambda rule: f"$share/g/{rule.topic}")


@case("huawei-application", "two of one key take turns without $share too", deadline=60)
def turns(ctx):
    share(ctx, lambda rule: rule.topic)


@case(
    "huawei-application",
    "what happens while nobody is subscribed comes afterwards, in order, before what is new",
    deadline=60,
)
def buffered(ctx):
    device = Device(ctx, HUAWEI)
    rule = Rule(ctx, "device.property:report", where=f"notify_data.header.device_id = '{device.id}'", select="*")
    app = subscribed(ctx, rule)
    meter = firmware(device)
    meter.report({"value": 0})
    app.event_of(device.id)
    app.disconnect()
    for value in range(1, 31):
        meter.report({"value": value})
    # At another node than before.
    again = subscribed(ctx, rule, node=0, role="again")
    meter.report({"value": 31})
    value_of = lambda e: e["notify_data"]["body"]["services"][0]["properties"]["value"]
    values = lambda: [value_of(e) for e in again.events_seen(device.id)]
    ctx.wait(again.changed, lambda: 31 in values(), lambda: f"the last value, have {values()}")
    # What was on its way while the application took its leave is gone with it: pushes have QoS 0.
    got = values()
    require(got[0] <= 20, f"{got}")
    expect(got, list(range(got[0], 32)), "values")


@case(
    "huawei-application",
    "ten connections of a key on all nodes, and a free place again when one goes",
    deadline=60,
    alone=True,
)
def ten(ctx):
    code = new_access_code(ctx)
    device = Device(ctx, HUAWEI)
    rule = Rule(ctx, "device.property:report", where=f"notify_data.header.device_id = '{device.id}'", select="*")
    apps = [Application(ctx, n % 3, role=f"n{n}", code=code) for n in range(CONNECTIONS)]
    for app in apps:
        app.connect()
    for node in range(3):
        expect(devices.connack(Application(ctx, node, role=f"x{node}", code=code)), 5, f"the 11th, at node {node}")
    for number, app in enumerate(apps):
        expect(app.subscribe(f"$share/g{number}/{rule.topic}", 0), [0], "SUBACK")
    firmware(device).report({"value": 1})
    for app in apps:
        app.event_of(device.id)
    apps[0].disconnect()

    def let_in():
        late = Application(ctx, 1, role="late", code=code)
        late.attempt()
        return not late.connack[0].is_failure

    ctx.poll(let_in, lambda: "the place of the one that went")


@case(
    "huawei-application",
    "a new access code: the older is refused, and with force_disconnect cut",
    deadline=40,
    alone=True,
)
def replaced(ctx):
    first = new_access_code(ctx)
    require(len(first[1]) <= 256, f"access_code of {len(first[1])} characters")
    kept = Application(ctx, 2, code=first)
    kept.connect()
    second = new_access_code(ctx)
    for node in range(3):
        expect(devices.connack(Application(ctx, node, role="old", code=first)), 4, f"the older code at node {node}")
    require(kept.disconnected is None, "a connection of the older code was cut")
    live = Application(ctx, 1, role="live", code=second)
    live.connect()
    new_access_code(ctx, force_disconnect=True)
    live.wait_closed()
    # Its own code had been replaced without that before.
    require(kept.disconnected is None, "a connection of the first code was cut")
    subscribed(ctx)
