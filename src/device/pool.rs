//! The thread-pool engine: positioned vectored I/O on a few threads. Owns its threads and
//! their queue; never retries or cuts a request.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::sys::uio::pwritev;
use parking_lot::{Condvar, Mutex};

use super::files::Files;
use super::request::{Operation, Request};
use super::request_queue::RequestQueue;
use super::{AlignedBuf, OperationKind, WriteSlice, page_cache};

/// Slices given to one `pwritev`; a write of more is reported as short and continued.
const SLICES_MAX: usize = 64;

/// Carries out requests on its own threads, reads before all writes but one. A read that nobody
/// waits for when its turn comes is dropped. Dropping the pool waits for everything submitted.
pub(super) struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<u64>>,
}

struct Shared {
    files: Arc<Files>,
    work: Mutex<Work>,
    ready: Condvar,
}

struct Work {
    queue: RequestQueue,
    /// Threads that wait for a request.
    idle: usize,
    closed: bool,
}

impl ThreadPool {
    /// A pool of `threads` (at least two) on `files`.
    pub(super) fn start(files: Arc<Files>, threads: usize) -> io::Result<ThreadPool> {
        assert!(threads >= 2, "one thread to write and one that never does");
        // Writes leave half of the threads to reads.
        let shared = Arc::new(Shared::new(files, threads / 2));
        let mut pool = ThreadPool { shared, workers: Vec::with_capacity(threads) };
        for index in 0..threads {
            let shared = Arc::clone(&pool.shared);
            let name = format!("device-{index}");
            pool.workers.push(thread::Builder::new().name(name).spawn(move || shared.work())?);
        }
        Ok(pool)
    }
}

impl ThreadPool {
    /// Drops a range from the page cache, if the device is read through it.
    pub fn forget_cached(&self, offset: u64, len: usize) {
        if let Some(cached) = &self.shared.files.cached {
            page_cache::forget(cached, offset, len);
        }
    }

    /// Has a thread make a request; it is refused while too many wait.
    pub fn take(&self, request: Request) {
        if let Some(refused) = self.shared.enqueue(request) {
            refused.complete(Err(io::Error::from_raw_os_error(libc::EAGAIN)));
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.work.lock().closed = true;
        self.shared.ready.notify_all();
        for worker in self.workers.drain(..) {
            // A waker may drop the last handle on a worker; that one ends by itself.
            if worker.thread().id() != thread::current().id() && worker.join().is_err() {
                tracing::error!("a device thread panicked");
            }
        }
    }
}

impl Shared {
    fn new(files: Arc<Files>, writing_max: usize) -> Shared {
        let work = Work { queue: RequestQueue::new(writing_max), idle: 0, closed: false };
        Shared { files, work: Mutex::new(work), ready: Condvar::new() }
    }

    /// Queues `request`, or gives it back if the queue is full.
    fn enqueue(&self, request: Request) -> Option<Request> {
        let mut work = self.work.lock();
        let refused = work.queue.push(request);
        let wake = work.idle > 0;
        drop(work);
        if wake {
            self.ready.notify_one();
        }
        refused
    }

    /// Carries out requests until the pool is closed and drained; gives their number.
    fn work(&self) -> u64 {
        let mut finished = None;
        let mut carried_out = 0;
        while let Some(mut request) = self.next(finished) {
            finished = Some(request.operation.kind());
            let result = self.carry_out(&mut request);
            request.complete(result);
            carried_out += 1;
        }
        carried_out
    }

    /// The next request for this thread, which has `finished` one; `None` when the pool is closed
    /// and drained.
    fn next(&self, finished: Option<OperationKind>) -> Option<Request> {
        let mut work = self.work.lock();
        if let Some(kind) = finished {
            work.queue.finished(kind);
        }
        loop {
            if let Some(request) = work.queue.take() {
                // A write that had to wait may go now, and this thread did not take it.
                if work.idle > 0 && work.queue.may_write() {
                    self.ready.notify_one();
                }
                return Some(request);
            }
            // Writes may be left because of the limit: the threads now writing will take them.
            if work.closed {
                return None;
            }
            work.idle += 1;
            self.ready.wait(&mut work);
            work.idle -= 1;
        }
    }

