"""Both ends of Huawei's platform: its REST SDK, unmodified, and firmware as its device SDK has it, on paho-mqtt."""

import gzip
import json
import time
from typing import Any, Callable, Optional

import paho.mqtt.client as paho
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkcore.http.http_config import HttpConfig
from huaweicloudsdkcore.region.region import Region
from huaweicloudsdkiotda.v5 import CreateCommandRequest, DeviceCommandRequest, IoTDAClient

from harness import Context, Failure
from paho_client import V311, Client, taken
from vendors.devices import Device
from vendors.rest import TIMEOUT_S


def sdk(ctx: Context, node: int = 0, *, secret=None, derived=False, door="rest", project=True) -> IoTDAClient:
    known = ctx.endpoints.credentials["rest"]
    place = ctx.endpoints.door(door, node)
    url = f"{'https' if door == 'https' else 'http'}://{place.host}:{place.port}"
    config = HttpConfig()
    config.timeout = (5, TIMEOUT_S)
    if door == "https":
        config.ssl_ca_cert = ctx.endpoints.ca
    credentials = BasicCredentials(known["ak"], secret or known["sk"], known["project_id"] if project else None)
    if derived:
        credentials.with_derived_predicate(BasicCredentials.get_default_derived_predicate())
    builder = IoTDAClient.new_builder().with_http_config(config)
    if derived or not project:
        name = known.get("project_name", known["project_id"])
        credentials.with_iam_endpoint(url)
        return builder.with_credentials(credentials).with_region(Region(name, url)).build()
    return builder.with_credentials(credentials).with_endpoint(url).build()


def error_of(call: Callable[[], Any]) -> ClientRequestException:
    try:
        call()
    except ClientRequestException as error:
        return error
    raise Failure("it was not refused")


def command(client: IoTDAClient, device_id: str, value: Any = "ON", **changed: Any):
    body = {"service_id": "WaterMeter", "command_name": "ON_OFF", "paras": {"value": value}, **changed}
    return client.create_command(CreateCommandRequest(device_id=device_id, body=DeviceCommandRequest(**body)))


class Firmware(Client):
    """A device as Huawei's SDK is one: it subscribes to nothing of the system's, and answers what it is asked.

    `answers` says by kind (`commands`, `properties/set`, `properties/get`) what to answer to a body; None: nothing.
    """

    def __init__(self, device: Device, node: int = 1, version: int = V311, **more: Any):
        self.device = device
        self.answers: dict[str, Callable[[dict], Optional[dict]]] = {}
        # Kind, request id and body of all that it was asked, answered or not.
        self.asked: list[tuple[str, str, dict]] = []
        connect = dict(zip(("client_id", "username", "password"), device.connect_fields()))
        super().__init__(device.ctx, version, node=node, **{**connect, **more})

    def _on_message(self, client, userdata, message):
        name, _, request = message.topic.partition("/request_id=")
        kind = name.removeprefix(self.device.topic("sys/"))
        if kind in ("commands", "properties/set", "properties/get"):
            body = json.loads(message.payload)
            with self.changed:
                self.asked.append((kind, request, body))
            answer = self.answers.get(kind, lambda _: None)(body)
            if answer is not None:
                self.answer(kind, request, answer)
        super()._on_message(client, userdata, message)

    def answer(self, kind: str, request: str, body: Any) -> None:
        """Sends, and does not wait: callbacks of paho may not."""
        topic = self.device.topic(f"sys/{kind}/response/request_id={request}")
        self.paho.publish(topic, json.dumps(body), 1)

    def wait_asked(self, kind: str, number: int = 1) -> tuple[str, dict]:
        """Waits for the `number`th question of a kind: its request id and its body."""

        def found():
            return [entry for entry in self.asked if entry[0] == kind]

        self.ctx.wait(
            self.changed, lambda: len(found()) >= number, lambda: f"question {number} of {kind}; {self.asked}"
        )
        return found()[number - 1][1:]

    def take_from(self, topic: str, fact: Callable[[dict], bool] = lambda _: True) -> paho.MQTTMessage:
        """Waits for a message on one of the device's own topics, and takes it away."""
        whole = self.device.topic(topic)

        def found():
            named = [m for m in self.messages if m.topic == whole]
            return next((m for m in named if not topic.startswith("sys/") or fact(json.loads(m.payload))), None)

        seen = lambda: f"a message on {topic}, have {[(m.topic, m.payload[:80]) for m in self.messages[-8:]]}"
        message = self.ctx.wait(self.changed, lambda: found() or self.disconnected and (None,), seen)
        if not isinstance(message, paho.MQTTMessage):
            raise Failure(f"disconnected before {seen()}")
        with self.changed:
            taken(self.messages, message)
        return message

    def report(self, properties: dict, suffix: str = "", service: str = "WaterMeter") -> None:
        body = json.dumps(
            {"services": [{"service_id": service, "properties": properties, "event_time": None}]}
        ).encode()
        if "encoding=gzip" in suffix:
            body = gzip.compress(body)
        self.publish(self.device.topic(f"sys/properties/report{suffix}"), body, qos=1)

    def event(self, service: str, kind: str, paras: dict, event_id: str = "e1") -> None:
        entry = {
            "service_id": service,
            "event_type": kind,
            "event_time": "20261121T120000Z",
            "event_id": event_id,
            "paras": paras,
        }
        body = {"object_device_id": self.device.id, "services": [entry]}
        self.publish(self.device.topic("sys/events/up"), json.dumps(body), qos=1)

    def take_event(self, service: str, kind: str) -> dict:
        """Waits for an event from the platform, and gives its entry."""

        def fits(body: dict) -> bool:
            return any(s["service_id"] == service and s["event_type"] == kind for s in body["services"])

        body = json.loads(self.take_from("sys/events/down", fits).payload)
        return next(s for s in body["services"] if s["event_type"] == kind)

    def barrier(self) -> None:
        """What was on its way to the device before this call has come when it returns: the time comes after it."""
        stamp = str(time.monotonic_ns())
        self.event("$time_sync", "time_sync_request", {"device_send_time": stamp})
        fits = lambda body: body["services"][0].get("paras", {}).get("device_send_time") == stamp
        self.take_from("sys/events/down", fits)


def firmware(device: Device, node: int = 1, version: int = V311, **more: Any) -> Firmware:
    """Connected, and shown so on node 0, where callers are."""
    made = Firmware(device, node, version, **more)
    made.connect()
    device.wait_status("ONLINE")
    return made


def succeed(body: dict) -> dict:
    """What well-behaved firmware answers to a command."""
    return {
        "result_code": 0,
        "response_name": "COMMAND_RESPONSE",
        "paras": {"result": "success", "echo": body.get("paras")},
    }
