//! Rings of threads that submit for themselves, such as the server's workers. Owns the rings by
//! thread and engine; never moves one to another thread.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::fallback::Fallback;
use super::ring::{Finished, Ring, Wait};
use crate::device::request::Request;

/// Most requests that wait before they are given to the kernel; fewer wait until the tasks that are
/// ready have run, each once.
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
    /// Makes the requests once the ring is lost.
    fallback: Arc<Fallback>,
    events: Arc<EventFd>,
    /// Of the task that looks at the ring; `None` before its first run.
    looker: Option<Waker>,
    /// That task was woken to look at the ring, and has not run since.
    asked: bool,
}

/// The calling thread's own ring on a device: requests made in this thread go through it.
///
/// The thread must run a tokio runtime that drives [`ThreadRing::completions`]. Requests are given to
/// the kernel when that task runs: after all tasks that were ready when the first request was made.
/// Dropping the ring waits for requests at the device; drop it after the runtime.
pub struct ThreadRing {
    engine: EngineId,
    events: Arc<EventFd>,
    /// Not to be sent to another thread.
    _here: PhantomData<*const ()>,
}

impl ThreadRing {
    /// Makes `ring`, which must be the calling thread's, the one of `engine` in it.
    pub(super) fn install(
        engine: EngineId,
        ring: Ring,
        fallback: Arc<Fallback>,
    ) -> io::Result<ThreadRing> {
        let events = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        ring.notify(events.as_fd().as_raw_fd())?;
        let events = Arc::new(events);
        RINGS.with_borrow_mut(|rings| {
            assert!(rings.iter().all(|local| local.engine != engine), "one ring in a thread");
            let events = Arc::clone(&events);
            rings.push(Local { engine, ring, fallback, events, looker: None, asked: false });
        });
        Ok(ThreadRing { engine, events, _here: PhantomData })
    }

    /// Gives requests to the kernel and completes them as the device finishes them. To be driven in
    /// this thread as long as there are requests; ends only with an error.
    ///
    /// Between two looks for events a runtime runs as many tasks as it likes. A runtime that is to hear
    /// from the device sooner calls [`look_soon`] after each task.
    pub fn completions(&self) -> impl Future<Output = io::Error> + Send + 'static {
        complete_on(self.engine, Arc::clone(&self.events))
    }
}

async fn complete_on(engine: EngineId, events: Arc<EventFd>) -> io::Error {
    // SAFETY: the descriptor is the eventfd's, which stays open and the same until the `AsyncFd`
    // that shares it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) };
    let events = match registered {
        Ok(events) => events,
        Err(error) => return error.into(),
    };
    loop {
        if let Err(error) = poll_fn(|cx| poll_look(engine, &events, cx)).await {
            return error;
        }
        look();
    }
}

