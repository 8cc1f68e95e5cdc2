"""Huawei IoTDA: REST on node 0, the device on node 1, the application on node 2, and then node 1 is killed."""

import json
import os
import signal
import time

from huaweicloudsdkcore.exceptions.exceptions import ServerResponseException
from huaweicloudsdkiotda.v5 import CreateMessageRequest, DeviceMessageRequest

from harness import Failure, Skip, case, expect, require
from vendors.application import Rule, subscribed
from vendors.devices import HUAWEI, Device
from vendors.huawei import command, firmware, sdk, succeed


# The last of all cases: no node is started again.
@case(
    "huawei-cluster",
    "the device's node dies: the caller is told at once, a kept message comes once",
    deadline=90,
    alone=True,
)
def killed(ctx):
    if os.environ.get("INTEROP_OWN_NODES") != "1":
        raise Skip("the nodes were not started by this run, and are not its to kill")
    device, cached, client = Device(ctx, HUAWEI), Device(ctx, HUAWEI, "cached"), sdk(ctx)
    reports, states = Rule(ctx, "device.property:report", "reports"), Rule(
        ctx, "device.message.status:update", "states"
    )
    app = subscribed(ctx, reports, states)
    meter = firmware(device)
    meter.report({"value": 1})
    app.event_of(device.id, lambda e: e["resource"] == "device.property")
    made = client.create_message(CreateMessageRequest(device_id=cached.id, body=DeviceMessageRequest(message="kept")))
    expect(made.result.status, "PENDING", "message")
    call = ctx.later(lambda: command(client, device.id))
    meter.wait_asked("commands")
    os.kill(ctx.endpoints.nodes[1]["pid"], signal.SIGKILL)
    began = time.monotonic()
    try:
        raise Failure(f"the waiting call was answered: {call.result()}")
    except ServerResponseException as error:
        expect(error.status_code, 503, f"status: {error.error_code}")
        # 014016 would say that the command did not run.
        require(error.error_code.startswith("FULMAR."), f"error_code {error.error_code}")
    took = time.monotonic() - began
    require(took < 3, f"the caller was told {took:.1f} s after the kill")
    meter.wait_closed()
    again = firmware(device, node=2)
    again.answers["commands"] = succeed
    expect(command(client, device.id).response["result_code"], 0, "a command after that")
    again.report({"value": 2})
    event = app.event_of(device.id, lambda e: e["resource"] == "device.property")
    expect(event["notify_data"]["body"]["services"][0]["properties"], {"value": 2}, "a report after that")
    late = firmware(cached, node=2)
    got = json.loads(late.take_from("sys/messages/down").payload)
    expect((got["id"], got["content"]), (made.message_id, "kept"), "message")
    late.disconnect()
    once = firmware(cached, node=0)
    once.barrier()
    expect(once.messages, [], "further messages")
