"""Huawei IoTDA: messages to devices, at once or kept. The vendor's REST SDK on node 0, the device on node 1, the
application on node 2."""

import base64
import json

from huaweicloudsdkiotda.v5 import (
    CreateMessageRequest,
    DeleteDeviceMessageRequest,
    DeviceMessageRequest,
    ListDeviceMessagesRequest,
    PropertiesDTO,
    ShowDeviceMessageRequest,
    UserPropDTO,
)

from harness import Context, case, expect, require
from paho_client import V5, V311
from vendors import devices
from vendors.application import Rule, subscribed
from vendors.devices import HUAWEI, Device
from vendors.huawei import Firmware, error_of, firmware, sdk
from vendors.rest import Rest

OFFLINE, NOT_SUBSCRIBED = "IOTDA.014016", "IOTDA.014112"
DOWN = "sys/messages/down"


def send(client, device_id: str, message, **more):
    body = DeviceMessageRequest(message=message, **more)
    return client.create_message(CreateMessageRequest(device_id=device_id, body=body))


def show(client, device_id: str, message_id: str):
    return client.show_device_message(ShowDeviceMessageRequest(device_id=device_id, message_id=message_id))


def listed(client, device_id: str) -> list:
    return client.list_device_messages(ListDeviceMessagesRequest(device_id=device_id)).messages


def wait_message(ctx: Context, client, device_id: str, message_id: str, wanted: str):
    last = [None]

    def there():
        last[0] = show(client, device_id, message_id)
        return last[0] if last[0].status == wanted else None

    return ctx.poll(there, lambda: f"message {message_id} to be {wanted}: {last[0]}")


def product_with_topics(ctx: Context, topics: list) -> str:
    """A product of the case's own, with custom topics that devices may subscribe to."""
    product = f"p{ctx.suffix}"
    Rest(ctx).call("POST", "/products", devices.product(product, "huawei", "off", [(name, "all") for name in topics]))
    return product


@case(
    "huawei-message",
    "kept while the device is away, delivered on CONNECT without a SUBSCRIBE, and all of it told",
    deadline=40,
)
def cached(ctx):
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    rule = Rule(ctx, "device.message.status:update")
    app = subscribed(ctx, rule)
    made = send(client, device.id, "hello", name="greeting")
    expect((made.result.status, made.result.finished_time), ("PENDING", None), "result")
    pending = app.event_of(device.id)
    body = pending["notify_data"]["body"]
    expect(
        (body["status"], body["message_id"], body["name"]), ("PENDING", made.message_id, "greeting"), "the first event"
    )
    # The vendor's document has these five beside header and body.
    flat = {name: pending["notify_data"][name] for name in ("message_id", "name", "device_id", "status", "timestamp")}
    expect(
        (flat["message_id"], flat["device_id"], flat["status"]), (made.message_id, device.id, "PENDING"), "flat members"
    )
    expect(pending["notify_data"]["header"]["product_id"], HUAWEI, "header")
    meter = firmware(device)
    message = meter.take_from(DOWN)
    got = json.loads(message.payload)
    expect(
        got, {"object_device_id": device.id, "name": "greeting", "id": made.message_id, "content": "hello"}, "payload"
    )
    expect(message.qos, 0, "QoS of an implicit subscription")
    shown = wait_message(ctx, client, device.id, made.message_id, "DELIVERED")
    require(shown.finished_time and shown.message == "hello", f"{shown}")
    delivered = app.event_of(device.id)["notify_data"]["body"]
    expect((delivered["status"], delivered["message_id"]), ("DELIVERED", made.message_id), "the second event")
    meter.barrier()
    expect(meter.messages, [], "further messages")
    meter.disconnect()
    again = firmware(device, node=2)
    again.barrier()
    expect(again.messages, [], "messages of the next connection")
    expect(app.events_seen(device.id), [], "further events")


