//! What a node keeps on disk. So far that is who it is.

pub mod identity;
