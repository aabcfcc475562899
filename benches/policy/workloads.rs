//! Made-up workloads, each for one habit of real ones. Owns what is asked for when; the same seed
//! gives the same requests.

use std::time::Duration;

use fastrand::Rng;

use crate::draws::{Zipf, log_normal, mix};
use crate::trace::{NO_END, Request, Trace};

/// Objects that the popular part of a workload asks for.
const OBJECTS: u32 = 80_000;
/// Popularity falls with the rank to this power.
const SKEW: f64 = 0.9;
/// Sizes: log-normal, a mean of about 26 KB.
const SIZE_MEDIAN: f64 = 16_000.0;
const SIZE_SHAPE: f64 = 1.0;
/// Bounds of the sizes in bytes; the largest still is one slot in regions of 1 MiB.
const SIZES: (f64, f64) = (128.0, 262_144.0);
/// Requests in a second: the time in which lifetimes pass.
const REQUESTS_PER_SEC: u32 = 100;
/// Keys from here on are asked for by one scan, or once.
const OTHER_KEYS: u64 = 1 << 32;

/// What asks for what at one moment: the number of the request, the dice and popular ranks.
type Choice = fn(u32, &mut Rng, &Zipf) -> u64;

/// Every workload by name.
const WORKLOADS: [(&str, Choice); 7] = [
    ("zipf", zipf),
    ("one-hit", one_hit),
    ("scan", scan),
    ("loop", around),
    ("shift", shift),
    ("news", news),
    ("ttl", zipf),
];

/// The names of all workloads.
pub fn names() -> impl Iterator<Item = &'static str> {
    WORKLOADS.iter().map(|(name, _)| *name)
}

/// Makes a workload of some requests; `None` if there is none of this name.
pub fn make(name: &str, requests: u32) -> Option<Trace> {
    let (_, choose) = WORKLOADS.iter().find(|(known, _)| *known == name)?;
    let mut rng = Rng::with_seed(1);
    let ranks = Zipf::new(OBJECTS, SKEW);
    let requests = (0..requests).map(|number| {
        let key = choose(number, &mut rng, &ranks);
        Request {
            at_secs: u64::from(number / REQUESTS_PER_SEC),
            key,
            size: size_of_object(key),
            ttl: if name == "ttl" { lifetime(key) } else { NO_END },
        }
    });
    Some(Trace { name: name.to_owned(), requests: requests.collect() })
}

#[expect(clippy::cast_possible_truncation, reason = "the size is between bounds")]
#[expect(clippy::cast_sign_loss, reason = "the size is between bounds")]
fn size_of_object(key: u64) -> u32 {
    log_normal(mix(key), SIZE_MEDIAN, SIZE_SHAPE).clamp(SIZES.0, SIZES.1) as u32
}

/// A third of the objects lives for 100 s, a third for 1000 s, a third for ever.
fn lifetime(key: u64) -> Duration {
    match mix(!key) % 3 {
        0 => Duration::from_secs(100),
        1 => Duration::from_secs(1000),
        _ => NO_END,
    }
}

/// The same objects are popular all the time.
fn zipf(_: u32, rng: &mut Rng, ranks: &Zipf) -> u64 {
    u64::from(ranks.draw(rng.u64(..)))
}

/// Every second request is for an object that nobody asks for again.
fn one_hit(number: u32, rng: &mut Rng, ranks: &Zipf) -> u64 {
    if number.is_multiple_of(2) { OTHER_KEYS + u64::from(number) } else { zipf(number, rng, ranks) }
}

/// Every 60 000 requests somebody reads 20 000 objects in a row, among the usual requests.
fn scan(number: u32, rng: &mut Rng, ranks: &Zipf) -> u64 {
    let scanning = number % 60_000 >= 20_000 && number.is_multiple_of(2);
    if scanning { OTHER_KEYS + u64::from(number) } else { zipf(number, rng, ranks) }
}

/// Half of the requests read the same 30 000 objects in the same order again and again.
fn around(number: u32, rng: &mut Rng, ranks: &Zipf) -> u64 {
    if number.is_multiple_of(2) {
        OTHER_KEYS + u64::from(number / 2 % 30_000)
    } else {
        zipf(number, rng, ranks)
    }
}

/// Every 50 000 requests other objects are popular: ranks move on by a seventh of all objects.
fn shift(number: u32, rng: &mut Rng, ranks: &Zipf) -> u64 {
    (zipf(number, rng, ranks) + u64::from(number / 50_000 * (OBJECTS / 7))) % u64::from(OBJECTS)
}

/// A new object appears with every third request; the newer it is the more popular.
fn news(number: u32, rng: &mut Rng, ranks: &Zipf) -> u64 {
    OTHER_KEYS + u64::from(number / 3).saturating_sub(zipf(number, rng, ranks))
}
