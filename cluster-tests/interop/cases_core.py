"""What every version of MQTT has, with paho-mqtt as MQTT 3.1, 3.1.1 and 5."""

import time

from harness import Context, case, expect, require
from paho_client import SUITES, V31, V5, Client, Will

NOT_31 = {suite: version for suite, version in SUITES.items() if version != V31}
# A probe is only for what must NOT happen and leaves no trace to wait for. Facts are always waited for instead.
PROBE_SECONDS = 0.3


@case(SUITES, "connect")
def connect(ctx: Context, version: int):
    client = Client(ctx, version).connect()
    expect(client.session_present, False, "session present of a clean session")
    client.disconnect()
    require(not client.disconnected[0].is_failure, f"a clean end was reported as {client.disconnected[0]}")


@case(SUITES, "long client id")
def long_client_id(ctx: Context, version: int):
    Client(ctx, version, client_id=f"interop-{ctx.suffix}-" + "x" * 60).connect()


@case({suite: version for suite, version in NOT_31.items() if version != V5}, "empty client id")
def empty_client_id(ctx: Context, version: int):
    first = Client(ctx, version, client_id="").connect()
    Client(ctx, version, client_id="").connect()
    first.subscribe(ctx.topic())
    first.publish(ctx.topic(), b"still here")
    first.take_one()


def _door(name: str, door: str, path: str):
    @case(SUITES, name)
    def through_door(ctx: Context, version: int):
        client = Client(ctx, version, door=door, path=path).connect()
        expect(client.subscribe(ctx.topic(), 2), [2], "granted QoS")
        payload = bytes(range(256)) * 40
        for qos in (0, 1, 2):
            client.publish(ctx.topic(), payload, qos)
            message = client.take_one()
            expect((message.payload == payload, message.qos), (True, qos), "payload and QoS")


_door("door tls", "mqtts", "")
_door("door ws", "ws", "/mqtt")
_door("door ws path root", "ws", "/")
_door("door ws path other", "ws", "/some/other/path")
_door("door wss", "wss", "/mqtt")


@case(SUITES, "retained")
def retained(ctx: Context, version: int):
    publisher = Client(ctx, version, "pub").connect()
    publisher.publish(ctx.topic("a"), b"old", 1, retain=True)
    publisher.publish(ctx.topic("a"), b"new", 1, retain=True)
    publisher.publish(ctx.topic("b/c"), b"deep", 0, retain=True)
    publisher.publish(ctx.topic("fence"), b"", 1)

    early = Client(ctx, version, "early").connect()
    early.subscribe(ctx.topic("#"), 1)
    got = sorted((m.topic, m.payload, m.retain) for m in early.take(2))
    expect(got, [(ctx.topic("a"), b"new", True), (ctx.topic("b/c"), b"deep", True)], "replay")
    publisher.publish(ctx.topic("a"), b"live", 1, retain=True)
    live = early.take_one()
    expect((live.payload, bool(live.retain)), (b"live", False), "a retained publish as an existing subscriber sees it")

    publisher.publish(ctx.topic("a"), b"", 1, retain=True)
    publisher.publish(ctx.topic("b/c"), b"", 1, retain=True)
    late = Client(ctx, version, "late").connect()
    late.subscribe(ctx.topic("#"), 1)
    publisher.publish(ctx.topic("a"), b"sentinel", 1)
    expect(late.until(b"sentinel"), [], "replay after clearing")


@case(SUITES, "retained replayed at every subscribe")
def retained_again(ctx: Context, version: int):
    client = Client(ctx, version).connect()
    client.publish(ctx.topic(), b"kept", 1, retain=True)
    for _ in range(2):
        client.subscribe(ctx.topic(), 1)
        message = client.take_one()
        expect((message.payload, bool(message.retain)), (b"kept", True), "replay")
    client.publish(ctx.topic(), b"", 1, retain=True)


@case(SUITES, "will")
def will(ctx: Context, version: int):
    watcher = Client(ctx, version, "watch").connect()
    watcher.subscribe(ctx.topic("#"), 2)
    for qos in (0, 1, 2):
        dying = Client(ctx, version, "dying", will=Will(ctx.topic("w"), b"gone %d" % qos, qos)).connect()
        dying.kill()
        message = watcher.take_one()
        expect((message.payload, message.qos, bool(message.retain)), (b"gone %d" % qos, qos, False), "will")


