//! Following a store in progress: readers that get what has come of its body, and the rest as it comes.
//! Owns what of that is in memory, and how they learn how it ended; the bytes on the device are the store's.
//!
//! The writer's end is a [`leader::Leader`], the reader's a [`Follower`], and between them is a
//! [`feed::Feed`]. What one follower copied out of the writer's memory, or read of the device, is on a
//! [`shelf::Shelf`] for the others that are near. That memory is let go as soon as a store needs it.

mod attach;
mod error;
pub(super) mod feed;
pub(super) mod feeds;
pub(super) mod follower;
pub(super) mod leader;
mod shelf;

pub use error::FollowError;
pub use follower::Follower;
