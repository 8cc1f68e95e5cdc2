"""MQTT 5 with paho-mqtt: sessions and their end, wills and their delay, and what CONNACK and DISCONNECT say."""

import time

from harness import Context, case, expect, require
from paho_client import NO_EXPIRY, Client, Will, will_properties

SUITE = "paho-5"


@case(SUITE, "session expiry", deadline=20)
def session_expiry(ctx: Context):
    first = Client(ctx, clean=False, session_expiry=2).connect()
    first.subscribe(ctx.topic(), 1)
    first.disconnect()
    soon = Client(ctx, clean=False, session_expiry=2).connect()
    expect(soon.session_present, True, "session present within the interval")
    soon.disconnect()
    ctx.let_time_pass(4.5)
    late = Client(ctx, clean=False, session_expiry=2).connect()
    expect(late.session_present, False, "session present after the interval")
    late.disconnect(SessionExpiryInterval=0)


@case(SUITE, "session expiry 0 ends with the connection")
def session_expiry_zero(ctx: Context):
    for interval in (0, NO_EXPIRY):
        first = Client(ctx, clean=False, session_expiry=interval).connect()
        first.subscribe(ctx.topic(), 1)
        first.disconnect()
        again = Client(ctx, clean=False, session_expiry=0).connect()
        expect(again.session_present, False, "session present")
        again.disconnect()


@case(SUITE, "session expiry changed by disconnect")
def session_expiry_changed(ctx: Context):
    Client(ctx, clean=False, session_expiry=100).connect().disconnect(SessionExpiryInterval=0)
    second = Client(ctx, clean=False, session_expiry=1).connect()
    expect(second.session_present, False, "session present after an interval set to 0")
    second.disconnect(SessionExpiryInterval=100)
    ctx.let_time_pass(3)
    third = Client(ctx, clean=False, session_expiry=100).connect()
    expect(third.session_present, True, "session present after an interval set from 1 to 100")
    third.disconnect(SessionExpiryInterval=0)


@case(SUITE, "session expiry cannot rise from 0")
def session_expiry_raised(ctx: Context):
    first = Client(ctx, clean=True, session_expiry=0).connect()
    first.disconnect(SessionExpiryInterval=100)
    second = Client(ctx, clean=False).connect()
    expect(second.session_present, False, "session present after a protocol error")
    second.disconnect(SessionExpiryInterval=0)


@case(SUITE, "will delay", deadline=15)
def will_delay(ctx: Context):
    watcher = Client(ctx, role="watch").connect()
    watcher.subscribe(ctx.topic("#"), 1)
    will = Will(ctx.topic("w"), b"late", 1, properties=will_properties(WillDelayInterval=2))
    Client(ctx, role="dying", will=will, session_expiry=60).connect().kill()
    since = time.monotonic()
    watcher.publish(ctx.topic("s"), b"sentinel", 1)
    expect([m.payload for m in watcher.until(b"sentinel")], [], "messages before the delay")
    expect(watcher.take_one().payload, b"late", "will")
    require(time.monotonic() - since > 0.9, "the will came too early")
    Client(ctx, role="dying").connect()


@case(SUITE, "will delay ended by a reconnect", deadline=15)
def will_delay_cancelled(ctx: Context):
    watcher = Client(ctx, role="watch").connect()
    watcher.subscribe(ctx.topic("#"), 1)
    will = Will(ctx.topic("w"), b"wrong", 1, properties=will_properties(WillDelayInterval=1))
    Client(ctx, role="dying", will=will, session_expiry=60).connect().kill()
    back = Client(ctx, role="dying", clean=False, session_expiry=60).connect()
    expect(back.session_present, True, "session present")
    ctx.let_time_pass(3)
    watcher.publish(ctx.topic("s"), b"sentinel", 1)
    expect([m.payload for m in watcher.until(b"sentinel")], [], "wills of a session that came back in time")
    back.disconnect(SessionExpiryInterval=0)


@case(SUITE, "will delay ends with the session", deadline=15)
def will_delay_session(ctx: Context):
    watcher = Client(ctx, role="watch").connect()
    watcher.subscribe(ctx.topic("w"), 1)
    will = Will(ctx.topic("w"), b"session ended", 1, properties=will_properties(WillDelayInterval=600))
    Client(ctx, role="dying", will=will, session_expiry=1).connect().kill()
    expect(watcher.take_one().payload, b"session ended", "will, at the end of the session")


