//! How recovery uses the device and the cores at the same time. Owns the limits.

use tokio::sync::Semaphore;

/// Regions whose footers are read at the same time.
pub(in crate::store) const PARALLEL: usize = 32;

/// Attempts to read what recovery needs before a region is left alone.
pub(in crate::store) const READ_ATTEMPTS: usize = 3;

/// Threads that take footers apart and fill the index; never more than the processor has cores.
pub(in crate::store) const THREADS_MAX: usize = 8;

/// Threads to use, given what the process may run on.
pub(in crate::store) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}

/// Does work on a thread of its own, at most as many at a time as `limit` has permits; `None` if
/// the runtime ends. A panic goes on here.
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
