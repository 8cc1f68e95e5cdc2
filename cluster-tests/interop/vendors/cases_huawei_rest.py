"""Huawei IoTDA: the vendor's REST SDK, unmodified, and what a plain HTTP client must be told."""

from huaweicloudsdkiotda.v5 import (
    AddDevice,
    AddDeviceRequest,
    AddProduct,
    AuthInfo,
    CreateAccessCodeRequest,
    CreateAccessCodeRequestBody,
    CreateProductRequest,
    DeleteDeviceRequest,
    DeleteProductRequest,
    FreezeDeviceRequest,
    IoTDAClient,
    ListDevicesRequest,
    ListProductsRequest,
    ResetDeviceSecret,
    ResetDeviceSecretRequest,
    ServiceCapability,
    ServiceCommand,
    ServiceCommandPara,
    ServiceProperty,
    ShowApplicationsRequest,
    ShowDeviceRequest,
    ShowProductRequest,
    UnfreezeDeviceRequest,
    UpdateDevice,
    UpdateDeviceRequest,
    UpdateProduct,
    UpdateProductRequest,
)

from harness import Context, case, expect, require
from paho_client import V311, Client
from vendors import devices
from vendors.huawei import error_of, sdk
from vendors.rest import Rest, request


SIGNATURES = {"huaweicloudsdkiotda": {"derived": False}, "huaweicloudsdkiotda-v11": {"derived": True}}


def product_body(ctx: Context, name: str) -> AddProduct:
    meter = ServiceCapability(
        service_id="WaterMeter",
        service_type="WaterMeter",
        properties=[ServiceProperty(property_name="value", data_type="decimal", method="RW", min="0", max="100")],
        commands=[
            ServiceCommand(
                command_name="ON_OFF",
                paras=[ServiceCommandPara(para_name="value", data_type="string", enum_list=["ON", "OFF"])],
            )
        ],
    )
    return AddProduct(
        name=name,
        device_type="WaterMeter",
        protocol_type="MQTT",
        data_format="json",
        service_capabilities=[meter],
        manufacturer_name="interop",
    )


def new_product(ctx: Context, client: IoTDAClient) -> str:
    return client.create_product(CreateProductRequest(body=product_body(ctx, f"meter {ctx.suffix}"))).product_id


@case(SIGNATURES, "products: create, list, show, update, delete", deadline=30)
def products(ctx, signature):
    client, elsewhere = sdk(ctx, **signature), sdk(ctx, 2, **signature)
    made = client.create_product(CreateProductRequest(body=product_body(ctx, f"meter {ctx.suffix}")))
    require(len(made.product_id) == 24, f"product_id: {made.product_id}")
    expect(made.service_capabilities[0].commands[0].command_name, "ON_OFF", "command")
    listed = elsewhere.list_products(ListProductsRequest(product_name=f"meter {ctx.suffix}"))
    expect([p.product_id for p in listed.products], [made.product_id], "products of that name")
    update = UpdateProduct(name=f"renamed {ctx.suffix}")
    client.update_product(UpdateProductRequest(product_id=made.product_id, body=update))
    shown = elsewhere.show_product(ShowProductRequest(product_id=made.product_id))
    expect((shown.name, shown.manufacturer_name), (f"renamed {ctx.suffix}", "interop"), "after the update")
    client.delete_product(DeleteProductRequest(product_id=made.product_id))
    gone = error_of(lambda: elsewhere.show_product(ShowProductRequest(product_id=made.product_id)))
    expect(gone.status_code, 404, "status of a product that is gone")


