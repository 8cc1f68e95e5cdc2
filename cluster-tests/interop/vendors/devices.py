"""Products and devices of each dialect, made over REST for the case that asks, and what their firmware would send in
CONNECT, for clients that have no vendor's SDK."""

import base64
import hashlib
import hmac
import ssl
import threading
import time
from typing import Any, Optional

from harness import Context
from paho_client import V5, V311, Client
from vendors.rest import Rest

ALIYUN, TENCENT, HUAWEI = "a1B2c3D4e5F", "ABCDE12345", "prod1"
# Products whose devices may register themselves, known ones and any.
ALIYUN_KNOWN, ALIYUN_OPEN = "a1KnownReg01", "a1OpenReg001"

_LOCK = threading.Lock()
_READY: list[bool] = []
SECRETS = {ALIYUN_KNOWN: "PSPSPSPSPSPSPSPS", ALIYUN_OPEN: "PSPSPSPSPSPSPSPS", TENCENT: "PSPSPSPSPSPSPSPSPSPSPSPS"}

MODEL = [
    {
        "service_id": "WaterMeter",
        "service_type": "WaterMeter",
        "properties": [{"property_name": "value", "data_type": "decimal", "method": "RW"}],
        "commands": [
            {
                "command_name": "ON_OFF",
                "paras": [{"para_name": "value", "data_type": "string", "enum_list": ["ON", "OFF"]}],
                "responses": [
                    {"response_name": "ON_OFF_RESPONSE", "paras": [{"para_name": "result", "data_type": "string"}]}
                ],
            }
        ],
        "events": [{"event_type": "leak", "paras": [{"para_name": "place", "data_type": "string"}]}],
    }
]


def product(product_id: str, dialect: str, registration: str, topics: list) -> dict:
    body = {
        "product_id": product_id,
        "name": f"interop {product_id}",
        "device_type": "Sensor",
        "protocol_type": "MQTT",
        "data_format": "json",
        "service_capabilities": MODEL if dialect == "huawei" else [],
        "dialect": dialect,
        "dynamic_registration": registration,
        "topics": [{"topic": name, "access": access} for name, access in topics],
    }
    if product_id in SECRETS:
        body["product_secret"] = SECRETS[product_id]
    return body


def ensure_products(rest: Rest) -> None:
    with _LOCK:
        if _READY:
            return
        classes = [("user/both", "all"), ("user/up", "pub"), ("user/down", "sub")]
        rest.make("/products", product(ALIYUN, "aliyun", "off", classes))
        rest.make("/products", product(ALIYUN_KNOWN, "aliyun", "known", classes))
        rest.make("/products", product(ALIYUN_OPEN, "aliyun", "open", classes))
        rest.make("/products", product(TENCENT, "tencent", "known", [("custom", "all")]))
        rest.make("/products", product(HUAWEI, "huawei", "off", []))
        _READY.append(True)


class Device:
    """A new device for one case, of a product that all cases share, or of another one of the same dialect."""

    def __init__(self, ctx: Context, product_id: str, role: str = "d", product: str = "", **more: Any):
        self.ctx = ctx
        self.rest = Rest(ctx)
        ensure_products(self.rest)
        self.product = product_id
        self.name = f"{role}-{ctx.suffix}"
        made = self.rest.add_device(product or product_id, self.name, **more)
        self.id = made["device_id"]
        self.secret = made["auth_info"].get("secret")

    def topic(self, rest: str) -> str:
        """In the device's own space."""
        if self.product == HUAWEI:
            return f"$oc/devices/{self.id}/{rest}"
        return f"{'' if self.product == TENCENT else '/'}{self.product}/{self.name}/{rest}"

    def status(self) -> str:
        return self.rest.status(self.id)

    def wait_status(self, wanted: str) -> None:
        self.rest.wait_status(self.id, wanted)

    def client(self, version: int = V311, **more: Any) -> Client:
        """One that is this device, over paho. What CONNECT says can be changed by name."""
        connect = dict(zip(("client_id", "username", "password"), self.connect_fields()))
        return Client(self.ctx, version, **{**connect, **more})

    def connect_fields(self) -> tuple[str, str, Optional[str]]:
        if self.product == HUAWEI:
            return huawei(self.id, self.secret)
        if self.product == TENCENT:
            return tencent(self.product, self.name, self.secret)
        return aliyun(self.product, self.name, self.secret)


def digest(method: str, key: bytes, message: str) -> str:
    return hmac.new(key, message.encode(), method).hexdigest()


def huawei(device_id: str, secret: str, sign: int = 0, at: Optional[float] = None) -> tuple[str, str, str]:
    """`at` is seconds since 1970 of the hour that is signed."""
    hour = time.strftime("%Y%m%d%H", time.gmtime(time.time() if at is None else at))
    return f"{device_id}_0_{sign}_{hour}", device_id, digest("sha256", hour.encode(), secret)


def aliyun(
    key: str, name: str, secret: str, cid: str = "", method: str = "hmacsha256", more: str = "securemode=3,_ss=1"
) -> tuple[str, str, str]:
    # Two devices of one product with one client id push each other out.
    cid = cid or f"cid-{name}"
    stamp = str(int(time.time() * 1000))
    content = f"clientId{cid}deviceName{name}productKey{key}timestamp{stamp}"
    password = digest(method.removeprefix("hmac"), secret.encode(), content)
    return f"{cid}|{more},signmethod={method},timestamp={stamp}|", f"{name}&{key}", password


def tencent(
    product_id: str, name: str, secret: str, method: str = "hmacsha256", expiry: int = 4102444800, connid: str = "abcde"
) -> tuple[str, str, str]:
    username = f"{product_id}{name};12010126;{connid};{expiry}"
    token = digest(method.removeprefix("hmac"), base64.b64decode(secret), username)
    return f"{product_id}{name}", username, f"{token};{method}"


# paho shows the codes of MQTT 3.x as those of MQTT 5.
V3_CODES = {0: 0, 132: 1, 133: 2, 136: 3, 134: 4, 135: 5}


def connack(client: Client) -> int:
    """The code of the CONNACK, as it was on the wire. The server must close after a refusal."""
    client.attempt()
    code = client.connack[0].value
    if code != 0:
        client.wait_closed()
    return code if client.version == V5 else V3_CODES[code]


def fingerprint(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()


def unnamed(ctx: Context) -> ssl.SSLContext:
    """TLS to an address, whatever its name."""
    context = ctx.endpoints.tls()
    context.check_hostname = False
    return context
