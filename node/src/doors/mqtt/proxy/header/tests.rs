use proptest::prelude::*;

use super::*;

/// A header of version 2.
fn binary(version_command: u8, family_protocol: u8, block: &[u8]) -> Vec<u8> {
    let len = u16::try_from(block.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE, &[version_command, family_protocol], &len, block].concat()
}

fn value(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], &u16::try_from(value.len()).unwrap().to_be_bytes()[..], value].concat()
}

const V4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 0x04, 0x07, 0x5b];

fn v6() -> Vec<u8> {
    let address = |last: u8| [&[0x20, 0x01, 0x0d, 0xb8][..], &[0; 11], &[last]].concat();
    [address(1), address(2), vec![0xdc, 0x04, 0x07, 0x5b]].concat()
}

fn source(bytes: &[u8]) -> Option<String> {
    match look(bytes).unwrap() {
        Seen::Header { len, source } => {
            assert_eq!(len, bytes.len());
            source.map(|source| source.to_string())
        }
        other => panic!("{other:?} of {bytes:?}"),
    }
}

#[test]
fn version_1_names_the_client() {
    let longest =
        "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_eq!(longest.len(), V1_BYTES_MAX);
    for (line, client) in [
        ("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", Some("192.168.0.1:56324")),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Some("255.255.255.255:65535")),
        ("PROXY TCP4 1.2.3.4 0.0.0.0 0 0\r\n", Some("1.2.3.4:0")),
        ("PROXY TCP6 2001:db8::1 2001:DB8::2 1 2\r\n", Some("[2001:db8::1]:1")),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", Some("[::ffff:192.0.2.1]:1")),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN what ever\r\n", None),
        (longest, None),
    ] {
        assert_eq!(source(line.as_bytes()).as_deref(), client, "{line:?}");
    }
}

#[test]
fn version_1_is_taken_by_the_letter() {
    for line in [
        "PROXY\r\n",
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 1.2.3.4\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 1 2 \r\n",
        "PROXY  TCP4 1.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY TCP4  1.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY\tTCP4 1.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY tcp4 1.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY TCP5 1.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY TCP4 01.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY TCP4 1.2.3 1.2.3.5 1 2\r\n",
        "PROXY TCP4 1.2.3.256 1.2.3.5 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 01 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 1 -2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 1 2\n\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 1 2\r\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXYTCP4 1.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY TCP4 é 1.2.3.5 1 2\r\n",
    ] {
        assert!(look(line.as_bytes()).is_err(), "{line:?}");
    }
    assert!(look(b"PROXY \xff\r\n").is_err());
    let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; V1_BYTES_MAX]].concat();
    assert_eq!(look(&endless[..V1_BYTES_MAX - 1]), Ok(Seen::Part));
    assert_eq!(look(&endless[..V1_BYTES_MAX]), Err(Malformed("a line that does not end")));
    let late = [&endless[..V1_BYTES_MAX - 1], b"\r\n"].concat();
    assert!(look(&late).is_err(), "an end beyond the bound");
}

#[test]
fn version_2_names_the_client() {
    let values = [value(0x04, b""), value(0x05, b"id"), value(0xe0, &[0; 300])].concat();
    for (bytes, client) in [
        (binary(0x21, 0x11, &V4), Some("192.0.2.1:56324")),
        (binary(0x21, 0x21, &v6()), Some("[2001:db8::1]:56324")),
        (binary(0x21, 0x11, &[&V4[..], &values].concat()), Some("192.0.2.1:56324")),
        (binary(0x21, 0x21, &[v6(), values.clone()].concat()), Some("[2001:db8::1]:56324")),
        // Datagrams, local sockets and what is not said.
        (binary(0x21, 0x12, &V4), None),
        (binary(0x21, 0x22, &v6()), None),
        (binary(0x21, 0x31, &[b'/'; 216]), None),
        (binary(0x21, 0x32, &[b'/'; 216]), None),
        (binary(0x21, 0x00, &[]), None),
        (binary(0x21, 0x00, &values), None),
        (binary(0x21, 0x10, &V4), None),
        (binary(0x21, 0x01, &[]), None),
        // For itself: whatever else it says.
        (binary(0x20, 0x00, &[]), None),
        (binary(0x20, 0x11, &V4), None),
        (binary(0x20, 0xff, b"anything"), None),
        (binary(0x20, 0x00, &[0; HEADER_BYTES_MAX - V2_FIXED_BYTES]), None),
    ] {
        assert_eq!(source(&bytes).as_deref(), client, "{bytes:?}");
    }
}

