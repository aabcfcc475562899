//! Answers that a client holds while it does other things: read piece by piece, each compared with the
//! version that the lookup gave. They may end early, and say so; they may not be wrong.

use std::ops::Range;

use bytes::Bytes;
use parking_lot::Mutex;
use rawcached::cache::{BodyReader, Hit};
use tokio::time::Instant;

use super::Client;
use crate::world::{World, body_of};

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
    /// Never locked: it makes a client `Sync`, which reads under way are not.
    Range(Box<Mutex<BodyReader>>),
}

impl Held {
    /// The whole body of a version that a lookup gave.
    pub fn whole(id: u64, hit: Hit) -> Held {
        let len = usize::try_from(hit.len()).unwrap();
        let reader = Reader::Whole(Box::new(hit));
        Held { id, expected: body_of(id, len), left: 0..len, reader, rest: 0 }
    }

    /// Takes a piece and judges it; false if there is no more to come.
    pub async fn take_piece(&mut self, world: &World, born: Instant) -> bool {
        let piece = match &mut self.reader {
            Reader::Whole(hit) => hit.next_chunk().await,
            Reader::Range(reader) => reader.get_mut().next_chunk().await,
        };
        let (id, at) = (self.id, self.left.start);
        match piece {
            Ok(Some(piece)) => {
                self.left.start += piece.len();
                if self.expected[..self.left.end].get(at..self.left.start) != Some(&piece[..]) {
                    let what = format!("version {id} has wrong bytes from {at}");
                    world.history(born).violate(what);
                    return false;
                }
                true
            }
            Ok(None) => {
                if !self.left.is_empty() {
                    let what = format!("version {id} ended at {at} of {}", self.left.end);
                    world.history(born).violate(what);
                }
                false
            }
            // Cut short and said so: evicted or damaged meanwhile.
            Err(_) => {
                world.history(born).note(format_args!("version {id} was cut at {at}"));
                false
            }
        }
    }
}

impl Client {
    /// Keeps an answer, or a range of it, to be read later.
    pub(super) async fn hold(&mut self, id: u64, hit: Hit) {
        let mut held = Held::whole(id, hit);
        if self.rng.bool() && !held.left.is_empty() {
            let start = self.rng.usize(0..held.left.end);
            let end = self.rng.usize(start..held.left.end) + 1;
            let Reader::Whole(hit) = &held.reader else { return };
            // Evicted or damaged already: a miss.
            let Ok(reader) = hit.range(start as u64..end as u64).await else { return };
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

    /// Takes a piece of each answer whose time has come.
    pub(super) async fn go_on_reading(&mut self) {
        let mut n = 0;
        while n < self.held.len() {
            if self.held[n].rest > 0 {
                self.held[n].rest -= 1;
                n += 1;
                continue;
            }
            if !self.held[n].take_piece(&self.world, self.born).await {
                self.held.swap_remove(n);
                continue;
            }
            // Long rests, and short ones between the pieces of one slot.
            self.held[n].rest = if self.rng.bool() { 0 } else { self.rng.u64(0..REST_MAX) };
            n += 1;
        }
    }

    /// Reads what is held to its end.
    pub(super) async fn read_to_the_end(&mut self) {
        for mut held in std::mem::take(&mut self.held) {
            while held.take_piece(&self.world, self.born).await {}
        }
    }
}
