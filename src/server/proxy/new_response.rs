//! Beginning to store a response: under the key of its target, or as one of the variants of that.

use bytes::Bytes;

use super::coming::Coming;
use super::key::{variant_id, variant_key};
use super::opening::Opened;
use super::outcome::HIT_FOR_MISS;
use super::place::Place;
use super::removal::log_failed;
use super::shelf::Shelf;
use super::stored::{self, Stored, encode_response, encode_variants};
use crate::cache::{Ack, Condition, Lease, Purge, StoreOptions, Stored as Ended};
use crate::http_cache::head::RequestHead;
use crate::http_cache::storing::{Kept, can_be_validated};
use crate::http_cache::tags::Tags;
use crate::http_cache::variants::{Variant, Variants};

/// How often the variants of a target are changed again when others changed them meanwhile.
pub(super) const ATTEMPTS_MAX: usize = 16;

/// A response that is to be stored.
pub(super) struct NewResponse {
    pub(super) lease: Lease,
    pub(super) place: Place,
    /// What it answers.
    pub(super) request: RequestHead,
    pub(super) kept: Box<Kept>,
    /// When its store is acknowledged, if anybody says.
    pub(super) ack: Option<Ack>,
}

impl Shelf {
    /// Begins a store of the response, and says whether anybody will find it: not if its target was purged meanwhile.
    /// `None` if it cannot be stored.
    pub(super) async fn begin_store(
        &self,
        new: NewResponse,
        (len, parts): (Option<u64>, Option<&Coming>),
    ) -> Option<(Opened, bool)> {
        let NewResponse { lease, place, request, kept, ack } = new;
        let len = parts.map(|coming| coming.len).or(len);
        let len_max = self.object_size_max.min(self.http.cache.object_len_max());
        let metadata = encode_response(&kept.head).filter(|_| len.is_none_or(|len| len <= len_max));
        if !kept.vary.fits(request.headers()) {
            // So it is with this request: the next one may be another.
            return None;
        }
        let Some(metadata) = metadata else {
            // The next one is like this one: nobody is to wait for it.
            lease.refuse(HIT_FOR_MISS);
            return None;
        };
        let options = StoreOptions {
            lifetime: Some(stored::lifetime(&kept.head, can_be_validated(&kept.head.headers))),
            metadata,
            tags: tags(&place.origin, &kept.tags),
            len_hint: len,
            ack,
            follow: true,
            ..StoreOptions::default()
        };
        let how = (&options, parts);
        match place.variants {
            None if kept.vary.is_empty() => Some((self.open(lease, None, how).await?.0, true)),
            variants => {
                let (mut list, cas) = match variants {
                    Some((list, cas)) => (list, Some(cas)),
                    None => (Variants::new(random_name()?), None),
                };
                let id = variant_id(list.name(), &kept.vary, &request);
                let key = variant_key(&place.target, list.name(), id);
                let response = &kept.head.headers;
                let variant = Variant::new(kept.vary, request.headers(), response, id)?;
                let other = Some(&key[..]).filter(|key| lease.key() != *key);
                let (opened, lease) = self.open(lease, other, how).await?;
                let mut is_found = true;
                match (cas, lease) {
                    // Before the list: who finds that may follow.
                    (None, Some(lease)) => {
                        list.insert(variant);
                        self.put_list(lease, &list).await?;
                    }
                    (None, None) => return None,
                    (Some(at), lease) => {
                        let added = self.add_variant(&place.target, (list, at), variant).await;
                        is_found = added.is_some();
                        if !is_found {
                            // It ends well for those who follow, and nobody else finds it.
                            let failed = self.http.cache.purge_key(&key, Purge::Soft).await;
                            log_failed(&failed.map(drop), "a response that is in no list");
                        }
                        drop(lease);
                    }
                }
                Some((opened, is_found))
            }
        }
    }

    /// Stores the first list of variants of a target; `None` if the target was purged since the lease was given.
    async fn put_list(&self, lease: Lease, list: &Variants) -> Option<()> {
        match lease.put(b"", &list_options(list)?).await {
            Ok(Ended::Yes(_)) => Some(()),
            _ => None,
        }
    }

    /// Adds a variant to those of its target; `None` if it is not there: the target was purged meanwhile, also softly,
    /// or the device fails.
    async fn add_variant(
        &self,
        target: &[u8],
        (mut list, mut cas): (Variants, u64),
        variant: Variant,
    ) -> Option<()> {
        let cache = &self.http.cache;
        let generation = list.generation();
        for _ in 0..ATTEMPTS_MAX {
            if list.iter().last() == Some(&variant) {
                return Some(());
            }
            list.insert(variant.clone());
            let (condition, options) = (Condition::Unchanged(cas), list_options(&list)?);
            match cache.put(target, b"", condition, &options).await {
                Ok(Ended::Yes(_)) => return Some(()),
                Ok(Ended::Exists) => {}
                Ok(Ended::Missing) | Err(_) => return None,
            }
            // Somebody else added one, or made all stale: then this one is no news any more.
            let hit = cache.lookup_stale(target).await?;
            match Stored::decode(hit.metadata())? {
                Stored::Variants(found) if found.generation() == generation => {
                    (list, cas) = (found, hit.cas());
                }
                _ => return None,
            }
        }
        None
    }
}

/// How the list of variants is kept: as long as may be, it says nothing of freshness.
pub(super) fn list_options(list: &Variants) -> Option<StoreOptions> {
    let ttl = Some(std::time::Duration::MAX);
    Some(StoreOptions { ttl, metadata: encode_variants(list)?, ..StoreOptions::default() })
}

/// What nobody can guess.
pub(super) fn random_name() -> Option<[u8; 16]> {
    let mut name = [0; 16];
    getrandom::fill(&mut name).ok()?;
    Some(name)
}

/// The tags of an entry. Groups are of one origin.
pub(super) fn tags(origin: &str, tags: &Tags) -> Vec<Bytes> {
    let groups = tags.groups.iter().map(|group| group_tag(origin, group));
    groups.chain(tags.tags.iter().map(|tag| Bytes::copy_from_slice(tag))).collect()
}

/// The tag of a group of `origin`.
pub(in crate::server) fn group_tag(origin: &str, group: &[u8]) -> Bytes {
    [b"\n", origin.as_bytes(), b"\n", group].concat().into()
}
