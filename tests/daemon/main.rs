//! Goal: the daemon keeps its promises to clients, operators and proxies on a real kernel. Method: the
//! built binary on loop devices and image files.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bad_devices;
mod bad_input;
mod crowds;
mod faults;
mod http_interop;
mod io_uring;
#[path = "../support/long_body.rs"]
mod long_body;
mod main_thread;
mod nginx;
mod oracles;
mod proxies;
mod replay;
mod standing_readers;
#[path = "../support/mod.rs"]
mod support;
mod video;
