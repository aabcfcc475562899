//! The `rawcached` binary: hands the command line to the library, and chooses the allocator.

use std::process::ExitCode;

/// Keeps the RAM tier in huge pages (`.cargo/config.toml`), which that of the C library does only
/// for single blocks of megabytes. Programs that embed the library choose for themselves.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    rawcached::cli::main()
}
