//! PUT of a part of an object: `Content-Range` says which bytes of how many.

use std::future::pending;
use std::time::SystemTime;

use http::HeaderMap;
use http::header::{ETAG, IF_MATCH};
use tokio::task::coop::consume_budget;

use super::counts::HttpOperation;
use super::head::Head;
use super::put::{check_framing, given_etag, stored_answer};
use super::refusal::Refusal;
use super::representation::{made_up_etag, wall_date};
use super::request_body::RequestBody;
use super::service::{Answer, Service};
use super::wire::Socket;
use crate::cache::{
    Condition, Fill, Hit, Lifetime, PartWriter, StoreOptions, Stored, UpdateOptions, Validator,
};
use crate::clock::Stopwatch;
use crate::http_cache::conditional::{
    Access, DateKind, Validators, Verdict, evaluate, is_conditional,
};
use crate::http_cache::range::part;
use crate::server::codec::head::RequestHead;

/// Looks at what there is before giving up because other clients change the same key.
const ATTEMPTS_MAX: u32 = 16;

impl Service {
    pub(super) async fn put_part<S: Socket>(
        &self,
        key: &[u8],
        head: &RequestHead,
        body: &mut RequestBody<'_, S>,
    ) -> Result<Answer, Refusal> {
        self.shard.cmd_set.bump();
        check_framing(head, body)?;
        let headers = &head.headers;
        let part = part(headers).ok_or(Refusal::CONTENT_RANGE)?;
        let len = part.range.end - part.range.start;
        if body.len().is_some_and(|announced| announced != len) {
            return Err(Refusal::CONTENT_RANGE);
        }
        let (options, tag) = self.store_options(headers, None)?;
        let now = self.cache.clock().now();
        if options.lifetime.is_some_and(|lifetime| lifetime.keep_until <= now) {
            return Err(Refusal::ENDS_AT_ONCE);
        }
        let refusal = match is_conditional(headers, Access::Change) {
            true => Refusal::PRECONDITION,
            false => Refusal::NOT_NEWER,
        };
        for _ in 0..ATTEMPTS_MAX {
            // Before the lookup: what is purged after it, hard or soft, is not what this part is of.
            let fill = self.cache.begin_fill(key);
            let present = self.cache.lookup_stale_head(key).await;
            self.check_part(headers, present.as_ref())?;
            let (date, validator) = self.version(headers, present.as_ref())?;
            let is_fresh = present.as_ref().is_none_or(|hit| self.is_fresh(hit));
            if let Some(whole) = present.as_ref().filter(|hit| !hit.is_partial())
                && self.has_validator(whole, &validator)
                && whole.is_complete().await
            {
                if whole.len() != part.len {
                    return Err(refusal);
                }
                // It is there, and the first bytes stay.
                self.receive_part(None, body, len).await?;
                if !is_fresh {
                    self.validate((key, whole.cas()), &validator, &options, &fill).await?;
                }
                let settled = self.cache.settle(whole, options.ack).await;
                settled.map_err(|error| self.store_failed(&error))?;
                return Ok(stored_answer(false, given_etag(headers)));
            }
            let options = self.dated(options.clone(), date);
            // What was looked at, so that a version that comes meanwhile is looked at too.
            let seen = present.as_ref().map(Hit::cas);
            let condition = seen.map_or(Condition::Absent, Condition::Unchanged);
            let of = (part.len, &validator);
            let declared = self.cache.declare_if(key, of, (condition, &options), fill).await;
            match declared.map_err(|error| self.store_failed(&error))? {
                Some(parts) => {
                    let writer = parts.writer(part.range.start);
                    self.receive_part(Some(writer), body, len).await?;
                    if !parts.is_new() && !is_fresh {
                        let of = (key, parts.cas());
                        self.validate(of, &validator, &options, parts.since()).await?;
                    }
                    let made_up = || parts.is_new().then(|| made_up_etag(tag));
                    return Ok(stored_answer(parts.is_new(), given_etag(headers).or_else(made_up)));
                }
                None => {
                    let again = self.cache.lookup_stale_head(key).await;
                    if again.map(|hit| hit.cas()) == seen {
                        return Err(refusal);
                    }
                }
            }
        }
        Err(Refusal::CONTENDED)
    }

    /// When the version of a part was sent by its origin, as far as is known, and what tells it from others: of
    /// what there is, where only `If-Match` names it.
    fn version(
        &self,
        headers: &HeaderMap,
        present: Option<&Hit>,
    ) -> Result<(Option<SystemTime>, Validator), Refusal> {
        let head = Head::of(headers)?;
        // Of several, or of any, nobody says which one the bytes are of.
        let mut named = headers.get_all(IF_MATCH).iter();
        let is_one = named.next().is_some_and(|tag| Validator::etag(tag.as_bytes()).is_some())
            && named.next().is_none();
        let validator = match (headers.get(ETAG), present.filter(|_| is_one), head.modified()) {
            (Some(etag), ..) => Validator::etag(etag.as_bytes()),
            (None, Some(hit), _) => hit.validator().or_else(|| self.whole_validator(hit)),
            (None, None, Some(modified)) => {
                let clock = self.cache.clock();
                let date = head.date().unwrap_or_else(|| wall_date(clock, clock.now()));
                Validator::last_modified(modified, date)
            }
            (None, None, None) => None,
        };
        Ok((head.date(), validator.ok_or(Refusal::NO_VALIDATOR)?))
    }

