"""The manifests of k8s/: rendered, compared with their golden files, held to every version's schemas, and tried with what is
wrong. Nodes are not needed; the program is, at $FULMAR_BIN, to look at the configurations: cases_k8s.py
"""

import copy
import functools
import json
import os
import pathlib
import re
import secrets
import shutil
import subprocess
import sys
import tempfile

import helm_python
import jsonschema
import kubernetes_validate
import yaml
from kubernetes_validate import utils as validate_utils

from harness import CASES, Failure, Skip, case, expect, require, run_cases

ROOT = pathlib.Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
sys.path.insert(0, str(K8S))
import render  # noqa: E402

VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
GOLDEN = sorted(path.stem for path in (K8S / "golden").glob("*.yaml"))
SCHEMAS = {
    kind: json.loads((K8S / "schemas" / f"{kind.lower()}.json").read_text())
    for kind in ("Certificate", "Issuer", "PrometheusRule", "ServiceMonitor")
}
# The chart's render and the overlay that says the same.
PAIRS = {"chart-default": "three", "chart-single": "single", "chart-five": "five", "chart-tls": "tls", "chart-full": "full"}
# What Helm adds to what kustomize has.
HELMS = {"app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart"}
CHECKSUMS = {"checksum/config", "checksum/secrets"}

# Files are read once for every document and version otherwise.
validate_utils.schema_contents = functools.lru_cache(maxsize=None)(validate_utils.schema_contents)