@case(SUITES, "will retained")
def will_retained(ctx: Context, version: int):
    watcher = Client(ctx, version, "watch").connect()
    watcher.subscribe(ctx.topic("w"), 1)
    Client(ctx, version, "dying", will=Will(ctx.topic("w"), b"kept", 1, retain=True)).connect().kill()
    watcher.take_one()
    late = Client(ctx, version, "late").connect()
    late.subscribe(ctx.topic("w"), 1)
    message = late.take_one()
    expect((message.payload, bool(message.retain)), (b"kept", True), "the will as a retained message")
    late.publish(ctx.topic("w"), b"", 1, retain=True)


@case(SUITES, "no will after disconnect")
def no_will(ctx: Context, version: int):
    watcher = Client(ctx, version, "watch").connect()
    watcher.subscribe(ctx.topic("#"), 1)
    leaving = Client(ctx, version, "leaving", will=Will(ctx.topic("w"), b"wrong", 1)).connect()
    leaving.disconnect()
    # A second connection of the same client: by its CONNACK the first one's end has been dealt with.
    Client(ctx, version, "leaving").connect()
    watcher.publish(ctx.topic("s"), b"sentinel", 1)
    expect([m.payload for m in watcher.until(b"sentinel")], [], "messages before the sentinel")


@case(SUITES, "will after keep alive timeout", deadline=25)
def keep_alive_timeout(ctx: Context, version: int):
    watcher = Client(ctx, version, "watch").connect()
    watcher.subscribe(ctx.topic("w"), 1)
    silent = Client(ctx, version, "silent", keepalive=1, will=Will(ctx.topic("w"), b"silent", 1)).connect()
    silent.fall_silent()
    since = time.monotonic()
    expect(watcher.take_one().payload, b"silent", "will")
    require(time.monotonic() - since > 0.4, "the will came before one and a half keep alives")


@case(SUITES, "keep alive holds an idle connection", deadline=15)
def keep_alive_held(ctx: Context, version: int):
    client = Client(ctx, version, keepalive=1).connect()
    client.subscribe(ctx.topic())
    ctx.let_time_pass(4)
    client.publish(ctx.topic(), b"here")
    client.take_one()


WILDCARDS = {
    "a/b": ["a/b"],
    "+/b": ["a/b", "/b"],
    "a/+": ["a/b", "a/"],
    "a/#": ["a", "a/", "a/b", "a/b/c", "a//c"],
    "a/+/c": ["a/b/c", "a//c"],
    "+/+": ["a/b", "a/", "/b"],
    "+": ["a", "A"],
    "a/b/+": ["a/b/c"],
    "#": ["a", "A", "a/", "/b", "a/b", "a/b/c", "a//c"],
}


@case(SUITES, "wildcards")
def wildcards(ctx: Context, version: int):
    client = Client(ctx, version).connect()
    client.subscribe(ctx.topic("fence-outside"), 1)
    prefix = ctx.topic("t")
    for pattern, wanted in WILDCARDS.items():
        client.subscribe(f"{prefix}/{pattern}", 1)
        for topic in WILDCARDS["#"]:
            client.publish(f"{prefix}/{topic}", topic.encode(), 1)
        client.publish(ctx.topic("fence-outside"), b"sentinel", 1)
        got = sorted(m.topic.removeprefix(prefix + "/") for m in client.until(b"sentinel"))
        expect(got, sorted(wanted), f"topics for {pattern}")
        client.unsubscribe(f"{prefix}/{pattern}")


@case(SUITES, "dollar topics")
def dollar_topics(ctx: Context, version: int):
    system = Client(ctx, version, "sys").connect()
    system.subscribe("$SYS/#")
    require(system.take_one().topic.startswith("$SYS/"), "a topic under $SYS")
    everything = Client(ctx, version, "all").connect()
    everything.subscribe("#")
    everything.subscribe("+/broker/#")
    # Other cases run beside this one, so the sentinel's payload is this case's own.
    sentinel = ctx.suffix.encode()
    everything.publish(ctx.topic(), sentinel)
    wrong = [m.topic for m in everything.until(sentinel) if m.topic.startswith("$")]
    expect(wrong, [], "topics with $ that # or + matched")


