//! What a store in progress and those who follow it share. Owns where each byte of the body is now: in the
//! writer's buffer, on a shelf, in slices of the store, or nowhere. Never waits, and never has the writer wait.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::error::FollowError;
use super::shelf::Shelf;
use crate::fair_memory::{FairMemory, Seen, Short, Window};
use crate::format::BODY_CHUNK;
use crate::planted::{self, Bug};
use crate::store::{Fill, LargeObject, Lifetime, RangeOptions, Store};

/// Longest piece that is copied out of the writer's buffer, in bytes.
const COPIED_LEN_MAX: u64 = BODY_CHUNK as u64;
/// Shorter ones are not shared: each follower copies them.
const SHARED_LEN_MIN: usize = 4 << 10;
/// Slices on the shelf of those that are near, at least: the present one and two before it.
const NEAR_SLICES_MIN: u64 = 3;
/// That shelf has this part of the memory of stores in progress, if that is more.
const NEAR_PART: u64 = 4;
/// Slices on the shelf of those that fell behind, at least.
const BEHIND_SLICES_MIN: u64 = 2;
/// That shelf has this part of the memory of stores in progress, if that is more.
const BEHIND_PART: u64 = 4;

/// A read that all wait for who want the same bytes at the same time.
pub(in crate::cache) type SharedRead = Shared<BoxFuture<'static, Option<Bytes>>>;

/// What is known of a body when its store begins.
pub(in crate::cache) struct About {
    pub key: Vec<u8>,
    pub metadata: Bytes,
    /// Hashes of the tags.
    pub tags: Vec<u64>,
    pub lifetime: Lifetime,
    pub len_hint: Option<u64>,
}

/// One store in progress as its followers see it.
pub(in crate::cache) struct Feed {
    pub(super) about: About,
    pub(super) store: Store,
    /// The memory of stores in progress, of which the shelves are a part.
    memory: FairMemory,
    /// The writer's buffer.
    window: Window,
    slice_size: u64,
    followers: AtomicUsize,
    /// Comes before the locks of `memory`; not held while bytes are copied.
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    /// Bytes that have come.
    len: u64,
    /// Bytes that are in slices of the store.
    stored: u64,
    /// The object of these slices. It keeps them from being discarded.
    object: Option<LargeObject>,
    present: Present,
    end: Option<End>,
    /// Copies of what the writer has or had in its buffer.
    near: Shelf,
    /// What was read of the slices.
    behind: Shelf,
    /// Reads of slices under way, by the position of their first byte.
    reads: BTreeMap<u64, WeakShared<BoxFuture<'static, Option<Bytes>>>>,
    /// How far the foremost follower has come.
    foremost: u64,
}

/// Where the bytes are that are not in slices.
enum Present {
    /// In the writer's buffer.
    Filling,
    /// On their way to the store.
    Away,
    /// Nowhere: the writer is done.
    Gone,
}

enum End {
    /// All bytes came. The entry with this CAS value has them, if they were published.
    Whole {
        cas: Option<u64>,
    },
    Failed(FollowError),
}

/// Where a follower finds what comes next.
pub(in crate::cache) enum Look {
    /// Here.
    Piece(Bytes),
    /// In the writer's buffer, which begins at position `start`: these bytes at least.
    Present {
        start: u64,
        piece: Range<u64>,
    },
    /// In a slice of the object: these bytes of the body, up to its end.
    Slice(LargeObject, Range<u64>),
    /// In the entry of the key, if it has this CAS value.
    Value(u64),
    /// Nowhere yet.
    Wait,
    /// That was all.
    End,
    Failed(FollowError),
}

impl Feed {
    /// A body of which nothing has come.
    pub fn new(about: About, store: Store, (memory, window): (FairMemory, Window)) -> Feed {
        let slice_size = u64::from(store.layout().slice_size);
        let state = State {
            len: 0,
            stored: 0,
            object: None,
            present: Present::Filling,
            end: None,
            near: Shelf::new((memory.limit() / NEAR_PART).max(NEAR_SLICES_MIN * slice_size)),
            behind: Shelf::new((memory.limit() / BEHIND_PART).max(BEHIND_SLICES_MIN * slice_size)),
            reads: BTreeMap::new(),
            foremost: 0,
        };
        let followers = AtomicUsize::new(0);
        let (state, changed) = (Mutex::new(state), Notify::new());
        Feed { about, store, memory, window, slice_size, followers, state, changed }
    }

