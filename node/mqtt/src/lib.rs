//! MQTT on the wire: MQTT 3.1, 3.1.1 and 5 as one [`packet::Packet`], with framing and strict validation.
//! Absent here: sockets, clocks, sessions. A decoder is told its limits and fed bytes; an encoder appends to a buffer.

pub mod codec;
#[doc(hidden)]
pub mod fuzz;
pub mod limits;
pub mod packet;
pub mod property;
pub mod reason;
pub mod topic;

pub use codec::{DecodeError, Decoder, EncodeError, PublishRef, encode};
pub use packet::{Decoded, Packet, QoS, Version};
pub use reason::ReasonCode;
pub use topic::{TopicFilter, TopicName};
