"""Sensoro: what devices report reaches the application that they are bound to, over MQTT and at its callback URL. The
device on node 1, the application on node 0, REST on node 2."""

import base64
import hashlib
import hmac
import json

from harness import case, expect, require
from vendors.cases_huawei_rules import Hook
from vendors.cases_sensoro import KEY, PACKAGES, SECRET, App
from vendors.devices import ALIYUN, HUAWEI, Device
from vendors.huawei import firmware


def bound(ctx, app: App, product: str = HUAWEI, role: str = "d") -> Device:
    return Device(ctx, product, role, sensoro_app_id=app.id)


@case(PACKAGES, "a report of a bound device comes as a record", deadline=30)
def report(ctx, package):
    app, other = App(ctx, qos=1).make(), App(ctx, "x").make()
    device, free = bound(ctx, app), Device(ctx, HUAWEI, "free")
    listener, stranger = app.listener(package), other.listener(package)
    for each in (listener, stranger):
        each.wait("subscribed")
    unbound, meter = firmware(free, node=2), firmware(device)
    unbound.report({"value": 1})
    meter.report({"value": 23.5})
    got = listener.wait("message")
    record = json.loads(got["payload"])
    expect((got["topic"], got["qos"]), (app.topic, 1), "topic and QoS")
    expect((record["appId"], record["sn"], record["data"]), (app.id, device.name, {"value": 23.5}), f"record {record}")
    require(isinstance(record["createdTime"], int) and record["msgId"], f"{record}")
    meter.report({"value": 24})
    second = json.loads(listener.wait("message")["payload"])
    expect(second["data"], {"value": 24}, "the next record")
    require(second["msgId"] != record["msgId"], "two records with one msgId")
    expect(stranger.seen("message"), [], "what another application got")


@case(PACKAGES, "in safe mode the data of a report is encrypted, and wechat-crypto reads it", deadline=30)
def safe_mode(ctx, package):
    app = App(ctx, safe_mode=True).make()
    device = bound(ctx, app)
    listener = app.listener(package, app_key=KEY)
    listener.wait("subscribed")
    firmware(device).report({"value": 7})
    got = listener.wait("message")
    require("data" not in json.loads(got["payload"]), f"payload: {got['payload']}")
    expect(
        (got["decrypted"]["id"], json.loads(got["decrypted"]["message"])),
        (app.id, {"value": 7}),
        "what is in the cipher",
    )


@case("sensoro-push", "a report of an Aliyun device too, and none once it is unbound", deadline=30)
def aliyun(ctx):
    app = App(ctx).make()
    device, last = bound(ctx, app, ALIYUN), bound(ctx, app, HUAWEI, "last")
    listener = app.listener("mqtt-5")
    listener.wait("subscribed")
    client = device.client(node=1).connect()
    post = f"/sys/{ALIYUN}/{device.name}/thing/event/property/post"
    alink = lambda value: json.dumps(
        {"id": "1", "version": "1.0", "params": {"temperature": value}, "method": "thing.event.property.post"}
    )
    client.publish(post, alink(20.5), qos=1)
    expect(json.loads(listener.wait("message")["payload"])["data"], {"temperature": 20.5}, "data")
    device.rest.call("PUT", f"/devices/{device.id}", {"sensoro_app_id": ""})
    client.publish(post, alink(21), qos=1)
    firmware(last).report({"value": 1})
    expect(json.loads(listener.wait("message")["payload"])["data"], {"value": 1}, "the next record")


@case("sensoro-push", "a report is posted to the callback URL, signed with the application's secret", deadline=30)
def callback(ctx):
    hook = Hook(ctx)
    app = App(ctx, callback_url=hook.url).make()
    device = bound(ctx, app)
    firmware(device).report({"value": 5})
    ctx.wait(hook.changed, lambda: hook.got, lambda: "a POST")
    headers, record = hook.got[0]
    expect((record["appId"], record["sn"], record["data"]), (app.id, device.name, {"value": 5}), f"record {record}")
    nonce, signature = headers["x-access-nonce"], headers["x-access-signature"]
    signed = f"{nonce}POST{hook.url}{hook.bodies[0].decode()}".encode()
    wanted = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    expect(signature, wanted, "X-ACCESS-SIGNATURE")


@case("sensoro-push", "an application that there is not cannot be bound to", deadline=20)
def unknown(ctx):
    device = Device(ctx, HUAWEI)
    answer = device.rest.ask("PUT", f"/devices/{device.id}", {"sensoro_app_id": "nothing"})
    require(answer.status in (400, 404) and "sensoro" in answer.text.lower(), f"{answer.status} {answer.text}")
