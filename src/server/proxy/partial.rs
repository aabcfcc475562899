//! Answers with what is stored, also where parts of it are missing: those are asked of the upstream first.

use std::ops::Range;
use std::sync::Arc;

use ::http::Method;
use ::http::header::AUTHORIZATION;

use super::answer::{Answer, BodyOf};
use super::failures::Began;
use super::fetch::To;
use super::part_fetch::Asker;
use super::parts::{Ending, Next, Parted};
use super::service::Service;
use crate::cache::{Condition, Hit, StoreError, StoreOptions};
use crate::http_cache::answer::{self, Answer as Chosen};
use crate::http_cache::cache_status::{CacheStatus, Forwarded};
use crate::http_cache::freshness::control;
use crate::http_cache::head::{RequestHead, StoredHead};

/// A response that is stored.
pub(super) struct Present {
    pub(super) key: Vec<u8>,
    pub(super) head: StoredHead,
    pub(super) hit: Hit,
}

/// Who is answered.
pub(super) struct Asking<'a> {
    /// The key of its target.
    pub(super) target: &'a [u8],
    pub(super) request: &'a RequestHead,
    pub(super) to: &'a To,
    pub(super) began: Began,
    /// What comes for it may be stored.
    pub(super) may_fill: bool,
}

/// What comes of a look at what is stored.
pub(super) enum Answered {
    With(Box<Answer>),
    /// Parts are missing that this client may not bring for others.
    Lacking,
    /// What is stored has changed, or its body is gone: look again.
    Changed,
}

impl From<Option<Answer>> for Answered {
    fn from(answer: Option<Answer>) -> Answered {
        answer.map_or(Answered::Changed, |answer| Answered::With(Box::new(answer)))
    }
}

impl Service {
    /// The answer with what is stored.
    pub(super) async fn answer_stored(
        self: &Arc<Service>,
        asking: &Asking<'_>,
        present: Present,
        status: CacheStatus,
    ) -> Answered {
        let Asking { request, may_fill, .. } = asking;
        if present.hit.is_partial() {
            let ranges = wanted(request, &present.head, present.hit.len());
            let may_bring = *may_fill && self.may_bring_parts(request, &present.head);
            // Who may not ask for what is missing has to know that before its answer begins.
            let look_max = if may_bring { LOOKS_FIRST * self.options.fill_block } else { u64::MAX };
            match look(&present.hit, &ranges, look_max).await {
                Seen::All => {}
                Seen::Gap(_) if !may_bring => return Answered::Lacking,
                Seen::Gap(at) => return self.complete(asking, present, (ranges, at), status).await,
                Seen::Beginning => return self.complete_on_the_way(asking, present, status).await,
            }
        }
        let body = BodyOf::Hit(present.hit);
        self.answer_with(request, present.head, body, status).await.ok().into()
    }

    /// Begins the answer with what is there, and asks for what is missing when it comes to that.
    async fn complete_on_the_way(
        self: &Arc<Service>,
        asking: &Asking<'_>,
        present: Present,
        status: CacheStatus,
    ) -> Answered {
        let parted = match self.parted(asking, &present).await {
            Ok(Some(parted)) => parted,
            Ok(None) => return Answered::Changed,
            Err(error) => {
                tracing::debug!(%error, "no part is stored");
                // What is there needs no store.
                if !self.has_all(asking.request, &present).await {
                    return Answered::Lacking;
                }
                let body = BodyOf::Hit(present.hit);
                let answer = self.answer_with(asking.request, present.head, body, status).await;
                return answer.ok().into();
            }
        };
        let (head, body) = (present.head.clone(), self.asker(asking, present, parted));
        let body = BodyOf::Parts(self.clone(), body);
        self.answer_with(asking.request, head, body, status).await.ok().into()
    }

    fn asker(&self, asking: &Asking<'_>, present: Present, parted: Arc<Parted>) -> Arc<Asker> {
        let reading = parted.read();
        let (request, to) = (asking.request.clone(), asking.to.clone());
        let Present { key, head, .. } = present;
        Arc::new(Asker { key, request, to, head, parted, _reading: reading })
    }

    /// Whether what the origin sends to this client may be stored (RFC 9111, section 3.5).
    fn may_bring_parts(&self, request: &RequestHead, head: &StoredHead) -> bool {
        let (control, _) = control(&head.headers, &self.options.settings);
        control.permits_authorized || !request.headers().contains_key(AUTHORIZATION)
    }

    /// Whether all that `request` wants of a stored response is there.
    pub(super) async fn has_all(&self, request: &RequestHead, present: &Present) -> bool {
        let Present { head, hit, .. } = present;
        let ranges = || wanted(request, head, hit.len());
        !hit.is_partial() || matches!(look(hit, &ranges(), u64::MAX).await, Seen::All)
    }

