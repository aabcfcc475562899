//! Answers to clients: heads made of what is stored or what came, with what this cache adds.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, VIA};
use http::{HeaderMap, StatusCode};

use super::body::Body;
use super::counts::Served;
use super::failures::Failure;
use super::part_fetch::Asker;
use super::parts_body::PartsBody;
use super::service::Service;
use super::shelf::Shelf;
use super::stored::Stored;
use crate::cache::{Follower, Hit, TruncatedBody};
use crate::clock::Timestamp;
use crate::http_cache::answer::{self, Answer as Chosen, answer_headers};
use crate::http_cache::cache_status::{CacheStatus, Forwarded};
use crate::http_cache::head::{RequestHead, StoredHead};
use crate::server::http::body::{AnswerBody, Step};
use crate::server::http::get::{content_range, multipart, multipart_steps};

/// An answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Lines of a stored response as they lie, a `Date` among them; none if `headers` has all fields.
    pub(super) lines: Vec<u8>,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    /// How it came about.
    pub(super) served: Served,
    /// How long the upstream took to answer, if it was asked for this client.
    pub(super) first_byte: Option<Duration>,
}

impl Answer {
    /// One with these fields; the upstream took no time.
    pub(super) fn new(
        status: StatusCode,
        headers: HeaderMap,
        body: Body,
        served: Served,
    ) -> Answer {
        Answer { status, lines: Vec::new(), headers, body, served, first_byte: None }
    }
}

/// Where the body of a stored response is.
pub(super) enum BodyOf {
    Hit(Hit),
    /// A store in progress; of `len` bytes, if that is known, and with what comes straight from its fill.
    Follow(Follower, Option<u64>, Option<tokio::sync::mpsc::Receiver<super::body::Piece>>),
    /// An object that comes part by part.
    Parts(Arc<Service>, Arc<Asker>),
}

impl BodyOf {
    fn len(&self) -> Option<u64> {
        match self {
            BodyOf::Hit(hit) => Some(hit.len()),
            BodyOf::Follow(_, len, _) => *len,
            BodyOf::Parts(_, asker) => Some(asker.parted.len()),
        }
    }

    fn is_partial(&self) -> bool {
        match self {
            BodyOf::Hit(hit) => hit.is_partial(),
            BodyOf::Follow(..) => false,
            BodyOf::Parts(..) => true,
        }
    }
}

impl Shelf {
    /// The answer to `request` with the stored response `head`.
    ///
    /// # Errors
    /// The body is gone: this is a miss.
    pub(super) async fn answer_with(
        &self,
        request: &RequestHead,
        head: StoredHead,
        body: BodyOf,
        status: CacheStatus,
    ) -> Result<Answer, TruncatedBody> {
        let now = self.http.cache.clock().now();
        let known = body.len();
        let chosen = match known {
            // Ranges of what nobody knows the length of cannot be named.
            None => {
                match answer::answer(request, &head, answer::Body { len: 0, is_partial: true }) {
                    Chosen::NotModified => Chosen::NotModified,
                    _ => Chosen::Whole,
                }
            }
            Some(len) => {
                let is_partial = body.is_partial();
                answer::answer(request, &head, answer::Body { len, is_partial })
            }
        };
        let code = head.status;
        let mut headers = answer_headers(head, &chosen, now);
        if code == StatusCode::OK && known.is_some() && !headers.contains_key(ACCEPT_RANGES) {
            headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        }
        let (code, body) = self.body_of(request, code, (body, known), chosen, &mut headers).await?;
        self.sign(&mut headers, &status);
        Ok(Answer::new(code, headers, body, Served::of(&status)))
    }

    /// The answer with what is being stored; `None` if it is gone.
    pub(super) async fn follow(
        &self,
        request: &RequestHead,
        follower: Follower,
        missed: Forwarded,
    ) -> Option<Answer> {
        let Stored::Response(record) = Stored::decode(follower.metadata())? else { return None };
        let head = record.of_store(&follower.lifetime());
        let status = CacheStatus { collapsed: true, ..CacheStatus::forwarded(missed) };
        let len = follower.len_hint();
        let body = BodyOf::Follow(follower, len, None);
        self.answer_with(request, head, body, status).await.ok()
    }

