//! Contexts: clusters that `fulmar ctl` knows by name, in a file that only its owner may read. `fulmar dev` writes one too.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::failure::Failure;

/// Names the file, whatever there is elsewhere.
const FILE_VARIABLE: &str = "FULMAR_CONFIG";

/// Whom to ask, and with what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Context {
    /// host:port of the nodes' admin doors; the first that answers is asked.
    pub(in crate::cli) addresses: Vec<String>,
    /// PEM file of the authorities that sign the doors' certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) ca: Option<PathBuf>,
    /// Certificate to show, and its key, as PEM files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) cert: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) token: Option<String>,
    /// File that holds it on its first line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) token_file: Option<PathBuf>,
    /// The token may be sent to another machine without TLS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::cli) plaintext: bool,
}

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Contexts {
    /// The context that holds unless another is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) current: Option<String>,
    #[serde(default)]
    pub(in crate::cli) context: BTreeMap<String, Context>,
}

/// Where the file is: `$FULMAR_CONFIG`, else `fulmar/config.toml` in `$XDG_CONFIG_HOME` or `~/.config`.
///
/// # Errors
/// There is no home.
pub(in crate::cli) fn path(environment: impl Fn(&str) -> Option<String>) -> Result<PathBuf, Failure> {
    let named = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = named(FILE_VARIABLE) {
        return Ok(file);
    }
    let config = named("XDG_CONFIG_HOME").or_else(|| named("HOME").map(|home| home.join(".config")));
    config
        .map(|config| config.join("fulmar/config.toml"))
        .ok_or_else(|| Failure::usage(format!("no home to keep contexts in: name a file in {FILE_VARIABLE}")))
}

impl Contexts {
    /// Those of a file; none if it is not there.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub(in crate::cli) fn load(path: &Path) -> Result<Contexts, Failure> {
        match fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|error| Failure::usage(format!("{}: {}", path.display(), error.to_string().trim_end()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Contexts::default()),
            Err(error) => Err(Failure::usage(format!("{}: {error}", path.display()))),
        }
    }

    /// Writes them, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub(in crate::cli) fn save(&self, path: &Path) -> Result<(), Failure> {
        let failed =
            |error: &dyn std::fmt::Display| Failure::refused(format!("cannot write {}: {error}", path.display()));
        let text = toml::to_string(self).map_err(|error| failed(&error))?;
        let write = || -> std::io::Result<()> {
            if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
                fs::create_dir_all(dir)?;
            }
            let beside = path.with_extension(format!("{}.tmp", std::process::id()));
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&beside, path)
        };
        write().map_err(|error| failed(&error))
    }

    /// The context of a name, or the current one; `None` if none was named and none is current.
    ///
    /// # Errors
    /// There is none of that name.
    pub(in crate::cli) fn find(&self, name: Option<&str>) -> Result<Option<&Context>, Failure> {
        let Some(name) = name.or(self.current.as_deref()) else { return Ok(None) };
        let known = || match self.context.is_empty() {
            true => "there are none: `fulmar ctl config set-context` makes one".to_owned(),
            false => format!("there are {}", self.context.keys().cloned().collect::<Vec<_>>().join(", ")),
        };
        self.context
            .get(name)
            .map(Some)
            .ok_or_else(|| Failure::usage(format!("there is no context {name}; {}", known())))
    }
}

/// The context that `fulmar dev` keeps.
const OF_DEV: &str = "dev";

/// Has `fulmar ctl` find these nodes, unless somebody has chosen another context.
///
/// # Errors
/// The file cannot be read or written.
pub(in crate::cli) fn enter_dev(path: &Path, context: Context) -> Result<(), Failure> {
    let mut contexts = Contexts::load(path)?;
    contexts.context.insert(OF_DEV.to_owned(), context);
    contexts.current.get_or_insert_with(|| OF_DEV.to_owned());
    contexts.save(path)
}

/// Forgets these nodes, unless others have taken their place meanwhile.
///
/// # Errors
/// The file cannot be read or written.
pub(in crate::cli) fn leave_dev(path: &Path, context: &Context) -> Result<(), Failure> {
    let mut contexts = Contexts::load(path)?;
    if contexts.context.get(OF_DEV) != Some(context) {
        return Ok(());
    }
    contexts.context.remove(OF_DEV);
    if contexts.current.as_deref() == Some(OF_DEV) {
        contexts.current = None;
    }
    contexts.save(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_is_where_people_look_for_it() {
        let found = |set: &[(&str, &str)]| {
            let find = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            path(find).map(|path| path.display().to_string()).map_err(|failure| failure.code)
        };
        let home = ("HOME", "/home/a");
        assert_eq!(found(&[home]), Ok("/home/a/.config/fulmar/config.toml".to_owned()));
        assert_eq!(found(&[home, ("XDG_CONFIG_HOME", "/c")]), Ok("/c/fulmar/config.toml".to_owned()));
        assert_eq!(found(&[home, ("FULMAR_CONFIG", "/f.toml")]), Ok("/f.toml".to_owned()));
        assert_eq!(found(&[("HOME", "")]), Err(2));
    }

    #[test]
    fn what_is_written_is_read_and_only_its_owner_may() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("new/config.toml");
        assert_eq!(Contexts::load(&path), Ok(Contexts::default()));
        let context =
            Context { addresses: vec!["a:1".into(), "b:2".into()], token: Some("t".into()), ..Context::default() };
        let contexts = Contexts { current: Some("x".into()), context: BTreeMap::from([("x".into(), context.clone())]) };
        contexts.save(&path).expect("written");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let read = Contexts::load(&path).expect("contexts");
        assert_eq!((read.find(None), &read), (Ok(Some(&context)), &contexts));
        let failure = read.find(Some("y")).expect_err("no such context");
        assert_eq!((failure.code, &*failure.text), (2, "there is no context y; there are x"));
        fs::write(&path, "current = 'x'\nsurplus = 1\n").expect("written");
        let failure = Contexts::load(&path).expect_err("an unknown key");
        assert!(failure.code == 2 && failure.text.contains("surplus"), "{failure}");
    }

    #[test]
    fn dev_takes_nobodys_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.toml");
        let of = |address: &str| Context { addresses: vec![address.into()], ..Context::default() };
        let current = || Contexts::load(&path).expect("contexts").current;
        enter_dev(&path, of("a:1")).expect("entered");
        assert_eq!(current().as_deref(), Some("dev"));
        enter_dev(&path, of("b:1")).expect("entered");
        leave_dev(&path, &of("a:1")).expect("another has taken its place");
        assert_eq!(Contexts::load(&path).expect("contexts").find(None), Ok(Some(&of("b:1"))));
        leave_dev(&path, &of("b:1")).expect("left");
        assert_eq!(Contexts::load(&path), Ok(Contexts::default()));
        let mine = Contexts { current: Some("mine".into()), context: BTreeMap::from([("mine".into(), of("c:1"))]) };
        mine.save(&path).expect("written");
        enter_dev(&path, of("a:1")).expect("entered");
        assert_eq!(current().as_deref(), Some("mine"));
        leave_dev(&path, &of("a:1")).expect("left");
        assert_eq!(Contexts::load(&path), Ok(mine));
    }
}