    /// Asks for the first byte that is missing: that shows whether the origin has this version still.
    async fn complete(
        self: &Arc<Service>,
        asking: &Asking<'_>,
        present: Present,
        (ranges, at): (Vec<Range<u64>>, u64),
        status: CacheStatus,
    ) -> Answered {
        let why = status.forwarded.unwrap_or(Forwarded::Partial);
        let failed = |failure| self.failure(failure, CacheStatus::forwarded(why));
        let (failures, now) = (&self.shared.failures, self.http.cache.clock().now());
        if let Some(failure) = failures.get(&present.key, asking.began, now) {
            return Answered::With(Box::new(failed(failure)));
        }
        let parted = match self.parted(asking, &present).await {
            Ok(Some(parted)) => parted,
            Ok(None) => return Answered::Changed,
            Err(error) => {
                tracing::debug!(%error, "no part is stored");
                return Answered::Lacking;
            }
        };
        let (key, head) = (present.key.clone(), present.head.clone());
        let asker = self.asker(asking, present, parted);
        let Some(range) = ranges.into_iter().find(|range| range.contains(&at)) else {
            return Answered::Changed;
        };
        let (running, is_own) = match asker.parted.next(at..range.end).await {
            // It came meanwhile.
            Next::Read(_) => (None, false),
            Next::Wait(running) => (Some(running), false),
            Next::Ask(running) => {
                self.ask(&asker, running.clone());
                (Some(running), true)
            }
        };
        let ending = match running {
            Some(running) => running.is_answered().await,
            None => None,
        };
        match ending {
            None | Some(Ending::Stored | Ending::NotStored { .. }) => failures.forget(&key),
            Some(Ending::Changed) => {
                if is_own {
                    self.drop_version(&key, asker.parted.cas()).await;
                }
                return Answered::Changed;
            }
            Some(Ending::Refused) if is_own => return Answered::Lacking,
            // Another client is not this one.
            Some(Ending::Refused) => return Answered::Changed,
            Some(Ending::Failed(failure)) => {
                if is_own {
                    failures.note(&key, &failure, (now, self.options.error_ttl));
                }
                return Answered::With(Box::new(failed(failure)));
            }
        }
        let status = CacheStatus {
            hit: false,
            forwarded: Some(why),
            ttl_secs: None,
            stored: true,
            collapsed: !is_own,
            ..status
        };
        let body = BodyOf::Parts(self.clone(), asker);
        self.answer_with(asking.request, head, body, status).await.ok().into()
    }

    /// The object of a partial entry, to go on with it; `None` if the entry has changed.
    async fn parted(
        &self,
        asking: &Asking<'_>,
        present: &Present,
    ) -> Result<Option<Arc<Parted>>, StoreError> {
        let Present { key, hit, .. } = present;
        if let Some(parted) = self.shared.objects.get(key, hit.cas()) {
            return Ok(Some(parted));
        }
        let _turn = self.shared.declaring.lock(asking.target).await;
        if let Some(parted) = self.shared.objects.get(key, hit.cas()) {
            return Ok(Some(parted));
        }
        let (cache, Some(validator)) = (&self.http.cache, hit.validator()) else { return Ok(None) };
        let options = StoreOptions { lifetime: Some(hit.lifetime()), ..StoreOptions::default() };
        let condition = (Condition::Unchanged(hit.cas()), &options);
        let fill = cache.begin_fill(key);
        let declared = cache.declare_if(key, (hit.len(), &validator), condition, fill).await?;
        let Some(parts) = declared else { return Ok(None) };
        let parted = Parted::new((parts, hit.cas()), self.options.fill_block);
        Ok(Some(self.shared.objects.add(key, parted)))
    }
}

/// The bytes of the stored body that the answer to `request` has.
fn wanted(request: &RequestHead, head: &StoredHead, len: u64) -> Vec<Range<u64>> {
    match answer::answer(request, head, answer::Body { len, is_partial: true }) {
        Chosen::Whole if request.method() != Method::HEAD => vec![0..len; 1],
        Chosen::Parts(parts) => parts,
        Chosen::Whole | Chosen::NotModified | Chosen::Unsatisfiable => Vec::new(),
    }
}

/// Bytes that are looked for at a time: nothing is looked for after the first that is missing.
const LOOK: u64 = 16 << 20;
/// Blocks that are looked for before an answer begins. To look at each 64 KiB of a large object may take a read of
/// the device, the first time after a start.
const LOOKS_FIRST: u64 = 4;

/// What a look has seen of ranges.
enum Seen {
    All,
    /// All as far as it went.
    Beginning,
    /// The first byte that is missing.
    Gap(u64),
}

/// Looks for the first `look_max` bytes of `ranges`.
async fn look(hit: &Hit, ranges: &[Range<u64>], look_max: u64) -> Seen {
    let mut left = look_max;
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            if left == 0 {
                return Seen::Beginning;
            }
            let end = range.end.min(at.saturating_add(LOOK.min(left)));
            if let Some(gap) = hit.missing(at..end).await.first() {
                return Seen::Gap(gap.start);
            }
            left -= end - at;
            at = end;
        }
    }
    Seen::All
}