/// Ready when the ring is to be looked at: `asked` is set, or the kernel has completions.
fn poll_look(
    engine: EngineId,
    events: &AsyncFd<Arc<EventFd>>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let asked = RINGS.with_borrow_mut(|rings| {
        let local = rings.iter_mut().find(|local| local.engine == engine)?;
        match &mut local.looker {
            Some(looker) => looker.clone_from(cx.waker()),
            // Requests pushed before this could wake nobody.
            looker => {
                *looker = Some(cx.waker().clone());
                local.asked = true;
            }
        }
        Some(std::mem::take(&mut local.asked))
    });
    if asked == Some(true) {
        return Poll::Ready(Ok(()));
    }
    // Each write to the eventfd is an edge, even if nobody reads its counter.
    ready!(events.poll_read_ready(cx))?.clear_ready();
    Poll::Ready(Ok(()))
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

/// What became of a request that was given to a thread's ring.
enum Taken {
    /// The thread has no such ring.
    Not(Request),
    /// The queue is full.
    Refused(Request),
    /// It waits, and this task is to be woken.
    Queued(Option<Waker>),
    /// The ring is lost, now or before: these are for the fallback.
    Lost(Arc<Fallback>, Lost),
}

/// Requests of a lost ring, and the error if it was lost just now.
type Lost = (Vec<Request>, Option<io::Error>);

/// Gives `request` to this thread's ring of `engine`; gives it back if there is none.
pub(super) fn submit(engine: EngineId, request: Request) -> Option<Request> {
    let taken = RINGS.with_borrow_mut(|rings| {
        match rings.iter_mut().find(|local| local.engine == engine) {
            Some(local) => local.take(request),
            None => Taken::Not(request),
        }
    });
    // All outside of the borrow: a waker may submit again.
    match taken {
        Taken::Not(request) => return Some(request),
        Taken::Refused(request) => {
            request.complete(Err(io::Error::from_raw_os_error(libc::EAGAIN)));
        }
        Taken::Queued(looker) => {
            if let Some(looker) = looker {
                looker.wake();
            }
        }
        Taken::Lost(fallback, lost) => hand_over(&fallback, lost),
    }
    None
}

fn hand_over(fallback: &Fallback, (requests, error): Lost) {
    match error {
        Some(error) => fallback.take_over(requests, &error),
        None => requests.into_iter().for_each(|request| fallback.submit(request)),
    }
}

/// Has this thread's rings looked at after the tasks that are ready now, if requests are under way.
/// Called after each task, it delays the device's answers by one round of tasks at most, however busy
/// the thread is.
pub fn look_soon() {
    let next = || RINGS.with_borrow_mut(|rings| rings.iter_mut().find_map(Local::ask));
    while let Some(looker) = next() {
        looker.wake();
    }
}

/// Gives the requests that wait in this thread's rings to the kernel, and completes those that are done.
fn look() {
    let mut finished = Vec::new();
    let mut lost = Vec::new();
    loop {
        RINGS.with_borrow_mut(|rings| {
            for local in rings {
                lost.extend(local.turn(&mut finished));
            }
        });
        if finished.is_empty() && lost.is_empty() {
            return;
        }
        // Outside of the borrow: a waker, or what drops with the memory, may submit again.
        for (request, result) in finished.drain(..) {
            request.complete(result);
        }
        for (fallback, lost) in lost.drain(..) {
            hand_over(&fallback, lost);
        }
    }
}

impl Local {
    /// The task to be woken to look at the ring; `None` if it is woken already or nothing is under way.
    fn ask(&mut self) -> Option<Waker> {
        if self.asked || self.ring.is_idle() || self.ring.is_lost() {
            return None;
        }
        self.asked = self.looker.is_some();
        self.looker.clone()
    }

    fn take(&mut self, request: Request) -> Taken {
        if self.ring.is_lost() {
            return Taken::Lost(Arc::clone(&self.fallback), (vec![request], None));
        }
        if let Some(refused) = self.ring.push(request) {
            return Taken::Refused(refused);
        }
        if self.ring.waiting() >= BATCH_MAX
            && let Err(error) = self.ring.submit()
        {
            let lost = (self.ring.give_up(), Some(error));
            return Taken::Lost(Arc::clone(&self.fallback), lost);
        }
        Taken::Queued(self.ask())
    }

    /// Takes a turn of the ring; returns all its requests if that fails and the ring is lost.
    fn turn(&mut self, finished: &mut Vec<Finished>) -> Option<(Arc<Fallback>, Lost)> {
        let before = finished.len();
        if let Err(error) = self.ring.turn(Wait::No, finished) {
            return Some((Arc::clone(&self.fallback), (self.ring.give_up(), Some(error))));
        }
        if self.ring.has_leftover() && finished.len() == before && !self.ring.is_lost() {
            // The kernel had no memory for the rest: try again after the next look for events.
            let _full_means_it_comes_back_anyway = self.events.write(1);
        }
        None
    }
}

/// Requests of this thread that wait to be given to the kernel.
#[cfg(test)]
pub(super) fn waiting() -> usize {
    RINGS.with_borrow(|rings| rings.iter().map(|local| local.ring.waiting()).sum())
}
