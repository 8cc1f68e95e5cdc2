"""Bad input over REST, made from the node's own OpenAPI document: each member of each body of the wrong type, out of
its range, beyond its words, missing; unknown ids, foreign projects, too small roles. Every answer is a 4xx with an error
code, and where a member is wrong, the text names it. A table says what the document cannot."""

import copy
import json
import threading
from typing import Any, Iterator, Optional

from harness import Context, Failure, case, expect, require
from vendors import devices
from vendors.devices import HUAWEI, MODEL, Device
from vendors.pki import authority, pem
from vendors.rest import Answer, Rest, request

PREFIX = "/v5/iot/{project_id}"
# Of the operations' names: `devices.add` is of `devices`. A case says when one is missing here.
TAGS = [
    "apps",
    "products",
    "devices",
    "authorities",
    "sensoro",
    "people",
    "commands",
    "messages",
    "shadows",
    "rules",
    "batch_tasks",
]
SUITES = {f"rest-input-{tag}": tag for tag in TAGS}

# Asynchronous commands are refused for whichever id.
UNKNOWN_STATUS = {"app_id": (403, 404), "command_id": (400, 404)}
DEFAULT_UNKNOWN = (404,)

RULE = {
    "rule_name": "r",
    "subject": {"resource": "device.property", "event": "report"},
    "app_type": "GLOBAL",
    "guarantee": "live",
}
DETAIL = {"mqtt_forwarding": {"topic": "it/matrix"}}
EVENT = {
    "resource": "device.property",
    "event": "report",
    "notify_data": {"header": {"device_id": "d"}, "body": {"services": []}},
}

# What is right, by operation, so that only one thing is wrong at a time. `{name}` is the id of something that is there.
BODIES: dict[str, Any] = {
    "POST /apps": {"app_name": "a"},
    "PUT /apps/{app_id}": {"app_name": "a"},
    "POST /auth/accesscode": {"type": "AMQP", "force_disconnect": False},
    "POST /products": devices.product("matrix-product", "huawei", "off", [("user/a", "all")]),
    "PUT /products/{product_id}": {"name": "n", "service_capabilities": MODEL},
    "PUT /products/{product_id}/topics": {"topics": [{"topic": "user/a", "access": "all"}]},
    "POST /devices": {
        "node_id": "matrix",
        "product_id": HUAWEI,
        "auth_info": {"auth_type": "SECRET"},
        "shadow": [{"service_id": "WaterMeter", "desired": {}}],
    },
    "PUT /devices/{device_id}": {"device_name": "n", "auth_info": {"timeout": 0}},
    "POST /devices/{device_id}/action": {"secret": "12345678"},
    "POST /devices/{device_id}/reset-fingerprint": {},
    "POST /devices/{device_id}/change-gateway": {"gateway_id": "{device_id}"},
    "POST /certificates": {"name": "n", "certificate": "{pem}"},
    "POST /sensoro-apps": {"app_id": "matrixapp", "qos": 0},
    "PUT /sensoro-apps/{sensoro_app_id}": {"qos": 0},
    "POST /sensoro-apps/{sensoro_app_id}/records": {},
    "POST /users": {"name": "matrix", "password": "long enough", "role": "viewer"},
    "PUT /users/{user_name}": {"role": "viewer"},
    "POST /access-keys": {"user": "{user_name}"},
    "POST /devices/{device_id}/commands": {
        "service_id": "WaterMeter",
        "command_name": "ON_OFF",
        "paras": {"value": "ON"},
    },
    "PUT /devices/{device_id}/properties": {"services": [{"service_id": "WaterMeter", "properties": {"value": 1}}]},
    "POST /devices/{device_id}/rrpc": {"payload": "x"},
    "POST /devices/{device_id}/messages": {
        "message": "m",
        "name": "n",
        "properties": {"user_properties": [{"prop_key": "k", "prop_value": "v"}]},
    },
    "POST /broadcast-messages": {"topic_full_name": "$oc/broadcast/matrix", "message": "aGk="},
    "PUT /devices/{device_id}/shadow": {"shadow": [{"service_id": "WaterMeter", "desired": {"value": 1}}]},
    "POST /devices/{device_id}/upgrade": {"type": "firmware", "version": "2", "url": "https://h/f"},
    "POST /routing-rule/rules": RULE,
    "PUT /routing-rule/rules/{rule_id}": {"rule_name": "r", "select": "*", "where": "1 = 1"},
    "POST /routing-rule/rules/{rule_id}/test": {"event": EVENT},
    "POST /routing-rule/test": {"event": EVENT},
    "POST /routing-rule/actions": {"rule_id": "{rule_id}", "channel": "MQTT_FORWARDING", "channel_detail": DETAIL},
    "PUT /routing-rule/actions/{action_id}": {"channel": "MQTT_FORWARDING", "channel_detail": DETAIL},
    "POST /batchtasks": {
        "task_name": "t",
        "task_type": "createCommands",
        "targets": ["{device_id}"],
        "document": {"service_id": "WaterMeter", "command_name": "ON_OFF", "paras": {"value": "ON"}},
        "task_policy": {"schedule_time": "20991231T000000Z", "retry_count": 0, "retry_interval": 0},
    },
    "POST /batchtasks/{task_id}/retry": {"targets": ["{device_id}"]},
    "POST /batchtasks/{task_id}/stop": {"targets": ["{device_id}"]},
    "POST /batchtasks/{task_id}/confirm": {"targets": ["{device_id}"]},
}

