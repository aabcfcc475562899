//! The method `PURGE`: who may, and what of its target goes. It is answered here and never given on.

use ::http::HeaderMap;
use ::http::StatusCode;
use ::http::header::{ALLOW, AUTHORIZATION, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use futures_util::future::try_join_all;

use super::answer::Answer;
use super::counts::Served;
use super::key::variant_key;
use super::new_response::{ATTEMPTS_MAX, list_options};
use super::service::Service;
use super::shelf::Shelf;
use super::stored::Stored;
use crate::cache::{Condition, Purge, StoreError, Stored as Ended};
use crate::http_cache::cache_status::CacheStatus;
use crate::http_cache::head::RequestHead;
use crate::http_cache::variants::VARIANTS_MAX;

/// The method, which has no standard.
pub(super) const PURGE: &str = "PURGE";
/// Says whether what is purged is gone or stale.
const HOW: HeaderName = HeaderName::from_static("purge");
/// The methods that clients can use without more.
const ALLOWED: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"purge\"");

impl Service {
    /// Takes the credentials of a PURGE out of `headers`, and checks them.
    ///
    /// # Errors
    /// The answer to a client that may not purge.
    pub(super) fn may_purge(&self, headers: &mut HeaderMap) -> Result<(), Box<Answer>> {
        let Some(token) = &self.options.purge_token else {
            let detail = "PURGE is not allowed here";
            return Err(self.refuse_with(StatusCode::METHOD_NOT_ALLOWED, detail, (ALLOW, ALLOWED)));
        };
        let is_one = headers.get_all(AUTHORIZATION).iter().count() == 1;
        let given = headers.remove(AUTHORIZATION).filter(|_| is_one);
        if given.is_some_and(|given| token.is_in(given.as_bytes())) {
            return Ok(());
        }
        let challenge = (WWW_AUTHENTICATE, CHALLENGE);
        Err(self.refuse_with(StatusCode::UNAUTHORIZED, "PURGE needs the token", challenge))
    }

    /// Takes the token out of a request of another method: the upstream is not to know it.
    pub(super) fn hide_token(&self, headers: &mut HeaderMap) {
        if let Some(token) = &self.options.purge_token
            && headers.get_all(AUTHORIZATION).iter().any(|given| token.is_in(given.as_bytes()))
        {
            headers.remove(AUTHORIZATION);
        }
    }

    /// Purges the target of `request`; on the device when it is answered.
    ///
    /// # Errors
    /// The answer, where it was not purged.
    pub(super) async fn purge(&self, request: &RequestHead) -> Result<Answer, Box<Answer>> {
        let Some(how) = how(request.headers()) else {
            let detail = "the field Purge takes soft or hard";
            return Err(self.refuse(StatusCode::BAD_REQUEST, detail));
        };
        for key in self.keys(request.target(), request).await {
            self.purge_target(&key, how).await.map_err(|error| {
                let detail = format!("not on the device: {error}");
                self.refuse(StatusCode::SERVICE_UNAVAILABLE, &detail)
            })?;
        }
        Ok(self.own_as(Served::Purged, StatusCode::OK, CacheStatus::default()))
    }

    fn refuse_with(
        &self,
        code: StatusCode,
        detail: &str,
        (name, value): (HeaderName, HeaderValue),
    ) -> Box<Answer> {
        let mut answer = self.refuse(code, detail);
        answer.headers.insert(name, value);
        answer
    }
}

impl Shelf {
    /// Purges all variants of a target; on the device when it returns. Whether there was anything.
    pub(super) async fn purge_target(&self, target: &[u8], how: Purge) -> Result<bool, StoreError> {
        match how {
            Purge::Hard => self.http.cache.purge_key(target, how).await,
            Purge::Soft => self.purge_softly(target).await,
        }
    }

    /// Makes stale what is stored of a target, or removes it where that is not sure to be all. A purge record would
    /// do so too, but there is room for few.
    async fn purge_softly(&self, target: &[u8]) -> Result<bool, StoreError> {
        let cache = &self.http.cache;
        let was_there = cache.purge_key(target, Purge::Soft).await?;
        for _ in 0..ATTEMPTS_MAX {
            let Some(hit) = cache.lookup_stale(target).await else { return Ok(was_there) };
            let Some(Stored::Variants(mut list)) = Stored::decode(hit.metadata()) else {
                return Ok(was_there);
            };
            // From here on nobody adds what was asked for before.
            list.note_soft_purge();
            let Some(options) = list_options(&list).filter(|_| list.len() < VARIANTS_MAX) else {
                // There may be older ones that it does not name any more.
                break;
            };
            match cache.put(target, b"", Condition::Unchanged(hit.cas()), &options).await? {
                Ended::Yes(_) => {
                    let keys = list.iter().map(|it| variant_key(target, list.name(), it.id()));
                    let purges =
                        keys.map(async |key| cache.purge_key(&key, Purge::Soft).await.map(drop));
                    return try_join_all(purges).await.map(|_| true);
                }
                Ended::Missing => return Ok(was_there),
                Ended::Exists => {}
            }
        }
        cache.purge_key(target, Purge::Hard).await
    }
}

/// What a request asks for; `None` if it is neither of the two.
pub(super) fn how(headers: &HeaderMap) -> Option<Purge> {
    let mut values = headers.get_all(HOW).iter();
    match (values.next(), values.next()) {
        (None, _) => Some(Purge::Hard),
        (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"soft") => Some(Purge::Soft),
        (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"hard") => Some(Purge::Hard),
        _ => None,
    }
}
