use super::*;

fn head() -> SnapshotHead {
    SnapshotHead {
        term: 3,
        leader: u64::MAX,
        index: 70_000,
        membership: Bytes::from_static(b"who takes part"),
        membership_position: Some((1, 2, 3)),
        cluster: 9,
    }
}

fn write(snapshots: &Snapshots, head: &SnapshotHead, records: &[&[u8]]) -> SnapshotFile {
    let mut writer = snapshots.create(head).unwrap();
    records.iter().for_each(|record| writer.write(record).unwrap());
    writer.finish().unwrap()
}

fn read(path: &Path) -> Result<Vec<Bytes>, SnapshotError> {
    let mut reader = SnapshotReader::open(path)?;
    let mut records = Vec::new();
    while let Some(record) = reader.next()? {
        records.push(record);
    }
    assert!(reader.next().unwrap().is_none(), "the end is the end");
    Ok(records)
}

fn snapshots() -> (tempfile::TempDir, Snapshots) {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(dir.path().join("a/b")).unwrap();
    (dir, snapshots)
}

fn names(snapshots: &Snapshots) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(snapshots.dir()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Chunks of a file with their headers; the preamble is the first.
fn pieces(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (preamble, mut rest) = bytes.split_at(PREAMBLE_BYTES);
    let mut pieces = vec![preamble.to_vec()];
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[5..9].try_into().unwrap()) as usize;
        let (piece, after) = rest.split_at(CHUNK_HEADER_BYTES + length);
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces
}

