"""Huawei IoTDA: rules and what they send where. The vendor's REST SDK on node 0, the device on node 1, the application
on node 2."""

import hashlib
import http.server
import json
import threading

from huaweicloudsdkiotda.v5 import (
    AddActionReq,
    AddRuleReq,
    CreateRoutingRuleRequest,
    CreateRuleActionRequest,
    DeleteDeviceRequest,
    DeleteRoutingRuleRequest,
    DeleteRuleActionRequest,
    ListRoutingRulesRequest,
    ListRuleActionsRequest,
    RoutingRuleSubject,
    ShowRoutingRuleRequest,
    ShowRuleActionRequest,
    UpdateActionReq,
    UpdateRoutingRuleRequest,
    UpdateRuleActionRequest,
    UpdateRuleReq,
)

from harness import Context, case, expect, require
from paho_client import V311, Client
from vendors import devices
from vendors.application import Rule, of_device, subscribed
from vendors.devices import HUAWEI, Device
from vendors.huawei import error_of, firmware, sdk
from vendors.rest import Rest


@case("huawei-rule", "create, list, show, update, delete, as every node has it", deadline=30)
def life(ctx):
    client, elsewhere = sdk(ctx), sdk(ctx, 2)
    name = f"rule_{ctx.suffix}"
    body = AddRuleReq(
        rule_name=name, subject=RoutingRuleSubject(resource="device.property", event="report"), app_type="GLOBAL"
    )
    made = client.create_routing_rule(CreateRoutingRuleRequest(body=body))
    expect((made.active, made.app_type, made.subject.resource), (False, "GLOBAL", "device.property"), "a new rule")
    action = AddActionReq(
        rule_id=made.rule_id,
        channel="MQTT_FORWARDING",
        channel_detail={"mqtt_forwarding": {"topic": f"it/{ctx.suffix}"}},
    )
    answer = client.create_rule_action(CreateRuleActionRequest(body=action))
    expect((answer.rule_id, answer.channel), (made.rule_id, "MQTT_FORWARDING"), "a new action")
    # The SDK's model drops the member that it does not know.
    detail = json.loads(answer.raw_content)["channel_detail"] if getattr(answer, "raw_content", None) else None
    if detail is not None:
        expect(detail, {"mqtt_forwarding": {"topic": f"it/{ctx.suffix}"}}, "channel_detail")
    listed = elsewhere.list_routing_rules(ListRoutingRulesRequest(rule_name=name))
    expect(([rule.rule_id for rule in listed.rules], listed.count), ([made.rule_id], 1), "rules of that name")
    update = UpdateRuleReq(rule_name=f"{name}_2", select="*", where="1 = 1", active=True)
    client.update_routing_rule(UpdateRoutingRuleRequest(rule_id=made.rule_id, body=update))
    shown = elsewhere.show_routing_rule(ShowRoutingRuleRequest(rule_id=made.rule_id))
    expect(
        (shown.rule_name, shown.active, shown.select, shown.where),
        (f"{name}_2", True, "*", "1 = 1"),
        "after the update",
    )
    cleared = UpdateRuleReq(select="", where="")
    client.update_routing_rule(UpdateRoutingRuleRequest(rule_id=made.rule_id, body=cleared))
    shown = elsewhere.show_routing_rule(ShowRoutingRuleRequest(rule_id=made.rule_id))
    require(not shown.select and not shown.where and shown.active, f"after they were cleared: {shown}")
    change = UpdateActionReq(
        channel="MQTT_FORWARDING", channel_detail={"mqtt_forwarding": {"topic": f"it/{ctx.suffix}/b"}}
    )
    client.update_rule_action(UpdateRuleActionRequest(action_id=answer.action_id, body=change))
    rest = Rest(ctx, 2)
    shown = rest.call("GET", f"/routing-rule/actions/{answer.action_id}")
    expect(
        shown["channel_detail"], {"mqtt_forwarding": {"topic": f"it/{ctx.suffix}/b"}}, "channel_detail after the update"
    )
    listed = elsewhere.list_rule_actions(ListRuleActionsRequest(rule_id=made.rule_id))
    expect(
        ([action.action_id for action in listed.actions], listed.count), ([answer.action_id], 1), "actions of the rule"
    )
    second = client.create_rule_action(CreateRuleActionRequest(body=action))
    client.delete_rule_action(DeleteRuleActionRequest(action_id=second.action_id))
    client.delete_routing_rule(DeleteRoutingRuleRequest(rule_id=made.rule_id))
    for gone in (
        lambda: elsewhere.show_routing_rule(ShowRoutingRuleRequest(rule_id=made.rule_id)),
        lambda: elsewhere.show_rule_action(ShowRuleActionRequest(action_id=answer.action_id)),
    ):
        expect(error_of(gone).status_code, 404, "status of what is gone, the rule's actions with it")