# Members that a body shares with an answer, and that are not read from it.
NOT_READ = {
    ("PUT /products/{product_id}/topics", "product_id"),
    ("PUT /products/{product_id}", "product_id"),
    ("PUT /products/{product_id}", "app_id"),
    ("PUT /products/{product_id}", "dialect"),
    ("PUT /products/{product_id}", "topics"),
    ("POST /devices", "auth_info.secondary_fingerprint"),
    # A device of Huawei's is told all members as they are.
    *(
        ("POST /devices/{device_id}/upgrade", name)
        for name in ("size", "file_size", "sign", "sign_method", "md5sum", "module")
    ),
    ("PUT /routing-rule/actions/{action_id}", "rule_id"),
    # Not looked at where there are targets.
    ("POST /batchtasks", "targets_filter"),
    ("POST /batchtasks", "document_source"),
    ("PUT /sensoro-apps/{sensoro_app_id}", "app_id"),
    ("PUT /sensoro-apps/{sensoro_app_id}", "app_key"),
    ("PUT /sensoro-apps/{sensoro_app_id}", "app_secret"),
}
# Beyond what the document says: member (or operation and member), and a value that is wrong.
MORE: list[tuple[str, str, Any]] = [
    ("POST /devices", "node_id", "no spaces"),
    ("POST /devices", "node_id", ""),
    ("POST /devices", "device_id", "no/slash"),
    ("POST /devices", "product_id", "nothing"),
    ("POST /devices", "gateway_id", "nothing"),
    ("POST /devices", "auth_info.secret", "short"),
    ("POST /devices", "auth_info.secret", "x" * 33),
    ("POST /devices", "auth_info.secret", "not allowed!"),
    ("POST /devices", "auth_info.fingerprint", "xyz"),
    ("POST /devices/{device_id}/action", "secret", "not allowed!"),
    ("POST /products", "service_capabilities", "none"),
    ("POST /products", "service_capabilities", [{}]),
    ("POST /products", "product_id", "no spaces"),
    ("POST /certificates", "certificate", "no PEM"),
    ("POST /users", "password", "short"),
    ("POST /users", "name", ""),
    ("POST /access-keys", "user", "nobody"),
    ("POST /devices/{device_id}/commands", "paras", "no object"),
    ("POST /devices/{device_id}/commands", "command_name", "x" * 129),
    ("POST /devices/{device_id}/commands", "service_id", "x" * 65),
    ("PUT /devices/{device_id}/properties", "services", []),
    ("POST /devices/{device_id}/messages", "message", 7),
    ("POST /broadcast-messages", "topic_full_name", "plain/topic"),
    ("POST /broadcast-messages", "message", "not base64!"),
    ("POST /devices/{device_id}/messages", "ttl", 1445),
    ("POST /devices/{device_id}/messages", "ttl", -5),
    ("POST /devices/{device_id}/messages", "message_id", "no spaces"),
    ("POST /devices/{device_id}/messages", "message_id", "x" * 101),
    ("POST /devices/{device_id}/messages", "name", "x" * 129),
    ("POST /devices/{device_id}/messages", "topic", "a/#"),
    ("POST /devices/{device_id}/messages", "topic_full_name", "a/+/b"),
    ("PUT /devices/{device_id}/shadow", "shadow", "none"),
    ("PUT /devices/{device_id}/shadow", "shadow", []),
    ("POST /devices/{device_id}/upgrade", "url", "http://h/f"),
    ("POST /devices/{device_id}/upgrade", "type", "hardware"),
    ("POST /devices", "sensoro_app_id", "nothing"),
    ("POST /routing-rule/rules", "subject", {"resource": "device", "event": "fly"}),
    ("POST /routing-rule/rules", "subject", {"resource": "nothing", "event": "report"}),
    ("POST /routing-rule/rules", "rule_name", "x" * 257),
    ("POST /routing-rule/rules", "select", "a b c"),
    ("POST /routing-rule/rules", "where", "a ="),
    ("PUT /routing-rule/rules/{rule_id}", "where", "a ="),
    ("POST /routing-rule/test", "where", "a ="),
    ("POST /routing-rule/test", "select", "a AS"),
    ("POST /routing-rule/rules", "guarantee", "forever"),
    ("POST /routing-rule/rules", "app_type", "SOME"),
    ("POST /routing-rule/actions", "channel", "OBS_FORWARDING"),
    ("POST /routing-rule/actions", "rule_id", "nothing"),
    ("POST /routing-rule/actions", "channel_detail", {}),
    ("POST /batchtasks", "task_name", "no spaces!"),
    ("POST /batchtasks", "task_name", "x" * 129),
    ("POST /batchtasks", "task_type", "makeCoffee"),
    ("POST /batchtasks", "targets", []),
    ("POST /batchtasks", "targets", [7]),
    ("POST /batchtasks", "task_policy.retry_count", 6),
    ("POST /batchtasks", "task_policy.retry_interval", 1441),
    ("POST /batchtasks", "task_policy.schedule_time", "tomorrow"),
    ("POST /batchtasks", "document", "none"),
]
QUERIES = {
    "limit": ["0", "51", "-1", "x", "1.5", "99999999999999999999"],
    "offset": ["-1", "501", "x"],
    "marker": ["x", "f" * 23, "g" * 24],
    "start_time": ["yesterday", "20261301T000000Z"],
    "end_time": ["20260101"],
    "is_cascade_query": ["maybe"],
    "default_app": ["maybe"],
    "active": ["maybe"],
    "action_id": ["explode"],
    "app_type": ["SOME"],
    "task_type": ["makeCoffee"],
    "task_detail_status": ["Lost"],
    "status": ["Lost"],
}


