//! GET and HEAD: a stored response, or the status of a miss, with or without the lease to bring one.

use std::time::Duration;

use ::http::header::HeaderValue;
use tokio::time::Instant;

use super::given::{Given, LEASE};
use super::service::Replay;
use crate::cache::{Hit, Lease, Leased};
use crate::clock::Stopwatch;
use crate::http_cache::cache_control::CacheControl;
use crate::http_cache::cache_status::{CacheStatus, Forwarded};
use crate::http_cache::head::RequestHead;
use crate::http_cache::request::{Class, classify};
use crate::http_cache::reuse::{Reuse, reuse};
use crate::server::proxy::answer::{Answer, BodyOf, hit_status};
use crate::server::proxy::counts::Served;
use crate::server::proxy::look::{LOOKS_MAX, Look, Sought};
use crate::server::proxy::place::{Place, Selected};
use crate::server::proxy::stored::Stored;

/// One who asks.
struct Asking<'a> {
    sought: Sought<'a>,
    /// It brings the response if there is none, or waits so long for who does.
    wait: Option<Duration>,
    /// When its wait ends.
    deadline: Instant,
    watch: Stopwatch,
}

impl Replay {
    pub(super) async fn get(
        &self,
        request: &RequestHead,
        target: Vec<u8>,
        wait: Option<Duration>,
    ) -> Answer {
        let watch = Stopwatch::start();
        let Class::Lookup(mut asked) = classify(request, &self.shelf.settings) else {
            self.shelf.http.count_lookup(None, &watch);
            return self.miss(CacheStatus::forwarded(Forwarded::Bypass));
        };
        asked.control.max_stale = CacheControl::of(request.headers()).max_stale;
        // One with an answer of its own waits for nobody.
        asked.only_if_cached |= wait.is_none() || self.credentials.set_apart(request, &target);
        let sought = Sought { request, asked: &asked, target: &target, is_rare: false };
        let deadline = Instant::now() + wait.unwrap_or_default();
        let asking = Asking { sought, wait, deadline, watch };
        let mut missed = Forwarded::UriMiss;
        for _ in 0..LOOKS_MAX {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some((selected, look)) = self.shelf.look(&asking.sought, left).await else {
                continue;
            };
            missed = if selected.is_some() { Forwarded::VaryMiss } else { Forwarded::UriMiss };
            let answer = match look {
                Look::Hit(hit, lease) => self.with_hit(&asking, selected, (hit, lease)).await,
                Look::Follow(follower) => {
                    self.shelf.http.count_lookup(None, &asking.watch);
                    self.shelf.follow(request, follower, missed).await
                }
                Look::Lease(lease) if self.credentials.set_apart(request, lease.key()) => break,
                Look::Lease(lease) => Some(self.lend(&asking, selected, lease, missed)),
                Look::Busy => Some(self.late(&asking, missed)),
                Look::Nothing => break,
            };
            if let Some(answer) = answer {
                return answer;
            }
        }
        self.missed(&asking, CacheStatus::forwarded(missed))
    }

    /// `None`: look again.
    async fn with_hit(
        &self,
        asking: &Asking<'_>,
        selected: Option<Selected>,
        (hit, lease): (Hit, Option<Lease>),
    ) -> Option<Answer> {
        let Sought { request, asked, target, .. } = asking.sought;
        let key = selected.as_ref().map_or(target, |selected| &selected.key);
        let (shelf, cache) = (&self.shelf, &self.shelf.http.cache);
        let now = cache.clock().now();
        let Some(Stored::Response(record)) = Stored::decode(hit.metadata()) else {
            // Nothing that can be read: make room for what can.
            shelf.drop_stored(key).await;
            return None;
        };
        let head = record.of_hit(&hit, cache.clock());
        let lease = match (reuse(asked, &head, now), lease) {
            (Reuse::Fresh | Reuse::StaleForClient, _) | (Reuse::StaleWhileRevalidate, None) => {
                let status = hit_status(&head, now);
                let tier = hit.tier();
                let answer = shelf.answer_with(request, head, BodyOf::Hit(hit), status).await;
                let answer = answer.ok()?;
                shelf.http.count_lookup(Some(tier), &asking.watch);
                return Some(answer);
            }
            (_, Some(lease)) => lease,
            (_, None) if !asked.may_fill() || self.credentials.set_apart(request, key) => {
                return Some(self.missed(asking, CacheStatus::forwarded(Forwarded::Stale)));
            }
            (_, None) => {
                let left = asking.deadline.saturating_duration_since(Instant::now());
                match cache.lease(key, left).await {
                    Leased::Lease(lease) => lease,
                    Leased::Changed => return None,
                    Leased::Busy => return Some(self.late(asking, Forwarded::Stale)),
                }
            }
        };
        // Whoever held the lease before may have brought a new one.
        let present = cache.lookup_stale(key).await;
        if present.is_some_and(|present| present.cas() != hit.cas()) {
            return None;
        }
        Some(self.lend(asking, selected, lease, Forwarded::Stale))
    }

    /// The answer to who is to bring the response.
    fn lend(
        &self,
        asking: &Asking<'_>,
        selected: Option<Selected>,
        lease: Lease,
        why: Forwarded,
    ) -> Answer {
        let hit_for_miss = !lease.is_awaited();
        let status = CacheStatus { hit_for_miss, ..CacheStatus::forwarded(why) };
        let mut answer = self.missed(asking, status);
        let (http, number) = (&self.shelf.http, self.shelf.http.number());
        let Sought { request, target, .. } = asking.sought;
        let place = Place::of(request, target, selected);
        let given = Given::new(lease, &place, http.cache.clock().now());
        // Nobody waits for what was not storable the last time.
        if !hit_for_miss && self.given.give(number, given, asking.wait.unwrap_or_default()) {
            let name = HeaderValue::try_from(format!("{number:016x}"));
            answer.headers.extend(name.ok().map(|name| (LEASE, name)));
        }
        answer
    }

    /// The answer to who has waited too long for somebody else.
    fn late(&self, asking: &Asking<'_>, why: Forwarded) -> Answer {
        let detail = Some("waited too long for who brings it".to_owned());
        self.missed(asking, CacheStatus { detail, ..CacheStatus::forwarded(why) })
    }

    fn missed(&self, asking: &Asking<'_>, status: CacheStatus) -> Answer {
        self.shelf.http.count_lookup(None, &asking.watch);
        self.miss(status)
    }

    fn miss(&self, status: CacheStatus) -> Answer {
        self.shelf.own_as(Served::Refused, self.miss, status)
    }
}