@case("huawei-rule", "paging: rules newest first, count and marker beside them", deadline=30)
def paging(ctx):
    client = sdk(ctx)
    app = Rest(ctx).call("POST", "/apps", {"app_name": f"paging {ctx.suffix}"})["app_id"]
    made = [Rule(ctx, "device:create", f"p{number}", client=client, active=False, app_id=app).id for number in range(5)]
    pages, marker = [], None
    for _ in range(3):
        page = client.list_routing_rules(ListRoutingRulesRequest(app_id=app, app_type="APP", limit=2, marker=marker))
        pages.append([rule.rule_id for rule in page.rules])
        expect(page.count, 5, "count")
        marker = page.marker
    expect(pages, [made[:2:-1], made[2:0:-1], made[:1]], "pages")
    refused = error_of(lambda: client.list_routing_rules(ListRoutingRulesRequest(limit=51)))
    expect((refused.status_code, refused.error_code), (400, "IOTDA.000017"), "limit 51")


@case("huawei-rule", "a report reaches the application, while the rule is active", deadline=30)
def report(ctx):
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    rule = Rule(ctx, "device.property:report", client=client, active=False)
    app = subscribed(ctx, rule)
    meter = firmware(device)
    meter.report({"value": 1})
    rule.activate()
    meter.report({"value": 2}, "?request_id=abc")
    event = app.event_of(device.id)
    expect((event["resource"], event["event"], event["request_id"]), ("device.property", "report", "abc"), "event")
    expect(sorted(event), ["event", "event_time", "event_time_ms", "notify_data", "request_id", "resource"], "members")
    require(
        len(event["event_time"]) == 16 and event["event_time_ms"].endswith("Z") and "." in event["event_time_ms"],
        f"{event}",
    )
    header = event["notify_data"]["header"]
    expect(
        (header["device_id"], header["product_id"], header["node_id"], header["gateway_id"]),
        (device.id, HUAWEI, device.name, device.id),
        "header",
    )
    service = event["notify_data"]["body"]["services"][0]
    expect((service["service_id"], service["properties"]), ("WaterMeter", {"value": 2}), "body")
    require(len(service["event_time"]) == 16, f"event_time: {service}")
    rule.activate(False)
    meter.report({"value": 3})
    rule.activate()
    meter.report({"value": 4}, "?encoding=gzip&request_id=zip")
    event = app.event_of(device.id)
    expect(
        (event["notify_data"]["body"]["services"][0]["properties"], event["request_id"]),
        ({"value": 4}, "zip"),
        "next event",
    )


