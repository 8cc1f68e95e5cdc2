//! The protobuf messages that nodes write to disk and exchange, generated from the .proto files beside this crate.
//! Absent here: what the messages mean (fulmar-broker) and the conversions, which check what comes in (fulmar).
//! The rules by which a message may change are in README.md; the tests keep them.

pub mod document;

/// What a session, a publication, a command and a stored record look like.
pub mod types {
    #[allow(unreachable_pub, clippy::all, clippy::pedantic)] // generated code: its style is prost's affair
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/fulmar.types.v1.rs"));

        /// What this build writes into every `format_version`, and the newest that it reads. From 1; 0 is an absent
        /// version and always an error.
        pub const FORMAT_VERSION: u32 = 1;

        impl std::fmt::Debug for Secret {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("***")
            }
        }
    }
}

/// Raft between members.
pub mod raft {
    #[allow(unreachable_pub, clippy::all, clippy::pedantic)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/fulmar.raft.v1.rs"));
    }
}

/// What nodes say to each other beside Raft.
pub mod peer {
    #[allow(unreachable_pub, clippy::all, clippy::pedantic)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/fulmar.peer.v1.rs"));
    }
}

pub use prost::{DecodeError, EncodeError, Message};
