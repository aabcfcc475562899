//! How the upstream failed lately, and for which keys: those who waited for the same, and those who ask for it
//! in the next moment, get the same answer, and not another attempt each.

use std::collections::HashMap;
use std::time::Duration;

use ::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::http_cache::reuse;

/// Most failures that are remembered; further ones are not.
const FAILURES_MAX: usize = 4096;
/// Most of them with what the upstream said.
const SAID_MAX: usize = 256;
/// Longest time, in which it doubles, until the upstream is asked again on behalf of those who get what is stale.
const REST_MAX: Duration = Duration::from_secs(30);
/// Longest time for which a failure is kept for those who waited.
const WAITED_MAX: Duration = Duration::from_secs(10);
/// How long it is remembered after that that it did, if there is room: an attempt may take long to fail.
const REMEMBERED: Duration = Duration::from_secs(300);
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

    /// What it means for what is stored.
    pub(super) fn kind(&self) -> reuse::Failure {
        match self.is_answer {
            true => reuse::Failure::Status(self.status),
            false => reuse::Failure::Connection,
        }
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
    /// The same for those who have what is stale, and when it may be forgotten.
    rests_until: Timestamp,
    ends: Timestamp,
    /// How long it rests.
    rest: Duration,
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
        let is_full = failures.len() >= FAILURES_MAX;
        // Those who waited have long been told.
        failures.retain(|_, noted| {
            let needed_until = if is_full { noted.rests_until } else { noted.ends };
            needed_until > now || noted.at.elapsed() < WAITED_MAX
        });
        for noted in failures.values_mut() {
            if noted.until <= now && noted.at.elapsed() >= WAITED_MAX {
                noted.failure.said = None;
            }
        }
        let before = failures.get(key).filter(|noted| noted.ends > now);
        let rest = before.map_or(time, |noted| (2 * noted.rest).min(REST_MAX).max(time));
        let said = failures.values().filter(|noted| noted.failure.said.is_some()).count();
        let failure = match said < SAID_MAX {
            true => failure.clone(),
            false => failure.without_words(),
        };
        if failures.len() < FAILURES_MAX || before.is_some() {
            let (at, until, rests_until) = (Instant::now(), now.plus(time), now.plus(rest));
            let ends = rests_until.plus(REMEMBERED);
            let noted = Noted { at, until, rests_until, ends, rest, failure };
            failures.insert(key.to_vec(), noted);
        }
    }

    /// How the last request for `key` failed, if it is too early to ask again for who has what is stale.
    pub(super) fn behind(&self, key: &[u8], now: Timestamp) -> Option<Failure> {
        let failures = self.failures.lock();
        failures.get(key).filter(|noted| noted.rests_until > now).map(|noted| noted.failure.clone())
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
        let said = Some((HeaderMap::new(), Bytes::new()));
        let failure = Failure { said, ..failure };
        for key in 0..FAILURES_MAX + 10 {
            failures.note(&key.to_le_bytes(), &failure, (now, second));
        }
        tokio::time::advance(second).await;
        let after = Began::now();
        let get = |began, now| failures.get(&0_usize.to_le_bytes(), began, now);
        assert_eq!(get(after, now).unwrap().detail, "gone");
        let has_words =
            |key: usize| failures.get(&key.to_le_bytes(), after, now).unwrap().said.is_some();
        assert!(has_words(SAID_MAX - 1) && !has_words(SAID_MAX), "words take memory");
        assert!(get(after, Timestamp(101)).is_none() && get(before, Timestamp(101)).is_some());
        assert!(
            failures.get(&FAILURES_MAX.to_le_bytes(), after, now).is_none(),
            "there is no room"
        );
        tokio::time::advance(WAITED_MAX).await;
        let later = Timestamp(500);
        failures.note(b"key", &failure, (later, Duration::ZERO));
        tokio::time::advance(second).await;
        assert!(failures.get(b"key", before, later).is_some(), "it waited");
        assert!(failures.get(b"key", Began::now(), later).is_none());
        assert_eq!(failures.failures.lock().len(), 1);
        failures.forget(b"key");
        assert!(failures.get(b"key", before, later).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_fails_again_rests_for_longer() {
        let failures = Failures::default();
        let failure = Failure::without_answer(StatusCode::BAD_GATEWAY, "gone".to_owned());
        let second = Duration::from_secs(1);
        let mut now = Timestamp(100);
        let mut rests = || {
            failures.note(b"key", &failure, (now, second));
            let began = now;
            while failures.behind(b"key", now).is_some() {
                now = now.plus(second);
            }
            now.since(began).as_secs()
        };
        let first: Vec<u64> = (0..7).map(|_| rests()).collect();
        assert_eq!(first, [1, 2, 4, 8, 16, 30, 30]);
        failures.forget(b"key");
        failures.note(b"key", &failure, (now, second));
        assert!(failures.behind(b"key", now.plus(second)).is_none(), "it had come back");
        failures.note(b"other", &failure, (now, Duration::ZERO));
        failures.note(b"other", &failure, (now, Duration::ZERO));
        assert!(failures.behind(b"other", now).is_none(), "each request is to ask");
    }
}
