"""Huawei IoTDA: shadows, what firmware says of itself, and gateways with their sub-devices. REST on node 0, devices on
node 1."""

import json
import time

from huaweicloudsdkiotda.v5 import (
    DeleteDeviceShadowRequest,
    ShowDeviceRequest,
    ShowDeviceShadowRequest,
    UpdateDesired,
    UpdateDesireds,
    UpdateDeviceShadowDesiredDataRequest,
)

from harness import case, expect, require
from vendors.application import Rule, subscribed
from vendors.devices import HUAWEI, Device
from vendors.huawei import command, error_of, firmware, sdk, succeed


def shadow(client, device_id: str) -> dict:
    """By service."""
    shown = client.show_device_shadow(ShowDeviceShadowRequest(device_id=device_id)).shadow
    return {service.service_id: service for service in shown or []}


def wished(client, device_id: str) -> dict:
    """What is desired of the meter; a service of which nothing is kept is not shown."""
    service = shadow(client, device_id).get("WaterMeter")
    return service.desired.properties if service else {}


def desire(client, device_id: str, desired, **more):
    body = UpdateDesireds(shadow=[UpdateDesired(service_id="WaterMeter", desired=desired, **more)])
    return client.update_device_shadow_desired_data(
        UpdateDeviceShadowDesiredDataRequest(device_id=device_id, body=body)
    )


@case("huawei-shadow", "a report is shown as reported, on every node", deadline=30)
def reported(ctx):
    device = Device(ctx, HUAWEI)
    expect(shadow(sdk(ctx), device.id), {}, "the shadow of a new device")
    meter = firmware(device)
    meter.report({"value": 12})
    for node in range(3):
        client = sdk(ctx, node)
        there = lambda: (s := shadow(client, device.id)) and s["WaterMeter"].reported.properties
        ctx.poll(lambda: there() == {"value": 12}, lambda: f"value 12 at node {node}: {there()}")


@case("huawei-shadow", "what is desired of a device that is away is set once it connects", deadline=30)
def desired(ctx):
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    desire(client, device.id, {"value": 30})
    expect(wished(sdk(ctx, 2), device.id), {"value": 30}, "desired")
    meter = firmware(device)
    request, body = meter.wait_asked("properties/set")
    expect(body["services"][0], {"service_id": "WaterMeter", "properties": {"value": 30}}, "what the device is told")
    meter.answer("properties/set", request, {"result_code": 0})
    meter.report({"value": 30})
    meter.barrier()
    meter.disconnect()
    # Nothing differs any more.
    again = firmware(device, node=2)
    again.barrier()
    expect(again.asked, [], "what it is told when nothing differs")


@case("huawei-shadow", "versions: one that is not current is refused; null deletes, {} clears", deadline=30)
def versions(ctx):
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    desire(client, device.id, {"value": 1}, version=0)
    now = shadow(client, device.id)["WaterMeter"].version
    require(now > 0, f"version {now}")
    refused = error_of(lambda: desire(client, device.id, {"value": 2}, version=now + 5))
    require(
        refused.status_code in (400, 409) and "version" in refused.error_msg,
        f"{refused.status_code} {refused.error_msg}",
    )
    desire(client, device.id, {"value": 2}, version=now)
    expect(wished(client, device.id), {"value": 2}, "desired")
    desire(client, device.id, {"value": None})
    expect(wished(client, device.id), {}, "desired after null")
    desire(client, device.id, {"value": 3})
    desire(client, device.id, {})
    expect(wished(client, device.id), {}, "desired after {}")
    client.delete_device_shadow(DeleteDeviceShadowRequest(device_id=device.id))
    expect(shadow(client, device.id), {}, "after its deletion")


