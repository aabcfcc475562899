//! Goal: the cache and what it leaves on a device keep the promises of the documents. Method: the library
//! on simulated devices, with a clock that only the test moves; `inspect` runs the built binary too.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[macro_use]
#[path = "../support/mod.rs"]
mod support;
#[path = "../../benches/recovery/fill.rs"]
#[allow(dead_code, reason = "the benchmark uses the rest")]
mod fill;
mod inspect;
mod model;
mod ranges;
mod rig;
mod rules;
mod scrub;
