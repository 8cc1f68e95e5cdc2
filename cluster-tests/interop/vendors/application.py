"""Applications over MQTT, and the rules that feed them: access codes, names to sign in with, events that are pushed."""

import json
import threading
import time
from typing import Any, Callable, Optional

from huaweicloudsdkiotda.v5 import (
    AddActionReq,
    AddRuleReq,
    CreateAccessCodeRequest,
    CreateAccessCodeRequestBody,
    CreateRoutingRuleRequest,
    CreateRuleActionRequest,
    DeleteRoutingRuleRequest,
    IoTDAClient,
    RoutingRuleSubject,
    UpdateRoutingRuleRequest,
    UpdateRuleReq,
)

from harness import Context, expect
from paho_client import V311, Client, taken
from vendors import devices
from vendors.huawei import sdk

_LOCK = threading.Lock()
_CODE: list[tuple[str, str]] = []


def new_access_code(ctx: Context, **body: Any) -> tuple[str, str]:
    """Key and code. What was there before is void, for every case: only for cases that run alone."""
    request = CreateAccessCodeRequest(body=CreateAccessCodeRequestBody(type="MQTT", **body))
    made = sdk(ctx).create_access_code(request)
    _CODE[:] = [(made.access_key, made.access_code)]
    return _CODE[0]


def access_code(ctx: Context) -> tuple[str, str]:
    """One for all cases. Its ten connections are shared by them: a case has two at most at a time."""
    with _LOCK:
        return _CODE[0] if _CODE else new_access_code(ctx)


def username(key: str, at_ms: Optional[int] = None, instance: str = "|instanceId=") -> str:
    return f"accessKey={key}|timestamp={int(time.time() * 1000) if at_ms is None else at_ms}{instance}"


class Application(Client):
    """A client of paho's, as the vendor's sample is one: TLS, MQTT 3.1.1, QoS 0."""

    def __init__(
        self, ctx: Context, node: int = 2, role: str = "app", code: Optional[tuple[str, str]] = None, **changed: Any
    ):
        key, secret = code or access_code(ctx)
        name = changed.pop("username", username(key))
        # The sample's client id is its user name; two within a millisecond would be one client.
        own = {"client_id": f"{name}-{role}-{ctx.suffix}", "username": name, "password": secret, "keepalive": 120}
        more = {**own, "door": "mqtts", "tls": devices.unnamed(ctx), "version": V311, **changed}
        super().__init__(ctx, more.pop("version"), node=node, **more)

    def event(self, fact: Callable[[dict], bool] = lambda _: True, what: str = "an event") -> dict:
        """Waits for what was pushed, and takes it away. Events of other cases' devices are left alone by `fact`."""

        def found():
            return next(((m, body) for m in self.messages if fact(body := json.loads(m.payload))), None)

        seen = lambda: f"{what}; had {[m.payload[:200] for m in self.messages[-4:]]}"
        pair = self.ctx.wait(self.changed, found, seen)
        with self.changed:
            taken(self.messages, pair[0])
        return pair[1]

    def event_of(self, device_id: str, fact: Callable[[dict], bool] = lambda _: True) -> dict:
        """The next event of one device."""
        return self.event(lambda e: of_device(e) == device_id and fact(e), f"an event of {device_id}")

    def take_from_rule(self, rule: "Rule", among: set) -> str:
        """Waits for the next event of a rule that is about one of these devices; says of which."""

        def found():
            return next(
                (m for m in self.messages if m.topic == rule.topic and of_device(json.loads(m.payload)) in among), None
            )

        message = self.ctx.wait(self.changed, found, lambda: f"an event of {rule.topic}, have {self.payloads()}")
        with self.changed:
            taken(self.messages, message)
        return of_device(json.loads(message.payload))

    def events_seen(self, device_id: str) -> list[dict]:
        with self.changed:
            return [body for m in self.messages if of_device(body := json.loads(m.payload)) == device_id]


def of_device(event: dict) -> Optional[str]:
    return event.get("notify_data", {}).get("header", {}).get("device_id")


class Rule:
    """A rule with one action, which pushes to applications unless told otherwise. Gone when the case is."""

    def __init__(
        self,
        ctx: Context,
        subject: str,
        role: str = "r",
        *,
        client: Optional[IoTDAClient] = None,
        channel: str = "MQTT_FORWARDING",
        detail: Optional[dict] = None,
        active: bool = True,
        app_id: Optional[str] = None,
        **more: Any,
    ):
        self.client = client or sdk(ctx)
        resource, _, event = subject.rpartition(":")
        self.topic = f"it/{ctx.suffix}/{role}"
        scope = {"app_type": "APP", "app_id": app_id} if app_id else {"app_type": "GLOBAL"}
        about = RoutingRuleSubject(resource=resource, event=event)
        body = AddRuleReq(rule_name=f"rule_{role}_{ctx.suffix}", subject=about, **scope, **more)
        self.id = self.client.create_routing_rule(CreateRoutingRuleRequest(body=body)).rule_id
        ctx.on_close(self.delete)
        # The SDK's models have no member for applications over MQTT; what is no model is sent as it is.
        own = detail or {"mqtt_forwarding": {"topic": self.topic}}
        action = AddActionReq(rule_id=self.id, channel=channel, channel_detail=own)
        self.action_id = self.client.create_rule_action(CreateRuleActionRequest(body=action)).action_id
        if active:
            self.activate()

    def activate(self, active: bool = True) -> None:
        self.client.update_routing_rule(UpdateRoutingRuleRequest(rule_id=self.id, body=UpdateRuleReq(active=active)))

    def delete(self) -> None:
        self.client.delete_routing_rule(DeleteRoutingRuleRequest(rule_id=self.id))


def subscribed(ctx: Context, *rules: Rule, node: int = 2, **more: Any) -> Application:
    """An application that has what these rules push."""
    app = Application(ctx, node, **more)
    app.connect()
    for rule in rules:
        expect(app.subscribe(rule.topic, 0), [0], f"SUBACK of {rule.topic}")
    return app
