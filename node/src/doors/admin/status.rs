//! What the table of calls answers, as gRPC has it.

use serde_json::{Map, Value};
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};
use tonic::{Code, Response, Status};

use crate::api::{Answer, Fault};

/// Where the error code of a call stands, as in `FULMAR.000002`.
pub(super) const CODE: &str = "fulmar-code";

/// Where the id of a request stands, in what is asked and what is answered.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// Codes of what is there already; other conflicts are of a state that does not allow it.
const EXISTING: [&str; 3] = ["FULMAR.000002", "FULMAR.000021", "IOTDA.014031"];

/// Of a node that goes.
pub(super) fn leaving() -> Status {
    Status::unavailable("this node is leaving: ask another")
}

fn code(fault: &Fault) -> Code {
    if EXISTING.contains(&fault.code) {
        return Code::AlreadyExists;
    }
    match fault.status {
        401 => Code::Unauthenticated,
        // The vendor says 403 also of what is not there, or not as it must be.
        403 if fault.code == "IOTDA.000021" => Code::PermissionDenied,
        403 if fault.code == "IOTDA.001000" => Code::NotFound,
        403 => Code::FailedPrecondition,
        404 => Code::NotFound,
        408 => Code::DeadlineExceeded,
        409 => Code::FailedPrecondition,
        413 | 429 => Code::ResourceExhausted,
        503 => Code::Unavailable,
        500.. => Code::Internal,
        _ => Code::InvalidArgument,
    }
}

/// A fault as a status.
pub(super) fn of_fault(fault: &Fault, request_id: &str) -> Status {
    let mut status = Status::new(code(fault), fault.message());
    if !fault.code.is_empty() {
        put(status.metadata_mut(), CODE, fault.code);
    }
    identify(&mut status, request_id);
    status
}

/// Puts the id of its request on a status.
pub(super) fn identify(status: &mut Status, request_id: &str) {
    put(status.metadata_mut(), REQUEST_ID, request_id);
}

/// An answer as a response: its headers are metadata, and one without a body is the empty message.
pub(super) fn of_answer(answer: Answer, request_id: &str) -> Response<Value> {
    let mut response = Response::new(answer.body.unwrap_or_else(|| Value::Object(Map::new())));
    for (name, value) in answer.headers {
        put(response.metadata_mut(), &name.to_ascii_lowercase(), &value);
    }
    put(response.metadata_mut(), REQUEST_ID, request_id);
    response
}

/// What cannot be said in a header is left out.
fn put(metadata: &mut MetadataMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (name.parse::<MetadataKey<Ascii>>(), value.parse::<MetadataValue<Ascii>>()) {
        metadata.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_keep_their_meaning_code_and_request() {
        for (fault, wanted, code) in [
            (Fault::invalid("x"), Code::InvalidArgument, "IOTDA.000006"),
            (Fault::unauthenticated(), Code::Unauthenticated, "IOTDA.000002"),
            (Fault::forbidden("x"), Code::PermissionDenied, "IOTDA.000021"),
            (Fault::path(), Code::NotFound, "FULMAR.000404"),
            (Fault::slow(), Code::DeadlineExceeded, "FULMAR.000408"),
            (Fault::precondition("x".into()), Code::FailedPrecondition, "FULMAR.000070"),
            (Fault::oversize(1), Code::ResourceExhausted, "FULMAR.000413"),
            (crate::operations::Error::Unavailable.into(), Code::Unavailable, "FULMAR.000005"),
            (crate::operations::Error::Certificate("x".into()).into(), Code::Internal, "FULMAR.000007"),
        ] {
            let status = of_fault(&fault, "r-1");
            assert_eq!((status.code(), status.message()), (wanted, fault.message()));
            assert_eq!(status.metadata().get(CODE).and_then(|code| code.to_str().ok()), Some(code));
            assert_eq!(status.metadata().get(REQUEST_ID).and_then(|id| id.to_str().ok()), Some("r-1"));
        }
        let exists = crate::operations::Error::MessageExists { device: "d".into(), id: "m".into() };
        assert_eq!(of_fault(&exists.into(), "r").code(), Code::AlreadyExists);
        let limited = Fault::identity(429, "later");
        let status = of_fault(&limited, "r");
        assert_eq!((status.code(), status.metadata().get(CODE)), (Code::ResourceExhausted, None));
    }
}
