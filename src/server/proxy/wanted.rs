//! A request that may be answered from the store: who asks for what, and what it is told of failures.

use super::failures::{Began, Failure};
use super::fetch::To;
use super::key::key_for;
use super::look::Sought;
use super::partial::Asking;
use super::place::{Place, Selected};
use super::query_rule::Ruled;
use super::service::Service;
use crate::http_cache::head::{RequestHead, StoredHead};
use crate::http_cache::request::{Asked, OF_ONE_CLIENT};
use crate::http_cache::reuse::stands_in;

/// A request that may be answered from the store.
pub(super) struct Wanted<'a> {
    pub(super) request: &'a RequestHead,
    pub(super) asked: &'a Asked,
    /// Target and host as the upstream is to get them.
    pub(super) to: &'a To,
    /// The key of its target.
    pub(super) target: Vec<u8>,
    /// By which rule, if by one.
    pub(super) ruled: Option<Ruled>,
    pub(super) began: Began,
    /// It is stored only if something is stored of it already.
    pub(super) is_rare: bool,
}

impl Wanted<'_> {
    /// Goes on by the latest rule of its path. False if the key that makes is too long to be stored.
    pub(super) async fn renew(&mut self, service: &Service) -> bool {
        let Some(ruled) = self.successor(service).await else { return true };
        let target = (self.request.target(), ruled.kept.as_ref());
        let Some(key) = key_for(&service.options, target, self.request) else { return false };
        (self.target, self.ruled) = (key, Some(ruled));
        true
    }

    /// The rule by which it is looked up no more, as another took its place.
    pub(super) async fn successor(&self, service: &Service) -> Option<Ruled> {
        service.successor(self.ruled.as_ref()?).await
    }

    /// The same as who is answered.
    pub(super) fn asking(&self) -> Asking<'_> {
        let Wanted { request, to, asked, began, target, .. } = self;
        Asking { target, request, to, began: *began, may_fill: asked.may_fill() }
    }

    /// The same as what is looked for.
    pub(super) fn sought(&self) -> Sought<'_> {
        let Wanted { request, asked, target, is_rare, .. } = self;
        Sought { request, asked, target, is_rare: *is_rare }
    }

    /// Where its response is, or would be stored.
    pub(super) fn place(&self, selected: Option<Selected>) -> Place {
        Place::of(self.request, &self.target, selected)
    }

    /// Whether it asks for a part, or for another version than the client has.
    pub(super) fn is_of_one_client(&self) -> bool {
        self.request.headers().keys().any(|name| OF_ONE_CLIENT.contains(name))
    }

    /// How the last request for `key` failed, if this one is to get that too.
    pub(super) fn failure(&self, service: &Service, key: &[u8]) -> Option<Failure> {
        service.shared.failures.get(key, self.began, service.http.cache.clock().now())
    }

    /// The same where what is stored stands in for it.
    pub(super) fn failure_behind(
        &self,
        service: &Service,
        key: &[u8],
        head: &StoredHead,
    ) -> Option<Failure> {
        let now = service.http.cache.clock().now();
        let failure = service.shared.failures.behind(key, now);
        failure.filter(|failure| stands_in(self.asked, head, now, failure.kind()))
    }
}