@case("huawei-shadow", "a device asks for it: lists and objects, also when there is nothing", deadline=30)
def asked_for(ctx):
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    meter = firmware(device)

    def get(number: int, body: dict) -> dict:
        meter.publish(device.topic(f"sys/shadow/get/request_id=r{number}"), json.dumps(body), qos=1)
        return json.loads(meter.take_from(f"sys/shadow/get/response/request_id=r{number}").payload)

    empty = get(1, {})
    # The SDK goes through them without looking whether they are there.
    require(isinstance(empty["shadow"], list), f"{empty}")
    for service in empty["shadow"]:
        require(isinstance(service["desired"], dict) and isinstance(service["reported"], dict), f"{empty}")
    meter.report({"value": 7})
    ctx.poll(lambda: shadow(client, device.id), lambda: "a shadow")
    got = get(2, {"object_device_id": device.id, "service_id": "WaterMeter"})
    expect(got["object_device_id"], device.id, "object_device_id")
    service = got["shadow"][0]
    expect((service["service_id"], service["reported"]["properties"]), ("WaterMeter", {"value": 7}), "service")
    require(isinstance(service["desired"], dict) and isinstance(service["version"], int), f"{got}")


@case("huawei-service", "what firmware says of itself is shown: SDK, versions; logs end nothing", deadline=30)
def told(ctx):
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    meter = firmware(device)
    meter.event("$log", "log_report", {"timestamp": "1", "type": "DEVICE_STATUS", "content": "login"}, event_id="")
    meter.event(
        "$sdk_info", "sdk_info_report", {"device_sdk_version": "v1.2.0", "sw_version": "s1", "fw_version": None}
    )
    meter.event("$ota", "version_report", {"fw_version": "f1", "sw_version": "s2"})

    def shown():
        record = client.show_device(ShowDeviceRequest(device_id=device.id))
        return record.device_sdk_version, record.fw_version, record.sw_version

    ctx.poll(lambda: shown() == ("v1.2.0", "f1", "s2"), lambda: f"versions, have {shown()}")
    # What no firmware should send.
    for payload in (
        b"",
        b"{",
        b"[]",
        b'{"services":null}',
        b'{"services":[{"service_id":"$ota"}]}',
        b'{"services":[1]}',
    ):
        meter.publish(device.topic("sys/events/up"), payload, qos=1)
        meter.publish(device.topic("sys/properties/report"), payload, qos=1)
        meter.publish(device.topic("sys/properties/report?encoding=gzip"), payload, qos=1)
        meter.publish(device.topic("sys/shadow/get/request_id=r"), payload, qos=1)
    meter.barrier()


@case("huawei-service", "the time comes as three numbers", deadline=20)
def time_sync(ctx):
    meter = firmware(Device(ctx, HUAWEI))
    meter.event("$time_sync", "time_sync_request", {"device_send_time": "1"}, event_id="own-1")
    answer = meter.take_event("$time_sync", "time_sync_response")
    expect((answer["paras"]["device_send_time"] in (1, "1"), answer.get("event_id")), (True, "own-1"), f"{answer}")
    for name in ("server_recv_time", "server_send_time"):
        require(abs(int(answer["paras"][name]) - time.time() * 1000) < 60_000, f"{answer}")


@case("huawei-gateway", "a batch of reports: an event for each sub-device, with its gateway", deadline=30)
def batch(ctx):
    gateway = Device(ctx, HUAWEI, "gw")
    subs = [Device(ctx, HUAWEI, f"sub{number}", gateway_id=gateway.id) for number in range(3)]
    foreign = Device(ctx, HUAWEI, "foreign")
    rule = Rule(ctx, "device.property:report")
    app = subscribed(ctx, rule)
    meter = firmware(gateway)
    services = lambda value: [{"service_id": "WaterMeter", "properties": {"value": value}}]
    reports = [{"device_id": d.id, "services": services(n)} for n, d in enumerate([*subs, foreign])]
    meter.publish(gateway.topic("sys/gateway/sub_devices/properties/report"), json.dumps({"devices": reports}), qos=1)
    for number, sub in enumerate(subs):
        event = app.event_of(sub.id)["notify_data"]
        expect(event["header"]["gateway_id"], gateway.id, "gateway_id")
        expect(event["body"]["services"][0]["properties"], {"value": number}, "properties")
    meter.report({"value": 9})
    expect(app.event_of(gateway.id)["notify_data"]["header"]["gateway_id"], gateway.id, "gateway_id of itself")
    expect(app.events_seen(foreign.id), [], "events of a device that is not its own")