@case(SUITES, "qos round trip")
def qos_round_trip(ctx: Context, version: int):
    subscriber = Client(ctx, version, "sub").connect()
    publisher = Client(ctx, version, "pub").connect()
    for qos in (0, 1, 2):
        topic = ctx.topic(str(qos))
        expect(subscriber.subscribe(topic, qos), [qos], "granted QoS")
        wanted = [b"%d" % n for n in range(50)]
        for payload in wanted[:-1]:
            publisher.publish_nowait(topic, payload, qos)
        publisher.publish(topic, wanted[-1], qos)
        got = subscriber.take(50)
        expect([m.payload for m in got], wanted, f"payloads at QoS {qos}, in order, each once")
        expect({m.qos for m in got}, {qos}, "QoS of delivery")
        expect({bool(m.dup) for m in got}, {False}, "DUP of first deliveries")
        subscriber.unsubscribe(topic)
    expect(subscriber.payloads(), [], "more than was published")


@case(SUITES, "qos is the lower of both")
def qos_downgrade(ctx: Context, version: int):
    subscriber = Client(ctx, version, "sub").connect()
    publisher = Client(ctx, version, "pub").connect()
    for granted in (0, 1, 2):
        subscriber.subscribe(ctx.topic(), granted)
        for sent in (0, 1, 2):
            publisher.publish(ctx.topic(), b"x", sent)
            expect(subscriber.take_one().qos, min(granted, sent), f"QoS of a {sent} to a subscription of {granted}")


@case(SUITES, "payload sizes and bytes")
def payloads(ctx: Context, version: int):
    client = Client(ctx, version).connect()
    client.subscribe(ctx.topic(), 1)
    for payload in (b"", b"\x00", bytes(range(256)), b"x" * 127, b"y" * 16_384, b"z" * 200_000):
        client.publish(ctx.topic(), payload, 1)
        require(client.take_one().payload == payload, f"a payload of {len(payload)} bytes came back changed")


@case(SUITES, "utf-8 topics")
def utf8_topics(ctx: Context, version: int):
    client = Client(ctx, version).connect()
    topic = ctx.topic("bodø/Fulmarus glacialis/海燕/🐦")
    client.subscribe(ctx.topic("+/+/海燕/#"), 1)
    client.publish(topic, b"x", 1)
    expect(client.take_one().topic, topic, "topic")


@case(SUITES, "many filters in one subscribe")
def many_filters(ctx: Context, version: int):
    client = Client(ctx, version).connect()
    wanted = [n % 3 for n in range(60)]
    expect(client.subscribe([(ctx.topic(str(n)), qos) for n, qos in enumerate(wanted)]), wanted, "granted QoS")
    for n, qos in enumerate(wanted):
        client.publish(ctx.topic(str(n)), b"x", 2)
        expect(client.take_one().qos, qos, f"QoS of filter {n}")


@case(SUITES, "resubscribe replaces")
def resubscribe(ctx: Context, version: int):
    client = Client(ctx, version).connect()
    client.subscribe(ctx.topic(), 0)
    client.subscribe(ctx.topic(), 1)
    client.publish(ctx.topic(), b"once", 1)
    client.publish(ctx.topic(), b"sentinel", 1)
    expect([(m.payload, m.qos) for m in client.until(b"sentinel")], [(b"once", 1)], "copies")


@case(SUITES, "unsubscribe")
def unsubscribe(ctx: Context, version: int):
    client = Client(ctx, version).connect()
    client.subscribe([(ctx.topic("a"), 1), (ctx.topic("b"), 1), (ctx.topic("c"), 1)])
    client.publish(ctx.topic("a"), b"before", 1)
    client.take_one()
    client.unsubscribe([ctx.topic("a"), ctx.topic("b")])
    client.publish(ctx.topic("a"), b"wrong", 1)
    client.publish(ctx.topic("b"), b"wrong", 1)
    client.publish(ctx.topic("c"), b"sentinel", 1)
    expect([m.payload for m in client.until(b"sentinel")], [], "messages after UNSUBACK")


