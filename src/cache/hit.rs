//! What a lookup gives: an entry's metadata at once, its body piece by piece.

use bytes::Bytes;

use crate::format::ObjectHead;
use crate::store::{Entry, Lifetime, ObjectReader, Store, Tier};

/// A later piece of a body is gone or damaged; the caller must not treat what it has as whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a later piece of the object is gone or damaged")]
pub struct TruncatedBody;

/// A live entry.
pub struct Hit {
    entry: Entry,
    tier: Tier,
    body: Body,
}

enum Body {
    Whole {
        taken: bool,
    },
    Sliced {
        store: Store,
        head: ObjectHead,
        first: Option<Bytes>,
        next: u32,
        _reader: ObjectReader,
    },
}

impl Hit {
    pub(super) fn whole_body(entry: Entry, tier: Tier) -> Hit {
        Hit { entry, tier, body: Body::Whole { taken: false } }
    }

    /// A large object; its first slice is verified before anything is answered.
    pub(super) async fn sliced(
        store: &Store,
        entry: Entry,
        tier: Tier,
        head: ObjectHead,
    ) -> Option<Hit> {
        let reader = store.read_object(head.object);
        if !store.has_slices(head.object, head.slice_count()) {
            return None;
        }
        let (first, _) = store.slice(head.object, 0).await?;
        let first = Some(first.shared_body());
        let body = Body::Sliced { store: store.clone(), head, first, next: 1, _reader: reader };
        Some(Hit { entry, tier, body })
    }

    /// Length of the whole body in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an empty body is an entry like any other")]
    pub fn len(&self) -> u64 {
        match &self.body {
            Body::Whole { .. } => self.entry.body().len() as u64,
            Body::Sliced { head, .. } => head.len,
        }
    }

    /// The metadata given at the store.
    #[must_use]
    pub fn metadata(&self) -> &[u8] {
        self.entry.metadata()
    }

    /// Unique to this version of the entry. It changes too when eviction moves the entry.
    #[must_use]
    pub fn cas(&self) -> u64 {
        self.entry.sequence().0
    }

    /// When the entry was stored and when it ends.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        self.entry.lifetime()
    }

    /// Where the entry was found.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// The whole body if it is in memory already: bodies of up to one slice, about 1 MiB.
    #[must_use]
    pub fn whole(&self) -> Option<&[u8]> {
        match &self.body {
            Body::Whole { .. } => Some(self.entry.body()),
            Body::Sliced { .. } => None,
        }
    }

    /// The next piece of the body, at most one slice; `None` at its end.
    ///
    /// # Errors
    /// A piece was evicted or is damaged: the body ends here, short.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, TruncatedBody> {
        match &mut self.body {
            Body::Whole { taken } => {
                let first = !std::mem::replace(taken, true);
                Ok(first.then(|| self.entry.shared_body()))
            }
            Body::Sliced { store, head, first, next, .. } => {
                if let Some(first) = first.take() {
                    return Ok(Some(first));
                }
                if *next >= head.slice_count() {
                    return Ok(None);
                }
                let slice = store.slice(head.object, *next).await;
                *next += 1;
                slice.map(|(entry, _)| Some(entry.shared_body())).ok_or(TruncatedBody)
            }
        }
    }
}