@case("huawei-gateway", "commands and messages to a sub-device come on the gateway's topics", deadline=30)
def downlinks(ctx):
    gateway = Device(ctx, HUAWEI, "gw")
    sub = Device(ctx, HUAWEI, "sub", gateway_id=gateway.id)
    meter = firmware(gateway)
    meter.answers["commands"] = succeed
    meter.event(
        "$sub_device_manager",
        "sub_device_update_status",
        {"device_statuses": [{"device_id": sub.id, "status": "ONLINE"}]},
    )
    answer = meter.take_event("$sub_device_manager", "sub_device_update_status_response")["paras"]
    expect(
        (answer["successful_devices"], answer["failed_devices"]),
        ([{"device_id": sub.id, "status": "ONLINE"}], []),
        "answer",
    )
    sub.wait_status("ONLINE")
    expect(command(sdk(ctx), sub.id).response["result_code"], 0, "result_code")
    expect(meter.wait_asked("commands")[1]["object_device_id"], sub.id, "object_device_id")
    made = sub.rest.call("POST", f"/devices/{sub.id}/messages", {"message": "for the sub-device"})
    got = json.loads(meter.take_from("sys/messages/down").payload)
    expect(
        (got["object_device_id"], got["id"], got["content"]),
        (sub.id, made["message_id"], "for the sub-device"),
        "message",
    )
    meter.disconnect()
    gateway.wait_status("OFFLINE")
    refused = error_of(lambda: command(sdk(ctx), sub.id))
    expect((refused.status_code, refused.error_code), (400, "IOTDA.014028"), "a command while the gateway is away")


@case("huawei-gateway", "it adds and deletes sub-devices, and is told which of them were", deadline=40)
def manages(ctx):
    gateway = Device(ctx, HUAWEI, "gw")
    meter = firmware(gateway)
    new = lambda name, product: {"parent_device_id": gateway.id, "node_id": name, "name": name, "product_id": product}
    wanted = [new(f"one-{ctx.suffix}", HUAWEI), new(f"two-{ctx.suffix}", "nothing")]
    meter.event("$sub_device_manager", "add_sub_device_request", {"devices": wanted}, event_id="add-1")
    answer = meter.take_event("$sub_device_manager", "add_sub_device_response")
    expect(answer["event_id"], "add-1", "event_id")
    made, failed = answer["paras"]["successful_devices"], answer["paras"]["failed_devices"]
    expect([d["node_id"] for d in made], [f"one-{ctx.suffix}"], "devices that were added")
    expect(
        [(d["node_id"], d["product_id"]) for d in failed], [(f"two-{ctx.suffix}", "nothing")], "devices that were not"
    )
    require(failed[0]["error_code"] and failed[0]["error_msg"], f"{failed}")
    sub = made[0]["device_id"]
    expect(gateway.rest.device(sub)["gateway_id"], gateway.id, "gateway of the new device")
    meter.event(
        "$sub_device_manager", "delete_sub_device_request", {"devices": [sub, f"{HUAWEI}_nobody"]}, event_id="del-1"
    )
    answer = meter.take_event("$sub_device_manager", "delete_sub_device_response")["paras"]
    expect(answer["successful_devices"], [sub], "devices that were deleted")
    expect([d["device_id"] for d in answer["failed_devices"]], [f"{HUAWEI}_nobody"], "devices that were not")
    expect(gateway.rest.ask("GET", f"/devices/{sub}").status, 404, "status after that")


@case("huawei-gateway", "what is added and deleted over REST is told to the gateway", deadline=30)
def notified(ctx):
    gateway = Device(ctx, HUAWEI, "gw")
    meter = firmware(gateway)
    sub = Device(ctx, HUAWEI, "sub", gateway_id=gateway.id)
    told = meter.take_event("$sub_device_manager", "add_sub_device_notify")["paras"]
    expect([d["device_id"] for d in told["devices"]], [sub.id], "add_sub_device_notify")
    require("version" in told, f"{told}")
    # What a gateway that was away asks for.
    meter.event("$sub_device_manager", "sub_device_sync_request", {"version": 0})
    again = meter.take_event("$sub_device_manager", "add_sub_device_notify")["paras"]
    expect([d["device_id"] for d in again["devices"]], [sub.id], "answer to sub_device_sync_request")
    sub.rest.call("DELETE", f"/devices/{sub.id}")
    told = meter.take_event("$sub_device_manager", "delete_sub_device_notify")["paras"]
    expect([d["device_id"] for d in told["devices"]], [sub.id], "delete_sub_device_notify")