class Api:
    """The document, what is there to be asked about, and who asks."""

    def __init__(self, ctx: Context):
        self.ctx, self.rest = ctx, Rest(ctx)
        self.document = request(ctx.endpoints, "GET", "/openapi.json").json
        self.ids: dict[str, str] = {}

    def operations(self, tag: Optional[str] = None) -> Iterator[tuple[str, str, dict]]:
        for path, methods in sorted(self.document["paths"].items()):
            for method, operation in methods.items():
                if path.startswith(PREFIX) and tag in (None, *operation["tags"]):
                    yield method.upper(), path, operation

    def resolve(self, schema: dict) -> dict:
        while "$ref" in schema:
            schema = self.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return schema

    def body_schema(self, operation: dict) -> Optional[dict]:
        body = operation.get("requestBody")
        return self.resolve(body["content"]["application/json"]["schema"]) if body else None

    def fill(self, value: Any) -> Any:
        """With the ids of what is there."""
        if isinstance(value, dict):
            return {name: self.fill(member) for name, member in value.items()}
        if isinstance(value, list):
            return [self.fill(member) for member in value]
        if isinstance(value, str) and value.startswith("{") and value.endswith("}"):
            return self.ids[value[1:-1]]
        return value

    def path(self, path: str, **changed: str) -> str:
        for name, value in {"project_id": self.rest.project, **self.ids, **changed}.items():
            path = path.replace("{" + name + "}", value)
        require("{" not in path, f"nothing is known for {path}: add it to the table")
        return path

    def ask(self, method: str, path: str, body: Any = None, token: Optional[str] = None, query: str = "") -> Answer:
        headers = {"X-Auth-Token": self.rest.token() if token is None else token}
        return request(self.ctx.endpoints, method, path + query, body, headers)

    def right_body(self, key: str, operation: dict) -> Any:
        if self.body_schema(operation) is None:
            return None
        if key not in BODIES:
            raise Failure(f"no right body is known for {key}: add it to the table")
        return self.fill(copy.deepcopy(BODIES[key]))


