"""Aliyun: what the platform asks of devices. REST on node 0, the SDKs on node 1."""

import hashlib
import http.server
import json
import os
import signal
import ssl
import tempfile
import threading
import time

from harness import Context, case, expect, require
from vendors.cases_aliyun import WAYS, linkkit, node_device, triple
from vendors.devices import ALIYUN, Device
from vendors.pki import authority, certificate_for, pem
from vendors.program import Program
from vendors.rest import Answer, Rest

SDK = "alibabacloud-iot-device-sdk"
TCP = WAYS["linkkit-tcp"]
TIMED_OUT, OFFLINE = "IOTDA.014111", "IOTDA.014016"


def set_properties(device: Device, properties: dict, node: int = 0) -> Answer:
    body = {"services": [{"service_id": "default", "properties": properties}]}
    return Rest(device.ctx, node).ask("PUT", f"/devices/{device.id}/properties", body)


def call_service(device: Device, name: str, paras: dict, node: int = 0) -> Answer:
    return Rest(device.ctx, node).ask("POST", f"/devices/{device.id}/commands", {"command_name": name, "paras": paras})


def call_service_at_once(device: Device, name: str, paras: dict, node: int = 0) -> Answer:
    body = {"command_name": name, "paras": paras, "at_once": True}
    return Rest(device.ctx, node).ask("POST", f"/devices/{device.id}/commands", body)


def rrpc(device: Device, payload: str, node: int = 0, **more) -> Answer:
    return Rest(device.ctx, node).ask("POST", f"/devices/{device.id}/rrpc", {"payload": payload, **more})


def response(answer: Answer):
    """Of a call that went well."""
    require(answer.status == 200 and not answer.json.get("error_code"), f"{answer.status} {answer.text}")
    return answer.json["response"]


def connected(ctx: Context, device: Device, node: int = 1, **fields) -> Program:
    program = linkkit(ctx, TCP, node=node, **triple(device), **fields)
    expect(program.wait("connect")["rc"], 0, "on_connect")
    program.wait("enabled")
    device.wait_status("ONLINE")
    return program


@case("linkkit-calls", "a property set reaches on_thing_prop_changed, and set_reply the caller", deadline=30)
def property_set(ctx):
    device = Device(ctx, ALIYUN)
    program = connected(ctx, device)
    for node in (0, 1, 2):
        told = response(set_properties(device, {"temperature": 20 + node}, node))
        expect(told["result_code"], 0, f"from node {node}")
        expect(program.wait("property_set")["params"], {"temperature": 20 + node}, "on_thing_prop_changed")


@case("linkkit-calls", "a service, asynchronous and at once: the answer reaches the caller", deadline=30)
def services(ctx):
    device = Device(ctx, ALIYUN)
    program = connected(ctx, device)
    for call in (call_service, call_service_at_once):
        told = response(call(device, "open", {"angle": 45}))
        expect((told["result_code"], told["paras"]), (0, {"opened": 45}), call.__name__)
        got = program.wait("service")
        expect((got["name"], got["params"]), ("open", {"angle": 45}), "on_thing_call_service")
        require(isinstance(got["id"], str), f"an id that is no string: {got['id']!r}")


@case("linkkit-calls", "frozen: each kind of call times out, and says so", deadline=70)
def timed_out(ctx):
    device = Device(ctx, ALIYUN)
    program = connected(ctx, device)
    os.kill(program.process.pid, signal.SIGSTOP)
    ctx.on_close(lambda: os.kill(program.process.pid, signal.SIGCONT))
    calls = [
        ctx.later(lambda: set_properties(device, {"temperature": 1})),
        ctx.later(lambda: call_service(device, "open", {"angle": 1})),
        ctx.later(lambda: call_service_at_once(device, "open", {"angle": 1})),
    ]
    for call in calls:
        answer = call.result()
        require(answer.status == 200 and answer.json.get("error_code") == TIMED_OUT, f"{answer.status} {answer.text}")


@case("linkkit-calls", "frozen: it is shown OFFLINE once 1.5 times its keep alive is over", deadline=100)
def silent(ctx):
    device = Device(ctx, ALIYUN)
    program = connected(ctx, device, keep_alive=30)
    began = time.monotonic()
    os.kill(program.process.pid, signal.SIGSTOP)
    ctx.on_close(lambda: os.kill(program.process.pid, signal.SIGCONT))
    device.wait_status("OFFLINE")
    # Its last packet may be as old as its keep alive when it is frozen.
    took = time.monotonic() - began
    require(13 <= took <= 50, f"it was shown so after {took:.0f} s")