@case("huawei-message", "to a device that is online: DELIVERED in the answer", deadline=20)
def immediate(ctx):
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    meter = firmware(device)
    made = send(client, device.id, "now")
    expect(made.result.status, "DELIVERED", "result")
    require(made.result.finished_time, "finished_time")
    got = json.loads(meter.take_from(DOWN).payload)
    require(set(got) <= {"object_device_id", "name", "id", "content"}, f"keys that the SDK takes for raw: {got}")
    expect((got["id"], got["content"], got.get("name")), (made.message_id, "now", None), "payload")
    objects = send(client, device.id, {"deep": [1, {"er": None}]})
    content = json.loads(meter.take_from(DOWN).payload)["content"]
    expect(
        json.loads(content) if isinstance(content, str) else content,
        {"deep": [1, {"er": None}]},
        "content of an object",
    )
    expect([m.message_id for m in listed(client, device.id)][:2], [objects.message_id, made.message_id], "list")


@case("huawei-message", "raw and base64: the payload is exactly these bytes", deadline=20)
def formats(ctx):
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    meter = firmware(device)
    data = bytes(range(256))
    rows = [
        ({"message": "just text \u00e9", "payload_format": "raw"}, "just text \u00e9".encode()),
        ({"message": base64.b64encode(data).decode(), "encoding": "base64"}, data),
    ]
    for fields, wanted in rows:
        send(client, device.id, **fields)
        meter.ctx.wait(meter.changed, lambda: meter.messages, lambda: f"the message of {fields}")
        expect(meter.take_one().payload, wanted, f"payload of {fields}")


@case("huawei-message", "a custom topic: kept until the device subscribes to it", deadline=30)
def custom(ctx):
    product = product_with_topics(ctx, ["messageDown"])
    device, client = Device(ctx, HUAWEI, product=product), sdk(ctx)
    made = send(client, device.id, "for the topic", topic="messageDown", payload_format="raw")
    expect(made.result.status, "PENDING", "result")
    meter = firmware(device)
    meter.barrier()
    expect((meter.messages, show(client, device.id, made.message_id).status), ([], "PENDING"), "after CONNECT")
    meter.subscribe(device.topic("user/messageDown"), 1)
    message = meter.take_from("user/messageDown")
    expect((message.payload, message.qos), (b"for the topic", 1), "message")
    wait_message(ctx, client, device.id, made.message_id, "DELIVERED")
    data = bytes(range(255, -1, -1))
    send(client, device.id, base64.b64encode(data).decode(), encoding="base64", topic="messageDown")
    expect(meter.take_from("user/messageDown").payload, data, "bytes")
    meter.barrier()
    expect(meter.messages, [], "further messages")


@case("huawei-message", "a custom topic that the product does not have: standard form on messages/down", deadline=20)
def undefined(ctx):
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    meter = firmware(device)
    made = send(client, device.id, "hello", topic="messageDown")
    got = json.loads(meter.take_from(DOWN).payload)
    expect((got["id"], got["content"]), (made.message_id, "hello"), "payload")
    other = error_of(lambda: send(client, device.id, "hello", topic="another"))
    require(other.status_code == 400 and "topic" in other.error_msg, f"another: {other.status_code} {other.error_msg}")


@case("huawei-message", "a product may have it that messages wait for the SUBSCRIBE", deadline=30)
def required(ctx):
    product, client = f"p{ctx.suffix}", sdk(ctx)
    body = {**devices.product(product, "huawei", "off", []), "messages_require_subscribe": True}
    Rest(ctx).call("POST", "/products", body)
    device = Device(ctx, HUAWEI, product=product)
    made = send(client, device.id, "patience")
    meter = firmware(device)
    meter.barrier()
    expect((meter.messages, show(client, device.id, made.message_id).status), ([], "PENDING"), "after CONNECT")
    expect(meter.subscribe(device.topic(DOWN), 1), [1], "SUBACK")
    expect(json.loads(meter.take_from(DOWN).payload)["id"], made.message_id, "message")


