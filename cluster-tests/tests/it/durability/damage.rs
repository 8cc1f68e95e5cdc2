//! Data that is not as it was left: the node says what is wrong, serves nobody, and changes nothing; a person decides.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cluster_tests::sys::Signal;
use cluster_tests::wait_for;
use rand::prelude::*;
use tokio::net::TcpStream;

use super::{Way, data_dir, is_queued, queue, serve, small_log, stop, verify};
use crate::support::{SOON, Server, http_get, seed};

/// Messages in the queue that must not be lost unnoticed.
const QUEUED: u16 = 400;

/// Every file below a directory, with its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.insert(path.clone(), Vec::new());
            files.extend(contents(&path));
        } else {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    files
}

fn assert_same(before: &BTreeMap<PathBuf, Vec<u8>>, after: &BTreeMap<PathBuf, Vec<u8>>) {
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(before), names(after));
    for (path, bytes) in before {
        assert!(after[path] == *bytes, "{} has changed", path.display());
    }
}

/// Changes a file in place.
fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// Bytes up to the last that is not zero.
fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// A node that was stopped with a queue.
async fn stopped(way: Way) -> Server {
    let mut server = small_log().await;
    queue(&server, 0..QUEUED).await;
    stop(&mut server, way).await;
    server
}

/// What a node that has been started becomes.
#[derive(Debug)]
enum Outcome {
    Serves,
    /// It waits for a person: what `/readyz` says.
    Refuses(String),
}

async fn start(server: &mut Server) -> Outcome {
    server.node.start_again().unwrap();
    let (node, probes) = (&mut server.node, server.probes);
    wait_for("a node that serves, or says why not", SOON, async || {
        assert!(node.alive(), "it ended:\n{}", node.process().unwrap().tail());
        match http_get(probes, "/readyz").await? {
            (200, _) => Some(Outcome::Serves),
            (503, text) if text.contains("fulmar verify") => Some(Outcome::Refuses(text)),
            _ => None, // still starting
        }
    })
    .await
    .unwrap()
}

/// Starts a node on damaged data: it must name the file, serve nobody and change nothing.
async fn is_refused(server: &mut Server, file: &str) {
    let data_dir = data_dir(server);
    let before = contents(&data_dir);
    let Outcome::Refuses(text) = start(server).await else { panic!("a node with a damaged {file} serves") };
    assert!(text.contains(&data_dir.join(file).display().to_string()), "{text}");
    assert_eq!(http_get(server.probes, "/livez").await.map(|(status, _)| status), Some(200));
    assert!(TcpStream::connect(server.mqtt()).await.is_err(), "clients are let in");
    let (code, text) = verify(&[&data_dir]).await;
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains(file), "{text}");
    assert!(server.node.alive());
    assert_same(&before, &contents(&data_dir));
    // It leaves when it is asked to, and the files are still evidence.
    server.node.signal(Signal::Terminate).unwrap();
    server.node.wait_until_gone(SOON).await.unwrap();
    assert_same(&before, &contents(&data_dir));
}

#[tokio::test]
async fn a_mark_of_which_both_slots_are_wrong() {
    for way in super::WAYS {
        let mut server = stopped(way).await;
        let file = data_dir(&server).join("durable");
        let flip = |bytes: &mut Vec<u8>| {
            for slot in [0, bytes.len() / 2] {
                bytes[slot + 20] ^= 1;
            }
        };
        change(&file, flip);
        is_refused(&mut server, "durable").await;
        // Mended, it is as before.
        change(&file, flip);
        assert!(matches!(start(&mut server).await, Outcome::Serves));
        is_queued(&server, 0..QUEUED).await;
    }
}

#[tokio::test]
async fn a_mark_of_which_one_slot_is_wrong() {
    for slot in 0..2 {
        let mut server = stopped(Way::Kill).await;
        change(&data_dir(&server).join("durable"), |bytes| {
            let at = slot * bytes.len() / 2 + 20;
            bytes[at] ^= 1;
        });
        // A write of the mark that power loss has torn leaves this.
        assert!(matches!(start(&mut server).await, Outcome::Serves), "slot {slot}");
        is_queued(&server, 0..QUEUED).await;
    }
}

#[tokio::test]
async fn a_log_that_is_cut_in_half() {
    let mut server = stopped(Way::Kill).await;
    // It is longer than what is written.
    change(&data_dir(&server).join("log/db"), |bytes| bytes.truncate(written(bytes) / 2));
    is_refused(&mut server, "log/db").await;
}

#[tokio::test]
async fn files_that_are_gone() {
    for file in ["durable", "log/db"] {
        let mut server = stopped(Way::Kill).await;
        std::fs::remove_file(data_dir(&server).join(file)).unwrap();
        is_refused(&mut server, file).await;
    }
}