fn damage_of(path: &Path, bytes: &[u8]) -> Option<String> {
    fs::write(path, bytes).unwrap();
    match read(path) {
        Err(error @ SnapshotError::Damaged { .. }) => {
            let text = error.to_string();
            assert!(text.starts_with(&format!("{}, offset ", path.display())), "{text}");
            Some(text)
        }
        Ok(_) => None,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn records_come_back_in_their_order() {
    let (_dir, snapshots) = snapshots();
    let (large, largest) = (vec![7; CHUNK_BYTES], vec![8; RECORD_BYTES_MAX]);
    let small: Vec<Vec<u8>> = (0..50_000_u32).map(|number| number.to_be_bytes().repeat(5)).collect();
    let mut records: Vec<&[u8]> = vec![b"", b"a", &large, b"", &largest, &large];
    records.extend(small.iter().map(Vec::as_slice));
    for (head, records) in [(head(), &records[..]), (SnapshotHead::default(), &[])] {
        let file = write(&snapshots, &head, records);
        assert_eq!((file.term, file.index), (head.term, head.index));
        assert_eq!(file.bytes, fs::metadata(&file.path).unwrap().len());
        assert_eq!(SnapshotReader::open(&file.path).unwrap().head(), &head);
        assert_eq!(verify_file(&file.path).unwrap(), head);
        assert_eq!(read(&file.path).unwrap(), records);
    }
    let mut writer = snapshots.create(&head()).unwrap();
    assert!(writer.write(&vec![0; RECORD_BYTES_MAX + 1]).is_err());
}

#[test]
fn every_flipped_bit_every_cut_and_every_tail_is_damage() {
    let (_dir, snapshots) = snapshots();
    let file = write(&snapshots, &head(), &[b"one", b"", b"three"]);
    let bytes = fs::read(&file.path).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(damage_of(&file.path, &damaged).is_some(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        assert!(damage_of(&file.path, &bytes[..length]).is_some(), "cut to {length}");
    }
    for tail in [&[0][..], &bytes[..], &pieces(&bytes)[2]] {
        assert!(damage_of(&file.path, &[&bytes, tail].concat()).unwrap().contains("goes on after its end"));
    }
    assert!(damage_of(&file.path, &bytes).is_none());
}

#[test]
fn chunks_that_are_swapped_repeated_or_left_out_are_damage() {
    let (_dir, snapshots) = snapshots();
    let (one, two) = (vec![1; CHUNK_BYTES - 100], vec![2; CHUNK_BYTES - 100]);
    let file = write(&snapshots, &head(), &[&one, &two, &one]);
    let whole = pieces(&fs::read(&file.path).unwrap());
    assert_eq!(whole.len(), 6, "preamble, head, three chunks of records, end");
    let mut orders = Vec::new();
    for at in 0..whole.len() {
        for other in 0..at {
            let mut order: Vec<usize> = (0..whole.len()).collect();
            order.swap(at, other);
            orders.push(order);
        }
        orders.push((0..whole.len()).filter(|piece| *piece != at).collect());
        orders.push((0..whole.len()).flat_map(|piece| vec![piece; 1 + usize::from(piece == at)]).collect());
    }
    for order in orders {
        let bytes: Vec<u8> = order.iter().flat_map(|at| whole[*at].clone()).collect();
        assert!(damage_of(&file.path, &bytes).is_some(), "{order:?}");
    }
}

/// What a chunk says of itself is checked also where its CRC is right.
#[test]
fn chunks_with_a_right_crc_are_still_checked() {
    let (_dir, snapshots) = snapshots();
    let file = write(&snapshots, &head(), &[b"one"]);
    let whole = pieces(&fs::read(&file.path).unwrap());
    let chunk = |number: u64, kind: u8, length: u32, content: &[u8]| {
        let crc = chunk_crc(number, &[&[kind], &length.to_le_bytes(), content]);
        [&crc.to_le_bytes()[..], &[kind], &length.to_le_bytes(), content].concat()
    };
    let record = |content: &[u8]| chunk(1, kind::RECORDS, content.len() as u32, content);
    let end = whole[3].clone();
    for (head, middle, last, wanted) in [
        (whole[1].clone(), record(&[4, 0, 0, 0, 1]), end.clone(), "a record does not fit"),
        (whole[1].clone(), record(&[0, 0, 0]), end.clone(), "a record does not fit"),
        (whole[1].clone(), record(&[]), end.clone(), "a chunk of kind 2 has no place"),
        (whole[1].clone(), record(&[3, 0, 0, 0, 1, 2, 3, 0, 0, 0, 0]), end.clone(), "the end of another file"),
        (whole[1].clone(), chunk(1, 9, 0, &[]), end.clone(), "a chunk of kind 9"),
        (whole[1].clone(), chunk(1, kind::HEAD, 0, &[]), end.clone(), "a chunk of kind 1"),
        (whole[1].clone(), chunk(1, kind::RECORDS, u32::MAX, &[]), end.clone(), "more than there can be"),
        (whole[1].clone(), chunk(1, kind::RECORDS, CONTENT_BYTES_MAX as u32, &[]), end, "more than there can be"),
        (whole[1].clone(), whole[2].clone(), chunk(2, kind::END, 1, &[0]), "not the end of a snapshot"),
        (whole[1].clone(), whole[2].clone(), chunk(2, kind::END, 20, &[0; 20]), "the end of another file"),
        (chunk(0, kind::HEAD, 3, b"abc"), vec![], vec![], "not the head"),
        (chunk(0, kind::RECORDS, 99, &[0; 99]), vec![], vec![], "not the head"),
    ] {
        let found = damage_of(&file.path, &[whole[0].clone(), head, middle, last].concat()).unwrap();
        assert!(found.contains(wanted), "{found}, wanted {wanted}");
    }
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let (_dir, snapshots) = snapshots();
    let path = snapshots.dir().join("x");
    let preamble = |version: u32| {
        let fields = [&MAGIC[..], &version.to_le_bytes()].concat();
        [&fields[..], &crc32fast::hash(&fields).to_le_bytes(), b"anything"].concat()
    };
    fs::write(&path, preamble(VERSION + 1)).unwrap();
    let error = verify_file(&path).unwrap_err();
    assert!(matches!(&error, SnapshotError::Newer { file, version: 2 } if *file == path), "{error}");
    assert!(error.to_string().contains("version 2; this release reads versions up to 1"), "{error}");
    assert!(damage_of(&path, &preamble(0)).unwrap().contains("has version 0"));
    assert!(matches!(verify_file(&snapshots.dir().join("y")), Err(SnapshotError::Io { .. })));
}

#[test]
fn the_newest_come_first_and_stay() {
    let (_dir, snapshots) = snapshots();
    for (index, term) in [(9, 1), (10, 1), (10, 2), (2, 3)] {
        write(&snapshots, &SnapshotHead { index, term, ..head() }, &[]);
    }
    for name in ["notes", "12.snapshot", "000000000000000A-0000000000000001.snapshot"] {
        fs::write(snapshots.dir().join(name), b"").unwrap();
    }
    let list = || snapshots.list().unwrap().iter().map(|file| (file.index, file.term)).collect::<Vec<_>>();
    assert_eq!(list(), [(10, 2), (10, 1), (9, 1), (2, 3)]);
    snapshots.prune(5).unwrap();
    assert_eq!(list().len(), 4);
    snapshots.prune(2).unwrap();
    assert_eq!(list(), [(10, 2), (10, 1)]);
    snapshots.prune(0).unwrap();
    assert_eq!(list(), [(10, 2)], "one always stays");
    assert_eq!(names(&snapshots).len(), 4, "what is no snapshot is let alone");
}

#[test]
fn an_unfinished_one_leaves_nothing() {
    let (_dir, snapshots) = snapshots();
    let mut writer = snapshots.create(&head()).unwrap();
    writer.write(b"record").unwrap();
    assert!(snapshots.create(&head()).is_err(), "one writer at a time");
    assert_eq!(names(&snapshots).len(), 1);
    assert!(snapshots.list().unwrap().is_empty());
    drop(writer);
    assert!(names(&snapshots).is_empty());

    let path = write(&snapshots, &head(), &[b"one"]).path;
    write(&snapshots, &head(), &[b"two"]);
    assert_eq!(read(&path).unwrap(), ["two"], "replaced");
    fs::write(path.with_extension("snapshot.tmp"), b"left by a process that was killed").unwrap();
    let again = Snapshots::open(snapshots.dir().to_owned()).unwrap();
    assert_eq!(names(&again).len(), 1);
}

#[test]
fn a_received_one_is_as_if_written_here() {
    let (_dir, here) = snapshots();
    let (_other, there) = snapshots();
    let sent = fs::read(write(&there, &head(), &[b"one", b"two"]).path).unwrap();
    let (length, crc) = (sent.len() as u64, crc32fast::hash);
    let (front, back) = sent.split_at(50);
    let all = |_: &SnapshotHead| Ok(());

    let mut receiving = here.receive(length).unwrap();
    let mut second = here.receive(length).unwrap();
    assert_eq!(names(&here).len(), 2, "two at a time do not meet");
    receiving.write(0, crc(front), front).unwrap();
    assert!(receiving.write(49, crc(back), back).is_err(), "not the next");
    assert!(receiving.write(50, crc(front), back).is_err(), "not what was sent");
    receiving.write(50, crc(back), back).unwrap();
    assert!(receiving.write(length, crc(front), front).is_err(), "more than there is");
    let (found, file) = receiving.finish(all).unwrap();
    assert_eq!((found, file.bytes), (head(), length));
    assert_eq!(here.list().unwrap(), std::slice::from_ref(&file));
    assert_eq!(read(&file.path).unwrap(), ["one", "two"]);

    second.write(0, crc(front), front).unwrap();
    assert!(second.finish(all).is_err(), "not all of it");
    let mut refused = here.receive(length).unwrap();
    refused.write(0, crc(&sent), &sent).unwrap();
    let Err(SnapshotError::Damaged { what, .. }) = refused.finish(|_| Err("is unwanted".into())) else { panic!() };
    assert_eq!(what, "is unwanted");
    drop(here.receive(u64::MAX).unwrap());
    assert_eq!(names(&here).len(), 1);

    fs::write(here.dir().join("received-0.tmp"), b"left by a process that was killed").unwrap();
    let here = Snapshots::open(here.dir().to_owned()).unwrap();
    assert_eq!(names(&here).len(), 1);
}
