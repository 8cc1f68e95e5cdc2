//! What goes wrong, in the vendor's form: a status, `error_code` and `error_msg`. Codes that start with `FULMAR` stand
//! where the vendor's documents are silent.

use serde_json::{Value, json};

use crate::operations::Error;

/// An answer that is none.
#[derive(Debug, Clone)]
pub struct Fault {
    pub status: u16,
    pub code: &'static str,
    message: String,
    /// In the form of the identity service.
    keystone: bool,
    pub headers: Vec<(&'static str, String)>,
    /// What follows on the connection is not read.
    pub closes: bool,
}

impl Fault {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Fault {
        Fault { status, code, message: message.into(), keystone: false, headers: Vec::new(), closes: false }
    }

    #[must_use]
    pub fn invalid(what: &str) -> Fault {
        Fault::new(400, "IOTDA.000006", format!("Invalid input data. {what}"))
    }

    #[must_use]
    pub fn missing(parameter: &str) -> Fault {
        Fault::invalid(&format!("{parameter} is missing"))
    }

    #[must_use]
    pub fn format(what: &str) -> Fault {
        Fault::new(400, "IOTDA.000008", format!("The format of the request is invalid. {what}"))
    }

    #[must_use]
    pub fn time(parameter: &str) -> Fault {
        Fault::new(400, "IOTDA.000009", format!("{parameter} must be a time as in 20151212T121212Z."))
    }

    #[must_use]
    pub fn time_order() -> Fault {
        Fault::new(400, "IOTDA.000010", "start_time must not be after end_time.")
    }

    #[must_use]
    pub fn limit() -> Fault {
        Fault::new(400, "IOTDA.000017", "limit must be a number from 1 to 50.")
    }

    #[must_use]
    pub fn paging(what: &str) -> Fault {
        Fault::new(400, "IOTDA.000018", what)
    }

    #[must_use]
    pub fn unauthenticated() -> Fault {
        Fault::new(401, "IOTDA.000002", "Authentication failed.")
    }

    /// Of a door that wants a token.
    #[must_use]
    pub fn no_token() -> Fault {
        Fault::new(401, "IOTDA.000002", "Authentication failed: `authorization: Bearer TOKEN` is missing.")
    }

    #[must_use]
    pub fn wrong_token() -> Fault {
        Fault::new(
            401,
            "IOTDA.000002",
            "Authentication failed: the token is neither this node's nor a valid one of a user.",
        )
    }

    /// After too many that failed.
    #[must_use]
    pub fn locked() -> Fault {
        Fault::new(429, "FULMAR.000429", "Too many failed sign-ins; try again later.")
    }

    /// Of a node that has too much to do.
    #[must_use]
    pub fn busy() -> Fault {
        Fault::new(503, "FULMAR.000503", "This node has too many calls to carry out; try again.")
    }

    #[must_use]
    pub fn forbidden(what: &str) -> Fault {
        Fault::new(403, "IOTDA.000021", what)
    }

    /// Something that is not as it must be for this.
    #[must_use]
    pub fn precondition(what: String) -> Fault {
        Fault::new(409, "FULMAR.000070", what)
    }

    #[must_use]
    pub fn throttled() -> Fault {
        Fault::new(429, "FULMAR.000077", "Too many calls that return or change secrets; try again in a few seconds.")
    }

    #[must_use]
    pub fn path() -> Fault {
        Fault::new(404, "FULMAR.000404", "There is no such path.")
    }

    #[must_use]
    pub fn method(methods: &[&str]) -> Fault {
        let methods = methods.join(", ");
        let mut fault = Fault::new(405, "FULMAR.000405", format!("The path takes only {methods}."));
        fault.headers.push(("Allow", methods));
        fault
    }

    #[must_use]
    pub fn slow() -> Fault {
        Fault { closes: true, ..Fault::new(408, "FULMAR.000408", "The body did not come in time.") }
    }

    #[must_use]
    pub fn oversize(bytes_max: usize) -> Fault {
        Fault { closes: true, ..Fault::new(413, "FULMAR.000413", format!("The body may have {bytes_max} bytes.")) }
    }

    /// Of the identity service, which writes errors in another form.
    #[must_use]
    pub fn identity(status: u16, message: &str) -> Fault {
        Fault { keystone: true, ..Fault::new(status, "", message) }
    }

    /// What is said of it; it holds no secret.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    #[must_use]
    pub fn body(&self) -> Value {
        if self.keystone {
            let title = match self.status {
                400 => "Bad Request",
                401 => "Unauthorized",
                403 => "Forbidden",
                429 => "Too Many Requests",
                _ => "Service Unavailable",
            };
            return json!({ "error": { "code": self.status, "message": self.message, "title": title } });
        }
        json!({ "error_code": self.code, "error_msg": self.message })
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        let text = error.to_string();
        if let Error::Invalid { .. } = error {
            return Fault::invalid(&text);
        }
        let (status, code) = error.rest();
        Fault::new(status, code, text)
    }
}
