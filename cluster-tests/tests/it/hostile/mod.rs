//! Clients that break rules, by mistake or on purpose: refused with a reason, and nobody else notices.

mod bounds;
mod crowds;
mod malformed;
mod random;
mod slow;
mod websocket;
