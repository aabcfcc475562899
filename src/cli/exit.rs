//! How the process ends.

use std::process::ExitCode;

/// A key is missing or damage was found.
pub(super) const EXIT_NEGATIVE: u8 = 1;

/// The command or the configuration is wrong, or the command could not be carried out.
pub(super) const EXIT_UNUSABLE: u8 = 2;

pub(super) fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("rawcached: {error:#}");
    ExitCode::from(code)
}
