//! Clients that follow stores in progress: each compares what comes with the version that is being stored, and
//! judges how it ends. A follower may be slow, or leave; it may not be given a part for the whole, nor an error
//! in place of a body that came whole.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use rawcached::cache::{FollowError, Follower, StoreError, Stored, Writer};
use tokio::time::Instant;

use super::{Client, HUNG, turns_of};
use crate::history::Tick;
use crate::world::{Stream, StreamEnd, World, body_of, key_bytes};

/// Followers that a store begins with at most.
const FOLLOWERS_MAX: usize = 3;
/// One follower in so many leaves after a piece.
const LEAVES_ONE_IN: u32 = 60;

/// One follower on its way through a body.
struct Chase {
    world: Arc<World>,
    born: Instant,
    follower: Follower,
    id: u64,
    rng: Rng,
}

impl Client {
    /// Whether a store of this client may be followed.
    pub(super) fn is_followed(&mut self) -> bool {
        let one_in = self.world.scenario.follow_one_in;
        one_in > 0 && self.following.u32(0..one_in) == 0
    }

    /// A store begins that others may follow.
    pub(super) fn begin_followed(&mut self, id: u64, (key, len): (u32, usize), writer: &Writer) {
        let began = self.history().tick();
        let stream = Stream { key, len, began, born: self.born, end: StreamEnd::UnderWay };
        self.world.streams.lock().insert(id, stream);
        for _ in 0..self.following.usize(0..=FOLLOWERS_MAX) {
            // None once it was purged.
            if let Some(follower) = writer.follower() {
                self.chase(id, follower);
            }
        }
    }

    /// The body is whole as far as the client knows.
    pub(super) fn finalize_followed(&self, id: u64) {
        if let Some(stream) = self.world.streams.lock().get_mut(&id) {
            stream.end = StreamEnd::Finalizing;
        }
    }

    /// The store is over; with what it said, if it was finalized and not dropped half way.
    pub(super) fn end_followed(&self, id: u64, said: Option<&Result<Stored, StoreError>>) {
        if !self.world.streams.lock().contains_key(&id) {
            return;
        }
        let at = self.history().tick();
        let is_whole = match said {
            Some(Err(StoreError::Busy(_) | StoreError::Incomplete)) | None => false,
            Some(_) => true,
        };
        if let Some(stream) = self.world.streams.lock().get_mut(&id) {
            stream.end = StreamEnd::Over { at, is_whole };
        }
    }

    /// Now and then follows what is being stored, as a rule.
    pub(super) fn follow_sometimes(&mut self) {
        let one_in = self.world.scenario.follow_one_in;
        if one_in == 0 || self.following.u32(0..2 * one_in) > 0 {
            return;
        }
        let streamed: Vec<u32> = {
            let streams = self.world.streams.lock();
            let under_way = |stream: &&Stream| {
                stream.born == self.born && !matches!(stream.end, StreamEnd::Over { .. })
            };
            streams.values().filter(under_way).map(|stream| stream.key).collect()
        };
        let key = match self.following.choice(&streamed) {
            Some(key) => *key,
            None => self.following.u32(0..self.world.scenario.keys),
        };
        let asked = self.history().tick();
        if let Some(follower) = self.cache.follow(&key_bytes(key)) {
            self.follow_found((key, asked), follower);
        }
    }

    /// Follows what a lookup found to be under way.
    pub(super) fn follow_found(&mut self, (key, asked): (u32, Tick), follower: Follower) {
        let id = u64::from_le_bytes(follower.metadata().try_into().unwrap());
        self.judge_attaching(id, key, asked);
        self.chase(id, follower);
    }

    fn judge_attaching(&self, id: u64, key: u32, asked: Tick) {
        let stream = self.world.streams.lock().get(&id).copied();
        let mut history = self.history();
        let Some(stream) = stream else {
            return history.violate(format!("version {id} is followed, which allowed it not"));
        };
        if stream.key != key {
            history.violate(format!("version {id} of key {} is followed as {key}", stream.key));
        }
        if let StreamEnd::Over { at, .. } = stream.end
            && at < asked
        {
            history.violate(format!("version {id} is followed after its store"));
        }
        history.check_attached((id, key), (stream.began, asked));
    }

    fn chase(&mut self, id: u64, follower: Follower) {
        let rng = self.following.fork();
        let (world, born) = (Arc::clone(&self.world), self.born);
        self.chases.push(tokio::spawn(Chase { world, born, follower, id, rng }.run()));
    }

    /// Waits for the followers that it began.
    pub(super) async fn end_chases(&mut self) {
        for chase in std::mem::take(&mut self.chases) {
            // A panic is among PANICS.
            let _ = chase.await;
        }
    }
}

impl Chase {
    async fn run(mut self) {
        self.world.totals.lock().followers += 1;
        let stream = self.world.streams.lock()[&self.id];
        let body = body_of(self.id, stream.len);
        let is_slow = self.rng.u32(0..3) == 0;
        let mut at = 0;
        loop {
            if is_slow && self.rng.bool() {
                turns_of(self.rng.u32(0..200)).await;
            }
            if is_slow && self.rng.u32(0..20) == 0 {
                tokio::time::sleep(Duration::from_millis(self.rng.u64(0..300))).await;
            }
            let piece = tokio::time::timeout(HUNG, self.follower.next_chunk()).await;
            let Ok(piece) = piece else { return self.violate("hung", at) };
            match piece {
                Ok(Some(piece)) => {
                    let end = at + piece.len();
                    if piece.is_empty() || body.get(at..end) != Some(&piece[..]) {
                        return self.violate("was given wrong bytes", at);
                    }
                    at = end;
                }
                Ok(None) => return self.judge_end(at, body.len()),
                Err(error) => return self.judge_error(&error, at),
            }
            if self.rng.u32(0..LEAVES_ONE_IN) == 0 {
                return;
            }
        }
    }

    fn violate(&self, what: &str, at: usize) {
        let what = format!("a follower of version {} {what} at {at}", self.id);
        self.world.history(self.born).violate(what);
    }

    fn end(&self) -> StreamEnd {
        self.world.streams.lock()[&self.id].end
    }

    fn judge_end(&self, at: usize, len: usize) {
        self.world.totals.lock().followed_whole += 1;
        self.world.history(self.born).note(format_args!("followed {} to its end", self.id));
        if at < len || matches!(self.end(), StreamEnd::UnderWay) {
            self.violate("was told of an early end", at);
        }
    }

    fn judge_error(&self, error: &FollowError, at: usize) {
        self.world.totals.lock().followed_short += 1;
        let note = format_args!("followed {} to {at}: {error}", self.id);
        self.world.history(self.born).note(note);
        let end = self.end();
        let is_lost = matches!(error, FollowError::Lost);
        if !is_lost && matches!(end, StreamEnd::Over { is_whole: true, .. }) {
            self.violate("of a body that came whole got an error", at);
        }
        // What was stored of a store under way stays, as long as nobody purged everything.
        let began = self.world.streams.lock()[&self.id].began;
        if is_lost
            && matches!(end, StreamEnd::UnderWay)
            && self.world.scenario.is_sound()
            && !self.world.history(self.born).was_all_purged_since(began)
        {
            self.violate("lost what was stored", at);
        }
    }
}
