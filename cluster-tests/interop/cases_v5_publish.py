"""MQTT 5 with paho-mqtt: what travels with a PUBLISH, and the limits that both sides announce."""

from cases_core import PROBE_SECONDS
from harness import Context, case, expect, require
from paho_client import Client, Will, property_of, publish_properties, will_properties

SUITE = "paho-5"


@case(SUITE, "user properties keep their order")
def user_properties(ctx: Context):
    client = Client(ctx).connect()
    client.subscribe(ctx.topic(), 2)
    wanted = [("b", "1"), ("a", "2"), ("b", "3"), ("", ""), ("b", "1"), ("ключ", "значение"), ("z", "x" * 300)]
    for qos in (0, 1, 2):
        client.publish(ctx.topic(), b"x", qos, UserProperty=wanted)
        expect(list(property_of(client.take_one().properties, "UserProperty", [])), wanted, f"at QoS {qos}")


@case(SUITE, "publish properties forwarded")
def forwarded(ctx: Context):
    client = Client(ctx).connect()
    client.subscribe(ctx.topic(), 1)
    sent = {
        "ContentType": "application/json; charset=utf-8",
        "PayloadFormatIndicator": 1,
        "ResponseTopic": ctx.topic("reply"),
        "CorrelationData": bytes(range(256)),
    }
    client.publish(ctx.topic(), "{}", 1, **sent)
    first = client.take_one()
    client.publish(ctx.topic(), b"\xff\x00", 1, PayloadFormatIndicator=0)
    second = client.take_one()
    expect({name: property_of(first.properties, name) for name in sent}, sent, "properties")
    require(property_of(second.properties, "PayloadFormatIndicator", 0) == 0, "payload format of bytes")
    for name in ("ContentType", "ResponseTopic", "CorrelationData", "MessageExpiryInterval", "UserProperty"):
        expect(property_of(second.properties, name), None, f"{name} of a message that had none")


@case(SUITE, "retained keeps its properties")
def retained_properties(ctx: Context):
    client = Client(ctx).connect()
    client.publish(
        ctx.topic(), b"x", 1, True, ContentType="text/plain", UserProperty=[("k", "2"), ("k", "1")], CorrelationData=b"c"
    )
    client.subscribe(ctx.topic(), 1)
    props = client.take_one().properties
    client.publish(ctx.topic(), b"", 1, True)
    expect(props.ContentType, "text/plain", "content type")
    expect(list(props.UserProperty), [("k", "2"), ("k", "1")], "user properties")
    expect(props.CorrelationData, b"c", "correlation data")


@case(SUITE, "offline queue keeps its properties")
def queued_properties(ctx: Context):
    Client(ctx, clean=False).connect().subscribe(ctx.topic(), 1)
    publisher = Client(ctx, role="pub").connect()
    Client(ctx, clean=False).connect().disconnect()
    publisher.publish(ctx.topic(), b"x", 1, ContentType="text/plain", ResponseTopic="r", UserProperty=[("k", "v")])
    back = Client(ctx, clean=False).connect()
    props = back.take_one().properties
    expect((props.ContentType, props.ResponseTopic, list(props.UserProperty)), ("text/plain", "r", [("k", "v")]), "them")
    back.disconnect(SessionExpiryInterval=0)


@case(SUITE, "request and response")
def request_response(ctx: Context):
    server = Client(ctx, role="srv").connect()
    server.subscribe(ctx.topic("request"), 1)
    requester = Client(ctx, role="req").connect()
    requester.subscribe(ctx.topic("reply/+"), 1)
    for n in range(3):
        requester.publish(
            ctx.topic("request"), b"%d" % n, 1, ResponseTopic=ctx.topic(f"reply/{n}"), CorrelationData=b"id%d" % n
        )
    for request in server.take(3):
        server.publish(
            request.properties.ResponseTopic,
            b"answer " + request.payload,
            1,
            CorrelationData=request.properties.CorrelationData,
        )
    got = sorted((m.topic, m.payload, m.properties.CorrelationData) for m in requester.take(3))
    expect(got, [(ctx.topic(f"reply/{n}"), b"answer %d" % n, b"id%d" % n) for n in range(3)], "answers")


def _expiry(message) -> int:
    return property_of(message.properties, "MessageExpiryInterval", None)