@case("linkkit-calls", "RRPC of any bytes comes without a SUBSCRIBE, and the answer reaches the caller", deadline=30)
def own_rrpc(ctx):
    device = Device(ctx, ALIYUN)
    program = connected(ctx, device)
    for number, payload in enumerate(("hello", "not JSON \u00e9")):
        call = ctx.later(lambda: rrpc(device, payload, number))
        # The SDK has no call of its own for this one: its author answers by hand.
        got = program.wait("message", lambda e: "/rrpc/request/" in e["topic"])
        program.tell("publish", topic=got["topic"].replace("/request/", "/response/"), payload=f"heard {number}", qos=0)
        told = response(call.result())
        require(f"heard {number}" in told["payload"], f"response: {told}")


@case("linkkit-calls", "offline: 403 at once, whatever is called", deadline=30)
def offline(ctx):
    device = Device(ctx, ALIYUN)
    for call in (
        lambda: set_properties(device, {"temperature": 1}),
        lambda: call_service(device, "open", {}),
        lambda: call_service_at_once(device, "open", {}),
        lambda: rrpc(device, "x"),
    ):
        answer = call()
        expect((answer.status, answer.json.get("error_code")), (403, OFFLINE), answer.text)


@case(SDK, "a property set reaches onProps, and its answer the caller", deadline=30)
def node_property_set(ctx):
    device = Device(ctx, ALIYUN)
    program = node_device(ctx, SDK, device, node=1)
    program.wait("suback", lambda e: e["number"] == 16)
    device.wait_status("ONLINE")
    expect(response(set_properties(device, {"temperature": 20}))["result_code"], 0, "result_code")
    request = program.wait("property_set")["request"]
    expect((request["params"], request["method"]), ({"temperature": 20}, "thing.service.property.set"), "onProps")


@case(SDK, "a service reaches onService, and its reply the caller", deadline=30)
def node_service(ctx):
    device = Device(ctx, ALIYUN)
    door = ctx.endpoints.door("mqtt", 1)
    own = {"productKey": device.product, "deviceName": device.name, "deviceSecret": device.secret}
    config = {**own, "brokerUrl": f"mqtt://{door.host}:{door.port}/"}
    program = Program(
        ctx, "node", "aliyun_device.mjs", {"package": SDK, "config": config, "services": {"open": "async"}}
    )
    # Its own 16, and the service's.
    program.wait("suback", lambda e: e["number"] == 17)
    device.wait_status("ONLINE")
    told = response(call_service(device, "open", {"angle": 30}))
    expect((told["result_code"], told["paras"]), (0, {"opened": 30}), "response")
    expect(program.wait("service")["request"]["method"], "thing.service.open", "method")


@case(SDK, "RRPC in the old form reaches it, and its reply the caller", deadline=30)
def node_rrpc(ctx):
    device = Device(ctx, ALIYUN)
    door = ctx.endpoints.door("mqtt", 1)
    own = {"productKey": device.product, "deviceName": device.name, "deviceSecret": device.secret}
    config = {**own, "brokerUrl": f"mqtt://{door.host}:{door.port}/"}
    program = Program(
        ctx, "node", "aliyun_device.mjs", {"package": SDK, "config": config, "services": {"open": "sync"}}
    )
    program.wait("suback", lambda e: e["number"] == 17)
    device.wait_status("ONLINE")
    request = {"id": "7", "version": "1.0", "params": {"angle": 60}, "method": "thing.service.open"}
    told = response(rrpc(device, json.dumps(request)))
    expect(json.loads(told["payload"])["data"], {"opened": 60}, "response")
    expect(program.wait("service")["request"]["params"], {"angle": 60}, "what onService got")


@case("linkkit-shadow", "update, get, a version that is too old, and what the platform desires", deadline=40)
def shadow(ctx):
    device = Device(ctx, ALIYUN)
    program = connected(ctx, device)
    program.ask("update_shadow", "sent", reported={"color": "red"}, version=1)
    reply = program.wait("shadow")["payload"]
    expect((reply["method"], reply["payload"]["status"]), ("reply", "success"), f"update: {reply}")
    program.ask("get_shadow", "sent")
    got = program.wait("shadow")["payload"]
    expect(got["payload"]["state"]["reported"], {"color": "red"}, f"get: {got}")
    program.ask("update_shadow", "sent", reported={"color": "blue"}, version=1)
    refused = program.wait("shadow")["payload"]["payload"]
    expect(
        (refused["status"], str(refused["content"]["errorcode"])),
        ("error", "409"),
        f"the same version again: {refused}",
    )
    device.rest.call(
        "PUT", f"/devices/{device.id}/shadow", {"shadow": [{"service_id": "default", "desired": {"color": "green"}}]}
    )
    told = program.wait("shadow")["payload"]
    expect((told["method"], told["payload"]["state"]["desired"]), ("control", {"color": "green"}), f"control: {told}")