@case("huawei-rule", "SQL: what is selected, and which events", deadline=30)
def sql(ctx):
    device = Device(ctx, HUAWEI)
    own = f"notify_data.header.device_id = '{device.id}'"
    warm = Rule(
        ctx,
        "device.message:report",
        "warm",
        select="notify_data.header.device_id AS device_id, notify_data.body.content",
        where=f"notify_data.body.content.temperature > 38 AND {own}",
    )
    words = Rule(
        ctx,
        "device.message:report",
        "words",
        select="'fixed' AS word, 7 AS number, notify_data.body.content.list[1] AS second",
        where=f"STARTS_WITH(notify_data.body.content.name, 'ab') AND NOT notify_data.body.content.temperature IN (1, 2) AND {own}",
    )
    app = subscribed(ctx, warm, words)
    meter = firmware(device)
    for content in (
        {"temperature": 37, "name": "abc", "list": [1, {"deep": True}]},
        {"temperature": 40, "name": "xabc"},
        {"temperature": 1, "name": "abc"},
        {"no": "temperature"},
        {"temperature": 41, "name": "ab", "list": [1, 2]},
    ):
        meter.publish(device.topic("sys/messages/up"), json.dumps(content), qos=1)
    meter.publish(device.topic("sys/messages/up"), b"\xff\x00 no JSON", qos=1)
    got = [(m.topic.rpartition("/")[2], json.loads(m.payload)) for m in app.take(4)]
    expect(
        [body for name, body in got if name == "warm"],
        [
            {"device_id": device.id, "notify_data.body.content": {"temperature": 40, "name": "xabc"}},
            {"device_id": device.id, "notify_data.body.content": {"temperature": 41, "name": "ab", "list": [1, 2]}},
        ],
        "what is above 38",
    )
    expect(
        [body for name, body in got if name == "words"],
        [{"word": "fixed", "number": 7, "second": {"deep": True}}, {"word": "fixed", "number": 7, "second": 2}],
        "what starts with ab",
    )
    meter.barrier()
    expect(app.messages, [], "further messages")


@case("huawei-rule", "SQL: services, properties and tags", deadline=30)
def sql_services(ctx):
    device = Device(ctx, HUAWEI)
    rule = Rule(
        ctx,
        "device.property:report",
        select="GET_SERVICE_PROPERTY('WaterMeter', 'value') AS level, GET_TAG('none') AS tag",
        where=f"GET_SERVICE_PROPERTY('WaterMeter', 'value') >= 10 AND notify_data.header.device_id = '{device.id}'",
    )
    app = subscribed(ctx, rule)
    meter = firmware(device)
    for value in (9, 10):
        meter.report({"value": value})
    got = json.loads(app.take_one().payload)
    expect((got["level"], got.get("tag")), (10, None), "event")


@case("huawei-rule", "SQL that is none is refused, and says where", deadline=30)
def sql_refused(ctx):
    client = sdk(ctx)
    rows = [
        ({"select": "notify_data.header.device_id, 'x'"}, "select"),
        ({"select": "a AS"}, "select"),
        ({"where": "a = "}, "where"),
        ({"where": "NOTHING_LIKE_IT(a)"}, "where"),
        ({"where": "a = '\u00e9'"}, "where"),
        ({"where": f"a = '{'x' * 2500}'"}, "where"),
        ({"where": "(" * 400 + "a" + ")" * 400}, "where"),
    ]
    for changed, name in rows:
        fields = {"select": "*", "where": "1 = 1", **changed}
        body = AddRuleReq(rule_name="r", subject=RoutingRuleSubject(resource="device", event="create"), **fields)
        error = error_of(lambda: client.create_routing_rule(CreateRoutingRuleRequest(body=body)))
        expect(error.status_code, 400, f"{changed}: {error.error_msg}"[:200])
        require(name in error.error_msg, f"{changed}: {error.error_msg}"[:300])


