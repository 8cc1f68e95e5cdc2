"""What `fulmar dev` prints for each dialect, used as it is."""

from harness import case, expect
from paho_client import V311, Client
from vendors import devices


@case("fulmar-dev", "the devices of endpoints.json connect with what it says", deadline=30)
def demo(ctx):
    given = ctx.endpoints.credentials["devices"]
    expect(sorted(device["dialect"] for device in given), ["aliyun", "huawei", "sensoro", "tencent"], "dialects")
    for device in given:
        fields = {name: device[name] for name in ("client_id", "username", "password")}
        for node, door in enumerate(("mqtt", "mqtts", "ws")):
            client = Client(ctx, V311, door=door, node=node, **fields, tls=devices.unnamed(ctx))
            expect(devices.connack(client), 0, f"{device['dialect']} at {door}")
            client.disconnect()
