//! Connections to an upstream that wait for their next request.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use super::stream::Stream;

/// An older one is not used again: most upstreams close theirs after 60 s or more.
const AGE_MAX: Duration = Duration::from_secs(30);
/// Time between two looks at those that nobody takes.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Idle connections, and leave to use one more. Those in use and the idle ones are at most so many
/// together as there may be.
#[derive(Debug)]
pub(super) struct Idle {
    connections_max: usize,
    leave: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last one rests for the shortest time.
    resting: VecDeque<Resting>,
    /// A task looks at them.
    is_watched: bool,
}

#[derive(Debug)]
struct Resting {
    stream: Arc<Stream>,
    since: Instant,
}

impl Resting {
    fn is_usable(&self) -> bool {
        self.since.elapsed() < AGE_MAX && self.stream.is_quiet()
    }
}

impl Idle {
    pub(super) fn new(connections_max: usize) -> Arc<Idle> {
        let connections_max = connections_max.clamp(1, Semaphore::MAX_PERMITS);
        let leave = Arc::new(Semaphore::new(connections_max));
        Arc::new(Idle { connections_max, leave, state: Mutex::default() })
    }

    /// Leave to use one connection, once there is.
    pub(super) async fn leave(&self) -> Option<OwnedSemaphorePermit> {
        self.leave.clone().acquire_owned().await.ok()
    }

    /// The one that was used last and can be used again.
    pub(super) fn take(&self) -> Option<Arc<Stream>> {
        let mut state = self.state.lock();
        while let Some(last) = state.resting.pop_back() {
            if last.is_usable() {
                return Some(last.stream);
            }
        }
        None
    }

    /// Closes the oldest ones until there is room for one that is opened, for which there is leave.
    pub(super) fn make_room(&self) {
        let mut state = self.state.lock();
        while state.resting.len() + self.in_use() > self.connections_max
            && state.resting.pop_front().is_some()
        {}
    }

    /// Keeps a connection for later, if its peer is there still. Its leave ends after this.
    pub(super) fn give(self: &Arc<Idle>, stream: Arc<Stream>) {
        let resting = Resting { stream, since: Instant::now() };
        if !resting.is_usable() {
            return;
        }
        let mut state = self.state.lock();
        state.resting.push_back(resting);
        if !state.is_watched
            && let Ok(runtime) = Handle::try_current()
        {
            state.is_watched = true;
            runtime.spawn(watch(Arc::downgrade(self)));
        }
    }

    /// Closes those that are of no use any more; false if none is left.
    fn look(&self) -> bool {
        let mut state = self.state.lock();
        state.resting.retain(Resting::is_usable);
        state.is_watched = !state.resting.is_empty();
        state.is_watched
    }

    /// Connections in use.
    pub(super) fn in_use(&self) -> usize {
        self.connections_max - self.leave.available_permits()
    }

    #[cfg(test)]
    /// Connections that wait.
    pub(super) fn len(&self) -> usize {
        self.state.lock().resting.len()
    }
}

/// Looks at the idle connections while there are some.
async fn watch(idle: Weak<Idle>) {
    loop {
        sleep(LOOK_EVERY).await;
        if !idle.upgrade().is_some_and(|idle| idle.look()) {
            return;
        }
    }
}
