//! Rules and their actions.

use fulmar_platform::event::Subject;
use fulmar_platform::registry::{Channel, Guarantee, Rule, RuleAction};
use fulmar_proto::types::v1::{self as proto, Channel as ChannelMessage, Guarantee as GuaranteeMessage};

use super::super::{Error, Problem, Wire, present};
use super::known;

impl Wire for Rule {
    type Message = proto::Rule;

    fn to_message(&self) -> proto::Rule {
        let guarantee = match self.guarantee {
            Guarantee::Live => GuaranteeMessage::Live,
            Guarantee::Durable => GuaranteeMessage::Durable,
        };
        proto::Rule {
            id: self.id.to_string(),
            name: self.name.to_string(),
            description: self.description.to_string(),
            resource: self.subject.resource().to_owned(),
            event: self.subject.event().to_owned(),
            app_id: self.app_id.to_string(),
            select: self.select.to_string(),
            filter: self.filter.to_string(),
            active: self.active,
            guarantee: guarantee.into(),
            created_ms: self.created_ms,
        }
    }

    fn from_message(message: proto::Rule) -> Result<Rule, Error> {
        let guarantee = |message| match message {
            GuaranteeMessage::Live => Some(Guarantee::Live),
            GuaranteeMessage::Durable => Some(Guarantee::Durable),
        };
        let subject = Subject::parse(&message.resource, &message.event);
        Ok(Rule {
            id: message.id.into(),
            name: message.name.into(),
            description: message.description.into(),
            subject: subject.ok_or_else(|| Error::new("resource", Problem::Missing))?,
            app_id: message.app_id.into(),
            select: message.select.into(),
            filter: message.filter.into(),
            active: message.active,
            guarantee: known("guarantee", message.guarantee, guarantee)?,
            created_ms: message.created_ms,
        })
    }
}

impl Wire for RuleAction {
    type Message = proto::RuleAction;

    fn to_message(&self) -> proto::RuleAction {
        let channel = match self.channel {
            Channel::MqttForwarding => ChannelMessage::MqttForwarding,
            Channel::MqttDeviceForwarding => ChannelMessage::MqttDeviceForwarding,
            Channel::HttpForwarding => ChannelMessage::HttpForwarding,
            Channel::KafkaForwarding => ChannelMessage::KafkaForwarding,
            Channel::Republish => ChannelMessage::Republish,
        };
        proto::RuleAction {
            id: self.id.to_string(),
            rule_id: self.rule_id.to_string(),
            app_id: self.app_id.to_string(),
            channel: channel.into(),
            detail: Some(proto::Secret { text: self.detail.to_string() }),
            created_ms: self.created_ms,
        }
    }

    fn from_message(message: proto::RuleAction) -> Result<RuleAction, Error> {
        let channel = |message| match message {
            ChannelMessage::Unspecified => None,
            ChannelMessage::MqttForwarding => Some(Channel::MqttForwarding),
            ChannelMessage::MqttDeviceForwarding => Some(Channel::MqttDeviceForwarding),
            ChannelMessage::HttpForwarding => Some(Channel::HttpForwarding),
            ChannelMessage::KafkaForwarding => Some(Channel::KafkaForwarding),
            ChannelMessage::Republish => Some(Channel::Republish),
        };
        Ok(RuleAction {
            id: message.id.into(),
            rule_id: message.rule_id.into(),
            app_id: message.app_id.into(),
            channel: known("channel", message.channel, channel)?,
            detail: present("detail", message.detail)?.text.into(),
            created_ms: message.created_ms,
        })
    }
}