@case(SUITE, "disconnect with will")
def disconnect_with_will(ctx: Context):
    watcher = Client(ctx, role="watch").connect()
    watcher.subscribe(ctx.topic("w"), 1)
    leaving = Client(ctx, role="leaving", will=Will(ctx.topic("w"), b"on purpose", 1)).connect()
    leaving.disconnect(reason=0x04)
    expect(watcher.take_one().payload, b"on purpose", "will")


@case(SUITE, "assigned client id")
def assigned_client_id(ctx: Context):
    ids = set()
    for _ in range(3):
        client = Client(ctx, client_id="").connect()
        assigned = client.connack_property("AssignedClientIdentifier", "")
        require(assigned, "CONNACK assigns no client id")
        ids.add(assigned)
    expect(len(ids), 3, "different client ids for three clients")
    named = Client(ctx).connect()
    expect(named.connack_property("AssignedClientIdentifier"), None, "assigned id of a client that has one")


@case(SUITE, "assigned client id resumes")
def assigned_resumes(ctx: Context):
    first = Client(ctx, client_id="", session_expiry=60).connect()
    assigned = first.connack_property("AssignedClientIdentifier", "")
    first.disconnect()
    back = Client(ctx, client_id=assigned, clean=False).connect()
    expect(back.session_present, True, "session present under the assigned id")
    back.disconnect(SessionExpiryInterval=0)


@case(SUITE, "server keep alive if present", deadline=15)
def server_keep_alive(ctx: Context):
    client = Client(ctx, keepalive=2).connect()
    value = client.connack_property("ServerKeepAlive")
    require(value is None or 1 <= value <= 65535, f"server keep alive of {value}")
    client.subscribe(ctx.topic())
    ctx.let_time_pass(5)
    client.publish(ctx.topic(), b"x")
    client.take_one()


@case(SUITE, "connack announces no missing feature")
def connack(ctx: Context):
    client = Client(ctx).connect()
    for name in (
        "RetainAvailable",
        "WildcardSubscriptionAvailable",
        "SubscriptionIdentifierAvailable",
        "SharedSubscriptionAvailable",
    ):
        expect(client.connack_property(name, 1), 1, name)
    expect(client.connack_property("MaximumQoS", 2), 2, "maximum QoS")
    require(client.connack_property("ReceiveMaximum", 65535) >= 1, "receive maximum")


@case(SUITE, "enhanced authentication is refused")
def enhanced_authentication(ctx: Context):
    client = Client(ctx, AuthenticationMethod="SCRAM-SHA-256", AuthenticationData=b"n,,n=user,r=nonce").attempt()
    expect(client.connack[0].value, 0x8C, "CONNACK")
    client.wait_closed()
    Client(ctx).connect()


@case(SUITE, "request problem information")
def problem_information(ctx: Context):
    client = Client(ctx, RequestProblemInformation=0, RequestResponseInformation=1).connect()
    client.subscribe(ctx.topic(), 1)
    client.publish(ctx.topic(), b"x", 1, UserProperty=[("k", "v")])
    expect(list(client.take_one().properties.UserProperty), [("k", "v")], "user properties of a PUBLISH")


@case(SUITE, "takeover of a persistent session says so")
def takeover_persistent(ctx: Context):
    first = Client(ctx, clean=False).connect()
    second = Client(ctx, clean=False).connect()
    expect(second.session_present, True, "session present")
    expect(first.wait_closed().value, 0x8E, "reason of the DISCONNECT")
    second.disconnect(SessionExpiryInterval=0)


@case(SUITE, "a clean session takes over and starts anew")
def takeover_clean(ctx: Context):
    first = Client(ctx, clean=False).connect()
    first.subscribe(ctx.topic(), 1)
    second = Client(ctx, clean=True).connect()
    expect(second.session_present, False, "session present")
    first.wait_closed()
    second.subscribe(ctx.topic("s"), 1)
    second.publish(ctx.topic(), b"wrong", 1)
    second.publish(ctx.topic("s"), b"sentinel", 1)
    expect([m.payload for m in second.until(b"sentinel")], [], "messages of the old session's subscription")