@case("huawei-rule", "each subject: devices, status, messages, products", deadline=60)
def subjects(ctx):
    client, rest = sdk(ctx), Rest(ctx)
    subjects = [
        "device:create",
        "device:update",
        "device:delete",
        "device.status:update",
        "device.message:report",
        "product:create",
        "product:update",
        "product:delete",
    ]
    rules = {s: Rule(ctx, s, s.replace(":", "-").replace(".", "-"), client=client) for s in subjects}
    app = subscribed(ctx, *rules.values())

    def next_of(subject: str, fact) -> dict:
        resource, _, event = subject.partition(":")
        fits = lambda e: (e["resource"], e["event"]) == (resource, event) and fact(e)
        return app.event(fits, subject)["notify_data"]

    product = f"q{ctx.suffix}"
    of_product = lambda e: e["notify_data"]["body"].get("product_id") == product
    rest.call("POST", "/products", devices.product(product, "huawei", "off", []))
    expect(next_of("product:create", of_product)["body"]["name"], f"interop {product}", "name")
    rest.call("PUT", f"/products/{product}", {"name": f"renamed {product}"})
    expect(next_of("product:update", of_product)["body"]["name"], f"renamed {product}", "name")
    device = Device(ctx, HUAWEI, product=product)
    own = lambda e: of_device(e) == device.id
    made = next_of("device:create", own)
    require(device.secret not in json.dumps(made), "a secret in an event")
    expect((made["body"]["device_id"], made["header"]["product_id"]), (device.id, product), "device:create")
    rest.call("PUT", f"/devices/{device.id}", {"device_name": "renamed"})
    expect(next_of("device:update", own)["body"]["device_name"], "renamed", "device:update")
    meter = firmware(device)
    told = next_of("device.status:update", own)["body"]
    expect(told["status"], "ONLINE", "status")
    require(told["last_online_time"].endswith("Z") and "." in told["status_update_time"], f"{told}")
    for topic, content, wanted in (
        (device.topic("sys/messages/up"), b'{"a": [1]}', {"a": [1]}),
        (device.topic("user/any"), b"just text", "just text"),
    ):
        meter.publish(topic, content, qos=1)
        body = next_of("device.message:report", own)["body"]
        expect((body["topic"], body["content"]), (topic, wanted), "device.message:report")
    meter.disconnect()
    expect(next_of("device.status:update", own)["body"]["status"], "OFFLINE", "status")
    client.delete_device(DeleteDeviceRequest(device_id=device.id))
    next_of("device:delete", own)
    rest.call("DELETE", f"/products/{product}")
    next_of("product:delete", of_product)
    expect(app.events_seen(device.id), [], "further events of the device")


@case("huawei-rule", "its scope: one resource space, or all", deadline=30)
def scope(ctx):
    client, rest = sdk(ctx), Rest(ctx)
    space = rest.call("POST", "/apps", {"app_name": f"scope {ctx.suffix}"})["app_id"]
    narrow = Rule(ctx, "device.property:report", "narrow", client=client, app_id=space)
    wide = Rule(ctx, "device.property:report", "wide", client=client)
    app = subscribed(ctx, narrow, wide)
    product = f"s{ctx.suffix}"
    rest.call("POST", "/products", {**devices.product(product, "huawei", "off", []), "app_id": space})
    inside, outside = Device(ctx, HUAWEI, "in", product=product, app_id=space), Device(ctx, HUAWEI, "out")
    for device in (outside, inside):
        firmware(device).report({"value": 1})
    got = [(app.take_from_rule(rule, {inside.id, outside.id})) for rule in (narrow, wide, wide)]
    expect(got[0], inside.id, "device of the narrow rule's event")
    expect(sorted(got[1:]), sorted([inside.id, outside.id]), "devices of the wide rule's events")


