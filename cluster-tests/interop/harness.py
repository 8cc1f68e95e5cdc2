"""Endpoints, the case registry and the runner that every Python suite shares.

A case is a function of one `Context`. It waits for facts through the context, whose deadline bounds every wait, and
raises `Failure` with what it saw. One line is printed per case; nothing else goes to standard output.
"""

import dataclasses
import json
import os
import queue
import random
import ssl
import threading
import time
import traceback
from typing import Any, Callable, Optional

DEFAULT_DEADLINE = 10.0
# A case that ignores its own deadline by this much is reported and abandoned.
ABANDON_AFTER = 10.0


class Failure(Exception):
    """The server, not the suite, did something other than the case asks for."""


class Skip(Exception):
    """What the case needs is not on this machine. It says so by name."""


@dataclasses.dataclass(frozen=True)
class Door:
    """One listener, reached as one transport."""

    transport: str
    host: str
    port: int


class Endpoints:
    """The doors of the nodes in an endpoints.json."""

    def __init__(self, path: str):
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        self.ca = content.get("ca")
        if self.ca and not os.path.isabs(self.ca):
            self.ca = os.path.join(os.path.dirname(os.path.abspath(path)), self.ca)
        self.nodes = content["nodes"]
        self.credentials = content.get("credentials") or {}

    def door(self, transport: str, node: int = 0) -> Door:
        """transport is mqtt, mqtts, ws, wss, rest, https or probes."""
        if node >= len(self.nodes):
            raise Failure(f"endpoints.json has no node {node}")
        address = self.nodes[node].get(transport)
        if not address:
            raise Failure(f"endpoints.json has no {transport} door")
        host, _, port = address.rpartition(":")
        return Door(transport, host.strip("[]"), int(port))

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca)


