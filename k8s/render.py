#!/usr/bin/env python3
"""Renders k8s/ into k8s/golden/: `k8s/render.py`, or `k8s/render.py --check` to compare only.

Needs helm-python-sdk and PyYAML, and `kustomize`, or a `kubectl` that has it. Documents are sorted by kind and name and
printed by this script, so that the same manifests look the same whichever version rendered them. Alert rules are
deploy/alerts/fulmar.rules.yaml, copied into the chart and into the PrometheusRule of kustomize.
"""

import difflib
import os
import pathlib
import shutil
import subprocess
import sys

import helm_python
import yaml

K8S = pathlib.Path(__file__).resolve().parent
RULES = K8S.parent / "deploy" / "alerts" / "fulmar.rules.yaml"
CHART = K8S / "chart"
OVERLAYS = ["single", "three", "five", "tls", "full"]
RENDER_LIMIT_S = 60

# Name of the golden file: values of the chart. Each but the last is also an overlay's.
CHART_VALUES = {
    "chart-default": {},
    "chart-single": {"replicas": 1, "expected": 1},
    "chart-five": {"replicas": 5, "expected": 5, "scheduling": {"machines": "required", "zones": "required"}},
    "chart-tls": {"tls": {"enabled": True}},
    "chart-full": {
        "replicas": 5,
        "expected": 5,
        "scheduling": {"machines": "required", "zones": "required"},
        "tls": {"enabled": True},
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "certManager": {
            "peer": {"enabled": True},
            "tls": {
                "enabled": True,
                "issuerRef": {"kind": "ClusterIssuer", "name": "letsencrypt"},
                "dnsNames": ["mqtt.fulmar.example"],
            },
        },
    },
    # Whatever no overlay has.
    "chart-custom": {
        "fullnameOverride": "mq",
        "image": {"repository": "registry.example:5000/fulmar", "digest": "sha256:" + "0123456789abcdef" * 4},
        "imagePullSecrets": [{"name": "registry"}],
        "secrets": {"users": "mq-people"},
        "tls": {"enabled": True, "plain": False, "clientAuth": "required", "crl": True},
        "drain": {"connectionsPerPod": 9001, "disconnectRate": 300, "balancerWaitSeconds": 15, "serverReference": "mq.example:8883"},
        "proxyProtocol": {"trusted": ["10.0.0.0/8"], "required": False},
        "log": {"level": "debug"},
        "extraConfig": '[session]\nexpiry_max = "1d"\n',
        "service": {
            "devices": {
                "type": "LoadBalancer",
                "annotations": {"example.com/balancer": "tcp"},
                "loadBalancerClass": "example.com/tcp",
                "loadBalancerSourceRanges": ["192.0.2.0/24"],
                "externalTrafficPolicy": "Local",
            }
        },
        "persistence": {"size": "50Gi", "storageClassName": "fast"},
        "scheduling": {
            "nodeSelector": {"pool": "mqtt"},
            "tolerations": [{"key": "mqtt", "operator": "Exists", "effect": "NoSchedule"}],
            "priorityClassName": "high",
        },
        "serviceAccount": {"annotations": {"example.com/a": "b"}},
        "podAnnotations": {"example.com/c": "d"},
        "podLabels": {"team": "iot"},
        "extraEnv": [{"name": "FULMAR__LOG__LEVEL", "value": "debug"}],
        "networkPolicy": {
            "devices": {"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
            "egress": {"restricted": True, "to": [{"ports": [{"port": 443, "protocol": "TCP"}]}]},
        },
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    },
}


class Dumper(yaml.SafeDumper):
    """Texts of several lines as such."""

    def ignore_aliases(self, data):
        return True


def _text(dumper, text):
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, _text)


def documents(text):
    """The documents of a YAML text; empty ones left out."""
    return [document for document in yaml.safe_load_all(text) if document]


def golden(found):
    """Documents as the text of a golden file."""
    ordered = sorted(found, key=lambda document: (document["kind"], document["metadata"]["name"]))
    return yaml.dump_all(ordered, Dumper=Dumper, explicit_start=True, sort_keys=True, width=1000)


def kustomize_command():
    """What renders kustomizations on this machine."""
    if given := os.environ.get("KUSTOMIZE"):
        return given.split()
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    sys.exit("needs kustomize, or kubectl 1.29 or later; or KUSTOMIZE='PROGRAM build'")


def overlay(name):
    """Documents of an overlay."""
    command = [*kustomize_command(), str(K8S / "overlays" / name)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=RENDER_LIMIT_S)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {run.stderr.strip()}")
    return documents(run.stdout)


def chart_texts(values, folder=CHART, **how):
    """What the chart renders to, by path, as an installation has it unless `how` says otherwise."""
    how = {"name": "fulmar", "namespace": "fulmar", "is_install": True, **how}
    with helm_python.Chart.load(str(folder)) as loaded:
        return loaded.render(values, **how)


def chart(values, **how):
    """Documents of the chart; its notes are left out."""
    texts = [text for path, text in sorted(chart_texts(values, **how).items()) if not path.endswith("NOTES.txt")]
    return [document for text in texts for document in documents(text)]


def prometheus_rule():
    """The alert rules as a custom resource of kustomize."""
    head = "# Of deploy/alerts/fulmar.rules.yaml, by k8s/render.py.\napiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\n"
    body = "".join(f"  {line}" if line.strip() else line for line in RULES.read_text().splitlines(keepends=True))
    return f"{head}metadata:\n  name: fulmar\nspec:\n{body}"


def copies():
    """Files that are made of the alert rules: path and text."""
    return {
        CHART / "fulmar.rules.yaml": RULES.read_text(),
        K8S / "components" / "monitoring" / "prometheusrule.yaml": prometheus_rule(),
    }


def outputs():
    """Golden files: path and text."""
    rendered = {name: overlay(name) for name in OVERLAYS}
    rendered.update((name, chart(values)) for name, values in CHART_VALUES.items())
    return {K8S / "golden" / f"{name}.yaml": golden(found) for name, found in rendered.items()}


def difference(path, wanted):
    """What a file has other than is wanted, as a short diff; empty if nothing."""
    has = path.read_text() if path.exists() else ""
    lines = difflib.unified_diff(has.splitlines(), wanted.splitlines(), str(path.relative_to(K8S.parent)), "rendered", lineterm="", n=1)
    return "\n".join(list(lines)[:40])


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    stale = []
    # The copies are part of what is rendered.
    for made in (copies, outputs):
        for path, text in made().items():
            found = difference(path, text)
            if found and check:
                stale.append(found)
            elif found:
                path.write_text(text)
                print(f"wrote {path.relative_to(K8S.parent)}")
    print("\n".join(stale), end="\n" if stale else "")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