/// Whatever single byte of the log is wrong: it is noticed, or nothing is lost.
#[tokio::test]
async fn a_byte_of_the_log_that_is_wrong_is_noticed_or_harmless() {
    let mut random = StdRng::seed_from_u64(seed("a_byte_of_the_log_that_is_wrong_is_noticed_or_harmless"));
    let mut server = stopped(Way::Kill).await;
    let whole = data_dir(&server);
    let kept = server.dir.path().join("kept");
    copy(&whole, &kept);
    let (mut noticed, mut harmless) = (0, 0);
    for _ in 0..super::given("FULMAR_TEST_FLIPS", 8) {
        std::fs::remove_dir_all(&whole).unwrap();
        copy(&kept, &whole);
        let mut at = 0;
        change(&whole.join("log/db"), |bytes| {
            at = random.random_range(0..written(bytes));
            bytes[at] ^= 1 << random.random_range(0..8);
        });
        println!("byte {at} of the log");
        match start(&mut server).await {
            Outcome::Refuses(_) => noticed += 1,
            Outcome::Serves => {
                is_queued(&server, 0..QUEUED).await;
                harmless += 1;
            }
        }
        server.node.kill().await.unwrap();
    }
    println!("{noticed} noticed, {harmless} harmless");
    // It was the byte, not the copy.
    std::fs::remove_dir_all(&whole).unwrap();
    copy(&kept, &whole);
    assert!(matches!(start(&mut server).await, Outcome::Serves));
    is_queued(&server, 0..QUEUED).await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn data_of_a_newer_release_is_left_alone() {
    let mut server = stopped(Way::Terminate).await;
    let data_dir = data_dir(&server);
    std::fs::write(data_dir.join("FORMAT"), "fulmar data 2\n").unwrap();
    let before = contents(&data_dir);
    server.node.start_again().unwrap();
    let (node, probes) = (&mut server.node, server.probes);
    // Whether it ends or waits: it says which file is too new.
    let said = wait_for("a refusal", SOON, async || {
        if !node.alive() {
            let process = node.process().unwrap();
            assert!(!process.status().unwrap().unwrap().success());
            return Some(process.stderr());
        }
        http_get(probes, "/readyz")
            .await
            .filter(|(status, text)| *status == 503 && text.contains("FORMAT"))
            .map(|r| r.1)
    });
    let said = said.await.unwrap();
    assert!(said.contains("FORMAT") && said.contains("version 2"), "{said}");
    assert!(TcpStream::connect(server.mqtt()).await.is_err(), "clients are let in");
    if server.node.alive() {
        server.node.kill().await.unwrap();
    }
    assert_same(&before, &contents(&data_dir));
    let (code, text) = verify(&[&data_dir]).await;
    assert!(matches!(code, Some(2 | 3)) && text.contains("FORMAT"), "{code:?} {text}");
    assert_same(&before, &contents(&data_dir));
    std::fs::write(data_dir.join("FORMAT"), "fulmar data 1\n").unwrap();
    assert!(matches!(start(&mut server).await, Outcome::Serves));
    is_queued(&server, 0..QUEUED).await;
}

#[tokio::test]
async fn verify_tells_by_its_exit_code() {
    let server = stopped(Way::Terminate).await;
    let data = data_dir(&server);
    let before = contents(&data);
    let (code, text) = verify(&[&data]).await;
    assert_eq!(code, Some(0), "{text}");
    assert_same(&before, &contents(&data));
    let (code, text) = verify(&[&data.join("nowhere")]).await;
    assert_eq!(code, Some(3), "{text}");
    let (data, flag) = (data.as_path(), Path::new("--no-such-flag"));
    for wrong in [&[][..], &[data, data], &[flag]] {
        let (code, text) = verify(wrong).await;
        assert_eq!(code, Some(64), "{wrong:?} {text}");
    }
}

/// Two processes with one data directory: the second waits until the first is gone, and the first does not notice.
#[tokio::test]
async fn a_second_process_on_the_same_data_waits_for_the_first() {
    let mut server = small_log().await;
    queue(&server, 0..5).await;
    let dir = tempfile::tempdir().unwrap();
    let (mut second, probes) = serve(dir.path(), &data_dir(&server), &[]);
    wait_for("the second process", SOON, async || http_get(probes, "/livez").await).await.unwrap();
    queue(&server, 5..10).await;
    assert_eq!(http_get(probes, "/readyz").await.unwrap().0, 503);
    assert!(second.status().unwrap().is_none());
    stop(&mut server, Way::Kill).await;
    wait_for("the second process serves", SOON, async || {
        http_get(probes, "/readyz").await.filter(|(status, _)| *status == 200)
    })
    .await
    .unwrap();
    second.signal(Signal::Terminate).unwrap();
    assert!(second.exited(SOON).await.unwrap().success());
    server.node.restart().await.unwrap();
    is_queued(&server, 0..10).await;
}
