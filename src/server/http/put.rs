//! PUT: a body of any length streams from the socket into the cache.

use http::header::{
    CONTENT_RANGE, DATE, ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH,
    IF_UNMODIFIED_SINCE,
};
use http::{HeaderMap, Response, StatusCode};

use tokio::task::coop::consume_budget;

use super::body::AnswerBody;
use super::counts::HttpOperation;
use super::head::{Head, KEPT};
use super::lifetime::{self, Lifetimes};
use super::refusal::Refusal;
use super::representation::{made_up_etag, wall_date};
use super::request_body::RequestBody;
use super::service::{Answer, Service};
use super::wire::Socket;
use crate::cache::{Ack, Condition, StoreError, StoreOptions, Stored, Writer};
use crate::clock::Stopwatch;
use crate::http_cache::conditional::{Access, Verdict, evaluate, is_conditional};
use crate::server::codec::Framing;
use crate::server::codec::head::RequestHead;
use crate::server::metadata::{Item, ObjectMetadata};

/// When a change is acknowledged: `flushed` or `buffered`.
const ACK: HeaderName = HeaderName::from_static("x-rawcached-ack");

/// What a `PUT` hears besides the fields that are kept.
const HEARD: [HeaderName; 8] = [
    CONTENT_RANGE,
    DATE,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_UNMODIFIED_SINCE,
    lifetime::TTL,
    lifetime::GRACE,
    ACK,
];

/// Whether a `PUT` does anything with a header of this name: all others are dropped.
#[must_use]
pub fn put_hears(name: &HeaderName) -> bool {
    KEPT.contains(name) || HEARD.contains(name)
}

/// The condition of a change, and whether it is known to replace an object.
pub(super) struct Checked {
    pub(super) condition: Condition,
    pub(super) replaces: bool,
}

impl Service {
    pub(super) async fn put<S: Socket>(
        &self,
        key: &[u8],
        head: &RequestHead,
        body: &mut RequestBody<'_, S>,
    ) -> Result<Answer, Refusal> {
        self.shard.cmd_set.bump();
        check_framing(head, body)?;
        let headers = &head.headers;
        let (options, tag) = self.store_options(headers, body.len())?;
        let checked = self.check(key, headers).await?;
        let given_tag = given_etag(headers);
        let writer = self.cache.store(key, options).map_err(|error| self.store_failed(&error))?;
        let writer = self.receive(writer, body).await?;
        let watch = Stopwatch::start();
        let stored = writer.finalize(checked.condition).await;
        self.shard.http.record(HttpOperation::Put, watch.elapsed());
        self.stored(stored, checked.condition)?;
        Ok(stored_answer(!checked.replaces, given_tag.or_else(|| Some(made_up_etag(tag)))))
    }

    /// How to store an object with `headers`, and the number that its entity tag is made of.
    pub(super) fn store_options(
        &self,
        headers: &HeaderMap,
        len: Option<u64>,
    ) -> Result<(StoreOptions, u64), Refusal> {
        let (explicit, head) = (lifetime::explicit(headers)?, Head::of(headers)?);
        if head.varies_always() {
            return Err(Refusal::VARIES_ALWAYS);
        }
        if head.control.forbids_storing && explicit.ttl.is_none() {
            return Err(Refusal::NOT_STORABLE);
        }
        let clock = self.cache.clock();
        let Lifetimes { ttl, grace } = explicit.or(lifetime::of_head(&head, clock));
        let lifetime = self.cache.lifetime(ttl, grace.unwrap_or_default());
        let tag = self.tags.make();
        let is_weak = head.has_weak_date(wall_date(clock, lifetime.stored_at));
        let metadata = ObjectMetadata::new(tag, is_weak, head.stored()?).encode();
        let options = StoreOptions {
            lifetime: Some(lifetime),
            metadata,
            len_hint: len,
            ack: ack(headers)?,
            ..StoreOptions::default()
        };
        Ok((options, tag))
    }

