"""The WebSocket doors seen as bytes: the exact 101 answer, sub-protocols, paths and frames.

A client in the field searches the answer for the bytes `Sec-WebSocket-Accept: `, so their case and their single space
are part of the interface, whatever HTTP says about header names.
"""

import base64
import hashlib
import os
import socket
import struct

from harness import Context, Failure, case, expect, require

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
SUITES = {"raw-ws": "ws", "raw-wss": "wss"}
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class Stream:
    """A socket, with TLS for wss, that reads no longer than the case's deadline."""

    def __init__(self, ctx: Context, transport: str):
        door = ctx.endpoints.door(transport)
        self.ctx = ctx
        self.host = f"{door.host}:{door.port}"
        self.socket = socket.create_connection((door.host, door.port), timeout=ctx.remaining())
        if transport == "wss":
            self.socket = ctx.endpoints.tls().wrap_socket(self.socket, server_hostname=door.host)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        ctx.on_close(self.socket.close)

    def fill(self) -> bool:
        self.socket.settimeout(max(0.001, self.ctx.remaining()))
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            raise Failure(f"deadline passed reading, after {self.buffer[:100]!r}") from None
        except ConnectionError:
            data = b""
        self.buffer += data
        return bool(data)

    def until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            require(self.fill(), f"closed before {mark!r}, after {self.buffer[:300]!r}")
        head, _, self.buffer = self.buffer.partition(mark)
        return head + mark

    def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            require(self.fill(), f"closed with {len(self.buffer)} of {count} bytes: {self.buffer[:300]!r}")
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data


def upgrade(stream: Stream, path: str = "/mqtt", protocols: str = "mqtt") -> tuple[bytes, bytes]:
    """Sends the request; returns the whole head of the answer and the accept value it must carry."""
    key = base64.b64encode(os.urandom(16))
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {stream.host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key.decode()}",
        f"Sec-WebSocket-Protocol: {protocols}",
        "Sec-WebSocket-Version: 13",
    ]
    stream.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    return stream.until(b"\r\n\r\n"), base64.b64encode(hashlib.sha1(key + GUID).digest())


