//! One io_uring of one thread. Owns the requests given to it until they are complete; never
//! decides who waits for them.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use io_uring::squeue::{Entry, PushError};
use io_uring::{EnterFlags, IoUring, Probe, cqueue, opcode, types};

use crate::clock::Stopwatch;
use crate::device::files::Files;
use crate::device::request::{Operation, Request};
use crate::device::request_queue::RequestQueue;
use crate::device::{ALIGNMENT_MAX, AlignedBuf, Way, pool};

/// Most requests of one ring at the device at once. Loop devices take 128 (`nr_requests` in sysfs); the
/// kernel would hand requests beyond a device's limit to threads of its own.
pub(super) const DEPTH: usize = 128;

/// Most writes and flushes among them. The others are for reads, which wait at the device behind at
/// most 4 MiB of writes.
const WRITING_MAX: usize = 4;

/// Slices given to the kernel as one write (UIO_MAXIOV is 1024); a write of more is reported as
/// short and continued.
const SLICES_MAX: usize = 64;

/// Longest transfer in one request, in bytes: what fits 32 bits as a multiple of every alignment.
const TRANSFER_LEN_MAX: usize = 1 << 30;

/// Most attempts to enter the kernel for the trial read.
const TRIAL_TURNS_MAX: u32 = 1000;
/// How long the kernel may refuse all calls for lack of resources before the ring is given up, and the
/// pause of a caller that waits after each attempt.
const REFUSED_MAX: Duration = Duration::from_secs(5);
const REFUSED_PAUSE: Duration = Duration::from_millis(1);

/// How often a lost ring is looked at before the memory that the kernel still has is leaked, and the
/// pause between two looks.
const LAST_LOOKS: u32 = 100;
const LAST_LOOK_PAUSE: Duration = Duration::from_millis(10);

/// Marks the completion of a wake-up, not of a request.
const WAKE: u64 = u64::MAX;

/// The registered files' numbers.
const DEVICE: types::Fixed = types::Fixed(0);
const DEVICE_CACHED: types::Fixed = types::Fixed(1);

/// What a turn waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing.
    No,
    /// The end of a request, if one is at the device.
    Request,
    /// The end of a request, or a wake-up.
    WakeUp,
}

/// A request that is over, and how it went.
pub(super) type Finished = (Request, io::Result<usize>);

/// A ring for the thread that makes it, and for no other.
///
/// While requests are in flight the kernel reads and writes memory that they own, so a ring
/// keeps them until they are complete, and waits for that when it is dropped.
///
/// If the kernel refuses a call for a reason that no request caused (forbidden since, out of memory), it
/// may never serve the ring again: the ring is lost. Then [`Ring::give_up`] takes its requests out.
pub(super) struct Ring {
    ring: IoUring,
    queue: RequestQueue,
    slots: Box<[Slot]>,
    free: Vec<usize>,
    /// Entries that were put into the submission queue.
    entries: u64,
    /// Since when the kernel refuses all calls.
    refused: Option<Stopwatch>,
    is_lost: bool,
    /// A descriptor whose readiness ends a wait, and whether the kernel watches it.
    wake: Option<(RawFd, bool)>,
    /// Kept open as long as requests name them.
    _files: Arc<Files>,
}

/// A request at the device, and the vector that describes its memory.
#[derive(Default)]
struct Slot {
    request: Option<Request>,
    vector: Vec<libc::iovec>,
    /// How many entries were put into the submission queue before it, ever.
    entry: u64,
}

impl Ring {
    /// A ring on `files` for the calling thread, tried out by reading a block.
    ///
    /// # Errors
    /// The kernel has no io_uring, forbids it or a part of it, or lacks an operation or mode (Linux 6.1
    /// has all).
    pub fn new(files: Arc<Files>) -> io::Result<Ring> {
        let mut ring = Ring::untried(Arc::clone(&files))?;
        ring.try_out(&files)?;
        Ok(ring)
    }

