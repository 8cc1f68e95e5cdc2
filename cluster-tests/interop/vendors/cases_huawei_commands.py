"""Huawei IoTDA: commands and properties. The vendor's REST SDK on node 0, the device on node 1."""

import time

from huaweicloudsdkiotda.v5 import (
    AsyncDeviceCommandRequest,
    CreateAsyncCommandRequest,
    DevicePropertiesRequest,
    ListPropertiesRequest,
    UpdatePropertiesRequest,
)

from harness import case, expect, require
from paho_client import V5, V31, V311
from vendors.devices import HUAWEI, Device
from vendors.huawei import command, error_of, firmware, sdk, succeed

VERSIONS = {"huawei-command-3.1": V31, "huawei-command-3.1.1": V311, "huawei-command-5": V5}
TIMED_OUT, OFFLINE = "IOTDA.014111", "IOTDA.014016"


@case(VERSIONS, "it reaches the device, and the answer its caller", deadline=20)
def answered(ctx, version):
    device = Device(ctx, HUAWEI)
    meter = firmware(device, version=version)
    meter.answers["commands"] = succeed
    for node in (0, 1, 2):
        told = command(sdk(ctx, node), device.id)
        require(told.command_id and not told.error_code, f"from node {node}: {told}")
        wanted = {
            "result_code": 0,
            "response_name": "COMMAND_RESPONSE",
            "paras": {"result": "success", "echo": {"value": "ON"}},
        }
        expect(told.response, wanted, f"response at node {node}")
        request, body = meter.wait_asked("commands", node + 1)
        expect(
            body,
            {
                "object_device_id": device.id,
                "command_name": "ON_OFF",
                "service_id": "WaterMeter",
                "paras": {"value": "ON"},
            },
            "what the device got",
        )
        expect(request, told.command_id, "the request id and command_id")
    expect(len(meter.asked), 3, "commands that came")


@case("huawei-command", "each comes once with commands/# subscribed, and never its own answer", deadline=20)
def explicit(ctx):
    device = Device(ctx, HUAWEI)
    meter = firmware(device)
    meter.answers["commands"] = succeed
    expect(meter.subscribe([(device.topic("sys/commands/#"), 1), (device.topic("sys/#"), 0)]), [1, 0], "SUBACK")
    for number in range(3):
        expect(command(sdk(ctx), device.id).response["result_code"], 0, "result_code")
        meter.barrier()
        expect(len(meter.asked), number + 1, "commands that came")
    topics = [m.topic for m in meter.messages]
    expect([t for t in topics if "/response/" in t], [], "answers that came back")
    expect({m.qos for m in meter.messages}, {1}, "QoS, as subscribed")


@case("huawei-command", "what a device says of itself is passed on, failure or not", deadline=20)
def verbatim(ctx):
    device = Device(ctx, HUAWEI)
    meter = firmware(device)
    for said in (
        {"result_code": 7, "response_name": "r", "paras": {"why": "stuck"}},
        {"result_code": 0},
        {"result_code": 0, "paras": None},
    ):
        meter.answers["commands"] = lambda _, said=said: said
        told = command(sdk(ctx), device.id)
        expect((told.response, told.error_code), (said, None), "answer")


@case("huawei-command", "no answer: IOTDA.014111 after 20 s, and a late answer is nobody's", deadline=70)
def timed_out(ctx):
    device = Device(ctx, HUAWEI)
    meter = firmware(device)
    call = ctx.later(lambda: command(sdk(ctx), device.id))
    request, _ = meter.wait_asked("commands")
    told = call.result()
    require(19 <= call.took <= 23, f"it took {call.took:.1f} s")
    expect((told.error_code, told.response), (TIMED_OUT, None), "what the caller is told, with status 200")
    require(told.error_msg, "error_msg")
    call = ctx.later(lambda: command(sdk(ctx), device.id, "OFF"))
    second, _ = meter.wait_asked("commands", 2)
    require(second != request, "the second command has the first one's request id")
    meter.answer("commands", request, {"result_code": 0, "response_name": "late"})
    meter.answer("commands", "00000000-0000-0000-0000-000000000000", {"result_code": 0, "response_name": "invented"})
    meter.answer("commands", second, {"result_code": 0, "response_name": "own"})
    meter.answer("commands", second, {"result_code": 0, "response_name": "again"})
    expect(call.result().response["response_name"], "own", "whose answer the second command got")
    meter.barrier()
    meter.answers["commands"] = succeed
    expect(command(sdk(ctx), device.id).response["response_name"], "COMMAND_RESPONSE", "the next command's answer")


