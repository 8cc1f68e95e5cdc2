//! What tests may break on purpose, to show that they would notice.

/// Whether a test wants publishers to be answered before their messages are committed.
pub(super) fn acknowledges_early() -> bool {
    fail::fail_point!("ack::before_commit", |_| true);
    false
}

/// Whether a test wants packet ids of QoS 2 to be forgotten with the connection.
pub(super) fn forgets_ids() -> bool {
    fail::fail_point!("qos2::forget", |_| true);
    false
}
