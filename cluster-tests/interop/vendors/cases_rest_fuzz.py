"""The REST API under schemathesis, from the node's own OpenAPI document: whatever it makes up, no answer is a 5xx but
the documented 503, and every node stays ready."""

import json
import os
import subprocess
import tempfile
import urllib.request

from harness import Context, Failure, Skip, case, require
from vendors.cases_rest_input import PREFIX, api_of
from vendors.program import HERE

FUZZ_S = int(os.environ.get("INTEROP_FUZZ_S") or 60)
# What would end what this run stands on: its access code, its own user and that one's keys, which schemathesis finds in
# answers and then deletes.
LEFT_OUT = [
    ("post", f"{PREFIX}/auth/accesscode"),
    ("put", f"{PREFIX}/users/{{user_name}}"),
    ("delete", f"{PREFIX}/users/{{user_name}}"),
    ("delete", f"{PREFIX}/access-keys/{{access_key}}"),
]
# Names of operations that end what the others are about: they get ids that there are not.
ENDING = ("delete",)


def document(ctx: Context) -> dict:
    """The node's, for its own project and with ids of things that are there, so that more than the path is tried."""
    api = api_of(ctx)
    made = api.document
    paths = {}
    for path, methods in made["paths"].items():
        methods = {method: entry for method, entry in methods.items() if (method, path) not in LEFT_OUT}
        if not path.startswith(PREFIX) or not methods:
            continue
        for method, operation in methods.items():
            operation["parameters"] = [p for p in operation["parameters"] if p["name"] != "project_id"]
            for parameter in operation["parameters"]:
                known = api.ids.get(parameter["name"])
                if parameter["in"] == "path" and known and method not in ENDING:
                    parameter["schema"] = {"type": "string", "enum": [known, "unknown"]}
        paths[path.replace("{project_id}", api.rest.project)] = methods
    return {**made, "paths": paths}


def ready(ctx: Context) -> None:
    for node in range(len(ctx.endpoints.nodes)):
        door = ctx.endpoints.door("probes", node)
        with urllib.request.urlopen(f"http://{door.host}:{door.port}/readyz", timeout=5) as answer:
            require(answer.status == 200, f"node {node} is not ready")


@case("rest-fuzz", "schemathesis finds no 5xx but 503, and no node falls", deadline=FUZZ_S + 120, alone=True)
def fuzz(ctx):
    program = os.environ.get("INTEROP_SCHEMATHESIS")
    if not program:
        raise Skip("schemathesis is not set up")
    if os.environ.get("INTEROP_OWN_NODES") != "1":
        raise Skip("the nodes were not started by this run, and are not its to fill with whatever comes")
    ready(ctx)
    api = api_of(ctx)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "openapi.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(document(ctx), file)
        door = ctx.endpoints.door("rest")
        command = [
            program,
            "run",
            path,
            "--url",
            f"http://{door.host}:{door.port}",
            "--header",
            f"X-Auth-Token:{api.rest.token()}",
            "--checks",
            "documented_status",
            "--phases",
            "examples,coverage,fuzzing",
            "--mode",
            "all",
            "--max-time",
            str(FUZZ_S),
            "--max-examples",
            "100000" if FUZZ_S > 120 else "200",
            "--seed",
            str(int(ctx.suffix, 36) % 2**31),
            # Its generators share a cache that two threads break.
            "--workers",
            "1",
            "--no-shrink",
            "--continue-on-failure",
            "--request-timeout",
            "30",
            "--suppress-health-check",
            "all",
            "--warnings",
            "off",
        ]
        env = {
            **os.environ,
            "SCHEMATHESIS_HOOKS": "fuzz_hooks",
            "PYTHONPATH": os.path.join(HERE, "programs"),
            "NO_COLOR": "1",
        }
        done = subprocess.run(
            command,
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=FUZZ_S + 100,
            check=False,
        )
    ready(ctx)
    if done.returncode != 0:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        found = [line for line in lines if "documented_status" in line or "curl" in line or "Error" in line]
        raise Failure(
            f"schemathesis ended with {done.returncode}: {' | '.join((found or lines)[-12:])} {done.stderr[-300:]}"
        )
    require(
        "documented_status" in done.stdout or "test cases" in done.stdout or "Test cases" in done.stdout,
        done.stdout[-300:],
    )
