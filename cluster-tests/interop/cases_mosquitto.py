"""mosquitto_pub, mosquitto_sub and mosquitto_rr as MQTT 3.1, 3.1.1 and 5."""

import signal
import subprocess
import threading
from typing import Optional

from harness import Context, Failure, case, expect, require

SUITES = {"mosquitto-3.1": "mqttv31", "mosquitto-3.1.1": "mqttv311", "mosquitto-5": "mqttv5"}
V31, V5 = "mqttv31", "mqttv5"
# What mosquitto_sub prints for each message; the payloads of these cases are text without line breaks.
FIELDS = ("retain", "qos", "topic", "content", "correlation", "expiry", "format", "response", "ids", "user", "payload")
FORMAT = "MESSAGE|%r|%q|%t|%C|%D|%E|%F|%R|%S|%P|%p"


def _door(ctx: Context, transport: str) -> list[str]:
    door = ctx.endpoints.door(transport)
    tls = ["--cafile", ctx.endpoints.ca] if transport == "mqtts" else []
    return ["-h", door.host, "-p", str(door.port), *tls]


def publish(ctx: Context, version: str, topic: str, payload: Optional[str], *options: str, door: str = "mqtt") -> str:
    """One mosquitto_pub, which must succeed; returns what it printed. A payload of None is an empty one."""
    body = ["-n"] if payload is None else ["-m", payload]
    command = ["mosquitto_pub", "-d", "-V", version, *_door(ctx, door), "-t", topic, *body, *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=max(0.1, ctx.remaining()))
    if result.returncode != 0:
        raise Failure(f"mosquitto_pub ended with {result.returncode}: {result.stdout[-200:]} {result.stderr[-200:]}")
    return result.stdout + result.stderr