    /// Whether a whole object is the version that `validator` names: by its entity tag, or by a date that no other
    /// version has (RFC 9110, section 8.8.2.2).
    fn has_validator(&self, whole: &Hit, validator: &Validator) -> bool {
        let Validators { etag, modified, kind } = self.representation(whole).validators();
        match validator.as_etag() {
            Some(asked) => asked == etag.as_bytes(),
            None => kind == DateKind::Strong && modified == validator.as_date(),
        }
    }

    /// What tells a whole object from others.
    fn whole_validator(&self, hit: &Hit) -> Option<Validator> {
        Validator::etag(self.representation(hit).validators().etag.as_bytes())
    }

    /// The same options for a version that was sent at `date`.
    fn dated(&self, options: StoreOptions, date: Option<SystemTime>) -> StoreOptions {
        let Some((date, lifetime)) = date.zip(options.lifetime) else { return options };
        let now = wall_date(self.cache.clock(), lifetime.stored_at);
        let age = now.duration_since(date).unwrap_or_default().as_secs();
        let age_secs = u32::try_from(age).unwrap_or(u32::MAX);
        StoreOptions { lifetime: Some(Lifetime { age_secs, ..lifetime }), ..options }
    }

    fn is_fresh(&self, hit: &Hit) -> bool {
        hit.is_fresh(self.cache.clock().now())
    }

    /// Evaluates the preconditions against what there is, whole or not, stale or not.
    fn check_part(&self, headers: &HeaderMap, present: Option<&Hit>) -> Result<(), Refusal> {
        if !is_conditional(headers, Access::Change) {
            return Ok(());
        }
        let validators = present.map(|hit| self.representation(hit).validators());
        match evaluate(headers, validators.as_ref(), Access::Change) {
            Verdict::Proceed => Ok(()),
            Verdict::NotModified | Verdict::Failed => Err(Refusal::PRECONDITION),
        }
    }

    /// The origin sent a part of a stale object: it is that version still (RFC 9111, section 3.4).
    async fn validate(
        &self,
        (key, mut cas): (&[u8], u64),
        validator: &Validator,
        options: &StoreOptions,
        since: &Fill,
    ) -> Result<(), Refusal> {
        let (lifetime, ack) = (options.lifetime, options.ack);
        let validated = UpdateOptions { lifetime, ack, ..UpdateOptions::default() };
        for _ in 0..ATTEMPTS_MAX {
            let condition = Condition::Unchanged(cas);
            let updated = self.cache.update_with(key, condition, &validated, since).await;
            if updated.map_err(|error| self.store_failed(&error))? != Stored::Exists {
                return Ok(());
            }
            // Somebody changed it meanwhile, perhaps its headers only.
            match self.cache.lookup_stale_head(key).await {
                Some(hit) if !self.is_fresh(&hit) && self.is_version(&hit, validator) => {
                    cas = hit.cas();
                }
                _ => return Ok(()),
            }
        }
        Err(Refusal::CONTENDED)
    }

    /// Whether an object, whole or not, is the version that `validator` names.
    fn is_version(&self, hit: &Hit, validator: &Validator) -> bool {
        hit.validator().map_or_else(|| self.has_validator(hit, validator), |own| own == *validator)
    }

    /// Stores a body of `len` bytes, or only checks it. Of one that is cut, what came is stored.
    async fn receive_part<S: Socket>(
        &self,
        mut writer: Option<PartWriter>,
        body: &mut RequestBody<'_, S>,
        len: u64,
    ) -> Result<(), Refusal> {
        let mut left = len;
        let came = loop {
            consume_budget().await;
            let lost = async {
                match &writer {
                    Some(writer) => writer.lost().await,
                    None => pending().await,
                }
            };
            let next = tokio::select! {
                biased;
                next = body.next() => next,
                error = lost => return Err(self.store_failed(&error)),
            };
            let bytes = match next {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break if left == 0 { Ok(()) } else { Err(Refusal::CONTENT_RANGE) },
                Err(error) => break Err(error.into()),
            };
            if bytes.len() as u64 > left {
                break Err(Refusal::CONTENT_RANGE);
            }
            left -= bytes.len() as u64;
            if let Some(writer) = &mut writer {
                let written = writer.write_chunk(bytes).await;
                written.map_err(|error| self.store_failed(&error))?;
            }
        };
        let Some(writer) = writer else { return came };
        let watch = Stopwatch::start();
        let stored = writer.finish().await;
        self.shard.http.record(HttpOperation::Put, watch.elapsed());
        came?;
        stored.map_err(|error| self.store_failed(&error))
    }
}