@case(SUITES, "offline queue")
def offline_queue(ctx: Context, version: int):
    first = Client(ctx, version, clean=False).connect()
    expect(first.session_present, False, "session present at first")
    first.subscribe([(ctx.topic("q1"), 1), (ctx.topic("q2"), 2)])
    first.disconnect()
    publisher = Client(ctx, version, "pub").connect()
    for n in range(30):
        publisher.publish(ctx.topic("q1"), b"%d" % n, 1)
        publisher.publish(ctx.topic("q2"), b"%d" % n, 2)
    back = Client(ctx, version, clean=False).connect()
    if version != V31:  # 3.1 has no such flag
        expect(back.session_present, True, "session present on return")
    got = back.take(60)
    for name, qos in (("q1", 1), ("q2", 2)):
        mine = [m for m in got if m.topic == ctx.topic(name)]
        expect([m.payload for m in mine], [b"%d" % n for n in range(30)], f"the queue of {name}")
        expect({m.qos for m in mine}, {qos}, f"QoS of {name}")
    publisher.publish(ctx.topic("q1"), b"sentinel", 1)
    expect([m.payload for m in back.until(b"sentinel")], [], "more than was queued")
    back.disconnect()
    Client(ctx, version, clean=True).connect()


@case(SUITES, "offline queue after a killed connection")
def offline_queue_killed(ctx: Context, version: int):
    first = Client(ctx, version, clean=False).connect()
    first.subscribe(ctx.topic(), 1)
    first.kill()
    publisher = Client(ctx, version, "pub").connect()
    for n in range(10):
        publisher.publish(ctx.topic(), b"%d" % n, 1)
    back = Client(ctx, version, clean=False).connect()
    expect([m.payload for m in back.take(10)], [b"%d" % n for n in range(10)], "the queue")
    back.disconnect()
    Client(ctx, version, clean=True).connect()


@case(SUITES, "clean start drops the session")
def clean_start(ctx: Context, version: int):
    first = Client(ctx, version, clean=False).connect()
    first.subscribe(ctx.topic(), 1)
    first.disconnect()
    publisher = Client(ctx, version, "pub").connect()
    publisher.publish(ctx.topic(), b"wrong", 1)
    clean = Client(ctx, version, clean=True).connect()
    expect(clean.session_present, False, "session present")
    publisher.publish(ctx.topic(), b"wrong too", 1)
    clean.subscribe(ctx.topic("s"), 1)
    publisher.publish(ctx.topic("s"), b"sentinel", 1)
    expect([m.payload for m in clean.until(b"sentinel")], [], "messages of the dropped session")
    clean.disconnect()
    again = Client(ctx, version, clean=False).connect()
    expect(again.session_present, False, "session present after a clean session ended")
    again.disconnect()
    Client(ctx, version, clean=True).connect()


@case(SUITES, "unacknowledged is sent again with dup")
def redelivery(ctx: Context, version: int):
    first = Client(ctx, version, clean=False, manual_ack=True).connect()
    first.subscribe(ctx.topic(), 1)
    publisher = Client(ctx, version, "pub").connect()
    for n in range(3):
        publisher.publish(ctx.topic(), b"%d" % n, 1)
    got = first.take(3)
    expect([bool(m.dup) for m in got], [False] * 3, "DUP of first deliveries")
    first.ack(got[0])
    # Packets are read in order, so the answer to this proves that the acknowledgement was read.
    first.subscribe(ctx.topic("fence"), 0)
    first.kill()
    back = Client(ctx, version, clean=False).connect()
    again = back.take(2)
    expect([(m.payload, bool(m.dup)) for m in again], [(b"1", True), (b"2", True)], "redelivery")
    expect([m.mid for m in again], [m.mid for m in got[1:]], "packet ids of the redelivery")
    publisher.publish(ctx.topic(), b"sentinel", 1)
    expect([m.payload for m in back.until(b"sentinel")], [], "acknowledged messages sent again")
    back.disconnect()
    Client(ctx, version, clean=True).connect()


@case(SUITES, "takeover")
def takeover(ctx: Context, version: int):
    first = Client(ctx, version).connect()
    second = Client(ctx, version).connect()
    reason = first.wait_closed()
    if version == V5:
        expect(reason.value, 0x8E, "reason of the DISCONNECT that the first connection got")
    second.subscribe(ctx.topic())
    second.publish(ctx.topic(), b"mine")
    second.take_one()


@case(SUITES, "takeover keeps a persistent session")
def takeover_session(ctx: Context, version: int):
    first = Client(ctx, version, clean=False).connect()
    first.subscribe(ctx.topic(), 1)
    second = Client(ctx, version, clean=False).connect()
    if version != V31:
        expect(second.session_present, True, "session present")
    first.wait_closed()
    publisher = Client(ctx, version, "pub").connect()
    publisher.publish(ctx.topic(), b"moved", 1)
    expect(second.take_one().payload, b"moved", "message")
    expect(first.payloads(), [], "what the closed connection got")
    second.disconnect()
    Client(ctx, version, clean=True).connect()