class Process:
    """A running mosquitto_sub or mosquitto_rr; a thread collects its lines."""

    def __init__(self, ctx: Context, command: list[str]):
        self.ctx = ctx
        self.changed = threading.Condition()
        self.lines: list[str] = []
        self._taken = 0
        # Its standard output is a pipe, which C would fill before it writes; stdbuf makes that a line at a time.
        self.process = subprocess.Popen(
            ["stdbuf", "-oL", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        ctx.on_close(self.close)
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()

    def wait_line(self, text: str, count: int = 1) -> None:
        self.ctx.wait(
            self.changed,
            lambda: len([line for line in self.lines if text in line]) >= count,
            lambda: f"{count} x {text!r} in {self.lines[-6:]}",
        )

    def wait_exit(self) -> int:
        try:
            return self.process.wait(max(0.1, self.ctx.remaining()))
        except subprocess.TimeoutExpired:
            raise Failure(f"it did not end; last lines {self.lines[-6:]}") from None

    def _messages(self) -> list[dict[str, str]]:
        rows = [line.split("|", len(FIELDS)) for line in self.lines if line.startswith("MESSAGE|")]
        return [dict(zip(FIELDS, row[1:])) for row in rows]

    def take(self, count: int) -> list[dict[str, str]]:
        end = self._taken + count
        self.ctx.wait(
            self.changed, lambda: len(self._messages()) >= end, lambda: f"{count} messages in {self.lines[-6:]}"
        )
        taken = self._messages()[self._taken : end]
        self._taken = end
        return taken

    def until(self, payload: str) -> list[dict[str, str]]:
        result = []
        while (message := self.take(1)[0])["payload"] != payload:
            result.append(message)
        return result

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()


def subscribe(ctx: Context, version: str, topics: list[str], *options: str, door: str = "mqtt") -> Process:
    """A mosquitto_sub that has its SUBACK."""
    names = [part for topic in topics for part in ("-t", topic)]
    process = Process(
        ctx, ["mosquitto_sub", "-d", "-V", version, *_door(ctx, door), "-F", FORMAT, *names, *options]
    )
    process.wait_line("Subscribed (mid")
    return process


def payloads(messages: list[dict[str, str]]) -> list[str]:
    return [message["payload"] for message in messages]


def _session(version: str) -> list[str]:
    return ["-c", "-x", "120"] if version == V5 else ["-c"]


def _drop_session(ctx: Context, version: str, client_id: str) -> None:
    publish(ctx, version, ctx.topic("end"), None, "-i", client_id)


@case(SUITES, "connect")
def connect(ctx: Context, version: str):
    printed = publish(ctx, version, ctx.topic(), "x", "-i", ctx.client_id(), "-q", "1")
    require("received CONNACK (0)" in printed, printed)


@case(SUITES, "door tls")
def door_tls(ctx: Context, version: str):
    watcher = subscribe(ctx, version, [ctx.topic()], "-q", "1", door="mqtts")
    publish(ctx, version, ctx.topic(), "x", "-q", "1", door="mqtts")
    expect(payloads(watcher.take(1)), ["x"], "message")


@case(SUITES, "retained")
def retained(ctx: Context, version: str):
    publish(ctx, version, ctx.topic("r"), "kept", "-r", "-q", "1")
    first = subscribe(ctx, version, [ctx.topic("#")], "-q", "1").take(1)[0]
    expect((first["payload"], first["retain"]), ("kept", "1"), "replay")
    publish(ctx, version, ctx.topic("r"), None, "-r", "-q", "1")
    late = subscribe(ctx, version, [ctx.topic("#")], "-q", "1")
    publish(ctx, version, ctx.topic("r"), "sentinel", "-q", "1")
    expect(payloads(late.until("sentinel")), [], "replay after clearing")


@case(SUITES, "will")
def will(ctx: Context, version: str):
    watcher = subscribe(ctx, version, [ctx.topic("w")], "-q", "2")
    for qos in "012":
        options = ["--will-topic", ctx.topic("w"), "--will-payload", f"gone {qos}", "--will-qos", qos]
        subscribe(ctx, version, [ctx.topic("other")], "-i", ctx.client_id("d"), *options).kill()
        got = watcher.take(1)[0]
        expect((got["payload"], got["qos"]), (f"gone {qos}", qos), "will")


@case(SUITES, "no will after disconnect")
def no_will(ctx: Context, version: str):
    watcher = subscribe(ctx, version, [ctx.topic("w")], "-q", "1")
    options = ["--will-topic", ctx.topic("w"), "--will-payload", "wrong", "--will-qos", "1", "-E"]
    expect(subscribe(ctx, version, [ctx.topic("x")], "-i", ctx.client_id("l"), *options).wait_exit(), 0, "exit code")
    publish(ctx, version, ctx.topic("x"), "x", "-i", ctx.client_id("l"))
    publish(ctx, version, ctx.topic("w"), "sentinel", "-q", "1")
    expect(payloads(watcher.until("sentinel")), [], "messages")


@case(SUITES, "wildcards")
def wildcards(ctx: Context, version: str):
    wanted = {"t/+": ["t/a"], "t/#": ["t", "t/a", "t/a/b"], "+/a": ["t/a"], "t/+/b": ["t/a/b"]}
    watchers = {
        pattern: subscribe(ctx, version, [ctx.topic(pattern), ctx.topic("s")], "-q", "1") for pattern in wanted
    }
    for topic in ("t", "t/a", "t/a/b", "u"):
        publish(ctx, version, ctx.topic(topic), topic, "-q", "1")
    publish(ctx, version, ctx.topic("s"), "sentinel", "-q", "1")
    for pattern, topics in wanted.items():
        expect(sorted(payloads(watchers[pattern].until("sentinel"))), topics, f"topics for {pattern}")


@case(SUITES, "dollar topics")
def dollar_topics(ctx: Context, version: str):
    system = subscribe(ctx, version, ["$SYS/#"])
    require(system.take(1)[0]["topic"].startswith("$SYS/"), "a topic under $SYS")
    everything = subscribe(ctx, version, ["#", "+/broker/#"])
    publish(ctx, version, ctx.topic(), ctx.suffix)
    wrong = [m["topic"] for m in everything.until(ctx.suffix) if m["topic"].startswith("$")]
    expect(wrong, [], "topics with $ that # or + matched")


@case(SUITES, "qos round trip")
def qos_round_trip(ctx: Context, version: str):
    watcher = subscribe(ctx, version, [ctx.topic()], "-q", "2")
    for qos in "012":
        publish(ctx, version, ctx.topic(), f"at {qos}", "-q", qos)
        got = watcher.take(1)[0]
        expect((got["payload"], got["qos"]), (f"at {qos}", qos), "message")
    for qos in "012":
        lower = subscribe(ctx, version, [ctx.topic()], "-q", qos)
        publish(ctx, version, ctx.topic(), "x", "-q", "2")
        expect(lower.take(1)[0]["qos"], qos, "QoS of a 2 to a lower subscription")


@case(SUITES, "many messages of one publisher")
def many(ctx: Context, version: str):
    wanted = [f"line {n}" for n in range(200)]
    for qos in "012":
        watcher = subscribe(ctx, version, [ctx.topic()], "-q", "2")
        command = ["mosquitto_pub", "-V", version, *_door(ctx, "mqtt"), "-t", ctx.topic(), "-q", qos, "-l"]
        result = subprocess.run(
            command, input="\n".join(wanted) + "\n", capture_output=True, text=True, timeout=max(0.1, ctx.remaining())
        )
        expect(result.returncode, 0, f"exit code ({result.stderr[-200:]})")
        expect(payloads(watcher.take(200)), wanted, f"messages at QoS {qos}")


@case(SUITES, "offline queue")
def offline_queue(ctx: Context, version: str):
    who = ["-i", ctx.client_id("p"), *_session(version), "-q", "1"]
    expect(subscribe(ctx, version, [ctx.topic()], *who, "-E").wait_exit(), 0, "exit code")
    for n in range(5):
        publish(ctx, version, ctx.topic(), f"away {n}", "-q", "1")
    back = subscribe(ctx, version, [ctx.topic()], *who)
    expect(payloads(back.take(5)), [f"away {n}" for n in range(5)], "the queue")
    publish(ctx, version, ctx.topic(), "sentinel", "-q", "1")
    expect(payloads(back.until("sentinel")), [], "more than was queued")
    back.kill()
    _drop_session(ctx, version, ctx.client_id("p"))


@case(SUITES, "takeover")
def takeover(ctx: Context, version: str):
    # mosquitto_sub comes back by itself, so the second connection is a short one.
    first = subscribe(ctx, version, [ctx.topic()], "-i", ctx.client_id("t"))
    publish(ctx, version, ctx.topic("x"), "x", "-i", ctx.client_id("t"))
    if version == V5:
        first.wait_line("Received DISCONNECT (142)")
    else:
        first.wait_line("sending CONNECT", 2)


@case(SUITES, "shared subscription")
def shared(ctx: Context, version: str):
    group = f"$share/g{ctx.suffix}/{ctx.topic('t')}"
    members = [subscribe(ctx, version, [group, ctx.topic(f"s{n}")], "-q", "1") for n in range(2)]
    wanted = [f"{n:02}" for n in range(20)]
    command = ["mosquitto_pub", "-V", version, *_door(ctx, "mqtt"), "-t", ctx.topic("t"), "-q", "1", "-l"]
    subprocess.run(command, input="\n".join(wanted) + "\n", text=True, check=True, timeout=max(0.1, ctx.remaining()))
    ctx.poll(
        lambda: sum(line.startswith("MESSAGE|") for m in members for line in list(m.lines)) >= 20,
        lambda: f"20 messages, have {[m.lines[-3:] for m in members]}",
    )
    for n in range(2):
        publish(ctx, version, ctx.topic(f"s{n}"), "sentinel", "-q", "1")
    parts = [payloads(member.until("sentinel")) for member in members]
    expect(sorted(parts[0] + parts[1]), wanted, "messages over both members, each once")
    require(parts[0] and parts[1], f"not split: {len(parts[0])} and {len(parts[1])}")


@case(SUITES, "unsubscribe")
def unsubscribe(ctx: Context, version: str):
    who = ["-i", ctx.client_id("u"), *_session(version), "-q", "1"]
    subscribe(ctx, version, [ctx.topic("a"), ctx.topic("b")], *who, "-E").wait_exit()
    back = subscribe(ctx, version, [ctx.topic("b")], *who, "-U", ctx.topic("a"))
    back.wait_line("received UNSUBACK")
    publish(ctx, version, ctx.topic("a"), "wrong", "-q", "1")
    publish(ctx, version, ctx.topic("b"), "sentinel", "-q", "1")
    expect(payloads(back.until("sentinel")), [], "messages after UNSUBACK")
    back.kill()
    _drop_session(ctx, version, ctx.client_id("u"))


@case("mosquitto-5", "publish properties forwarded")
def properties(ctx: Context):
    watcher = subscribe(ctx, V5, [ctx.topic()], "-q", "1", "-D", "subscribe", "subscription-identifier", "77")
    wanted = {
        "content-type": "text/plain",
        "correlation-data": "c0ffee",
        "message-expiry-interval": "500",
        "payload-format-indicator": "1",
        "response-topic": "some/reply",
    }
    options = [part for name, value in wanted.items() for part in ("-D", "publish", name, value)]
    for name, value in (("b", "1"), ("a", "2"), ("b", "3")):
        options += ["-D", "publish", "user-property", name, value]
    publish(ctx, V5, ctx.topic(), "x", "-q", "1", *options)
    got = watcher.take(1)[0]
    expect(
        {key: got[key] for key in ("content", "correlation", "format", "response", "ids", "user")},
        {
            "content": "text/plain",
            "correlation": "c0ffee",
            "format": "1",
            "response": "some/reply",
            "ids": "77",
            "user": "b:1 a:2 b:3",
        },
        "properties",
    )
    require(got["expiry"] in ("499", "500"), f"expiry {got['expiry']}")


@case("mosquitto-5", "message expiry is rewritten to what remains", deadline=15)
def message_expiry(ctx: Context):
    who = ["-i", ctx.client_id("e"), *_session(V5), "-q", "1"]
    subscribe(ctx, V5, [ctx.topic()], *who, "-E").wait_exit()
    publish(ctx, V5, ctx.topic(), "gone", "-q", "1", "-D", "publish", "message-expiry-interval", "1")
    publish(ctx, V5, ctx.topic(), "here", "-q", "1", "-D", "publish", "message-expiry-interval", "100")
    ctx.let_time_pass(2.5)
    got = subscribe(ctx, V5, [ctx.topic()], *who).take(1)[0]
    expect(got["payload"], "here", "the first message left")
    require(90 <= int(got["expiry"]) <= 98, f"remaining time {got['expiry']}")
    _drop_session(ctx, V5, ctx.client_id("e"))


@case("mosquitto-5", "session expiry", deadline=15)
def session_expiry(ctx: Context):
    who = ["-i", ctx.client_id("s"), "-c", "-x", "1", "-q", "1"]
    subscribe(ctx, V5, [ctx.topic()], *who, "-E").wait_exit()
    ctx.let_time_pass(3.5)
    publish(ctx, V5, ctx.topic(), "wrong", "-q", "1")
    back = subscribe(ctx, V5, [ctx.topic()], *who)
    publish(ctx, V5, ctx.topic(), "sentinel", "-q", "1")
    expect(payloads(back.until("sentinel")), [], "the queue of an expired session")


@case("mosquitto-5", "will delay", deadline=15)
def will_delay(ctx: Context):
    watcher = subscribe(ctx, V5, [ctx.topic("#")], "-q", "1")
    options = ["--will-topic", ctx.topic("w"), "--will-payload", "late", "-D", "will", "will-delay-interval", "2"]
    dying = subscribe(ctx, V5, [ctx.topic("other")], "-i", ctx.client_id("d"), "-x", "60", *options)
    dying.kill()
    publish(ctx, V5, ctx.topic("s"), "sentinel", "-q", "1")
    expect(payloads(watcher.until("sentinel")), [], "messages before the delay")
    expect(payloads(watcher.take(1)), ["late"], "will")
    _drop_session(ctx, V5, ctx.client_id("d"))


@case("mosquitto-5", "retain as published")
def retain_as_published(ctx: Context):
    as_is = subscribe(ctx, V5, [ctx.topic()], "-q", "1", "--retain-as-published")
    plain = subscribe(ctx, V5, [ctx.topic()], "-q", "1")
    publish(ctx, V5, ctx.topic(), "x", "-q", "1", "-r")
    expect((as_is.take(1)[0]["retain"], plain.take(1)[0]["retain"]), ("1", "0"), "RETAIN with the option and without")
    publish(ctx, V5, ctx.topic(), None, "-r", "-q", "1")


@case("mosquitto-5", "topic alias from the client")
def topic_alias(ctx: Context):
    watcher = subscribe(ctx, V5, [ctx.topic()], "-q", "1")
    options = ["-D", "publish", "topic-alias", "1", "--repeat", "3", "--repeat-delay", "0", "-q", "1"]
    publish(ctx, V5, ctx.topic(), "x", *options)
    expect([m["topic"] for m in watcher.take(3)], [ctx.topic()] * 3, "topics")


@case("mosquitto-5", "receive maximum of the client")
def receive_maximum(ctx: Context):
    watcher = subscribe(ctx, V5, [ctx.topic()], "-q", "2", "-D", "connect", "receive-maximum", "1")
    options = ["--repeat", "20", "--repeat-delay", "0", "-q", "2"]
    publish(ctx, V5, ctx.topic(), "x", *options)
    publish(ctx, V5, ctx.topic(), "sentinel", "-q", "2")
    expect(len(watcher.until("sentinel")), 20, "messages")


@case("mosquitto-5", "maximum packet size of the client")
def maximum_packet_size(ctx: Context):
    watcher = subscribe(ctx, V5, [ctx.topic()], "-q", "1", "-D", "connect", "maximum-packet-size", "200")
    publish(ctx, V5, ctx.topic(), "w" * 500, "-q", "1")
    publish(ctx, V5, ctx.topic(), "small", "-q", "1")
    expect(payloads(watcher.take(1)), ["small"], "the first message")


@case("mosquitto-5", "puback no matching subscribers")
def no_matching(ctx: Context):
    printed = publish(ctx, V5, ctx.topic(), "x", "-q", "1")
    require("RC:16" in printed, f"PUBACK without 0x10: {printed[-200:]}")


@case("mosquitto-5", "enhanced authentication is refused")
def enhanced_authentication(ctx: Context):
    command = ["mosquitto_pub", "-d", "-V", V5, *_door(ctx, "mqtt"), "-t", ctx.topic(), "-m", "x"]
    command += ["-D", "connect", "authentication-method", "none-known"]
    process = Process(ctx, command)
    process.wait_line("received CONNACK (140)")


@case("mosquitto-5", "request and response")
def request_response(ctx: Context):
    server = subscribe(ctx, V5, [ctx.topic("request")], "-q", "1")
    command = ["mosquitto_rr", "-V", V5, *_door(ctx, "mqtt"), "-q", "1", "-m", "ping"]
    command += ["-t", ctx.topic("request"), "-e", ctx.topic("reply"), "-W", "8"]
    command += ["-D", "publish", "correlation-data", "id-1"]
    requester = Process(ctx, command)
    got = server.take(1)[0]
    expect((got["payload"], got["response"], got["correlation"]), ("ping", ctx.topic("reply"), "id-1"), "request")
    publish(ctx, V5, got["response"], "pong", "-q", "1", "-D", "publish", "correlation-data", got["correlation"])
    expect(requester.wait_exit(), 0, "exit code")
    requester.wait_line("pong")