# Values, what the message must name, and how they are rendered if not for an installation. Each is wrong alone.
WRONG = [
    ({"replcas": 3}, "replcas"),
    ({"replicas": "three"}, "/replicas"),
    ({"replicas": 0}, "/replicas"),
    ({"replicas": 1}, "replicas is 1, less than expected, 3"),
    ({"expected": 2.5}, "/expected"),
    ({"fullnameOverride": "My_Name"}, "/fullnameOverride"),
    ({"replicas": None}, "replicas is null: a cluster has a number of pods"),
    ({"expected": None}, "expected is null: a cluster has a number of pods"),
    ({"replicas": 5, "expected": 1}, "expected is 1, no majority of replicas, 5"),
    ({"replicas": 6}, "raise expected to 4"),
    ({"replicas": 6}, "raise expected to 4", {"is_install": False, "is_upgrade": True}),
    ({"fullnameOverride": "my.name"}, "/fullnameOverride"),
    ({"nameOverride": "my.name"}, "/nameOverride"),
    ({}, '"my.release-fulmar", which no Service can be', {"name": "my.release"}),
    ({"image": {"tag": "latest"}}, "image.tag is latest: nobody could say which version runs"),
    ({"image": {"digest": "0123"}}, "/image/digest"),
    ({"image": {"repository": ""}}, "/image/repository"),
    ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
    ({"imagePullSecrets": ["registry"]}, "/imagePullSecrets/0"),
    ({"secrets": {"password": "x"}}, "password"),
    ({"tls": {"enabled": "yes"}}, "/tls/enabled"),
    ({"tls": {"clientAuth": "mutual"}}, "/tls/clientAuth"),
    ({"tls": {"crl": True}}, "tls.crl needs a tls.clientAuth"),
    ({"drain": {"disconnectRate": 0}}, "/drain/disconnectRate"),
    ({"drain": {"disconnectRate": 10}}, "drain.disconnectRate"),
    ({"drain": {"balancerWaitSeconds": "5s"}}, "/drain/balancerWaitSeconds"),
    ({"drain": {"serverReference": "nowhere"}}, "/drain/serverReference"),
    ({"proxyProtocol": {"trusted": ["anybody"]}}, "/proxyProtocol/trusted/0"),
    ({"proxyProtocol": {"trusted": ["10.0.0.0/33"]}}, "/proxyProtocol/trusted/0"),
    ({"proxyProtocol": {"trusted": ["10.0.0.256/8"]}}, "/proxyProtocol/trusted/0"),
    ({"proxyProtocol": {"trusted": ["fd00:1/8"]}}, "/proxyProtocol/trusted/0"),
    ({"log": {"format": "xml"}}, "/log/format"),
    ({"log": {"level": "inof"}}, "/log/level"),
    ({"log": {"level": "info,fulmar::doors"}}, "/log/level"),
    ({"service": {"devices": {"type": "ExternalName"}}}, "/service/devices/type"),
    ({"service": {"devices": {"sessionAffinity": "ClientIP"}}}, "sessionAffinity"),
    ({"service": {"devices": {"externalTrafficPolicy": "Local"}}}, "service.devices.externalTrafficPolicy is Local"),
    ({"service": {"devices": {"loadBalancerClass": "a/b"}}}, "service.devices.loadBalancerClass is set"),
    ({"service": {"devices": {"type": "NodePort", "loadBalancerSourceRanges": ["192.0.2.0/24"]}}}, "loadBalancerSourceRanges is set"),
    ({"service": {"devices": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.0"]}}}, "/loadBalancerSourceRanges/0"),
    ({"persistence": {"enabled": False}}, "enabled"),
    ({"persistence": {"size": "ten"}}, "/persistence/size"),
    ({"resources": None}, "resources"),
    ({"resources": {"limits": None}}, "limits"),
    ({"resources": {"limits": {"memory": None}}}, "memory"),
    ({"startupBudgetSeconds": 5}, "/startupBudgetSeconds"),
    ({"startupBudgetSeconds": None}, "startupBudgetSeconds"),
    ({"drain": {"disconnectRate": None}}, "disconnectRate"),
    ({"scheduling": None}, "scheduling"),
    ({"networkPolicy": {"api": {"from": None}}}, "from"),
    ({"scheduling": {"zones": "maybe"}}, "/scheduling/zones"),
    ({"podAnnotations": {"a": 1}}, "/podAnnotations/a"),
    ({"extraEnv": [{"value": "x"}]}, "/extraEnv/0"),
    ({"networkPolicy": {"peer": {"from": []}}}, "peer"),
    ({"serviceMonitor": {"interval": "often"}}, "/serviceMonitor/interval"),
    ({"serviceMonitor": {"interval": "1s500ms", "scrapeTimeout": "2s"}}, "serviceMonitor.scrapeTimeout is 2s, longer than"),
    ({"prometheusRule": {"runbookUrlPrefix": "git.example"}}, "/prometheusRule/runbookUrlPrefix"),
    ({"autoscaling": {"enabled": True}}, "autoscaling"),
    ({"certManager": {"tls": {"enabled": True}}}, "certManager.tls.enabled needs tls.enabled"),
    ({"tls": {"enabled": True}, "certManager": {"tls": {"enabled": True}}}, "certManager.tls.issuerRef.name"),
    (
        {"tls": {"enabled": True}, "certManager": {"tls": {"enabled": True, "issuerRef": {"name": "x"}}}},
        "certManager.tls.dnsNames",
    ),
    (
        {
            "tls": {"enabled": True, "clientAuth": "required"},
            "certManager": {"tls": {"enabled": True, "issuerRef": {"name": "x"}, "dnsNames": ["x.example"]}},
        },
        "tls.clientAuth is required, which needs ca.crt",
    ),
]
# Values that are near to wrong ones.
RIGHT = [
    {"log": {"level": "off"}},
    {"log": {"level": "info,fulmar::doors=debug"}},
    {"proxyProtocol": {"trusted": ["0.0.0.0/0", "192.0.2.7/32", "::/0", "fd00::/8", "2001:db8:0:0:0:0:0:1/128"]}},
    {"replicas": 5},
    {"image": {"tag": None}},
    {"serviceMonitor": {"interval": "1m", "scrapeTimeout": "60s"}},
    {"service": {"devices": {"type": "NodePort", "externalTrafficPolicy": "Local"}}},
]


def documents(name):
    return render.documents((K8S / "golden" / f"{name}.yaml").read_text())


def one(found, kind):
    """The only document of a kind."""
    of_kind = [document for document in found if document["kind"] == kind]
    require(len(of_kind) == 1, f"{len(of_kind)} documents of kind {kind}")
    return of_kind[0]


def walk(value, path=""):
    """Every value within a value: its path, itself."""
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from walk(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from walk(inner, f"{path}/{index}")


def distinct():
    """Every document of every golden file once: where it was first, itself."""
    seen = {}
    for name in GOLDEN:
        for document in documents(name):
            label = f"{name}: {document['kind']} {document['metadata']['name']}"
            seen.setdefault(json.dumps(document, sort_keys=True), (label, document))
    return list(seen.values())


@case("k8s", "the golden files are what is rendered", deadline=60)
def _(ctx):
    made = {**render.copies(), **render.outputs()}
    stale = [found for found in (render.difference(path, text) for path, text in made.items()) if found]
    require(not stale, f"run k8s/render.py: {stale[:1]}")
    expect(sorted(GOLDEN), sorted(path.stem for path in made if path.parent.name == "golden"), "golden files")


def strictly_valid(version):
    held = 0
    for label, document in distinct():
        if document["kind"] in SCHEMAS:
            continue
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Failure(f"{label}: {'/'.join(map(str, error.path))}: {error.message}")
        held += 1
    require(held > 20, f"only {held} documents were held to a schema")


def known_versions():
    return {validate_utils.major_minor(version) for version in validate_utils.all_versions()}


for _version in VERSIONS:

    @case("k8s", f"strictly valid for Kubernetes {_version}", deadline=60)
    def _(ctx, version=_version):
        if version not in known_versions():
            raise Skip(f"kubernetes-validate {kubernetes_validate.__version__} does not have it")
        strictly_valid(version)


@case("k8s", "a field that Kubernetes does not have is seen", deadline=30)
def _(ctx):
    broken = copy.deepcopy(one(documents("three"), "StatefulSet"))
    broken["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    try:
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)
    except kubernetes_validate.ValidationError as error:
        require("livenessProb" in error.message, f"the message does not name it: {error.message}")
        return
    raise Failure("it was taken")


@case("k8s", "the pod that mounts a stopped pod's volume is like it")
def _(ctx):
    pod = one(render.documents((K8S / "volume-pod.yaml").read_text()), "Pod")
    for version in {VERSIONS[0], VERSIONS[-1]} & known_versions():
        kubernetes_validate.validate(pod, version, strict=True)
    stopped = one(documents("three"), "StatefulSet")
    node, own = stopped["spec"]["template"]["spec"], pod["spec"]
    for key in ("securityContext", "automountServiceAccountToken", "enableServiceLinks"):
        expect(own[key], node[key], key)
    container, nodes = own["containers"][0], node["containers"][0]
    for key in ("image", "securityContext", "resources"):
        expect(container[key], nodes[key], key)
    data = {mount["name"]: mount for mount in nodes["volumeMounts"]}["data"]
    expect(container["volumeMounts"], [data], "its only mount")
    claim = f"{data['name']}-{stopped['metadata']['name']}-0"
    expect(own["volumes"], [{"name": data["name"], "persistentVolumeClaim": {"claimName": claim}}], "its only volume")
    text = re.sub("(?m)-0$", "-2", (K8S / "volume-pod.yaml").read_text())
    other = one(render.documents(text), "Pod")
    claimed = other["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    expect((other["metadata"]["name"], claimed), ("volume-2", claim[:-1] + "2"), "of another pod")


@case("k8s", "custom resources fit their pinned schemas")
def _(ctx):
    held = set()
    for label, document in distinct():
        if schema := SCHEMAS.get(document["kind"]):
            held.add(document["kind"])
            for error in jsonschema.Draft7Validator(schema).iter_errors(document):
                raise Failure(f"{label}: {error.json_path}: {error.message}")
            broken = {**document, "spec": {**document["spec"], "nonsense": 1}}
            require(list(jsonschema.Draft7Validator(schema).iter_errors(broken)), f"{label}: takes any field")
    expect(held, set(SCHEMAS), "kinds that were held to a schema")


@case("k8s", "helm lint is clean", deadline=60)
def _(ctx):
    for name, values in render.CHART_VALUES.items():
        for version in (VERSIONS[0], VERSIONS[-1]):
            report = helm_python.lint(str(render.CHART), values, strict=True, kube_version=f"v{version}.0")
            # 1 is information: that there is no icon.
            wrong = [message for message in report["messages"] if message["severity"] != 1]
            require(not wrong and not report["errors"], f"{name}, {version}: {wrong or report['errors']}")


@case("k8s", f"{len(WRONG)} wrong values, each named by the message", deadline=60)
def _(ctx):
    for values in RIGHT:
        render.chart(values)
    for values, named, *how in WRONG:
        try:
            render.chart(values, **(how[0] if how else {}))
        except helm_python.HelmError as error:
            require(named in str(error), f"{values}: the message does not say {named}: {error}")
        else:
            raise Failure(f"{values} was taken")


@case("k8s", "the notes say what an even number of nodes survives")
def _(ctx):
    for replicas, said in ((2, "0 nodes, as many as 1 does."), (4, "1 node, as many as 3 do."), (6, "2 nodes, as many as 5 do.")):
        values = {"replicas": replicas, "expected": replicas}
        notes = [text for path, text in render.chart_texts(values).items() if path.endswith("NOTES.txt")]
        require(f"{replicas} survives the loss of {said}" in notes[0], f"{replicas}: {notes}")


@case("k8s", "with TLS devices come over TLS alone, if that is asked for")
def _(ctx):
    for tls, wanted in (({}, {80, 1883}), ({"enabled": True}, {80, 443, 1883, 8883}), ({"enabled": True, "plain": False}, {443, 8883})):
        values = {"tls": tls, "service": {"devices": {"type": "LoadBalancer"}}}
        texts = render.chart_texts(values)
        services = [document for document in render.chart(values) if document["kind"] == "Service"]
        ports = {port["port"] for service in services if service["metadata"]["name"] == "fulmar" for port in service["spec"]["ports"]}
        expect(ports, wanted, f"{tls}: ports for devices")
        warned = any("without TLS" in text for path, text in texts.items() if path.endswith("NOTES.txt"))
        expect(warned, 1883 in wanted, f"{tls}: the notes warn")


@case("k8s", "every value has a line in the chart's README and a place in its schema")
def _(ctx):
    values = yaml.safe_load((render.CHART / "values.yaml").read_text())
    schema = json.loads((render.CHART / "values.schema.json").read_text())
    told = set(re.findall(r"^\| `([\w.]+)` \|", (render.CHART / "README.md").read_text(), re.M))

    def names(value, schema, path):
        inner = schema.get("properties")
        if inner is None or path == "resources":
            yield path
            return
        expect(sorted(inner.keys() - {"global"}), sorted(value), f"{path or 'the top'}: schema and values.yaml")
        require(schema.get("additionalProperties") is False, f"{path}: the schema takes any key")
        for key in value:
            yield from names(value[key], inner[key], f"{path}.{key}".lstrip("."))

    expect(told, set(names(values, schema, "")), "values that the README tells of")


@case("k8s", "each alert leads into the runbook, by an address that is given")
def _(ctx):
    for prefix in ("", "https://git.example/fulmar/blob/main/"):
        rule = one(render.chart({"prometheusRule": {"enabled": True, "runbookUrlPrefix": prefix}}), "PrometheusRule")
        alerts = [alert for group in rule["spec"]["groups"] for alert in group["rules"]]
        for alert in alerts:
            url = alert["annotations"]["runbook_url"]
            require(url.startswith(f"{prefix}deploy/README.md#"), f"{alert['alert']}: {url}")


@case("k8s", "k8s/README.md tells of every alert")
def _(ctx):
    groups = yaml.safe_load(render.RULES.read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    told = set(re.findall(r"`(Fulmar[A-Z]\w+)`", (K8S / "README.md").read_text()))
    require(alerts, "there are none")
    expect(told, alerts, "alerts")


def same(document):
    """A document without what Helm adds, and without an order where there is none."""

    def clean(value):
        if isinstance(value, dict):
            kept = {key: clean(inner) for key, inner in value.items() if key not in HELMS | CHECKSUMS}
            return {key: inner for key, inner in kept.items() if inner != {} or value[key] == {}}
        if isinstance(value, list):
            return sorted((clean(inner) for inner in value), key=lambda inner: json.dumps(inner, sort_keys=True))
        return re.sub(r"^fulmar-config-[a-z0-9]{10}$", "fulmar-config", value) if isinstance(value, str) else value

    return clean(document)


@case("k8s", "the chart and the overlays say the same")
def _(ctx):
    for chart, overlay in PAIRS.items():
        ours, theirs = (
            {
                (document["kind"], re.sub(r"^(fulmar-config)-[a-z0-9]{10}$", r"\1", document["metadata"]["name"])): same(document)
                for document in documents(name)
                if "helm.sh/hook" not in document["metadata"].get("annotations", {})
            }
            for name in (chart, overlay)
        )
        expect(sorted(ours), sorted(theirs), f"{chart} and {overlay}: resources")
        for key, document in ours.items():
            if document != theirs[key]:
                differs = [
                    f"{path}: {dict(walk(theirs[key])).get(path)!r} and {value!r}"
                    for path, value in walk(document)
                    if not isinstance(value, (dict, list)) and dict(walk(theirs[key])).get(path) != value
                ]
                raise Failure(f"{overlay} and {chart}: {key}: {differs[:3]}")


@case("k8s", "nothing that has no place in them")
def _(ctx):
    for label, document in distinct():
        kind = document["kind"]
        for forbidden in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "HorizontalPodAutoscaler", "Secret"):
            require(kind != forbidden, f"{label} has no place here")
        for path, value in walk(document):
            key = path.rsplit("/", 1)[-1]
            if key == "image":
                tagged = re.search(r"(:[\w.-]+|@sha256:[0-9a-f]{64})$", value)
                require(tagged and not value.endswith(":latest"), f"{label}{path}: {value}")
            require(key not in ("subPath", "hostPath", "hostNetwork", "hostPID", "hostIPC", "sessionAffinity"), f"{label}{path}")
            if key in ("privileged", "allowPrivilegeEscalation", "automountServiceAccountToken"):
                expect(value, False, f"{label}{path}")
            # A variable may name the file of one.
            if key == "name" and isinstance(value, str) and re.search("(?i)(password|secret_key|token)(?!_file$)", value):
                raise Failure(f"{label}{path}: {value}: secrets come from Secrets")
        if kind == "ConfigMap":
            text = document["data"]["fulmar.toml"]
            require(not re.search(r"(?m)^\s*(token|password_hash|secret_key)\s*=", text), f"{label}: has a secret")
        if kind in ("StatefulSet", "Pod"):
            pod = document if kind == "Pod" else document["spec"]["template"]
            expect(pod["spec"]["automountServiceAccountToken"], False, f"{label}: access to the Kubernetes API")
            for container in pod["spec"]["containers"]:
                require("memory" in container["resources"]["limits"], f"{label}: no limit of memory")
                context = container["securityContext"]
                expect((context["readOnlyRootFilesystem"], context["capabilities"]), (True, {"drop": ["ALL"]}), f"{label}: rights")


@case("k8s", "time to leave is enough for every client that a pod may have")
def _(ctx):
    for name in GOLDEN:
        found = documents(name)
        text = one(found, "ConfigMap")["data"]["fulmar.toml"]
        number = lambda key: int(re.search(rf'(?m)^{key} = "?(\d+)s?"?$', text)[1])  # noqa: E731
        seconds = number("balancer_wait") + -(-number("connections_max") // number("disconnect_rate")) + 20
        pod = one(found, "StatefulSet")["spec"]["template"]["spec"]
        expect(pod["terminationGracePeriodSeconds"], seconds, f"{name}: terminationGracePeriodSeconds")
        expect(number("grace"), seconds - 5, f"{name}: shutdown.grace")


@case("k8s", "what the network policies name is what the container opens")
def _(ctx):
    for name in GOLDEN:
        found = documents(name)
        ports = {port["name"] for port in one(found, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]["ports"]}
        ingress = [
            port["port"]
            for policy in found
            if policy["kind"] == "NetworkPolicy" and policy["spec"]["policyTypes"] == ["Ingress"]
            for rule in policy["spec"]["ingress"]
            for port in rule["ports"]
        ]
        expect(sorted(ingress), sorted(ports), f"{name}: each port by exactly one policy")
        served = [port["targetPort"] for service in found if service["kind"] == "Service" for port in service["spec"]["ports"]]
        expect(sorted(served), sorted(ports), f"{name}: each port by exactly one Service")


@case("k8s", "a changed configuration restarts pods, a changed number of them does not", deadline=30)
def _(ctx):
    template = lambda values, **how: one(render.chart(values, **how), "StatefulSet")["spec"]["template"]  # noqa: E731
    upgrade = {"is_install": False, "is_upgrade": True}
    first = template({})
    expect(template({"replicas": 5}, **upgrade), first, "the pods of three, scaled to five")
    expect(template({"replicas": 1}, **upgrade), first, "the pods of three, scaled to one")
    require(template({"log": {"level": "debug"}}) != first, "another level, and the same pods")
    with tempfile.TemporaryDirectory() as folder:
        copied = pathlib.Path(shutil.copytree(K8S, pathlib.Path(folder) / "k8s"))
        (copied / "base" / "fulmar.toml").open("a").write("\n[store]\n")
        command = [*render.kustomize_command(), str(copied / "overlays" / "three")]
        run = subprocess.run(command, capture_output=True, text=True, timeout=ctx.remaining())
        expect(run.returncode, 0, run.stderr)
        changed = one(render.documents(run.stdout), "StatefulSet")["spec"]["template"]
        require(changed != one(documents("three"), "StatefulSet")["spec"]["template"], "another file, and the same pods")


@case("k8s", "an upgrade waits for pods that are not ready", deadline=30)
def _(ctx):
    upgrade = {"is_install": False, "is_upgrade": True}
    with tempfile.TemporaryDirectory() as folder:
        copied = pathlib.Path(shutil.copytree(K8S / "chart", pathlib.Path(folder) / "chart"))
        helpers = copied / "templates" / "_helpers.tpl"
        # What the cluster would answer: nothing is found without one.
        text, looked = re.subn(r'lookup "apps/v1" "StatefulSet" [^|]*', ".Values.global.found ", helpers.read_text())
        expect(looked, 1, "looks for a StatefulSet")
        helpers.write_text(text)
        rendered = lambda found, **values: render.chart({"global": {"found": found}, **values}, folder=copied, **upgrade)  # noqa: E731
        rendered({})
        rendered({"spec": {"replicas": 3}, "status": {"readyReplicas": 3}})
        for status, said in (({"readyReplicas": 2}, "only 2 of 3 pods are ready"), ({}, "only 0 of 3 pods are ready")):
            found = {"spec": {"replicas": 3}, "status": status}
            rendered(found, allowUnreadyUpgrade=True)
            try:
                rendered(found)
            except helm_python.HelmError as error:
                require(said in str(error) and "allowUnreadyUpgrade" in str(error), f"{status}: {error}")
            else:
                raise Failure(f"{status} was taken")


def secret_files(folder):
    """What the Secrets hold, by the commands of k8s/README.md."""
    run = lambda *command: subprocess.run(command, check=True, capture_output=True, timeout=30, cwd=folder)  # noqa: E731
    peer, tls, users, admin = (folder / f"fulmar-{name}" for name in ("peer", "tls", "users", "admin"))
    for path in (peer, tls, users, admin):
        path.mkdir()
    commands = re.findall(r"(?m)^openssl req .*(?:\n  .*)*", (K8S / "README.md").read_text())
    expect(len(commands), 2, "commands for an authority and a certificate")
    for command in commands:
        run("bash", "-c", command)
    for name in ("ca.crt", "tls.crt", "tls.key"):
        shutil.move(folder / name, peer / name)
    for name in ("tls.crt", "tls.key", "ca.crt"):
        shutil.copy(peer / name, tls / name)
    (folder / "ca.cnf").write_text(f"[ca]\ndefault_ca = one\n[one]\ndatabase = {folder / 'index'}\n"
                                   f"default_md = sha256\ncrlnumber = {folder / 'number'}\n")
    (folder / "index").touch()
    (folder / "number").write_text("01\n")
    run("openssl", "ca", "-gencrl", "-config", folder / "ca.cnf", "-crldays", "2", "-cert", peer / "ca.crt", "-keyfile",
        folder / "ca.key", "-out", tls / "ca.crl")
    (admin / "token").write_text(secrets.token_hex(16) + "\n")
    # Of a password that nobody knows.
    phc = "$argon2id$v=19$m=19456,t=2,p=1$ZnVsbWFyLXNhbXBsZS0wMQ$yq0eMnf27qtIMI8nSyOH7Hvg58Mawr1ct0Ah19h1Oas"
    (users / "users").write_text(f"alice:{phc}\n")
    (users / "rest-admin").write_text(f"{phc}\n")


@case("k8s", "fulmar config check takes every ConfigMap", deadline=60)
def _(ctx):
    program = os.environ.get("FULMAR_BIN")
    if not program:
        raise Skip("FULMAR_BIN names no program")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        secret_files(folder)
        checked = set()
        for name in GOLDEN:
            found = documents(name)
            text = one(found, "ConfigMap")["data"]["fulmar.toml"]
            container = one(found, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
            pod = f"{one(found, 'StatefulSet')['metadata']['name']}-0"
            given = {entry["name"]: entry.get("value", pod).replace("$(POD_NAME)", pod) for entry in container["env"]}
            if (text, str(given)) in checked:
                continue
            checked.add((text, str(given)))
            for mount in container["volumeMounts"]:
                if (source := mount["mountPath"]).startswith("/etc/fulmar-"):
                    text = text.replace(f'"{source}/', f'"{folder / pathlib.Path(source).name}/')
            require('"/etc/' not in text, f"{name}: names files that no volume has")
            path = folder / "fulmar.toml"
            path.write_text(text.replace("/var/lib/fulmar", str(folder / "data")))
            run = subprocess.run(
                [program, "config", "check", "--config", str(path)],
                env={"PATH": os.environ["PATH"], **given}, capture_output=True, text=True, timeout=30,
            )
            expect(run.returncode, 0, f"{name}: {run.stdout}{run.stderr}")
        require(len(checked) >= 4, f"only {len(checked)} configurations")


if __name__ == "__main__":
    only = os.environ.get("INTEROP_ONLY") or ""
    sys.exit(1 if run_cases([c for c in CASES if re.search(only, f"{c.suite}  {c.name}")], None, "k8s", 2) else 0)