@case("huawei-rule", "channels that are not offered, and details that are wrong, are refused by name", deadline=30)
def channels(ctx):
    rule = Rule(ctx, "device.property:report", active=False)
    rows = [
        ("OBS_FORWARDING", {"obs_forwarding": {"bucket_name": "b"}}, "channel"),
        ("NOTHING", {}, "channel"),
        ("MQTT_FORWARDING", {}, "mqtt_forwarding"),
        ("MQTT_FORWARDING", {"mqtt_forwarding": {"topic": "no/+/wildcards"}}, "topic"),
        ("MQTT_FORWARDING", {"mqtt_forwarding": {"topic": "x" * 129}}, "topic"),
        ("HTTP_FORWARDING", {"http_forwarding": {"url": "ftp://h/"}}, "url"),
        ("HTTP_FORWARDING", {"http_forwarding": {"url": "https://h/", "token": "no"}}, "token"),
        ("HTTP_FORWARDING", {"http_forwarding": {"url": "https://h/", "signature_enable": True}}, "token"),
        ("MQTT_DEVICE_FORWARDING", {"mqtt_device_forwarding": {"topic": "a/b", "ttl": 7}}, "ttl"),
        ("MQTT_DEVICE_FORWARDING", {"mqtt_device_forwarding": {"topic": "$push/a"}}, "topic"),
        ("DMS_KAFKA_FORWARDING", {"dms_kafka_forwarding": {"addresses": [], "topic": "t"}}, "addresses"),
    ]
    for channel, detail, name in rows:
        body = {"rule_id": rule.id, "channel": channel, "channel_detail": detail}
        answer = Rest(ctx).ask("POST", "/routing-rule/actions", body)
        expect(answer.status, 400, f"{channel} {detail}: {answer.text[:200]}")
        require(name in answer.json["error_msg"], f"{channel} {detail}: {answer.text[:200]}")


@case("huawei-rule", "a test evaluates a sample and sends nothing", deadline=30)
def tested(ctx):
    rule = Rule(
        ctx,
        "device.message:report",
        select="notify_data.body.content.level AS level",
        where="notify_data.body.content.level > 1",
    )
    app, rest = subscribed(ctx, rule), Rest(ctx, 1)
    for level, wanted in ((2, (True, {"level": 2})), (1, (False, None))):
        content = {"topic": "t", "content": {"level": level}}
        sample = {
            "resource": "device.message",
            "event": "report",
            "notify_data": {"header": {"device_id": "d"}, "body": content},
        }
        told = rest.call("POST", f"/routing-rule/rules/{rule.id}/test", {"event": sample})
        expect((told["matched"], told["output"]), wanted, f"what comes of level {level}: {told}")
    expect(app.messages, [], "what was sent")


class Hook:
    """A receiver of webhooks, which can be closed for a time."""

    def __init__(self, ctx: Context):
        self.ctx = ctx
        self.changed = threading.Condition()
        self.got: list[tuple[dict, dict]] = []
        # The same bodies as they came, for who checks signatures.
        self.bodies: list[bytes] = []
        self.status = 200
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with hook.changed:
                    status = hook.status
                    if status == 200:
                        hook.bodies.append(body)
                        hook.got.append(
                            ({name.lower(): value for name, value in self.headers.items()}, json.loads(body))
                        )
                    hook.changed.notify_all()
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        ctx.on_close(self.server.shutdown)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def values(self, device_id: str) -> list:
        return [
            e["notify_data"]["body"]["services"][0]["properties"]["value"]
            for _, e in self.got
            if of_device(e) == device_id
        ]


@case("huawei-rule", "webhook: one POST an event, signed when there is a token", deadline=30)
def webhook(ctx):
    device, hook = Device(ctx, HUAWEI), Hook(ctx)
    detail = {"http_forwarding": {"url": hook.url, "token": "token1234567"}}
    Rule(ctx, "device.property:report", channel="HTTP_FORWARDING", detail=detail)
    meter = firmware(device)
    meter.report({"value": 1})
    ctx.wait(hook.changed, lambda: hook.values(device.id), lambda: "a POST")
    headers, event = next(pair for pair in hook.got if of_device(pair[1]) == device.id)
    require(headers["content-type"].startswith("application/json"), f"{headers}")
    parts = sorted(["token1234567", headers["timestamp"], headers["nonce"]])
    expect(headers["signature"], hashlib.sha256("".join(parts).encode()).hexdigest(), "signature")
    expect((event["resource"], hook.values(device.id)), ("device.property", [1]), "event")
    meter.report({"value": 2})
    ctx.wait(hook.changed, lambda: len(hook.values(device.id)) == 2, lambda: "a second POST")
    keys = {headers["idempotency-key"] for headers, event in hook.got if of_device(event) == device.id}
    expect(len(keys), 2, "keys of two events")


