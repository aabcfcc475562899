//! A large object that is read. Owns that its slices stay meanwhile, and the choice between reading them one
//! after the other and several at a time.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::format::{ObjectHead, Sequence};
use crate::store::large::ranges::RangeReader;
use crate::store::large::ranges::options::RangeOptions;
use crate::store::large::slices::SliceReader;
use crate::store::lookup::bodies::TruncatedBody;
use crate::store::shared::Store;

/// A large object that is read, or whose head is changed. Its slices are not discarded as long as there is
/// a clone of it, whatever becomes of the object; they may be evicted.
#[derive(Clone)]
pub struct LargeObject {
    hold: Arc<Hold>,
    head: ObjectHead,
}

/// Holds off the discarding of an object's slices.
struct Hold {
    store: Store,
    object: Sequence,
}

/// Gives the bytes of a range of a large object, verified and in order.
pub struct ObjectBody {
    source: Source,
    object: LargeObject,
}

enum Source {
    /// Slice after slice, through the RAM tier.
    Sequential(Sequential),
    /// Several reads at a time, past the RAM tier.
    Parallel(Box<RangeReader>),
}

struct Sequential {
    /// The slice of the last piece.
    current: Option<SliceReader>,
    /// Body bytes not given yet.
    left: Range<u64>,
    /// Verified before the body was given away.
    first: Option<Bytes>,
}

impl Store {
    /// The large object of a head, to be read.
    #[must_use]
    pub fn large_object(&self, head: ObjectHead) -> LargeObject {
        self.shared.large.begin_reading(head.object);
        let hold = Hold { store: self.clone(), object: head.object };
        LargeObject { hold: Arc::new(hold), head }
    }
}

impl LargeObject {
    /// Its name, which its slices carry.
    #[must_use]
    pub fn name(&self) -> Sequence {
        self.head.object
    }

    /// Length of its body in bytes.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        self.head.len
    }

    /// Its head.
    pub(in crate::store) fn head(&self) -> ObjectHead {
        self.head
    }

    /// The ranges of `range` that are not there, in order and apart from each other.
    pub async fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        self.hold.store.missing(&self.head, range).await
    }

    /// Whether nothing of `range` is missing.
    pub async fn lacks_nothing(&self, range: Range<u64>) -> bool {
        self.hold.store.lacks_nothing(&self.head, range).await
    }

    /// The same object, of which the first `len` bytes are there: its store is under way.
    #[must_use]
    pub fn of_len(&self, len: u64) -> LargeObject {
        LargeObject { hold: Arc::clone(&self.hold), head: ObjectHead { len, ..self.head } }
    }

    /// Whether all pieces of a range of the body are there, as far as the index knows.
    pub async fn has(&self, range: Range<u64>) -> bool {
        self.hold.store.has_slices(&self.head, range).await
    }

    /// Begins to read a range of the body; its first piece is verified when this returns.
    ///
    /// # Errors
    /// A piece is gone, or the first one is damaged.
    pub async fn read(
        &self,
        range: Range<u64>,
        options: &RangeOptions,
    ) -> Result<ObjectBody, TruncatedBody> {
        let len = range.end - range.start;
        if len > 0 && !self.has(range.clone()).await {
            return Err(TruncatedBody);
        }
        let source = if options.parallel && len > 0 && len >= options.threshold {
            let of_object = (&self.hold.store, self.head);
            Source::Parallel(Box::new(RangeReader::open(of_object, range, *options).await?))
        } else {
            let mut slices = Sequential { current: None, left: range, first: None };
            slices.first = slices.next_piece(self).await?;
            Source::Sequential(slices)
        };
        Ok(ObjectBody { source, object: self.clone() })
    }
}

impl ObjectBody {
    /// The next piece, at most 1 MiB; `None` at the end of the range.
    ///
    /// # Errors
    /// A piece was evicted, is damaged or took too long: the range ends here, short.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, TruncatedBody> {
        match &mut self.source {
            Source::Sequential(slices) => match slices.first.take() {
                Some(first) => Ok(Some(first)),
                None => slices.next_piece(&self.object).await,
            },
            Source::Parallel(reader) => reader.next_chunk().await,
        }
    }
}

impl Sequential {
    async fn next_piece(&mut self, object: &LargeObject) -> Result<Option<Bytes>, TruncatedBody> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let (store, head) = (&object.hold.store, &object.head);
        let slice_size = u64::from(head.slice_size);
        let number = self.left.start / slice_size;
        let start = number * slice_size;
        let end = self.left.end.min(start + slice_size);
        let within = to_usize(self.left.start - start)..to_usize(end - start);
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let mut slice = match self.current.take() {
            Some(slice) if slice.number() == number => slice,
            _ => SliceReader::new(head, number),
        };
        let piece = slice.piece(store, within).await.ok_or(TruncatedBody)?;
        self.current = Some(slice);
        self.left.start += piece.len() as u64;
        Ok(Some(piece))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.store.shared.large.end_reading(self.object) {
            self.store.shared.signals.wake_reclaimer.notify_one();
        }
    }
}

fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
