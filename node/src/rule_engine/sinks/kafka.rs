//! To Kafka: each parcel is a record, with the device as its key, so that those of one device are in one partition and in
//! order. The header `idempotency-key` says which parcel it is: what was sent when a connection broke comes again.
//! Records are acknowledged by all replicas that are in sync.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::future::join_all;
use rskafka::BackoffConfig;
use rskafka::client::error::{Error, ProtocolError};
use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::client::{ClientBuilder, Credentials, SaslConfig};
use rskafka::record::Record;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::ConfigVerifierExt as _;

use super::detail::{Kafka, Mechanism};
use super::lane;
use crate::dispatch::Dispatch;
use crate::rule_engine::sink::{Handed, Parcel};

/// Time for brokers to be found, and for one call to produce.
const CONNECT: Duration = Duration::from_secs(10);
const PRODUCE: Duration = Duration::from_secs(15);

/// Parcels of one call.
const BATCH_MAX: usize = 256;

/// See the module.
pub struct ToKafka {
    dispatch: Arc<Dispatch>,
    kafka: Kafka,
    /// By number, from 0 on.
    partitions: Option<Vec<Arc<PartitionClient>>>,
}

/// What became of one parcel.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Taken,
    Refused,
    Failed(String),
}

impl ToKafka {
    #[must_use]
    pub fn new(kafka: Kafka, dispatch: Arc<Dispatch>) -> ToKafka {
        ToKafka { dispatch, kafka, partitions: None }
    }

    /// Hands parcels over. What a broker fails to take is tried again with all that follows it.
    pub async fn hand_over(&mut self, parcels: &[Parcel]) -> Handed {
        let mut handed = Handed { done: 0, refused: Vec::new(), problem: None };
        for some in parcels.chunks(BATCH_MAX) {
            let partitions = match self.connect().await {
                Ok(partitions) => partitions,
                Err(problem) => {
                    handed.problem = Some(problem);
                    return handed;
                }
            };
            for fate in produce(&partitions, some).await {
                match fate {
                    Fate::Taken => {}
                    Fate::Refused => {
                        handed.refused.push(handed.done);
                        handed.problem = Some("the broker takes no such record".to_owned());
                    }
                    Fate::Failed(problem) => {
                        handed.problem = Some(problem);
                        // Partitions may have moved, or become more.
                        self.partitions = None;
                        return handed;
                    }
                }
                handed.done += 1;
            }
        }
        handed
    }

    async fn connect(&mut self) -> Result<Vec<Arc<PartitionClient>>, String> {
        if let Some(partitions) = &self.partitions {
            return Ok(partitions.clone());
        }
        let found = tokio::time::timeout(CONNECT, self.find());
        let found = found.await.map_err(|_| "no broker answers in time".to_owned())??;
        Ok(self.partitions.insert(found).clone())
    }

    async fn find(&self) -> Result<Vec<Arc<PartitionClient>>, String> {
        let tls = self.kafka.tls.then(|| self.tls(self.kafka.cert_id.as_deref())).transpose()?;
        partitions(&self.kafka, tls).await
    }

    /// Who vouches for the brokers: an authority of the registry, or those that the system trusts.
    fn tls(&self, cert_id: Option<&str>) -> Result<ClientConfig, String> {
        let Some(id) = cert_id else {
            return ClientConfig::with_platform_verifier().map_err(|error| error.to_string());
        };
        let state = self.dispatch.replica().read();
        let authority = state.registry().authority(id).map(|kept| kept.record.clone());
        drop(state);
        let authority = authority.ok_or_else(|| format!("there is no certificate {id}"))?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(authority.certificate_der.to_vec())).map_err(|error| error.to_string())?;
        Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    }
}

/// The partitions of the topic, each with the broker that leads it.
async fn partitions(kafka: &Kafka, tls: Option<ClientConfig>) -> Result<Vec<Arc<PartitionClient>>, String> {
    let Kafka { addresses, topic, credentials, .. } = kafka;
    // The deadline of a call is ours: this is only how fast it tries again within.
    let max_backoff = Duration::from_secs(2);
    let backoff = BackoffConfig { max_backoff, deadline: Some(CONNECT), ..BackoffConfig::default() };
    let mut builder = ClientBuilder::new(addresses.clone()).client_id("fulmar").backoff_config(backoff);
    if let Some(tls) = tls {
        builder = builder.tls_config(Arc::new(tls));
    }
    if let Some((name, password, mechanism)) = credentials {
        let credentials = Credentials::new(name.clone(), password.expose().to_owned());
        builder = builder.sasl_config(match mechanism {
            Mechanism::Plain => SaslConfig::Plain(credentials),
            Mechanism::ScramSha512 => SaslConfig::ScramSha512(credentials),
        });
    }
    let client = builder.build().await.map_err(|error| error.to_string())?;
    let topics = client.list_topics().await.map_err(|error| error.to_string())?;
    let found = topics.into_iter().find(|found| found.name == *topic);
    let found = found.ok_or_else(|| format!("there is no topic {topic}"))?;
    let mut partitions = Vec::with_capacity(found.partitions.len());
    for partition in found.partitions {
        let client = client.partition_client(topic.clone(), partition, UnknownTopicHandling::Error).await;
        partitions.push(Arc::new(client.map_err(|error| error.to_string())?));
    }
    if partitions.is_empty() { Err(format!("topic {topic} has no partitions")) } else { Ok(partitions) }
}

