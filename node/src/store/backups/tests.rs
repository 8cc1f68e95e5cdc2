use super::*;

fn records() -> Vec<Vec<u8>> {
    let sizes = [0, 1, 300, CHUNK_BYTES, 5, CHUNK_BYTES + 7, 9];
    sizes.iter().zip(1..).map(|(size, fill)| vec![fill; *size]).collect()
}

fn file(records: &[Vec<u8>]) -> (Vec<u8>, End) {
    let mut writer = Writer::begin(Vec::new(), b"head").unwrap();
    records.iter().for_each(|record| writer.write(record).unwrap());
    writer.finish().unwrap()
}

fn read(file: &[u8]) -> Result<(Bytes, Vec<Vec<u8>>, End), BackupError> {
    let mut reader = Reader::open(file)?;
    let mut records = Vec::new();
    while let Some(record) = reader.next()? {
        records.push(record.to_vec());
    }
    Ok((reader.head(), records, reader.end().cloned().unwrap()))
}

#[test]
fn what_is_written_is_read() {
    for records in [Vec::new(), records()] {
        let (file, end) = file(&records);
        assert_eq!((end.records, end.bytes), (records.len() as u64, file.len() as u64));
        let (head, found, said) = read(&file).unwrap();
        assert_eq!((&*head, found), (&b"head"[..], records));
        assert_eq!(said, end);
        assert_eq!(said.digest().len(), 64);
    }
    let mut writer = Writer::begin(Vec::new(), b"").unwrap();
    assert!(writer.write(&vec![0; RECORD_BYTES_MAX + 1]).is_err());
}

/// A byte changed anywhere, a file cut anywhere, and one that goes on are refused.
#[test]
fn any_other_file_is_refused() {
    let (file, _) = file(&[vec![7; 20], vec![8; 30]]);
    for at in 0..file.len() {
        for flip in [1, 0x80, 0xff] {
            let mut changed = file.clone();
            changed[at] ^= flip;
            assert!(read(&changed).is_err(), "byte {at} of {}", file.len());
        }
        let error = read(&file[..at]).unwrap_err().to_string();
        assert!(error.contains("ends too early"), "cut at {at}: {error}");
    }
    let error = read(&[file.as_slice(), b"x"].concat()).unwrap_err().to_string();
    assert!(error.contains("goes on after its end"), "{error}");
}

/// Chunks are numbered, and the end knows the whole: neither may be exchanged between files that are good by themselves.
#[test]
fn pieces_of_other_files_are_noticed() {
    let ((one, _), (other, _)) = (file(&[vec![1; 20]]), file(&[vec![2; 20]]));
    let end = one.len() - 57;
    let mixed = [&one[..end], &other[end..]].concat();
    let error = read(&mixed).unwrap_err().to_string();
    assert!(error.contains("the end of another file"), "{error}");
    let head = PREAMBLE_BYTES + CHUNK_HEADER_BYTES + 4;
    let twice = [&one[..end], &one[head..]].concat();
    let error = read(&twice).unwrap_err().to_string();
    assert!(error.contains("fails its CRC"), "{error}");
}

#[test]
fn a_newer_form_is_named() {
    let mut preamble = Vec::new();
    preamble.put_slice(MAGIC);
    preamble.put_u32_le(VERSION + 1);
    preamble.put_u32_le(crc32fast::hash(&preamble));
    assert!(matches!(check_preamble(&preamble), Err(BackupError::Newer(2))));
    assert!(check_preamble(b"FULMSNAP").is_err());
}
