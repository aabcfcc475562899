//! Goal: a read-through listener is a shared cache that neither lies nor lets clients reach each other.
//! Method: bytes of strict clients, and a strict origin that keeps what it is asked.
#![allow(dead_code, reason = "the tests of the listener use all of it")]

mod cases;
pub mod client;
pub mod origin;
mod own;
pub mod reply;
pub mod rig;
mod verdict;
mod wire;
