//! MQTT over TCP, TLS and WebSocket, and HTTP beside it: accepting, telling protocols apart, and the loop of one
//! connection.

mod accept;
mod admission;
mod connection;
mod farewell;
mod http;
mod link;
mod proxy;
mod quiet;
mod stream;
mod websocket;

pub use accept::{Door, bind, run};
pub use admission::Admission;
pub use http::{Configure, Workers};
