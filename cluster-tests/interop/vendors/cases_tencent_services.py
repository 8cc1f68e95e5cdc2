"""Tencent: what the SDK's own services do with ours. REST on node 1, the SDK where its host name leads: node 0."""

import json
import os
import signal

from harness import Context, case, expect, require
from vendors.cases_aliyun_calls import response
from vendors.cases_tencent import sdk
from vendors.devices import TENCENT, Device
from vendors.program import Program, need_vendor_names
from vendors.rest import Answer, Rest


def connected(ctx: Context, device: Device, **fields) -> Program:
    program = sdk(ctx, device, **fields)
    expect(program.wait("connect")["rc"], 0, "on_connect")
    device.wait_status("ONLINE")
    return program


def rrpc(device: Device, payload: str, node: int = 1, **more) -> Answer:
    return Rest(device.ctx, node).ask("POST", f"/devices/{device.id}/rrpc", {"payload": payload, **more})


@case("tencent-services", "RRPC: the reply reaches the caller", deadline=40)
def answered(ctx):
    need_vendor_names()
    device = Device(ctx, TENCENT)
    program = connected(ctx, device)
    program.ask("rrpc", "ready")
    program.wait("subscribed")
    for number in range(3):
        told = response(rrpc(device, json.dumps({"n": number}), node=number))
        expect(json.loads(told["payload"]), {"heard": {"n": number}}, "response")
        expect(program.wait("rrpc")["payload"], {"n": number}, "what it got")


@case("tencent-services", "RRPC: frozen, and without a subscription", deadline=60)
def unanswered(ctx):
    need_vendor_names()
    device = Device(ctx, TENCENT)
    program = connected(ctx, device)
    # The SDK subscribes by itself, and until it has, it gets nothing.
    early = rrpc(device, '{"n":0}')
    expect((early.status, early.json.get("error_code")), (403, "IOTDA.014112"), f"not subscribed: {early.text}")
    program.ask("rrpc", "ready")
    program.wait("subscribed")
    os.kill(program.process.pid, signal.SIGSTOP)
    ctx.on_close(lambda: os.kill(program.process.pid, signal.SIGCONT))
    late = rrpc(device, '{"n":1}')
    require(late.status == 200 and late.json.get("error_code") == "IOTDA.014111", f"frozen: {late.status} {late.text}")


@case("tencent-services", "a command comes as RRPC, and the reply is its response", deadline=40)
def command(ctx):
    need_vendor_names()
    device = Device(ctx, TENCENT)
    program = connected(ctx, device)
    program.ask("rrpc", "ready")
    program.wait("subscribed")
    body = {"service_id": "s", "command_name": "light", "paras": {"on": True}}
    answer = Rest(ctx, 1).ask("POST", f"/devices/{device.id}/commands", body)
    expect(response(answer), {"heard": {"type": "command", **body}}, "response")


@case("tencent-services", "control: what is to have no answer is published on it", deadline=40)
def control(ctx):
    need_vendor_names()
    device = Device(ctx, TENCENT)
    program = connected(ctx, device)
    program.ask("subscribe", "subscribed", topic=device.topic("control"), qos=1)
    require(response(rrpc(device, '{"led": "on"}', reply=False)) is None, "there is a response")
    got = program.wait("message")
    expect((got["topic"], got["payload"]), (device.topic("control"), {"led": "on"}), "message")


@case("tencent-services", "shadow: get, update, and the delta of what is desired", deadline=40)
def shadow(ctx):
    need_vendor_names()
    device = Device(ctx, TENCENT)
    program = connected(ctx, device)
    program.ask("shadow", "ready")
    program.wait("subscribed")
    program.tell("get_shadow")
    got = program.wait("shadow")["payload"]
    expect((got["type"], got["result"]), ("get", 0), f"get: {got}")
    program.tell("report_shadow", key="level", value=7)
    got = program.wait("shadow")["payload"]
    expect((got["type"], got["result"]), ("update", 0), f"update: {got}")
    program.tell("get_shadow")
    got = program.wait("shadow")["payload"]
    expect(got["payload"]["state"]["reported"], {"level": 7}, f"reported: {got}")
    device.rest.call(
        "PUT", f"/devices/{device.id}/shadow", {"shadow": [{"service_id": "default", "desired": {"level": 9}}]}
    )
    delta = program.wait("shadow")["payload"]
    expect((delta["type"], delta["payload"]["state"]), ("delta", {"level": 9}), f"delta: {delta}")
    program.tell("clear_desired")
    got = program.wait("shadow")["payload"]
    expect((got["type"], got["result"]), ("update", 0), f"desired null: {got}")


@case("tencent-services", "OTA: the version, the notice, the new version", deadline=40)
def ota(ctx):
    need_vendor_names()
    device = Device(ctx, TENCENT)
    program = connected(ctx, device)
    expect(program.ask("ota", "ready")["result"][0], 0, "otaInit")
    program.tell("report_version", version="1.0.0")
    told = program.wait("ota")["payload"]
    expect((told["type"], told["result_code"], told["version"]), ("report_version_rsp", 0, "1.0.0"), "answer")
    version = lambda: device.rest.device(device.id).get("fw_version")
    ctx.poll(lambda: version() == "1.0.0", lambda: f"fw_version 1.0.0, is {version()}")
    document = {
        "version": "1.3.0",
        "url": "https://firmware.example/f",
        "file_size": 1000,
        "sign": "0" * 32,
        "sign_method": "Md5",
    }
    task = {"task_name": f"ota_{ctx.suffix}", "task_type": "firmwareUpgrade", "targets": [device.id]}
    device.rest.call("POST", "/batchtasks", {**task, "document": document})
    # The SDK takes the notice apart by itself, and has no callback for it.
    ctx.poll(lambda: program.ask("fetching", "fetching")["fetching"], lambda: "otaIsFetching()")
    program.tell("upgraded", version="1.3.0")
    program.tell("report_version", version="1.3.0")
    ctx.poll(lambda: version() == "1.3.0", lambda: f"fw_version 1.3.0, is {version()}")