#[test]
fn version_2_is_taken_by_the_letter() {
    for (bytes, why) in [
        (binary(0x11, 0x11, &V4), "an unknown version or command"),
        (binary(0x31, 0x11, &V4), "an unknown version or command"),
        (binary(0x22, 0x11, &V4), "an unknown version or command"),
        (binary(0x21, 0x41, &V4), "an unknown address family or protocol"),
        (binary(0x21, 0x13, &V4), "an unknown address family or protocol"),
        (binary(0x21, 0x11, &V4[..11]), "fewer bytes than its addresses take"),
        (binary(0x21, 0x21, &v6()[..35]), "fewer bytes than its addresses take"),
        (binary(0x21, 0x31, &[0; 215]), "fewer bytes than its addresses take"),
        (binary(0x21, 0x11, &[&V4[..], &[4, 0]].concat()), "a value that is cut off"),
        (binary(0x21, 0x11, &[&V4[..], &[4, 0, 2, 0]].concat()), "a value that is cut off"),
        (binary(0x21, 0x11, &[&V4[..], &value(CRC32C, &[0; 3])].concat()), "a checksum of a wrong length"),
        (binary(0x21, 0x11, &[&V4[..], &value(CRC32C, &[0; 4])].concat()), "a wrong checksum"),
        (binary(0x20, 0x00, &[0; HEADER_BYTES_MAX - V2_FIXED_BYTES + 1]), "too many bytes"),
    ] {
        assert_eq!(look(&bytes), Err(Malformed(why)), "{bytes:?}");
    }
    // Refused by its fixed part, before the rest has come.
    assert!(look(&[V2_SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat()).is_err());
}

#[test]
fn a_checksum_is_that_of_the_header_without_it() {
    assert_eq!(crc32c(b"123456789".iter()), 0xe306_9283, "the check value of CRC-32C");
    let with = |sum: [u8; 4]| {
        binary(0x21, 0x11, &[&V4[..], &value(1, b"mqtt"), &value(CRC32C, &sum), &value(4, b"pad")].concat())
    };
    let sum = crc32c(with([0; 4]).iter()).to_be_bytes();
    assert_eq!(source(&with(sum)).as_deref(), Some("192.0.2.1:56324"));
    let mut changed = with(sum);
    changed[16] ^= 1;
    assert_eq!(look(&changed), Err(Malformed("a wrong checksum")));
}

#[test]
fn what_clients_send_is_told_from_headers() {
    for first in
        [&b"\x10"[..], b"\x16\x03\x01", b"GET / HTTP/1.1", b"PUT /", b"POST /", b"PATCH /", b"PROPFIND /", b"\r\nGET"]
    {
        assert_eq!(look(first), Ok(Seen::Nothing), "{first:?}");
    }
    for first in [&b""[..], b"P", b"PRO", b"PROXY", b"\r", b"\r\n\r\n\0\r\nQUIT"] {
        assert_eq!(look(first), Ok(Seen::Part), "{first:?}");
    }
}

/// Headers of both versions, in every form that is right.
fn headers() -> impl Strategy<Value = (Vec<u8>, Option<SocketAddr>)> {
    let client = prop_oneof![
        (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port))),
        (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port))),
    ];
    let values = prop::collection::vec((4u8.., prop::collection::vec(any::<u8>(), 0..40)), 0..5);
    (client, values, 0..4).prop_map(|(client, values, form)| {
        let values: Vec<u8> = values.into_iter().flat_map(|(kind, bytes)| value(kind, &bytes)).collect();
        let port = client.port().to_be_bytes();
        let (word, family, ip) = match client.ip() {
            IpAddr::V4(ip) => ("TCP4", 0x11, ip.octets().to_vec()),
            IpAddr::V6(ip) => ("TCP6", 0x21, ip.octets().to_vec()),
        };
        match form {
            0 => {
                let line = format!("PROXY {word} {0} {0} {1} 1883\r\n", client.ip(), client.port());
                (line.into_bytes(), Some(client))
            }
            1 => (b"PROXY UNKNOWN\r\n".to_vec(), None),
            2 => (binary(0x21, family, &[ip.clone(), ip, port.to_vec(), vec![7, 0x5b], values].concat()), Some(client)),
            _ => (binary(0x20, 0, &values), None),
        }
    })
}

proptest! {
    #[test]
    fn a_header_is_known_at_its_last_byte((bytes, client) in headers(), behind in prop::collection::vec(any::<u8>(), 0..50)) {
        for cut in 0..bytes.len() {
            prop_assert_eq!(look(&bytes[..cut]), Ok(Seen::Part), "cut at {}", cut);
        }
        let all = [&bytes[..], &behind].concat();
        prop_assert_eq!(look(&all), Ok(Seen::Header { len: bytes.len(), source: client }));
    }

    #[test]
    fn no_bytes_make_it_panic_or_read_too_far(which in 0..3, bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let bytes = match which {
            0 => bytes,
            1 => [V1_SIGNATURE, &bytes].concat(),
            _ => [V2_SIGNATURE, &[0x21], &bytes].concat(),
        };
        if let Ok(Seen::Header { len, .. }) = look(&bytes) {
            prop_assert!(len <= bytes.len());
            prop_assert_eq!(look(&bytes[..len]), look(&bytes));
        }
    }

    #[test]
    fn a_changed_header_is_never_longer_than_what_came((mut bytes, _) in headers(), at in any::<prop::sample::Index>(), byte: u8) {
        let at = at.index(bytes.len());
        bytes[at] = byte;
        match look(&bytes) {
            Ok(Seen::Header { len, .. }) => prop_assert!(len <= bytes.len()),
            Ok(Seen::Part | Seen::Nothing) | Err(_) => {}
        }
    }
}
