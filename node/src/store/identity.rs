//! The node's id: random, made at the first start, and kept with the data directory for good.

use std::path::Path;

use anyhow::Context;
use fulmar_broker::NodeId;

use super::{files, layout};

/// Reads the node's id from its data directory, or makes one. Creates the directory if it is absent.
///
/// # Errors
/// If the directory cannot be created or read, or the file holds no id; the text names the path.
pub fn load(data_dir: &Path) -> anyhow::Result<NodeId> {
    files::make_dir(data_dir).with_context(|| format!("node.data_dir: cannot create {}", data_dir.display()))?;
    if let Some(id) = layout::read_node_id(data_dir)? {
        return Ok(NodeId(id));
    }
    let (path, id) = (data_dir.join(layout::NODE_ID), rand::random::<u64>().max(1));
    let text = format!("{id:016x}\n");
    files::write_whole(&path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(NodeId(id))
}

/// Notes that this data directory is of a node that was removed from its cluster; `what` says which.
///
/// # Errors
/// The file cannot be written.
pub fn mark_removed(data_dir: &Path, what: &str) -> std::io::Result<()> {
    files::write_whole(&data_dir.join(layout::REMOVED), format!("{what}\n").as_bytes())
}

/// What was noted by [`mark_removed`], if anything was.
///
/// # Errors
/// The file cannot be read.
pub fn removed(data_dir: &Path) -> std::io::Result<Option<String>> {
    match std::fs::read_to_string(data_dir.join(layout::REMOVED)) {
        Ok(what) => Ok(Some(what.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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
            fs::write(dir.path().join(layout::NODE_ID), text).unwrap();
            let error = load(dir.path());
            if text == "00000000000000000001" {
                assert_eq!(error.unwrap(), NodeId(1));
            } else {
                assert!(format!("{:#}", error.unwrap_err()).contains("node-id"), "{text}");
            }
        }
    }
}
