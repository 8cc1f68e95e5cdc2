"""HAProxy in front of three nodes, by deploy/haproxy.cfg with addresses in place of names: what the nodes know of clients
behind it, what its checks cost, and a node that leaves without a client being refused.

The nodes' first four listeners (MQTT, MQTTS, WS, WSS) are behind 127.0.0.1, and take nobody without a PROXY header.
"""

import csv
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
from typing import Optional

from harness import Context, Failure, case, expect, require

SAMPLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "deploy", "haproxy.cfg")
FULMAR = os.environ.get("INTEROP_FULMAR", "fulmar")
# What clients come from: another address of this machine than the balancer's own.
CLIENT = "127.0.0.5"
MQTT, MQTTS, WS = "mqtt", "mqtts", "ws"
TURNED_AWAY = "fulmar_connections_turned_away_total"


class Balancer:
    """A running HAProxy, by the sample; `header` is how its servers are told of clients."""

    def __init__(self, ctx: Context, header: str = "send-proxy-v2", more: str = ""):
        self.ctx = ctx
        self.dir = tempfile.mkdtemp(prefix="interop-haproxy-")
        ctx.on_close(lambda: shutil.rmtree(self.dir, ignore_errors=True))
        self.listening: dict[str, socket.socket] = {}
        with open(SAMPLE, encoding="utf-8") as file:
            text = file.read()
        expect(text.count(" send-proxy-v2 "), 1, "one line of the sample says how clients are told of")
        text = text.replace(" send-proxy-v2 ", f" {header} ")
        for name, port in ((MQTT, 1883), (WS, 8083)):
            text, count = re.subn(rf"bind :{port}\n", f"bind {self.open(name)}\n", text)
            expect(count, 1, f"listeners of the sample on {port}")
        text += self.tls() + more.replace("BIND", self.open("more") if more else "")
        text, _ = re.subn(r"server fulmar-(\d) fulmar-\1:(\d+)", self.server, text)
        text, _ = re.subn(r"(server fulmar-(\d) .*) check port 9100", self.probe, text)
        require("fulmar-0:" not in text and "port 9100" not in text, f"all names are replaced: {text}")
        self.control = os.path.join(self.dir, "control")
        text = text.replace("\nglobal\n", f"\nglobal\n    stats socket {self.control} mode 600 level admin\n", 1)
        path = os.path.join(self.dir, "haproxy.cfg")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        self.log = os.path.join(self.dir, "log")
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                ["haproxy", "-db", "-f", path],
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[one.fileno() for one in self.listening.values()],
            )
        ctx.on_close(self.stop)
        ctx.poll(self.runs, lambda: f"HAProxy to run: {self.said()}")

    def open(self, name: str) -> str:
        """A port of the system's choice, handed to HAProxy open."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.listening[name] = listening
        self.ctx.on_close(listening.close)
        return f"fd@{listening.fileno()}"

    def port(self, name: str) -> int:
        return self.listening[name].getsockname()[1]

    def tls(self) -> str:
        """What the sample says of MQTTS: one more of the same."""
        servers = "".join(f"    server fulmar-{n} fulmar-{n}:8883 track mqtt/fulmar-{n}\n" for n in range(3))
        return f"\nlisten mqtts\n    bind {self.open(MQTTS)}\n    balance leastconn\n{servers}"

    def server(self, found: re.Match) -> str:
        door = self.ctx.endpoints.door({"1883": MQTT, "8883": MQTTS, "8083": WS}[found[2]], int(found[1]))
        return f"server fulmar-{found[1]} {door.host}:{door.port}"

    def probe(self, found: re.Match) -> str:
        return f"{found[1]} check port {self.ctx.endpoints.door('probes', int(found[2])).port}"

    def said(self) -> str:
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()[-500:]

    def ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(5)
            control.connect(self.control)
            control.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: control.recv(65536), b"")).decode()

    def runs(self) -> bool:
        require(self.process.poll() is None, f"HAProxy ended: {self.said()}")
        try:
            return "uptime" in self.ask("show info").lower()
        except OSError:
            return False

    def stat(self, proxy: str, server: str) -> dict[str, str]:
        rows = csv.DictReader(io.StringIO(self.ask("show stat").removeprefix("# ")))
        return next(row for row in rows if (row["pxname"], row["svname"]) == (proxy, server))

    def up(self, proxy: str, check: str) -> None:
        """Waits until each server has passed a check of this kind."""
        for number in range(3):
            self.ctx.poll(
                lambda: (row := self.stat(proxy, f"fulmar-{number}"))["status"] == "UP" and row["check_status"] == check,
                lambda: f"{check} of node {number}: {self.stat(proxy, f'fulmar-{number}')}",
            )

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Client:
    """An MQTT 3.1.1 client of a few bytes, which tells a refusal from an answer."""

    def __init__(self, ctx: Context, address: tuple[str, int], client_id: str, source: str = CLIENT, tls: bool = False):
        self.ctx = ctx
        self.socket = socket.create_connection(address, timeout=max(0.1, ctx.remaining()), source_address=(source, 0))
        self.address = "{}:{}".format(*self.socket.getsockname())
        if tls:
            self.socket = ctx.endpoints.tls().wrap_socket(self.socket, server_hostname=address[0])
        self.client_id = client_id

    def connect(self) -> "Client":
        name = self.client_id.encode()
        variable = b"\x00\x04MQTT\x04\x02\x00\x3c" + struct.pack("!H", len(name)) + name
        self.socket.sendall(bytes([0x10, len(variable)]) + variable)
        answer = b""
        while len(answer) < 4:
            more = self.socket.recv(4 - len(answer))
            require(more, f"closed instead of a CONNACK, after {answer!r}")
            answer += more
        expect(answer, b"\x20\x02\x00\x00", "CONNACK")
        return self

    def close(self) -> None:
        try:
            self.socket.sendall(b"\xe0\x00")
        except OSError:
            pass
        self.socket.close()


def known_as(ctx: Context, client_id: str) -> Optional[str]:
    """The address of a client, by `fulmar ctl get sessions`."""
    door = ctx.endpoints.door("admin")
    env = {
        **os.environ,
        "FULMAR_ADMIN_ADDRESS": f"{door.host}:{door.port}",
        "FULMAR_ADMIN_TOKEN": ctx.endpoints.credentials["admin"]["token"],
        "FULMAR_ADMIN_CA": ctx.endpoints.ca,
    }
    command = [FULMAR, "ctl", "-o", "json", "get", "sessions", "--prefix", client_id]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=max(0.1, ctx.remaining()))
    require(done.returncode == 0, f"fulmar ctl ended with {done.returncode}: {done.stderr}")
    found = [row["address"] for row in json.loads(done.stdout)["items"] if row["session"].endswith("/" + client_id)]
    return found[0] if found else None


def turned_away(ctx: Context) -> dict[str, int]:
    """Connections that the nodes closed before CONNECT, by reason."""
    counts: dict[str, int] = {}
    for number in range(3):
        door = ctx.endpoints.door("probes", number)
        with socket.create_connection((door.host, door.port), timeout=max(0.1, ctx.remaining())) as stream:
            stream.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = b"".join(iter(lambda: stream.recv(65536), b"")).decode()
        for labels, value in re.findall(rf"^{TURNED_AWAY}{{([^}}]*)}} (\d+)", text, re.M):
            reason = re.search(r'reason="([^"]*)"', labels)[1]
            counts[reason] = counts.get(reason, 0) + int(value)
    return counts


@case("haproxy", "deploy/haproxy.cfg is a configuration")
def sample(ctx: Context) -> None:
    done = subprocess.run(["haproxy", "-c", "-f", SAMPLE], capture_output=True, text=True, timeout=ctx.remaining())
    require(done.returncode == 0, done.stdout + done.stderr)


HEADERS = {
    "haproxy-v1": "send-proxy",
    "haproxy-v2": "send-proxy-v2",
    "haproxy-v2-crc32c": "send-proxy-v2 proxy-v2-options crc32c,authority",
}


@case(HEADERS, "a client is known by its own address, over TCP, TLS and WebSocket", deadline=20)
def address(ctx: Context, header: str) -> None:
    balancer = Balancer(ctx, header)
    for door in (MQTT, MQTTS):
        at = ("127.0.0.1", balancer.port(door))
        client = Client(ctx, at, ctx.client_id(door), tls=door == MQTTS).connect()
        expect(known_as(ctx, client.client_id), client.address, f"the address of a client over {door}")
        client.close()
    stream = Client(ctx, ("127.0.0.1", balancer.port(WS)), "").socket
    stream.sendall(
        b"GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
    )
    answer = stream.recv(65536)
    require(answer.startswith(b"HTTP/1.1 101 "), f"the upgrade: {answer[:200]!r}")
    stream.close()


@case("haproxy", "whoever comes past the balancer is not let in")
def past(ctx: Context) -> None:
    door = ctx.endpoints.door(MQTT)
    before = turned_away(ctx)
    for source in (CLIENT, "127.0.0.1"):
        try:
            Client(ctx, (door.host, door.port), ctx.client_id(), source).connect()
        except (Failure, OSError):
            continue
        raise Failure(f"a client from {source} was let in without a header")
    reasons = ("proxy_untrusted", "proxy_missing")
    ctx.poll(
        lambda: all(turned_away(ctx).get(reason, 0) > before.get(reason, 0) for reason in reasons),
        lambda: f"{reasons} to be counted: {turned_away(ctx)}",
    )


CHECKS = {
    "haproxy-v1": ("send-proxy", "L4OK"),
    "haproxy-v2": ("send-proxy-v2", "L4OK"),
}


@case(CHECKS, "checks of the port itself (LOCAL) pass, and are refused nothing", deadline=20)
def checks(ctx: Context, kind: tuple[str, str]) -> None:
    header, wanted = kind
    servers = "".join(
        f"    server fulmar-{n} fulmar-{n}:1883 check inter 20ms fall 1 check-{header.removesuffix('-v2')}\n"
        for n in range(3)
    )
    before = turned_away(ctx)
    balancer = Balancer(ctx, header, f"\nlisten port\n    bind BIND\n{servers}")
    balancer.up("mqtt", "L7OK")
    balancer.up("port", wanted)
    # Some dozens of them, while clients come in.
    for number in range(30):
        Client(ctx, ("127.0.0.1", balancer.port("more")), ctx.client_id(str(number))).connect().close()
        ctx.let_time_pass(0.02)
    for number in range(3):
        row = balancer.stat("port", f"fulmar-{number}")
        expect((row["status"], row["chkfail"], row["chkdown"]), ("UP", "0", "0"), f"checks of node {number}")
    after = turned_away(ctx)
    # The other cases of the suite have clients turned away on purpose, for other reasons.
    for reason in ("proxy_malformed", "connect_timeout", "connect_rate_max", "not_mqtt"):
        expect(after.get(reason, 0), before.get(reason, 0), f"turned away: {reason}")


class Crowd:
    """Clients that connect and leave, one after the other on each of some threads, until they are told to end."""

    def __init__(self, ctx: Context, at: tuple[str, int], threads: int):
        self.ctx, self.at = ctx, at
        self.ended = threading.Event()
        self.connected = 0
        self.failed: list[str] = []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(n,), daemon=True) for n in range(threads)]
        for thread in self.threads:
            thread.start()

    def run(self, number: int) -> None:
        count = 0
        while not self.ended.is_set():
            count += 1
            try:
                Client(self.ctx, self.at, self.ctx.client_id(f"{number}-{count}")).connect().close()
            except (Failure, OSError) as error:
                with self.lock:
                    self.failed.append(f"{type(error).__name__}: {error}")
            else:
                with self.lock:
                    self.connected += 1

    def goes_on(self, count: int) -> None:
        """Waits for so many connections more."""
        target = self.connected + count
        self.ctx.poll(lambda: self.connected >= target, lambda: f"{count} connections more; failed: {self.failed[:5]}")

    def end(self) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join(self.ctx.remaining())


@case("haproxy", "a node leaves, and no new connection fails", deadline=60, alone=True)
def leaves(ctx: Context) -> None:
    balancer = Balancer(ctx)
    balancer.up("mqtt", "L7OK")
    crowd = Crowd(ctx, ("127.0.0.1", balancer.port(MQTT)), 4)
    crowd.goes_on(100)
    before = int(balancer.stat("mqtt", "fulmar-0")["stot"])
    require(before > 0, "the node that leaves had its share")
    pid = ctx.endpoints.nodes[0]["pid"]
    os.kill(pid, signal.SIGTERM)
    ctx.poll(
        lambda: balancer.stat("mqtt", "fulmar-0")["status"].startswith("DOWN"),
        lambda: f"the balancer to see that the node leaves: {balancer.stat('mqtt', 'fulmar-0')}",
    )
    ctx.poll(lambda: gone(pid), lambda: "the node to leave")
    crowd.goes_on(100)
    crowd.end()
    expect(crowd.failed, [], f"failed connections of {crowd.connected + len(crowd.failed)}")


def gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            # Ended, and not yet waited for.
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