_MADE: dict[str, str] = {}
_LOCK = threading.Lock()


def api_of(ctx: Context) -> Api:
    """What is asked about is made once for all cases."""
    api, rest = Api(ctx), Rest(ctx)
    with _LOCK:
        if not _MADE:
            devices.ensure_products(rest)
            device = Device(ctx, HUAWEI, "matrix")
            known = {path for path in api.document["paths"]}
            own = ctx.suffix
            _MADE.update(device_id=device.id, command_id="any", pem=pem(authority(rest)[0]).decode())
            _MADE["app_id"] = rest.call("POST", "/apps", {"app_name": f"matrix {own}"})["app_id"]
            _MADE["product_id"] = rest.call("POST", "/products", devices.product(f"m{own}", "huawei", "off", []))[
                "product_id"
            ]
            _MADE["certificate_id"] = rest.call("GET", "/certificates")["certificates"][0]["certificate_id"]
            rest.call("POST", "/sensoro-apps", {"app_id": f"m{own}"})
            _MADE["sensoro_app_id"] = f"m{own}"
            rest.call("POST", "/users", {"name": f"m{own}", "password": f"pass {own}", "role": "viewer"})
            _MADE.update(user_name=f"m{own}", password=f"pass {own}")
            _MADE["access_key"] = rest.call("POST", "/access-keys", {"user": f"m{own}"})["access_key"]
            if f"{PREFIX}/devices/{{device_id}}/messages" in known:
                made = rest.call("POST", f"/devices/{device.id}/messages", {"message": "m"})
                _MADE["message_id"] = made["message_id"]
            if f"{PREFIX}/routing-rule/rules" in known:
                _MADE["rule_id"] = rest.call("POST", "/routing-rule/rules", RULE)["rule_id"]
                action = {"rule_id": _MADE["rule_id"], "channel": "MQTT_FORWARDING", "channel_detail": DETAIL}
                _MADE["action_id"] = rest.call("POST", "/routing-rule/actions", action)["action_id"]
            if f"{PREFIX}/batchtasks" in known:
                task = copy.deepcopy(BODIES["POST /batchtasks"])
                task["targets"] = [device.id]
                _MADE["task_id"] = rest.call("POST", "/batchtasks", task)["task_id"]
    api.ids = dict(_MADE)
    return api


def wrongs(api: Api, schema: dict, place: tuple = ()) -> Iterator[tuple[tuple, Any, str]]:
    """Where, what, and why it is wrong, by a schema. A place is names and indexes."""
    schema = api.resolve(schema)
    kind = schema.get("type")
    if place:
        others = {
            "string": [7, [], {}],
            "integer": ["x", 1.5, []],
            "number": ["x", []],
            "boolean": ["yes", 1],
            "array": [{}, "x"],
            "object": ["x", 7],
        }
        for value in others.get(kind, []):
            yield place, value, f"no {kind}"
    if kind == "string":
        if "maxLength" in schema:
            yield place, "x" * (schema["maxLength"] + 1), f"more than {schema['maxLength']} characters"
        if schema.get("minLength"):
            yield place, "x" * (schema["minLength"] - 1), f"less than {schema['minLength']} characters"
    if "enum" in schema:
        yield place, "no such word" if kind == "string" else 999, "none of the words"
    for bound, step in (("minimum", -1), ("maximum", 1)):
        if bound in schema:
            yield place, schema[bound] + step, f"beyond its {bound}"
    if kind == "object":
        for member in schema.get("required", []):
            yield (*place, member), None, "missing"
        for member, inner in schema.get("properties", {}).items():
            yield from wrongs(api, inner, (*place, member))
    if "multipleOf" in schema:
        yield place, schema.get("minimum", 0) + schema["multipleOf"] + 1, f"no multiple of {schema['multipleOf']}"
    if kind == "array" and schema.get("maxItems", 10_000) <= 1000:
        element = "x" if api.resolve(schema["items"]).get("type") == "string" else {}
        yield place, [element] * (schema["maxItems"] + 1), f"more than {schema['maxItems']} elements"
    if kind == "array" and schema.get("minItems"):
        yield place, [], "empty"
    if kind == "array" and "items" in schema:
        yield from wrongs(api, schema["items"], (*place, 0))


