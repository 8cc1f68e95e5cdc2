"""Sensoro's push service: MQTT.js of both generations, as in the vendor's sample, and MQTT 3.1 by paho-mqtt."""

import json

from harness import Context, case, expect, require
from paho_client import V31, V311, Client
from vendors import devices
from vendors.program import Program
from vendors.rest import Rest

PACKAGES = {"sensoro-mqttjs-2": "mqtt-2", "sensoro-mqttjs-5": "mqtt-5"}
NOT_AUTHORIZED = "Connection refused: Not authorized"
SECRET, KEY = "SECRETSECRETSECRET", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ"
RECORD = {
    "appId": "", "sn": "SN1", "type": "text", "deviceType": "node", "createdTime": 1500000000000, "msgId": "m1",
    "data": {"temperature": 23.5, "humidity": 40},
}


class App:
    """An application with an id of its own."""

    def __init__(self, ctx: Context, role: str = "", **settings):
        self.ctx, self.rest = ctx, Rest(ctx)
        self.id = f"app{role}{ctx.suffix}"
        self.topic = f"users/{self.id}/devices"
        self.settings = settings

    def make(self) -> "App":
        body = {"app_id": self.id, "app_secret": SECRET, "app_key": KEY, **self.settings}
        self.rest.call("POST", "/sensoro-apps", body)
        return self

    def change(self, **settings) -> None:
        self.rest.call("PUT", f"/sensoro-apps/{self.id}", settings)

    def push(self, number: int, node: int = 1) -> dict:
        """A record, over REST on another node than the listeners'."""
        record = {**RECORD, "appId": self.id, "msgId": f"m{number}"}
        Rest(self.ctx, node).call("POST", f"/sensoro-apps/{self.id}/records", record)
        return record

    def push_as_stranger(self) -> None:
        """Clients do not speak for the platform: nobody gets this."""
        source = Client(self.ctx, V311, "stranger", node=2).connect()
        source.publish(self.topic, json.dumps(RECORD), qos=1)
        source.disconnect()

    def listener(self, package: str, node: int = 0, **fields) -> Program:
        door = self.ctx.endpoints.door("mqtt", node)
        arguments = {
            "package": package, "url": f"mqtt://{door.host}:{door.port}", "username": self.id, "password": SECRET,
            "client_id": f"{self.id}/3f2504e0-4f89-41d3-9a0c-0305e82c3301", "topics": [self.topic], **fields,
        }
        return Program(self.ctx, "node", "sensoro_listener.mjs", arguments)


@case(PACKAGES, "the sample receives a record, whichever way it spells the topic", deadline=30)
def receives(ctx, package):
    app = App(ctx, qos=1).make()
    for number, topic in enumerate([app.topic, f"/{app.topic}"]):
        listener = app.listener(package, client_id=f"{app.id}/{number}", topics=[topic])
        expect(listener.wait("subscribed")["granted"], [1], f"grant of {topic}")
        record = app.push(number)
        got = listener.wait("message")
        expect((got["topic"], json.loads(got["payload"]), got["qos"]), (topic, record, 1), "message")
        listener.ask("end", "ended")


@case(PACKAGES, "MQTT 3.1 receives too", deadline=30)
def receives_31(ctx, package):
    app = App(ctx).make()
    listener = app.listener(package, protocol_version=3)
    listener.wait("subscribed")
    record = app.push(1)
    expect(json.loads(listener.wait("message")["payload"]), record, "message")


@case(PACKAGES, "client ids: which are taken, and what the others are told", deadline=60)
def client_ids(ctx, package):
    app = App(ctx).make()
    for good in ["", "/", f"/{'a' * 36}", "/A-b_9"]:
        listener = app.listener(package, client_id=f"{app.id}{good}", topics=[])
        listener.wait("connect")
        listener.ask("end", "ended")
    # MQTT.js 2 counts the letters of a client id instead of its bytes: with é its CONNECT is malformed.
    beyond_ascii = ["/é"] if package == "mqtt-5" else []
    for bad in [f"/{'a' * 37}", "x", "/a/b", *beyond_ascii]:
        listener = app.listener(package, client_id=f"{app.id}{bad}", topics=[])
        expect(listener.wait("error")["text"], NOT_AUTHORIZED, f"client id {app.id}{bad}")
        listener.kill()
    for fields in ({"password": "wrong"}, {"username": f"no{app.id}", "client_id": f"no{app.id}"}):
        listener = app.listener(package, topics=[], **fields)
        expect(listener.wait("error")["text"], NOT_AUTHORIZED, f"{fields}")
        listener.kill()


@case(PACKAGES, "another application's records never come, and nothing can be published", deadline=30)
def isolated(ctx, package):
    app, other = App(ctx).make(), App(ctx, "x").make()
    listener = app.listener(package, topics=[other.topic, "users/+/devices", "#", app.topic])
    grants = [listener.wait("subscribed") for _ in range(4)]
    granted = {grant["topic"]: grant["error"] is None and grant["granted"] == [1] for grant in grants}
    expect([topic for topic in granted if granted[topic]], [app.topic], "granted filters")
    watcher = other.listener(package)
    watcher.wait("subscribed")
    listener.ask("publish", "published", topic=other.topic, payload="{}", qos=1)
    theirs, mine = other.push(1), app.push(2)
    expect(json.loads(watcher.wait("message")["payload"]), theirs, "the first message of the other")
    expect(json.loads(listener.wait("message")["payload"]), mine, "the first message")


@case(PACKAGES, "safe mode: wechat-crypto reads what comes, at once after the change", deadline=30)
def safe_mode(ctx, package):
    app = App(ctx).make()
    listener = app.listener(package, app_key=KEY)
    listener.wait("subscribed")
    record = app.push(1)
    expect(json.loads(listener.wait("message")["payload"]), record, "a record in the open")
    app.change(safe_mode=True)
    # Nothing goes out in the open now.
    app.push_as_stranger()
    app.push(2)
    got = listener.wait("message")
    open_part = json.loads(got["payload"])
    require("data" not in open_part and open_part["sn"] == "SN1", f"payload: {got['payload']}")
    expect(got["decrypted"]["id"], app.id, "the application in the cipher")
    expect(json.loads(got["decrypted"]["message"]), RECORD["data"], "the data in the cipher")


@case(PACKAGES, "the application's QoS counts at once, without a new connection", deadline=30)
def quality(ctx, package):
    app = App(ctx).make()
    listener = app.listener(package)
    listener.wait("subscribed")
    for number, qos in enumerate([0, 1, 0]):
        app.change(qos=qos)
        app.push(number)
        expect(listener.wait("message")["qos"], qos, "QoS of the delivery")


@case("sensoro-mqttjs-2", "an older client that was early connects once its application exists", deadline=30)
def early(ctx):
    app = App(ctx)
    listener = app.listener("mqtt-2", reconnect_ms=1000)
    expect(listener.wait("error")["text"], NOT_AUTHORIZED, "before there is an application")
    app.make()
    listener.wait("subscribed")


@case("sensoro-paho-3.1", "subscribes, receives, and is refused with 5", deadline=20)
def paho_31(ctx):
    app = App(ctx).make()
    fields = {"client_id": f"{app.id}/p", "username": app.id}
    client = Client(ctx, V31, **fields, password=SECRET).connect()
    client.subscribe(app.topic, 1)
    record = app.push(1)
    expect(json.loads(client.take_one().payload), record, "message")
    expect(devices.connack(Client(ctx, V31, **fields, password="wrong")), 5, "a wrong secret")
