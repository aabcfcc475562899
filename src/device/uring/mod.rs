//! The io_uring engine: a ring in each thread that asks for one, and a thread with a ring for all
//! others. Owns the open files; never retries or cuts a request.

mod local;
mod ring;
#[cfg(test)]
mod tests;
mod thread;

use std::io;
use std::sync::Arc;

pub use local::{ThreadRing, look_soon};

use super::engine::{Engine, Request};
use super::files::Files;
use super::page_cache;
use local::EngineId;
use ring::Ring;
use thread::RingThread;

/// Rings on one open device.
pub(super) struct Uring {
    id: EngineId,
    files: Arc<Files>,
    thread: RingThread,
}

impl Uring {
    /// An engine that owns `files`, or the files back and why the kernel does not do it.
    pub(super) fn start(files: Files) -> Result<Uring, (Files, io::Error)> {
        let files = Arc::new(files);
        match RingThread::start(Arc::clone(&files)) {
            Ok(thread) => Ok(Uring { id: EngineId::next(), files, thread }),
            Err(error) => {
                let files = Arc::into_inner(files).expect("the thread has ended");
                Err((files, error))
            }
        }
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

    fn thread_ring(&self) -> io::Result<Option<ThreadRing>> {
        let ring = Ring::new(Arc::clone(&self.files))?;
        ThreadRing::install(self.id, ring).map(Some)
    }
}
