//! What the player takes from rendered manifests: everything that decides how pods are started, asked, let in and ended.
//! What it cannot play is an error, not left out in silence; what only a scheduler or a network reads is not looked at.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// Files of a ConfigMap or a Secret, by key.
pub(super) type Files = BTreeMap<String, String>;

/// `[shutdown] disconnect_rate` where it is left out.
const DISCONNECT_RATE: u64 = 1000;

/// One StatefulSet and what belongs to it.
#[derive(Debug, Clone)]
pub struct Manifest {
    pub(super) name: String,
    /// Of the headless Service that names its pods.
    pub(super) service: String,
    pub(super) replicas: usize,
    /// `podManagementPolicy: Parallel`.
    pub(super) parallel: bool,
    /// A pod counts as available once it has been ready for so long.
    pub(super) min_ready: Duration,
    pub(super) budget: Option<Budget>,
    /// As Kubernetes compares it: two pods of one template are of one revision.
    template: Value,
    config_maps: BTreeMap<String, Files>,
    services: BTreeMap<String, BTreeMap<String, Value>>,
}

/// A PodDisruptionBudget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Budget {
    MaxUnavailable(usize),
    MinAvailable(usize),
}

/// How a pod is run.
#[derive(Debug, Clone)]
pub(super) struct Template {
    /// Behind the entry point of the image, or instead of it.
    pub(super) command: Vec<String>,
    pub(super) env: Vec<(String, Source)>,
    pub(super) ports: BTreeMap<String, u16>,
    pub(super) startup: Option<Probe>,
    pub(super) liveness: Option<Probe>,
    pub(super) readiness: Option<Probe>,
    pub(super) pre_stop: Option<Vec<String>>,
    pub(super) grace: Duration,
    pub(super) mounts: Vec<Mount>,
}

/// Where the value of an environment variable comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// `$(NAME)` stands for another one's value.
    Text(String),
    PodName,
    PodAddress,
    Namespace,
    Secret(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) ask: Ask,
    pub(super) delay: Duration,
    pub(super) period: Duration,
    pub(super) timeout: Duration,
    pub(super) successes: u32,
    pub(super) failures: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    /// Answered with 200 to 399.
    Http { port: u16, path: String },
    /// Ends with 0.
    Exec(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) path: String,
    pub(super) volume: Volume,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Volume {
    /// A claim by this name, which outlives the pod.
    Claim(String),
    ConfigMap(String),
    Secret,
    Empty,
}

