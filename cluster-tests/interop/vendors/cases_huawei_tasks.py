"""Huawei IoTDA: batch tasks with the vendor's REST SDK on node 0, devices on all nodes, the application on node 2."""

import json
import time

from huaweicloudsdkiotda.v5 import (
    BatchTargets,
    CreateBatchTask,
    CreateBatchTaskRequest,
    DeleteBatchTaskRequest,
    ListBatchTasksRequest,
    ShowBatchTaskRequest,
    ShowDeviceRequest,
    StopBatchTaskRequest,
    TaskPolicy,
)

from harness import Context, case, expect, require
from vendors.application import Rule, subscribed
from vendors.devices import HUAWEI, Device
from vendors.huawei import error_of, firmware, sdk, succeed

ENDED = ("Success", "PartialSuccess", "Fail", "Stopped")
ON = {"service_id": "WaterMeter", "command_name": "ON_OFF", "paras": {"value": "ON"}}


def create(client, ctx: Context, kind: str, targets=None, document=None, **more) -> str:
    body = CreateBatchTask(task_name=f"task_{ctx.suffix}", task_type=kind, targets=targets, document=document, **more)
    made = client.create_batch_task(CreateBatchTaskRequest(body=body))
    expect(made.task_type, kind, "task_type")
    require(len(made.task_id) == 24, f"task_id: {made.task_id}")
    return made.task_id


def show(client, task_id: str, **more):
    return client.show_batch_task(ShowBatchTaskRequest(task_id=task_id, **more))


def ended(ctx: Context, client, task_id: str, node_client=None):
    """Waits for the end of a task; gives it and its details by target."""
    last = [None]

    def there():
        last[0] = show(client, task_id, limit=50)
        return last[0] if last[0].batchtask.status in ENDED else None

    shown = ctx.poll(there, lambda: f"the end of the task: {last[0].batchtask if last[0] else None}")
    return shown.batchtask, {detail.target: detail for detail in shown.task_details}


def progress(task) -> tuple:
    return task.task_progress.total, task.task_progress.success, task.task_progress.fail


@case("huawei-task", "createCommands: one answers, one is silent, one is away", deadline=80)
def commands(ctx):
    answering, silent, away = (Device(ctx, HUAWEI, role) for role in ("answering", "silent", "away"))
    client = sdk(ctx)
    firmware(answering, node=1).answers["commands"] = succeed
    quiet = firmware(silent, node=2)
    rule = Rule(ctx, "batchtask:update")
    app = subscribed(ctx, rule)
    task_id = create(client, ctx, "createCommands", [answering.id, silent.id, away.id], ON)
    task, details = ended(ctx, sdk(ctx, 1), task_id)
    expect((task.status, progress(task)), ("PartialSuccess", (3, 1, 2)), "status and progress")
    own = details[answering.id]
    expect((own.status, json.loads(own.output)["result_code"]), ("Success", 0), "the one that answers")
    expect((details[silent.id].status, details[silent.id].error.error_code), ("Fail", "IOTDA.014111"), "the silent one")
    expect(
        (details[away.id].status, details[away.id].error.error_code), ("Fail", "IOTDA.014016"), "the one that is away"
    )
    expect(len(quiet.asked), 1, "commands that the silent one got")
    seen = []
    while not seen or seen[-1] not in ENDED:
        event = app.event(lambda e: e["notify_data"]["body"].get("task_id") == task_id, "batchtask:update")
        expect((event["resource"], event["event"]), ("batchtask", "update"), "event")
        require("header" not in event["notify_data"], f"a header: {event}")
        expect(event["notify_data"]["body"]["task_type"], "createCommands", "task_type in the event")
        seen.append(event["notify_data"]["body"]["status"])
    expect(seen[-1], "PartialSuccess", f"the last of {seen}")
    require(len(seen) == len(set(seen)), f"a status twice: {seen}")
    only = show(client, task_id, task_detail_status="Fail", limit=1)
    expect((len(only.task_details), only.page.count), (1, 2), "page of those that failed")
    expect([d.target for d in show(client, task_id, target=away.id).task_details], [away.id], "details of one target")


@case("huawei-task", "createMessages: at once to who is there, kept for who is not", deadline=40)
def messages(ctx):
    there, away = Device(ctx, HUAWEI, "there"), Device(ctx, HUAWEI, "away")
    client = sdk(ctx)
    meter = firmware(there, node=2)
    task_id = create(client, ctx, "createMessages", [there.id, away.id], {"message": "to all", "name": "n"})
    task, _ = ended(ctx, client, task_id)
    expect((task.status, progress(task)), ("Success", (2, 2, 0)), "status and progress")
    for receiver in (meter, firmware(away, node=1)):
        got = json.loads(receiver.take_from("sys/messages/down").payload)
        expect((got["content"], got["name"]), ("to all", "n"), "message")


@case("huawei-task", "freezeDevices, unfreezeDevices, and targets that there are none of", deadline=40)
def freeze(ctx):
    devices = [Device(ctx, HUAWEI, f"d{number}") for number in range(3)]
    client = sdk(ctx)
    meter = firmware(devices[0])
    targets = [device.id for device in devices] + [f"{HUAWEI}_nobody"]
    task, details = ended(ctx, client, create(client, ctx, "freezeDevices", targets))
    expect((task.status, progress(task)), ("PartialSuccess", (4, 3, 1)), "status and progress")
    expect(
        (details[targets[3]].status, details[targets[3]].error.error_code), ("Fail", "IOTDA.014000"), "the unknown one"
    )
    meter.wait_closed()
    expect([device.status() for device in devices], ["FROZEN"] * 3, "status of devices")
    task, _ = ended(ctx, client, create(client, ctx, "unfreezeDevices", targets[:3]))
    expect((task.status, progress(task)), ("Success", (3, 3, 0)), "status and progress")
    firmware(devices[0])


