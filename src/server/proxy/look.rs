//! What is stored for a request, or is being stored: under the key of its target, or of the variant that it
//! selects.

use std::time::Duration;

use super::key::{variant_id, variant_key};
use super::place::{Place, Selected};
use super::shelf::Shelf;
use super::stored::Stored;
use crate::cache::{Follower, Found, Hit, Lease};
use crate::http_cache::head::RequestHead;
use crate::http_cache::request::Asked;
use crate::http_cache::variants::Variants;

/// How often a request looks again because others changed what it found.
pub(super) const LOOKS_MAX: usize = 16;

/// What a look is for.
pub(super) struct Sought<'a> {
    pub(super) request: &'a RequestHead,
    pub(super) asked: &'a Asked,
    /// The key of its target.
    pub(super) target: &'a [u8],
    /// It is stored only if something is stored of it already.
    pub(super) is_rare: bool,
}

/// What is there for a request.
pub(super) enum Look {
    Hit(Hit, Option<Lease>),
    Follow(Follower),
    Lease(Lease),
    Busy,
    Nothing,
}

impl From<Found> for Look {
    fn from(found: Found) -> Look {
        match found {
            Found::Hit(hit) | Found::Parts(hit) => Look::Hit(hit, None),
            Found::Stale(hit, lease) => Look::Hit(hit, lease),
            Found::Follow(follower) => Look::Follow(follower),
            Found::Lease(lease) => Look::Lease(lease),
            Found::Busy => Look::Busy,
        }
    }
}

impl Shelf {
    /// What is there for a request, and as which variant; `None` if it changed meanwhile. Waits for at most `wait` for
    /// who fills it.
    pub(super) async fn look(
        &self,
        sought: &Sought<'_>,
        wait: Duration,
    ) -> Option<(Option<Selected>, Look)> {
        let Sought { request, target, .. } = *sought;
        let look = self.look_at(target, sought, wait).await;
        let Look::Hit(hit, _) = &look else { return Some((None, look)) };
        let Some(list) = Stored::variants(hit.metadata()) else { return Some((None, look)) };
        let cas = hit.cas();
        // The variants have leases of their own.
        drop(look);
        let selected = self.selected(target, (list, cas), request)?;
        let look = self.look_at(&selected.key, sought, wait).await;
        if matches!(look, Look::Lease(_))
            && self.http.cache.lookup_stale(target).await.map(|hit| hit.cas()) != Some(cas)
        {
            // Whoever it waited for may have stored the response as another variant.
            return None;
        }
        Some((Some(selected), look))
    }

    /// Where the response to `request` would be stored, whatever is there.
    pub(super) async fn place_of(&self, request: &RequestHead, target: &[u8]) -> Place {
        let hit = self.http.cache.lookup_stale(target).await;
        let list = hit.and_then(|hit| Some((Stored::variants(hit.metadata())?, hit.cas())));
        let selected = list.and_then(|list| self.selected(target, list, request));
        Place::of(request, target, selected)
    }

    /// The variant that `request` selects of a list with this version, or would add.
    fn selected(
        &self,
        target: &[u8],
        (list, cas): (Variants, u64),
        request: &RequestHead,
    ) -> Option<Selected> {
        let id = match list.select(request.headers(), self.settings.selects_language) {
            Some(variant) => variant.id(),
            None => variant_id(list.name(), list.iter().last()?.names(), request),
        };
        let key = variant_key(target, list.name(), id);
        Some(Selected { key, among: (list, cas) })
    }

    async fn look_at(&self, key: &[u8], sought: &Sought<'_>, wait: Duration) -> Look {
        let cache = &self.http.cache;
        if sought.is_rare && cache.lookup_stale_parts(key).await.is_none() {
            return Look::Nothing;
        }
        if !sought.asked.may_fill() {
            return match cache.lookup_stale_parts(key).await {
                Some(hit) => Look::Hit(hit, None),
                None => Look::Nothing,
            };
        }
        cache.lookup_or_fill(key, wait).await.into()
    }
}
