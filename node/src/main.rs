//! The `fulmar` program.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// glibc's keeps what a burst has left for ever; then resident memory says nothing about what is needed.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    fulmar::cli::main()
}
