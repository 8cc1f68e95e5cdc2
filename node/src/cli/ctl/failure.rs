//! How a call of `fulmar ctl` can end other than well, and what is said then: each with its own exit code.

use std::fmt;

use tonic::{Code, Status};

/// Refused, or not carried out.
const EXIT_FAILED: u8 = 1;

pub(super) const EXIT_USAGE: u8 = 2;

/// What was named is not there.
pub(super) const EXIT_MISSING: u8 = 3;

/// Not let in, or not allowed.
pub(super) const EXIT_DENIED: u8 = 4;

/// As sysexits counts it: a service is unavailable.
pub(super) const EXIT_UNREACHABLE: u8 = 69;

/// What went wrong: how the process ends, and what is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Failure {
    pub(super) code: u8,
    pub(super) text: String,
    /// Nobody has begun to do what was asked: another node may be.
    pub(super) elsewhere: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Failure {
    fn new(code: u8, text: impl Into<String>) -> Failure {
        Failure { code, text: text.into(), elsewhere: false }
    }

    pub(super) fn refused(text: impl Into<String>) -> Failure {
        Failure::new(EXIT_FAILED, text)
    }

    pub(super) fn usage(text: impl Into<String>) -> Failure {
        Failure::new(EXIT_USAGE, text)
    }

    pub(super) fn missing(text: impl Into<String>) -> Failure {
        Failure::new(EXIT_MISSING, text)
    }

    pub(super) fn denied(text: impl Into<String>) -> Failure {
        Failure::new(EXIT_DENIED, text)
    }

    /// Nobody could be asked.
    pub(super) fn unreachable(text: impl Into<String>) -> Failure {
        Failure { elsewhere: true, ..Failure::new(EXIT_UNREACHABLE, text) }
    }

    /// The same, about something in particular.
    pub(super) fn about(self, what: impl fmt::Display) -> Failure {
        Failure { text: format!("{what}: {}", self.text), ..self }
    }

    pub(super) fn is_missing(&self) -> bool {
        self.code == EXIT_MISSING
    }

    /// What a node's answer comes to, and what to do about it. `address`: of the node; `advice`: what to look at if the
    /// connection broke.
    pub(super) fn of_status(status: &Status, address: &str, advice: &str) -> Failure {
        let said = status.message();
        // What the connection came to, not what the node said: whether it was done nobody knows.
        if std::error::Error::source(status).is_some() {
            let text = format!("{address}: the connection broke: {said}; {advice}");
            return Failure { elsewhere: false, ..Failure::unreachable(text) };
        }
        match status.code() {
            Code::Unauthenticated => Failure::denied(format!(
                "{address}: {said}; give a token with --token-file, --token or FULMAR_ADMIN_TOKEN, or sign in with \
                 `fulmar ctl login`"
            )),
            Code::PermissionDenied => {
                Failure::denied(format!("{said}; use a context of somebody who may (`fulmar ctl config get-contexts`)"))
            }
            Code::NotFound => Failure::missing(said),
            Code::Unavailable => Failure::unreachable(format!(
                "{address}: {said}; is there a quorum? `fulmar ctl cluster members` shows who is down"
            )),
            Code::Cancelled | Code::DeadlineExceeded => Failure {
                elsewhere: false,
                ..Failure::unreachable(format!(
                    "{address}: no answer in time; without a quorum nothing is changed: `fulmar ctl cluster members` \
                     shows who is down"
                ))
            },
            Code::Unimplemented => Failure::refused(format!(
                "{address}: the node does not know this call; is it an admin door of Fulmar, and of this version?"
            )),
            Code::AlreadyExists => {
                Failure::refused(format!("{said}; `fulmar ctl apply` changes what is there already"))
            }
            Code::ResourceExhausted => Failure::refused(format!("{said}; ask for less, or later")),
            _ => Failure::refused(said),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_its_exit_code_and_says_what_to_do() {
        for (status, code, wanted, elsewhere) in [
            (Status::unauthenticated("no"), 4, "login", false),
            (Status::permission_denied("no"), 4, "get-contexts", false),
            (Status::not_found("The device does not exist."), 3, "The device does not exist.", false),
            (Status::unavailable("no lease"), 69, "quorum", true),
            (Status::deadline_exceeded(""), 69, "no answer in time", false),
            (Status::unimplemented(""), 1, "of this version", false),
            (Status::already_exists("It is there."), 1, "apply", false),
            (Status::invalid_argument("where is missing"), 1, "where is missing", false),
            (Status::failed_precondition("it leads"), 1, "it leads", false),
        ] {
            let failure = Failure::of_status(&status, "a:1", "is the node up?");
            assert_eq!((failure.code, failure.elsewhere), (code, elsewhere), "{status:?}");
            assert!(failure.text.contains(wanted), "{failure}");
        }
    }
}