@case("huawei-message", "topic_full_name is passed through, to who subscribes to it", deadline=30)
def full_name(ctx):
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    topic = f"plain/{ctx.suffix}"
    made = send(client, device.id, "kept", topic_full_name=topic, payload_format="raw")
    expect(made.result.status, "PENDING", "result, offline")
    meter = firmware(device)
    expect(meter.subscribe(topic, 1), [1], "SUBACK")
    got = meter.take_one()
    expect((got.topic, got.payload), (topic, b"kept"), "message")
    both = error_of(lambda: send(client, device.id, "x", topic="a", topic_full_name="b"))
    expect(both.status_code, 400, f"both kinds of topic: {both.error_msg}")
    require("topic" in both.error_msg, both.error_msg)


@case("huawei-message", "CONNECT, then SUBSCRIBE at QoS 1: each kept message once", deadline=30)
def once(ctx):
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    made = [send(client, device.id, f"m{number}").message_id for number in range(10)]
    meter = Firmware(device)
    meter.connect()
    expect(meter.subscribe(device.topic(DOWN), 1), [1], "SUBACK")
    for message_id in made:
        wait_message(ctx, client, device.id, message_id, "DELIVERED")
    send(client, device.id, "last")
    meter.take_from(DOWN, lambda body: body["content"] == "last")
    got = [json.loads(m.payload)["id"] for m in meter.messages if m.topic.endswith("messages/down")]
    expect(got, made, "messages that came")


@case("huawei-message", "QoS 1 without PUBACK: three sends, and again after the next CONNECT", deadline=60)
def unacknowledged(ctx):
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    mute = firmware(device, manual_ack=True)
    expect(mute.subscribe(device.topic(DOWN), 1), [1], "SUBACK")
    made = send(client, device.id, "insist")
    expect(made.result.status, "DELIVERED", "result, which does not wait for PUBACK")
    for number in range(3):
        message = mute.take_from(DOWN)
        expect((json.loads(message.payload)["id"], message.qos), (made.message_id, 1), f"send {number + 1}")
        if number:
            require(message.dup, "DUP of a repetition")
    mute.disconnect()
    meter = firmware(device, node=2)
    expect(meter.subscribe(device.topic(DOWN), 1), [1], "SUBACK")
    expect(json.loads(meter.take_from(DOWN).payload)["id"], made.message_id, "what comes after the next SUBSCRIBE")
    # It is acknowledged now, and is over.
    wait_message(ctx, client, device.id, made.message_id, "DELIVERED")
    send(client, device.id, "last")
    meter.take_from(DOWN, lambda body: body["content"] == "last")
    expect(meter.messages, [], "further messages")


@case("huawei-message", "25 to a device that is away: the newest 20 come, in order", deadline=60)
def limited(ctx):
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    made = [send(client, device.id, f"m{number}", message_id=f"id-{number}").message_id for number in range(25)]
    expect(made[0], "id-0", "a message id of one's own")
    kept = [m.message_id for m in listed(client, device.id)]
    expect(sorted(kept), sorted(made[5:]), "messages that are listed")
    gone = error_of(lambda: show(client, device.id, made[0]))
    expect(gone.status_code, 404, "status of one that was replaced")
    meter = firmware(device)
    got = [json.loads(m.payload)["id"] for m in meter.take(20)]
    expect(got, made[5:], "order of arrival")
    meter.barrier()
    expect(meter.messages, [], "further messages")


@case("huawei-message", "ttl 0 to a device that is away: FAILED with IOTDA.014016", deadline=30)
def never_kept(ctx):
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    rule = Rule(ctx, "device.message.status:update")
    app = subscribed(ctx, rule)
    made = send(client, device.id, "now or never", ttl=0)
    expect(made.result.status, "FAILED", "result")
    shown = show(client, device.id, made.message_id)
    expect((shown.status, shown.error_info.error_code), ("FAILED", OFFLINE), "message")
    body = app.event_of(device.id, lambda e: e["notify_data"]["body"]["status"] == "FAILED")["notify_data"]["body"]
    expect((body["message_id"], body["error_info"]["error_code"]), (made.message_id, OFFLINE), "event")
    meter = firmware(device)
    meter.barrier()
    expect(meter.messages, [], "what comes later")


