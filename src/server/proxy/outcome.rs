//! What a fill tells the client that began it.

use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use tokio::sync::mpsc;

use super::body::Piece;
use super::failures::Failure;
use super::fetch::Fetched;
use super::part_fetch::Asker;
use crate::cache::Follower;
use crate::http_cache::head::StoredHead;
use crate::http_cache::storing::Refused;

/// How long nobody waits for a key whose response may not be stored.
pub(super) const HIT_FOR_MISS: Duration = Duration::from_secs(10);

/// What came of a fill, for the client that began it.
pub(super) enum Outcome {
    /// It is being stored.
    Storing {
        head: Box<StoredHead>,
        len: Option<u64>,
        follower: Follower,
        near: mpsc::Receiver<Piece>,
        /// How long the upstream took to answer.
        first_byte: Duration,
    },
    /// It is being stored part by part.
    Parts(Arc<Asker>, Duration),
    /// What is stored is good, with this head.
    Good { head: Box<StoredHead>, code: StatusCode, first_byte: Duration },
    /// The response is for this client alone.
    Alone(Box<Fetched>, Option<Refused>),
    /// The upstream failed, after so long if it answered.
    Failed(Failure, Option<Duration>),
}

impl Outcome {
    /// How long the upstream took to answer.
    pub(super) fn first_byte(&self) -> Option<Duration> {
        match self {
            Outcome::Storing { first_byte, .. }
            | Outcome::Parts(_, first_byte)
            | Outcome::Good { first_byte, .. } => Some(*first_byte),
            Outcome::Alone(fetched, _) => Some(fetched.first_byte),
            Outcome::Failed(_, first_byte) => *first_byte,
        }
    }
}
