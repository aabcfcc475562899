//! From a request that may be answered from the store to its answer. Owns who asks the upstream, who waits
//! for whom, and who gets what is stale.

use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::answer::{Answer, BodyOf, hit_status};
use super::body::Body;
use super::counts::{HeldBack, Served};
use super::failures::Failure;
use super::fetch::Fetched;
use super::fill::{Job, Known};
use super::look::{LOOKS_MAX, Look};
use super::outcome::Outcome;
use super::partial::{Answered, Present};
use super::place::{Place, Selected};
use super::service::Service;
use super::slots::Slot;
use super::stored::Stored;
use super::wanted::Wanted;
use crate::cache::{Hit, Lease, Leased};
use crate::clock::Timestamp;
use crate::http_cache::cache_status::{CacheStatus, Forwarded};
use crate::http_cache::head::StoredHead;
use crate::http_cache::hop_by_hop::remove_hop_by_hop;
use crate::http_cache::request::Missed;
use crate::http_cache::reuse::{self, Reuse, Why, reuse, stands_in};
use crate::http_cache::storing::Refused;

/// What comes of a request.
pub(super) enum Looked {
    Answer(Answer),
    /// Nobody else's request helps it, and nothing that comes is stored.
    Alone(CacheStatus),
}

/// There is no leave to fill.
fn no_slot(why: Forwarded) -> Looked {
    let detail = Some("waited too long for leave to fill".to_owned());
    Looked::Alone(CacheStatus { detail, ..CacheStatus::forwarded(why) })
}

/// What each store and each validation changes.
fn version(hit: &Hit) -> (u64, Timestamp) {
    (hit.cas(), hit.lifetime().stored_at)
}

impl Service {
    /// Answers a request from the store, from somebody else's fill, or by one of its own.
    pub(super) async fn lookup(self: &Arc<Service>, mut wanted: Wanted<'_>) -> Looked {
        let deadline = Instant::now() + self.options.collapse_timeout;
        let mut missed = Forwarded::UriMiss;
        for number in 0..LOOKS_MAX {
            if number > 0 && !wanted.renew(self).await {
                break;
            }
            let wanted = &wanted;
            let wait = deadline.saturating_duration_since(Instant::now());
            let Some((selected, look)) = self.look(&wanted.sought(), wait).await else { continue };
            missed = if selected.is_some() { Forwarded::VaryMiss } else { Forwarded::UriMiss };
            let looked = match look {
                Look::Hit(hit, lease) => self.with_hit(wanted, selected, (hit, lease), wait).await,
                Look::Follow(follower) => {
                    self.follow(wanted.request, follower, missed).await.map(Looked::Answer)
                }
                Look::Lease(lease) => {
                    let wait = deadline.saturating_duration_since(Instant::now());
                    self.miss(wanted, wanted.place(selected), lease, (missed, wait)).await
                }
                Look::Nothing if wanted.asked.missed() == Missed::GatewayTimeout => {
                    Some(Looked::Answer(
                        self.own(StatusCode::GATEWAY_TIMEOUT, CacheStatus::forwarded(missed)),
                    ))
                }
                Look::Nothing => Some(Looked::Alone(CacheStatus::forwarded(missed))),
                Look::Busy => {
                    let detail = Some("waited too long for another fill".to_owned());
                    Some(Looked::Alone(CacheStatus { detail, ..CacheStatus::forwarded(missed) }))
                }
            };
            if let Some(looked) = looked {
                return looked;
            }
        }
        Looked::Alone(CacheStatus::forwarded(missed))
    }

