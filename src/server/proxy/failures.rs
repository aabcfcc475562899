//! How the upstream failed lately, and for which keys: those who waited for the same, and those who ask for it
//! in the next moment, get the same answer, and not another attempt each.

use std::collections::HashMap;
use std::time::Duration;

use ::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock::Timestamp;

/// Most failures that are remembered; further ones are not.
const FAILURES_MAX: usize = 256;
/// Longest time for which a failure is kept for those who waited.
const WAITED_MAX: Duration = Duration::from_secs(10);
/// Longest body of an error that is given to others too, in bytes.
pub(super) const SHARED_LEN_MAX: u64 = 64 << 10;

/// An error of the upstream, or of the way there.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    /// Whether the upstream answered with that status.
    pub(super) is_answer: bool,
    /// What it said, for whoever may read it.
    pub(super) said: Option<(HeaderMap, Bytes)>,
    /// In words, for operators.
    pub(super) detail: String,
}

impl Failure {
    /// Nothing came of the upstream.
    pub(super) fn without_answer(status: StatusCode, detail: String) -> Failure {
        Failure { status, is_answer: false, said: None, detail }
    }

    /// The same without words that may be for one client only.
    pub(super) fn without_words(&self) -> Failure {
        Failure { said: None, detail: self.detail.clone(), ..*self }
    }
}

/// Failures by key.
#[derive(Debug, Default)]
pub(super) struct Failures {
    failures: Mutex<HashMap<Vec<u8>, Noted>>,
}

#[derive(Debug)]
struct Noted {
    /// When it happened, for those who waited.
    at: Instant,
    /// Until when others get it too; by the clock of the cache, in whole seconds.
    until: Timestamp,
    failure: Failure,
}

/// When a request began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Began {
    at: Instant,
}

impl Began {
    pub(super) fn now() -> Began {
        Began { at: Instant::now() }
    }
}

impl Failures {
    /// Remembers a failure, for all until so long after `now`.
    pub(super) fn note(&self, key: &[u8], failure: &Failure, (now, time): (Timestamp, Duration)) {
        let mut failures = self.failures.lock();
        // Those who waited have long been told.
        failures.retain(|_, noted| noted.until > now || noted.at.elapsed() < WAITED_MAX);
        if failures.len() < FAILURES_MAX {
            let noted =
                Noted { at: Instant::now(), until: now.plus(time), failure: failure.clone() };
            failures.insert(key.to_vec(), noted);
        }
    }

    /// How the last request for `key` failed, if this one `began` before that, or that was a moment ago.
    pub(super) fn get(&self, key: &[u8], began: Began, now: Timestamp) -> Option<Failure> {
        let failures = self.failures.lock();
        let noted = failures.get(key)?;
        (began.at <= noted.at || noted.until > now).then(|| noted.failure.clone())
    }

    /// The upstream has answered.
    pub(super) fn forget(&self, key: &[u8]) {
        self.failures.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_to_those_who_waited_and_for_a_moment() {
        let failures = Failures::default();
        let failure = Failure::without_answer(StatusCode::BAD_GATEWAY, "gone".to_owned());
        let (now, second) = (Timestamp(100), Duration::from_secs(1));
        let before = Began::now();
        tokio::time::advance(second).await;
        for key in 0..FAILURES_MAX + 10 {
            failures.note(&key.to_le_bytes(), &failure, (now, second));
        }
        tokio::time::advance(second).await;
        let after = Began::now();
        let get = |began, now| failures.get(&0_usize.to_le_bytes(), began, now);
        assert_eq!(get(after, now).unwrap().detail, "gone");
        assert!(get(after, Timestamp(101)).is_none() && get(before, Timestamp(101)).is_some());
        assert!(
            failures.get(&FAILURES_MAX.to_le_bytes(), after, now).is_none(),
            "there is no room"
        );
        tokio::time::advance(WAITED_MAX).await;
        failures.note(b"key", &failure, (Timestamp(101), Duration::ZERO));
        let later = Timestamp(101);
        tokio::time::advance(second).await;
        assert!(failures.get(b"key", before, later).is_some(), "it waited");
        assert!(failures.get(b"key", Began::now(), later).is_none());
        assert_eq!(failures.failures.lock().len(), 1);
        failures.forget(b"key");
        assert!(failures.get(b"key", before, later).is_none());
    }
}
