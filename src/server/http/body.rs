//! Bodies of answers: nothing, bytes in memory, or parts of an object that are read while they are
//! sent. Owns their order; the cache decides how much is read ahead.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use hyper::body::{Body, Frame, SizeHint};

use super::running::Running;
use crate::cache::{BodyReader, Hit, TruncatedBody};

/// The body of an answer. Dropping it ends the request and its reads.
pub(super) struct AnswerBody {
    content: Content,
    running: Option<Running>,
}

enum Content {
    Memory(Bytes),
    Pieces { pieces: Pieces, left: u64 },
}

type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, TruncatedBody>> + Send>>;

impl AnswerBody {
    /// No bytes.
    pub(super) fn empty() -> AnswerBody {
        AnswerBody::memory(Bytes::new())
    }

    /// Bytes in memory.
    pub(super) fn memory(bytes: Bytes) -> AnswerBody {
        AnswerBody { content: Content::Memory(bytes), running: None }
    }

    /// `steps` of `hit`, read as they are sent. The first piece is verified when this returns.
    ///
    /// # Errors
    /// The first piece is gone or damaged: a miss.
    pub(super) async fn parts(
        hit: Hit,
        steps: VecDeque<Step>,
    ) -> Result<AnswerBody, TruncatedBody> {
        let left = steps.iter().map(Step::len).sum();
        let parts = Parts::begin(hit, steps).await?;
        let pieces = stream::try_unfold(parts, |mut parts| async move {
            Ok(parts.next().await?.map(|piece| (piece, parts)))
        });
        let content = Content::Pieces { pieces: Box::pin(pieces), left };
        Ok(AnswerBody { content, running: None })
    }

    /// The same body; drops `running` when it has been sent or given up.
    pub(super) fn ending(self, running: Running) -> AnswerBody {
        AnswerBody { running: Some(running), ..self }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = TruncatedBody;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TruncatedBody>>> {
        let this = self.get_mut();
        match &mut this.content {
            Content::Memory(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Memory(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Content::Pieces { left: 0, .. } => Poll::Ready(None),
            Content::Pieces { pieces, left } => {
                let piece = ready!(pieces.as_mut().poll_next(cx)).unwrap_or(Err(TruncatedBody));
                match &piece {
                    Ok(piece) => *left -= piece.len() as u64,
                    Err(_) => this.running.iter().for_each(Running::count_truncated),
                }
                Poll::Ready(Some(piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.content {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::Pieces { left, .. } => *left,
        })
    }
}

/// One part of a body.
pub(super) enum Step {
    /// Bytes between parts of the object.
    Text(Bytes),
    /// Bytes of the object by their offsets; not empty.
    Object(Range<u64>),
}

impl Step {
    fn len(&self) -> u64 {
        match self {
            Step::Text(text) => text.len() as u64,
            Step::Object(range) => range.end - range.start,
        }
    }
}

/// Parts of an object, and the text between them.
struct Parts {
    hit: Hit,
    steps: VecDeque<Step>,
    /// Reader of the first object part in `steps`, once begun.
    reader: Option<BodyReader>,
}

impl Parts {
    async fn begin(hit: Hit, steps: VecDeque<Step>) -> Result<Parts, TruncatedBody> {
        let mut ranges = steps.iter().filter_map(|step| match step {
            Step::Text(_) => None,
            Step::Object(range) => Some(range.clone()),
        });
        let first = ranges.next();
        for later in ranges {
            if !hit.has(later).await {
                return Err(TruncatedBody);
            }
        }
        let reader = match first {
            Some(range) => Some(hit.range(range).await?),
            None => None,
        };
        Ok(Parts { hit, steps, reader })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, TruncatedBody> {
        while let Some(step) = self.steps.pop_front() {
            let range = match step {
                Step::Text(text) => return Ok(Some(text)),
                Step::Object(range) => range,
            };
            let mut reader = match self.reader.take() {
                Some(reader) => reader,
                None => self.hit.range(range.clone()).await?,
            };
            if let Some(piece) = reader.next_chunk().await? {
                self.reader = Some(reader);
                self.steps.push_front(Step::Object(range));
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}