    /// `None`: look again.
    async fn with_hit(
        self: &Arc<Service>,
        wanted: &Wanted<'_>,
        selected: Option<Selected>,
        (hit, lease): (Hit, Option<Lease>),
        wait: Duration,
    ) -> Option<Looked> {
        let now = self.http.cache.clock().now();
        if let Some(head) = self.plain_head(wanted, &hit, now) {
            drop(lease);
            return self.plain_hit(head, hit).await.map(Looked::Answer);
        }
        let key = selected.as_ref().map_or(&wanted.target, |selected| &selected.key).clone();
        let Some(Stored::Response(record)) = Stored::decode(hit.metadata()) else {
            // Nothing that this cache can read: make room for what it can.
            self.drop_stored(&key).await;
            return None;
        };
        let head = record.of_hit(&hit, self.http.cache.clock());
        let found = Present { key, head, hit };
        let Present { key, head, hit } = &found;
        let why = match reuse(wanted.asked, head, now) {
            Reuse::Fresh | Reuse::StaleForClient => {
                drop(lease);
                return self.hit(wanted, found).await;
            }
            Reuse::StaleWhileRevalidate => {
                let rests = || self.shared.failures.behind(key, now).is_some();
                if let Some(lease) = lease.filter(|_| !rests()) {
                    let known = Some(Known::new(head, hit));
                    match self.shared.slots.free() {
                        Some(slot) => {
                            let place = wanted.place(selected);
                            drop(self.begin(wanted, (place, lease, slot), known, true));
                        }
                        None => self.http.shard.proxy.held_back(HeldBack::Stale),
                    }
                }
                return self.hit(wanted, found).await;
            }
            Reuse::GatewayTimeout => {
                let status = CacheStatus::forwarded(Forwarded::Stale);
                return Some(Looked::Answer(self.own(StatusCode::GATEWAY_TIMEOUT, status)));
            }
            Reuse::Validate(Why::Stale) => Forwarded::Stale,
            Reuse::Validate(Why::Client) => Forwarded::Request,
        };
        if wanted.asked.missed() == Missed::Pass {
            return Some(Looked::Alone(CacheStatus::forwarded(why)));
        }
        let failure = wanted.failure_behind(self, key, head);
        if let Some(failure) = failure.or_else(|| wanted.failure(self, key)) {
            drop(lease);
            let status = CacheStatus::forwarded(why);
            return self.without_upstream(wanted, failure, Some(found), status).await;
        }
        let lease = match lease {
            Some(lease) => lease,
            None => match self.http.cache.lease(key, wait).await {
                Leased::Lease(lease) => lease,
                Leased::Changed => return self.validated_meanwhile(wanted, found).await,
                Leased::Busy => {
                    let failure = reuse::Failure::Connection;
                    return match stands_in(wanted.asked, head, now, failure) {
                        true => {
                            let status = CacheStatus::forwarded(why);
                            self.stale(wanted, found, (&status, failure)).await
                        }
                        false => Some(Looked::Alone(CacheStatus::forwarded(why))),
                    };
                }
            },
        };
        if self.shared.credentials.set_apart(wanted.request, key) {
            return Some(Looked::Alone(CacheStatus::forwarded(why)));
        }
        let present = self.http.cache.lookup_stale_parts(key).await;
        if present.as_ref().is_none_or(|present| version(present) != version(hit)) {
            drop(lease);
            return self.validated_meanwhile(wanted, found).await;
        }
        let slot = match self.shared.slots.free() {
            // As good as an error: the upstream has enough to do.
            None if stands_in(wanted.asked, head, now, reuse::Failure::Connection) => {
                drop(lease);
                self.http.shard.proxy.held_back(HeldBack::Stale);
                return self.hit(wanted, found).await;
            }
            None => self.slot(wait).await,
            free => free,
        };
        let Some(slot) = slot else { return Some(no_slot(why)) };
        let known = Some(Known::new(head, hit));
        let outcome = self.begin(wanted, (wanted.place(selected), lease, slot), known, false).await;
        let status = CacheStatus::forwarded(why);
        self.with_outcome(wanted, outcome.ok()?, Some(found), status).await
    }

    /// An answer with what another client's validation brought while this one waited for it.
    async fn validated_meanwhile(
        self: &Arc<Service>,
        wanted: &Wanted<'_>,
        before: Present,
    ) -> Option<Looked> {
        let hit = self.http.cache.lookup_stale_parts(&before.key).await?;
        // One that was purged meanwhile, and not validated, is not good.
        if version(&hit) == version(&before.hit) {
            return None;
        }
        let Stored::Response(record) = Stored::decode(hit.metadata())? else { return None };
        let head = record.of_hit(&hit, self.http.cache.clock());
        let status = CacheStatus { collapsed: true, ..CacheStatus::forwarded(Forwarded::Stale) };
        let found = Present { head, hit, ..before };
        self.with_stored(wanted, found, status).await
    }