    /// Whether a purge since the store began, hard or soft, covers what is being stored.
    pub fn is_purged(&self, fill: &Fill) -> bool {
        self.store.is_purged_since(fill, &self.about.key, &self.about.tags)
    }

    // What the writer tells.

    /// So many bytes have come; those that are not in slices are in the buffer.
    pub fn grown(&self, len: u64) {
        self.state.lock().len = len;
        self.changed.notify_waiters();
    }

    /// The buffer was taken to be stored, with these bytes in it.
    pub fn taken(&self, buffer: &[u8], is_last: bool) {
        // A short body that is not published is nowhere else, and somebody may attach until that is known.
        let is_all = is_last && self.state.lock().stored == 0;
        if is_all || self.has_near_followers() {
            self.share(buffer);
        }
        let mut state = self.state.lock();
        state.len = state.stored + buffer.len() as u64;
        state.present = Present::Away;
        drop(state);
        self.changed.notify_waiters();
    }

    /// All that has come is in slices of `object` now. The buffer may be used again after this.
    pub fn stored(&self, object: impl FnOnce() -> Option<LargeObject>) {
        let mut state = self.state.lock();
        state.stored = state.len;
        state.present = Present::Filling;
        if state.object.is_none() {
            state.object = object();
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The body is whole, whatever becomes of its entry.
    pub fn came_whole(&self) {
        self.state.lock().end.get_or_insert(End::Whole { cas: None });
        self.changed.notify_waiters();
    }

    /// The body is whole and is the one of the entry with this CAS value.
    pub fn published(&self, cas: u64) {
        self.state.lock().end = Some(End::Whole { cas: Some(cas) });
    }

    /// The body will not be whole, unless it is already.
    pub fn fail(&self, error: FollowError) {
        self.state.lock().end.get_or_insert(End::Failed(error));
        self.changed.notify_waiters();
    }

    /// The writer is done: it tells no more, and its buffer is gone.
    pub fn writer_left(&self) {
        let mut state = self.state.lock();
        state.present = Present::Gone;
        state.end.get_or_insert(End::Failed(FollowError::GivenUp));
        drop(state);
        self.changed.notify_waiters();
    }

    /// Whether a follower will want the present slice soon.
    fn has_near_followers(&self) -> bool {
        let state = self.state.lock();
        let is_near = state.foremost + NEAR_SLICES_MIN * self.slice_size > state.stored;
        self.followers.load(Ordering::Relaxed) > 0 && is_near
    }

    /// Puts on the shelf what is not there yet of a whole slice.
    fn share(&self, slice: &[u8]) {
        let start = self.state.lock().stored;
        let end = start + slice.len() as u64;
        let mut at = start;
        while at < end {
            let piece_end = {
                let mut state = self.state.lock();
                if let Some(shared) = state.near.get(at) {
                    at += shared.len() as u64;
                    continue;
                }
                state.near.gap_end(at, end.min(at + COPIED_LEN_MAX))
            };
            let piece = &slice[to_usize(at - start)..to_usize(piece_end - start)];
            let Some(kept) = self.memory.keep(&Bytes::copy_from_slice(piece)) else { return };
            self.state.lock().near.add(at, kept);
            at = piece_end;
        }
    }

    // What followers ask.

    /// Whether all who follow are told of an error.
    pub fn has_failed(&self) -> bool {
        matches!(self.state.lock().end, Some(End::Failed(_)))
    }

    /// One more follows.
    pub fn joined(&self) {
        self.followers.fetch_add(1, Ordering::Relaxed);
    }

    /// One follows no more.
    pub fn left(&self) {
        if self.followers.fetch_sub(1, Ordering::Relaxed) == 1 {
            let mut state = self.state.lock();
            let is_all = matches!(state.end, Some(End::Whole { cas: None })) && state.stored == 0;
            if is_all {
                return;
            }
            state.near.clear();
            state.behind.clear();
        }
    }

    /// Whether anybody follows.
    pub fn is_followed(&self) -> bool {
        self.followers.load(Ordering::Relaxed) > 0
    }

    /// Ends with the next change after this call.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Where the bytes from position `at` on are.
    pub fn look(&self, at: u64) -> Look {
        let mut state = self.state.lock();
        let state = &mut *state;
        if let Some(End::Failed(error)) = &state.end {
            let is_hidden = planted::is(Bug::FollowerEndsEarly);
            return if is_hidden { Look::End } else { Look::Failed(error.clone()) };
        }
        // One that waits for later bytes needs none of these.
        state.foremost = state.foremost.max(at.min(state.len));
        if let Some(bytes) = state.near.get(at) {
            return Look::Piece(bytes);
        }
        if at < state.stored {
            return self.look_behind(state, at);
        }
        if at >= state.len {
            return if state.end.is_some() { Look::End } else { Look::Wait };
        }
        match (&state.present, &state.end) {
            (Present::Filling, _) => {
                let end = state.near.gap_end(at, state.len.min(at + COPIED_LEN_MAX));
                Look::Present { start: state.stored, piece: at..end }
            }
            (Present::Away, _) => Look::Wait,
            (Present::Gone, Some(End::Whole { cas: Some(cas) })) if state.stored == 0 => {
                Look::Value(*cas)
            }
            (Present::Gone, _) => Look::Failed(FollowError::Lost),
        }
    }

    fn look_behind(&self, state: &mut State, at: u64) -> Look {
        if let Some(bytes) = state.behind.get(at) {
            return Look::Piece(bytes);
        }
        let slice_end = (at / self.slice_size + 1) * self.slice_size;
        match &state.object {
            Some(object) => {
                Look::Slice(object.of_len(state.stored), at..slice_end.min(state.stored))
            }
            None => Look::Failed(FollowError::Lost),
        }
    }

    /// Copies a piece out of the writer's buffer, which began at `start` when that was looked at; `None` if
    /// something has changed since, or will in a moment.
    pub fn copy(&self, start: u64, piece: &Range<u64>) -> Option<Bytes> {
        let within = to_usize(piece.start - start)..to_usize(piece.end - start);
        let bytes = match self.window.copy(within) {
            Seen::Bytes(bytes) => bytes,
            Seen::Away => return None,
            Seen::Lost => {
                self.fail(FollowError::Failed(Short::GaveWay.into()));
                return None;
            }
        };
        let is_shared = bytes.len() >= SHARED_LEN_MIN && self.followers.load(Ordering::Relaxed) > 1;
        let kept = is_shared.then(|| self.memory.keep(&bytes)).flatten();
        let mut state = self.state.lock();
        // Before the buffer is begun anew, what was in it is said to be stored.
        if state.stored != start {
            return None;
        }
        if let Some(kept) = kept {
            state.near.add(piece.start, kept);
        }
        Some(bytes)
    }

    /// Reads a range of the body that is in one slice, or the first bytes of it as there is memory; gives
    /// `None` if they are gone. Whoever wants them at the same time shares the read, and any of those drives it.
    pub fn read(self: &Arc<Self>, object: LargeObject, range: Range<u64>) -> SharedRead {
        let at = range.start;
        let mut state = self.state.lock();
        if let Some(read) = state.reads.get(&at).and_then(WeakShared::upgrade) {
            return read;
        }
        let feed = Arc::downgrade(self);
        let read = async move {
            let bytes = read_slice(&object, range).await?;
            if let Some(feed) = feed.upgrade() {
                feed.share_read(at, &bytes);
            }
            Some(bytes)
        };
        let read = read.boxed().shared();
        // Whoever drops the last handle of a read ends it: not under the lock.
        let mut others = Vec::new();
        state.reads.retain(|_, read| {
            let upgraded = read.upgrade();
            let is_under_way = upgraded.is_some();
            others.extend(upgraded);
            is_under_way
        });
        state.reads.extend(read.downgrade().map(|read| (at, read)));
        drop(state);
        read
    }

    fn share_read(&self, at: u64, bytes: &Bytes) {
        if self.followers.load(Ordering::Relaxed) > 1
            && let Some(kept) = self.memory.keep(bytes)
        {
            self.state.lock().behind.add(at, kept);
        }
    }
}

/// The first piece of a range of the body, through the RAM tier.
async fn read_slice(object: &LargeObject, range: Range<u64>) -> Option<Bytes> {
    let sequential = RangeOptions { parallel: false, ..RangeOptions::default() };
    let mut body = object.read(range, &sequential).await.ok()?;
    body.next_chunk().await.ok().flatten()
}

fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
