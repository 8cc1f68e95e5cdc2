//! Requests to devices, and their answers.

use std::time::Duration;

use fulmar_platform::Downlink;
use fulmar_proto::peer::v1 as peer;
use fulmar_proto::peer::v1::CarryOutcome as Outcome;

use super::{Error, Problem, Wire, copied, qos, required, session, text, topic};
use crate::cluster::calls::{Answered, Carried, Carry};

/// Without the hello.
impl Wire for Carry {
    type Message = peer::CarryRequest;

    fn to_message(&self) -> peer::CarryRequest {
        let within = self.within.map(|within| u32::try_from(within.as_millis()).unwrap_or(u32::MAX).max(1));
        peer::CarryRequest {
            hello: None,
            session: session(&self.key, self.epoch),
            request: self.request.to_vec().into(),
            topic: copied(self.downlink.topic.as_str()),
            payload: self.downlink.payload.clone(),
            qos: i32::from(self.downlink.qos as u8),
            within_ms: within.unwrap_or(0),
        }
    }

    fn from_message(message: peer::CarryRequest) -> Result<Carry, Error> {
        let (key, epoch) = required("session", message.session)?;
        let bytes = message.request.len();
        let request = <[u8; 16]>::try_from(&message.request[..]);
        Ok(Carry {
            key,
            epoch,
            request: request.map_err(|_| Error::new("request", Problem::Range(bytes as u64)))?,
            downlink: Downlink {
                topic: topic(message.topic).map_err(|error| error.within("topic"))?,
                payload: message.payload,
                qos: qos("qos", message.qos)?,
            },
            within: (message.within_ms > 0).then(|| Duration::from_millis(message.within_ms.into())),
        })
    }
}

impl Wire for Carried {
    type Message = peer::CarryResponse;

    fn to_message(&self) -> peer::CarryResponse {
        let outcome = match self {
            Carried::Answered(_) => Outcome::Answered,
            Carried::Sent => Outcome::Sent,
            Carried::Timeout => Outcome::Timeout,
            Carried::NotHere => Outcome::NotHere,
            Carried::NotSubscribed => Outcome::NotSubscribed,
            Carried::Busy => Outcome::Busy,
            Carried::Frozen => Outcome::Frozen,
            Carried::Lost => Outcome::Lost,
        };
        let answer = if let Carried::Answered(answer) = self { answer.clone() } else { Default::default() };
        peer::CarryResponse { outcome: outcome.into(), answer }
    }

    fn from_message(message: peer::CarryResponse) -> Result<Carried, Error> {
        Ok(match Outcome::try_from(message.outcome) {
            Ok(Outcome::Answered) => Carried::Answered(message.answer),
            Ok(Outcome::Sent) => Carried::Sent,
            Ok(Outcome::Timeout) => Carried::Timeout,
            Ok(Outcome::NotHere) => Carried::NotHere,
            Ok(Outcome::NotSubscribed) => Carried::NotSubscribed,
            Ok(Outcome::Busy) => Carried::Busy,
            Ok(Outcome::Frozen) => Carried::Frozen,
            Ok(Outcome::Lost) => Carried::Lost,
            Ok(Outcome::Unspecified) | Err(_) => {
                return Err(Error::new("outcome", Problem::Unknown(message.outcome)));
            }
        })
    }
}

/// Without the hello.
impl Wire for Answered {
    type Message = peer::AnswerRequest;

    fn to_message(&self) -> peer::AnswerRequest {
        peer::AnswerRequest {
            hello: None,
            key: Some(self.key.to_message()),
            request: copied(&self.request),
            answer: self.answer.clone(),
        }
    }

    fn from_message(message: peer::AnswerRequest) -> Result<Answered, Error> {
        Ok(Answered {
            key: required("key", message.key)?,
            request: text("request", message.request)?,
            answer: message.answer,
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fulmar_broker::{Epoch, SessionKey};
    use fulmar_mqtt::{QoS, TopicName};

    use super::*;

    fn key() -> SessionKey {
        SessionKey::new("default", "huawei", "p_n")
    }

    fn carry() -> Carry {
        Carry {
            key: key(),
            epoch: Epoch(7),
            request: [9; 16],
            downlink: Downlink {
                topic: TopicName::new("$oc/devices/p_n/sys/commands/request_id=1").unwrap(),
                payload: Bytes::from_static(b"{}"),
                qos: QoS::AtLeastOnce,
            },
            within: Some(Duration::from_millis(20_000)),
        }
    }

    #[test]
    fn what_nodes_say_about_calls_comes_back_the_same() {
        for carry in [carry(), Carry { within: None, ..carry() }] {
            assert_eq!(Carry::from_message(carry.to_message()), Ok(carry));
        }
        for carried in [
            Carried::Answered(Bytes::from_static(b"{}")),
            Carried::Sent,
            Carried::Timeout,
            Carried::NotHere,
            Carried::NotSubscribed,
            Carried::Busy,
            Carried::Frozen,
            Carried::Lost,
        ] {
            assert_eq!(Carried::from_message(carried.to_message()), Ok(carried));
        }
        let answered = Answered { key: key(), request: "77".into(), answer: Bytes::from_static(&[0xff]) };
        assert_eq!(Answered::from_message(answered.to_message()), Ok(answered));
        // Less than a millisecond is not "for ever".
        let soon = Carry { within: Some(Duration::from_micros(1)), ..carry() };
        assert_eq!(soon.to_message().within_ms, 1);
    }

    #[test]
    fn a_bad_field_is_named() {
        let good = || carry().to_message();
        for (message, wanted) in [
            (peer::CarryRequest { session: None, ..good() }, "session is missing"),
            (peer::CarryRequest { request: vec![1; 15].into(), ..good() }, "request is 15, out of its range"),
            (
                peer::CarryRequest { topic: "a/#".into(), ..good() },
                "topic contains a wildcard, which a topic name may not",
            ),
            (peer::CarryRequest { qos: 3, ..good() }, "qos has the unknown value 3"),
        ] {
            assert_eq!(Carry::from_message(message).unwrap_err().to_string(), wanted);
        }
        for outcome in [0, 9] {
            let told = Carried::from_message(peer::CarryResponse { outcome, ..Default::default() }).unwrap_err();
            assert_eq!(told.to_string(), format!("outcome has the unknown value {outcome}"));
        }
        let nobody = peer::AnswerRequest::default();
        assert_eq!(Answered::from_message(nobody).unwrap_err().to_string(), "key is missing");
        let odd =
            peer::AnswerRequest { key: Some(key().to_message()), request: vec![0xff].into(), ..Default::default() };
        assert_eq!(Answered::from_message(odd).unwrap_err().to_string(), "request is not UTF-8");
    }
}