impl Manifest {
    /// Reads documents of YAML with one StatefulSet among them.
    ///
    /// # Errors
    /// They are not well-formed, or have what cannot be played.
    pub fn read(text: &str) -> Result<Manifest> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("the manifests are no YAML")?;
        let of_kind =
            |kind: &str| -> Vec<&Value> { documents.iter().filter(|document| document["kind"] == kind).collect() };
        let sets = of_kind("StatefulSet");
        ensure!(sets.len() == 1, "{} StatefulSets; one can be played", sets.len());
        let (set, spec) = (sets[0], &sets[0]["spec"]);
        let name = text_of(&set["metadata"]["name"]).context("the StatefulSet has no name")?;
        let update = &spec["updateStrategy"];
        ensure!(update["type"].is_null() || update["type"] == "RollingUpdate", "updateStrategy is {update}");
        ensure!(update["rollingUpdate"].is_null(), "a partition or maxUnavailable cannot be played: {update}");
        let config_maps = of_kind("ConfigMap").into_iter().filter_map(|map| {
            let files = map["data"].as_object()?.iter().filter_map(|(key, text)| Some((key.clone(), text_of(text)?)));
            Some((text_of(&map["metadata"]["name"])?, files.collect()))
        });
        let services = of_kind("Service").into_iter().filter_map(|service| {
            let ports = service["spec"]["ports"].as_array()?.iter();
            let ports = ports.filter_map(|port| {
                let target = if port["targetPort"].is_null() { &port["port"] } else { &port["targetPort"] };
                Some((text_of(&port["name"])?, target.clone()))
            });
            Some((text_of(&service["metadata"]["name"])?, ports.collect()))
        });
        let budget = of_kind("PodDisruptionBudget").first().map(|budget| budget_of(&budget["spec"])).transpose()?;
        let manifest = Manifest {
            name,
            service: text_of(&spec["serviceName"]).context("the StatefulSet names no Service")?,
            replicas: number_of(&spec["replicas"]).unwrap_or(1) as usize,
            parallel: spec["podManagementPolicy"] == "Parallel",
            min_ready: seconds_of(&spec["minReadySeconds"], 0),
            budget,
            template: spec["template"].clone(),
            config_maps: config_maps.collect(),
            services: services.collect(),
        };
        manifest.template()?;
        Ok(manifest)
    }

    /// What a pod is made of, in full.
    ///
    /// # Errors
    /// It has what cannot be played.
    pub(super) fn template(&self) -> Result<Template> {
        let spec = &self.template["spec"];
        let containers = spec["containers"].as_array().context("no containers")?;
        ensure!(containers.len() == 1, "{} containers; one can be played", containers.len());
        ensure!(spec["initContainers"].is_null(), "initContainers cannot be played");
        let container = &containers[0];
        let ports = container["ports"].as_array().into_iter().flatten();
        let ports: BTreeMap<String, u16> = ports
            .filter_map(|port| Some((text_of(&port["name"])?, number_of(&port["containerPort"])? as u16)))
            .collect();
        let command = match texts(&container["command"]) {
            // The image's entry point: deploy/Dockerfile.
            command if command.is_empty() => vec!["fulmar".to_owned()],
            command => command,
        };
        let pre_stop = &container["lifecycle"]["preStop"];
        ensure!(pre_stop.is_null() || pre_stop["exec"].is_object(), "preStop is {pre_stop}");
        let probe = |name: &str| probe_of(&container[name], &ports).with_context(|| name.to_owned());
        let env = container["env"].as_array().into_iter().flatten().map(|variable| {
            Ok((text_of(&variable["name"]).context("a variable without a name")?, source_of(variable)?))
        });
        let mounts = container["volumeMounts"].as_array().into_iter().flatten().map(|mount| {
            let path = text_of(&mount["mountPath"]).context("a mount without a path")?;
            ensure!(mount["subPath"].is_null(), "{path}: a subPath cannot be played");
            Ok(Mount { path, volume: self.volume(&text_of(&mount["name"]).unwrap_or_default())? })
        });
        Ok(Template {
            command: command.into_iter().chain(texts(&container["args"])).collect(),
            env: env.collect::<Result<_>>()?,
            startup: probe("startupProbe")?,
            liveness: probe("livenessProbe")?,
            readiness: probe("readinessProbe")?,
            ports,
            pre_stop: Some(texts(&pre_stop["exec"]["command"])).filter(|command| !command.is_empty()),
            grace: seconds_of(&spec["terminationGracePeriodSeconds"], 30),
            mounts: mounts.collect::<Result<_>>()?,
        })
    }

    /// Two pods are of one revision if this is the same.
    pub(super) fn revision(&self) -> String {
        self.template.to_string()
    }

    pub(super) fn config_map(&self, name: &str) -> Option<&Files> {
        self.config_maps.get(name)
    }

    /// Connections that a pod closes in a second when it drains; as many as there may be if it closes them at once.
    ///
    /// # Errors
    /// No ConfigMap has a configuration.
    pub(super) fn disconnect_rate(&self) -> Result<u64> {
        let rate = self.setting("shutdown", "disconnect_rate")?.and_then(|rate| rate.as_integer());
        Ok(match rate.map_or(DISCONNECT_RATE, |rate| rate.unsigned_abs()) {
            0 => u64::from(u32::MAX),
            rate => rate,
        })
    }

    /// Where a pod finds the token of its admin door.
    ///
    /// # Errors
    /// The configuration does not say.
    pub(super) fn token_file(&self) -> Result<String> {
        let file = self.setting("admin", "token_file")?.and_then(|file| file.as_str().map(str::to_owned));
        file.context("the configuration has no admin.token_file")
    }

    /// Of the configuration that pods are started with.
    fn setting(&self, section: &str, key: &str) -> Result<Option<toml::Value>> {
        let mounted = self.template()?.mounts.into_iter().find_map(|mount| match mount.volume {
            Volume::ConfigMap(name) => self.config_maps.get(&name)?.get("fulmar.toml").cloned(),
            _ => None,
        });
        let config: toml::Table = mounted.context("no fulmar.toml is mounted")?.parse()?;
        Ok(config.get(section).and_then(|section| section.get(key)).cloned())
    }

    /// The port of a pod to which a port of a Service leads.
    pub(super) fn target_port(&self, service: &str, port: &str) -> Option<u16> {
        match self.services.get(service)?.get(port)? {
            Value::String(name) => self.template().ok()?.ports.get(name).copied(),
            number => number_of(number).map(|number| number as u16),
        }
    }

    /// `kubectl rollout restart`: an annotation that makes another revision of the same.
    pub(super) fn restarted(&self, at: u64) -> Manifest {
        let mut manifest = self.clone();
        manifest.template["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = json!(at.to_string());
        manifest
    }

    /// Another configuration, in ConfigMaps by other names, as kustomize makes them of other contents.
    pub(super) fn with_config(&self, change: impl Fn(&str) -> String) -> Manifest {
        let mut manifest = self.clone();
        for volume in manifest.template["spec"]["volumes"].as_array_mut().into_iter().flatten() {
            let Some(name) = text_of(&volume["configMap"]["name"]) else { continue };
            let Some(files) = self.config_maps.get(&name) else { continue };
            let other = format!("{name}-changed");
            volume["configMap"]["name"] = json!(other);
            let changed = files.iter().map(|(key, text)| (key.clone(), change(text)));
            manifest.config_maps.insert(other, changed.collect());
        }
        manifest
    }

    /// With this environment variable instead of what it is.
    pub(super) fn with_env(&self, name: &str, value: &str) -> Manifest {
        let mut manifest = self.clone();
        let Some(env) = manifest.template["spec"]["containers"][0]["env"].as_array_mut() else { return manifest };
        env.retain(|variable| variable["name"] != name);
        env.push(json!({ "name": name, "value": value }));
        manifest
    }

    fn volume(&self, name: &str) -> Result<Volume> {
        let volumes = self.template["spec"]["volumes"].as_array().into_iter().flatten();
        let Some(volume) = volumes.into_iter().find(|volume| volume["name"] == name) else {
            return Ok(Volume::Claim(name.to_owned()));
        };
        if let Some(map) = text_of(&volume["configMap"]["name"]) {
            ensure!(self.config_maps.contains_key(&map), "the ConfigMap {map} is not among the manifests");
            return Ok(Volume::ConfigMap(map));
        }
        match volume {
            _ if volume["secret"].is_object() => Ok(Volume::Secret),
            _ if volume["emptyDir"].is_object() => Ok(Volume::Empty),
            _ => bail!("the volume {name} cannot be played: {volume}"),
        }
    }
}

