//! `fulmar verify` as an operator runs it.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use fulmar::store::log::{Log, Options};

fn verify(arguments: &[&Path]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_fulmar"))
        .arg("verify")
        .args(arguments)
        .output()
        .expect("the program of this crate");
    (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

#[test]
fn the_exit_code_says_how_the_data_is() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    let open = || Log::open(&dir, Options::default(), Arc::new(|what| panic!("fatal: {what}"))).unwrap().0;
    let log = open();
    log.save_meta(|meta| meta.generation = 1).unwrap();
    let (code, said) = verify(&[&dir]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("in use by another process"), "{said}");
    drop(log);

    let (code, said) = verify(&[&dir]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("log       ok         0 entries"), "{said}");
    std::fs::write(dir.join("durable"), [0; 8_192]).unwrap();
    let (code, said) = verify(&[&dir]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("durable: neither of its two slots is whole"), "{said}");
    assert_eq!(verify(&[scratch.path()]).0, Some(3), "no data of a node");
    assert_eq!(verify(&[&dir.join("absent")]).0, Some(3));
}

#[test]
fn wrong_arguments_are_not_damage() {
    assert_eq!(verify(&[]).0, Some(64));
    assert_eq!(verify(&[Path::new("one"), Path::new("two")]).0, Some(64));
    assert_eq!(verify(&[Path::new("--frobnicate")]).0, Some(64));
    assert_eq!(verify(&[Path::new("--help")]).0, Some(0));
}
