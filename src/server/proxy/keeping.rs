//! Storing a response while it comes, for all who follow.

use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::body::Piece;
use super::coming::Coming;
use super::fetch::{Fetched, To};
use super::new_response::NewResponse;
use super::opening::Opened;
use super::outcome::Outcome;
use super::part_fetch::Asker;
use super::parts::Parted;
use super::removal::log_failed;
use super::service::Service;
use super::slots::Slot;
use crate::cache::{Condition, Writer};

/// Pieces of a body on their way to the client that began its fill. One that is further behind reads what is
/// stored.
const NEAR_MAX: usize = 4;
/// Fills that nobody waits for any more go on if no more than this is left, in bytes, or half of the body.
const FINISHED_LEN_MAX: u64 = 1 << 20;
/// A response that is to be stored while it comes.
pub(super) struct Keeping {
    pub(super) new: NewResponse,
    pub(super) to: To,
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
        job: Keeping,
        (fetched, slot): (Fetched, Slot),
        client: oneshot::Sender<Outcome>,
    ) {
        let Keeping { new, to, parts: coming, replaces, is_refresh } = job;
        let (key, request) = (new.place.key.clone(), new.request.clone());
        let head = new.kept.head.clone();
        let len = fetched.connection.body_len();
        let target = new.place.target.clone();
        // Whoever finds an object that comes part by part is to find its requests too.
        let turn = match &coming {
            Some(_) => self.shared.declaring.lock(&target).await,
            None => None,
        };
        let begun = self.begin_store(new, (len, coming.as_ref())).await;
        match begun.map(|(opened, _)| opened) {
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
                drop(turn);
                let reading = parted.read();
                let key = opened.key;
                let asker =
                    Asker { key, request, to, head, parted: parted.clone(), _reading: reading };
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
