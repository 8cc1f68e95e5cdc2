//! The `fulmar` program.

use std::process::ExitCode;

/// Thousands of small, short-lived buffers on a few threads: kept compact, also after a peak.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    fulmar::cli::main()
}
