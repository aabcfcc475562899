//! PATCH: a new lifetime in place, or new headers with a copy of the body.

use http::header::{HeaderName, LAST_MODIFIED};
use http::{HeaderMap, Response, StatusCode};

use super::body::AnswerBody;
use super::conditional::{Access, Verdict, evaluate, is_conditional};
use super::counts::HttpOperation;
use super::lifetime::{self, Lifetimes};
use super::put::ack;
use super::refusal::Refusal;
use super::representation::{KEPT, Representation, keep};
use super::service::{Answer, Service};
use crate::cache::{Ack, Condition, Hit, StoreError, StoreOptions, Stored};
use crate::clock::Stopwatch;
use crate::server::metadata::{Fields, Metadata, ObjectMetadata};

/// Attempts at a change before giving up because other clients change the same key.
const ATTEMPTS_MAX: u32 = 16;

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
        let (explicit, ack) = (lifetime::explicit(headers)?, ack(headers)?);
        if KEPT.iter().any(|name| headers.contains_key(name)) {
            return self.rewrite(key, headers, ack).await;
        }
        match explicit {
            Lifetimes { ttl: None, grace: None } => Err(Refusal::PATCH_NOTHING),
            // Not with preconditions: they must hold for the very entry that is changed.
            Lifetimes { ttl: Some(ttl), grace } if !is_conditional(headers, Access::Change) => {
                let grace = grace.unwrap_or_default();
                match self.cache.touch_with_grace(key, ttl, grace, ack).await {
                    Ok(Some(_)) => Ok(()),
                    Ok(None) => Err(Refusal::NOT_FOUND),
                    Err(error) => Err(self.store_failed(&error)),
                }
            }
            _ => self.rewrite(key, headers, ack).await,
        }
    }

    async fn rewrite(
        &self,
        key: &[u8],
        headers: &HeaderMap,
        ack: Option<Ack>,
    ) -> Result<(), Refusal> {
        for _ in 0..ATTEMPTS_MAX {
            // Stale objects too: a revalidation refreshes them.
            let Some(hit) = self.cache.lookup_stale(key).await else {
                return Err(Refusal::NOT_FOUND);
            };
            let representation = self.representation(&hit);
            let validators = representation.validators();
            if evaluate(headers, Some(&validators), Access::Change) != Verdict::Proceed {
                return Err(Refusal::PRECONDITION);
            }
            let Some(options) = self.changed_options(&hit, &representation, headers, ack)? else {
                return Err(Refusal::NOT_FOUND);
            };
            match self.copy(key, hit, options).await {
                Ok(Stored::Yes(_)) => return Ok(()),
                Ok(Stored::Exists | Stored::Missing) | Err(StoreError::Purged) => {}
                Err(error) => return Err(self.store_failed(&error)),
            }
        }
        Err(Refusal::CONTENDED)
    }

    /// The old lifetime and headers, changed by `headers`. `None` if a stale object gets no new
    /// lifetime: other headers do not make it live longer.
    fn changed_options(
        &self,
        hit: &Hit,
        representation: &Representation,
        headers: &HeaderMap,
        ack: Option<Ack>,
    ) -> Result<Option<StoreOptions>, Refusal> {
        let said = lifetime::of_store(headers, self.cache.clock())?;
        let old = hit.lifetime();
        let grace = said.grace.unwrap_or_else(|| old.keep_until.since(old.fresh_until));
        let mut lifetime = self.cache.lifetime(said.ttl, grace);
        let mut date = lifetime.stored_at;
        if said.ttl.is_none() {
            if !hit.is_fresh(lifetime.stored_at) {
                return Ok(None);
            }
            lifetime.fresh_until = old.fresh_until;
            lifetime.keep_until = match said.grace {
                Some(grace) => old.fresh_until.plus(grace),
                None => old.keep_until,
            };
            date = representation.date();
        }
        let fields = merged(representation, headers)?;
        let tag = match &representation.metadata {
            Metadata::Object(object) => object.tag,
            Metadata::Flags(_) | Metadata::Foreign => self.tags.make(),
        };
        Ok(Some(StoreOptions {
            lifetime: Some(lifetime),
            metadata: ObjectMetadata::new(date, tag, fields).encode(),
            len_hint: Some(hit.len()),
            ack,
            ..StoreOptions::default()
        }))
    }

    /// Stores the body of `hit` again with `options`, if nothing else was stored meanwhile.
    async fn copy(
        &self,
        key: &[u8],
        mut hit: Hit,
        options: StoreOptions,
    ) -> Result<Stored, StoreError> {
        let mut writer = self.cache.store(key, options)?;
        loop {
            match hit.next_chunk().await {
                Ok(Some(chunk)) => writer.write_chunk(&chunk).await?,
                Ok(None) => break,
                // The old body is gone; the next lookup says so.
                Err(_) => return Ok(Stored::Missing),
            }
        }
        writer.finalize(Condition::Unchanged(hit.cas())).await
    }
}

/// The headers of `old`, with those that `new` names replaced, or removed if empty there. The old
/// `Last-Modified` stays unless `new` names it.
fn merged(old: &Representation, new: &HeaderMap) -> Result<Fields, Refusal> {
    let mut fields = Fields::default();
    if let Metadata::Object(object) = &old.metadata {
        for (name, value) in object.fields() {
            if let Ok(name) = HeaderName::from_bytes(&name)
                && !new.contains_key(&name)
            {
                keep(&mut fields, &name, &value)?;
            }
        }
    }
    for name in &KEPT {
        for value in new.get_all(name).iter().filter(|value| !value.is_empty()) {
            keep(&mut fields, name, value.as_bytes())?;
        }
    }
    if !new.contains_key(LAST_MODIFIED)
        && !old.has_field(&LAST_MODIFIED)
        && let Some(modified) = old.validators().modified
    {
        let modified = httpdate::fmt_http_date(modified);
        keep(&mut fields, &LAST_MODIFIED, modified.as_bytes())?;
    }
    Ok(fields)
}