@case(
    "huawei-rule",
    "webhook of a durable rule: nothing is lost while the receiver is down, and the order stays",
    deadline=60,
)
def durable(ctx):
    device, hook, rest = Device(ctx, HUAWEI), Hook(ctx), Rest(ctx)
    hook.status = 503
    body = {
        "rule_name": f"durable_{ctx.suffix}",
        "subject": {"resource": "device.property", "event": "report"},
        "app_type": "GLOBAL",
        "guarantee": "durable",
        "select": "*",
        "where": f"notify_data.header.device_id = '{device.id}'",
    }
    rule = rest.call("POST", "/routing-rule/rules", body)
    ctx.on_close(lambda: rest.call("DELETE", f"/routing-rule/rules/{rule['rule_id']}"))
    expect(rule["guarantee"], "durable", "guarantee")
    action = {
        "rule_id": rule["rule_id"],
        "channel": "HTTP_FORWARDING",
        "channel_detail": {"http_forwarding": {"url": hook.url}},
    }
    rest.call("POST", "/routing-rule/actions", action)
    rest.call("PUT", f"/routing-rule/rules/{rule['rule_id']}", {"active": True})
    meter = firmware(device)
    for value in range(20):
        meter.report({"value": value})
    backlog = lambda: rest.call("GET", f"/routing-rule/rules/{rule['rule_id']}/status")["actions"][0]["backlog"][
        "entries"
    ]
    # Each was in the log before it was acknowledged; the node that is asked may apply the last one a moment later.
    ctx.poll(lambda: backlog() == 20, lambda: f"20 events that wait, has {backlog()}")
    with hook.changed:
        hook.status = 200
    # At least once, and first deliveries in order.
    first = lambda: list(dict.fromkeys(hook.values(device.id)))
    ctx.wait(hook.changed, lambda: len(first()) == 20, lambda: f"20 events, have {first()}")
    expect(first(), list(range(20)), "order")
    ctx.poll(lambda: backlog() == 0, lambda: f"an empty backlog, has {backlog()}")


@case("huawei-rule", "device to device, and to whoever subscribes", deadline=30)
def forwarded(ctx):
    device, other = Device(ctx, HUAWEI), Device(ctx, HUAWEI, "other")
    topic, plain = f"pair/{ctx.suffix}", f"again/{ctx.suffix}"
    where = f"notify_data.header.device_id = '{device.id}'"
    Rule(
        ctx,
        "device.message:report",
        "d2d",
        channel="MQTT_DEVICE_FORWARDING",
        select="*",
        where=where,
        detail={"mqtt_device_forwarding": {"topic": topic, "ttl": 0}},
    )
    Rule(
        ctx,
        "device.message:report",
        "out",
        channel="MQTT_REPUBLISHING",
        select="notify_data.body.content AS c",
        where=where,
        detail={"mqtt_republishing": {"topic": plain}},
    )
    receiver = firmware(other, node=2)
    expect(receiver.subscribe(topic, 1), [1], "SUBACK")
    listener = Client(ctx, V311, "listener", node=0).connect()
    listener.subscribe(plain, 1)
    firmware(device).publish(device.topic("sys/messages/up"), b'{"n": 1}', qos=1)
    got = json.loads(receiver.take_one().payload)
    require(
        {"n": 1} in (got, got.get("notify_data", {}).get("body", {}).get("content")),
        f"what the other device got: {got}",
    )
    expect(json.loads(listener.take_one().payload), {"c": {"n": 1}}, "what was republished")