def put(body: Any, place: tuple, value: Any) -> Any:
    """A body with a value at a place; None takes the member away."""
    body = copy.deepcopy(body)
    at = body
    for index, part in enumerate(place[:-1]):
        empty: Any = [] if isinstance(place[index + 1], int) else {}
        if isinstance(part, int):
            if not at:
                at.append(empty)
            at = at[0]
        else:
            if not isinstance(at.get(part), type(empty)):
                at[part] = empty
            at = at[part]
    last = place[-1]
    if isinstance(last, int):
        at[:] = [value, *at[1:]]
    elif value is None:
        at.pop(last, None)
    else:
        at[last] = value
    return body


def problem(
    answer: Answer, what: str, name: str = "", value: Optional[str] = None, statuses=range(400, 500)
) -> Optional[str]:
    """What is wrong with a refusal, if anything."""
    shown = f"{what}: {answer.status} {answer.text[:160]}"
    if answer.status not in statuses or answer.status >= 500:
        return shown
    if not isinstance(answer.json, dict) or not answer.json.get("error_code") or not answer.json.get("error_msg"):
        return f"{shown} (not in the form of an error)"
    if name and not any(word in answer.json["error_msg"] for word in (name, value) if word):
        return f"{shown} (does not name {name})"
    return None


def judge(problems: list, asked: int) -> None:
    found = [text for text in problems if text]
    require(asked > 0, "nothing was asked")
    if found:
        raise Failure(f"{len(found)} of {asked}: " + " ;; ".join(found[:6]))


def named(place: tuple) -> str:
    return next(part for part in reversed(place) if isinstance(part, str))


@case("rest-input", "every group of operations has its cases", deadline=20)
def complete(ctx):
    api = Api(ctx)
    tags = {operation["tags"][0] for _, _, operation in api.operations()}
    expect(sorted(tags - set(TAGS)), [], "groups without cases")
    keys = {f"{method} {path.removeprefix(PREFIX)}" for method, path, _ in api.operations()}
    unknown = [key for key, _, _ in MORE if key not in keys]
    expect(sorted(set(unknown) | (set(BODIES) - keys)), [], "operations of the table that there are not")


@case(SUITES, "members: wrong type, out of range, no such word, missing", deadline=90)
def members(ctx, tag):
    api = api_of(ctx)
    problems, asked = [], 0
    for method, path, operation in api.operations(tag):
        key = f"{method} {path.removeprefix(PREFIX)}"
        schema, right = api.body_schema(operation), api.right_body(key, operation)
        if schema is None:
            continue
        rows = list(wrongs(api, schema))
        rows += [(tuple(member.split(".")), value, "wrong") for of, member, value in MORE if of == key]
        for place, value, why in rows:
            whole = ".".join(str(part) for part in place)
            if (key, place[0]) in NOT_READ or (key, whole) in NOT_READ:
                continue
            body = put(right, place, value)
            asked += 1
            query = "?action_id=resetSecret" if path.endswith("/action") else ""
            answer = api.ask(method, api.path(path), body, query=query)
            # What refers to something that there is not is named by its value as well.
            names = (named(place), value if value == "nothing" or value == "nobody" else None)
            problems.append(problem(answer, f"{key} {whole} {json.dumps(value)[:40]} ({why})", *names))
    judge(problems, asked) if asked else None


