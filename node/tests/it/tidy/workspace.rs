//! What lies at the top of the repository, and that each dependency says why it is there.

use super::Violation;

/// All that lies at the top, besides names that start with a dot.
const TOP: [&str; 9] =
    ["Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "cluster-tests", "deploy", "k8s", "node", "proto"];

pub(super) fn top_level(paths: &[String]) -> Vec<Violation> {
    let violation =
        |file: &str, what: &str| Violation { file: file.to_owned(), line: 0, rule: "top level", what: what.to_owned() };
    let mut found: Vec<&str> = paths.iter().filter_map(|path| path.split('/').next()).collect();
    found.dedup();
    let unknown = found.iter().filter(|name| !name.starts_with('.') && !TOP.contains(name));
    let mut violations: Vec<Violation> = unknown.map(|name| violation(name, "does not belong at the top")).collect();
    let missing = TOP.iter().chain(&[".ci"]).filter(|name| !found.contains(name));
    violations.extend(missing.map(|name| violation(name, "is missing")));
    violations
}

/// Each line of [workspace.dependencies] ends in `# reason`, but for the members of the workspace.
pub(super) fn reasons(path: &str, manifest: &str) -> Vec<Violation> {
    let mut inside = false;
    let mut violations = Vec::new();
    for (index, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line == "[workspace.dependencies]";
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let (dependency, reason) = line.split_once('#').unwrap_or((line, ""));
            if reason.trim().is_empty() && !dependency.contains("path =") {
                let name = dependency.split([' ', '=']).next().unwrap_or_default();
                let what = format!("{name} does not say why it is there: `{name} = ... # reason`");
                violations.push(Violation { file: path.to_owned(), line: index + 1, rule: "dependency reason", what });
            }
        }
    }
    violations
}

#[test]
fn a_wrong_top_level_is_found() {
    let mut paths: Vec<String> = TOP.iter().map(|name| (*name).to_owned()).collect();
    paths.extend([".ci/run".to_owned(), ".gitignore".to_owned()]);
    assert_eq!(top_level(&paths), []);
    paths.push("notes/a.md".to_owned());
    paths.retain(|path| path != "LICENSE");
    let found: Vec<String> = top_level(&paths).iter().map(Violation::to_string).collect();
    assert_eq!(found, ["notes:0: top level: does not belong at the top", "LICENSE:0: top level: is missing"]);
}

#[test]
fn a_missing_reason_is_found() {
    let good = "[workspace.dependencies]\nx = { path = \"x\" }\n# group\na = \"1\" # why\n\n[profile.dev]\nb = 1\n";
    assert_eq!(reasons("Cargo.toml", good), []);
    let bad = reasons("Cargo.toml", "[workspace.dependencies]\na = \"1\"\nb = \"1\" #\nc = \"1\" # why\n");
    assert_eq!(bad.iter().map(|violation| violation.line).collect::<Vec<_>>(), [2, 3]);
}