    /// `None`: look again.
    async fn with_stored(
        self: &Arc<Service>,
        wanted: &Wanted<'_>,
        found: Present,
        status: CacheStatus,
    ) -> Option<Looked> {
        let why = CacheStatus::forwarded(status.forwarded.unwrap_or(Forwarded::Partial));
        match self.answer_stored(&wanted.asking(), found, status).await {
            Answered::With(answer) => Some(Looked::Answer(*answer)),
            Answered::Lacking if wanted.asked.only_if_cached => {
                Some(Looked::Answer(self.own(StatusCode::GATEWAY_TIMEOUT, why)))
            }
            Answered::Lacking => Some(Looked::Alone(why)),
            Answered::Changed => None,
        }
    }

    /// `None` if the body is gone: a miss.
    async fn hit(self: &Arc<Service>, wanted: &Wanted<'_>, found: Present) -> Option<Looked> {
        let status = hit_status(&found.head, self.http.cache.clock().now());
        if found.hit.is_partial() {
            return self.with_stored(wanted, found, status).await;
        }
        let body = BodyOf::Hit(found.hit);
        let answer = self.answer_with(wanted.request, found.head, body, status).await;
        answer.ok().map(Looked::Answer)
    }

    /// `None`: look again.
    async fn miss(
        self: &Arc<Service>,
        wanted: &Wanted<'_>,
        place: Place,
        lease: Lease,
        (missed, wait): (Forwarded, Duration),
    ) -> Option<Looked> {
        // Nobody waits for what may not be stored: each has an answer of its own.
        let hit_for_miss = !lease.is_awaited();
        let status = CacheStatus { hit_for_miss, ..CacheStatus::forwarded(missed) };
        if hit_for_miss && wanted.is_of_one_client()
            || self.shared.credentials.set_apart(wanted.request, &place.key)
        {
            return Some(Looked::Alone(status));
        }
        if wanted.successor(self).await.is_some() {
            // Whoever held the lease before learnt it.
            return None;
        }
        if !hit_for_miss && let Some(failure) = wanted.failure(self, &place.key) {
            return Some(Looked::Answer(self.failure(failure, status)));
        }
        let slot = match hit_for_miss {
            // Nobody waits for what comes of it.
            true => self.shared.slots.free(),
            false => self.slot(wait).await,
        };
        let Some(slot) = slot else { return Some(no_slot(missed)) };
        let outcome = self.begin(wanted, (place, lease, slot), None, false).await;
        let looked = match outcome {
            Ok(outcome) => self.with_outcome(wanted, outcome, None, status.clone()).await,
            Err(_) if wanted.successor(self).await.is_some() => return None,
            Err(_) => None,
        };
        Some(looked.unwrap_or(Looked::Alone(status)))
    }

    /// Begins a fill; what it gives is what comes of it.
    fn begin(
        self: &Arc<Service>,
        wanted: &Wanted<'_>,
        (place, lease, slot): (Place, Lease, Slot),
        known: Option<Known>,
        is_refresh: bool,
    ) -> oneshot::Receiver<Outcome> {
        let (client, outcome) = oneshot::channel();
        let (request, to, ruled) =
            (wanted.request.clone(), wanted.to.clone(), wanted.ruled.clone());
        let job = Job { lease, place, request, to, ruled, known, is_refresh, slot };
        self.spawn(Arc::clone(self).fill(job, client));
        outcome
    }

    /// Leave to fill. Who waits for this fill waits too.
    async fn slot(&self, wait: Duration) -> Option<Slot> {
        self.shared.slots.wait(wait, &self.http.shard.proxy).await
    }