    /// Evaluates the preconditions of a change against the present object.
    pub(super) async fn check(&self, key: &[u8], headers: &HeaderMap) -> Result<Checked, Refusal> {
        if !is_conditional(headers, Access::Change) {
            return Ok(Checked { condition: Condition::Always, replaces: false });
        }
        let mut hit = self.cache.lookup_stale_head(key).await;
        if let Some(found) = &hit
            && !found.is_complete().await
        {
            hit = None;
        }
        let condition = match &hit {
            Some(hit) => Condition::Unchanged(hit.cas()),
            None => Condition::Absent,
        };
        // A stale object counts as absent: readers do not get it unless they ask. What memcached's clients marked as
        // stale, or have yet to bring, they do not get at all.
        let now = self.cache.clock().now();
        let fresh = hit.filter(|hit| hit.is_fresh(now) && Item::is_fit(hit.metadata()));
        let representation = fresh.as_ref().map(|hit| self.representation(hit));
        let validators = representation.map(|representation| representation.validators());
        if evaluate(headers, validators.as_ref(), Access::Change) != Verdict::Proceed {
            return Err(Refusal::PRECONDITION);
        }
        Ok(Checked { condition, replaces: fresh.is_some() })
    }

    async fn receive<S: Socket>(
        &self,
        mut writer: Writer,
        body: &mut RequestBody<'_, S>,
    ) -> Result<Writer, Refusal> {
        loop {
            // A body may come in pieces of one byte, all at once: others get their turn.
            consume_budget().await;
            let read = body.read_into(&mut writer).await?;
            if read.map_err(|error| self.store_failed(&error))? {
                continue;
            }
            let bytes = tokio::select! {
                biased;
                bytes = body.next() => bytes?,
                error = writer.lost() => return Err(self.store_failed(&error)),
            };
            let Some(bytes) = bytes else { return Ok(writer) };
            writer.write_chunk(bytes).await.map_err(|error| self.store_failed(&error))?;
        }
    }

    /// How a finished store is answered.
    pub(super) fn stored(
        &self,
        stored: Result<Stored, StoreError>,
        condition: Condition,
    ) -> Result<(), Refusal> {
        match stored {
            Ok(Stored::Yes(_)) => Ok(()),
            Ok(Stored::Exists | Stored::Missing) => Err(Refusal::PRECONDITION),
            // A purge overtook it: answered as if stored just before.
            Err(StoreError::Purged) if matches!(condition, Condition::Always) => Ok(()),
            Err(StoreError::Purged) => Err(Refusal::PRECONDITION),
            Err(error) => Err(self.store_failed(&error)),
        }
    }
}

/// The answer to a store of an object that is new, or not; `etag` is its entity tag, if that is known.
pub(super) fn stored_answer(is_new: bool, etag: Option<HeaderValue>) -> Answer {
    let mut answer = Response::new(AnswerBody::empty());
    *answer.status_mut() = if is_new { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    answer.headers_mut().extend(etag.map(|etag| (ETAG, etag)));
    answer
}

/// Refuses a body whose end nothing announces: a client that means to send one until it closes would lose it,
/// and the old object.
pub(in crate::server) fn check_framing<S: Socket>(
    head: &RequestHead,
    body: &mut RequestBody<'_, S>,
) -> Result<(), Refusal> {
    if head.framing == Framing::None {
        body.doubt();
        return Err(Refusal::NO_LENGTH);
    }
    Ok(())
}

/// The entity tag of a store. A copy: a value of the head keeps all of it in memory.
pub(super) fn given_etag(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(ETAG).and_then(|tag| HeaderValue::from_bytes(tag.as_bytes()).ok())
}

/// When the client wants its change acknowledged; `None` leaves it to the configuration.
pub(in crate::server) fn ack(headers: &HeaderMap) -> Result<Option<Ack>, Refusal> {
    match headers.get(ACK).map(HeaderValue::as_bytes) {
        None => Ok(None),
        Some(b"flushed") => Ok(Some(Ack::Flushed)),
        Some(b"buffered") => Ok(Some(Ack::Buffered)),
        Some(_) => Err(Refusal::BAD_ACK),
    }
}
