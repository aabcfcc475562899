//! Bodies of answers: of the store, of a store in progress, or of the upstream for this client alone.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::parts_body::PartsBody;
use super::upstream::Connection;
use crate::cache::Follower;
use crate::server::counters::Shard;
use crate::server::http::body::{AnswerBody, Step};

/// The end of a range that goes to the end of a body of unknown length.
const TO_THE_END: u64 = u64::MAX;

/// The body of an answer. Dropping it ends its reads.
pub(super) struct Body {
    source: Source,
    len: Option<u64>,
}

enum Source {
    /// The length alone is told, if it is known.
    Absent,
    Stored(AnswerBody),
    Followed(Box<Followed>),
    Parts(Box<PartsBody>),
    /// With whoever counts what comes.
    Upstream(Box<Connection>, Arc<Shard>),
}

/// The body ends before its end.
#[derive(Debug)]
pub(super) struct Broken(pub(super) String);

/// A piece of a body on its way from a fill to the client that began it.
#[derive(Debug)]
pub(super) enum Piece {
    Bytes(Bytes),
    /// The body is whole.
    End,
    /// The upstream broke off.
    Broken(String),
}

impl Body {
    /// No bytes. `len` is what a client is told of.
    pub(super) fn absent(len: Option<u64>) -> Body {
        Body { source: Source::Absent, len }
    }

    /// Bytes in memory.
    pub(super) fn memory(bytes: Bytes) -> Body {
        Body::stored(AnswerBody::memory(bytes))
    }

    /// What is stored.
    pub(super) fn stored(body: AnswerBody) -> Body {
        let len = Some(body.len());
        Body { source: Source::Stored(body), len }
    }

    /// What comes from the upstream and is not stored.
    pub(super) fn upstream(connection: Connection, shard: Arc<Shard>) -> Body {
        let len = connection.body_len();
        Body { source: Source::Upstream(Box::new(connection), shard), len }
    }

    /// The whole of what is being stored, of `len` bytes if that is known. The first bytes come from `near`, if
    /// it is given.
    pub(super) fn followed(
        follower: Follower,
        len: Option<u64>,
        near: Option<mpsc::Receiver<Piece>>,
    ) -> Body {
        let steps = VecDeque::from([Step::Object(0..len.unwrap_or(TO_THE_END))]);
        Body { source: Source::Followed(Box::new(Followed { follower, steps, near })), len }
    }

    /// Parts of what is being stored.
    pub(super) fn followed_parts(follower: Follower, steps: VecDeque<Step>) -> Body {
        let len = Some(steps.iter().map(Step::len).sum());
        Body { source: Source::Followed(Box::new(Followed { follower, steps, near: None })), len }
    }

    /// What is there of an object, and what comes of it meanwhile.
    pub(super) fn parts(body: PartsBody) -> Body {
        let len = Some(body.len());
        Body { source: Source::Parts(Box::new(body)), len }
    }

    /// The connection that it comes on, if it comes for this client alone.
    pub(super) fn into_connection(self) -> Option<Connection> {
        match self.source {
            Source::Upstream(connection, _) => Some(*connection),
            _ => None,
        }
    }

    /// Length in bytes, if it is known.
    pub(super) fn len(&self) -> Option<u64> {
        self.len
    }

    /// The whole body, if it is of unknown length and not longer than `len_max` bytes; else `None`.
    pub(super) async fn collect(&mut self, len_max: usize) -> Result<Option<Bytes>, Broken> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.next().await? {
            if whole.len() + piece.len() > len_max {
                return Ok(None);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(Some(whole.freeze()))
    }

    /// Whether bytes come, and not their number alone is told.
    pub(super) fn comes(&self) -> bool {
        !matches!(self.source, Source::Absent)
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        match &mut self.source {
            Source::Absent => Ok(None),
            Source::Stored(body) => body.next().await.map_err(|error| Broken(error.to_string())),
            Source::Followed(followed) => followed.next().await,
            Source::Parts(parts) => parts.next().await.map_err(Broken),
            Source::Upstream(connection, shard) => match connection.next_chunk().await {
                Ok(piece) => {
                    shard.proxy.read_of_upstream(piece.as_ref().map_or(0, Bytes::len));
                    Ok(piece)
                }
                Err(error) => {
                    shard.proxy.failed(&error);
                    Err(Broken(error.to_string()))
                }
            },
        }
    }
}

/// Parts of a body that is being stored, in ascending order, and the text between them.
struct Followed {
    follower: Follower,
    steps: VecDeque<Step>,
    /// Bytes straight from the fill, as long as this client keeps up with it.
    near: Option<mpsc::Receiver<Piece>>,
}

impl Followed {
    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            let range = match self.steps.pop_front() {
                None => return Ok(None),
                Some(Step::Text(text)) => return Ok(Some(text)),
                Some(Step::Object(range)) if range.is_empty() => continue,
                Some(Step::Object(range)) => range,
            };
            let Some(mut piece) = self.piece_at(range.start).await? else {
                if range.end == TO_THE_END {
                    continue;
                }
                return Err(Broken("the body is shorter than announced".to_owned()));
            };
            let wanted = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            piece.truncate(wanted);
            self.steps.push_front(Step::Object(range.start + piece.len() as u64..range.end));
            return Ok(Some(piece));
        }
    }

    /// Bytes from position `at` on; `None` at the end of the body.
    async fn piece_at(&mut self, at: u64) -> Result<Option<Bytes>, Broken> {
        if let Some(near) = &mut self.near {
            match near.recv().await {
                Some(Piece::Bytes(bytes)) => return Ok(Some(bytes)),
                Some(Piece::End) => return Ok(None),
                Some(Piece::Broken(reason)) => return Err(Broken(reason)),
                // This client was too slow.
                None => self.near = None,
            }
        }
        self.follower.seek(at);
        self.follower.next_chunk().await.map_err(|error| Broken(error.to_string()))
    }
}
