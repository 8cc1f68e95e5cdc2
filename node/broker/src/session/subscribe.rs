//! SUBSCRIBE and UNSUBSCRIBE.

use fulmar_mqtt::packet::{ReasonProperties, RetainHandling, SubAck, Subscribe, UnsubAck, Unsubscribe};
use fulmar_mqtt::{Packet, ReasonCode, TopicFilter, Version};

use fulmar_platform::Subscribing;

use super::{Denial, Output, Session, Token};
use crate::state::command::Subscription;

/// What a SUBACK or UNSUBACK waits for.
#[derive(Debug)]
pub(super) enum Pending {
    Subscribe { packet_id: u16, reasons: Vec<ReasonCode>, subscriptions: Vec<Subscription> },
    Unsubscribe { packet_id: u16, reasons: Vec<ReasonCode> },
}

impl Session {
    pub(super) fn subscribe(&mut self, subscribe: Subscribe, outputs: &mut Vec<Output>) {
        let mut subscriptions: Vec<Subscription> = Vec::with_capacity(subscribe.filters.len());
        let mut fresh = 0;
        let mut reasons = Vec::with_capacity(subscribe.filters.len());
        let most_filters = self.limits.subscriptions_max.min(self.manners.subscriptions_max.unwrap_or(usize::MAX));
        for mut wanted in subscribe.filters {
            let granted = self.voice.subscribing(&wanted.filter);
            if let (Subscribing::Grant(_), Some(routed)) = (granted, self.voice.routed(&wanted.filter)) {
                wanted.filter = routed;
            }
            let known = self.subscriptions.contains_key(&wanted.filter);
            let reason = if wanted.filter.level_count() > self.limits.topic_levels_max {
                ReasonCode::TopicFilterInvalid
            } else {
                let full = !known && self.subscriptions.len() + fresh >= most_filters;
                match granted {
                    Subscribing::Deny => {
                        outputs.push(Output::Denied(Denial::Subscribe(wanted.filter.clone())));
                        ReasonCode::NotAuthorized
                    }
                    Subscribing::Grant(_) if full => ReasonCode::QuotaExceeded,
                    Subscribing::Grant(most) => {
                        let asked = wanted.options.qos;
                        if most < asked {
                            let filter = wanted.filter.clone();
                            outputs.push(Output::Denied(Denial::Lowered { filter, asked, granted: most }));
                        }
                        wanted.options.qos = wanted.options.qos.min(most);
                        ReasonCode::granted(wanted.options.qos)
                    }
                }
            };
            if !reason.is_error() {
                fresh += usize::from(!known);
                subscriptions.push(Subscription {
                    filter: wanted.filter.detached(),
                    options: wanted.options,
                    id: subscribe.subscription_id,
                });
            }
            reasons.push(reason);
        }
        let token = self.token();
        let packet_id = subscribe.packet_id;
        if subscriptions.is_empty() {
            self.suback(packet_id, reasons, outputs);
            return;
        }
        let existed = subscriptions
            .iter()
            .map(|s| self.subscriptions.insert(s.filter.clone(), (s.options, s.id)).is_some())
            .collect();
        outputs.push(Output::Subscribe { token, subscriptions: subscriptions.clone(), existed });
        self.pending.insert(token, Pending::Subscribe { packet_id, reasons, subscriptions });
    }

    fn suback(&mut self, packet_id: u16, reasons: Vec<ReasonCode>, outputs: &mut Vec<Output>) {
        let properties = ReasonProperties::default();
        outputs.push(Output::Send(Packet::SubAck(Box::new(SubAck { packet_id, reasons, properties }))));
    }

    pub(super) fn subscribed(&mut self, token: Token, existed: &[bool], outputs: &mut Vec<Output>) {
        let Some(Pending::Subscribe { packet_id, reasons, subscriptions }) = self.pending.remove(&token) else {
            return;
        };
        self.suback(packet_id, reasons, outputs);
        for (subscription, existed) in subscriptions.into_iter().zip(existed) {
            let replay = match subscription.options.retain_handling {
                RetainHandling::Always => true,
                RetainHandling::IfNew => !existed,
                RetainHandling::Never => false,
            };
            // [v5 4.8.2] retained messages are not sent to shared subscriptions.
            if replay && subscription.filter.shared().is_none() {
                outputs.push(Output::Replay(subscription));
            }
        }
    }

    pub(super) fn unsubscribe(&mut self, unsubscribe: Unsubscribe, outputs: &mut Vec<Output>) {
        let token = self.token();
        let routed = |filter: &TopicFilter| self.voice.routed(filter).unwrap_or_else(|| filter.detached());
        let filters: Vec<TopicFilter> = unsubscribe.filters.iter().map(routed).collect();
        let existed = filters.iter().map(|filter| self.subscriptions.remove(filter).is_some()).collect();
        self.pending.insert(token, Pending::Unsubscribe { packet_id: unsubscribe.packet_id, reasons: Vec::new() });
        outputs.push(Output::Unsubscribe { token, filters, existed });
    }

    pub(super) fn unsubscribed(&mut self, token: Token, existed: &[bool], outputs: &mut Vec<Output>) {
        let Some(Pending::Unsubscribe { packet_id, mut reasons }) = self.pending.remove(&token) else { return };
        if self.version == Version::V5 {
            reasons.extend(existed.iter().map(|existed| match existed {
                true => ReasonCode::Success,
                false => ReasonCode::NoSubscriptionExisted,
            }));
        }
        let properties = ReasonProperties::default();
        outputs.push(Output::Send(Packet::UnsubAck(Box::new(UnsubAck { packet_id, reasons, properties }))));
    }
}
