//! How much room the disk has.

use std::io;
use std::path::Path;

/// Bytes that this process may still write to the file system of `path`.
///
/// # Errors
/// If the system does not say.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    fail::fail_point!("disk::free_bytes", |bytes: Option<String>| {
        Ok(bytes.and_then(|bytes| bytes.parse().ok()).unwrap_or_default())
    });
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
