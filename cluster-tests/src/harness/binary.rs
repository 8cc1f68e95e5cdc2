//! Where the `fulmar` under test comes from.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};

/// The `fulmar` binary: `FULMAR_BIN` if set; else the one beside this executable, in the same profile, which cargo
/// brings up to date once per process. For tests it has fail points, for the bench none.
///
/// # Errors
/// It does not exist, or does not build.
pub fn fulmar_binary() -> Result<PathBuf> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY.get_or_init(|| find().map_err(|error| format!("{error:#}"))).clone().map_err(|error| anyhow!(error))
}

fn find() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("FULMAR_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "FULMAR_BIN is {}, which is no file", path.display());
        return Ok(path);
    }
    let executable = std::env::current_exe()?;
    let profile_dir = profile_dir(&executable).context("this executable is not in a target directory of cargo")?;
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(name) => name,
        None => "dev",
    };
    let target_dir = profile_dir.parent().context("a profile directory has a parent")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    command.args(["build", "--quiet", "--profile", profile, "--target-dir"]).arg(target_dir);
    if is_test(&executable) {
        // What `cargo test --workspace` has built, so that nothing is built twice.
        command.args(["--workspace", "--tests"]);
    } else {
        command.args(["-p", "fulmar", "--bin", "fulmar"]);
    }
    // Of this crate, set by who runs its tests: build scripts that look at them would run again, and all that needs them.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    let output = command.output().context("cannot run cargo")?;
    ensure!(output.status.success(), "fulmar does not build:\n{}", String::from_utf8_lossy(&output.stderr));
    let binary = profile_dir.join("fulmar");
    ensure!(binary.is_file(), "cargo built no {}", binary.display());
    Ok(binary)
}

/// Cargo puts the executables of tests into `deps`.
fn is_test(executable: &Path) -> bool {
    executable.parent().and_then(Path::file_name).is_some_and(|name| name == "deps")
}

/// `target/PROFILE` of `target/PROFILE/bench` and of `target/PROFILE/deps/it-1234`.
fn profile_dir(executable: &Path) -> Option<&Path> {
    let dir = executable.parent()?;
    if is_test(executable) { dir.parent() } else { Some(dir) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_found_from_tests_and_programs() {
        for path in ["t/release/bench", "t/release/deps/it-0123"] {
            assert_eq!(profile_dir(Path::new(path)), Some(Path::new("t/release")));
            assert_eq!(is_test(Path::new(path)), path.contains("deps"));
        }
    }
}