fn probe_of(probe: &Value, ports: &BTreeMap<String, u16>) -> Result<Option<Probe>> {
    if probe.is_null() {
        return Ok(None);
    }
    let ask = match (&probe["httpGet"], texts(&probe["exec"]["command"])) {
        (get, _) if get.is_object() => {
            let port = match &get["port"] {
                Value::String(name) => ports.get(name).copied(),
                number => number_of(number).map(|number| number as u16),
            };
            Ask::Http { port: port.context("no such port")?, path: text_of(&get["path"]).unwrap_or("/".into()) }
        }
        (_, command) if !command.is_empty() => Ask::Exec(command),
        _ => bail!("it cannot be played: {probe}"),
    };
    let count = |name: &str, default: u64| number_of(&probe[name]).unwrap_or(default) as u32;
    Ok(Some(Probe {
        ask,
        delay: seconds_of(&probe["initialDelaySeconds"], 0),
        period: seconds_of(&probe["periodSeconds"], 10),
        timeout: seconds_of(&probe["timeoutSeconds"], 1),
        successes: count("successThreshold", 1),
        failures: count("failureThreshold", 3),
    }))
}

fn source_of(variable: &Value) -> Result<Source> {
    let from = &variable["valueFrom"];
    if let Some(key) = text_of(&from["secretKeyRef"]["key"]) {
        return Ok(Source::Secret(key));
    }
    match from["fieldRef"]["fieldPath"].as_str() {
        Some("metadata.name") => Ok(Source::PodName),
        Some("metadata.namespace") => Ok(Source::Namespace),
        Some("status.podIP") => Ok(Source::PodAddress),
        _ if from.is_null() => Ok(Source::Text(text_of(&variable["value"]).unwrap_or_default())),
        _ => bail!("a variable that cannot be played: {variable}"),
    }
}

