//! A look into the buffer of a sender: others copy what has come of it, and change nothing.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::Held;
use super::share::Share;

/// A look into the buffer of one sender.
pub(crate) struct Window {
    share: Arc<Mutex<Share>>,
}

/// What a look into a buffer shows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A copy of the bytes.
    Bytes(Bytes),
    /// They are not there now: the buffer is with its owner, or begun anew.
    Away,
    /// The sender had to give way, and its bytes are gone.
    Lost,
}

impl Held {
    /// A look into this buffer.
    pub fn window(&self) -> Window {
        Window { share: Arc::clone(&self.share) }
    }
}

impl Window {
    /// Copies the bytes `within` the buffer, if all of them are there. The sender waits meanwhile, so they
    /// should be few.
    pub fn copy(&self, within: Range<usize>) -> Seen {
        let share = self.share.lock();
        if share.is_lost {
            return Seen::Lost;
        }
        match share.buffer.get(within) {
            Some(bytes) => Seen::Bytes(Bytes::copy_from_slice(bytes)),
            None => Seen::Away,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fair_memory::FairMemory;

    #[tokio::test]
    async fn a_window_shows_what_has_come_until_the_buffer_is_taken() {
        let memory = FairMemory::new(1000, 500, Duration::from_secs(3));
        let mut held = memory.hold(500);
        let window = held.window();
        assert_eq!(window.copy(0..1), Seen::Away);
        held.stage(b"abc").await.unwrap();
        assert_eq!(window.copy(1..3), Seen::Bytes(Bytes::from_static(b"bc")));
        assert_eq!(window.copy(1..4), Seen::Away);
        let taken = held.take().unwrap();
        assert_eq!(window.copy(0..3), Seen::Away);
        held.begin_anew(taken, 500);
        held.stage(b"d").await.unwrap();
        assert_eq!(window.copy(0..1), Seen::Bytes(Bytes::from_static(b"d")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_shows_that_a_slow_sender_gave_way() {
        let memory = FairMemory::new(1000, 500, Duration::from_secs(3));
        let mut slow = memory.hold(500);
        let window = slow.window();
        slow.stage(&[1; 500]).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let mut others = [memory.hold(500), memory.hold(500)];
        for other in &mut others {
            other.stage(&[2; 500]).await.unwrap();
        }
        assert_eq!(window.copy(0..500), Seen::Lost);
    }
}
