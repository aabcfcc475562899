//! Answers with all of a stored response, whose fields are sent as they lie. Owns which requests that will do for:
//! most hits. All else goes through the core, with the same result.

use ::http::{HeaderMap, Method, StatusCode};

use super::answer::{Answer, hit_status, stored};
use super::counts::Served;
use super::service::Service;
use super::stored::Outline;
use super::wanted::Wanted;
use crate::cache::Hit;
use crate::clock::Timestamp;
use crate::http_cache::reuse::{Reuse, reuse};

/// The head of such an answer.
pub(super) struct PlainHead {
    status: StatusCode,
    lines: Vec<u8>,
    served: Served,
}

impl Service {
    /// The head of the answer to a GET of all that `hit` found, if that is fresh and its fields can be sent as they
    /// lie.
    pub(super) fn plain_head(
        &self,
        wanted: &Wanted<'_>,
        hit: &Hit,
        now: Timestamp,
    ) -> Option<PlainHead> {
        let is_plain = wanted.request.method() == Method::GET && !wanted.is_of_one_client();
        if !is_plain || hit.is_partial() || !hit.is_fresh(now) {
            return None;
        }
        let (outline, lifetime) = (Outline::read(hit.metadata())?, hit.lifetime());
        let mut lines = Vec::new();
        let written = outline.write(&mut lines)?;
        if !written.has_date || written.is_renewed(&lifetime, self.http.cache.clock()) {
            return None;
        }
        let head = outline.head(&lifetime);
        if reuse(wanted.asked, &head, now) != Reuse::Fresh {
            return None;
        }
        // RFC 9111, section 5.1.
        put(&mut lines, "age", itoa::Buffer::new().format(head.age(now).as_secs()).as_bytes());
        if head.status == StatusCode::OK && !written.has_accept_ranges {
            put(&mut lines, "accept-ranges", b"bytes");
        }
        let status = hit_status(&head, now);
        put(&mut lines, "cache-status", status.member().as_bytes());
        put(&mut lines, "via", self.via.as_bytes());
        Some(PlainHead { status: head.status, lines, served: Served::of(&status) })
    }

    /// The answer; `None` if the body is gone.
    pub(super) async fn plain_hit(&self, head: PlainHead, hit: Hit) -> Option<Answer> {
        let PlainHead { status, lines, served } = head;
        let len = hit.len();
        let body = stored(hit, 0..len).await.ok()?;
        Some(Answer { status, lines, headers: HeaderMap::new(), body, served, first_byte: None })
    }
}

fn put(lines: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        lines.extend_from_slice(part);
    }
}