@case(SUITES, "takeover publishes the will")
def takeover_will(ctx: Context, version: int):
    watcher = Client(ctx, version, "watch").connect()
    watcher.subscribe(ctx.topic("w"), 1)
    first = Client(ctx, version, will=Will(ctx.topic("w"), b"taken", 1)).connect()
    Client(ctx, version).connect()
    first.wait_closed()
    expect(watcher.take_one().payload, b"taken", "will")


def _shared(ctx: Context, version: int, members: int) -> list[Client]:
    result = []
    for n in range(members):
        member = Client(ctx, version, f"m{n}").connect()
        expect(member.subscribe(f"$share/g{ctx.suffix}/{ctx.topic('t/+')}", 1), [1], "granted QoS")
        member.subscribe(ctx.topic(f"fence{n}"), 1)
        result.append(member)
    return result


def _drain(publisher: Client, ctx: Context, members: list[Client]) -> list[list[bytes]]:
    """What each member has got, up to a sentinel of its own."""
    for n, _ in enumerate(members):
        publisher.publish(ctx.topic(f"fence{n}"), b"sentinel", 1)
    return [[m.payload for m in member.until(b"sentinel")] for member in members]


@case(SUITES, "shared subscription")
def shared(ctx: Context, version: int):
    members = _shared(ctx, version, 2)
    plain = Client(ctx, version, "plain").connect()
    plain.subscribe(ctx.topic("t/#"), 1)
    publisher = Client(ctx, version, "pub").connect()
    wanted = [b"%03d" % n for n in range(60)]
    for n, payload in enumerate(wanted):
        publisher.publish(ctx.topic(f"t/{n % 7}"), payload, 1)
    ctx.poll(
        lambda: sum(len(m.messages) for m in members) >= 60,
        lambda: f"60 messages, have {[len(m.messages) for m in members]}",
    )
    parts = _drain(publisher, ctx, members)
    expect(sorted(parts[0] + parts[1]), wanted, "messages over both members, each once")
    require(parts[0] and parts[1], f"not split: {len(parts[0])} and {len(parts[1])}")
    expect(sorted(m.payload for m in plain.take(60)), wanted, "messages of a plain subscriber beside the group")


@case(SUITES, "shared subscription: two groups")
def shared_groups(ctx: Context, version: int):
    clients = []
    for n in range(2):
        client = Client(ctx, version, f"m{n}").connect()
        client.subscribe(f"$share/g{n}{ctx.suffix}/{ctx.topic('t')}", 1)
        clients.append(client)
    for n in range(10):
        clients[0].publish(ctx.topic("t"), b"%d" % n, 1)
    for client in clients:
        expect([m.payload for m in client.take(10)], [b"%d" % n for n in range(10)], "messages of each group")


@case(SUITES, "shared subscription: a member leaves")
def shared_leave(ctx: Context, version: int):
    members = _shared(ctx, version, 2)
    publisher = Client(ctx, version, "pub").connect()
    members[0].unsubscribe(f"$share/g{ctx.suffix}/{ctx.topic('t/+')}")
    for n in range(20):
        publisher.publish(ctx.topic("t/x"), b"%02d" % n, 1)
    expect(sorted(m.payload for m in members[1].take(20)), [b"%02d" % n for n in range(20)], "the other member's")
    expect(_drain(publisher, ctx, members)[0], [], "messages to the member that left")


@case(SUITES, "shared subscription: no retained replay")
def shared_retained(ctx: Context, version: int):
    publisher = Client(ctx, version, "pub").connect()
    publisher.publish(ctx.topic("t/r"), b"kept", 1, retain=True)
    members = _shared(ctx, version, 1)
    try:
        expect(_drain(publisher, ctx, members), [[]], "replay to a shared subscription")
    finally:
        publisher.publish(ctx.topic("t/r"), b"", 1, retain=True)


@case(SUITES, "several versions in one group of topics")
def across_versions(ctx: Context, version: int):
    subscriber = Client(ctx, version, "sub").connect()
    subscriber.subscribe(ctx.topic("#"), 2)
    for other in SUITES.values():
        publisher = Client(ctx, other, f"p{other}").connect()
        publisher.publish(ctx.topic(str(other)), b"from %d" % other, 2)
        message = subscriber.take_one()
        expect((message.topic, message.payload, message.qos), (ctx.topic(str(other)), b"from %d" % other, 2), "message")
