//! GET and HEAD.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, RANGE};
use http::{HeaderMap, Response, StatusCode};

use super::body::{AnswerBody, Step};
use super::counts::HttpOperation;
use super::refusal::Refusal;
use super::representation::Representation;
use super::service::{Answer, Service, plain};
use crate::cache::{Hit, Tier, TruncatedBody};
use crate::clock::Stopwatch;
use crate::http_cache::cache_control::CacheControl;
use crate::http_cache::conditional::{Access, Verdict, evaluate, is_conditional, range_applies};
use crate::http_cache::range::{Selection, select, select_exactly};
use crate::server::metadata::Item;

const BYTES: HeaderValue = HeaderValue::from_static("bytes");
/// Room reserved for header lines: few answers have more.
const HEADERS_OFTEN: usize = 12;
/// The ranges that are missing of an object that is stored part by part.
const MISSING: HeaderName = HeaderName::from_static("x-rawcached-missing");
/// Most ranges that it names.
const MISSING_MAX: usize = 100;
/// Most lookups for one answer.
const LOOKUPS_MAX: usize = 2;

impl Service {
    pub(super) async fn get(&self, key: &[u8], request: &HeaderMap) -> Answer {
        let watch = Stopwatch::start();
        // Retry once: the object may have been replaced, or its first piece was damaged.
        for _ in 0..LOOKUPS_MAX {
            let Some(hit) = self.find(key, request).await else { break };
            let tier = hit.tier();
            match self.answer_with(hit, request).await {
                Ok(answer) => {
                    self.count_lookup(Some(tier), &watch);
                    return answer;
                }
                Err(Lack::Parts(missing)) => {
                    self.count_lookup(None, &watch);
                    return incomplete(&missing);
                }
                Err(Lack::Body) => {}
            }
        }
        self.count_lookup(None, &watch);
        plain(Refusal::NOT_FOUND)
    }

    pub(super) async fn head(&self, key: &[u8], request: &HeaderMap) -> Answer {
        let watch = Stopwatch::start();
        let mut hit = self.find(key, request).await;
        if let Some(found) = hit.as_ref().filter(|hit| hit.is_partial()) {
            let refused = self.refused_by_conditions(request, &self.representation(found));
            let missing = match &refused {
                Some(_) => Vec::new(),
                None => found.missing(0..found.len()).await,
            };
            if !missing.is_empty() {
                self.count_lookup(None, &watch);
                return incomplete(&missing);
            }
        } else if let Some(found) = &hit
            && !found.is_complete().await
        {
            hit = None;
        }
        self.count_lookup(hit.as_ref().map(Hit::tier), &watch);
        let Some(hit) = hit else { return plain(Refusal::NOT_FOUND) };
        let representation = self.representation(&hit);
        let refused = self.refused_by_conditions(request, &representation);
        let described = || self.describe(&representation, AnswerBody::absent(hit.len()));
        refused.unwrap_or_else(described)
    }

    pub(in crate::server) fn count_lookup(&self, tier: Option<Tier>, watch: &Stopwatch) {
        self.shard.http.record(HttpOperation::of_lookup(tier), watch.elapsed());
        if let Some(tier) = tier {
            self.shard.count_hit(tier);
        }
    }

    /// Finds a fresh object, or a stale one if the request allows it by `max-stale`. What a client of the memcached
    /// protocol marked as stale, nobody knows for how long, or has yet to bring, is not there.
    async fn find(&self, key: &[u8], request: &HeaderMap) -> Option<Hit> {
        self.find_any(key, request).await.filter(|hit| Item::is_fit(hit.metadata()))
    }

    async fn find_any(&self, key: &[u8], request: &HeaderMap) -> Option<Hit> {
        let Some(max_stale) = CacheControl::of(request).max_stale else {
            return self.cache.lookup_head(key).await;
        };
        let hit = self.cache.lookup_stale_head(key).await?;
        // Unknown staleness counts as the greatest.
        let staleness = hit.staleness(self.cache.clock().now()).unwrap_or(Duration::MAX);
        (staleness <= max_stale).then_some(hit)
    }

    /// The answer if the preconditions of a request do not hold.
    fn refused_by_conditions(
        &self,
        request: &HeaderMap,
        representation: &Representation,
    ) -> Option<Answer> {
        if !is_conditional(request, Access::Read) {
            return None;
        }
        match evaluate(request, Some(&representation.validators()), Access::Read) {
            Verdict::Proceed => None,
            Verdict::Failed => Some(plain(Refusal::PRECONDITION)),
            Verdict::NotModified => {
                let mut answer = Response::new(AnswerBody::empty());
                *answer.status_mut() = StatusCode::NOT_MODIFIED;
                let now = self.cache.clock().now();
                representation.describe_validation(answer.headers_mut(), now);
                Some(answer)
            }
        }
    }

    /// The whole object or the ranges asked for.
    async fn answer_with(&self, hit: Hit, request: &HeaderMap) -> Result<Answer, Lack> {
        let representation = self.representation(&hit);
        if let Some(refused) = self.refused_by_conditions(request, &representation) {
            return Ok(refused);
        }
        let asked = request.get(RANGE);
        let asked = asked.filter(|_| range_applies(request, &representation.validators()));
        // Between the ranges asked for, bytes may be missing.
        let select = if hit.is_partial() { select_exactly } else { select };
        let selection = asked.map_or(Selection::Whole, |range| select(range.as_bytes(), hit.len()));
        if hit.is_partial() {
            let missing = missing_of(&hit, &selection).await;
            if !missing.is_empty() {
                return Err(Lack::Parts(missing));
            }
        }
        let answer = match selection {
            Selection::Whole => self.whole(hit, &representation).await,
            Selection::Nothing => Ok(unsatisfiable(hit.len())),
            Selection::Parts(parts) if parts.len() == 1 => {
                self.one_part(hit, &representation, parts[0].clone()).await
            }
            Selection::Parts(parts) => self.several_parts(hit, &representation, &parts).await,
        };
        answer.map_err(|TruncatedBody| Lack::Body)
    }

