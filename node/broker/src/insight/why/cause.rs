//! Why somebody does not get a message: the causes, and what to do about each.

/// A closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    Banned,
    UnknownClient,
    NeverConnected,
    FrozenDevice,
    ConnectRefused,
    NoPermission,
    QueueFull,
    Expired,
    NotSubscribed,
    QosDowngrade,
    OfflineAndCached,
    OfflineNotKept,
    SupersededOwner,
    ReceiveMaximum,
    SlowReceiver,
    Dropped,
    NoLocal,
    RetainedOnly,
    ConnectionLost,
    RuleMissing,
    RuleInactive,
    RuleFiltered,
    RuleFailed,
    SinkDown,
    NothingFound,
}

impl Cause {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Banned => "banned",
            Cause::UnknownClient => "unknown_client",
            Cause::NeverConnected => "never_connected",
            Cause::FrozenDevice => "frozen_device",
            Cause::ConnectRefused => "connect_refused",
            Cause::NoPermission => "no_permission",
            Cause::QueueFull => "queue_full",
            Cause::Expired => "expired",
            Cause::NotSubscribed => "not_subscribed",
            Cause::QosDowngrade => "qos_downgrade",
            Cause::OfflineAndCached => "offline_and_cached",
            Cause::OfflineNotKept => "offline_not_kept",
            Cause::SupersededOwner => "superseded_owner",
            Cause::ReceiveMaximum => "receive_maximum",
            Cause::SlowReceiver => "slow_receiver",
            Cause::Dropped => "dropped",
            Cause::NoLocal => "no_local",
            Cause::RetainedOnly => "retained_only",
            Cause::ConnectionLost => "connection_lost",
            Cause::RuleMissing => "rule_missing",
            Cause::RuleInactive => "rule_inactive",
            Cause::RuleFiltered => "rule_filtered",
            Cause::RuleFailed => "rule_failed",
            Cause::SinkDown => "sink_down",
            Cause::NothingFound => "nothing_found",
        }
    }

    pub(super) fn advice(self) -> &'static str {
        match self {
            Cause::Banned => "Lift the ban, or find out what made the client a nuisance.",
            Cause::UnknownClient => "Check the spelling; a device has to be registered, or to have connected once.",
            Cause::NeverConnected => "Check the device's address, port, credentials and network.",
            Cause::FrozenDevice => "Unfreeze the device.",
            Cause::ConnectRefused => "Check the client's credentials, and the clock that its password was made with.",
            Cause::NoPermission => "Grant the topic in the access list or the product's topics, or correct the client.",
            Cause::QueueFull => "Have the client connect and take its messages, or raise the bound of queues.",
            Cause::Expired => "Give the message a longer expiry, or raise session.queue_ttl.",
            Cause::NotSubscribed => "Have the client subscribe to a filter that matches the topic.",
            Cause::QosDowngrade => "Subscribe with QoS 1 or 2, so that messages are kept and acknowledged.",
            Cause::OfflineAndCached => "The messages are delivered when the client connects again.",
            Cause::OfflineNotKept => "Have the client connect with a session that outlives its connection.",
            Cause::SupersededOwner => "Find the second client with this identity, and give it one of its own.",
            Cause::ReceiveMaximum => "The client must acknowledge what it has before it is sent more.",
            Cause::SlowReceiver => "Look at the client's network and at how fast it handles messages.",
            Cause::Dropped => "See the bound that is named.",
            Cause::NoLocal => "Subscribe without no-local to receive one's own messages.",
            Cause::RetainedOnly => "Publish again, or subscribe with retain handling 0.",
            Cause::ConnectionLost => "Look at the client's network and keep-alive.",
            Cause::RuleMissing => "Check the rule's id.",
            Cause::RuleInactive => "Activate the rule.",
            Cause::RuleFiltered => "Try the rule with the event in test mode, and correct its where.",
            Cause::RuleFailed => "See the rule's last error.",
            Cause::SinkDown => "See to the target; what is durable is kept and sent again.",
            Cause::NothingFound => "Start a trace for the client or the topic, and send a message again.",
        }
    }
}
