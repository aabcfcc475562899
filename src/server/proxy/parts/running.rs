//! One request for a range of an object: how far it has come, and how it ended.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::server::proxy::failures::Failure;

/// A request that is under way.
#[derive(Debug)]
pub(in crate::server::proxy) struct Running {
    start: u64,
    /// Others may move it nearer.
    end: AtomicU64,
    /// It began as a request for the whole.
    pub(in crate::server::proxy) is_of_whole: bool,
    state: watch::Sender<State>,
}

#[derive(Clone, Debug)]
enum State {
    /// Nothing came yet.
    Asked,
    /// The bytes before this position are there.
    Stored(u64),
    Ended(Ending),
}

/// How a request ended.
#[derive(Clone, Debug)]
pub(in crate::server::proxy) enum Ending {
    /// What it brought is stored.
    Stored,
    /// What it brought could not be stored, now or, if it is over, at all any more.
    NotStored { is_over: bool },
    /// It was refused to this client: another may have it.
    Refused,
    /// The origin has another version now, or none.
    Changed,
    /// The upstream failed.
    Failed(Failure),
}

impl Running {
    pub(in crate::server::proxy) fn new(start: u64, end: u64, is_of_whole: bool) -> Running {
        let (state, _) = watch::channel(State::Asked);
        Running { start, end: AtomicU64::new(end), is_of_whole, state }
    }

    pub(in crate::server::proxy) fn start(&self) -> u64 {
        self.start
    }

    pub(in crate::server::proxy) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// It is to end there already, as somebody else asks for the rest.
    pub(in crate::server::proxy) fn end_at(&self, end: u64) {
        self.end.fetch_min(end, Ordering::Relaxed);
    }

    /// Where the next bytes come.
    pub(in crate::server::proxy) fn position(&self) -> u64 {
        match *self.state.borrow() {
            State::Stored(position) => position,
            _ => self.start,
        }
    }

    /// Tells that the bytes before `position` are there.
    pub(in crate::server::proxy) fn stored(&self, position: u64) {
        self.state.send_replace(State::Stored(position));
    }

    /// Tells how it ended.
    pub(in crate::server::proxy) fn ended(&self, ending: Ending) {
        self.state.send_replace(State::Ended(ending));
    }

    /// Waits until the byte at `at` is there; how the request ended, if it ended before.
    pub(in crate::server::proxy) async fn reaches(&self, at: u64) -> Option<Ending> {
        self.until(|position| position > at).await
    }

    /// Waits until the upstream has sent the head of a good answer; how the request ended, if it ended before.
    pub(in crate::server::proxy) async fn is_answered(&self) -> Option<Ending> {
        self.until(|_| true).await
    }

    async fn until(&self, is_enough: impl Fn(u64) -> bool) -> Option<Ending> {
        let mut state = self.state.subscribe();
        let found = state
            .wait_for(|state| match state {
                State::Asked => false,
                State::Stored(position) => is_enough(*position),
                State::Ended(_) => true,
            })
            .await;
        match found.as_deref() {
            Ok(State::Ended(ending)) => Some(ending.clone()),
            // The sender is this request, which is here.
            _ => None,
        }
    }
}
