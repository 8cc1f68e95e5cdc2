//! Real members over real sockets: replication, a member that comes back, snapshots, and who is refused.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use bytes::Bytes;
use fulmar_proto::peer::v1 as peer;
use fulmar_proto::raft::v1 as wire;
use tempfile::TempDir;
use tonic::Code;

use crate::cluster::peers::{Peers, resolve};
use crate::cluster::raft::Member;
use crate::config::tls::TlsPaths;
use crate::tls::{Purpose, Tls};

use super::members::{CLUSTER, DEADLINE, Node, append, dirs, leads, retain, up};

#[tokio::test(flavor = "multi_thread")]
async fn three_replicate_and_one_that_was_away_catches_up() {
    let dirs: [TempDir; 3] = dirs();
    let [one, two, three] = [
        Node::start(1, dirs[0].path(), None).await,
        Node::start(2, dirs[1].path(), None).await,
        Node::start(3, dirs[2].path(), None).await,
    ];
    let members: BTreeMap<u64, Member> = [&one, &two, &three].map(|node| (node.id, node.member())).into();
    one.raft.initialize(members).await.expect("a new cluster");
    leads(&one).await;
    one.write(1, up()).await;
    let index = one.write(2, retain(2, 100)).await;
    for node in [&two, &three] {
        node.applies(index).await;
        assert_eq!(node.image(), one.image());
        assert!(node.contact.age() < DEADLINE);
    }
    three.stop().await;
    // More than one message holds.
    let mut index = index;
    for seq in 3..12 {
        index = one.write(seq, retain(seq, 400 << 10)).await;
    }
    two.applies(index).await;
    let three = Node::start(3, dirs[2].path(), None).await;
    for node in [&one, &two] {
        node.peers.set_address(3, &three.address.to_string());
    }
    let began = Instant::now();
    three.applies(index).await;
    assert_eq!(three.image(), one.image());
    tracing::info!(took = ?began.elapsed(), "caught up");
    for node in [one, two, three] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_that_lags_is_sent_a_snapshot_and_keeps_it() {
    let dirs: [TempDir; 2] = dirs();
    let one = Node::start(1, dirs[0].path(), None).await;
    one.raft.initialize(BTreeMap::from([(1, one.member())])).await.expect("a new cluster");
    leads(&one).await;
    one.write(1, up()).await;
    let mut index = 0;
    for seq in 2..20 {
        index = one.write(seq, retain(seq, 100 << 10)).await;
    }
    one.applies(index).await;
    let file = one.snapshot().await;
    assert_eq!(file.index, index);
    one.raft.trigger().purge_log(index).await.expect("Raft runs");
    let by = Instant::now() + DEADLINE;
    while one.log.purged().is_none() {
        assert!(Instant::now() < by, "{:?}", one.raft.metrics().borrow());
        tokio::task::yield_now().await;
    }

    let two = Node::start(2, dirs[1].path(), None).await;
    one.raft.add_learner(2, two.member(), true).await.expect("a learner");
    let index = one.write(20, retain(20, 10)).await;
    two.applies(index).await;
    assert_eq!(two.image(), one.image());
    assert_eq!(two.files(), one.files(), "the snapshot itself, and nothing else");
    let bytes = |node: &Node| std::fs::read(&node.snapshots.list().expect("a list")[0].path).expect("a file");
    assert_eq!(bytes(&two), bytes(&one));

    two.stop().await;
    let two = Node::start(2, dirs[1].path(), None).await;
    one.peers.set_address(2, &two.address.to_string());
    two.applies(index).await;
    assert_eq!(two.image(), one.image());
    for node in [one, two] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_for_another_are_refused() {
    let [dir] = dirs();
    let one = Node::start(1, dir.path(), None).await;
    let other = Peers::new(5, None, HashMap::new());
    other.set_cluster(CLUSTER);
    let mut client = one.reached_by(&other);
    let right = other.raft_address(1, 0);
    for (address, code) in [
        (wire::Address { cluster: CLUSTER + 1, ..right }, Code::PermissionDenied),
        (wire::Address { cluster: 0, ..right }, Code::PermissionDenied),
        (wire::Address { to: 2, ..right }, Code::PermissionDenied),
        (wire::Address { from: 1, ..right }, Code::PermissionDenied),
        (wire::Address { group: 1, ..right }, Code::NotFound),
    ] {
        assert_eq!(client.append(append(address)).await.expect_err("refused").code(), code, "{address:?}");
        let vote = Some(wire::Vote { term: 9, node: 5, committed: false });
        let vote = wire::VoteRequest { address: Some(address), vote, last: None };
        assert_eq!(client.vote(vote).await.expect_err("refused").code(), code, "{address:?}");
        let pre_vote = wire::PreVoteRequest { address: Some(address), term: 9, last: None };
        assert_eq!(client.pre_vote(pre_vote).await.expect_err("refused").code(), code, "{address:?}");
        let head = wire::SnapshotHead { address: Some(address), ..wire::SnapshotHead::default() };
        let chunk = wire::SnapshotChunk { part: Some(wire::snapshot_chunk::Part::Head(head)) };
        let refused = client.install_snapshot(tokio_stream::iter([chunk])).await.expect_err("refused");
        assert_eq!(refused.code(), code, "{address:?}");
    }
    one.peers.set_cluster(0);
    let refused = client.append(append(right)).await.expect_err("in no cluster");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    one.peers.set_cluster(CLUSTER);
    let entries = vec![Bytes::from_static(b"no entry")];
    let refused = client.append(wire::AppendRequest { entries, ..append(right) }).await.expect_err("no entry");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(one.raft.metrics().borrow().current_term, 0, "none of them reached Raft");
    let answer = client.append(append(right)).await.expect("taken").into_inner();
    assert_eq!(answer.result, Some(wire::append_response::Result::Success(true)));
    let pre_vote = wire::PreVoteRequest { address: Some(right), term: 9, last: None };
    assert!(client.pre_vote(pre_vote).await.expect("answered").into_inner().granted);
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_before_it_has_installed_a_snapshot_goes_on_from_it() {
    let dirs: [TempDir; 2] = dirs();
    let [one, two] = [Node::start(1, dirs[0].path(), None).await, Node::start(2, dirs[1].path(), None).await];
    one.raft.initialize(BTreeMap::from([(1, one.member())])).await.expect("a new cluster");
    leads(&one).await;
    one.write(1, up()).await;
    one.write(2, retain(2, 100)).await;
    let file = one.snapshot().await;
    // What another leader had begun, and never committed, reaches beyond the snapshot.
    let blank = |index| crate::cluster::raft::Entry {
        log_id: super::super::log_id(crate::store::log::Position { term: 1, leader: 0, index }),
        payload: openraft::EntryPayload::Blank,
    };
    let entries = (0..file.index + 20).map(|index| super::super::encode_entry(&blank(index)).body).collect();
    let vote = Some(wire::Vote { term: 1, node: 0, committed: true });
    let request = wire::AppendRequest { vote, entries, ..append(one.peers.raft_address(2, 0)) };
    let answer = two.reached_by(&one.peers).append(request).await.expect("taken").into_inner();
    assert_eq!(answer.result, Some(wire::append_response::Result::Success(true)));
    let snapshots = two.snapshots.dir().to_owned();
    two.stop().await;
    std::fs::copy(&file.path, snapshots.join(file.path.file_name().expect("a name"))).expect("received");

    let two = Node::start(2, dirs[1].path(), None).await;
    assert_eq!(two.image(), one.image());
    one.peers.set_address(2, &two.address.to_string());
    one.raft.add_learner(2, two.member(), true).await.expect("a learner");
    let index = one.write(3, retain(3, 100)).await;
    two.applies(index).await;
    assert_eq!(two.image(), one.image());
    for node in [one, two] {
        node.stop().await;
    }
}

/// A snapshot as it is sent: its head, then its pieces.
fn chunks(from: &Node, address: wire::Address, bytes: &[u8]) -> Vec<wire::SnapshotChunk> {
    use wire::snapshot_chunk::Part;
    let last = from.raft.metrics().borrow().snapshot.expect("a snapshot");
    let head = wire::SnapshotHead {
        address: Some(address),
        vote: Some(wire::Vote { term: 7, node: 1, committed: true }),
        last: Some(super::super::message::from_position(&last)),
        bytes: bytes.len() as u64,
        ..wire::SnapshotHead::default()
    };
    let pieces = bytes.chunks(1_000).enumerate().map(|(at, piece)| {
        let (offset, crc) = (at as u64 * 1_000, crc32fast::hash(piece));
        Part::Data(wire::SnapshotData { offset, bytes: Bytes::copy_from_slice(piece), crc })
    });
    std::iter::once(Part::Head(head)).chain(pieces).map(|part| wire::SnapshotChunk { part: Some(part) }).collect()
}

fn data(chunk: &mut wire::SnapshotChunk) -> &mut wire::SnapshotData {
    match &mut chunk.part {
        Some(wire::snapshot_chunk::Part::Data(data)) => data,
        other => panic!("no data: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_not_what_was_sent_leaves_nothing() {
    let dirs: [TempDir; 2] = dirs();
    let [one, two] = [Node::start(1, dirs[0].path(), None).await, Node::start(2, dirs[1].path(), None).await];
    one.raft.initialize(BTreeMap::from([(1, one.member())])).await.expect("a new cluster");
    leads(&one).await;
    one.write(1, up()).await;
    let index = one.write(2, retain(2, 10_000)).await;
    one.applies(index).await;
    let file = one.snapshot().await;
    assert_eq!(file.index, index);
    let whole = std::fs::read(&file.path).expect("a file");

    let mut client = two.reached_by(&one.peers);
    let address = one.peers.raft_address(2, 0);
    let good = chunks(&one, address, &whole);
    let changed = |change: &dyn Fn(&mut Vec<wire::SnapshotChunk>)| {
        let mut chunks = good.clone();
        change(&mut chunks);
        chunks
    };
    let flipped: Vec<u8> = whole.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 5_000)).collect();
    for (what, sent) in [
        ("flipped on the way", changed(&|chunks| data(&mut chunks[5]).bytes = Bytes::from(vec![1; 1_000]))),
        ("flipped before", chunks(&one, address, &flipped)),
        ("cut off", changed(&|chunks| drop(chunks.pop()))),
        ("a piece left out", changed(&|chunks| drop(chunks.remove(4)))),
        ("too much", changed(&|chunks| chunks.push(good[1].clone()))),
        ("two heads", changed(&|chunks| chunks.push(good[0].clone()))),
        (
            "another entry",
            changed(&|chunks| match &mut chunks[0].part {
                Some(wire::snapshot_chunk::Part::Head(head)) => head.last.as_mut().expect("there").index += 1,
                other => panic!("no head: {other:?}"),
            }),
        ),
    ] {
        let refused = client.install_snapshot(tokio_stream::iter(sent)).await.expect_err(what);
        assert!(matches!(refused.code(), Code::DataLoss | Code::InvalidArgument), "{what}: {refused}");
        let by = Instant::now() + DEADLINE;
        while !two.files().is_empty() {
            assert!(Instant::now() < by, "{what}: {:?}", two.files());
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(two.raft.metrics().borrow().last_applied, None);
    let answer = client.install_snapshot(tokio_stream::iter(good.clone())).await.expect("as it was sent");
    assert_eq!(answer.into_inner().vote.map(|vote| vote.term), Some(7));
    assert_eq!(two.image(), one.image());

    let mut stale = good;
    if let Some(wire::snapshot_chunk::Part::Head(head)) = &mut stale[0].part {
        head.vote = Some(wire::Vote { term: 6, node: 1, committed: true });
    }
    let answer = client.install_snapshot(tokio_stream::iter(stale)).await.expect("answered");
    assert_eq!(answer.into_inner().vote.map(|vote| vote.term), Some(7), "of a leader that is none any more");
    for node in [one, two] {
        node.stop().await;
    }
}

/// What one authority signs for loopback, and the authority itself as PEM.
fn authority() -> (impl Fn() -> Tls, String) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let ca = params.self_signed(&key).expect("an authority").pem();
    let pem = ca.clone();
    let issuer = rcgen::Issuer::new(params, key);
    let sign = move || {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = rcgen::CertificateParams::new(names).expect("parameters");
        let key = rcgen::KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &issuer).expect("a certificate");
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let (cert, key) = (file("crt", &cert.pem()), file("key", &key.serialize_pem()));
        let paths = TlsPaths { table: String::new(), cert, key, ca: Some(("ca", file("ca", &ca))), crl: None };
        Tls::new(paths.load(None).expect("they fit together"), Purpose::Peer).expect("TLS")
    };
    (sign, pem)
}

#[tokio::test(flavor = "multi_thread")]
async fn under_tls_only_nodes_of_the_same_authority_are_heard() {
    let [dir] = dirs();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ((ours, ca), (theirs, _)) = (authority(), authority());
    let one = Node::start(1, dir.path(), Some(ours())).await;
    let known = |tls: Option<Tls>| {
        let peers = Peers::new(5, tls, HashMap::new());
        peers.set_cluster(CLUSTER);
        peers
    };
    for stranger in [known(None), known(Some(theirs()))] {
        let refused = one.reached_by(&stranger).append(append(stranger.raft_address(1, 0))).await;
        refused.expect_err("no certificate of ours");
    }
    assert_eq!(one.raft.metrics().borrow().current_term, 0);
    // Whoever speaks TLS, trusts the authority, and shows nothing.
    let tls = tonic::transport::ClientTlsConfig::new().ca_certificate(tonic::transport::Certificate::from_pem(ca));
    let endpoint = tonic::transport::Endpoint::from_shared(format!("https://{}", one.address)).expect("an address");
    let channel = endpoint.tls_config(tls).expect("TLS").connect_lazy();
    let mut bare = wire::raft_client::RaftClient::new(channel);
    bare.append(append(known(None).raft_address(1, 0))).await.expect_err("no certificate at all");
    assert_eq!(one.raft.metrics().borrow().current_term, 0);

    let friend = known(Some(ours()));
    one.reached_by(&friend).append(append(friend.raft_address(1, 0))).await.expect("one of us");
    assert_eq!(one.raft.metrics().borrow().current_term, 1);
    // By a name that stands for several addresses, the certificate is for the name.
    let name = format!("localhost:{}", one.address.port());
    let targets = resolve(&name).await.expect("loopback has a name");
    let mut found = Vec::new();
    for target in targets {
        if let Ok(answer) = friend.dial(target).identify(peer::IdentifyRequest {}).await {
            found.push(answer.into_inner().node);
        }
    }
    assert_eq!(found, [77]);
    one.stop().await;
}
