"""A vendor's SDK in a process of its own: started, told what to do and listened to by lines of JSON.

SDKs want different interpreters and versions of packages, keep themselves as singletons and print what they like. A
program under programs/ uses one as a device's author would; what it sees it tells as `@@{"event": ...}`, and it takes
commands on its standard input. All else that it prints is kept for the reason of a failure.
"""

import collections
import json
import os
import subprocess
import threading
from typing import Any, Callable, Optional

from harness import Context, Failure, Skip

HERE = os.path.dirname(os.path.abspath(__file__))
# Each names the interpreter or folder that run.sh has set up.
INTERPRETERS = {
    "aliyun": "INTEROP_PYTHON_ALIYUN",
    "tencent": "INTEROP_PYTHON_TENCENT",
    "node": "INTEROP_VENDORS_NODE_DIR",
    "chromium": "INTEROP_CHROMIUM",
}


def tool(name: str) -> str:
    path = os.environ.get(INTERPRETERS[name])
    if not path:
        raise Skip(f"{name} is not set up")
    return path


def need_vendor_names() -> None:
    """For SDKs with host names or ports that cannot be changed."""
    if os.environ.get("INTEROP_NAMESPACE") != "1":
        raise Skip("no right to a network namespace (unshare -n -m), and this SDK's ports or host names are fixed")


class Program:
    """One run of a program."""

    def __init__(self, ctx: Context, kind: str, script: str, arguments: dict, env: Optional[dict] = None):
        self.ctx = ctx
        self.name = script
        self.changed = threading.Condition()
        self.events: list[dict] = []
        self.ended = False
        self._noise: collections.deque[str] = collections.deque(maxlen=8)
        path = os.path.join(HERE, "programs", script)
        if kind == "node":
            command = ["node", path]
            env = {"INTEROP_VENDORS_NODE_DIR": tool("node"), **(env or {})}
        else:
            command = [tool(kind), "-u", path]
        self.process = subprocess.Popen(
            [*command, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
        )
        ctx.on_close(self.kill)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            with self.changed:
                if line.startswith("@@"):
                    self.events.append(json.loads(line[2:]))
                elif line.strip():
                    self._noise.append(line.strip())
                self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def tell(self, command: str, **fields: Any) -> None:
        try:
            self.process.stdin.write(json.dumps({"do": command, **fields}) + "\n")
            self.process.stdin.flush()
        except OSError as error:
            raise Failure(f"{self.name} has ended: {self.story()}") from error

    def wait(self, event: str, fact: Callable[[dict], bool] = lambda _: True) -> dict:
        """Waits for an event, and takes it away."""

        def found():
            return next((e for e in self.events if e["event"] == event and fact(e)), None)

        self.ctx.wait(
            self.changed, lambda: found() or self.ended, lambda: f"{event} from {self.name}; {self.story()}"
        )
        with self.changed:
            value = found()
            if value is None:
                raise Failure(f"{self.name} ended before {event}: {self.story()}")
            self.events.remove(value)
            return value

    def ask(self, command: str, event: str, **fields: Any) -> dict:
        self.tell(command, **fields)
        return self.wait(event)

    def seen(self, event: str) -> list[dict]:
        with self.changed:
            return [e for e in self.events if e["event"] == event]

    def story(self) -> str:
        seen = [e for e in self.events if e["event"] != "noise"]
        return f"it told {seen[-6:]} and printed {list(self._noise)}"

    def kill(self) -> None:
        """As a crash would: nothing is said to the server."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
