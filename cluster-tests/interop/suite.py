"""Runs the Python suites: paho-mqtt, the mosquitto clients, the raw handshake, gRPC by reflection, HAProxy in front
and the vendors' SDKs. One line a case on stdout."""

import argparse
import importlib
import os
import re
import secrets
import sys

from harness import CASES, Endpoints, run_cases

MODULES = {
    "paho": ["cases_core", "cases_v5_publish", "cases_v5_subscribe", "cases_v5_session"],
    "mosquitto": ["cases_mosquitto"],
    "raw": ["raw_handshake"],
    "promtool": ["cases_promtool"],
    "grpc": ["cases_grpc"],
    "haproxy": ["cases_haproxy"],
    "vendors": [
        "vendors.cases_aliyun",
        "vendors.cases_tencent",
        "vendors.cases_sensoro",
        "vendors.cases_huawei",
        "vendors.cases_huawei_rest",
        "vendors.cases_huawei_commands",
        "vendors.cases_huawei_messages",
        "vendors.cases_huawei_tasks",
        "vendors.cases_huawei_rules",
        "vendors.cases_huawei_application",
        "vendors.cases_huawei_services",
        "vendors.cases_aliyun_calls",
        "vendors.cases_tencent_services",
        "vendors.cases_sensoro_push",
        "vendors.cases_rest_input",
        "vendors.cases_browser",
        "vendors.cases_console",
        "vendors.cases_demo",
        # These run alone, in this order; the last one takes a node away.
        "vendors.cases_rest_fuzz",
        "vendors.cases_huawei_cluster",
    ],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("endpoints", help="endpoints.json")
    parser.add_argument("groups", nargs="+", choices=sorted(MODULES))
    parser.add_argument("--seed", default=os.environ.get("INTEROP_SEED") or secrets.token_hex(4))
    parser.add_argument("--jobs", type=int, default=int(os.environ.get("INTEROP_JOBS") or 4))
    parser.add_argument("--only", default=os.environ.get("INTEROP_ONLY") or "", help="regex on 'suite  name'")
    options = parser.parse_args()
    for group in options.groups:
        for module in MODULES[group]:
            importlib.import_module(module)
    print(f"seed {options.seed}, {options.jobs} at a time", file=sys.stderr, flush=True)
    cases = [c for c in CASES if re.search(options.only, f"{c.suite}  {c.name}")]
    failed = run_cases(cases, Endpoints(options.endpoints), options.seed, options.jobs)
    sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    # Threads of abandoned cases must not keep the process.
    os._exit(main())
