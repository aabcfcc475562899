//! Bodies of answers: nothing, bytes in memory, or parts of an object that are read while they are
//! sent. Owns their order; the cache decides how much is read ahead.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use crate::cache::{BodyReader, Hit, TruncatedBody};

/// The body of an answer. Dropping it ends its reads.
pub(in crate::server) struct AnswerBody {
    content: Content,
    /// Bytes that have not been given out.
    left: u64,
}

enum Content {
    /// The length alone is told.
    Absent,
    Memory(Bytes),
    Parts(Box<Parts>),
}

impl AnswerBody {
    /// No bytes.
    pub(in crate::server) fn empty() -> AnswerBody {
        AnswerBody::absent(0)
    }

    /// The body of `len` bytes that a HEAD is told of.
    pub(in crate::server) fn absent(len: u64) -> AnswerBody {
        AnswerBody { content: Content::Absent, left: len }
    }

    /// Bytes in memory.
    pub(in crate::server) fn memory(bytes: Bytes) -> AnswerBody {
        let left = bytes.len() as u64;
        AnswerBody { content: Content::Memory(bytes), left }
    }

    /// `steps` of `hit`, read as they are sent. The first piece is verified when this returns.
    ///
    /// # Errors
    /// The first piece is gone or damaged: a miss.
    pub(in crate::server) async fn parts(
        hit: Hit,
        steps: VecDeque<Step>,
    ) -> Result<AnswerBody, TruncatedBody> {
        let left = steps.iter().map(Step::len).sum();
        let parts = Parts::begin(hit, steps).await?;
        Ok(AnswerBody { content: Content::Parts(Box::new(parts)), left })
    }

    /// Bytes that are still to come, or are only told of.
    pub(in crate::server) fn len(&self) -> u64 {
        self.left
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// The object is gone or damaged from here on.
    pub(in crate::server) async fn next(&mut self) -> Result<Option<Bytes>, TruncatedBody> {
        if self.left == 0 {
            return Ok(None);
        }
        let piece = match &mut self.content {
            Content::Absent => return Ok(None),
            Content::Memory(bytes) => std::mem::take(bytes),
            Content::Parts(parts) => parts.next().await?.ok_or(TruncatedBody)?,
        };
        // Never more than the answer's head promised.
        self.left = self.left.checked_sub(piece.len() as u64).ok_or(TruncatedBody)?;
        Ok(Some(piece))
    }
}

/// One part of a body.
pub(in crate::server) enum Step {
    /// Bytes between parts of the object.
    Text(Bytes),
    /// Bytes of the object by their offsets; not empty.
    Object(Range<u64>),
}

impl Step {
    pub(in crate::server) fn len(&self) -> u64 {
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