@case(SUITE, "message expiry is rewritten to what remains", deadline=15)
def expiry_rewritten(ctx: Context):
    live = Client(ctx, role="live").connect()
    live.subscribe(ctx.topic("#"), 1)
    Client(ctx, clean=False).connect().subscribe(ctx.topic("q"), 1)
    Client(ctx, clean=False).connect().disconnect()
    live.publish(ctx.topic("q"), b"queued", 1, MessageExpiryInterval=60)
    live.publish(ctx.topic("r"), b"kept", 1, True, MessageExpiryInterval=60)
    for message in live.take(2):
        require(_expiry(message) in (59, 60), f"remaining time of a live delivery is {_expiry(message)}")
    ctx.let_time_pass(2.2)
    back = Client(ctx, clean=False).connect()
    queued = back.take_one()
    back.subscribe(ctx.topic("r"), 1)
    kept = back.take_one()
    live.publish(ctx.topic("r"), b"", 1, True)
    for message in (queued, kept):
        remaining = _expiry(message)
        require(remaining is not None and 50 <= remaining <= 58, f"remaining time of {message.payload!r} is {remaining}")
    back.disconnect(SessionExpiryInterval=0)


@case(SUITE, "expired messages are not delivered", deadline=15)
def expired(ctx: Context):
    Client(ctx, clean=False).connect().subscribe(ctx.topic("q"), 1)
    Client(ctx, clean=False).connect().disconnect()
    publisher = Client(ctx, role="pub").connect()
    publisher.publish(ctx.topic("q"), b"wrong", 1, MessageExpiryInterval=1)
    publisher.publish(ctx.topic("r"), b"wrong too", 1, True, MessageExpiryInterval=1)
    publisher.publish(ctx.topic("q"), b"lasting", 1, MessageExpiryInterval=100)
    ctx.let_time_pass(2.5)
    publisher.publish(ctx.topic("q"), b"sentinel", 1)
    back = Client(ctx, clean=False).connect()
    expect([m.payload for m in back.until(b"sentinel")], [b"lasting"], "the queue")
    back.subscribe(ctx.topic("r"), 1)
    publisher.publish(ctx.topic("r"), b"sentinel", 1)
    expect([m.payload for m in back.until(b"sentinel")], [], "retained replay")
    back.disconnect(SessionExpiryInterval=0)


@case(SUITE, "receive maximum of the client is respected")
def receive_maximum(ctx: Context):
    subscriber = Client(ctx, role="sub", manual_ack=True, ReceiveMaximum=3).connect()
    subscriber.subscribe(ctx.topic("t"), 1)
    publisher = Client(ctx, role="pub").connect()
    for n in range(12):
        publisher.publish(ctx.topic("t"), b"%d" % n, 1)
    got = []
    for acknowledged in range(12):
        wanted = min(3, 12 - acknowledged)
        have = lambda: len(subscriber.messages) + len(got) - acknowledged
        ctx.wait(subscriber.changed, lambda: have() >= wanted, lambda: f"{wanted} in flight, have {have()}")
        if acknowledged in (0, 5):
            subscriber.subscribe(ctx.topic("fence"), 0)  # its SUBACK follows whatever was already on the way
            ctx.let_time_pass(PROBE_SECONDS)
        expect(have(), wanted, f"messages in flight after {acknowledged} acknowledgements")
        got += subscriber.take(1)
        subscriber.ack(got[-1])
    expect([m.payload for m in got], [b"%d" % n for n in range(12)], "messages")


@case(SUITE, "receive maximum of one with qos 2")
def receive_maximum_qos2(ctx: Context):
    subscriber = Client(ctx, role="sub", ReceiveMaximum=1).connect()
    subscriber.subscribe(ctx.topic("t"), 2)
    publisher = Client(ctx, role="pub").connect()
    for n in range(20):
        publisher.publish_nowait(ctx.topic("t"), b"%d" % n, 2)
    expect([m.payload for m in subscriber.take(20)], [b"%d" % n for n in range(20)], "messages, one at a time")


@case(SUITE, "topic alias from the client")
def alias_in(ctx: Context):
    subscriber = Client(ctx, role="sub").connect()
    subscriber.subscribe(ctx.topic("#"), 1)
    publisher = Client(ctx, role="pub").connect()
    require(publisher.connack_property("TopicAliasMaximum", 0) >= 2, "CONNACK allows no two topic aliases")
    publisher.publish(ctx.topic("one"), b"1", 1, TopicAlias=1)
    publisher.publish(ctx.topic("two"), b"2", 0, TopicAlias=2)
    publisher.publish("", b"3", 1, TopicAlias=1)
    publisher.publish("", b"4", 0, TopicAlias=2)
    publisher.publish(ctx.topic("three"), b"5", 1, TopicAlias=1)
    publisher.publish("", b"6", 1, TopicAlias=1)
    got = sorted((m.payload, m.topic.removeprefix(ctx.base + "/")) for m in subscriber.take(6))
    wanted = [(b"1", "one"), (b"2", "two"), (b"3", "one"), (b"4", "two"), (b"5", "three"), (b"6", "three")]
    expect(got, wanted, "topics")


