//! `fulmar ctl`, as an operator meets it.

mod things;

use std::process::Command;

use cluster_tests::harness::{DevOptions, Fulmar, Process, fulmar_binary};

use crate::support::SOON;

/// Exit code, standard output and standard error of one `fulmar ctl cluster`.
async fn ctl(arguments: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    fulmar_ctl(&[&["cluster"], arguments].concat(), env).await
}

/// The same of any `fulmar ctl`, which knows no context unless the environment names a file of them.
async fn fulmar_ctl(arguments: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(fulmar_binary().unwrap());
    command.arg("ctl").args(arguments).env("FULMAR_CONFIG", dir.path().join("none.toml"));
    for name in ["FULMAR_ADMIN_ADDRESS", "FULMAR_ADMIN_TOKEN", "FULMAR_ADMIN_TOKEN_FILE", "FULMAR_ADMIN_CA"] {
        command.env_remove(name);
    }
    command.envs(env.iter().copied());
    let mut process = Process::spawn("ctl", command, dir.path()).unwrap();
    let status = process.exited(SOON).await.unwrap();
    (status.code(), process.stdout(), process.stderr())
}

/// Where `fulmar dev` says everything.
fn endpoints(dev: &mut Fulmar) -> String {
    let output = dev.process().stdout();
    output.lines().next().unwrap().strip_prefix("endpoints: ").unwrap().to_owned()
}

#[tokio::test]
async fn members_are_listed_for_people_and_for_programs() {
    let mut dev = Fulmar::dev(DevOptions::default()).await.unwrap();
    let path = endpoints(&mut dev);
    let id = std::fs::read_to_string(dev.endpoints().nodes[0].data_dir.join("node-id")).unwrap();
    let (code, table, error) = ctl(&["members", "--endpoints", &path], &[]).await;
    assert_eq!(code, Some(0), "{error}");
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("NODE ") && lines[0].ends_with("ADDRESS"), "{table}");
    assert!(lines[1].starts_with(id.trim()) && lines[1].contains("leader") && lines[1].contains("up"), "{table}");
    let (code, json, error) = ctl(&["members", "--endpoints", &path, "--output", "json"], &[]).await;
    assert_eq!(code, Some(0), "{error}");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["leader"].as_str(), json["node"].as_str()), (Some(id.trim()), Some(id.trim())));
    assert_eq!(json["members"].as_array().unwrap().len(), 1);
    assert_eq!(json["members"][0]["role"], "leader");
}

#[tokio::test]
async fn a_node_is_found_by_its_address_and_wants_its_token_and_tls() {
    let mut dev = Fulmar::dev(DevOptions::default()).await.unwrap();
    let path = endpoints(&mut dev);
    let address = dev.endpoints().nodes[0].admin.unwrap().to_string();
    let ca = dev.endpoints().ca.clone().unwrap().to_str().unwrap().to_owned();
    let token = dev.endpoints().credentials["admin"]["token"].as_str().unwrap().to_owned();
    let env = [("FULMAR_ADMIN_ADDRESS", &*address), ("FULMAR_ADMIN_TOKEN", &*token), ("FULMAR_ADMIN_CA", &*ca)];
    let (code, _, error) = ctl(&["members"], &env).await;
    assert_eq!(code, Some(0), "{error}");
    let (code, _, error) = ctl(&["members", "--token", "0123456789abcdef"], &env).await;
    assert_eq!(code, Some(4), "{error}");
    assert!(error.contains("--token-file"), "{error}");
    let (code, _, error) = ctl(&["members", "--plaintext"], &env).await;
    assert_eq!(code, Some(69), "{error}");
    assert!(error.contains("--ca"), "{error}");
    let (code, _, error) = ctl(&["members", "--endpoints", &path, "--address", &address], &[]).await;
    assert_eq!(code, Some(2), "{error}");
    let (code, _, error) = ctl(&["members"], &[]).await;
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("FULMAR_ADMIN_TOKEN"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_the_reason() {
    let mut dev = Fulmar::dev(DevOptions::default()).await.unwrap();
    let path = endpoints(&mut dev);
    let id = std::fs::read_to_string(dev.endpoints().nodes[0].data_dir.join("node-id")).unwrap();
    for (arguments, exit, wanted) in [
        (vec!["join", "nowhere"], 1, "address"),
        (vec!["remove", id.trim()], 1, id.trim()),
        (vec!["remove", "0000"], 3, "begins the id of no member"),
    ] {
        let (code, _, error) = ctl(&[&arguments[..], &["--endpoints", &path]].concat(), &[]).await;
        assert_eq!(code, Some(exit), "{arguments:?}: {error}");
        assert!(error.contains(wanted), "{arguments:?}: {error}");
    }
    let (code, _, error) = ctl(&["remove", "x", "--endpoints", &path], &[]).await;
    assert_eq!(code, Some(2), "{error}");
}

#[tokio::test]
async fn a_drained_node_leaves_and_then_nobody_answers() {
    let mut dev = Fulmar::dev(DevOptions::default()).await.unwrap();
    let path = endpoints(&mut dev);
    let id = std::fs::read_to_string(dev.endpoints().nodes[0].data_dir.join("node-id")).unwrap();
    let (code, output, error) = ctl(&["drain", id.trim(), "--endpoints", &path, "--output", "json"], &[]).await;
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(output.trim(), format!("{{\"draining\":\"{}\"}}", id.trim()));
    dev.node(0).wait_until_gone(SOON).await.unwrap();
    let (code, _, error) = ctl(&["members", "--endpoints", &path], &[]).await;
    assert_eq!(code, Some(69), "{error}");
    assert!(error.contains("is the node up"), "{error}");
}
