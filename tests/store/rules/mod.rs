//! Goal: every rule of truth has a test that fails when the rule is broken. Method: short scripts
//! on a simulated device with a clock that only the test moves; `docs/testing.md` says how each
//! rule was broken on purpose and which test saw it.

mod backlog;
mod damage;
mod epoch;
mod eviction;
mod failures;
mod flush;
mod follow;
mod formats;
mod freeing;
mod half_broken;
mod keys;
mod large_stores;
mod memory;
mod objects;
mod order;
mod parts;
mod purges;
mod readers;
mod recovery;
mod removals;
mod scale;
mod sizes;
mod slow;
mod snapshot;
mod tags;
mod threads;
mod time;
mod tombstones;
mod unindexed;
mod unreadable;
mod updates;
mod wall_clock;
