//! What the answer to a HEAD says of what is stored (RFC 9111, section 4.3.5).

use ::http::header::{CONTENT_LENGTH, HeaderValue};

use super::fetch::Fetched;
use super::fill::Known;
use super::place::Place;
use super::query_rule::Ruled;
use super::removal::log_failed;
use super::service::Service;
use super::stored::Stored;
use crate::cache::{Lease, Lifetime, UpdateOptions};
use crate::http_cache::freshening::{Freshening, freshen_by_head};
use crate::http_cache::head::RequestHead;

/// What is stored for a HEAD that is passed.
pub(super) struct ForHead {
    place: Place,
    known: Known,
    lifetime: Lifetime,
    /// By which rule it was looked up.
    ruled: Option<Ruled>,
    /// Bytes of its body.
    len: u64,
    /// Purges since the request left prevail.
    lease: Lease,
}

impl Service {
    /// What is stored for `request`, a HEAD of the target with this key, by this rule.
    pub(super) async fn for_head(
        &self,
        request: &RequestHead,
        (target, ruled): (Vec<u8>, Option<Ruled>),
    ) -> Option<ForHead> {
        let place = self.place_of(request, &target).await;
        let lease = self.http.cache.lease_alone(&place.key);
        let hit = self.http.cache.lookup_stale_parts(&place.key).await?;
        let Stored::Response(record) = Stored::decode(hit.metadata())? else { return None };
        let known = Known::new(&record.of_hit(&hit, self.http.cache.clock()), &hit);
        Some(ForHead { place, known, lifetime: hit.lifetime(), ruled, len: hit.len(), lease })
    }

    /// Takes what the origin says in `fetched` of what is stored.
    pub(super) async fn take_head(
        &self,
        request: &RequestHead,
        fetched: &Fetched,
        ForHead { place, known, lifetime, ruled, len, lease }: ForHead,
    ) {
        if ruled.is_some_and(|ruled| !ruled.is_said_by(&fetched.head.headers)) {
            return;
        }
        let mut head = fetched.head.clone();
        if let Some(len) = fetched.announced_len {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
        }
        let (exchange, settings) = (&fetched.exchange, &self.settings);
        match freshen_by_head(&known.head, request, &head, exchange, settings, len) {
            // It is passed because what is stored is stale, but for a client that wants newer.
            Freshening::Outdated if known.head.is_fresh(exchange.received_at) => {
                let lifetime = Lifetime { fresh_until: exchange.received_at, ..lifetime };
                let options =
                    UpdateOptions { lifetime: Some(lifetime), ..UpdateOptions::default() };
                let updated = lease.update(known.cas, &options).await;
                log_failed(&updated.map(drop), "what is outdated was not made stale");
            }
            Freshening::Outdated | Freshening::Once | Freshening::AskAgain => {}
            found => drop(self.freshened(lease, &place, &known, found).await),
        }
    }
}
