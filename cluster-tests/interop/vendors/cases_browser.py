"""MQTT.js 5 in a headless Chromium, as a Tencent key device over WebSocket, in both directions."""

import http.server
import json
import os
import subprocess
import tempfile
import threading
import time
import urllib.parse

from harness import Context, Failure, case, expect, require
from paho_client import V311, Client
from vendors.devices import TENCENT, Device
from vendors.program import HERE, tool


class Page:
    """The page, the library beside it, and what the page tells, by one local server."""

    def __init__(self, ctx: Context):
        self.ctx = ctx
        self.changed = threading.Condition()
        self.events: list[dict] = []
        library = os.path.join(tool("node"), "node_modules", "mqtt-5", "dist", "mqtt.min.js")
        files = {"/": os.path.join(HERE, "programs", "browser.html"), "/mqtt.js": library}
        page = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                path = files.get(self.path)
                self.send_response(200 if path else 404)
                self.send_header("Content-Type", "text/javascript" if self.path.endswith(".js") else "text/html")
                self.end_headers()
                if path:
                    with open(path, "rb") as file:
                        self.wfile.write(file.read())

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(204)
                self.end_headers()
                with page.changed:
                    page.events.append(json.loads(body))
                    page.changed.notify_all()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        ctx.on_close(self.server.shutdown)

    def open(self, arguments: dict) -> None:
        port = self.server.server_address[1]
        url = f"http://127.0.0.1:{port}/#{urllib.parse.quote(json.dumps(arguments))}"
        profile = tempfile.TemporaryDirectory(prefix="interop-chromium-", ignore_cleanup_errors=True)
        self.ctx.on_close(profile.cleanup)
        process = subprocess.Popen(
            [tool("chromium"), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--no-first-run", "--disable-background-networking", f"--user-data-dir={profile.name}", url],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )

        def stop():
            # Its children are in its process group.
            os.killpg(process.pid, 9)
            process.wait()

        self.ctx.on_close(stop)

    def wait(self, event: str) -> dict:
        def found():
            return next((e for e in self.events if e["event"] == event), None)

        def failed():
            return next((e for e in self.events if e["event"] == "error"), None)

        self.ctx.wait(self.changed, lambda: found() or failed(), lambda: f"{event} from the page; it told {self.events}")
        with self.changed:
            value = found()
            if value is None:
                raise Failure(f"the page failed before {event}: {failed()}")
            self.events.remove(value)
            return value


@case("chromium", "a key device over WebSocket, in both directions", deadline=60)
def browser(ctx):
    device = Device(ctx, TENCENT)
    other = Client(ctx, V311, "app", node=1).connect()
    other.subscribe(device.topic("data"), 1)
    page = Page(ctx)
    door = ctx.endpoints.door("ws")
    clock = f"$sys/operation/{TENCENT}/{device.name}"
    page.open({
        "url": f"ws://{door.host}:{door.port}/mqtt",
        "product_id": device.product, "device_name": device.name, "secret": device.secret,
        "subscribe": [device.topic("control"), clock.replace("operation/", "operation/result/")],
        "publish": [
            {"topic": device.topic("data"), "payload": "from the page", "qos": 1},
            {"topic": clock, "payload": '{"type":"get","resource":["time"]}', "qos": 1},
        ],
    })
    origin = page.wait("connect")["origin"]
    require(origin.startswith("http://127.0.0.1"), f"origin: {origin}")
    expect(page.wait("subscribed")["granted"], [1, 1], "granted")
    for _ in range(2):
        expect(page.wait("published")["error"], None, "PUBACK")
    expect(other.take_one().payload, b"from the page", "message")
    device.wait_status("ONLINE")
    other.publish(device.topic("control"), b"to the page", qos=1)
    got = {message["topic"]: message["payload"] for message in (page.wait("message") for _ in range(2))}
    expect(got.pop(device.topic("control")), "to the page", "message in the page")
    told = json.loads(got.popitem()[1])
    require(abs(told["time"] - time.time()) < 5, f"the platform's time: {told}")