@case("huawei-message", "ttl 0 to a topic that is not subscribed to: FAILED with IOTDA.014112", deadline=30)
def nobody_listens(ctx):
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    firmware(device)
    made = send(client, device.id, "x", topic_full_name=f"nobody/{ctx.suffix}", ttl=0)
    expect(made.result.status, "FAILED", "result")
    expect(show(client, device.id, made.message_id).error_info.error_code, NOT_SUBSCRIBED, "error_info")


@case("huawei-message", "what is refused, and by which name", deadline=30)
def refused(ctx):
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    send(client, device.id, "first", message_id="one")
    rows = [
        ({"message_id": "one"}, "message_id"),
        ({"message_id": "no spaces"}, "message_id"),
        ({"message_id": "x" * 101}, "message_id"),
        ({"name": "x" * 129}, "name"),
        ({"ttl": 7}, "ttl"),
        ({"ttl": 1445}, "ttl"),
        ({"ttl": -5}, "ttl"),
        ({"encoding": "rot13"}, "encoding"),
        ({"payload_format": "nice"}, "payload_format"),
        ({"encoding": "base64", "message": "not base64!"}, "message"),
        ({"properties": PropertiesDTO(correlation_data="x" * 129)}, "correlation_data"),
        ({"properties": PropertiesDTO(response_topic="a/#")}, "response_topic"),
        (
            {"properties": PropertiesDTO(user_properties=[UserPropDTO(prop_key="k", prop_value="v")] * 21)},
            "user_properties",
        ),
    ]
    for changed, name in rows:
        fields = {"message": "x", **changed}
        error = error_of(lambda: send(client, device.id, **fields))
        require(error.status_code in (400, 409), f"{name}: {error.status_code} {error.error_msg}")
        words = (name, "one") if changed == {"message_id": "one"} else (name,)
        require(any(word in error.error_msg for word in words), f"{name}: {error.error_code} {error.error_msg}")
    nobody = error_of(lambda: send(client, f"{HUAWEI}_nobody", "x"))
    expect((nobody.status_code, nobody.error_code), (404, "IOTDA.014000"), "an unknown device")
    unknown = error_of(lambda: show(client, device.id, "unknown"))
    expect(unknown.status_code, 404, "an unknown message")
    expect([m.message_id for m in listed(client, device.id)], ["one"], "list")


@case("huawei-message", "one that is deleted does not come", deadline=30)
def deleted(ctx):
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    made = [send(client, device.id, f"m{number}").message_id for number in range(3)]
    client.delete_device_message(DeleteDeviceMessageRequest(device_id=device.id, message_id=made[1]))
    expect(error_of(lambda: show(client, device.id, made[1])).status_code, 404, "status after that")
    meter = firmware(device)
    got = [json.loads(m.payload)["id"] for m in meter.take(2)]
    expect(got, [made[0], made[2]], "messages that came")


@case("huawei-message", "MQTT 5: response topic, correlation data and user properties arrive", deadline=30)
def properties(ctx):
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    own = PropertiesDTO(
        correlation_data="c-1",
        response_topic=device.topic("user/answer"),
        user_properties=[UserPropDTO(prop_key="a", prop_value="1"), UserPropDTO(prop_key="a", prop_value="2")],
    )
    made = send(client, device.id, "with more", properties=own)
    meter = firmware(device, version=V5)
    got = meter.take_from(DOWN).properties
    expect(got.CorrelationData, b"c-1", "correlation data")
    expect(got.ResponseTopic, device.topic("user/answer"), "response topic")
    expect(got.UserProperty, [("a", "1"), ("a", "2")], "user properties")
    shown = wait_message(ctx, client, device.id, made.message_id, "DELIVERED")
    expect(shown.properties.correlation_data, "c-1", "properties that are shown")
    older = Device(ctx, HUAWEI, "older")
    listener = firmware(older, version=V311)
    send(client, older.id, "without", properties=own)
    expect(json.loads(listener.take_from(DOWN).payload)["content"], "without", "what a device of 3.1.1 gets")
