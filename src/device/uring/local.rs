//! Rings of threads that submit for themselves, such as the server's workers. Owns the rings by
//! thread and engine; never moves one to another thread.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::ring::{Finished, Ring, Wait};
use crate::device::engine::Request;

/// Requests that wait at most before they are given to the kernel; fewer wait until the thread has
/// nothing else to do.
const BATCH_MAX: usize = 32;

thread_local! {
    static RINGS: RefCell<Vec<Local>> = const { RefCell::new(Vec::new()) };
}

static IDS: AtomicU64 = AtomicU64::new(0);

/// Tells engines apart, for the threads that have rings for several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EngineId(u64);

impl EngineId {
    pub fn next() -> EngineId {
        EngineId(IDS.fetch_add(1, Ordering::Relaxed))
    }
}

struct Local {
    engine: EngineId,
    ring: Ring,
    events: Arc<EventFd>,
}

/// The calling thread's own ring on a device: requests made in this thread go through it.
///
/// The thread must run a tokio runtime that calls [`submit_waiting`] before it parks
/// ([`tokio::runtime::Builder::on_thread_park`]) and drives [`ThreadRing::completions`]. Dropping it
/// waits for what is at the device; drop it after the runtime.
pub struct ThreadRing {
    engine: EngineId,
    events: Arc<EventFd>,
    /// Not to be sent to another thread.
    _here: PhantomData<*const ()>,
}

impl ThreadRing {
    /// Makes `ring`, which must be the calling thread's, the one of `engine` in it.
    pub(super) fn install(engine: EngineId, ring: Ring) -> io::Result<ThreadRing> {
        let events = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        ring.notify(events.as_fd().as_raw_fd())?;
        let events = Arc::new(events);
        RINGS.with_borrow_mut(|rings| {
            assert!(rings.iter().all(|local| local.engine != engine), "one ring in a thread");
            rings.push(Local { engine, ring, events: Arc::clone(&events) });
        });
        Ok(ThreadRing { engine, events, _here: PhantomData })
    }

    /// Completes requests as the device finishes them; to be driven in this thread for as long as
    /// there are any. Never ends.
    pub fn completions(&self) -> impl Future<Output = io::Error> + Send + 'static {
        complete_on(Arc::clone(&self.events))
    }
}

async fn complete_on(events: Arc<EventFd>) -> io::Error {
    // SAFETY: the descriptor is the eventfd's, which stays open and the same until the `AsyncFd`
    // that shares it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) };
    let events = match registered {
        Ok(events) => events,
        Err(error) => return error.into(),
    };
    loop {
        match events.readable().await {
            // Each count is an edge, read or not: nobody needs to read the counter.
            Ok(mut ready) => ready.clear_ready(),
            Err(error) => return error,
        }
        submit_waiting();
    }
}

impl Drop for ThreadRing {
    fn drop(&mut self) {
        let local = RINGS.with_borrow_mut(|rings| {
            let index = rings.iter().position(|local| local.engine == self.engine)?;
            Some(rings.swap_remove(index))
        });
        // Outside of the borrow: it waits, and completes requests.
        drop(local);
    }
}

/// Gives `request` to this thread's ring of `engine`; gives it back if there is none.
pub(super) fn submit(engine: EngineId, request: Request) -> Option<Request> {
    let refused = RINGS.with_borrow_mut(|rings| {
        let Some(local) = rings.iter_mut().find(|local| local.engine == engine) else {
            return Err(request);
        };
        let refused = local.ring.push(request);
        if local.ring.waiting() >= BATCH_MAX {
            local.ring.submit();
        }
        Ok(refused)
    });
    match refused {
        Err(request) => Some(request),
        Ok(refused) => {
            if let Some(refused) = refused {
                refused.complete(Err(io::Error::from_raw_os_error(libc::EAGAIN)));
            }
            None
        }
    }
}

/// Gives what waits in this thread's rings to the kernel and completes what is done. Does
/// nothing in a thread without a ring.
pub fn submit_waiting() {
    let mut finished = Vec::new();
    loop {
        RINGS.with_borrow_mut(|rings| rings.iter_mut().for_each(|local| local.turn(&mut finished)));
        if finished.is_empty() {
            return;
        }
        // Outside of the borrow: a waker or the memory's end may submit again.
        for (request, result) in finished.drain(..) {
            request.complete(result);
        }
    }
}

impl Local {
    fn turn(&mut self, finished: &mut Vec<Finished>) {
        self.ring.turn(Wait::No, finished);
        if self.ring.has_leftover() && finished.is_empty() {
            // The kernel had no memory for it: come back as soon as the thread has looked around.
            let _full_means_it_comes_back_anyway = self.events.write(1);
        }
    }
}