@case(SDK, "shadow: post, get, delete, by its own versions", deadline=30)
def node_shadow(ctx):
    device = Device(ctx, ALIYUN)
    program = node_device(ctx, SDK, device, node=1)
    program.wait("suback", lambda e: e["number"] == 16)
    program.tell("post_shadow", reported={"a": 1, "b": 2})
    expect(program.wait("shadow")["shadow"]["payload"]["status"], "success", "postShadow")
    program.tell("delete_shadow", keys=["a"])
    expect(program.wait("shadow")["shadow"]["payload"]["status"], "success", "deleteShadow")
    program.tell("get_shadow")
    expect(program.wait("shadow")["shadow"]["payload"]["state"]["reported"], {"b": 2}, "getShadow")


@case("aliyun-ntp", "the time comes without a SUBSCRIBE", deadline=20)
def ntp(ctx):
    device = Device(ctx, ALIYUN)
    client = device.client(node=1).connect()
    client.publish(f"/ext/ntp/{ALIYUN}/{device.name}/request", json.dumps({"deviceSendTime": "1571724098000"}), qos=0)
    message = client.take_one()
    expect(message.topic, f"/ext/ntp/{ALIYUN}/{device.name}/response", "topic")
    told = json.loads(message.payload)
    expect(str(told["deviceSendTime"]), "1571724098000", "deviceSendTime")
    require(int(told["serverRecvTime"]) <= int(told["serverSendTime"]), f"{told}")


def https_file(ctx: Context, content: bytes) -> tuple[str, str, list]:
    """A file server over TLS; its URL, its authority's certificate, and the Range headers that it was sent."""
    certificate, key = certificate_for(Rest(ctx), "firmware", "127.0.0.1")
    folder = tempfile.mkdtemp(prefix="interop-firmware-")
    path = os.path.join(folder, "server.pem")
    with open(path, "wb") as file:
        file.write(certificate + key)
    ranges: list = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            ranges.append(wanted)
            begin, end = 0, len(content)
            if wanted:
                low, _, high = wanted.removeprefix("bytes=").partition("-")
                begin, end = int(low), min(int(high or len(content) - 1) + 1, len(content))
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(end - begin))
            self.end_headers()
            self.wfile.write(content[begin:end])

        def log_message(self, *_):
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ctx.on_close(server.shutdown)
    return f"https://127.0.0.1:{server.server_port}/firmware.bin", pem(authority(Rest(ctx))[0]).decode(), ranges


@case("linkkit-ota", "version, notice, download over HTTPS, progress, new version", deadline=60)
def ota(ctx):
    device = Device(ctx, ALIYUN)
    content = os.urandom(40_000)
    url, ca, _ = https_file(ctx, content)
    folder = tempfile.mkdtemp(prefix="interop-ota-")
    both = os.path.join(folder, "ca.pem")
    # The SDK trusts one and the same list for MQTT and for downloads.
    with open(ctx.endpoints.ca, encoding="ascii") as own, open(both, "w", encoding="ascii") as file:
        file.write(own.read() + ca)
    program = connected(ctx, device, ca=both)
    version = lambda: device.rest.device(device.id).get("fw_version")
    program.ask("report_version", "sent", version="1.0.0")
    ctx.poll(lambda: version() == "1.0.0", lambda: f"fw_version 1.0.0, is {version()}")
    sign = hashlib.md5(content).hexdigest()
    document = {"version": "2.0.0", "url": url, "file_size": len(content), "sign": sign, "sign_method": "Md5"}
    task = {"task_name": f"ota_{ctx.suffix}", "task_type": "firmwareUpgrade", "targets": [device.id]}
    refused = device.rest.ask(
        "POST", "/batchtasks", {**task, "document": {**document, "url": url.replace("https:", "http:")}}
    )
    require(
        refused.status == 400 and "url" in refused.json["error_msg"], f"an http: URL: {refused.status} {refused.text}"
    )
    device.rest.call("POST", "/batchtasks", {**task, "document": document})
    notice = program.wait("firmware")
    expect(
        (notice["kind"], notice["version"], int(notice["size"]), notice["url"], notice["method"], notice["sign"]),
        (1, "2.0.0", len(content), url, "Md5", sign),
        "on_ota_message_arrived",
    )
    path = os.path.join(folder, "firmware.bin")
    told = program.ask("download", "downloaded", url=url, path=path, method="Md5", sign=sign)
    expect(told["result"], "SUCCESS", "download_ota_firmware")
    for step in ("10", "100"):
        progress = json.dumps({"id": 1, "params": {"step": step, "desc": ""}})
        program.tell("publish", topic=f"/ota/device/progress/{ALIYUN}/{device.name}", payload=progress, qos=1)
    program.ask("report_version", "sent", version="2.0.0")
    ctx.poll(lambda: version() == "2.0.0", lambda: f"fw_version 2.0.0, is {version()}")