    async fn whole(
        &self,
        hit: Hit,
        representation: &Representation,
    ) -> Result<Answer, TruncatedBody> {
        let len = hit.len();
        let body = part(hit, 0..len).await?;
        Ok(self.describe(representation, body))
    }

    async fn one_part(
        &self,
        hit: Hit,
        representation: &Representation,
        range: Range<u64>,
    ) -> Result<Answer, TruncatedBody> {
        let content_range = content_range(&range, hit.len());
        let mut answer = self.describe(representation, part(hit, range).await?);
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        answer.headers_mut().insert(CONTENT_RANGE, header(&content_range));
        Ok(answer)
    }

    async fn several_parts(
        &self,
        hit: Hit,
        representation: &Representation,
        parts: &[Range<u64>],
    ) -> Result<Answer, TruncatedBody> {
        let mut answer = self.describe(representation, AnswerBody::empty());
        let boundary = self.boundary();
        let content_type = answer.headers_mut().insert(CONTENT_TYPE, multipart(&boundary));
        let steps = multipart_steps(&boundary, content_type.as_ref(), parts, hit.len());
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        *answer.body_mut() = AnswerBody::parts(hit, steps).await?;
        Ok(answer)
    }

    /// What separates the parts of one answer: random, so that no object contains it.
    pub(in crate::server) fn boundary(&self) -> String {
        format!("{:016x}{:016x}", self.tags.make(), self.tags.make())
    }

    fn describe(&self, representation: &Representation, body: AnswerBody) -> Answer {
        let mut answer = Response::new(body);
        let headers = answer.headers_mut();
        headers.reserve(HEADERS_OFTEN);
        headers.insert(ACCEPT_RANGES, BYTES);
        representation.describe(headers, self.cache.clock().now());
        answer
    }
}

/// The content type of an answer with several parts (RFC 9110, section 14.6).
pub(in crate::server) fn multipart(boundary: &str) -> HeaderValue {
    header(&format!("multipart/byteranges; boundary={boundary}"))
}

/// The body of an answer with several `parts` of an object of `len` bytes.
pub(in crate::server) fn multipart_steps(
    boundary: &str,
    content_type: Option<&HeaderValue>,
    parts: &[Range<u64>],
    len: u64,
) -> VecDeque<Step> {
    let mut steps = VecDeque::with_capacity(2 * parts.len() + 1);
    for part in parts {
        let mut text = format!("\r\n--{boundary}\r\nContent-Range: ").into_bytes();
        text.extend_from_slice(content_range(part, len).as_bytes());
        if let Some(content_type) = content_type {
            text.extend_from_slice(b"\r\nContent-Type: ");
            text.extend_from_slice(content_type.as_bytes());
        }
        text.extend_from_slice(b"\r\n\r\n");
        steps.push_back(Step::Text(Bytes::from(text)));
        steps.push_back(Step::Object(part.clone()));
    }
    steps.push_back(Step::Text(Bytes::from(format!("\r\n--{boundary}--\r\n"))));
    steps
}

/// Why an object that was found cannot answer a request.
enum Lack {
    /// Its first piece cannot be read: look it up once more.
    Body,
    /// These bytes are not there yet, or were evicted.
    Parts(Vec<Range<u64>>),
}

/// What is missing of the parts that are asked for.
async fn missing_of(hit: &Hit, selection: &Selection) -> Vec<Range<u64>> {
    match selection {
        Selection::Nothing => Vec::new(),
        Selection::Whole => hit.missing(0..hit.len()).await,
        Selection::Parts(parts) => {
            let mut missing = Vec::new();
            for part in parts {
                missing.extend(hit.missing(part.clone()).await);
            }
            missing
        }
    }
}

/// The answer where bytes are missing: it names them as a `Range` header would ask for them.
fn incomplete(missing: &[Range<u64>]) -> Answer {
    let named = missing.len().min(MISSING_MAX);
    // The last one stands for all that follow.
    let end_of_all = missing.iter().map(|range| range.end).max().unwrap_or_default();
    let mut text = String::from("bytes=");
    for (n, range) in missing[..named].iter().enumerate() {
        let end = if n + 1 == named { end_of_all } else { range.end };
        let separator = if n == 0 { "" } else { "," };
        let _ = write!(text, "{separator}{}-{}", range.start, end - 1);
    }
    let mut answer = plain(Refusal::NOT_FOUND);
    answer.headers_mut().insert(MISSING, header(&text));
    answer
}

/// The bytes `range` of an object: at once if they are in memory.
async fn part(hit: Hit, range: Range<u64>) -> Result<AnswerBody, TruncatedBody> {
    if range.is_empty() {
        return Ok(AnswerBody::empty());
    }
    if hit.whole().is_some() {
        let bytes = hit.range(range).await?.next_chunk().await?;
        return Ok(AnswerBody::memory(bytes.unwrap_or_default()));
    }
    AnswerBody::parts(hit, VecDeque::from([Step::Object(range)])).await
}

fn unsatisfiable(len: u64) -> Answer {
    let mut answer = plain(Refusal::RANGE);
    answer.headers_mut().insert(CONTENT_RANGE, header(&format!("bytes */{len}")));
    answer
}

/// `Content-Range` of a part of an object of `len` bytes.
pub(in crate::server) fn content_range(part: &Range<u64>, len: u64) -> String {
    format!("bytes {}-{}/{len}", part.start, part.end - 1)
}

/// A header value; `text` is made here, of characters that every header may have.
fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
