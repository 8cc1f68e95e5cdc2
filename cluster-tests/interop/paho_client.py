"""A blocking wrapper around paho-mqtt: every call waits for the server's answer, within the case's deadline."""

import dataclasses
import socket
import ssl
import threading
from typing import Any, Optional

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from harness import Context, Failure

V31, V311, V5 = paho.MQTTv31, paho.MQTTv311, paho.MQTTv5
# For a CONNECT without a session expiry interval: by the standard the same as 0.
NO_EXPIRY = -1
SUITES = {"paho-3.1": V31, "paho-3.1.1": V311, "paho-5": V5}


def properties(packet: int, **values: Any) -> Properties:
    result = Properties(packet)
    for name, value in values.items():
        setattr(result, name, value)
    return result


def publish_properties(**values: Any) -> Properties:
    return properties(PacketTypes.PUBLISH, **values)


def connect_properties(**values: Any) -> Properties:
    return properties(PacketTypes.CONNECT, **values)


def will_properties(**values: Any) -> Properties:
    return properties(PacketTypes.WILLMESSAGE, **values)


def subscribe_properties(**values: Any) -> Properties:
    return properties(PacketTypes.SUBSCRIBE, **values)


def property_of(source: Any, name: str, default: Any = None) -> Any:
    return getattr(source, name, default) if source is not None else default


@dataclasses.dataclass
class Will:
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Optional[Properties] = None