class Context:
    """What one case owns: unique names, a deadline, and everything it must close at the end."""

    def __init__(self, endpoints: Endpoints, suite: str, name: str, seed: str, deadline: float):
        self.endpoints = endpoints
        self.suite = suite
        source = random.Random(f"{seed}/{suite}/{name}")
        self.suffix = "".join(source.choice("abcdefghijkmnpqrstuvwxyz23456789") for _ in range(10))
        self.base = f"interop/{self.suffix}"
        self._end = time.monotonic() + deadline
        self._closers: list[Callable[[], None]] = []

    def topic(self, rest: str = "") -> str:
        return f"{self.base}/{rest}" if rest else self.base

    def client_id(self, role: str = "a") -> str:
        """At most 23 bytes, which is all that MQTT 3.1 promises."""
        return f"it-{self.suffix}-{role}"[:23]

    def remaining(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def on_close(self, closer: Callable[[], None]) -> None:
        self._closers.append(closer)

    def close(self) -> None:
        for closer in reversed(self._closers):
            try:
                closer()
            except Exception:  # a case's own result must not be hidden by its clean-up
                pass

    def wait(self, condition: threading.Condition, fact: Callable[[], Any], what: Callable[[], str]) -> Any:
        """Waits until fact() is truthy and returns it; condition must be notified at every change."""
        with condition:
            value = condition.wait_for(fact, timeout=self.remaining())
            if not value:
                raise Failure(f"deadline passed waiting for {what()}")
            return value

    def poll(self, fact: Callable[[], Any], what: Callable[[], str]) -> Any:
        """Like wait(), for a fact that more than one connection or process makes true."""
        while not (value := fact()):
            if self.remaining() <= 0:
                raise Failure(f"deadline passed waiting for {what()}")
            time.sleep(0.02)
        return value

    def later(self, call: Callable[[], Any]) -> "Later":
        """Begins a call that waits for something that the case has yet to do."""
        return Later(self, call)

    def let_time_pass(self, seconds: float) -> None:
        """For cases whose subject is time itself (expiry, delay), never to make something likely."""
        if seconds > self.remaining():
            raise Failure(f"deadline would pass during a wait of {seconds} s that the case needs")
        time.sleep(seconds)


class Later:
    """A call on a thread of its own."""

    def __init__(self, ctx: Context, call: Callable[[], Any]):
        self._ctx = ctx
        self._done = threading.Event()
        self._value: Any = None
        self._error: Optional[BaseException] = None
        # Seconds that it took, once it is done.
        self.took = 0.0

        def run() -> None:
            began = time.monotonic()
            try:
                self._value = call()
            except BaseException as error:  # for whoever asks for the result
                self._error = error
            self.took = time.monotonic() - began
            self._done.set()

        threading.Thread(target=run, daemon=True).start()

    def result(self) -> Any:
        """Waits for it; raises what it raised."""
        if not self._done.wait(self._ctx.remaining()):
            raise Failure("deadline passed waiting for a call to return")
        if self._error is not None:
            raise self._error
        return self._value


@dataclasses.dataclass
class Case:
    suite: str
    name: str
    run: Callable[[Context], None]
    deadline: float
    # After all others, beside none: it changes what others stand on.
    alone: bool = False


CASES: list[Case] = []


def case(suites: Any, name: str, deadline: float = DEFAULT_DEADLINE, alone: bool = False):
    """Registers a function as one case in each suite.

    `suites` is a suite name, for f(context), or a dict of suite name to parameter, for f(context, parameter).
    """

    def register(function):
        if isinstance(suites, str):
            CASES.append(Case(suites, name, function, deadline, alone))
        else:
            for suite, parameter in suites.items():
                CASES.append(Case(suite, name, lambda ctx, p=parameter: function(ctx, p), deadline, alone))
        return function

    return register


def expect(actual: Any, wanted: Any, what: str) -> None:
    if actual != wanted:
        raise Failure(f"{what}: wanted {wanted!r}, got {actual!r}")


def require(fact: Any, what: str) -> None:
    if not fact:
        raise Failure(what)


def one_line(error: BaseException) -> str:
    if isinstance(error, Failure):
        text = str(error)
    else:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({os.path.basename(frame.filename)}:{frame.lineno})"
    return " ".join(text.split())[:500]


def run_cases(cases: list[Case], endpoints: Endpoints, seed: str, jobs: int) -> int:
    """Runs the cases on `jobs` threads, prints a line for each, returns how many failed."""
    waiting: "queue.Queue[Case]" = queue.Queue()
    # The longest first: they end while the others run.
    for item in sorted((c for c in cases if not c.alone), key=lambda c: -c.deadline):
        waiting.put(item)
    last = [item for item in cases if item.alone]
    together = len(cases) - len(last)
    lock = threading.Lock()
    running: dict[int, tuple[Case, float]] = {}
    done: set[int] = set()
    failed = 0

    def report(item: Case, error: Optional[str], skipped: Optional[str] = None) -> None:
        nonlocal failed
        with lock:
            if id(item) in done:
                return
            done.add(id(item))
            running.pop(id(item), None)
            if skipped is not None:
                print(f"SKIPPED {item.suite}  {item.name}: {skipped}", flush=True)
            elif error is None:
                print(f"ok  {item.suite}  {item.name}", flush=True)
            else:
                failed += 1
                print(f"FAIL  {item.suite}  {item.name}  {error}", flush=True)

    def work() -> None:
        while True:
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            with lock:
                running[id(item)] = (item, time.monotonic() + item.deadline + ABANDON_AFTER)
            ctx = Context(endpoints, item.suite, item.name, seed, item.deadline)
            error = skipped = None
            try:
                item.run(ctx)
            except Skip as caught:
                skipped = str(caught)
            except Exception as caught:
                error = one_line(caught)
            finally:
                ctx.close()
            report(item, error, skipped)
            with lock:
                if item.name in abandoned.get(item.suite, ()):
                    return  # another thread was started in this one's place

    abandoned: dict[str, set[str]] = {}

    def start_worker() -> None:
        threading.Thread(target=work, daemon=True).start()

    for _ in range(max(1, jobs)):
        start_worker()
    while len(done) < len(cases):
        time.sleep(0.05)
        if last and len(done) >= together:
            together += 1
            waiting.put(last.pop(0))
            start_worker()
        with lock:
            late = [item for item, limit in running.values() if time.monotonic() > limit]
            for item in late:
                abandoned.setdefault(item.suite, set()).add(item.name)
        for item in late:
            report(item, "abandoned: it did not end by its deadline")
            start_worker()
    return failed
