//! Storing a response while it comes, for all who follow.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::body::Piece;
use super::coming::Coming;
use super::fetch::{Fetched, To};
use super::key::{variant_id, variant_key};
use super::opening::Opened;
use super::outcome::{HIT_FOR_MISS, Outcome};
use super::part_fetch::Asker;
use super::parts::Parted;
use super::place::Place;
use super::removal::log_failed;
use super::service::Service;
use super::slots::Slot;
use super::stored::{self, Stored, encode_response, encode_variants};
use crate::cache::{Condition, Lease, Purge, StoreOptions, Stored as Ended, Writer};
use crate::http_cache::head::RequestHead;
use crate::http_cache::storing::{Kept, can_be_validated};
use crate::http_cache::tags::Tags;
use crate::http_cache::variants::{Variant, Variants};

/// Pieces of a body on their way to the client that began its fill. One that is further behind reads what is
/// stored.
const NEAR_MAX: usize = 4;
/// Fills that nobody waits for any more go on if no more than this is left, in bytes, or half of the body.
const FINISHED_LEN_MAX: u64 = 1 << 20;
/// How often the variants of a target are changed again when others changed them meanwhile.
pub(super) const ATTEMPTS_MAX: usize = 16;

/// A response that is to be stored.
pub(super) struct Keeping {
    pub(super) lease: Lease,
    pub(super) place: Place,
    pub(super) request: RequestHead,
    pub(super) to: To,
    pub(super) kept: Box<Kept>,
    /// What comes, if it is stored part by part.
    pub(super) parts: Option<Coming>,
    /// Another one is stored.
    pub(super) replaces: bool,
    /// It is to be finished although nobody waits for it.
    pub(super) is_refresh: bool,
}

impl Service {
    /// Stores what comes as far as it can be, and gives it to `client`.
    pub(super) async fn keep(
        self: &Arc<Service>,
        mut job: Keeping,
        (fetched, slot): (Fetched, Slot),
        client: oneshot::Sender<Outcome>,
    ) {
        let head = job.kept.head.clone();
        let (key, replaces, is_refresh) = (job.place.key.clone(), job.replaces, job.is_refresh);
        let len = fetched.connection.body_len();
        let (coming, request, to) = (job.parts.take(), job.request.clone(), job.to.clone());
        match self.begin_store(job, (len, coming.as_ref())).await {
            Some(Opened::Body(writer, follower)) => {
                let (near, receiver) = mpsc::channel(NEAR_MAX);
                let head = Box::new(head);
                let first_byte = fetched.first_byte;
                let storing = Outcome::Storing { head, len, follower, near: receiver, first_byte };
                let _ = client.send(storing);
                self.copy((fetched, is_refresh), (*writer, slot), near).await;
            }
            Some(Opened::Parts(opened)) => {
                let Some(Coming { range, is_of_whole, .. }) = coming else { return };
                let parted = Parted::new((opened.parts, opened.cas), self.options.fill_block);
                let parted = self.shared.objects.add(&opened.key, parted);
                let running = parted.begin(range, is_of_whole);
                let reading = parted.read();
                let asker = Asker { request, to, head, parted: parted.clone(), _reading: reading };
                let _ = client.send(Outcome::Parts(Arc::new(asker), fetched.first_byte));
                self.store_parts(fetched.connection, parted, running).await;
            }
            None => {
                if replaces {
                    self.drop_stored(&key).await;
                }
                // What came may be a part that the client did not ask for.
                if coming.is_none_or(|coming| coming.is_of_whole) {
                    let _ = client.send(Outcome::Alone(Box::new(fetched), None));
                }
            }
        }
    }

