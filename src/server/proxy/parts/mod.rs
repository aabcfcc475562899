//! Objects that come part by part, and the requests for their parts that are under way: who asks for what, so
//! that each byte is asked for once.

mod choice;
mod object;
mod objects;
mod running;

pub(super) use choice::{GRANULE, block_of};
pub(super) use object::{Next, Parted, Reading};
pub(super) use objects::Objects;
pub(super) use running::{Ending, Running};
