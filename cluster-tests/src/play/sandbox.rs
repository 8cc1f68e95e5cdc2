//! A pod's file system and network, as far as a process without privileges can have them: mounted files lie in a directory
//! of the pod, its volume in one that outlives it, and wherever the manifests name a path of theirs or an address of the
//! pod, the process is told the one here. The ports stay the manifest's: each pod has an address of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::manifest::{Files, Manifest, Mount, Source, Template, Volume};

/// The namespace that all of it is played in.
const NAMESPACE: &str = "played";

/// What a pod gets beside its template.
pub(super) struct Place<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) ordinal: usize,
    pub(super) address: Ipv4Addr,
    /// Where the names of all pods lead, by ordinal: they stay the same while pods change addresses.
    pub(super) names: &'a [SocketAddr],
    pub(super) secret: &'a Files,
    /// For what lives as long as the pod.
    pub(super) dir: &'a Path,
    /// For what outlives it.
    pub(super) claims: &'a Path,
    pub(super) binary: &'a Path,
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Sandbox {
    pub(super) pod: String,
    pub(super) address: Ipv4Addr,
    binary: PathBuf,
    /// In place of which text, what.
    rewrites: Vec<(String, String)>,
    env: Vec<(String, String)>,
}

impl Sandbox {
    /// Writes the pod's files.
    pub(super) fn build(template: &Template, place: &Place<'_>) -> Result<Sandbox> {
        let pod = format!("{}-{}", place.manifest.name, place.ordinal);
        let any = ["0.0.0.0:", "127.0.0.1:", "localhost:"];
        let mut rewrites: Vec<(String, String)> =
            any.iter().map(|text| ((*text).to_owned(), format!("{}:", place.address))).collect();
        for (index, mount) in template.mounts.iter().enumerate() {
            rewrites.push((mount.path.clone(), directory(mount, index, &pod, place).display().to_string()));
        }
        // The longest first: one path may begin another.
        rewrites.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
        let env = environment(template, &pod, place)?;
        let mut sandbox =
            Sandbox { pod, address: place.address, binary: place.binary.to_owned(), rewrites, env: Vec::new() };
        sandbox.env = env.into_iter().map(|(name, value)| (name, sandbox.translate(&value))).collect();
        for (index, mount) in template.mounts.iter().enumerate() {
            let directory = directory(mount, index, &sandbox.pod, place);
            fs::create_dir_all(&directory)?;
            let files = match &mount.volume {
                Volume::ConfigMap(name) => place.manifest.config_map(name).cloned().unwrap_or_default(),
                Volume::Secret => place.secret.clone(),
                Volume::Claim(_) | Volume::Empty => Files::new(),
            };
            for (name, text) in files {
                let text = with_names(&sandbox.translate(&text), template, place)?;
                fs::write(directory.join(&name), text).with_context(|| format!("{name} of {}", mount.path))?;
            }
        }
        Ok(sandbox)
    }

    /// A command of the manifests, as it is run here.
    pub(super) fn command(&self, words: &[String]) -> Command {
        let words: Vec<String> = words.iter().map(|word| self.translate(word)).collect();
        let (program, arguments) = match words.split_first() {
            Some((program, arguments)) if program.rsplit('/').next() == Some("fulmar") => {
                (self.binary.display().to_string(), arguments)
            }
            Some((program, arguments)) => (program.clone(), arguments),
            None => (self.binary.display().to_string(), &[][..]),
        };
        let mut command = Command::new(program);
        command.args(arguments).envs(self.env.iter().cloned());
        command
    }

