//! Things of the cluster by their kinds: listed, described, made by documents, deleted; by one context, at any node.

use std::path::Path;
use std::process::Stdio;

use cluster_tests::harness::{DevOptions, Fulmar, fulmar_binary};
use cluster_tests::sys::Signal;
use serde_json::{Value, json};

use super::fulmar_ctl;
use crate::support::SOON;

/// A `fulmar dev` whose context is in a file of its own.
async fn dev(nodes: u16, contexts: &Path) -> Fulmar {
    let env = vec![("FULMAR_CONFIG".to_owned(), contexts.to_str().unwrap().to_owned())];
    Fulmar::dev(DevOptions { nodes, env, ..DevOptions::default() }).await.unwrap()
}

/// Exit code, standard output and standard error, by the contexts of a file.
async fn ctl(contexts: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    fulmar_ctl(arguments, &[("FULMAR_CONFIG", contexts.to_str().unwrap())]).await
}

/// What it prints as JSON.
async fn json_of(contexts: &Path, arguments: &[&str]) -> Value {
    let (code, output, error) = ctl(contexts, &[arguments, &["-o", "json"]].concat()).await;
    assert_eq!(code, Some(0), "{arguments:?}: {error}");
    serde_json::from_str(&output).unwrap()
}

const RULE: &str = "\
kind: rule
name: hot
spec:
  subject: {resource: device.property, event: report}
  app_type: GLOBAL
  where: \"temperature > 30\"
---
kind: user
name: ann
spec: {password: correct horse battery, role: viewer}
";

#[tokio::test]
async fn documents_are_applied_shown_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let contexts = dir.path().join("contexts.toml");
    let _dev = dev(1, &contexts).await;
    let nodes = json_of(&contexts, &["get", "nodes"]).await;
    assert_eq!(nodes["items"][0]["role"], "leader");
    let (code, table, error) = ctl(&contexts, &["get", "devices"]).await;
    assert_eq!(code, Some(0), "{error}");
    assert!(table.starts_with("DEVICE "), "{table}");

    let file = dir.path().join("a.yaml");
    std::fs::write(&file, RULE).unwrap();
    let file = file.to_str().unwrap();
    let told = async |arguments: &[&str]| {
        let (code, output, error) = ctl(&contexts, arguments).await;
        assert_eq!(code, Some(0), "{arguments:?}: {error}");
        // The ids of what the node names differ.
        output
            .lines()
            .map(|line| [line.split(' ').next(), line.rsplit(' ').next()].map(Option::unwrap).join(" "))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&["apply", "-f", file, "--dry-run"]).await, ["rule/hot run)", "user/ann run)"]);
    assert_eq!(told(&["apply", "-f", file]).await, ["rule/hot created", "user/ann created"]);
    let rule = json_of(&contexts, &["get", "rule", "hot"]).await;
    assert_eq!((&rule["rule_name"], &rule["where"]), (&json!("hot"), &json!("temperature > 30")));
    std::fs::write(file, RULE.replace("> 30", "> 40").split("---").next().unwrap()).unwrap();
    assert_eq!(told(&["apply", "-f", file]).await, ["rule/hot configured"]);
    assert_eq!(told(&["apply", "-f", file]).await, ["rule/hot unchanged"]);
    let (code, yaml, _) = ctl(&contexts, &["get", "rules/hot", "-o", "yaml"]).await;
    assert!(code == Some(0) && yaml.contains("rule_name: hot\n") && yaml.contains("temperature > 40"), "{yaml}");
    let (code, text, error) = ctl(&contexts, &["describe", "rule", "hot"]).await;
    assert!(code == Some(0) && text.contains("Actions:\n  none") && text.contains("Status:"), "{text}{error}");

    std::fs::write(file, RULE.replace("where:", "wher:").split("---").next().unwrap()).unwrap();
    let (code, _, error) = ctl(&contexts, &["create", "-f", file]).await;
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("a.yaml: document 1 (rule hot): ") && error.contains("wher"), "{error}");

    assert_eq!(told(&["delete", "rule", "hot"]).await, ["rule/hot deleted"]);
    for (arguments, exit, wanted) in [
        (vec!["get", "rule", "hot"], 3, "there is no rule/hot"),
        (vec!["get", "device", "nobody"], 3, "`fulmar ctl get devices`"),
        (vec!["delete", "rule", "hot"], 3, "rule/hot"),
        (vec!["get", "things"], 2, "there is no kind things; there are nodes, "),
        (vec!["get", "messages"], 2, "--device-id"),
        (vec!["get", "users", "--product-id", "p"], 2, "cannot be asked by product_id"),
        (vec!["call", "Devices/Sow"], 2, "Devices/Show"),
        (vec!["get", "nodes", "--context", "other"], 2, "there are dev"),
    ] {
        let (code, output, error) = ctl(&contexts, &arguments).await;
        assert_eq!((code, &*output), (Some(exit), ""), "{arguments:?}: {error}");
        assert!(error.contains(wanted), "{arguments:?}: {error}");
    }
}

#[tokio::test]
async fn another_node_answers_when_one_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let contexts = dir.path().join("contexts.toml");
    let mut dev = dev(3, &contexts).await;
    assert_eq!(json_of(&contexts, &["get", "nodes"]).await["items"].as_array().unwrap().len(), 3);
    dev.node(0).kill().await.unwrap();
    let (code, output, error) = ctl(&contexts, &["get", "nodes"]).await;
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(output.lines().count(), 4, "{output}");
    dev.process().signal(Signal::Interrupt).unwrap();
    dev.process().exited(SOON).await.unwrap();
    let (code, _, error) = ctl(&contexts, &["get", "nodes"]).await;
    assert_eq!(code, Some(69), "{error}");
    assert!(error.contains("none of 3 nodes answers"), "{error}");
}

#[tokio::test]
async fn a_backup_goes_through_pipes() {
    let dir = tempfile::tempdir().unwrap();
    let contexts = dir.path().join("contexts.toml");
    let _dev = dev(1, &contexts).await;
    let (document, backup) = (dir.path().join("a.yaml"), dir.path().join("piped"));
    std::fs::write(&document, RULE).unwrap();
    let (code, _, error) = ctl(&contexts, &["apply", "-f", document.to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{error}");
    let piped = async |arguments: &'static [&'static str], input: Stdio, output: Stdio| {
        let mut command = tokio::process::Command::new(fulmar_binary().unwrap());
        command.arg("ctl").args(arguments).env("FULMAR_CONFIG", &contexts).kill_on_drop(true);
        let process = command.stdin(input).stdout(output).stderr(Stdio::piped()).spawn().unwrap();
        let ended = tokio::time::timeout(SOON, process.wait_with_output()).await.unwrap().unwrap();
        assert!(ended.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8(ended.stderr).unwrap()
    };
    let into = std::fs::File::create(&backup).unwrap();
    let said = piped(&["backup", "-", "-o", "json"], Stdio::null(), into.into()).await;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["end"]["bytes"], std::fs::metadata(&backup).unwrap().len(), "nothing else is in it");

    let (code, _, error) = ctl(&contexts, &["delete", "user", "ann"]).await;
    assert_eq!(code, Some(0), "{error}");
    let from = std::fs::File::open(&backup).unwrap();
    piped(&["restore", "-", "--replace"], from.into(), Stdio::null()).await;
    let (code, table, error) = ctl(&contexts, &["get", "users"]).await;
    assert!(code == Some(0) && table.contains("ann"), "{table}{error}");
}
