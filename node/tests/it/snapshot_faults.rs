//! Snapshots whose writing fails half-way.

use bytes::Bytes;
use fail::FailScenario;
use fulmar::store::snapshots::{SnapshotHead, SnapshotReader, Snapshots};

/// Records of about two chunks, so that the first is written before the end.
fn write(snapshots: &Snapshots, index: u64) -> std::io::Result<()> {
    let mut writer = snapshots.create(&SnapshotHead { index, ..SnapshotHead::default() })?;
    for _ in 0..2 {
        writer.write(&[7; 200_000])?;
    }
    writer.finish().map(drop)
}

#[test]
fn a_failure_leaves_the_snapshot_before_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(dir.path().to_owned()).unwrap();
    let scenario = FailScenario::setup();
    write(&snapshots, 1).unwrap();
    for point in ["snapshot::half_written", "snapshot::before_rename"] {
        fail::cfg(point, "return").unwrap();
        write(&snapshots, 2).unwrap_err();
        fail::remove(point);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "{point}");
        let left = snapshots.list().unwrap();
        assert_eq!(left.iter().map(|file| file.index).collect::<Vec<_>>(), [1], "{point}");
        let mut reader = SnapshotReader::open(&left[0].path).unwrap();
        assert_eq!(reader.next().unwrap(), Some(Bytes::from(vec![7; 200_000])));
    }
    write(&snapshots, 2).unwrap();
    assert_eq!(snapshots.list().unwrap().len(), 2);
    scenario.teardown();
}
