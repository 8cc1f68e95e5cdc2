"""The web console in a headless Chromium, against three nodes."""

from harness import Failure, case
from vendors.devices import HUAWEI, Device
from vendors.program import Program, tool

STEPS = [
    "signed in, and the map shows who leads",
    "a device connects, and is seen to",
    "a command is answered",
    "what it sends is seen live",
    "a mistake is shown where it is",
    "mended, tested, made and started",
    "its counter rises",
    "a message is traced across two nodes",
    "every page, wide and narrow, light and dark",
    "signed out",
]


@case("console", "a person's way through it; no error, no request elsewhere, nothing serious by axe", deadline=150)
def console(ctx):
    device = Device(ctx, HUAWEI)
    client_id, username, password = device.connect_fields()
    person = ctx.endpoints.credentials["rest"]
    program = Program(ctx, "node", "console.mjs", {
        "nodes": [{name: node[name] for name in ("rest", "mqtt")} for node in ctx.endpoints.nodes],
        "user": person["user"], "password": person["password"], "chromium": tool("chromium"), "suffix": ctx.suffix,
        "device": {"id": device.id, "client_id": client_id, "username": username, "password": password},
    })
    for name in STEPS:
        try:
            program.wait("step", lambda event, name=name: event["name"] == name)
        except Failure as failure:
            raise Failure(f"not done: {name}: {failure}") from failure
    program.wait("done")
