//! Publications.

use fulmar_broker::{LogTime, Publication, Via};
use fulmar_mqtt::property::ForwardProperties;
use fulmar_proto::types::v1 as proto;

use super::{Error, Problem, Wire, check_version, copied, optional, qos, topic};

impl Wire for Publication {
    type Message = proto::Publication;

    fn to_message(&self) -> proto::Publication {
        proto::Publication {
            format_version: proto::FORMAT_VERSION,
            topic: copied(self.topic.as_str()),
            payload: self.payload.clone(),
            qos: self.qos as i32,
            retain: self.retain,
            properties: self.forward.as_bytes().clone(),
            origin: self.origin.as_ref().map(Wire::to_message),
            accepted_at_ms: self.accepted_at.0,
            expires_at_ms: self.expires_at.map(|at| at.0),
            via: match self.via {
                Via::Client => proto::Via::Client,
                Via::Will => proto::Via::Will,
                Via::Server => proto::Via::Server,
            }
            .into(),
            trace: self.trace,
        }
    }

    fn from_message(message: proto::Publication) -> Result<Publication, Error> {
        check_version(message.format_version)?;
        let via = match proto::Via::try_from(message.via) {
            Ok(proto::Via::Client) => Via::Client,
            Ok(proto::Via::Will) => Via::Will,
            Ok(proto::Via::Server) => Via::Server,
            Ok(proto::Via::Unspecified) | Err(_) => return Err(Error::new("via", Problem::Unknown(message.via))),
        };
        Ok(Publication {
            topic: topic(message.topic).map_err(|error| error.within("topic"))?,
            payload: message.payload,
            qos: qos("qos", message.qos)?,
            retain: message.retain,
            forward: ForwardProperties::from_encoded(message.properties)
                .map_err(|error| Error::new("properties", Problem::Properties(error.to_string())))?,
            origin: optional("origin", message.origin)?,
            accepted_at: LogTime(message.accepted_at_ms),
            expires_at: message.expires_at_ms.map(LogTime),
            via,
            trace: message.trace,
        })
    }
}
