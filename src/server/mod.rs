//! Listeners and the protocols spoken on them.

pub mod admin;