@case(SIGNATURES, "devices: from creation to ONLINE, OFFLINE and the end", deadline=40)
def life(ctx, signature):
    client = sdk(ctx, 1, **signature)
    product = new_product(ctx, client)
    body = AddDevice(node_id=f"n-{ctx.suffix}", device_name="a meter", product_id=product)
    made = client.add_device(AddDeviceRequest(body=body))
    expect(made.device_id, f"{product}_n-{ctx.suffix}", "device_id")
    expect((made.status, made.auth_info.auth_type), ("INACTIVE", "SECRET"), "status and kind")
    secret = made.auth_info.secret

    def connect(value: str) -> Client:
        fields = dict(zip(("client_id", "username", "password"), devices.huawei(made.device_id, value, 1)))
        return Client(ctx, V311, node=2, **fields)

    def shown():
        return client.show_device(ShowDeviceRequest(device_id=made.device_id))

    device = connect(secret).connect()
    ctx.poll(lambda: shown().status == "ONLINE", lambda: "ONLINE")
    device.disconnect()
    ctx.poll(lambda: shown().status == "OFFLINE", lambda: "OFFLINE")
    require(shown().active_time, "active_time")
    client.update_device(UpdateDeviceRequest(device_id=made.device_id, body=UpdateDevice(device_name="renamed")))
    expect(shown().device_name, "renamed", "device_name")
    new = ResetDeviceSecret(secret=f"new-{ctx.suffix}", force_disconnect=True)
    reset = ResetDeviceSecretRequest(device_id=made.device_id, action_id="resetSecret", body=new)
    expect(client.reset_device_secret(reset).secret, f"new-{ctx.suffix}", "the new secret")
    expect(devices.connack(connect(secret)), 4, "the old secret")
    device = connect(f"new-{ctx.suffix}").connect()
    client.freeze_device(FreezeDeviceRequest(device_id=made.device_id))
    device.wait_closed()
    expect(shown().status, "FROZEN", "status")
    client.unfreeze_device(UnfreezeDeviceRequest(device_id=made.device_id))
    device = connect(f"new-{ctx.suffix}").connect()
    client.delete_device(DeleteDeviceRequest(device_id=made.device_id))
    device.wait_closed()
    gone = error_of(shown)
    expect((gone.status_code, gone.error_code), (404, "IOTDA.014000"), "a device that is gone")
    client.delete_product(DeleteProductRequest(product_id=product))


@case("huaweicloudsdkiotda", "devices: a secret of one's own, twice, and what is refused", deadline=30)
def bodies(ctx):
    client = sdk(ctx)
    product = new_product(ctx, client)
    body = AddDevice(device_id=f"own-{ctx.suffix}", node_id="n", product_id=product, auth_info=AuthInfo(secret="12345678"))
    made = client.add_device(AddDeviceRequest(body=body))
    expect((made.device_id, made.auth_info.secret), (f"own-{ctx.suffix}", "12345678"), "device")
    again = error_of(lambda: client.add_device(AddDeviceRequest(body=body)))
    expect((again.status_code, again.error_code), (400, "IOTDA.014031"), "the same device again")
    wrong = AddDevice(node_id="no spaces", product_id=product)
    refused = error_of(lambda: client.add_device(AddDeviceRequest(body=wrong)))
    expect((refused.status_code, refused.error_code), (400, "IOTDA.000006"), "a node_id with a space")
    listed = client.list_devices(ListDevicesRequest(product_id=product))
    require("12345678" not in str(listed), "a secret in a list")


@case("huaweicloudsdkiotda", "paging: 23 devices, newest first", deadline=40)
def paging(ctx):
    client = sdk(ctx)
    product = new_product(ctx, client)
    names = [f"n{number}-{ctx.suffix}" for number in range(23)]
    for name in names:
        client.add_device(AddDeviceRequest(body=AddDevice(node_id=name, product_id=product)))
    pages, marker = [], None
    while True:
        page = client.list_devices(ListDevicesRequest(product_id=product, limit=10, marker=marker))
        if not page.devices:
            break
        pages.append([device.node_id for device in page.devices])
        marker = page.page.marker
        expect(page.page.count, 23, "count")
    expect([len(page) for page in pages], [10, 10, 3], "sizes of pages")
    expect([name for page in pages for name in page], names[::-1], "order")
    refused = error_of(lambda: client.list_devices(ListDevicesRequest(product_id=product, limit=51)))
    expect((refused.status_code, refused.error_code), (400, "IOTDA.000017"), "limit 51")


