//! TLS as the files of the configuration say at this moment: what is shown and who is trusted, for clients, admins and other
//! nodes. The files are watched; what new ones say holds from the next handshake on, and connections that exist go on.

mod accept;
mod dial;
mod secure;
mod watch;

pub use accept::{Wire, handshakes};
pub use dial::Dialler;
pub use secure::{Purpose, Secured, Tls};
pub use watch::{Certificates, Ends, Status};

#[cfg(test)]
mod tests;
