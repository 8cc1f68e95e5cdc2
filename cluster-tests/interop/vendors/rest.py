"""A small client of the REST API, for what cases need made, frozen, deleted or looked at."""

import http.client
import json
import threading
import urllib.parse
from typing import Any, Optional

from harness import Context, Endpoints, Failure

_TOKENS: dict[tuple[str, str], str] = {}
_LOCK = threading.Lock()

# The platform waits 20 s for a device; a caller must wait longer.
TIMEOUT_S = 40


class Answer:
    def __init__(self, status: int, headers: Any, body: bytes):
        self.status = status
        self.headers = headers
        self.text = body.decode("utf-8", "replace")
        try:
            self.json = json.loads(self.text) if body else {}
        except ValueError:
            self.json = None


def request(
    endpoints: Endpoints,
    method: str,
    path: str,
    body: Any = None,
    headers: Optional[dict] = None,
    *,
    node: int = 0,
    door: str = "rest",
) -> Answer:
    """One request, with nothing added. `body` is JSON unless it is bytes."""
    where = endpoints.door(door, node)
    if door == "https":
        context = endpoints.tls()
        context.check_hostname = False
        connection: Any = http.client.HTTPSConnection(where.host, where.port, timeout=TIMEOUT_S, context=context)
    else:
        connection = http.client.HTTPConnection(where.host, where.port, timeout=TIMEOUT_S)
    sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    try:
        connection.request(method, path, sent, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


class Rest:
    """Signed in as the user of endpoints.json, at one node."""

    def __init__(self, ctx: Context, node: int = 0):
        self.ctx = ctx
        self.node = node
        known = ctx.endpoints.credentials.get("rest")
        if not known:
            raise Failure("endpoints.json has no credentials for REST")
        self.user, self.password, self.project = known["user"], known["password"], known["project_id"]

    def token(self) -> str:
        """One for all cases: it is valid on every node."""
        with _LOCK:
            key = (self.user, self.project)
            if key not in _TOKENS:
                # The user is registered some time after the nodes serve.
                _TOKENS[key] = self.ctx.poll(self.sign_in, lambda: f"a token for {self.user}")
            return _TOKENS[key]

    def sign_in(self) -> Optional[str]:
        user = {"name": self.user, "password": self.password}
        scope = {"project": {"id": self.project}}
        identity = {"methods": ["password"], "password": {"user": user}}
        body = {"auth": {"identity": identity, "scope": scope}}
        answer = request(self.ctx.endpoints, "POST", "/v3/auth/tokens", body, node=self.node)
        return answer.headers.get("X-Subject-Token") if answer.status == 201 else None

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """`path` is relative to the project."""
        whole = f"/v5/iot/{urllib.parse.quote(self.project)}{path}"
        return request(self.ctx.endpoints, method, whole, body, {"X-Auth-Token": self.token()}, node=self.node)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.ask(method, path, body)
        if answer.status >= 300:
            raise Failure(f"{method} {path}: {answer.status} {answer.text[:300]}")
        return answer.json

    def make(self, path: str, body: dict) -> Any:
        """Creates what may be there already."""
        answer = self.ask("POST", path, body)
        if answer.status >= 300 and answer.status != 409:
            raise Failure(f"POST {path}: {answer.status} {answer.text[:300]}")
        return answer.json

    # Devices

    def add_device(self, product: str, name: str, secret: Optional[str] = None, **more: Any) -> dict:
        auth = {"auth_type": "SECRET", **({"secret": secret} if secret else {})}
        auth.update(more.pop("auth_info", {}))
        return self.call("POST", "/devices", {"product_id": product, "node_id": name, "auth_info": auth, **more})

    def device(self, device_id: str) -> dict:
        return self.call("GET", f"/devices/{urllib.parse.quote(device_id, safe='')}")

    def status(self, device_id: str) -> str:
        return self.device(device_id)["status"]

    def wait_status(self, device_id: str, wanted: str) -> None:
        last = [None]

        def there():
            last[0] = self.status(device_id)
            return last[0] == wanted

        self.ctx.poll(there, lambda: f"{device_id} to be {wanted}; it is {last[0]}")