@case("huawei-command", "another device's answer is nobody's", deadline=30)
def stranger(ctx):
    device, other = Device(ctx, HUAWEI), Device(ctx, HUAWEI, "other")
    meter, thief = firmware(device), firmware(other, node=2)
    call = ctx.later(lambda: command(sdk(ctx), device.id))
    request, _ = meter.wait_asked("commands")
    thief.answer("commands", request, {"result_code": 0, "response_name": "stolen"})
    thief.barrier()
    meter.answer("commands", request, {"result_code": 0, "response_name": "own"})
    expect(call.result().response["response_name"], "own", "whose answer it got")


@case("huawei-command", "offline, never connected: 403 IOTDA.014016 at once; frozen: 403", deadline=30)
def offline(ctx):
    device, fresh, frozen = (Device(ctx, HUAWEI, role) for role in ("d", "fresh", "frozen"))
    client = sdk(ctx)
    firmware(device).disconnect()
    device.wait_status("OFFLINE")
    frozen.rest.call("POST", f"/devices/{frozen.id}/freeze")
    calls = [
        lambda device: command(client, device.id),
        lambda device: client.list_properties(ListPropertiesRequest(device_id=device.id, service_id="WaterMeter")),
        lambda device: client.update_properties(
            UpdatePropertiesRequest(
                device_id=device.id,
                body=DevicePropertiesRequest(services=[{"service_id": "WaterMeter", "properties": {"value": 1}}]),
            )
        ),
    ]
    for target in (device, fresh, frozen):
        for call in calls:
            began = time.monotonic()
            refused = error_of(lambda: call(target))
            # Of a device that is frozen the vendor's documents say nothing.
            wanted = "FULMAR.000013" if target is frozen else OFFLINE
            expect((refused.status_code, refused.error_code), (403, wanted), f"{target.name}")
            require(time.monotonic() - began < 2, f"{target.name}: told after {time.monotonic() - began:.1f} s")
    for call in calls:
        other = error_of(lambda: call(type("Nobody", (), {"id": f"{HUAWEI}_nobody"})))
        expect((other.status_code, other.error_code), (404, "IOTDA.014000"), "an unknown device")


@case("huawei-command", "what the product's model does not have is refused by name", deadline=30)
def model(ctx):
    device = Device(ctx, HUAWEI)
    meter = firmware(device)
    meter.answers["commands"] = succeed
    client = sdk(ctx)
    rows = [
        ({"service_id": "Nothing"}, "service_id"),
        ({"command_name": "NOTHING"}, "command_name"),
        ({"paras": {"value": "MAYBE"}}, "value"),
        ({"paras": {"value": 7}}, "value"),
        ({"paras": {"valve": "ON"}}, "valve"),
    ]
    for changed, name in rows:
        refused = error_of(lambda: command(client, device.id, **changed))
        expect(refused.status_code, 400, f"{changed}: {refused.error_msg}")
        require(
            refused.error_code.startswith("IOTDA.") and name in refused.error_msg,
            f"{changed}: {refused.error_code} {refused.error_msg}",
        )
    # Nothing is known of a command without a service, so nothing is checked.
    expect(
        command(client, device.id, service_id=None, paras={"any": [1, None]}).response["result_code"],
        0,
        "without service_id",
    )
    meter.barrier()
    expect(len(meter.asked), 1, "commands that reached the device")


@case("huawei-command", "they follow a device that moves to another node", deadline=30)
def moved(ctx):
    device = Device(ctx, HUAWEI)
    first = firmware(device, node=1)
    second = firmware(device, node=2)
    first.wait_closed()
    second.answers["commands"] = succeed
    for node in range(3):
        expect(command(sdk(ctx, node), device.id).response["result_code"], 0, f"from node {node}")
    expect((len(first.asked), len(second.asked)), (0, 3), "commands at the first and the second connection")