@case("huawei-task", "createDevices, updateDevices, deleteDevices", deadline=40)
def registry(ctx):
    client, probe = sdk(ctx), Device(ctx, HUAWEI, "probe")
    names = [f"b{number}-{ctx.suffix}" for number in range(3)]
    new = {"devices": [{"node_id": name, "product_id": HUAWEI} for name in names]}
    task, details = ended(ctx, client, create(client, ctx, "createDevices", document=new))
    expect((task.status, progress(task)), ("Success", (3, 3, 0)), f"creation: {task} {details}")
    targets = [f"{HUAWEI}_{name}" for name in names]
    for target in targets:
        expect(probe.rest.device(target)["status"], "INACTIVE", "status of a new device")
    task, _ = ended(ctx, client, create(client, ctx, "updateDevices", targets, {"device_name": "renamed"}))
    expect(task.status, "Success", "update")
    expect(client.show_device(ShowDeviceRequest(device_id=targets[1])).device_name, "renamed", "device_name")
    task, _ = ended(ctx, client, create(client, ctx, "deleteDevices", targets))
    expect(task.status, "Success", "deletion")
    gone = error_of(lambda: client.show_device(ShowDeviceRequest(device_id=targets[0])))
    expect(gone.error_code, "IOTDA.014000", "a device that was deleted")


@case("huawei-task", "updateDeviceShadows: what is desired of many", deadline=40)
def shadows(ctx):
    devices = [Device(ctx, HUAWEI, f"d{number}") for number in range(2)]
    client = sdk(ctx)
    document = {"shadow": [{"service_id": "WaterMeter", "desired": {"value": 5}}]}
    task, details = ended(ctx, client, create(client, ctx, "updateDeviceShadows", [d.id for d in devices], document))
    expect((task.status, progress(task)), ("Success", (2, 2, 0)), f"status: {details}")
    for device in devices:
        shadow = device.rest.call("GET", f"/devices/{device.id}/shadow")["shadow"]
        expect(shadow[0]["desired"]["properties"], {"value": 5}, "desired")


@case("huawei-task", "firmwareUpgrade: the notice, progress, the new version; http: is refused", deadline=60)
def upgrade(ctx):
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    meter = firmware(device)
    meter.event("$ota", "version_report", {"fw_version": "1.0", "sw_version": "1.0"})
    document = {"version": "2.0", "url": "https://firmware.example/2.0.bin", "file_size": 1000, "file_name": "2.0.bin"}
    plain = error_of(
        lambda: create(
            client, ctx, "firmwareUpgrade", [device.id], {**document, "url": "http://firmware.example/2.0.bin"}
        )
    )
    expect(plain.status_code, 400, "status of an http: URL")
    require("url" in plain.error_msg, plain.error_msg)
    create(client, ctx, "firmwareUpgrade", [device.id], document)

    def notice(body: dict) -> bool:
        return any(s["event_type"].startswith("firmware_upgrade") for s in body["services"])

    told = json.loads(meter.take_from("sys/events/down", notice).payload)["services"][0]
    expect(
        (told["service_id"], told["paras"]["version"], told["paras"]["url"]), ("$ota", "2.0", document["url"]), "notice"
    )
    for percent in (10, 100):
        meter.event(
            "$ota",
            "upgrade_progress_report",
            {"result_code": 0, "progress": percent, "version": "1.0", "description": ""},
        )
    meter.event("$ota", "version_report", {"fw_version": "2.0", "sw_version": "1.0"})
    shown = lambda: client.show_device(ShowDeviceRequest(device_id=device.id)).fw_version
    ctx.poll(lambda: shown() == "2.0", lambda: f"fw_version 2.0, is {shown()}")


@case("huawei-task", "one that is scheduled waits, is stopped, listed and deleted", deadline=40)
def scheduled(ctx):
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    meter = firmware(device)
    meter.answers["commands"] = succeed
    later = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() + 3600))
    task_id = create(client, ctx, "createCommands", [device.id], ON, task_policy=TaskPolicy(schedule_time=later))
    shown = show(sdk(ctx, 2), task_id).batchtask
    require(shown.status in ("Initializing", "Waitting"), f"status: {shown.status}")
    expect(shown.task_policy.schedule_time, later, "schedule_time")
    listed = client.list_batch_tasks(ListBatchTasksRequest(task_type="createCommands", limit=50))
    require(task_id in [task.task_id for task in listed.batchtasks], "the task is not listed")
    client.stop_batch_task(StopBatchTaskRequest(task_id=task_id, body=BatchTargets()))
    task, details = ended(ctx, client, task_id)
    expect((task.status, details[device.id].status), ("Stopped", "Stopped"), "after it was stopped")
    client.delete_batch_task(DeleteBatchTaskRequest(task_id=task_id))
    expect(error_of(lambda: show(client, task_id)).status_code, 404, "status of a task that was deleted")
    meter.barrier()
    expect(meter.asked, [], "commands that came")


@case("huawei-task", "a target that fails is tried again as the policy says", deadline=120)
def retried(ctx):
    # The shortest interval is a minute.
    device, client = Device(ctx, HUAWEI), sdk(ctx)
    policy = TaskPolicy(retry_count=1, retry_interval=1)
    task_id = create(client, ctx, "createCommands", [device.id], ON, task_policy=policy)
    waiting = lambda: show(client, task_id).task_details[0].status
    ctx.poll(lambda: waiting() == "FailWaitRetry", lambda: f"FailWaitRetry, is {waiting()}")
    firmware(device).answers["commands"] = succeed
    task, details = ended(ctx, client, task_id)
    expect((task.status, details[device.id].status), ("Success", "Success"), "after it was tried again")
