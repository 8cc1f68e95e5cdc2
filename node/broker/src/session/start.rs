//! How a session begins: what CONNECT settles, and the CONNACK that says so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytestring::ByteString;
use fulmar_mqtt::packet::{ConnAck, ConnAckProperties, Connect};
use fulmar_mqtt::{Packet, QoS, ReasonCode, TopicFilter, Version};
use fulmar_platform::{Manners, Publishing, Subscribing, Voice};

use super::ring::Ring;
use super::{Limits, Session};
use crate::key::{LogTime, Now, SessionKey};
use crate::publication::{Publication, Via};
use crate::state::command::{Claimed, Subscription, Will};

/// Clients that take no packet of this size are sent no texts.
const TEXTS_FROM_BYTES: u32 = 256;

/// What CONNECT settles, before there is a session.
#[derive(Debug, Clone, PartialEq)]
pub struct Opening {
    /// Given by the server where the client named none.
    pub assigned_client_id: Option<ByteString>,
    /// Seconds that the session will outlive its connection, cut to the bound.
    pub expiry_s: u32,
}

/// Seconds that the session of this CONNECT outlives its connection: 3.x sessions that are not clean have no expiry of
/// their own and get the bound.
#[must_use]
pub fn expiry_s(connect: &Connect, manners: &Manners, limits: &Limits) -> u32 {
    let wanted = match connect.version {
        _ if manners.clean => 0,
        Version::V5 => connect.properties.session_expiry_s.unwrap_or(0),
        _ if connect.clean_start => 0,
        _ => u32::MAX,
    };
    wanted.min(limits.session_expiry_s_max)
}

/// Checks CONNECT's will, and makes of it what the replicated state keeps.
///
/// # Errors
/// The reason for CONNACK: no permission for its topic, too deep a topic, too large a payload.
pub fn will(
    connect: &Connect,
    voice: &dyn Voice,
    manners: &Manners,
    limits: &Limits,
    now: LogTime,
) -> Result<Option<Will>, ReasonCode> {
    let Some(will) = connect.will.as_ref().filter(|_| !manners.no_will) else { return Ok(None) };
    if will.topic.level_count() > limits.topic_levels_max {
        return Err(ReasonCode::TopicNameInvalid);
    }
    if will.payload.len() > limits.will_bytes_max {
        return Err(ReasonCode::PacketTooLarge);
    }
    if will.qos > manners.qos_max {
        return Err(ReasonCode::QoSNotSupported);
    }
    // Nobody is there to read it for the platform once it is due.
    if voice.publishing(&will.topic) != Publishing::Route {
        return Err(ReasonCode::NotAuthorized);
    }
    let publication = Publication {
        topic: will.topic.clone(),
        payload: will.payload.clone(),
        qos: will.qos,
        retain: will.retain && !manners.no_retain,
        forward: will.properties.forward.clone(),
        origin: None,
        accepted_at: now,
        expires_at: None,
        via: Via::Will,
        trace: 0,
    };
    Ok(Some(Will {
        publication: Arc::new(publication.detached()),
        message_expiry_s: will.properties.message_expiry_s,
        delay_s: will.delay_s,
    }))
}

/// Takes what the client may not hear any more out of the subscriptions that it resumes, and gives the filters.
pub fn revoke(claimed: &mut Claimed, voice: &dyn Voice) -> Vec<TopicFilter> {
    let may = |subscription: &Subscription| voice.subscribing(&subscription.filter) != Subscribing::Deny;
    let (kept, revoked): (Vec<_>, Vec<_>) = std::mem::take(&mut claimed.subscriptions).into_iter().partition(may);
    claimed.subscriptions = kept;
    revoked.into_iter().map(|subscription| subscription.filter).collect()
}

/// What a session is made from.
pub struct Start<'a> {
    pub connect: &'a Connect,
    pub key: SessionKey,
    pub voice: Arc<dyn Voice>,
    pub manners: Manners,
    pub limits: Arc<Limits>,
    pub claimed: &'a Claimed,
    pub opening: &'a Opening,
}

impl std::fmt::Debug for Start<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Milliseconds of silence after which a client is cut; 0 for never. Half of the keep alive is added to it unless
/// `grace_s` is [v5 MQTT-3.1.2-22].
fn silence_ms(keep_alive_s: u16, grace_s: Option<u16>) -> u64 {
    let keep_alive_ms = u64::from(keep_alive_s) * 1000;
    match grace_s {
        Some(grace_s) if keep_alive_s > 0 => keep_alive_ms + u64::from(grace_s) * 1000,
        _ => keep_alive_ms * 3 / 2,
    }
}

impl Session {
    /// A session whose claim is granted, and the CONNACK that says so.
    #[must_use]
    pub fn start(start: Start<'_>, now: Now) -> (Session, Packet) {
        let Start { connect, key, voice, manners, limits, claimed, opening } = start;
        let v5 = connect.version == Version::V5;
        let keep_alive_s = manners.keep_alive_s.unwrap_or(match limits.keep_alive_s_max {
            max if v5 && max > 0 && (connect.keep_alive_s == 0 || connect.keep_alive_s > max) => max,
            _ => connect.keep_alive_s,
        });
        let packet_bytes_max = connect.properties.maximum_packet_size.unwrap_or(u32::MAX);
        let mut properties = ConnAckProperties::default();
        if v5 {
            let wanted_expiry_s = connect.properties.session_expiry_s.unwrap_or(0);
            properties.session_expiry_s = (wanted_expiry_s != opening.expiry_s).then_some(opening.expiry_s);
            properties.receive_maximum = Some(limits.receive_maximum);
            properties.maximum_packet_size = Some(limits.packet_bytes_max);
            properties.topic_alias_maximum = (limits.topic_alias_maximum > 0).then_some(limits.topic_alias_maximum);
            properties.assigned_client_id.clone_from(&opening.assigned_client_id);
            // [v5 MQTT-3.1.2-21] the client must use the server's value.
            properties.server_keep_alive_s = (keep_alive_s != connect.keep_alive_s).then_some(keep_alive_s);
            properties.maximum_qos = (manners.qos_max != QoS::ExactlyOnce).then_some(manners.qos_max);
            properties.retain_available = manners.no_retain.then_some(false);
        }
        let connack = Packet::ConnAck(Box::new(ConnAck {
            session_present: claimed.session_present,
            reason: ReasonCode::Success,
            properties,
        }));
        let session = Session {
            version: connect.version,
            key,
            voice,
            manners,
            persistent: opening.expiry_s > 0,
            expiry_s: opening.expiry_s,
            packet_bytes_max,
            // [v5 MQTT-3.4.2-2] nor where a text might make a packet too large for the client.
            problem_information: connect.properties.request_problem_information.unwrap_or(true)
                && packet_bytes_max >= TEXTS_FROM_BYTES,
            keep_alive_ms: silence_ms(keep_alive_s, manners.keep_alive_grace_s),
            last_packet_ms: now.mono_ms,
            ended: false,
            paused_since_ms: None,
            held: VecDeque::new(),
            ring: Ring::new(limits.receive_maximum),
            received: claimed.received.clone(),
            releasing: Vec::new(),
            aliases: Vec::new(),
            allowed_topic: None,
            subscriptions: claimed.subscriptions.iter().map(|s| (s.filter.clone(), (s.options, s.id))).collect(),
            pending: BTreeMap::new(),
            next_token: 0,
            limits,
        };
        (session, connack)
    }
}
