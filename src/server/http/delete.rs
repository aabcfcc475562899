//! DELETE and its other name, PURGE.

use http::{HeaderMap, Response, StatusCode};

use super::body::AnswerBody;
use super::counts::HttpOperation;
use super::refusal::Refusal;
use super::service::{Answer, Service};
use crate::clock::Stopwatch;

impl Service {
    /// Purges an object; the purge is durable when the answer comes. Preconditions are evaluated
    /// first: a newer object stored in between is purged too, as a cache may forget.
    pub(super) async fn delete(&self, key: &[u8], headers: &HeaderMap) -> Result<Answer, Refusal> {
        self.check(key, headers).await?;
        let watch = Stopwatch::start();
        let removed = self.cache.remove(key).await;
        self.shard.http.record(HttpOperation::Delete, watch.elapsed());
        match removed {
            Ok(true) => {
                let mut answer = Response::new(AnswerBody::empty());
                *answer.status_mut() = StatusCode::NO_CONTENT;
                Ok(answer)
            }
            Ok(false) => Err(Refusal::NOT_FOUND),
            Err(error) => Err(Refusal::of_removal(&error)),
        }
    }
}