@case("huawei-command", "many at once: each caller gets its own answer", deadline=40)
def many(ctx):
    rig = [Device(ctx, HUAWEI, f"d{number}") for number in range(4)]
    for number, device in enumerate(rig):
        firmware(device, node=number % 3).answers["commands"] = succeed
    client = sdk(ctx)

    def ask(number: int):
        told = command(client, rig[number % 4].id, service_id=None, paras={"number": number})
        return told.response["paras"]["echo"]["number"]

    calls = [ctx.later(lambda number=number: ask(number)) for number in range(40)]
    expect([call.result() for call in calls], list(range(40)), "what each caller was told")


@case("huawei-command", "asynchronous commands are not for MQTT: 400", deadline=20)
def asynchronous(ctx):
    device = Device(ctx, HUAWEI)
    body = AsyncDeviceCommandRequest(
        service_id="WaterMeter", command_name="ON_OFF", paras={"value": "ON"}, send_strategy="immediately"
    )
    refused = error_of(lambda: sdk(ctx).create_async_command(CreateAsyncCommandRequest(device_id=device.id, body=body)))
    expect(refused.status_code, 400, f"status: {refused.error_code} {refused.error_msg}")


@case("huawei-property", "set and asked for through the device's own handlers", deadline=30)
def properties(ctx):
    device = Device(ctx, HUAWEI)
    meter = firmware(device)
    client = sdk(ctx)
    kept = [{"service_id": "WaterMeter", "properties": {"value": 21.5}, "event_time": "20261121T120000Z"}]
    meter.answers["properties/set"] = lambda body: {"result_code": 0, "result_desc": "success"}
    meter.answers["properties/get"] = lambda body: {"services": kept}
    wanted = [{"service_id": "WaterMeter", "properties": {"value": 38}}]
    body = DevicePropertiesRequest(services=wanted)
    told = client.update_properties(UpdatePropertiesRequest(device_id=device.id, body=body))
    expect(told.response, {"result_code": 0, "result_desc": "success"}, "response of set")
    request, got = meter.wait_asked("properties/set")
    expect(
        (got["object_device_id"], got["services"], request),
        (device.id, wanted, told.request_id),
        "what the device was told",
    )
    told = client.list_properties(ListPropertiesRequest(device_id=device.id, service_id="WaterMeter"))
    expect(told.response, {"services": kept}, "response of get")
    request, got = meter.wait_asked("properties/get")
    expect(
        (got["object_device_id"], got["service_id"], request),
        (device.id, "WaterMeter", told.request_id),
        "what the device was asked",
    )


@case("huawei-property", "no answer: IOTDA.014111 after 20 s", deadline=60)
def properties_timed_out(ctx):
    device = Device(ctx, HUAWEI)
    meter = firmware(device, node=2)
    client = sdk(ctx)
    body = DevicePropertiesRequest(services=[{"service_id": "WaterMeter", "properties": {"value": 38}}])
    calls = [
        ctx.later(lambda: client.update_properties(UpdatePropertiesRequest(device_id=device.id, body=body))),
        ctx.later(lambda: client.list_properties(ListPropertiesRequest(device_id=device.id, service_id="WaterMeter"))),
    ]
    meter.wait_asked("properties/set")
    meter.wait_asked("properties/get")
    for call in calls:
        told = call.result()
        require(19 <= call.took <= 23, f"it took {call.took:.1f} s")
        expect((told.error_code, told.response), (TIMED_OUT, None), "what the caller is told")


@case("huawei-property", "what the product's model does not have is refused by name", deadline=30)
def properties_model(ctx):
    device = Device(ctx, HUAWEI)
    meter = firmware(device)
    client = sdk(ctx)
    rows = [
        ([{"service_id": "Nothing", "properties": {"value": 1}}], "Nothing"),
        ([{"service_id": "WaterMeter", "properties": {"nothing": 1}}], "nothing"),
        ([{"service_id": "WaterMeter", "properties": {"value": "much"}}], "value"),
    ]
    for services, name in rows:
        request = UpdatePropertiesRequest(device_id=device.id, body=DevicePropertiesRequest(services=services))
        refused = error_of(lambda: client.update_properties(request))
        expect(refused.status_code, 400, f"{services}: {refused.error_msg}")
        require(name in refused.error_msg or "service_id" in refused.error_msg, f"{services}: {refused.error_msg}")
    meter.barrier()
    expect(meter.asked, [], "what reached the device")
