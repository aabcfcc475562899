//! Threads that make the requests of rings that the kernel stopped serving. Owns the threads, and the
//! count of such rings; never judges a ring.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::device::files::Files;
use crate::device::pool::ThreadPool;
use crate::device::request::Request;

/// Makes requests in place of lost rings. Has no threads before the first ring is lost.
pub(super) struct Fallback {
    files: Arc<Files>,
    threads: usize,
    pool: Mutex<Option<Arc<ThreadPool>>>,
    lost_rings: AtomicU64,
}

impl Fallback {
    /// A fallback that will start `threads` (at least two).
    pub fn new(files: Arc<Files>, threads: usize) -> Fallback {
        Fallback { files, threads, pool: Mutex::default(), lost_rings: AtomicU64::new(0) }
    }

    /// Rings that were lost.
    pub fn lost_rings(&self) -> u64 {
        self.lost_rings.load(Ordering::Relaxed)
    }

    /// Makes the `requests` of a ring that was lost by `error`. Completes some of them at once; no lock
    /// may be held that a waker takes.
    pub fn take_over(&self, requests: Vec<Request>, error: &io::Error) {
        let count = requests.len();
        if self.lost_rings.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(%error, count, "io_uring stopped to work: threads take over");
        } else {
            tracing::debug!(%error, count, "threads take over from one more io_uring");
        }
        requests.into_iter().for_each(|request| self.submit(request));
    }

    /// Makes a request.
    pub fn submit(&self, request: Request) {
        match self.pool() {
            Ok(pool) => pool.take(request),
            Err(error) => {
                tracing::error!(%error, "no threads for a request to the device");
                request.complete(Err(error));
            }
        }
    }

    /// The pool; if its threads cannot be started, the next request tries again.
    fn pool(&self) -> io::Result<Arc<ThreadPool>> {
        let mut pool = self.pool.lock();
        if pool.is_none() {
            *pool = Some(Arc::new(ThreadPool::start(Arc::clone(&self.files), self.threads)?));
        }
        pool.clone().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}
