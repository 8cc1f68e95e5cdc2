"""MQTT 5 with paho-mqtt: subscription options and identifiers, and the codes of SUBACK and UNSUBACK."""

from harness import Context, case, expect, require
from paho_client import Client, property_of

SUITE = "paho-5"


def _identifiers(message) -> list[int]:
    return list(property_of(message.properties, "SubscriptionIdentifier", []))


@case(SUITE, "subscription identifiers")
def identifiers(ctx: Context):
    client = Client(ctx).connect()
    client.subscribe(ctx.topic("a/+"), 1, identifier=7)
    client.subscribe(ctx.topic("a/#"), 1, identifier=268_435_455)
    client.subscribe(ctx.topic("b"), 1)
    client.publish(ctx.topic("a/x"), b"both", 1)
    client.publish(ctx.topic("a/x/y"), b"one", 1)
    client.publish(ctx.topic("b"), b"none", 1)
    client.publish(ctx.topic("b"), b"sentinel", 1)
    seen: dict[bytes, list[int]] = {}
    for message in client.until(b"sentinel"):
        seen.setdefault(message.payload, []).extend(_identifiers(message))
    # One copy with both identifiers or one copy for each subscription: both are in the standard.
    expect(sorted(seen[b"both"]), [7, 268_435_455], "identifiers of a message that two subscriptions match")
    expect((seen[b"one"], seen[b"none"]), ([268_435_455], []), "identifiers")


@case(SUITE, "subscription identifier replaced, replayed and queued")
def identifiers_kept(ctx: Context):
    client = Client(ctx, clean=False).connect()
    client.publish(ctx.topic(), b"kept", 1, True)
    client.subscribe(ctx.topic(), 1, identifier=1)
    expect(_identifiers(client.take_one()), [1], "identifier of a retained replay")
    client.subscribe(ctx.topic(), 1, identifier=2, retainHandling=2)
    client.publish(ctx.topic(), b"", 1, True)
    expect(_identifiers(client.take_one()), [2], "identifier after subscribing again")
    client.disconnect()
    Client(ctx, role="pub").connect().publish(ctx.topic(), b"queued", 1)
    back = Client(ctx, clean=False).connect()
    expect(_identifiers(back.take_one()), [2], "identifier of a queued message")
    back.disconnect(SessionExpiryInterval=0)


@case(SUITE, "subscription identifier of a shared subscription")
def identifiers_shared(ctx: Context):
    client = Client(ctx).connect()
    require(client.connack_property("SharedSubscriptionAvailable", 1) == 1, "CONNACK: no shared subscriptions")
    client.subscribe(f"$share/g{ctx.suffix}/{ctx.topic()}", 1, identifier=9)
    client.publish(ctx.topic(), b"x", 1)
    expect(_identifiers(client.take_one()), [9], "identifiers")


@case(SUITE, "no-local")
def no_local(ctx: Context):
    client = Client(ctx).connect()
    other = Client(ctx, role="b").connect()
    client.subscribe(ctx.topic(), 1, noLocal=True)
    client.publish(ctx.topic(), b"own", 1)
    other.publish(ctx.topic(), b"other's", 1)
    client.publish(ctx.topic(), b"own again", 1)
    other.publish(ctx.topic(), b"sentinel", 1)
    expect([m.payload for m in client.until(b"sentinel")], [b"other's"], "messages")


@case(SUITE, "no-local on a shared subscription is refused")
def no_local_shared(ctx: Context):
    client = Client(ctx).connect()
    try:
        client.subscribe(f"$share/g/{ctx.topic()}", 1, noLocal=True)
    except Exception:
        pass
    expect(client.wait_closed().value, 0x82, "reason of the DISCONNECT")


@case(SUITE, "retain as published")
def retain_as_published(ctx: Context):
    as_is = Client(ctx, role="rap").connect()
    plain = Client(ctx, role="plain").connect()
    as_is.subscribe(ctx.topic(), 1, retainAsPublished=True)
    plain.subscribe(ctx.topic(), 1)
    plain.publish(ctx.topic(), b"kept", 1, True)
    plain.publish(ctx.topic(), b"not", 1, False)
    expect([bool(m.retain) for m in as_is.take(2)], [True, False], "RETAIN with the option")
    expect([bool(m.retain) for m in plain.take(2)], [False, False], "RETAIN without it")
    plain.publish(ctx.topic(), b"", 1, True)


