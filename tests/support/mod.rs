//! What test programs share, one noun a file.
#![allow(dead_code, reason = "each program of tests uses its own part")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a panic is how a test fails")]

#[macro_use]
mod options;

pub mod binary;
pub mod cgroup;
pub mod daemon;
pub mod devices;
pub mod http;
pub mod log;
pub mod machine;
pub mod memcached;
pub mod process;
pub mod seccomp;
pub mod server;
pub mod waiting;
