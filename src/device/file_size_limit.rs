//! The limit on the size of files (`RLIMIT_FSIZE`). Makes a write beyond it an error instead of the
//! end of the process; never changes the limit.

use nix::sys::signal::{SigHandler, Signal, signal};

/// Makes writes beyond the limit fail with `EFBIG`: by default the kernel kills the process with
/// SIGXFSZ. For the whole process; call once, early.
pub fn survive_file_size_limit() {
    // SAFETY: ignoring a signal installs no handler, so no code of ours runs in one.
    let ignored = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
    if let Err(error) = ignored {
        tracing::warn!(%error, "a file size limit may end the process");
    }
}
