//! The io_uring engine: a ring in each thread that asks for one, and a thread with a ring for all
//! others. Owns the open file; never retries or cuts a request.

mod local;
mod ring;
#[cfg(test)]
mod tests;
mod thread;

use std::fs::File;
use std::io;
use std::sync::Arc;

pub use local::{ThreadRing, submit_waiting};

use super::engine::{Engine, Request};
use local::EngineId;
use ring::Ring;
use thread::RingThread;

/// Rings on one open device.
pub(super) struct Uring {
    id: EngineId,
    file: Arc<File>,
    thread: RingThread,
}

impl Uring {
    /// An engine that owns `file`, or the file back and why the kernel does not do it.
    pub(super) fn start(file: File) -> Result<Uring, (File, io::Error)> {
        let file = Arc::new(file);
        match RingThread::start(Arc::clone(&file)) {
            Ok(thread) => Ok(Uring { id: EngineId::next(), file, thread }),
            Err(error) => {
                let file = Arc::into_inner(file).expect("the thread has ended");
                Err((file, error))
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

    fn thread_ring(&self) -> io::Result<Option<ThreadRing>> {
        let ring = Ring::new(Arc::clone(&self.file))?;
        ThreadRing::install(self.id, ring).map(Some)
    }
}
