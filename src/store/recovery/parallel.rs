//! How much recovery reads and computes in parallel. Owns the limits.

use tokio::sync::Semaphore;

/// Regions whose footers are read at the same time.
pub(in crate::store) const PARALLEL: usize = 32;

/// Attempts to read what recovery needs of a region before leaving it alone.
pub(in crate::store) const READ_ATTEMPTS: usize = 3;

/// Most threads that decode footers and fill the index; also limited by the number of cores.
pub(in crate::store) const THREADS_MAX: usize = 8;

/// Number of threads to use on this machine.
pub(in crate::store) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}

/// Runs work on a thread of its own; at most as many at a time as `limit` has permits. `None` if the
/// runtime ends. Passes on a panic.
pub(in crate::store) async fn on_thread<T: Send + 'static>(
    limit: &Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let _turn = limit.acquire().await;
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Some(done),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => None,
        },
    }
}