    /// A text of the manifests with this machine's paths and addresses. In one pass: what was put in is not looked at.
    fn translate(&self, text: &str) -> String {
        let (mut out, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(next) = rest.chars().next() {
            let found = self.rewrites.iter().find_map(|(from, to)| {
                let after = rest.strip_prefix(from.as_str())?;
                // Of a path, whole names only: /etc/a is not the beginning of /etc/a-b.
                let whole =
                    !from.starts_with('/') || !after.starts_with(|c: char| c.is_alphanumeric() || "-_.".contains(c));
                whole.then_some((to, after))
            });
            match found {
                Some((to, after)) => {
                    out.push_str(to);
                    rest = after;
                }
                None => {
                    out.push(next);
                    rest = rest.strip_prefix(next).unwrap_or_default();
                }
            }
        }
        out
    }
}

fn directory(mount: &Mount, index: usize, pod: &str, place: &Place<'_>) -> PathBuf {
    match &mount.volume {
        Volume::Claim(name) => claim(place.claims, name, pod),
        _ => place.dir.join(format!("mount-{index}")),
    }
}

/// Where a claim of a pod lies.
pub(super) fn claim(claims: &Path, name: &str, pod: &str) -> PathBuf {
    claims.join(format!("{name}-{pod}"))
}

fn environment(template: &Template, pod: &str, place: &Place<'_>) -> Result<Vec<(String, String)>> {
    let mut env: Vec<(String, String)> = vec![("HOSTNAME".into(), pod.to_owned())];
    for (name, source) in &template.env {
        let value = match source {
            Source::PodName => pod.to_owned(),
            Source::PodAddress => place.address.to_string(),
            Source::Namespace => NAMESPACE.to_owned(),
            Source::Secret(key) => place.secret.get(key).cloned().with_context(|| format!("no {key} in the Secret"))?,
            Source::Text(text) => {
                env.iter().fold(text.clone(), |text, (name, value)| text.replace(&format!("$({name})"), value))
            }
        };
        env.push((name.clone(), value));
    }
    Ok(env)
}

/// host:port by which other nodes reach each of the pods, by ordinal; empty if the template has none.
fn advertised(template: &Template, place: &Place<'_>) -> Result<Vec<String>> {
    let of = |ordinal: usize| {
        let env = environment(template, &format!("{}-{ordinal}", place.manifest.name), place)?;
        Ok(env.into_iter().find(|(name, _)| name == "FULMAR__CLUSTER__ADVERTISE").map(|(_, value)| value))
    };
    let all: Result<Vec<Option<String>>> = (0..place.names.len()).map(of).collect();
    Ok(all?.into_iter().flatten().collect())
}

/// A configuration in which the names of pods lead somewhere: that of the headless Service stands for all pods that are to
/// be, as its records do, and each pod's own is dialled where it is said to be. What is no configuration stays as it is.
fn with_names(text: &str, template: &Template, place: &Place<'_>) -> Result<String> {
    let Ok(mut config) = text.parse::<toml::Table>() else { return Ok(text.to_owned()) };
    let Some(cluster) = config.get_mut("cluster").and_then(toml::Value::as_table_mut) else {
        return Ok(text.to_owned());
    };
    let text = |address: &SocketAddr| toml::Value::String(address.to_string());
    if let Some(peers) = cluster.get("peers").and_then(toml::Value::as_array) {
        let mut resolved = Vec::new();
        for peer in peers {
            let host = peer.as_str().and_then(|peer| peer.split([':', '.']).next()).unwrap_or_default();
            match host == place.manifest.service {
                true => resolved.extend(place.names.iter().take(place.manifest.replicas).map(text)),
                false => resolved.push(peer.clone()),
            }
        }
        cluster.insert("peers".into(), resolved.into());
    }
    let dialled: BTreeMap<String, toml::Value> =
        advertised(template, place)?.into_iter().zip(place.names.iter().map(text)).collect();
    cluster.insert("dial".into(), toml::Value::Table(dialled.into_iter().collect()));
    Ok(toml::to_string(&config)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_addresses_are_the_pods_own() {
        let rewrites = [("/etc/a-b", "/here/1"), ("/etc/a", "/here/0"), ("0.0.0.0:", "127.9.9.9:")];
        let sandbox = Sandbox {
            pod: "a-0".into(),
            address: Ipv4Addr::new(127, 9, 9, 9),
            binary: "/bin/fulmar".into(),
            rewrites: rewrites.map(|(from, to)| (from.to_owned(), to.to_owned())).into(),
            env: Vec::new(),
        };
        let text = "x = \"/etc/a/f\" y = '/etc/a-b' z = /etc/a-bc w = 0.0.0.0:1883 v = /etc/a";
        let wanted = "x = \"/here/0/f\" y = '/here/1' z = /etc/a-bc w = 127.9.9.9:1883 v = /here/0";
        assert_eq!(sandbox.translate(text), wanted);
        let command = sandbox.command(&["fulmar".into(), "drain".into(), "/etc/a/f".into()]);
        assert_eq!(command.get_program(), "/bin/fulmar");
        assert!(command.get_args().eq(["drain", "/here/0/f"]));
    }
}