    /// Begins a store of the response; `None` if it cannot be stored.
    async fn begin_store(
        &self,
        job: Keeping,
        (len, parts): (Option<u64>, Option<&Coming>),
    ) -> Option<Opened> {
        let Keeping { lease, place, request, kept, .. } = job;
        let len = parts.map(|coming| coming.len).or(len);
        let len_max = self.options.object_size_max.min(self.http.cache.object_len_max());
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
            follow: true,
            ..StoreOptions::default()
        };
        let how = (&options, parts);
        match place.variants {
            None if kept.vary.is_empty() => Some(self.open(lease, None, how).await?.0),
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
                match (cas, lease) {
                    // Before the list: who finds that may follow.
                    (None, Some(lease)) => {
                        list.insert(variant);
                        self.put_list(lease, &list).await?;
                    }
                    (None, None) => return None,
                    (Some(at), lease) => {
                        let added = self.add_variant(&place.target, (list, at), variant).await;
                        if added.is_none() {
                            // It ends well for those who follow, and nobody else finds it.
                            let failed = self.http.cache.purge_key(&key, Purge::Soft).await;
                            log_failed(&failed.map(drop), "a response that is in no list");
                        }
                        drop(lease);
                    }
                }
                Some(opened)
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
        let of_list = |list: &Variants| (*list.name(), list.soft_purges());
        let asked_of = of_list(&list);
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
                Stored::Variants(found) if of_list(&found) == asked_of => {
                    (list, cas) = (found, hit.cas());
                }
                _ => return None,
            }
        }
        None
    }

    /// Gives the body to `writer` and, as long as it keeps up, to the client that began the fill.
    async fn copy(
        &self,
        (mut fetched, is_refresh): (Fetched, bool),
        (writer, slot): (Writer, Slot),
        near: mpsc::Sender<Piece>,
    ) {
        let (mut writer, mut near, mut slot) = (Some(writer), Some(near), Some(slot));
        let announced = fetched.announced_len;
        let mut len = 0;
        loop {
            let piece = match fetched.connection.next_chunk().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "the upstream broke off");
                    self.http.shard.proxy.failed(&error);
                    // Those who follow are told first: this client may not read for a while.
                    drop((writer, fetched, slot));
                    if let Some(near) = near {
                        let _ = near.send(Piece::Broken(error.to_string())).await;
                    }
                    return;
                }
            };
            self.http.shard.proxy.read_of_upstream(piece.len());
            len += piece.len() as u64;
            if len > self.options.object_size_max {
                writer = None;
            }
            if let Some(store) = &mut writer
                && let Err(error) = store.write_chunk(&piece).await
            {
                tracing::debug!(%error, "a response goes on without being stored");
                writer = None;
            }
            let is_wanted = is_refresh
                || near.as_ref().is_some_and(|near| !near.is_closed())
                || writer.as_ref().is_some_and(Writer::is_followed);
            if !is_wanted && !is_nearly_whole(announced, len) {
                tracing::debug!("a fill ends: nobody waits for it");
                return;
            }
            if writer.is_none() {
                // From here on it goes as slowly as its client reads.
                slot = None;
            }
            near = match (near, &writer) {
                (Some(near), Some(_)) => keep_up(near, Piece::Bytes(piece)),
                (Some(near), None) => match near.send(Piece::Bytes(piece)).await {
                    Ok(()) => Some(near),
                    Err(_) => return,
                },
                (None, Some(_)) => None,
                // Nobody wants it any more.
                (None, None) => return,
            };
        }
        match (&writer, near) {
            (_, None) => {}
            (Some(_), Some(near)) => drop(keep_up(near, Piece::End)),
            (None, Some(near)) => drop(near.send(Piece::End).await),
        }
        drop(fetched);
        if let Some(writer) = writer {
            let ended = writer.finalize(Condition::Always).await.map(drop);
            log_failed(&ended, "a response was not stored");
        }
    }
}

/// Whether a body of which `len` bytes have come is worth its rest when nobody waits for it.
fn is_nearly_whole(announced: Option<u64>, len: u64) -> bool {
    announced.is_some_and(|announced| announced.saturating_sub(len) <= len.max(FINISHED_LEN_MAX))
}

/// Gives a piece to a client that keeps up; without room for it the client goes on with what is stored.
fn keep_up(near: mpsc::Sender<Piece>, piece: Piece) -> Option<mpsc::Sender<Piece>> {
    match near.try_send(piece) {
        Ok(()) => Some(near),
        Err(TrySendError::Full(_) | TrySendError::Closed(_)) => None,
    }
}

/// How the list of variants is kept: as long as may be, it says nothing of freshness.
pub(super) fn list_options(list: &Variants) -> Option<StoreOptions> {
    let ttl = Some(std::time::Duration::MAX);
    Some(StoreOptions { ttl, metadata: encode_variants(list)?, ..StoreOptions::default() })
}

fn random_name() -> Option<[u8; 16]> {
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
