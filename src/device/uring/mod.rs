//! The io_uring engine: a ring in each thread that asks for one, and a thread with a ring for all
//! others. Owns the open files; never retries or cuts a request, except those of a ring that the kernel
//! stopped serving.

mod fallback;
mod local;
mod ring;
#[cfg(test)]
mod tests;
mod thread;

use std::io;
use std::sync::Arc;

pub use local::{ThreadRing, look_soon};

use super::engine::Engine;
use super::files::Files;
use super::page_cache;
use super::request::Request;
use fallback::Fallback;
use local::EngineId;
use ring::Ring;
use thread::RingThread;

/// Rings on one open device.
pub(super) struct Uring {
    id: EngineId,
    files: Arc<Files>,
    thread: RingThread,
    fallback: Arc<Fallback>,
}

impl Uring {
    /// An engine on `files`, which starts `threads` if the kernel stops serving a ring.
    ///
    /// # Errors
    /// The kernel does not support or allow io_uring.
    pub(super) fn start(files: Arc<Files>, threads: usize) -> io::Result<Uring> {
        let fallback = Arc::new(Fallback::new(Arc::clone(&files), threads));
        let thread = RingThread::start(Arc::clone(&files), Arc::clone(&fallback))?;
        Ok(Uring { id: EngineId::next(), files, thread, fallback })
    }
}

impl Engine for Uring {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn submit(&self, request: Request) {
        if let Some(request) = local::submit(self.id, request) {
            self.thread.submit(request);
        }
    }

    fn forget_cached(&self, offset: u64, len: usize) {
        if let Some(cached) = &self.files.cached {
            page_cache::forget(cached, offset, len);
        }
    }

    fn lost_rings(&self) -> u64 {
        self.fallback.lost_rings()
    }

    fn thread_ring(&self) -> io::Result<Option<ThreadRing>> {
        let ring = Ring::new(Arc::clone(&self.files))?;
        ThreadRing::install(self.id, ring, Arc::clone(&self.fallback)).map(Some)
    }
}