    fn untried(files: Arc<Files>) -> io::Result<Ring> {
        let depth = u32::try_from(DEPTH).expect("a small number");
        let ring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(depth + 1)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let needed = [
            opcode::Read::CODE,
            opcode::Write::CODE,
            opcode::Writev::CODE,
            opcode::Fsync::CODE,
            opcode::PollAdd::CODE,
        ];
        if !needed.iter().all(|code| probe.is_supported(*code)) {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        let descriptors: Vec<RawFd> =
            std::iter::once(&files.main).chain(&files.cached).map(AsRawFd::as_raw_fd).collect();
        ring.submitter().register_files(&descriptors)?;
        let slots = (0..DEPTH).map(|_| Slot::default()).collect();
        let free = (0..DEPTH).rev().collect();
        let queue = RequestQueue::new(WRITING_MAX);
        let (entries, refused, is_lost, wake) = (0, None, false, None);
        Ok(Ring { ring, queue, slots, free, entries, refused, is_lost, wake, _files: files })
    }

    /// Reads a block as later requests will. If the read fails without the ring too, the device has
    /// failed, not the ring.
    fn try_out(&mut self, files: &Files) -> io::Result<()> {
        let len = ALIGNMENT_MAX as usize;
        let buf = AlignedBuf::unfilled(len, len);
        let (request, _waiter) =
            Request::new(0, Operation::Read { buf, filled: 0, way: Way::Main });
        let refused = self.push(request);
        assert!(refused.is_none(), "a new queue is empty");
        let mut finished = Vec::new();
        for _ in 0..TRIAL_TURNS_MAX {
            if let Err(error) = self.turn(Wait::Request, &mut finished) {
                drop(self.give_up());
                return Err(error);
            }
            let Some((_, result)) = finished.pop() else { continue };
            return result.map(drop).or_else(|error| {
                let mut buf = AlignedBuf::unfilled(len, len);
                let without = pool::read(&files.main, 0, &mut buf, 0);
                if without.is_ok() { Err(error) } else { Ok(()) }
            });
        }
        drop(self.give_up());
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }

    /// Has the kernel add 1 to the counter of `eventfd` when completions arrive.
    pub fn notify(&self, eventfd: RawFd) -> io::Result<()> {
        self.ring.submitter().register_eventfd(eventfd)
    }

    /// Queues `request`, or gives it back if the queue is full.
    ///
    /// # Panics
    /// If the ring is lost.
    pub fn push(&mut self, request: Request) -> Option<Request> {
        assert!(!self.is_lost, "requests of a lost ring are made elsewhere");
        self.queue.push(request)
    }

    /// Whether its requests were taken out, and no more may be pushed.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Requests that wait to be given to the kernel.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether no request waits or is at the device.
    pub fn is_idle(&self) -> bool {
        self.queue.len() == 0 && self.in_flight() == 0
    }

    /// Requests whose memory the kernel has.
    pub fn in_flight(&self) -> usize {
        DEPTH - self.free.len()
    }

    /// Gives waiting requests to the kernel, waits, and moves complete ones to `finished`. For a lost
    /// ring it only takes back what the kernel is done with, and waits for nothing.
    ///
    /// # Errors
    /// The kernel does not serve the ring any more: give it up.
    pub fn turn(&mut self, wait: Wait, finished: &mut Vec<Finished>) -> io::Result<()> {
        if self.is_lost {
            self.enter_lost();
            self.reap(finished);
            return Ok(());
        }
        self.prepare();
        let has_entries = !self.ring.submission().is_empty();
        let has_results = self.ring.submission().taskrun();
        let waits = match wait {
            Wait::No => false,
            // All waiting requests may have been abandoned.
            Wait::Request => self.in_flight() > 0,
            Wait::WakeUp => true,
        };
        let entered = match has_entries || has_results || waits {
            true => self.enter(usize::from(waits)),
            false => Ok(()),
        };
        self.reap(finished);
        entered
    }

    /// Whether the kernel has left entries in the submission queue.
    pub fn has_leftover(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    /// Gives waiting requests to the kernel without looking for results.
    ///
    /// # Errors
    /// As [`Ring::turn`].
    pub fn submit(&mut self) -> io::Result<()> {
        self.prepare();
        if self.ring.submission().is_empty() { Ok(()) } else { self.enter(0) }
    }

    fn enter(&mut self, wait: usize) -> io::Result<()> {
        match self.ring.submit_and_wait(wait) {
            Ok(_) => self.refused = None,
            // Entries not taken stay in the submission queue.
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) if is_passing(&error) => {
                if self.refused.get_or_insert_with(Stopwatch::start).elapsed() >= REFUSED_MAX {
                    return Err(error);
                }
                // A caller that waits would retry at once.
                if wait > 0 {
                    thread::sleep(REFUSED_PAUSE);
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Asks the kernel for completions without giving it new requests.
    fn enter_lost(&self) {
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: no entry is submitted, and there is no argument.
        let entered = unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 0, flags, None) };
        if let Err(error) = entered {
            tracing::debug!(%error, "a lost ring is not heard");
        }
    }

    /// Takes out every request, to be made elsewhere; the ring accepts no more. Requests that the kernel
    /// has seen are made a second time, with new memory: the old stays here until the kernel is done.
    pub fn give_up(&mut self) -> Vec<Request> {
        self.is_lost = true;
        let unseen = self.ring.submission().len() as u64;
        let seen = self.entries - unseen;
        let mut requests = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(mut request) = slot.request.take() else { continue };
            if slot.entry < seen {
                requests.push(request.once_more());
                slot.request = Some(request);
            } else {
                requests.push(request);
                self.free.push(index);
            }
        }
        requests.extend(self.queue.drain());
        requests
    }

    /// Ends a wait whenever `eventfd` is written, from now on.
    pub fn wake_on(&mut self, eventfd: RawFd) {
        self.wake = Some((eventfd, false));
    }

    /// Moves waiting requests into the submission queue as far as the depth allows.
    fn prepare(&mut self) {
        if let Some((eventfd, watched @ false)) = &mut self.wake {
            let flags = u32::from(libc::POLLIN.unsigned_abs());
            let entry = opcode::PollAdd::new(types::Fd(*eventfd), flags).multi(true).build();
            *watched = true;
            // SAFETY: a poll names no memory.
            unsafe { self.enter_entry(entry.user_data(WAKE)) };
        }
        while let Some(index) = self.free.last().copied() {
            let Some(request) = self.queue.take() else { break };
            self.free.pop();
            self.slots[index].entry = self.entries;
            let entry = self.slots[index].take_on(request);
            // SAFETY: the slot keeps request and vector until the completion was seen.
            unsafe { self.enter_entry(entry.user_data(index as u64)) };
        }
    }

    /// # Safety
    /// Whatever memory `entry` names must stay valid until its completion.
    unsafe fn enter_entry(&mut self, entry: Entry) {
        // SAFETY: the caller's promise.
        let pushed: Result<(), PushError> = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("the queue has an entry for each slot and one for the wake-up");
        self.entries += 1;
    }

    fn reap(&mut self, finished: &mut Vec<Finished>) {
        for completion in self.ring.completion() {
            if completion.user_data() == WAKE {
                let watched = cqueue::more(completion.flags());
                self.wake = self.wake.map(|(eventfd, _)| (eventfd, watched));
                continue;
            }
            let index = usize::try_from(completion.user_data()).expect("a slot's index");
            let mut request = self.slots[index].request.take().expect("completed once");
            self.free.push(index);
            self.queue.finished(request.operation.kind());
            let result = request_result(&mut request, completion.result());
            finished.push((request, result));
        }
    }
}

/// Whether a failed `io_uring_enter` is worth another try: interrupted, no memory for requests, or
/// completions to be taken first (io_uring_enter(2)).
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

/// What a completion says of a request: bytes, or an errno below zero.
fn request_result(request: &mut Request, result: i32) -> io::Result<usize> {
    let bytes = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))?;
    if let Operation::Read { buf, filled, .. } = &mut request.operation {
        // SAFETY: what was filled before is, and the kernel wrote `bytes` after it.
        unsafe { buf.assume_filled(*filled + bytes) };
    }
    Ok(bytes)
}