class Client:
    """One connection. A new connection of the same session is a new Client with the same id."""

    def __init__(
        self,
        ctx: Context,
        version: int = V5,
        role: str = "a",
        *,
        client_id: Optional[str] = None,
        clean: bool = True,
        door: str = "mqtt",
        path: str = "/mqtt",
        will: Optional[Will] = None,
        keepalive: int = 60,
        manual_ack: bool = False,
        session_expiry: Optional[int] = None,
        node: int = 0,
        username: Optional[str] = None,
        password: Optional[str] = None,
        tls: Optional[ssl.SSLContext] = None,
        **connect_values: Any,
    ):
        self.ctx = ctx
        self.version = version
        self.changed = threading.Condition()
        self.messages: list[paho.MQTTMessage] = []
        self.connack: Any = None
        self.disconnected: Any = None
        self._answers: dict[tuple[str, int], Any] = {}
        self._keepalive = keepalive
        self._clean = clean
        if session_expiry is None and version == V5 and not clean:
            session_expiry = 120
        if session_expiry not in (None, NO_EXPIRY) and version == V5:
            connect_values["SessionExpiryInterval"] = session_expiry
        self._properties = connect_properties(**connect_values) if version == V5 else None
        self._door = ctx.endpoints.door(door, node)
        kwargs: dict[str, Any] = {} if version == V5 else {"clean_session": clean}
        self.paho = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=ctx.client_id(role) if client_id is None else client_id,
            protocol=version,
            transport="websockets" if door in ("ws", "wss") else "tcp",
            reconnect_on_failure=False,
            manual_ack=manual_ack,
            **kwargs,
        )
        self.paho.connect_timeout = 5.0
        if door in ("ws", "wss"):
            self.paho.ws_set_options(path=path)
        if door in ("mqtts", "wss"):
            self.paho.tls_set_context(tls or ctx.endpoints.tls())
        if username is not None:
            self.paho.username_pw_set(username, password)
        if will is not None:
            self.paho.will_set(will.topic, will.payload, will.qos, will.retain, will.properties)
        self.paho.on_connect = self._on_connect
        self.paho.on_disconnect = self._on_disconnect
        self.paho.on_message = self._on_message
        self.paho.on_subscribe = lambda c, u, mid, codes, p: self._answer("suback", mid, codes)
        self.paho.on_unsubscribe = lambda c, u, mid, codes, p: self._answer("unsuback", mid, codes)
        self.paho.on_publish = lambda c, u, mid, code, p: self._answer("publish", mid, code)

    # Callbacks, on paho's thread.

    def _on_connect(self, client, userdata, flags, code, props):
        with self.changed:
            self.connack = (code, flags, props)
            self.changed.notify_all()

    def _on_disconnect(self, client, userdata, flags, code, props):
        with self.changed:
            # A DISCONNECT is followed by the end of the stream, which paho reports as a second, nameless reason.
            if self.disconnected is None:
                self.disconnected = (code, flags, props)
            self.changed.notify_all()

    def _on_message(self, client, userdata, message):
        with self.changed:
            self.messages.append(message)
            self.changed.notify_all()

    def _answer(self, kind, mid, value):
        with self.changed:
            self._answers[(kind, mid)] = value
            self.changed.notify_all()

    # Calls, on the case's thread.

    def attempt(self) -> "Client":
        """Connects and waits for any CONNACK, good or bad."""
        if self.version == V5:
            self.paho.connect(
                self._door.host, self._door.port, self._keepalive, clean_start=self._clean, properties=self._properties
            )
        else:
            self.paho.connect(self._door.host, self._door.port, self._keepalive)
        self.paho.loop_start()
        self.ctx.on_close(self.close)
        self.ctx.wait(self.changed, lambda: self.connack or self.disconnected, lambda: "CONNACK")
        if self.connack is None:
            raise Failure(f"closed before CONNACK: {self.disconnected[0]}")
        return self

    def connect(self) -> "Client":
        self.attempt()
        if self.connack[0].is_failure:
            raise Failure(f"CONNACK refused: {self.connack[0]}")
        return self

    @property
    def session_present(self) -> bool:
        return bool(self.connack[1].session_present)

    def connack_property(self, name: str, default: Any = None) -> Any:
        return property_of(self.connack[2], name, default)

    def _await(self, kind: str, mid: int, what: str) -> Any:
        self.ctx.wait(
            self.changed,
            lambda: (kind, mid) in self._answers or self.disconnected,
            lambda: f"the answer to {what}",
        )
        if (kind, mid) not in self._answers:
            raise Failure(f"disconnected ({self.disconnected[0]}) before the answer to {what}")
        return self._answers[(kind, mid)]

    def subscribe(self, topic: Any, qos: int = 0, identifier: Optional[int] = None, **options: Any) -> list[int]:
        """Returns the codes of the SUBACK. `topic` may be a list of (filter, qos). v5 options by name."""
        if self.version == V5:
            pairs = topic if isinstance(topic, list) else [(topic, qos)]
            wanted = [(name, SubscribeOptions(qos=level, **options)) for name, level in pairs]
            props = subscribe_properties(SubscriptionIdentifier=identifier) if identifier else None
            result, mid = self.paho.subscribe(wanted, properties=props)
        else:
            result, mid = self.paho.subscribe(topic, qos)
        if result != 0:
            raise Failure(f"paho would not subscribe: {paho.error_string(result)}")
        return [code.value for code in self._await("suback", mid, "SUBSCRIBE")]

    def unsubscribe(self, topic: Any) -> list[int]:
        result, mid = self.paho.unsubscribe(topic)
        if result != 0:
            raise Failure(f"paho would not unsubscribe: {paho.error_string(result)}")
        return [code.value for code in self._await("unsuback", mid, "UNSUBSCRIBE")]

    def publish(self, topic: str, payload: Any = b"", qos: int = 0, retain: bool = False, **values: Any) -> int:
        """Returns the reason code after the whole QoS exchange. v5 PUBLISH properties by name."""
        props = publish_properties(**values) if values else None
        info = self.paho.publish(topic, payload, qos, retain, properties=props)
        if info.rc not in (0, paho.MQTT_ERR_QUEUE_SIZE):
            raise Failure(f"paho would not publish: {paho.error_string(info.rc)}")
        return self._await("publish", info.mid, f"PUBLISH to {topic}").value

    def publish_nowait(self, topic: str, payload: Any, qos: int = 0, **values: Any) -> None:
        self.paho.publish(topic, payload, qos, properties=publish_properties(**values) if values else None)

    def take(self, count: int) -> list[paho.MQTTMessage]:
        """Waits for `count` messages, removes them from the front and returns them."""
        self.ctx.wait(
            self.changed,
            lambda: len(self.messages) >= count or self.disconnected,
            lambda: f"{count} messages, have {self.payloads()}",
        )
        with self.changed:
            if len(self.messages) < count:
                raise Failure(f"disconnected ({self.disconnected[0]}) with {self.payloads()} of {count} messages")
            taken, self.messages[:count] = self.messages[:count], []
        return taken

    def take_one(self) -> paho.MQTTMessage:
        return self.take(1)[0]

    def until(self, payload: bytes) -> list[paho.MQTTMessage]:
        """Takes all messages up to the sentinel `payload`, which is left out of the result."""

        def position():
            return next((i + 1 for i, m in enumerate(self.messages) if m.payload == payload), None)

        index = self.ctx.wait(
            self.changed, position, lambda: f"the sentinel {payload!r}, have {self.payloads()}"
        )
        return self.take(index)[:-1]

    def payloads(self) -> list[str]:
        return [m.payload[:24].decode("latin-1") for m in self.messages[:20]]

    def ack(self, message: paho.MQTTMessage) -> None:
        self.paho.ack(message.mid, message.qos)

    def wait_closed(self) -> Any:
        """Waits until the server has closed this connection; returns paho's reason."""
        self.ctx.wait(self.changed, lambda: self.disconnected, lambda: "the server to close the connection")
        return self.disconnected[0]

    def kill(self) -> None:
        """Drops the connection with no DISCONNECT, as a crash or a lost network would."""
        raw = self.paho.socket()
        if raw is not None:
            try:
                raw.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.ctx.wait(self.changed, lambda: self.disconnected, lambda: "paho to notice the killed socket")
        self.paho.loop_stop()

    def fall_silent(self) -> None:
        """Stops reading and writing, with the connection left open: no more PINGREQ."""
        self.paho._thread_terminate = True
        self.paho.loop_stop()

    def disconnect(self, reason: Optional[int] = None, **values: Any) -> None:
        """Sends DISCONNECT and waits until the connection is gone."""
        if self.version == V5 and (reason is not None or values):
            code = ReasonCode(PacketTypes.DISCONNECT, identifier=reason or 0)
            props = properties(PacketTypes.DISCONNECT, **values) if values else None
            self.paho.disconnect(code, props)
        else:
            self.paho.disconnect()
        self.ctx.wait(self.changed, lambda: self.disconnected, lambda: "the end of the connection")
        self.paho.loop_stop()

    def close(self) -> None:
        if self.disconnected is None:
            self.paho.disconnect()
        self.paho.loop_stop()


def taken(messages: list, message) -> None:
    """Takes this very message out: to paho all messages of one packet id are the same, and with QoS 0 that is 0."""
    messages[:] = [other for other in messages if other is not message]
