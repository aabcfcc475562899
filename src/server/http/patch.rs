//! PATCH: a new lifetime in place, or new headers over the same body.

use std::time::Duration;

use http::header::{CACHE_CONTROL, ETAG, HeaderName, HeaderValue, LAST_MODIFIED};
use http::{HeaderMap, Response, StatusCode};

use super::body::AnswerBody;
use super::counts::HttpOperation;
use super::head::Head;
use super::lifetime::{self, Lifetimes};
use super::put::ack;
use super::refusal::Refusal;
use super::representation::{Representation, wall_date};
use super::service::{Answer, Service};
use crate::cache::{Ack, Condition, Hit, Lifetime, StoreError, Stored, UpdateOptions};
use crate::clock::Stopwatch;
use crate::http_cache::conditional::{Access, Verdict, evaluate, is_conditional};
use crate::server::metadata::{Item, Metadata, ObjectMetadata};

/// Attempts at a change before giving up because other clients change the same key.
const ATTEMPTS_MAX: u32 = 16;

/// What a PATCH says.
struct Patch<'a> {
    headers: &'a HeaderMap,
    explicit: Lifetimes,
    ack: Option<Ack>,
}

impl Service {
    pub(super) async fn patch(&self, key: &[u8], headers: &HeaderMap) -> Result<Answer, Refusal> {
        let watch = Stopwatch::start();
        let patched = self.change(key, headers).await;
        self.shard.http.record(HttpOperation::Patch, watch.elapsed());
        patched?;
        let mut answer = Response::new(AnswerBody::empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        Ok(answer)
    }

    async fn change(&self, key: &[u8], headers: &HeaderMap) -> Result<(), Refusal> {
        let patch = Patch { headers, explicit: lifetime::explicit(headers)?, ack: ack(headers)? };
        if Head::is_named_in(headers) {
            return self.rewrite(key, &patch).await;
        }
        match patch.explicit {
            Lifetimes { ttl: None, grace: None } => Err(Refusal::PATCH_NOTHING),
            Lifetimes { ttl: Some(ttl), grace } if !is_conditional(headers, Access::Change) => {
                let grace = grace.unwrap_or_default();
                match self.cache.touch_with_grace(key, ttl, grace, patch.ack).await {
                    Ok(Some(_)) => Ok(()),
                    Ok(None) => Err(Refusal::NOT_FOUND),
                    Err(error) => Err(self.store_failed(&error)),
                }
            }
            _ => self.prolong(key, &patch).await,
        }
    }

    /// Gives the very version that the preconditions hold for another lifetime, in place.
    async fn prolong(&self, key: &[u8], patch: &Patch<'_>) -> Result<(), Refusal> {
        for _ in 0..ATTEMPTS_MAX {
            let hit = self.present(key, patch).await?;
            if hit.staleness(self.cache.clock().now()).is_none() {
                // Nobody can say how much longer it may live.
                return Err(Refusal::NOT_FOUND);
            }
            let Lifetimes { ttl, grace } = patch.explicit;
            let lifetime = match ttl {
                Some(_) => self.cache.lifetime(ttl, grace.unwrap_or_default()),
                None => self.with_grace(&hit, grace).ok_or(Refusal::NOT_FOUND)?,
            };
            match self.cache.touch_version(key, hit.cas(), lifetime, patch.ack).await {
                Ok(Some(_)) => return Ok(()),
                // It is another version now, or is gone: the next lookup says which.
                Ok(None) => {}
                Err(error) => return Err(self.store_failed(&error)),
            }
        }
        Err(Refusal::CONTENDED)
    }

    /// The present object, if the preconditions hold for it. Stale ones too: a revalidation
    /// refreshes them.
    async fn present(&self, key: &[u8], patch: &Patch<'_>) -> Result<Hit, Refusal> {
        let hit = self.cache.lookup_stale_head(key).await;
        // What was marked as stale over memcached would be an object without that mark.
        let hit = hit.filter(|hit| Item::is_fit(hit.metadata())).ok_or(Refusal::NOT_FOUND)?;
        if !hit.is_partial() && !hit.is_complete().await {
            return Err(Refusal::NOT_FOUND);
        }
        let validators = self.representation(&hit).validators();
        match evaluate(patch.headers, Some(&validators), Access::Change) {
            Verdict::Proceed => Ok(hit),
            Verdict::NotModified | Verdict::Failed => Err(Refusal::PRECONDITION),
        }
    }

    /// The present lifetime of `hit` with another grace, if one is given; `None` if it is stale.
    fn with_grace(&self, hit: &Hit, grace: Option<Duration>) -> Option<Lifetime> {
        let old = hit.lifetime();
        let keep_until = grace.map_or(old.keep_until, |grace| old.fresh_until.plus(grace));
        hit.is_fresh(self.cache.clock().now()).then_some(Lifetime { keep_until, ..old })
    }

    async fn rewrite(&self, key: &[u8], patch: &Patch<'_>) -> Result<(), Refusal> {
        let _turn = self.key_locks.lock(key).await.ok_or(Refusal::CONTENDED)?;
        for _ in 0..ATTEMPTS_MAX {
            // Before the lookup: what is purged after it, hard or soft, is not what the origin validated.
            let fill = self.cache.begin_fill(key);
            let hit = self.present(key, patch).await?;
            let options = match self.changes(&hit, patch) {
                Err(refusal @ Refusal::WITHDRAWN) => {
                    // The origin took back what allowed to keep it.
                    let now = self.cache.clock().now();
                    let ended = Lifetime { fresh_until: now, keep_until: now, ..hit.lifetime() };
                    let ack = Some(Ack::Flushed);
                    match self.cache.touch_version(key, hit.cas(), ended, ack).await {
                        Ok(Some(_)) => return Err(refusal),
                        // It is another version now, or is gone.
                        Ok(None) => continue,
                        Err(error) => return Err(Refusal::of_removal(&error)),
                    }
                }
                options => options?,
            };
            let version = Condition::Unchanged(hit.cas());
            match self.cache.update_with(key, version, &options, &fill).await {
                Ok(Stored::Yes(_)) => return Ok(()),
                Ok(Stored::Exists | Stored::Missing) | Err(StoreError::Purged) => {}
                Err(error) => return Err(self.store_failed(&error)),
            }
        }
        Err(Refusal::CONTENDED)
    }

    /// What becomes of the object: its headers merged with those of `patch`, and the lifetimes that the
    /// whole then gives (RFC 9111, sections 3.2, 4.2.1 and 4.3.4).
    fn changes(&self, hit: &Hit, patch: &Patch<'_>) -> Result<UpdateOptions, Refusal> {
        let (clock, old) = (self.cache.clock(), self.representation(hit));
        let (now, explicit) = (clock.now(), patch.explicit);
        let is_validation = explicit.ttl.is_some() || Head::is_validated_by(patch.headers);
        let validated_after = is_validation.then(|| now.since(old.date()));
        if hit.is_partial() && renames(patch.headers, &old) {
            return Err(Refusal::VALIDATOR_STAYS);
        }
        let head = Head::patched(&old.fields(), patch.headers, validated_after)?;
        let has_control = patch.headers.contains_key(CACHE_CONTROL);
        let is_forbidden = has_control && head.control.forbids_storing && explicit.ttl.is_none();
        if is_forbidden || head.varies_always() {
            return Err(Refusal::WITHDRAWN);
        }
        let said = match is_validation {
            true => explicit.or(lifetime::of_head(&head, clock)),
            false => explicit,
        };
        let is_fresh_for = hit.lifetime().keep_until.since(hit.lifetime().fresh_until);
        let (lifetime, grace) = match said.ttl {
            Some(ttl) => {
                // A grace that the store gave by name stays as long as nothing takes it back.
                let kept = if has_control { Duration::ZERO } else { is_fresh_for };
                (Some(self.cache.lifetime(Some(ttl), said.grace.unwrap_or(kept))), None)
            }
            None => {
                let withdrawn = has_control.then_some(Duration::ZERO);
                if !hit.is_fresh(now) {
                    return Err(Refusal::NOT_FOUND);
                }
                // Validated, and nobody says for how long: its age begins anew, and its end stays.
                let validated = Lifetime { stored_at: now, age_secs: 0, ..hit.lifetime() };
                match (is_validation, said.grace.or(withdrawn)) {
                    (true, Some(grace)) => {
                        let keep_until = validated.fresh_until.plus(grace);
                        (Some(Lifetime { keep_until, ..validated }), None)
                    }
                    (true, None) => (Some(validated), None),
                    (false, grace) => (None, grace),
                }
            }
        };
        let is_weak = match patch.headers.contains_key(LAST_MODIFIED) {
            true => head.has_weak_date(wall_date(clock, now)),
            false => old.has_weak_date(),
        };
        let metadata = ObjectMetadata::new(self.tag_of(&old), is_weak, head.stored()?);
        Ok(UpdateOptions {
            lifetime,
            grace,
            metadata: Some(metadata.encode()),
            ack: patch.ack,
            ..UpdateOptions::default()
        })
    }

    /// The number that the made-up entity tag is made of: the same as long as the body is.
    fn tag_of(&self, object: &Representation) -> u64 {
        match &object.metadata {
            Metadata::Object(object) => object.tag,
            Metadata::Flags(_) | Metadata::Foreign => self.tags.make(),
        }
    }
}

/// Whether `headers` give an object another validator.
fn renames(headers: &HeaderMap, old: &Representation) -> bool {
    let fields = old.fields();
    let is_other = |name: HeaderName, kept: Option<&HeaderValue>| {
        headers.get(name).is_some_and(|given| Some(given) != kept)
    };
    is_other(ETAG, Some(&old.validators().etag))
        || is_other(LAST_MODIFIED, fields.get(LAST_MODIFIED))
}