impl Slot {
    /// Takes `request` over and describes it to the kernel.
    fn take_on(&mut self, request: Request) -> Entry {
        let offset = request.offset;
        let request = self.request.insert(request);
        match &mut request.operation {
            Operation::Read { buf, filled, way } => {
                let len = u32_len(buf.capacity() - *filled);
                let file = match way {
                    Way::Main => DEVICE,
                    Way::PageCache => DEVICE_CACHED,
                };
                opcode::Read::new(file, buf.spare(*filled), len).offset(offset).build()
            }
            Operation::Write { slices, .. } if slices.len() == 1 => {
                let bytes = slices[0].bytes();
                let len = u32_len(bytes.len());
                opcode::Write::new(DEVICE, bytes.as_ptr(), len).offset(offset).build()
            }
            Operation::Write { slices, .. } => {
                self.vector.clear();
                self.vector.extend(slices.iter().take(SLICES_MAX).map(|slice| libc::iovec {
                    iov_base: slice.bytes().as_ptr().cast_mut().cast(),
                    iov_len: slice.bytes().len(),
                }));
                let count = u32_len(self.vector.len());
                opcode::Writev::new(DEVICE, self.vector.as_ptr(), count).offset(offset).build()
            }
            Operation::Flush => {
                opcode::Fsync::new(DEVICE).flags(types::FsyncFlags::DATASYNC).build()
            }
        }
    }
}

/// A length for the kernel: a longer transfer is cut, reported as short and continued.
fn u32_len(len: usize) -> u32 {
    u32::try_from(len.min(TRANSFER_LEN_MAX)).expect("at most 1 GiB")
}

impl Drop for Ring {
    fn drop(&mut self) {
        let mut finished = Vec::new();
        while !self.is_lost && !self.is_idle() {
            let turned = self.turn(Wait::Request, &mut finished);
            for (request, result) in finished.drain(..) {
                request.complete(result);
            }
            if let Err(error) = turned {
                tracing::warn!(%error, "requests fail at the end of an io_uring");
                for request in self.give_up() {
                    request.complete(Err(io::Error::from(error.kind())));
                }
            }
        }
        self.leave_to_the_kernel();
        // The kernel takes a ring apart later; the device must be free for others at once.
        if let Err(error) = self.ring.submitter().unregister_files() {
            tracing::debug!(%error, "a ring keeps its file a little longer");
        }
    }
}

impl Ring {
    /// Waits a second at most for requests of a lost ring that the kernel still has. Then their memory
    /// is leaked: the kernel may write to it at any time.
    fn leave_to_the_kernel(&mut self) {
        let mut finished = Vec::new();
        for _ in 0..LAST_LOOKS {
            if self.in_flight() == 0 {
                return;
            }
            self.enter_lost();
            self.reap(&mut finished);
            finished.clear();
            thread::sleep(LAST_LOOK_PAUSE);
        }
        let count = self.in_flight();
        tracing::warn!(count, "memory of requests that an io_uring never ended is given up");
        std::mem::forget(std::mem::take(&mut self.slots));
    }
}
