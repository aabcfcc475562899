//! The bytes of a body or of a range of it, piece by piece and in order. Owns the way to them: in memory,
//! read again part by part, or in slices, which are the store's.

use std::fmt;
use std::io;
use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::{Stream, TryStreamExt as _, try_unfold};
use tokio::io::AsyncBufRead;
use tokio_util::io::StreamReader;

use crate::store::{Entry, LargeObject, ObjectBody, RangeOptions, Store, TruncatedBody};

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
    /// Of a large object.
    Object(Box<ObjectBody>),
}

struct Again {
    store: Store,
    without_body: Entry,
    /// Body bytes not given yet.
    left: Range<u64>,
    /// Verified before the reader was given away.
    first: Option<Bytes>,
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
        object: &LargeObject,
        range: Range<u64>,
        options: &RangeOptions,
    ) -> Result<BodyReader, TruncatedBody> {
        let body = object.read(range, options).await?;
        Ok(BodyReader(Source::Object(Box::new(body))))
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
            Source::Object(body) => body.next_chunk().await,
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

fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
