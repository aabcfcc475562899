//! The engine's own thread with a ring: for requests of threads that have none. Owns the thread
//! and the requests that wait to get into its ring; ends if its ring is lost.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;

use super::fallback::Fallback;
use super::ring::{Ring, Wait};
use crate::device::files::Files;
use crate::device::request::Request;

/// Takes requests from any thread. Dropping it waits for everything submitted.
pub(super) struct RingThread {
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
}

struct Mailbox {
    content: Mutex<Content>,
    wake: EventFd,
    fallback: Arc<Fallback>,
}

#[derive(Default)]
struct Content {
    requests: Vec<Request>,
    /// The thread found nothing and waits for a wake-up.
    asleep: bool,
    closed: bool,
    /// The ring is lost: nobody takes requests from here.
    lost: bool,
}

impl RingThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// See [`Ring::new`].
    pub fn start(files: Arc<Files>, fallback: Arc<Fallback>) -> io::Result<RingThread> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        let mailbox = Arc::new(Mailbox { content: Mutex::default(), wake, fallback });
        let (ready, made) = mpsc::sync_channel(1);
        let served = Arc::clone(&mailbox);
        let thread =
            thread::Builder::new().name("device-ring".to_owned()).spawn(
                move || match Ring::new(files) {
                    Ok(ring) => {
                        let _nobody_waits_any_more = ready.send(Ok(()));
                        served.serve(ring);
                    }
                    Err(error) => {
                        let _nobody_waits_any_more = ready.send(Err(error));
                    }
                },
            )?;
        made.recv().map_err(|_| io::Error::other("the ring's thread ended at once"))??;
        Ok(RingThread { mailbox, thread: Some(thread) })
    }

    /// Takes `request` over.
    pub fn submit(&self, request: Request) {
        let mut request = Some(request);
        self.mailbox.change(|content| {
            if !content.lost {
                content.requests.extend(request.take());
            }
        });
        if let Some(request) = request {
            self.mailbox.fallback.submit(request);
        }
    }
}

impl Drop for RingThread {
    fn drop(&mut self) {
        self.mailbox.change(|content| content.closed = true);
        if let Some(thread) = self.thread.take()
            // A waker may drop the last handle on that very thread; it ends by itself.
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the device's ring thread panicked");
        }
    }
}

impl Mailbox {
    fn change(&self, change: impl FnOnce(&mut Content)) {
        let mut content = self.content.lock();
        change(&mut content);
        let wake = std::mem::take(&mut content.asleep);
        drop(content);
        if wake && let Err(error) = self.wake.write(1) {
            tracing::error!(%error, "the device's ring thread cannot be woken");
        }
    }

    /// Carries requests out until the mailbox is closed and all is done, or the ring is lost.
    fn serve(&self, mut ring: Ring) {
        ring.wake_on(self.wake.as_fd().as_raw_fd());
        let (mut arrived, mut finished) = (Vec::new(), Vec::new());
        loop {
            let closed = {
                let mut content = self.content.lock();
                std::mem::swap(&mut content.requests, &mut arrived);
                content.asleep = arrived.is_empty();
                content.closed
            };
            let wait = match (arrived.is_empty(), closed) {
                // This thread is not marked asleep: nobody would wake it for new requests.
                (false, _) => Wait::No,
                (true, true) => Wait::Request,
                (true, false) => Wait::WakeUp,
            };
            for request in arrived.drain(..) {
                if let Some(refused) = ring.push(request) {
                    refused.complete(Err(io::Error::from_raw_os_error(libc::EAGAIN)));
                }
            }
            if closed && ring.is_idle() {
                return;
            }
            let turned = ring.turn(wait, &mut finished);
            for (request, result) in finished.drain(..) {
                request.complete(result);
            }
            if let Err(error) = turned {
                return self.hand_over(ring.give_up(), &error);
            }
        }
    }

    /// Hands to the fallback the requests of a lost ring, those that wait here, and all later ones.
    fn hand_over(&self, mut requests: Vec<Request>, error: &io::Error) {
        let mut content = self.content.lock();
        content.lost = true;
        requests.append(&mut content.requests);
        drop(content);
        self.fallback.take_over(requests, error);
    }
}
