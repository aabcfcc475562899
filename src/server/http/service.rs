//! What HTTP connections share, and how a request finds the method that answers it.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, EXPECT, HOST, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, Version};

use super::body::AnswerBody;
use super::key::key;
use super::refusal::Refusal;
use crate::cache::{Cache, StoreError};
use crate::server::Server;
use crate::server::counters::Shard;

/// Bytes that a refused request may still send, so that its client comes to read the answer, and
/// for how long.
const DRAIN_LEN_MAX: usize = 1 << 20;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// What a client is told to wait before it tries again, in seconds.
const RETRY_AFTER_SECS: HeaderValue = HeaderValue::from_static("1");

pub(super) type Answer = Response<AnswerBody>;

/// What the connections of all workers share.
#[derive(Debug, Default)]
pub(in crate::server) struct Shared {
    tags: Arc<Tags>,
}

/// Makes numbers that no other daemon or run makes, but for a chance of one in 2^64 each.
#[derive(Debug, Default)]
pub(super) struct Tags {
    /// Keyed by the operating system's random numbers.
    keyed: RandomState,
    next: AtomicU64,
}

impl Tags {
    pub(super) fn make(&self) -> u64 {
        self.keyed.hash_one(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// What the connections of one worker share.
pub(in crate::server) struct Service {
    pub(super) cache: Cache,
    pub(super) shard: Arc<Shard>,
    pub(super) tags: Arc<Tags>,
    pub(super) idle_timeout: Duration,
    pub(super) stall_timeout: Duration,
}

impl Service {
    /// What the connections of worker `index` of `server` share.
    pub(in crate::server) fn new(server: &Server, index: usize, shared: &Shared) -> Service {
        Service {
            cache: server.cache.clone(),
            shard: server.counters.worker(index),
            tags: shared.tags.clone(),
            idle_timeout: server.options.http_idle_timeout,
            stall_timeout: server.options.http_stall_timeout,
        }
    }

    /// Answers one request.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let method = request.method().clone();
        let answer = self.dispatch(request).await;
        self.shard.http.count_request(&method, answer.status());
        answer
    }

    async fn dispatch(&self, mut request: Request<Incoming>) -> Answer {
        let uri = request.uri();
        let checked =
            check_host(&request).and_then(|()| key(uri.path(), uri.query()).map_err(Refusal::from));
        let key = match checked {
            Ok(key) => key,
            Err(refusal) => return self.refuse(refusal, &mut request).await,
        };
        let answered = match *request.method() {
            Method::GET => Ok(self.get(&key, request.headers()).await),
            Method::HEAD => Ok(self.head(&key, request.headers()).await),
            Method::PUT => self.put(&key, &mut request).await,
            Method::PATCH => self.patch(&key, &request).await,
            Method::DELETE => self.delete(&key, request.headers()).await,
            _ if request.method().as_str() == "PURGE" => self.delete(&key, request.headers()).await,
            _ => Err(Refusal::METHOD),
        };
        match answered {
            Ok(answer) => answer,
            Err(refusal) => self.refuse(refusal, &mut request).await,
        }
    }

    /// Answers a request that is not done. A client that sends a body without waiting for leave
    /// may not look at the answer before it has sent it: a part of it is read and dropped.
    async fn refuse(&self, refusal: Refusal, request: &mut Request<Incoming>) -> Answer {
        if !request.headers().contains_key(EXPECT) {
            let body = request.body_mut();
            let drained = async {
                let mut len = 0;
                while let Some(Ok(frame)) = body.frame().await {
                    len += frame.data_ref().map_or(0, Bytes::len);
                    if len > DRAIN_LEN_MAX {
                        break;
                    }
                }
            };
            // Whether it ended or not, the answer is the same.
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
        }
        let mut answer = plain(refusal);
        let headers = answer.headers_mut();
        if refusal == Refusal::METHOD {
            let allowed = HeaderValue::from_static("GET, HEAD, PUT, PATCH, DELETE, PURGE");
            headers.insert(ALLOW, allowed);
        }
        answer
    }

    /// Counts a store that the cache refused.
    pub(super) fn store_failed(&self, error: &StoreError) -> Refusal {
        match error {
            StoreError::TooLarge { .. } => self.shard.store_too_large.bump(),
            StoreError::Busy(_)
            | StoreError::Crowded { .. }
            | StoreError::Evicted
            | StoreError::Incomplete => {
                self.shard.store_no_memory.bump();
            }
            _ => self.shard.store_failed.bump(),
        }
        Refusal::from(error)
    }
}

/// An answer with a line for people.
pub(super) fn plain(refusal: Refusal) -> Answer {
    let mut answer = Response::new(AnswerBody::memory(Bytes::from_static(refusal.text.as_bytes())));
    *answer.status_mut() = refusal.status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if refusal.is_temporary() {
        headers.insert(RETRY_AFTER, RETRY_AFTER_SECS);
    }
    answer
}

/// Refuses requests that proxies could take to be for different hosts. What is ambiguous about the
/// length of a body hyper refuses.
fn check_host(request: &Request<Incoming>) -> Result<(), Refusal> {
    let headers = request.headers();
    let hosts = headers.get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Err(Refusal::HOST);
    }
    Ok(())
}
