//! Answers that a client holds while it does other things: read piece by piece, each compared with
//! the version that the lookup gave. They may end early with an error; they may not be wrong.

use std::ops::Range;

use bytes::Bytes;
use parking_lot::Mutex;
use rawcached::cache::{BodyReader, Hit};

use super::Client;
use crate::world::body_of;

/// Answers that one client holds at most.
const HELD_MAX: usize = 4;
/// Operations that a client does at most before it takes the next piece.
const REST_MAX: u64 = 30;

/// A body, or a range of one, on its way to a client.
pub struct Held {
    id: u64,
    expected: Bytes,
    /// Bytes that have not come yet.
    left: Range<usize>,
    reader: Reader,
    /// Operations that the client does before the next piece.
    rest: u64,
}

enum Reader {
    Whole(Box<Hit>),
    /// The mutex is never locked: it makes a client `Sync`, which a reader is not.
    Range(Box<Mutex<BodyReader>>),
}

impl Held {
    /// The whole body of a version that a lookup gave.
    pub fn whole((id, body): (u64, u64), hit: Hit) -> Held {
        let len = usize::try_from(hit.len()).unwrap();
        let reader = Reader::Whole(Box::new(hit));
        Held { id, expected: body_of(body, len), left: 0..len, reader, rest: 0 }
    }
}

impl Client {
    /// Takes a piece of an answer and judges it; false if there is no more to come.
    pub(super) async fn take_piece(&self, held: &mut Held) -> bool {
        let piece = match &mut held.reader {
            Reader::Whole(hit) => hit.next_chunk().await,
            Reader::Range(reader) => reader.get_mut().next_chunk().await,
        };
        let (id, at) = (held.id, held.left.start);
        match piece {
            Ok(Some(piece)) => {
                held.left.start += piece.len();
                if held.expected[..held.left.end].get(at..held.left.start) != Some(&piece[..]) {
                    self.history().violate(format!("version {id} has wrong bytes from {at}"));
                    return false;
                }
                true
            }
            Ok(None) => {
                if !held.left.is_empty() {
                    let what = format!("version {id} ended at {at} of {}", held.left.end);
                    self.history().violate(what);
                }
                false
            }
            // Cut short with an error: evicted or damaged meanwhile.
            Err(_) => {
                self.take_cut(id, at);
                false
            }
        }
    }

    fn take_cut(&self, id: u64, at: usize) {
        let (now, so_far) = (self.now(), self.stored_so_far());
        let mut history = self.history();
        history.note(format_args!("version {id} was cut at {at}"));
        if self.world.scenario.is_sound() {
            history.check_cut(id, now, so_far);
        }
    }

    /// Keeps an answer, or a range of it, to be read later.
    pub(super) async fn hold(&mut self, id: u64, hit: Hit) {
        let body = self.history().body(id);
        let mut held = Held::whole((id, body), hit);
        if self.rng.bool() && !held.left.is_empty() {
            let start = self.rng.usize(0..held.left.end);
            let end = self.rng.usize(start..held.left.end) + 1;
            let Reader::Whole(hit) = &held.reader else { return };
            // Evicted or damaged already: a miss.
            let Ok(reader) = hit.range(start as u64..end as u64).await else {
                return self.take_cut(id, start);
            };
            held = Held {
                left: start..end,
                reader: Reader::Range(Box::new(Mutex::new(reader))),
                ..held
            };
        }
        held.rest = self.rng.u64(0..REST_MAX);
        if self.held.len() == HELD_MAX {
            let dropped = self.rng.usize(0..HELD_MAX);
            self.held.swap_remove(dropped);
        }
        self.held.push(held);
    }

    /// Takes a piece of each answer that is due.
    pub(super) async fn go_on_reading(&mut self) {
        let mut all = std::mem::take(&mut self.held);
        let mut n = 0;
        while n < all.len() {
            if all[n].rest > 0 {
                all[n].rest -= 1;
                n += 1;
                continue;
            }
            if !self.take_piece(&mut all[n]).await {
                all.swap_remove(n);
                continue;
            }
            // Long rests, and short ones between the pieces of one slot.
            all[n].rest = if self.rng.bool() { 0 } else { self.rng.u64(0..REST_MAX) };
            n += 1;
        }
        self.held = all;
    }

    /// Reads what is held to its end.
    pub(super) async fn read_to_the_end(&mut self) {
        for mut held in std::mem::take(&mut self.held) {
            while self.take_piece(&mut held).await {}
        }
    }
}