/// Gives each partition its parcels, all at the same time, and says what became of each parcel.
async fn produce(partitions: &[Arc<PartitionClient>], parcels: &[Parcel]) -> Vec<Fate> {
    let mut shares: BTreeMap<usize, Vec<(usize, Record)>> = BTreeMap::new();
    for (at, parcel) in parcels.iter().enumerate() {
        let key = lane(parcel);
        let partition = partition_of(key.as_bytes(), partitions.len());
        shares.entry(partition).or_default().push((at, record(key, parcel)));
    }
    let produced = shares.into_iter().filter_map(|(partition, share)| {
        let client = partitions.get(partition)?.clone();
        Some(async move { give(&client, share).await })
    });
    let mut fates = vec![Fate::Failed("was not sent".to_owned()); parcels.len()];
    for (at, fate) in join_all(produced).await.into_iter().flatten() {
        if let Some(place) = fates.get_mut(at) {
            *place = fate;
        }
    }
    fates
}

/// One partition's share at once; if that is too large, one by one.
async fn give(client: &PartitionClient, share: Vec<(usize, Record)>) -> Vec<(usize, Fate)> {
    let (places, records): (Vec<usize>, Vec<Record>) = share.into_iter().unzip();
    let alone = records.len() == 1;
    match send(client, records.clone()).await {
        Fate::Refused if !alone => {
            let mut fates = Vec::with_capacity(places.len());
            for (at, record) in places.into_iter().zip(records) {
                fates.push((at, send(client, vec![record]).await));
            }
            fates
        }
        fate => places.into_iter().map(|at| (at, fate.clone())).collect(),
    }
}

async fn send(client: &PartitionClient, records: Vec<Record>) -> Fate {
    match tokio::time::timeout(PRODUCE, client.produce(records, Compression::NoCompression)).await {
        Ok(Ok(_)) => Fate::Taken,
        Ok(Err(Error::ServerError {
            protocol_error:
                ProtocolError::MessageTooLarge | ProtocolError::RecordListTooLarge | ProtocolError::InvalidRecord,
            ..
        })) => Fate::Refused,
        Ok(Err(error)) => Fate::Failed(error.to_string()),
        Err(_) => Fate::Failed("took too long".to_owned()),
    }
}

fn record(key: String, parcel: &Parcel) -> Record {
    Record {
        key: Some(key.into_bytes()),
        value: Some(parcel.body.to_vec()),
        headers: BTreeMap::from([("idempotency-key".to_owned(), parcel.key.as_bytes().to_vec())]),
        timestamp: (UNIX_EPOCH + Duration::from_millis(parcel.at_ms)).into(),
    }
}

/// As Kafka's own clients choose: murmur2 of the key.
fn partition_of(key: &[u8], partitions: usize) -> usize {
    let positive = murmur2(key) & 0x7fff_ffff;
    usize::try_from(positive).unwrap_or_default() % partitions.max(1)
}

