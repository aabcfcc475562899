//! The `rawcached` binary: hands the command line to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    rawcached::cli::main()
}
