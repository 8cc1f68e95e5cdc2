//! Copies of what was read, so that a small text never pins a large file.

use crate::state::command::{Outcome, Subscription};

pub(super) fn kept(subscription: Subscription) -> Subscription {
    Subscription { filter: subscription.filter.detached(), ..subscription }
}

pub(super) fn detached(mut outcome: Outcome) -> Outcome {
    if let Outcome::Claimed(claimed) = &mut outcome {
        claimed.subscriptions = std::mem::take(&mut claimed.subscriptions).into_iter().map(kept).collect();
    }
    outcome
}