    async fn with_outcome(
        self: &Arc<Service>,
        wanted: &Wanted<'_>,
        outcome: Outcome,
        known: Option<Present>,
        status: CacheStatus,
    ) -> Option<Looked> {
        let first_byte = outcome.first_byte();
        let has_known = known.is_some();
        let storing = |head: &StoredHead, status: CacheStatus| CacheStatus {
            stored: true,
            forwarded_status: Some(head.status).filter(|_| has_known),
            ..status
        };
        let looked = match outcome {
            Outcome::Storing { head, len, follower, near, .. } => {
                let status = storing(&head, status);
                let body = BodyOf::Follow(follower, len, Some(near));
                let answer = self.answer_with(wanted.request, *head, body, status).await;
                answer.ok().map(Looked::Answer)
            }
            Outcome::Parts(asker, _) => {
                let (head, status) = (asker.head.clone(), storing(&asker.head, status));
                let body = BodyOf::Parts(self.clone(), asker);
                let answer = self.answer_with(wanted.request, head, body, status).await;
                answer.ok().map(Looked::Answer)
            }
            Outcome::Good { head, code, .. } => {
                let status = CacheStatus { forwarded_status: Some(code), ..status };
                let found = Present { head: *head, ..known? };
                self.with_stored(wanted, found, status).await
            }
            Outcome::Alone(fetched, refused) => {
                Some(self.relay(wanted, *fetched, refused, (known, status)).await)
            }
            Outcome::Failed(failure, _) => {
                self.without_upstream(wanted, failure, known, status).await
            }
        };
        match looked? {
            Looked::Answer(answer) => Some(Looked::Answer(Answer { first_byte, ..answer })),
            alone => Some(alone),
        }
    }

    /// An answer that is for this client alone, or what is stored if that may stand in for it.
    async fn relay(
        &self,
        wanted: &Wanted<'_>,
        fetched: Fetched,
        refused: Option<Refused>,
        (known, status): (Option<Present>, CacheStatus),
    ) -> Looked {
        let now = self.http.cache.clock().now();
        let failed = reuse::Failure::Status(fetched.head.status);
        if let Some(found) = known
            && stands_in(wanted.asked, &found.head, now, failed)
            && let Some(stale) = self.stale(wanted, found, (&status, failed)).await
        {
            return stale;
        }
        let detail = refused.map(|refused| format!("{refused:?}"));
        Looked::Answer(self.passed(fetched, CacheStatus { detail, ..status }))
    }

    /// The answer where the upstream failed: what is stored, if it may stand in.
    async fn without_upstream(
        &self,
        wanted: &Wanted<'_>,
        failure: Failure,
        known: Option<Present>,
        status: CacheStatus,
    ) -> Option<Looked> {
        let now = self.http.cache.clock().now();
        let kind = failure.kind();
        if let Some(found) = known
            && stands_in(wanted.asked, &found.head, now, kind)
            && let Some(stale) = self.stale(wanted, found, (&status, kind)).await
        {
            return Some(stale);
        }
        Some(Looked::Answer(self.failure(failure, status)))
    }

    /// What is stored, in place of an error.
    async fn stale(
        &self,
        wanted: &Wanted<'_>,
        found: Present,
        (status, failed): (&CacheStatus, reuse::Failure),
    ) -> Option<Looked> {
        if !self.has_all(wanted.request, &found).await {
            return None;
        }
        let Present { head, hit, .. } = found;
        let now = self.http.cache.clock().now();
        let forwarded_status = match failed {
            reuse::Failure::Status(status) => Some(status),
            reuse::Failure::Connection => None,
        };
        let ttl_secs = Some(head.ttl_secs(now));
        let detail = Some("stale, as the upstream failed".to_owned());
        let status = CacheStatus { forwarded_status, ttl_secs, detail, ..status.clone() };
        let answer = self.answer_with(wanted.request, head, BodyOf::Hit(hit), status).await;
        answer.ok().map(Looked::Answer)
    }

    /// What came of the upstream, for one client.
    pub(super) fn passed(&self, fetched: Fetched, status: CacheStatus) -> Answer {
        let Fetched { connection, head, announced_len, first_byte, .. } = fetched;
        let mut headers = head.headers;
        remove_hop_by_hop(&mut headers);
        self.sign(&mut headers, &status);
        let body = match connection.body_len() {
            Some(0) => Body::absent(announced_len),
            _ => Body::upstream(connection, self.http.shard.clone()),
        };
        let answer = Answer::new(head.status, headers, body, Served::of(&status));
        Answer { first_byte: Some(first_byte), ..answer }
    }
}