@case(SIGNATURES, "access codes: each replaces the one before", deadline=30)
def access_codes(ctx, signature):
    client = sdk(ctx, **signature)
    # Of the other kind than applications sign in to MQTT with, since there is only one of each.
    first, second = (
        client.create_access_code(CreateAccessCodeRequest(body=CreateAccessCodeRequestBody(type="AMQP")))
        for _ in range(2)
    )
    expect(len(first.access_key), 8, "length of access_key")
    require(first.access_code and first.access_key != second.access_key, f"{first} {second}")


@case(SIGNATURES, "a wrong secret key is refused", deadline=30)
def wrong_key(ctx, signature):
    known = ctx.endpoints.credentials["rest"]["sk"]
    wrong = ("a" if known[0] != "a" else "b") + known[1:]
    client = sdk(ctx, secret=wrong, **signature)
    error = error_of(lambda: client.show_applications(ShowApplicationsRequest()))
    expect((error.status_code, error.error_code), (401, "IOTDA.000002"), "a wrong secret key")
    listed = sdk(ctx, **signature).show_applications(ShowApplicationsRequest(default_app=True))
    expect([app.default_app for app in listed.applications], [True], "the default resource space")


@case("huaweicloudsdkiotda", "HTTPS, and a project that the SDK looks up by itself", deadline=30)
def project(ctx):
    for client in (sdk(ctx, door="https"), sdk(ctx, project=False)):
        listed = client.show_applications(ShowApplicationsRequest())
        require(listed.applications, "there is a resource space")


@case("huawei-rest", "tokens: from any node, for any node, and none else", deadline=30)
def tokens(ctx):
    rest = Rest(ctx)
    path = f"/v5/iot/{rest.project}/devices?limit=1"
    token = Rest(ctx, node=1).token()
    for node in range(3):
        answer = request(ctx.endpoints, "GET", path, headers={"X-Auth-Token": token}, node=node)
        expect(answer.status, 200, f"at node {node}")
    flipped = token[:-1] + ("a" if token[-1] != "a" else "b")
    for headers in ({}, {"X-Auth-Token": "unknown"}, {"X-Auth-Token": flipped}):
        answer = request(ctx.endpoints, "GET", path, headers=headers)
        expect((answer.status, answer.json["error_code"]), (401, "IOTDA.000002"), f"with {list(headers)}")
    elsewhere = request(ctx.endpoints, "GET", "/v5/iot/another/devices", headers={"X-Auth-Token": token})
    require(elsewhere.status in (401, 403), f"another project: {elsewhere.status} {elsewhere.text}")


@case("huawei-rest", "errors are JSON in the vendor's form, and the API describes itself", deadline=30)
def forms(ctx):
    rest = Rest(ctx)
    headers = {"X-Auth-Token": rest.token()}
    path = f"/v5/iot/{rest.project}"
    rows = [
        ("POST", "/devices", b"{", 400, "IOTDA.000008"),
        ("POST", "/devices", {"node_id": "n"}, 400, None),
        ("GET", "/devices/nobody", None, 404, "IOTDA.014000"),
        ("GET", "/nothing", None, 404, None),
    ]
    for method, tail, body, status, code in rows:
        answer = request(ctx.endpoints, method, path + tail, body, headers)
        expect(answer.status, status, f"{method} {tail}: {answer.text[:200]}")
        require(set(answer.json) >= {"error_code", "error_msg"}, f"{method} {tail}: {answer.text[:200]}")
        if code:
            expect(answer.json["error_code"], code, f"{method} {tail}")
    described = request(ctx.endpoints, "GET", "/openapi.json")
    require("/v5/iot/{project_id}/devices" in described.json["paths"], "paths in openapi.json")
