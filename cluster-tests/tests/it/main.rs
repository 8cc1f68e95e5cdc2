//! What a single node promises, asked of real processes from outside. Each test starts what it needs, or shares a node
//! with those that run at the same time; everything listens on 127.0.0.1.

mod books;
mod dev;
mod hostile;
mod protocol;
mod serve;
mod support;