    async fn body_of(
        &self,
        request: &RequestHead,
        code: StatusCode,
        (body, known): (BodyOf, Option<u64>),
        chosen: Chosen,
        headers: &mut HeaderMap,
    ) -> Result<(StatusCode, Body), TruncatedBody> {
        let len = known.unwrap_or_default();
        Ok(match chosen {
            Chosen::NotModified => (StatusCode::NOT_MODIFIED, Body::absent(None)),
            Chosen::Unsatisfiable => {
                headers.insert(CONTENT_RANGE, value(&format!("bytes */{len}")));
                (StatusCode::RANGE_NOT_SATISFIABLE, Body::absent(Some(0)))
            }
            Chosen::Whole if request.method() == http::Method::HEAD => (code, Body::absent(known)),
            Chosen::Whole => {
                let body = match body {
                    BodyOf::Hit(hit) => stored(hit, 0..len).await?,
                    BodyOf::Follow(follower, len, near) => Body::followed(follower, len, near),
                    BodyOf::Parts(service, asker) => {
                        let steps = [Step::Object(0..len)].into();
                        Body::parts(PartsBody::new(service, asker, steps))
                    }
                };
                (code, body)
            }
            Chosen::Parts(parts) => {
                let steps = match &parts[..] {
                    [part] => {
                        headers.insert(CONTENT_RANGE, value(&content_range(part, len)));
                        [Step::Object(part.clone())].into()
                    }
                    parts => {
                        let boundary = self.http.boundary();
                        let inner = headers.insert(CONTENT_TYPE, multipart(&boundary));
                        multipart_steps(&boundary, inner.as_ref(), parts, len)
                    }
                };
                let body = match body {
                    BodyOf::Hit(hit) => match &parts[..] {
                        [part] => stored(hit, part.clone()).await?,
                        _ => Body::stored(AnswerBody::parts(hit, steps).await?),
                    },
                    BodyOf::Follow(follower, ..) => Body::followed_parts(follower, steps),
                    BodyOf::Parts(service, asker) => {
                        Body::parts(PartsBody::new(service, asker, steps))
                    }
                };
                (StatusCode::PARTIAL_CONTENT, body)
            }
        })
    }

    /// Adds what this cache says of an answer.
    pub(super) fn sign(&self, headers: &mut HeaderMap, status: &CacheStatus) {
        status.append_to(headers);
        headers.append(VIA, self.via.clone());
    }

    /// The answer for an upstream that failed.
    pub(super) fn failure(&self, failure: Failure, status: CacheStatus) -> Answer {
        let Failure { status: code, said, detail, .. } = failure;
        let status = CacheStatus { detail: Some(detail), ..status };
        match said {
            None => self.own_as(Served::UpstreamError, code, status),
            Some((mut headers, body)) => {
                self.sign(&mut headers, &status);
                Answer::new(code, headers, Body::memory(body), Served::UpstreamError)
            }
        }
    }

    /// An answer of this cache itself.
    pub(super) fn own(&self, code: StatusCode, status: CacheStatus) -> Answer {
        self.own_as(Served::Refused, code, status)
    }

    /// The answer to a client that cannot get what came.
    pub(super) fn unfit(&self, detail: &str) -> Answer {
        *self.refuse(StatusCode::BAD_GATEWAY, detail)
    }

    /// The refusal of a request.
    pub(super) fn refuse(&self, code: StatusCode, detail: &str) -> Box<Answer> {
        let status = CacheStatus { detail: Some(detail.to_owned()), ..CacheStatus::default() };
        Box::new(self.own(code, status))
    }

    /// An answer of this cache itself that came about so.
    pub(super) fn own_as(&self, served: Served, code: StatusCode, status: CacheStatus) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        self.sign(&mut headers, &status);
        let reason = code.canonical_reason().unwrap_or_default();
        let detail = status.detail.map(|detail| format!(": {detail}")).unwrap_or_default();
        let text = format!("{reason}{detail}\n");
        Answer::new(code, headers, Body::memory(text.into()), served)
    }
}

/// Bytes of what is stored. One piece is given as it lies in memory.
pub(super) async fn stored(hit: Hit, range: Range<u64>) -> Result<Body, TruncatedBody> {
    if range.is_empty() {
        return Ok(Body::absent(Some(0)));
    }
    if hit.whole().is_some() {
        let bytes = hit.range(range).await?.next_chunk().await?;
        return Ok(Body::memory(bytes.unwrap_or_default()));
    }
    Ok(Body::stored(AnswerBody::parts(hit, [Step::Object(range)].into()).await?))
}

/// A value made here, of characters that every field may have.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// How a stored response that is used is told of.
pub(super) fn hit_status(head: &StoredHead, now: Timestamp) -> CacheStatus {
    CacheStatus { hit: true, ttl_secs: Some(head.ttl_secs(now)), ..CacheStatus::default() }
}