@case(SUITE, "topic alias to the client")
def alias_out(ctx: Context):
    subscriber = Client(ctx, role="sub", TopicAliasMaximum=3).connect()
    subscriber.subscribe(ctx.topic("#"), 1)
    plain = Client(ctx, role="plain").connect()
    plain.subscribe(ctx.topic("#"), 1)
    publisher = Client(ctx, role="pub").connect()
    topics = [ctx.topic(f"alias/{n % 5}") for n in range(25)]
    for n, topic in enumerate(topics):
        publisher.publish(topic, topic.encode(), n % 2)
    known: dict[int, str] = {}
    for message in subscriber.take(25):
        alias = property_of(message.properties, "TopicAlias")
        topic = message.topic
        if alias is not None:
            require(1 <= alias <= 3, f"alias {alias} is beyond the client's maximum of 3")
            topic = known.setdefault(alias, topic) if not topic else topic
            known[alias] = topic
        expect(topic, message.payload.decode(), "topic")
    for message in plain.take(25):
        expect(property_of(message.properties, "TopicAlias"), None, "alias for a client that allows none")
        expect(message.topic, message.payload.decode(), "topic")


@case(SUITE, "topic alias zero or unknown is refused")
def alias_wrong(ctx: Context):
    for alias, role in ((0, "zero"), (65535, "high")):
        client = Client(ctx, role=role).connect()
        if alias <= client.connack_property("TopicAliasMaximum", 0):
            continue
        if alias == 0:
            # paho's setter refuses 0; a property set past it is packed all the same.
            props = publish_properties(TopicAlias=1)
            object.__setattr__(props, "TopicAlias", 0)
            client.paho.publish(ctx.topic(), b"x", 0, properties=props)
        else:
            client.publish_nowait(ctx.topic(), b"x", 0, TopicAlias=alias)
        expect(client.wait_closed().value, 0x94, f"reason for alias {alias}")


@case(SUITE, "topic alias ends with the connection")
def alias_connection(ctx: Context):
    first = Client(ctx, clean=False).connect()
    first.publish(ctx.topic(), b"x", 1, TopicAlias=1)
    first.disconnect()
    second = Client(ctx, clean=False).connect()
    second.publish_nowait("", b"wrong", 1, TopicAlias=1)
    require(second.wait_closed().is_failure, "an alias outlived its connection")
    Client(ctx).connect()


@case(SUITE, "maximum packet size of the client")
def maximum_packet_size(ctx: Context):
    subscriber = Client(ctx, role="sub", MaximumPacketSize=256).connect()
    subscriber.subscribe(ctx.topic(), 2)
    plain = Client(ctx, role="plain").connect()
    plain.subscribe(ctx.topic(), 2)
    publisher = Client(ctx, role="pub").connect()
    for qos in (0, 1, 2):
        publisher.publish(ctx.topic(), b"w" * 1000, qos)
        publisher.publish(ctx.topic(), b"small", qos)
    publisher.publish(ctx.topic(), b"sentinel", 2)
    expect([m.payload for m in subscriber.until(b"sentinel")], [b"small"] * 3, "messages that fit")
    expect(len(plain.take(7)), 7, "messages of a client without a maximum")


@case(SUITE, "maximum packet size of the server")
def server_packet_size(ctx: Context):
    client = Client(ctx).connect()
    limit = client.connack_property("MaximumPacketSize")
    if limit is None or limit > 4 << 20:
        return  # none announced, or one too large to try out
    client.publish_nowait(ctx.topic(), b"x" * limit, 0)
    reason = client.wait_closed()
    # The server may close while we still send, which can lose its DISCONNECT; a name, when there is one, must be right.
    require(reason.value in (0x95, 0x80), f"reason {reason}")
    Client(ctx).connect()


@case(SUITE, "will properties")
def will_props(ctx: Context):
    watcher = Client(ctx, role="watch").connect()
    watcher.subscribe(ctx.topic(), 1)
    props = will_properties(
        ContentType="text/plain",
        PayloadFormatIndicator=1,
        ResponseTopic="r",
        CorrelationData=b"\x00\x01",
        MessageExpiryInterval=50,
        UserProperty=[("b", "1"), ("a", "2")],
    )
    Client(ctx, role="dying", will=Will(ctx.topic(), b"gone", 1, properties=props)).connect().kill()
    got = watcher.take_one().properties
    expect(
        (got.ContentType, got.PayloadFormatIndicator, got.ResponseTopic, got.CorrelationData, list(got.UserProperty)),
        ("text/plain", 1, "r", b"\x00\x01", [("b", "1"), ("a", "2")]),
        "properties of the will",
    )
    require(got.MessageExpiryInterval in (49, 50), f"expiry of the will is {got.MessageExpiryInterval}")


@case(SUITE, "puback no matching subscribers")
def no_matching(ctx: Context):
    client = Client(ctx).connect()
    expect(client.publish(ctx.topic(), b"x", 1), 0x10, "PUBACK with no subscriber")
    client.subscribe(ctx.topic(), 1)
    expect(client.publish(ctx.topic(), b"x", 1), 0, "PUBACK with a subscriber")
