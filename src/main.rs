//! The `rawcached` binary: hands the command line to the library, and chooses the allocator.

mod allocator;

use std::process::ExitCode;

fn main() -> ExitCode {
    allocator::bound_freed_memory();
    rawcached::cli::main()
}
