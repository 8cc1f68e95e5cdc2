//! What belongs to things, where rows name it.

use super::{Column, Related, age, number, state, text};

pub(super) const SESSION: &[Related] = &[
    Related {
        title: "Connection",
        call: "Sessions/Show",
        by: "session",
        of: "session",
        part: "connection",
        columns: &[],
    },
    Related {
        title: "Subscriptions",
        call: "Sessions/Show",
        by: "session",
        of: "session",
        part: "subscriptions",
        columns: &[text("FILTER", "filter"), number("QOS", "qos"), text("NO LOCAL", "no_local")],
    },
];

pub(super) const MESSAGES: &[Column] = &[
    text("MESSAGE", "message_id"),
    text("NAME", "name"),
    state("STATUS", "status"),
    age("AGE", "created_time"),
    text("TOPIC", "topic").wide(),
];
