//! The repository's rules about itself, kept by reading it: what lies at the top, who imports whom, what pure crates may
//! not touch, how long files are, what must not be left behind, and that deployment files agree with the program.
//! Each rule has a checker, a function of text, which is tried on text that breaks the rule.

mod deployment;
mod imports;
mod leftovers;
mod purity;
mod size;
mod source;
mod workspace;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One place where a rule is broken.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    file: String,
    /// From 1; 0 where the whole file is meant.
    line: usize,
    rule: &'static str,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.rule, self.what)
    }
}

/// A file of the repository. Paths are relative to its top, with `/`.
struct File {
    path: String,
    text: String,
}

/// Folders that are made by tools, wherever they stand.
const MADE: [&str; 6] = [".git", "target", "node_modules", ".venv", "__pycache__", "proptest-regressions"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in a folder of the repository").to_owned()
}

/// All files that belong to the repository: what git knows or would add, or without git, what lies there.
fn paths() -> Vec<String> {
    let root = root();
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(&root)
        .output()
        .ok()
        .filter(|output| output.status.success() && !output.stdout.is_empty())
        .and_then(|output| String::from_utf8(output.stdout).ok());
    let mut paths: Vec<String> = match listed {
        Some(listed) => listed.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect(),
        None => walk(&root, ""),
    };
    paths.retain(|path| root.join(path).is_file());
    paths.sort();
    assert!(paths.iter().any(|path| path == "node/tests/it/tidy.rs"), "this file is not among {paths:?}");
    paths
}

fn walk(folder: &Path, prefix: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of the repository") {
        let entry = entry.expect("an entry of a folder");
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            if !MADE.contains(&name.as_str()) {
                paths.extend(walk(&entry.path(), &format!("{prefix}{name}/")));
            }
        } else {
            paths.push(format!("{prefix}{name}"));
        }
    }
    paths
}

/// All files that are text.
fn files() -> Vec<File> {
    let root = root();
    paths()
        .into_iter()
        .filter_map(|path| std::fs::read_to_string(root.join(&path)).ok().map(|text| File { path, text }))
        .collect()
}

fn rust_files() -> impl Iterator<Item = File> {
    files().into_iter().filter(|file| file.path.ends_with(".rs"))
}

#[track_caller]
fn assert_none(violations: Vec<Violation>) {
    let lines: Vec<String> = violations.iter().map(Violation::to_string).collect();
    assert!(lines.is_empty(), "{} broken:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn top_level_is_as_designed() {
    assert_none(workspace::top_level(&paths()));
}

#[test]
fn dependencies_have_a_reason() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("the manifest of the workspace");
    assert_none(workspace::reasons("Cargo.toml", &manifest));
}

#[test]
fn rooms_import_leftward_only() {
    assert_none(rust_files().flat_map(|file| imports::check(&file.path, &file.text)).collect());
}

#[test]
fn pure_crates_are_pure() {
    let checked = files().into_iter().filter(|file| purity::is_pure(&file.path));
    assert_none(checked.flat_map(|file| purity::check(&file.path, &file.text)).collect());
}

#[test]
fn files_are_short() {
    let lengths: Vec<(String, usize)> = rust_files().map(|file| (file.path, file.text.lines().count())).collect();
    assert_none(size::check(&lengths, size::EXCEPTIONS));
}

#[test]
fn nothing_is_left_behind() {
    assert_none(files().iter().flat_map(|file| leftovers::check(&file.path, &file.text)).collect());
}

#[test]
fn a_violation_names_file_line_and_rule() {
    let shown = Violation { file: "a.rs".into(), line: 3, rule: "purity", what: "names tokio".into() }.to_string();
    assert_eq!(shown, "a.rs:3: purity: names tokio");
}