@case(SUITE, "retain handling")
def retain_handling(ctx: Context):
    client = Client(ctx).connect()
    client.subscribe(ctx.topic("fence"), 1)
    for name in ("h0", "h1", "h2"):
        client.publish(ctx.topic(name), b"kept", 1, True)

    def replayed(name: str, handling: int) -> int:
        client.subscribe(ctx.topic(name), 1, retainHandling=handling)
        client.publish(ctx.topic("fence"), b"sentinel", 1)
        # A replay may come after later messages of other topics: a message of this very topic closes the look.
        client.publish(ctx.topic(name), b"end", 1)
        got = client.until(b"end")
        if not any(m.payload == b"sentinel" for m in got):
            client.until(b"sentinel")
        return len([m for m in got if m.payload == b"kept" and m.retain])

    expect([replayed("h0", 0), replayed("h0", 0)], [1, 1], "replays at handling 0: always")
    expect([replayed("h1", 1), replayed("h1", 1)], [1, 0], "replays at handling 1: for a new subscription")
    expect([replayed("h2", 2), replayed("h2", 2)], [0, 0], "replays at handling 2: never")
    client.unsubscribe(ctx.topic("h1"))
    expect(replayed("h1", 1), 1, "replays at handling 1 after unsubscribing")
    for name in ("h0", "h1", "h2"):
        client.publish(ctx.topic(name), b"", 1, True)


@case(SUITE, "retain handling 1 with a resumed session")
def retain_handling_resumed(ctx: Context):
    first = Client(ctx, clean=False).connect()
    first.publish(ctx.topic(), b"kept", 1, True)
    first.subscribe(ctx.topic(), 1, retainHandling=1)
    first.take_one()
    first.disconnect()
    back = Client(ctx, clean=False).connect()
    back.subscribe(ctx.topic(), 1, retainHandling=1)
    back.publish(ctx.topic(), b"sentinel", 1)
    expect([m.payload for m in back.until(b"sentinel")], [], "replay for a subscription that the session had")
    back.publish(ctx.topic(), b"", 1, True)
    back.disconnect(SessionExpiryInterval=0)


@case(SUITE, "options survive a reconnect")
def options_kept(ctx: Context):
    first = Client(ctx, clean=False).connect()
    first.subscribe(ctx.topic(), 1, noLocal=True, retainAsPublished=True)
    first.disconnect()
    back = Client(ctx, clean=False).connect()
    back.publish(ctx.topic(), b"own", 1)
    other = Client(ctx, role="b").connect()
    other.publish(ctx.topic(), b"kept", 1, True)
    message = back.take_one()
    other.publish(ctx.topic(), b"", 1, True)
    expect((message.payload, bool(message.retain)), (b"kept", True), "the first message")
    back.disconnect(SessionExpiryInterval=0)


@case(SUITE, "suback and unsuback codes")
def codes(ctx: Context):
    client = Client(ctx).connect()
    wanted = [2, 0, 1]
    expect(client.subscribe([(ctx.topic(str(n)), qos) for n, qos in enumerate(wanted)]), wanted, "SUBACK")
    got = client.unsubscribe([ctx.topic("0"), ctx.topic("never"), ctx.topic("2")])
    expect(got, [0, 0x11, 0], "UNSUBACK: success, no subscription existed, success")


@case(SUITE, "unsubscribe of a shared subscription")
def unsubscribe_shared(ctx: Context):
    client = Client(ctx).connect()
    name = f"$share/g{ctx.suffix}/{ctx.topic()}"
    client.subscribe(name, 1)
    expect(client.unsubscribe(ctx.topic()), [0x11], "UNSUBACK of the filter without its group")
    expect(client.unsubscribe(name), [0], "UNSUBACK")
    expect(client.unsubscribe(name), [0x11], "UNSUBACK a second time")
