"""Three nodes for the vendors' SDKs, and the cases against them: session.py FULMAR WORK_DIR LOG -- COMMAND...

In a network namespace of its own (`unshare -n -m`, INTEROP_NAMESPACE=1) each node has an address and the default ports,
and the vendors' host names lead to them: for SDKs that know no others. Elsewhere the nodes have ports of their own, and
those SDKs are skipped by name. COMMAND is run with the path of endpoints.json in place of `ENDPOINTS`; its exit code is ours.
"""

import fcntl
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time

START_WITHIN_S = 60
STOP_WITHIN_S = 30

# Pre-authentication sends to `public.iot-as-mqtt`: another node than the one that answers it.
HOSTS = """\
127.0.0.1 localhost
127.0.0.1 a1B2c3D4e5F.iot-as-mqtt.cn-shanghai.aliyuncs.com iot-auth.cn-shanghai.aliyuncs.com
127.0.0.1 a1Nothing00.iot-as-mqtt.cn-shanghai.aliyuncs.com
127.0.0.2 public.iot-as-mqtt.cn-shanghai.aliyuncs.com
127.0.0.1 ABCDE12345.iotcloud.tencentdevices.com ABCDE12345.ap-guangzhou.iothub.tencentdevices.com
127.0.0.1 ap-guangzhou.gateway.tencentdevices.com
"""


def loopback_up() -> None:
    """What `ip link set lo up` does."""
    get_flags, set_flags, is_up = 0x8913, 0x8914, 0x1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, get_flags, request))[1]
        fcntl.ioctl(control, set_flags, struct.pack("16sh14x", b"lo", flags | is_up))


def own_names(work: str) -> None:
    path = os.path.join(work, "hosts")
    with open(path, "w", encoding="ascii") as file:
        file.write(HOSTS)
    subprocess.run(["mount", "--bind", path, "/etc/hosts"], check=True)


def free_base_port() -> int:
    """Ports for three nodes, 100 apart. Below those that the system gives out."""
    for _ in range(50):
        base = 25_000 + random.randrange(70) * 100
        try:
            for node in range(3):
                for door in range(1, 10):
                    with socket.socket() as probe:
                        probe.bind(("127.0.0.1", base + 100 * node + door))
            return base
        except OSError:
            continue
    raise SystemExit("no free ports")


def start(fulmar: str, work: str, log_path: str, in_namespace: bool) -> tuple[subprocess.Popen, str]:
    where = ["--host-per-node"] if in_namespace else ["--base-port", str(free_base_port())]
    with open(log_path, "wb") as log:
        command = [fulmar, "dev", "--nodes", "3", "--data-dir", os.path.join(work, "dev"), *where]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    end = time.monotonic() + START_WITHIN_S
    while time.monotonic() < end and process.poll() is None:
        with open(log_path, encoding="utf-8", errors="replace") as log:
            found = re.search(r"^endpoints: (.+)$", log.read(), re.MULTILINE)
        # It is named before the nodes are ready, and written once they are.
        if found and os.path.exists(found[1]):
            return process, found[1]
        time.sleep(0.1)
    stop(process, None)
    with open(log_path, encoding="utf-8", errors="replace") as log:
        sys.stderr.write("".join(log.readlines()[-20:]))
    print("FAIL  fulmar  fulmar dev with three nodes did not come up", flush=True)
    raise SystemExit(1)


def stop(process: subprocess.Popen, endpoints) -> None:
    pids = []
    if endpoints:
        with open(endpoints, encoding="utf-8") as file:
            pids = [int(pid) for pid in re.findall(r'"pid": *(\d+)', file.read())]
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_WITHIN_S)
            return
        except subprocess.TimeoutExpired:
            sys.stderr.write(f"fulmar dev did not stop within {STOP_WITHIN_S} s of SIGINT\n")
            process.kill()
            process.wait()
            # Its nodes are processes of their own.
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass


def main() -> int:
    fulmar, work, log_path, separator, *command = sys.argv[1:]
    assert separator == "--" and command, __doc__
    in_namespace = os.environ.get("INTEROP_NAMESPACE") == "1"
    # So that nodes are stopped when the runner's time is up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if in_namespace:
        loopback_up()
        own_names(work)
    process, endpoints = start(fulmar, work, log_path, in_namespace)
    try:
        command = [endpoints if word == "ENDPOINTS" else word for word in command]
        return subprocess.run(command, check=False, env={**os.environ, "INTEROP_OWN_NODES": "1"}).returncode
    finally:
        stop(process, endpoints)


if __name__ == "__main__":
    sys.exit(main())
