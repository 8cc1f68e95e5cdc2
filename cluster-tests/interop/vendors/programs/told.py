"""What the programs in Python share: events out, commands in, as lines of JSON."""

import json
import sys
import threading

_lock = threading.Lock()

ARGUMENTS = json.loads(sys.argv[1])


def tell(event, **fields):
    with _lock:
        print("\n@@" + json.dumps({"event": event, **fields}), flush=True)


def commands():
    for line in sys.stdin:
        yield json.loads(line)