fn budget_of(spec: &Value) -> Result<Budget> {
    let count = |name: &str| number_of(&spec[name]).map(|count| count as usize);
    match (count("maxUnavailable"), count("minAvailable")) {
        (Some(most), None) => Ok(Budget::MaxUnavailable(most)),
        (None, Some(least)) => Ok(Budget::MinAvailable(least)),
        _ => bail!("a budget that cannot be played: {spec}"),
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(text_of).collect()
}

fn number_of(value: &Value) -> Option<u64> {
    value.as_u64()
}

fn seconds_of(value: &Value, default: u64) -> Duration {
    Duration::from_secs(number_of(value).unwrap_or(default))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
kind: ConfigMap
metadata: {name: c-1}
data:
  fulmar.toml: |
    [node]
---
kind: Service
metadata: {name: s}
spec:
  ports: [{name: mqtt, port: 80, targetPort: mqtt}, {name: other, port: 81}]
---
kind: PodDisruptionBudget
spec: {maxUnavailable: 1}
---
kind: StatefulSet
metadata: {name: s}
spec:
  replicas: 3
  serviceName: h
  podManagementPolicy: Parallel
  template:
    spec:
      terminationGracePeriodSeconds: 75
      containers:
        - name: s
          args: [serve]
          env:
            - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
            - {name: A, value: $(POD_NAME).h}
          ports: [{name: mqtt, containerPort: 1883}, {name: probes, containerPort: 9100}]
          readinessProbe: {httpGet: {path: /readyz, port: probes}, periodSeconds: 2}
          lifecycle: {preStop: {exec: {command: [fulmar, drain]}}}
          volumeMounts: [{name: data, mountPath: /data}, {name: c, mountPath: /etc/c}]
      volumes: [{name: c, configMap: {name: c-1}}]
"#;

    #[test]
    fn everything_that_is_played_is_read() {
        let manifest = Manifest::read(TEXT).unwrap();
        assert_eq!((manifest.replicas, manifest.parallel, manifest.service.as_str()), (3, true, "h"));
        assert_eq!(manifest.budget, Some(Budget::MaxUnavailable(1)));
        let template = manifest.template().unwrap();
        assert_eq!(template.command, ["fulmar", "serve"]);
        assert_eq!(template.grace, Duration::from_secs(75));
        assert_eq!(template.pre_stop.unwrap(), ["fulmar", "drain"]);
        let probe = template.readiness.unwrap();
        assert_eq!(probe.ask, Ask::Http { port: 9100, path: "/readyz".into() });
        assert_eq!((probe.period, probe.timeout, probe.failures), (Duration::from_secs(2), Duration::from_secs(1), 3));
        assert_eq!(template.mounts[0].volume, Volume::Claim("data".into()));
        assert_eq!(template.mounts[1].volume, Volume::ConfigMap("c-1".into()));
        assert_eq!(manifest.target_port("s", "mqtt"), Some(1883));
        assert_eq!(manifest.target_port("s", "other"), Some(81));
    }

    #[test]
    fn what_changes_a_pod_is_another_revision() {
        let manifest = Manifest::read(TEXT).unwrap();
        let changed = manifest.with_config(|text| format!("{text}[nonsense]\n"));
        assert!(changed.config_map("c-1-changed").unwrap()["fulmar.toml"].ends_with("[nonsense]\n"));
        for other in [&changed, &manifest.restarted(1), &manifest.with_env("A", "b")] {
            assert_ne!(other.revision(), manifest.revision());
            other.template().unwrap();
        }
        assert_eq!(Manifest::read(TEXT).unwrap().revision(), manifest.revision());
    }

    #[test]
    fn what_cannot_be_played_is_an_error() {
        for (from, to) in [
            ("replicas: 3", "updateStrategy: {type: OnDelete}"),
            ("volumes: [{name: c, configMap: {name: c-1}}]", "volumes: [{name: c, hostPath: {path: /}}]"),
            ("readinessProbe: {httpGet: {path: /readyz, port: probes}", "readinessProbe: {grpc: {port: 1}"),
            ("preStop: {exec: {command: [fulmar, drain]}}", "preStop: {sleep: {seconds: 5}}"),
        ] {
            assert!(Manifest::read(&TEXT.replace(from, to)).is_err(), "{to}");
        }
    }
}
