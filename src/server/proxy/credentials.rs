//! Which keys have answers that are for one client only if it sends credentials: nobody with credentials waits
//! for another one there, and all others go on to wait.

use std::collections::HashMap;
use std::time::Duration;

use ::http::header::AUTHORIZATION;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::http_cache::head::RequestHead;

/// Most keys that are remembered; further ones are not.
const KEYS_MAX: usize = 4096;
/// For how long.
const TIME: Duration = Duration::from_secs(10);

/// Keys, and until when.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    until: Mutex<HashMap<Vec<u8>, Instant>>,
}

impl Credentials {
    /// The upstream answered credentials with what is for their client only.
    pub(super) fn note(&self, key: &[u8]) {
        let now = Instant::now();
        let mut until = self.until.lock();
        until.retain(|_, until| *until > now);
        if until.len() < KEYS_MAX {
            until.insert(key.to_vec(), now + TIME);
        }
    }

    /// Whether `request` has an answer of its own.
    pub(super) fn set_apart(&self, request: &RequestHead, key: &[u8]) -> bool {
        request.headers().contains_key(AUTHORIZATION)
            && self.until.lock().get(key).is_some_and(|until| *until > Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method};

    use super::*;
    use crate::http_cache::target::Target;

    #[tokio::test(start_paused = true)]
    async fn who_sends_credentials_is_set_apart_for_a_while() {
        let request = |headers: HeaderMap| {
            let target = Target::new("http", "h", "/").unwrap();
            RequestHead::new(Method::GET, target, headers, false)
        };
        let with = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("x"))]);
        let (with, without) = (request(with), request(HeaderMap::new()));
        let credentials = Credentials::default();
        assert!(!credentials.set_apart(&with, b"key"));
        credentials.note(b"key");
        assert!(credentials.set_apart(&with, b"key") && !credentials.set_apart(&with, b"other"));
        assert!(!credentials.set_apart(&without, b"key"));
        for key in 0..2 * KEYS_MAX {
            credentials.note(&key.to_le_bytes());
        }
        assert_eq!(credentials.until.lock().len(), KEYS_MAX);
        tokio::time::advance(TIME).await;
        assert!(!credentials.set_apart(&with, b"key"));
        credentials.note(b"key");
        assert_eq!(credentials.until.lock().len(), 1);
    }
}