def header(head: bytes, name: str) -> list[str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    return [value.strip() for key, value in pairs if key.lower() == name.lower()]


def frame(opcode: int, payload: bytes, final: bool = True) -> bytes:
    mask = os.urandom(4)
    head = bytes([(0x80 if final else 0) | opcode])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    elif len(payload) < 65536:
        head += bytes([0x80 | 126]) + struct.pack(">H", len(payload))
    else:
        head += bytes([0x80 | 127]) + struct.pack(">Q", len(payload))
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def read_frame(stream: Stream) -> tuple[int, bytes]:
    first, second = stream.exactly(2)
    require(not second & 0x80, "the server masks its frames")
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack(">H", stream.exactly(2))
    elif length == 127:
        (length,) = struct.unpack(">Q", stream.exactly(8))
    return first & 0x0F, stream.exactly(length)


def read_mqtt(stream: Stream, count: int) -> bytes:
    """At least `count` bytes of MQTT, out of as many binary frames as the server likes."""
    data = b""
    while len(data) < count:
        opcode, payload = read_frame(stream)
        require(opcode in (BINARY, CONTINUATION), f"a frame with opcode {opcode}, payload {payload[:50]!r}")
        data += payload
    return data


def text(value: str) -> bytes:
    return struct.pack(">H", len(value.encode())) + value.encode()


def packet(first: int, body: bytes) -> bytes:
    require(len(body) < 128, "short packets only")
    return bytes([first, len(body)]) + body


def connect_packet(client_id: str, protocol: str = "MQTT", level: int = 4) -> bytes:
    return packet(0x10, text(protocol) + bytes([level, 2, 0, 60]) + text(client_id))


CONNACK = bytes.fromhex("20020000")


def opened(ctx: Context, transport: str) -> Stream:
    stream = Stream(ctx, transport)
    head, _ = upgrade(stream)
    require(head.startswith(b"HTTP/1.1 101"), f"answer {head[:100]!r}")
    return stream


@case(SUITES, "accept header bytes")
def accept_bytes(ctx: Context, transport: str):
    head, accept = upgrade(Stream(ctx, transport))
    require(head.startswith(b"HTTP/1.1 101 "), f"answer {head[:100]!r}")
    wanted = b"\r\nSec-WebSocket-Accept: " + accept + b"\r\n"
    require(wanted in head, f"no {wanted!r} in {head!r}")
    expect(head.count(b"Sec-WebSocket-Accept: "), 1, "times that the header is there")


@case(SUITES, "answer headers")
def answer_headers(ctx: Context, transport: str):
    head, _ = upgrade(Stream(ctx, transport))
    expect([v.lower() for v in header(head, "Upgrade")], ["websocket"], "Upgrade")
    require("upgrade" in ",".join(header(head, "Connection")).lower(), f"Connection in {head!r}")
    expect(header(head, "Sec-WebSocket-Extensions"), [], "extensions nobody asked for")


@case(SUITES, "sub-protocol mqtt is echoed")
def protocol_mqtt(ctx: Context, transport: str):
    stream = Stream(ctx, transport)
    head, _ = upgrade(stream, protocols="mqtt")
    expect(header(head, "Sec-WebSocket-Protocol"), ["mqtt"], "sub-protocol")
    stream.socket.sendall(frame(BINARY, connect_packet(ctx.client_id())))
    expect(read_mqtt(stream, 4), CONNACK, "CONNACK")


@case(SUITES, "sub-protocol mqttv3.1 is echoed")
def protocol_mqttv31(ctx: Context, transport: str):
    stream = Stream(ctx, transport)
    head, _ = upgrade(stream, protocols="mqttv3.1")
    expect(header(head, "Sec-WebSocket-Protocol"), ["mqttv3.1"], "sub-protocol")
    stream.socket.sendall(frame(BINARY, connect_packet(ctx.client_id(), "MQIsdp", 3)))
    expect(read_mqtt(stream, 4), CONNACK, "CONNACK")


@case(SUITES, "one known sub-protocol is chosen")
def protocol_choice(ctx: Context, transport: str):
    head, _ = upgrade(Stream(ctx, transport), protocols="chat, mqtt, mqttv3.1")
    chosen = header(head, "Sec-WebSocket-Protocol")
    require(chosen in (["mqtt"], ["mqttv3.1"]), f"chose {chosen}")


@case(SUITES, "any path")
def any_path(ctx: Context, transport: str):
    for path in ("/", "/mqtt", "/ws/deep/path", "/mqtt?token=a%20b"):
        stream = Stream(ctx, transport)
        head, _ = upgrade(stream, path)
        require(head.startswith(b"HTTP/1.1 101"), f"{path}: answer {head[:100]!r}")
        stream.socket.sendall(frame(BINARY, connect_packet(ctx.client_id())))
        expect(read_mqtt(stream, 4), CONNACK, f"CONNACK at {path}")


@case(SUITES, "packets over any frames")
def fragmentation(ctx: Context, transport: str):
    topic = ctx.topic()
    hello = connect_packet(ctx.client_id())
    subscribe = packet(0x82, b"\x00\x01" + text(topic) + b"\x00")
    publish = packet(0x30, text(topic) + b"payload")
    answers = CONNACK + bytes.fromhex("9003000100") + publish
    whole = hello + subscribe + publish
    ways = {
        "one frame": frame(BINARY, whole),
        "a frame for each byte": b"".join(frame(BINARY, whole[i : i + 1]) for i in range(len(whole))),
        "one message of many fragments": b"".join(
            frame(CONTINUATION if i else BINARY, whole[i : i + 5], i + 5 >= len(whole)) for i in range(0, len(whole), 5)
        ),
        "frames across packet borders": frame(BINARY, whole[: len(hello) + 3]) + frame(BINARY, whole[len(hello) + 3 :]),
        "an empty frame between": frame(BINARY, hello) + frame(BINARY, b"") + frame(BINARY, subscribe + publish),
    }
    for way, data in ways.items():
        stream = opened(ctx, transport)
        stream.socket.sendall(data)
        expect(read_mqtt(stream, len(answers)), answers, f"answers to {way}")


@case(SUITES, "request and first frame in one segment")
def eager_first_frame(ctx: Context, transport: str):
    stream = Stream(ctx, transport)
    request = (
        f"GET /mqtt HTTP/1.1\r\nHost: {stream.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    stream.socket.sendall(request.encode() + frame(BINARY, connect_packet(ctx.client_id())))
    stream.until(b"\r\n\r\n")
    expect(read_mqtt(stream, 4), CONNACK, "CONNACK")


@case(SUITES, "websocket ping is answered")
def websocket_ping(ctx: Context, transport: str):
    stream = opened(ctx, transport)
    stream.socket.sendall(frame(BINARY, connect_packet(ctx.client_id())))
    expect(read_mqtt(stream, 4), CONNACK, "CONNACK")
    stream.socket.sendall(frame(PING, b"are you there"))
    expect(read_frame(stream), (PONG, b"are you there"), "answer")


@case(SUITES, "text frames end the connection")
def text_frame(ctx: Context, transport: str):
    stream = opened(ctx, transport)
    stream.socket.sendall(frame(TEXT, connect_packet(ctx.client_id())))
    while stream.fill():
        pass
    require(CONNACK not in stream.buffer, "a text frame was taken for MQTT")


@case(SUITES, "plain http gets an answer")
def plain_http(ctx: Context, transport: str):
    stream = Stream(ctx, transport)
    stream.socket.sendall(f"GET /mqtt HTTP/1.1\r\nHost: {stream.host}\r\nConnection: close\r\n\r\n".encode())
    status = stream.until(b"\r\n").split(b" ")
    require(status[0] == b"HTTP/1.1" and status[1][:1] == b"4", f"status line {status!r}")