/// MurmurHash2 with Kafka's seed.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = word.iter().rev().fold(0, |k, byte| k << 8 | u32::from(*byte)).wrapping_mul(M);
        k = (k ^ k >> 24).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |k, byte| k << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_where_kafkas_own_clients_put_them() {
        // Cases of Kafka's own tests (UtilsTest.testMurmur2).
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash.cast_unsigned(), "{key}");
        }
        assert!(partition_of(b"", 3) < 3 && partition_of(b"x", 0) == 0);
    }

    /// What a broker was told to produce: partition, and the records as they came.
    type Produced = Arc<parking_lot::Mutex<Vec<(i32, Vec<u8>)>>>;

    fn text(text: &str) -> Vec<u8> {
        [&i16::try_from(text.len()).expect("short").to_be_bytes()[..], text.as_bytes()].concat()
    }

    /// A broker with a topic `t` of three partitions. Knows no more of the protocol than is asked of it here. The first
    /// produce it fails to take.
    async fn broker(produced: Produced) -> u16 {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let produced = produced.clone();
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u32().await {
                        let mut request = vec![0; usize::try_from(length).expect("a length")];
                        stream.read_exact(&mut request).await.expect("a request");
                        let word = |at: usize| i16::from_be_bytes([request[at], request[at + 1]]);
                        let body = match (word(0), word(2)) {
                            // ApiVersions 3: Produce 3, Metadata 1, itself.
                            (18, 3) => {
                                let mut body = vec![0, 0, 4];
                                for (key, version) in [(0_i16, 3_i16), (3, 1), (18, 3)] {
                                    for word in [key, version, version] {
                                        body.extend(word.to_be_bytes());
                                    }
                                    body.push(0);
                                }
                                [&body[..], &[0; 5]].concat()
                            }
                            (3, 1) => metadata(port),
                            (0, 3) => produce(&request, &produced),
                            other => panic!("asked for {other:?}"),
                        };
                        let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
                        let answer = [&length[..], &request[4..8], &body].concat();
                        stream.write_all(&answer).await.expect("an answer");
                    }
                });
            }
        });
        port
    }

    fn metadata(port: u16) -> Vec<u8> {
        let one = 1_i32.to_be_bytes();
        let mut body =
            [&one[..], &one, &text("127.0.0.1"), &i32::from(port).to_be_bytes(), &(-1_i16).to_be_bytes()].concat();
        // The controller; one topic, without error, not internal.
        body.extend([&one[..], &one, &[0, 0], &text("t"), &[0]].concat());
        body.extend(3_i32.to_be_bytes());
        for partition in 0..3_i32 {
            body.extend([&[0, 0][..], &partition.to_be_bytes(), &one, &one, &one, &one, &one].concat());
        }
        body
    }

    /// Reads one partition of one topic, and takes it unless it is the first of all.
    fn produce(request: &[u8], produced: &Produced) -> Vec<u8> {
        let word = |at: usize| usize::from(u16::from_be_bytes([request[at], request[at + 1]]));
        // Client id, no transaction, acks, timeout, one topic.
        let topic = 10 + word(8) + 2 + 2 + 4 + 4;
        let at = topic + 2 + word(topic) + 4;
        let partition = i32::from_be_bytes(request[at..at + 4].try_into().expect("four bytes"));
        let mut produced = produced.lock();
        produced.push((partition, request[at + 8..].to_vec()));
        // 3: it does not lead the partition (any more), which is left to us.
        let error = if produced.len() == 1 { 3_i16 } else { 0 };
        let one = 1_i32.to_be_bytes();
        let partition = partition.to_be_bytes();
        [&one[..], &text("t"), &one, &partition, &error.to_be_bytes(), &[0; 16], &[0; 4]].concat()
    }

    #[tokio::test]
    async fn records_go_to_the_partition_of_their_device_with_their_key() {
        let produced = Produced::default();
        let port = broker(produced.clone()).await;
        let kafka = Kafka {
            addresses: vec![format!("127.0.0.1:{port}")],
            topic: "t".into(),
            credentials: None,
            tls: false,
            cert_id: None,
        };
        let missing = partitions(&Kafka { topic: "u".into(), ..kafka.clone() }, None).await;
        assert_eq!(missing.expect_err("is not there"), "there is no topic u");
        let found = partitions(&kafka, None).await.expect("partitions");
        assert_eq!(found.len(), 3);
        let parcel = |device: &str, number: usize| Parcel {
            key: format!("key-{device}-{number}").into(),
            body: format!("{{\"notify_data\":{{\"header\":{{\"device_id\":\"{device}\"}}}},\"n\":{number}}}").into(),
            topic: None,
            at_ms: 1_700_000_000_000,
        };
        let failed = super::produce(&found, &[parcel("a", 0)]).await;
        assert!(matches!(failed[..], [Fate::Failed(_)]), "{failed:?}");
        let parcels: Vec<Parcel> =
            (0..30).map(|number| parcel(["a", "b", "c", "d", "e"][number % 5], number)).collect();
        let fates = super::produce(&found, &parcels).await;
        assert!(fates.iter().all(|fate| *fate == Fate::Taken), "{fates:?}");
        let taken = produced.lock().split_off(1);
        for (number, parcel) in parcels.iter().enumerate() {
            let device = ["a", "b", "c", "d", "e"][number % 5];
            let partition = i32::try_from(partition_of(device.as_bytes(), 3)).expect("small");
            let has = |records: &[u8], part: &[u8]| records.windows(part.len()).any(|window| window == part);
            let holds = taken.iter().filter(|(_, records)| has(records, &parcel.body));
            let holds: Vec<_> = holds.filter(|(_, records)| has(records, parcel.key.as_bytes())).collect();
            assert!(matches!(holds[..], [(at, _)] if *at == partition), "{device} {number}: {}", holds.len());
        }
    }
}