@case(SUITES, "bodies that are none, and ids that there are not", deadline=60)
def bodies_and_ids(ctx, tag):
    api = api_of(ctx)
    problems, asked = [], 0
    for method, path, operation in api.operations(tag):
        key = f"{method} {path.removeprefix(PREFIX)}"
        query = "?action_id=resetSecret" if path.endswith("/action") else ""
        right = api.right_body(key, operation)
        if right is not None:
            for body in (b"{", b"[]", b"null", b"7", b'"text"', b"\xff\xfe", b'{"a":1}{', b"[" * 5000):
                asked += 1
                answer = api.ask(method, api.path(path), body, query=query)
                problems.append(problem(answer, f"{key} with {body[:12]!r}"))
        for name in [part[1:-1] for part in path.split("/") if part.startswith("{") and part != "{project_id}"]:
            for unknown in ("unknown", "%00", "a" * 3000, "%F0%9F%98%80", "..", "%2F"):
                asked += 1
                answer = api.ask(method, api.path(path, **{name: unknown}), right, query=query)
                statuses = UNKNOWN_STATUS.get(name, DEFAULT_UNKNOWN) if unknown == "unknown" else range(400, 500)
                problems.append(problem(answer, f"{key} with {name} {unknown[:10]}", statuses=statuses))
    judge(problems, asked)


@case(SUITES, "queries that are wrong", deadline=40)
def queries(ctx, tag):
    api = api_of(ctx)
    problems, asked = [], 0
    for method, path, operation in api.operations(tag):
        key = f"{method} {path.removeprefix(PREFIX)}"
        for parameter in operation["parameters"]:
            for value in QUERIES.get(parameter["name"], []) if parameter["in"] == "query" else []:
                asked += 1
                right = api.right_body(key, operation)
                answer = api.ask(method, api.path(path), right, query=f"?{parameter['name']}={value}")
                problems.append(problem(answer, f"{key} ?{parameter['name']}={value}", parameter["name"]))
        if method == "GET":
            asked += 1
            answer = api.ask(method, api.path(path), query="?limit=%FF")
            problems.append(problem(answer, f"{key} with a query that is not UTF-8"))
    judge(problems, asked) if asked else None


@case(SUITES, "foreign projects, no token, a role that may not", deadline=40)
def people(ctx, tag):
    api = api_of(ctx)
    user = {"name": api.ids["user_name"], "password": api.ids["password"]}
    body = {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"id": api.rest.project}},
        }
    }
    viewer = request(ctx.endpoints, "POST", "/v3/auth/tokens", body).headers["X-Subject-Token"]
    problems, asked = [], 0
    for method, path, operation in api.operations(tag):
        key = f"{method} {path.removeprefix(PREFIX)}"
        right = api.right_body(key, operation)
        where = api.path(path)
        rows = [(where, "", "no token", (401,)), (where, "x" * 40, "a token that is none", (401,))]
        rows.append((api.path(path, project_id="foreign"), None, "a foreign project", (401, 403)))
        if operation["x-role"] != "viewer":
            rows.append((where, viewer, "a viewer", (403,)))
        for target, token, what, statuses in rows:
            asked += 1
            problems.append(problem(api.ask(method, target, right, token), f"{key} by {what}", statuses=statuses))
    judge(problems, asked)


@case("rest-input", "numbers beyond all bounds, deep JSON, long text: never a 5xx", deadline=60)
def extremes(ctx):
    api = api_of(ctx)
    deep: Any = "x"
    for _ in range(100):
        deep = [deep]
    values = [
        deep,
        {"a": deep},
        10**40,
        -(10**40),
        1e308,
        "\u0000",
        "\ud83d\ude00" * 2000,
        "x" * 300_000,
        {"": ""},
        [None] * 1000,
    ]
    problems, asked = [], 0
    for method, path, operation in api.operations():
        key = f"{method} {path.removeprefix(PREFIX)}"
        schema, right = api.body_schema(operation), api.right_body(key, operation)
        # A new access code would end what other cases stand on.
        if schema is None or key == "POST /auth/accesscode":
            continue
        query = "?action_id=resetSecret" if path.endswith("/action") else ""
        for member in schema.get("properties", {}):
            for value in values:
                asked += 1
                # Of something that there is not, so that nothing is changed where this is allowed.
                last = path.rpartition("{")[2].rstrip("}") if path.endswith("}") else None
                other = {last: "unknown"} if last else {}
                answer = api.ask(method, api.path(path, **other), {**right, member: value}, query=query)
                if answer.status >= 500:
                    problems.append(f"{key} {member} {str(value)[:20]}: {answer.status} {answer.text[:120]}")
    judge(problems, asked)
    expect(request(ctx.endpoints, "GET", "/openapi.json").status, 200, "the node still answers")
