//! Which requests are made, in which order. Owns the draws, which are made before the load begins;
//! knows nothing of sockets.

use std::sync::Arc;

use crate::cli::bench::draws::{Zipf, below, mix, unit};

/// Most keys: the highest bit of a drawn number tells stores from reads.
pub const KEYS_MAX: u32 = 1 << 31;
/// Draws repeat after eight for each key, within these limits.
const DRAWS_MIN: usize = 1 << 20;
const DRAWS_MAX: usize = 1 << 24;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read the value of this key.
    Get(u32),
    /// Store the value of this key.
    Set(u32),
}

impl Request {
    /// The key it is for.
    #[must_use]
    pub fn key(self) -> u32 {
        let (Request::Get(key) | Request::Set(key)) = self;
        key
    }
}

/// Where one thread takes its requests from, until there are none.
pub type Source<'a> = Box<dyn FnMut() -> Option<Request> + Send + 'a>;

/// How often which key is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Popularity {
    /// All keys alike.
    Uniform,
    /// Key `n` in proportion to `1 / (n + 1)^exponent`.
    Zipf(f64),
    /// These keys, in this order.
    Listed(Vec<u32>),
}

/// A row of requests for several threads.
pub struct Requests {
    drawn: Arc<[u32]>,
}

impl Requests {
    /// Draws requests for the keys `0..keys`, a share `reads` of them reads. The same in every run.
    ///
    /// # Panics
    /// If there are no keys, or more than `KEYS_MAX`.
    #[must_use]
    pub fn draw(popularity: &Popularity, keys: u32, reads: f64) -> Requests {
        assert!((1..=KEYS_MAX).contains(&keys), "{keys} keys");
        let len = match popularity {
            Popularity::Listed(listed) => listed.len(),
            _ => (keys as usize).saturating_mul(8).clamp(DRAWS_MIN, DRAWS_MAX),
        };
        let zipf = match popularity {
            Popularity::Zipf(exponent) => Some(Zipf::new(keys, *exponent)),
            _ => None,
        };
        let draw = |number: usize| {
            let random = mix(number as u64);
            let key = match (popularity, &zipf) {
                (Popularity::Listed(listed), _) => listed[number],
                (_, Some(zipf)) => zipf.draw(random),
                _ => below(random, keys),
            };
            let is_read = unit(mix(!random)) < reads;
            if is_read { key } else { key | KEYS_MAX }
        };
        Requests { drawn: (0..len).map(draw).collect() }
    }

    /// How many there are before they repeat.
    #[must_use]
    pub fn len(&self) -> usize {
        self.drawn.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.drawn.is_empty()
    }

    /// The requests of thread `number` of `threads`: every `threads`-th one, repeated without end.
    #[must_use]
    pub fn source(&self, number: usize, threads: usize) -> Source<'static> {
        let drawn = Arc::clone(&self.drawn);
        let mut next = number;
        Box::new(move || {
            if next >= drawn.len() {
                next %= drawn.len().max(1);
            }
            let found = *drawn.get(next)?;
            next += threads;
            let key = found & (KEYS_MAX - 1);
            Some(if found & KEYS_MAX == 0 { Request::Get(key) } else { Request::Set(key) })
        })
    }
}

/// One request for each of the keys `0..keys`, in an order unrelated to popularity, dealt out to
/// `threads` sources.
pub fn each_once(keys: u32, threads: usize, request: fn(u32) -> Request) -> Vec<Source<'static>> {
    let mut order: Vec<u32> = (0..keys).collect();
    order.sort_by_cached_key(|key| mix(u64::from(*key) << 1));
    let order: Arc<[u32]> = order.into();
    let source = |number| -> Source<'static> {
        let (order, mut next) = (Arc::clone(&order), number);
        Box::new(move || {
            let key = *order.get(next)?;
            next += threads;
            Some(request(key))
        })
    };
    (0..threads).map(source).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_reads_is_what_was_asked_for() {
        for reads in [0.0, 0.25, 1.0] {
            let requests = Requests::draw(&Popularity::Uniform, 1000, reads);
            let mut source = requests.source(0, 1);
            let is_get = |request| matches!(request, Some(Request::Get(_)));
            let gets = (0..requests.len()).filter(|_| is_get(source())).count();
            let share = gets as f64 / requests.len() as f64;
            assert!((share - reads).abs() < 0.005, "{share}");
        }
    }

    #[test]
    fn threads_share_a_list_and_begin_it_anew() {
        let requests = Requests::draw(&Popularity::Listed(vec![5, 6, 7, 8, 9]), 10, 1.0);
        let (mut even, mut odd) = (requests.source(0, 2), requests.source(1, 2));
        let keys = |source: &mut Source<'_>| {
            (0..5).map(|_| source().map(Request::key).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(keys(&mut even), [5, 7, 9, 6, 8]);
        assert_eq!(keys(&mut odd), [6, 8, 5, 7, 9]);
    }

    #[test]
    fn each_key_comes_once_over_all_threads() {
        let mut found = Vec::new();
        for mut source in each_once(1000, 3, Request::Set) {
            found.extend(std::iter::from_fn(&mut source).map(Request::key));
        }
        assert_ne!(found[..334], *(0..334).collect::<Vec<_>>());
        found.sort_unstable();
        assert_eq!(found, (0..1000).collect::<Vec<_>>());
    }
}
