//! The node's id: random, made at the first start, and kept with the data directory for good.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, ensure};
use fulmar_broker::NodeId;

const FILE: &str = "node-id";

/// Reads the node's id from its data directory, or makes one. Creates the directory if it is absent.
///
/// # Errors
/// If the directory cannot be created or read, or the file holds no id; the text names the path.
pub fn load(data_dir: &Path) -> anyhow::Result<NodeId> {
    fs::create_dir_all(data_dir).with_context(|| format!("node.data_dir: cannot create {}", data_dir.display()))?;
    let path = data_dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let id =
                u64::from_str_radix(text.trim(), 16).with_context(|| format!("{} holds no node id", path.display()))?;
            ensure!(id != 0, "{} holds the node id 0, which no node has", path.display());
            Ok(NodeId(id))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let id = rand::random::<u64>().max(1);
            create(data_dir, &path, id).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(NodeId(id))
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Written beside, synced and renamed, so that the file is there whole or not at all.
fn create(data_dir: &Path, path: &Path, id: u64) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    writeln!(file, "{id:016x}")?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(data_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("a/b");
        let id = load(&data_dir).unwrap();
        assert_ne!(id, NodeId(0));
        assert_eq!(load(&data_dir).unwrap(), id);
    }

    #[test]
    fn a_file_without_an_id_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "zz", "0", "00000000000000000001"] {
            fs::write(dir.path().join(FILE), text).unwrap();
            let error = load(dir.path());
            if text == "00000000000000000001" {
                assert_eq!(error.unwrap(), NodeId(1));
            } else {
                assert!(format!("{:#}", error.unwrap_err()).contains("node-id"), "{text}");
            }
        }
    }
}
