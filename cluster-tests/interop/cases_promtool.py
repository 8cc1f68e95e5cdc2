"""Prometheus's own promtool: the alert rules and their tests, the dashboard's expressions, and what a node is scraped for."""

import json
import os
import re
import subprocess
import tempfile
import urllib.request
from typing import Optional

from harness import Context, Failure, case, expect, require

SUITE = "promtool"
DEPLOY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "deploy")
ALERTS = os.path.join(DEPLOY, "alerts")
# What Grafana puts in the place of its variables.
VARIABLES = {"$__rate_interval": "5m", "$namespace": ".*", "$pod": ".*"}
# Lines of `promtool check metrics` that we live with, and why: none.
ACCEPTED: list[str] = []


def promtool(ctx: Context, *arguments: str, given: Optional[str] = None) -> str:
    """Runs it, and returns what it printed; it must succeed."""
    result = subprocess.run(
        ["promtool", *arguments], input=given, capture_output=True, text=True, timeout=max(0.1, ctx.remaining())
    )
    if result.returncode != 0:
        raise Failure(f"promtool {' '.join(arguments)} ended with {result.returncode}: {result.stdout} {result.stderr}")
    return result.stdout + result.stderr


@case(SUITE, "alert rules are rules")
def rules(ctx: Context) -> None:
    said = promtool(ctx, "check", "rules", os.path.join(ALERTS, "fulmar.rules.yaml"))
    found = re.search(r"(\d+) rules found", said)
    require(found and int(found.group(1)) >= 15, f"few rules: {said}")


@case(SUITE, "alert rules fire when they should, and only then", deadline=120)
def rules_tested(ctx: Context) -> None:
    test = os.path.join(ALERTS, "fulmar.rules.test.yaml")
    promtool(ctx, "test", "rules", test)
    with open(test, encoding="utf-8") as file:
        tested = set(re.findall(r"alertname: (\w+)", file.read()))
    with open(os.path.join(ALERTS, "fulmar.rules.yaml"), encoding="utf-8") as file:
        there = set(re.findall(r"- alert: (\w+)", file.read()))
    expect(sorted(there - tested), [], "alerts without a test")


@case(SUITE, "expressions of the dashboard are PromQL")
def dashboard(ctx: Context) -> None:
    with open(os.path.join(DEPLOY, "grafana", "fulmar.json"), encoding="utf-8") as file:
        board = json.load(file)
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    require(len(asked) > 40, f"only {len(asked)} expressions")
    for name, value in VARIABLES.items():
        asked = [expression.replace(name, value) for expression in asked]
    named = [{"record": f"board:expression:{at}", "expr": expression} for at, expression in enumerate(asked)]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        # JSON is YAML.
        json.dump({"groups": [{"name": "board", "rules": named}]}, file)
        file.flush()
        promtool(ctx, "check", "rules", file.name)


@case(SUITE, "what a node is scraped for is clean")
def scrape(ctx: Context) -> None:
    probes = ctx.endpoints.door("probes")
    with urllib.request.urlopen(f"http://{probes.host}:{probes.port}/metrics", timeout=ctx.remaining()) as answer:
        text = answer.read().decode()
    require("fulmar_build_info{" in text, "no figures of Fulmar")
    result = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=max(0.1, ctx.remaining())
    )
    lines = [line for line in (result.stdout + result.stderr).splitlines() if line.strip() and line not in ACCEPTED]
    expect(lines, [], "promtool check metrics")
