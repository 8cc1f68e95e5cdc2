{{- define "fulmar.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "fulmar.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "fulmar.labels" -}}
{{ include "fulmar.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "fulmar.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "fulmar.secret.users" -}}{{ default (printf "%s-users" (include "fulmar.fullname" .)) .Values.secrets.users }}{{- end -}}
{{- define "fulmar.secret.admin" -}}{{ default (printf "%s-admin" (include "fulmar.fullname" .)) .Values.secrets.admin }}{{- end -}}
{{- define "fulmar.secret.peer" -}}{{ default (printf "%s-peer" (include "fulmar.fullname" .)) .Values.secrets.peer }}{{- end -}}
{{- define "fulmar.secret.tls" -}}{{ default (printf "%s-tls" (include "fulmar.fullname" .)) .Values.tls.secret }}{{- end -}}

{{/* Seconds from SIGTERM, preStop included, to the kill. */}}
{{- define "fulmar.terminationGrace" -}}
{{- $drain := .Values.drain -}}
{{- $clients := div (add (int $drain.connectionsPerPod) (sub (int $drain.disconnectRate) 1)) (int $drain.disconnectRate) -}}
{{- add (int $drain.balancerWaitSeconds) $clients 20 -}}
{{- end -}}

{{/* Milliseconds of a time such as 1m30s. */}}
{{- define "fulmar.milliseconds" -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 -}}
{{- $unit := get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) (regexFind "[a-z]+" .) -}}
{{- $sum = add $sum (mul (regexFind "[0-9]+" . | int) $unit) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* What the schema cannot say, or not why: values against each other. */}}
{{- define "fulmar.check" -}}
{{- $values := .Values -}}
{{- range list "replicas" "expected" -}}
{{- if kindIs "invalid" (index $values .) -}}{{- fail (printf "%s is null: a cluster has a number of pods; leave the key out for 3" .) -}}{{- end -}}
{{- end -}}
{{- $replicas := int $values.replicas -}}
{{- $expected := int $values.expected -}}
{{- if and .Release.IsInstall (lt $replicas $expected) -}}
{{- fail (printf "replicas is %d, less than expected, %d: the cluster would wait for ever to begin" $replicas $expected) -}}
{{- end -}}
{{- if le (mul 2 $expected | int) $replicas -}}
{{- fail (printf "expected is %d, no majority of replicas, %d: pods without data that do not see the others could begin a second cluster; raise expected to %d at least" $expected $replicas (add (div $replicas 2) 1)) -}}
{{- end -}}
{{- $name := include "fulmar.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "the resources would be named %q, which no Service can be: it takes small letters, digits and -, and begins with a letter; set fullnameOverride, or another release name" $name) -}}
{{- end -}}
{{- if eq $values.image.tag "latest" -}}
{{- fail "image.tag is latest: nobody could say which version runs; name one, or leave it empty for the chart's" -}}
{{- end -}}
{{- $devices := $values.service.devices -}}
{{- if eq $devices.type "ClusterIP" -}}
{{- with $devices.externalTrafficPolicy -}}{{- fail (printf "service.devices.externalTrafficPolicy is %s, but service.devices.type is ClusterIP: nothing comes from outside" .) -}}{{- end -}}
{{- end -}}
{{- if ne $devices.type "LoadBalancer" -}}
{{- range list "loadBalancerClass" "loadBalancerSourceRanges" -}}
{{- if get $devices . -}}{{- fail (printf "service.devices.%s is set, but service.devices.type is %s: there is no balancer" . $devices.type) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $monitor := $values.serviceMonitor -}}
{{- if gt (include "fulmar.milliseconds" $monitor.scrapeTimeout | int) (include "fulmar.milliseconds" $monitor.interval | int) -}}
{{- fail (printf "serviceMonitor.scrapeTimeout is %s, longer than serviceMonitor.interval, %s: the operator refuses it" $monitor.scrapeTimeout $monitor.interval) -}}
{{- end -}}
{{- if and .Release.IsUpgrade (not $values.allowUnreadyUpgrade) -}}
{{- $set := lookup "apps/v1" "StatefulSet" .Release.Namespace (include "fulmar.fullname" .) | default dict -}}
{{- $ready := dig "status" "readyReplicas" 0 $set | int -}}
{{- $pods := dig "spec" "replicas" 0 $set | int -}}
{{- if lt $ready $pods -}}
{{- fail (printf "only %d of %d pods are ready: replacing another now may cost the cluster its majority; wait for them, or set allowUnreadyUpgrade" $ready $pods) -}}
{{- end -}}
{{- end -}}
{{- $grace := sub (int (include "fulmar.terminationGrace" .)) 5 -}}
{{- if gt (int $grace) 3600 -}}
{{- fail (printf "drain.connectionsPerPod / drain.disconnectRate: with drain.balancerWaitSeconds they need a shutdown.grace of %d s, of at most 3600 s; raise drain.disconnectRate" (int $grace)) -}}
{{- end -}}
{{- if and $values.tls.crl (not (has $values.tls.clientAuth (list "optional" "required"))) -}}
{{- fail (printf "tls.crl needs a tls.clientAuth of optional or required, and not %s: revoked is what an authority has signed" $values.tls.clientAuth) -}}
{{- end -}}
{{- $tls := $values.certManager.tls -}}
{{- if $tls.enabled -}}
{{- if not $values.tls.enabled -}}{{- fail "certManager.tls.enabled needs tls.enabled" -}}{{- end -}}
{{- if not $tls.issuerRef.name -}}{{- fail "certManager.tls.issuerRef.name is empty: name the issuer that signs for devices and people" -}}{{- end -}}
{{- if has $values.tls.clientAuth (list "optional" "required") -}}
{{- fail (printf "tls.clientAuth is %s, which needs ca.crt, the authority of the devices, in the Secret of TLS: one of certManager.tls does not have it; make the Secret yourself" $values.tls.clientAuth) -}}
{{- end -}}
{{- if not $tls.dnsNames -}}{{- fail "certManager.tls.dnsNames is empty: name the hosts that devices and people connect to" -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether devices may come without TLS. */}}
{{- define "fulmar.plain" -}}
{{- if or (not .Values.tls.enabled) .Values.tls.plain }}true{{ end -}}
{{- end -}}

{{- define "fulmar.proxy" -}}
{{- if .Values.proxyProtocol.trusted }}
proxy = { trusted = {{ .Values.proxyProtocol.trusted | toJson }}, required = {{ .Values.proxyProtocol.required }} }
{{- end }}
{{- end -}}

{{/* What devices are shown and asked for. */}}
{{- define "fulmar.deviceTls" -}}
tls = { cert = "/etc/fulmar-tls/tls.crt", key = "/etc/fulmar-tls/tls.key", client_auth = {{ .Values.tls.clientAuth | quote }}
{{- if has .Values.tls.clientAuth (list "optional" "required") }}, client_ca = "/etc/fulmar-tls/ca.crt"{{ end }}
{{- if .Values.tls.crl }}, crl = "/etc/fulmar-tls/ca.crl"{{ end }} }
{{- end -}}

{{- define "fulmar.peopleTls" -}}
tls = { cert = "/etc/fulmar-tls/tls.crt", key = "/etc/fulmar-tls/tls.key" }
{{- end -}}

{{- define "fulmar.config" -}}
{{- $name := include "fulmar.fullname" . -}}
# The configuration of every node. `fulmar config schema` documents every key. What differs from pod to pod, and how many
# begin a new cluster, is in the pods' environment.

[node]
data_dir = "/var/lib/fulmar"

# The name stands for all pods, ready or not.
[cluster]
bootstrap = "join"
peers = ["{{ $name }}-headless:7400"]
listen = "0.0.0.0:7400"
tls = { ca = "/etc/fulmar-peer/ca.crt", cert = "/etc/fulmar-peer/tls.crt", key = "/etc/fulmar-peer/tls.key" }
{{- if include "fulmar.plain" . }}

[[listener]]
name = "mqtt"
address = "0.0.0.0:1883"
protocol = "mqtt"
{{- include "fulmar.proxy" . }}

# With HTTP where devices get credentials, before they connect.
[[listener]]
name = "ws"
address = "0.0.0.0:8083"
protocol = "ws"
roles = ["device_auth"]
{{- include "fulmar.proxy" . }}
{{- end }}
{{- if .Values.tls.enabled }}

[[listener]]
name = "mqtts"
address = "0.0.0.0:8883"
protocol = "mqtt"
{{ include "fulmar.deviceTls" . }}
{{- include "fulmar.proxy" . }}

[[listener]]
name = "wss"
address = "0.0.0.0:8084"
protocol = "ws"
roles = ["device_auth"]
{{ include "fulmar.deviceTls" . }}
{{- include "fulmar.proxy" . }}

[[listener]]
name = "api"
address = "0.0.0.0:8443"
protocol = "http"
roles = ["api"]
{{ include "fulmar.peopleTls" . }}

[[listener]]
name = "console"
address = "0.0.0.0:8081"
protocol = "http"
roles = ["console"]
{{ include "fulmar.peopleTls" . }}
{{- else }}

[[listener]]
name = "api"
address = "0.0.0.0:8080"
protocol = "http"
roles = ["api"]

[[listener]]
name = "console"
address = "0.0.0.0:8081"
protocol = "http"
roles = ["console"]
{{- end }}

[probes]
address = "0.0.0.0:9100"

# For `fulmar ctl`, from within a pod or over the Service `{{ $name }}-admin`.
[admin]
address = "0.0.0.0:9090"
token_file = "/etc/fulmar-admin/token"
tls = { cert = "/etc/fulmar-peer/tls.crt", key = "/etc/fulmar-peer/tls.key" }

# Users come from the Secret `{{ include "fulmar.secret.users" . }}`: lines of `name:argon2 hash`.
[auth]
anonymous = "deny"
users_file = "/etc/fulmar-users/users"

# Who calls the REST API and uses the console: an argon2 hash in the Secret `{{ include "fulmar.secret.users" . }}`. Further users are made there.
[[rest.user]]
name = "admin"
password_hash_file = "/etc/fulmar-users/rest-admin"
role = "admin"

[limits]
# What a pod is sized for: time to drain and memory follow from it.
connections_max = {{ int .Values.drain.connectionsPerPod }}

[log]
format = {{ .Values.log.format | quote }}
{{- if ne .Values.log.level "info" }}
level = {{ .Values.log.level | quote }}
{{- end }}

# terminationGracePeriodSeconds = balancer_wait + connections_max / disconnect_rate + 20 s; grace is 5 s less.
[shutdown]
balancer_wait = "{{ int .Values.drain.balancerWaitSeconds }}s"
disconnect_rate = {{ int .Values.drain.disconnectRate }}
grace = "{{ sub (int (include "fulmar.terminationGrace" .)) 5 }}s"
{{- with .Values.drain.serverReference }}
server_reference = {{ . | quote }}
{{- end }}
{{- with .Values.extraConfig }}

{{ . | trimSuffix "\n" }}
{{- end }}
{{- end -}}

{{/* Of the Secrets that are read once, at the start; what TLS shows is read again by itself. */}}
{{- define "fulmar.secretsChecksum" -}}
{{- $seen := list -}}
{{- range list (include "fulmar.secret.users" .) (include "fulmar.secret.admin" .) -}}
{{- $secret := lookup "v1" "Secret" $.Release.Namespace . | default dict -}}
{{- $seen = append $seen (dict "name" . "data" (get $secret "data")) -}}
{{- end -}}
{{- $seen | toJson | sha256sum -}}
{{- end -}}
