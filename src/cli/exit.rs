//! How the process ends.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long the end waits for its message to be written: perhaps nobody reads it.
const MESSAGE_LIMIT: Duration = Duration::from_secs(1);

/// A key is missing or damage was found.
pub(super) const EXIT_NEGATIVE: u8 = 1;

/// The command or the configuration is wrong, or the command could not be carried out.
pub(super) const EXIT_UNUSABLE: u8 = 2;

pub(super) fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    let message = format!("rawcached: {error:#}\n");
    let (written, wait) = mpsc::channel();
    let write = move || {
        // There is nobody else to tell.
        let _ = io::stderr().write_all(message.as_bytes());
        let _ = written.send(());
    };
    if thread::Builder::new().spawn(write).is_ok() {
        let _ = wait.recv_timeout(MESSAGE_LIMIT);
    }
    ExitCode::from(code)
}
