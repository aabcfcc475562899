//! The bytes of a body or of a range of it, piece by piece and in order. Owns the choice between
//! reading slice after slice and reading in parallel.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{Stream, TryStreamExt as _, try_unfold};
use tokio::io::AsyncBufRead;
use tokio_util::io::StreamReader;

use crate::format::ObjectHead;
use crate::store::{
    Entry, ObjectReader, RangeOptions, RangeReader, SliceReader, Store, TruncatedBody,
};

/// Gives the bytes of a range of a body. What it gave is verified; dropping it ends the reading.
pub struct BodyReader(Source);

impl fmt::Debug for BodyReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyReader").finish_non_exhaustive()
    }
}

enum Source {
    /// In memory already.
    Memory(Option<Bytes>),
    /// Part after part of a body that is not held: there are too many readers.
    Again(Box<Again>),
    /// Slice after slice, through the RAM tier.
    Slices(Slices),
    /// Several reads at a time, past the RAM tier.
    Parallel(Box<RangeReader>),
}

struct Slices {
    object: Object,
    /// The slice of the last piece.
    current: Option<SliceReader>,
    /// Body bytes not given yet.
    left: Range<u64>,
    /// Verified before the reader was given away.
    first: Option<Bytes>,
}

struct Again {
    store: Store,
    without_body: Entry,
    /// Body bytes not given yet.
    left: Range<u64>,
    /// Verified before the reader was given away.
    first: Option<Bytes>,
}

/// A large object that is being read: its slices are not discarded meanwhile.
#[derive(Clone)]
pub(super) struct Object {
    pub store: Store,
    pub head: ObjectHead,
    pub hold: Arc<ObjectReader>,
}

impl BodyReader {
    /// A range of a body that is in memory.
    pub(super) fn memory(bytes: Bytes) -> BodyReader {
        BodyReader(Source::Memory(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    /// A range of the body of an entry that is not held; its first piece is verified when this
    /// returns.
    pub(super) async fn again(
        (store, without_body): (&Store, &Entry),
        range: Range<u64>,
    ) -> Result<BodyReader, TruncatedBody> {
        let (store, without_body) = (store.clone(), without_body.clone());
        let mut again = Again { store, without_body, left: range, first: None };
        again.first = again.next_piece().await?;
        Ok(BodyReader(Source::Again(Box::new(again))))
    }

    /// A range of a large object; its first piece is verified when this returns.
    pub(super) async fn object(
        object: &Object,
        range: Range<u64>,
        options: &RangeOptions,
    ) -> Result<BodyReader, TruncatedBody> {
        let len = range.end - range.start;
        if len == 0 {
            return Ok(BodyReader(Source::Memory(None)));
        }
        if !object.store.has_slices(&object.head, range.clone()).await {
            return Err(TruncatedBody);
        }
        if options.parallel && len >= options.threshold {
            let parts = (object.head, Arc::clone(&object.hold));
            let reader = RangeReader::open(&object.store, parts, range, *options).await?;
            return Ok(BodyReader(Source::Parallel(Box::new(reader))));
        }
        let mut slices = Slices { object: object.clone(), current: None, left: range, first: None };
        slices.first = slices.next_slice().await?;
        Ok(BodyReader(Source::Slices(slices)))
    }

    /// The next piece, at most 1 MiB; `None` at the end of the range.
    ///
    /// # Errors
    /// A piece was evicted, is damaged or took too long: the range ends here, short.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, TruncatedBody> {
        match &mut self.0 {
            Source::Memory(bytes) => Ok(bytes.take()),
            Source::Again(again) => match again.first.take() {
                Some(first) => Ok(Some(first)),
                None => again.next_piece().await,
            },
            Source::Slices(slices) => match slices.first.take() {
                Some(first) => Ok(Some(first)),
                None => slices.next_slice().await,
            },
            Source::Parallel(reader) => reader.next_chunk().await,
        }
    }
}

impl BodyReader {
    /// The pieces of the range as a stream; the first error ends it.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, TruncatedBody>> + Send + 'static {
        try_unfold(self, async |mut body| Ok(body.next_chunk().await?.map(|piece| (piece, body))))
    }

    /// The bytes of the range, as other readers give theirs. Where a piece is missing it fails with
    /// [`io::ErrorKind::UnexpectedEof`], once: who reads on after that is told of the end, and must not
    /// take what came for the whole.
    pub fn into_async_read(self) -> impl AsyncBufRead + Send + Unpin + 'static {
        let short = |error| io::Error::new(io::ErrorKind::UnexpectedEof, error);
        StreamReader::new(Box::pin(self.into_stream().map_err(short)))
    }
}

impl Again {
    async fn next_piece(&mut self) -> Result<Option<Bytes>, TruncatedBody> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let within = to_usize(self.left.start)..to_usize(self.left.end);
        let piece = self.store.piece_again(&self.without_body, within).await;
        let piece = piece.ok_or(TruncatedBody)?;
        self.left.start += piece.len() as u64;
        Ok(Some(piece))
    }
}

impl Slices {
    async fn next_slice(&mut self) -> Result<Option<Bytes>, TruncatedBody> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let Object { store, head, .. } = &self.object;
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

fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