    fn carry_out(&self, request: &mut Request) -> io::Result<usize> {
        let offset = libc::off_t::try_from(request.offset)
            .map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
        match &mut request.operation {
            Operation::Read { buf, filled, way } => read(self.files.of(*way), offset, buf, *filled),
            Operation::Write { slices, .. } => write(&self.files.main, offset, slices),
            Operation::Flush => self.files.main.sync_data().map(|()| 0),
        }
    }
}

/// Reads once into `buf` from byte `filled` on.
pub(super) fn read(
    file: &File,
    offset: libc::off_t,
    buf: &mut AlignedBuf,
    filled: usize,
) -> io::Result<usize> {
    let room = buf.capacity() - filled;
    let target = buf.spare(filled).cast();
    // SAFETY: `target` points at `room` bytes that this exclusively borrowed buffer owns.
    let got = unsafe { libc::pread(file.as_raw_fd(), target, room, offset) };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the bytes before `filled` were filled by earlier reads of this request, and
    // `pread` wrote the `got` bytes after them.
    unsafe { buf.assume_filled(filled + got) };
    Ok(got)
}

fn write(file: &File, offset: libc::off_t, slices: &[WriteSlice]) -> io::Result<usize> {
    let mut vector = [IoSlice::new(&[]); SLICES_MAX];
    let count = slices.len().min(SLICES_MAX);
    for (entry, slice) in vector.iter_mut().zip(slices) {
        *entry = IoSlice::new(slice.bytes());
    }
    Ok(pwritev(file, &vector[..count], offset)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Way;
    use crate::device::request::Completion;
    use tokio::sync::oneshot::Receiver;

    fn temporary(bytes: u64) -> Arc<Files> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        Arc::new(Files::only(file))
    }

    fn block(byte: u8) -> WriteSlice {
        let mut buf = AlignedBuf::zeroed(512, 512);
        buf.fill(0, &[byte; 512]);
        WriteSlice::whole(Arc::new(buf))
    }

    fn write_of(slices: Vec<WriteSlice>, offset: u64) -> (Request, Receiver<Completion>) {
        Request::new(offset, Operation::Write { slices, hold: None })
    }

    fn read_of(len: usize, offset: u64) -> (Request, Receiver<Completion>) {
        let buf = AlignedBuf::unfilled(len, 512);
        Request::new(offset, Operation::Read { buf, filled: 0, way: Way::Main })
    }

    #[test]
    fn a_write_of_many_slices_is_vectored_and_reads_back() {
        let pool = ThreadPool::start(temporary(1 << 20), 4).unwrap();
        let slices: Vec<_> = (0..100).map(block).collect();
        let (request, done) = write_of(slices, 1024);
        pool.take(request);
        assert_eq!(done.blocking_recv().unwrap().result.unwrap(), SLICES_MAX * 512);
        let (request, done) = read_of(SLICES_MAX * 512, 1024);
        pool.take(request);
        let Completion { operation: Operation::Read { buf, .. }, result } =
            done.blocking_recv().unwrap()
        else {
            panic!("not a read")
        };
        assert_eq!(result.unwrap(), buf.len());
        for (expected, chunk) in (0u8..).zip(buf.chunks(512)) {
            assert!(chunk.iter().all(|byte| *byte == expected));
        }
    }

    #[test]
    fn a_read_that_nobody_waits_for_is_not_made() {
        // No threads in this test: it works the queue by hand.
        let shared = Shared::new(temporary(1 << 20), 1);
        let (abandoned, waiter) = read_of(512, 0);
        drop(waiter);
        let (wanted, done) = read_of(512, 512);
        assert!(shared.enqueue(abandoned).is_none());
        assert!(shared.enqueue(wanted).is_none());
        shared.work.lock().closed = true;
        assert_eq!(shared.work(), 1, "one of the two");
        assert_eq!(done.blocking_recv().unwrap().result.unwrap(), 512);
    }

    #[test]
    fn dropping_the_pool_finishes_what_was_submitted() {
        let pool = ThreadPool::start(temporary(1 << 20), 2).unwrap();
        let waiting: Vec<_> = (0..200)
            .map(|offset| {
                let (request, done) = write_of(vec![block(3)], offset * 512);
                pool.take(request);
                done
            })
            .collect();
        drop(pool);
        for done in waiting {
            assert_eq!(done.blocking_recv().unwrap().result.unwrap(), 512);
        }
    }

    #[test]
    fn a_failed_system_call_gives_its_errno() {
        let read_only = File::open("/dev/null").unwrap();
        let pool = ThreadPool::start(Arc::new(Files::only(read_only)), 2).unwrap();
        let (request, done) = write_of(vec![block(1)], 0);
        pool.take(request);
        let error = done.blocking_recv().unwrap().result.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }
}
