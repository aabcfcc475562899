//! Goal: the device layer does on real block devices and file systems what it promises. Method: the
//! library on loop devices and image files; some tests let the kernel refuse a system call, on a thread
//! of their own.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod adaptive;
mod layer;
mod open;
#[path = "../support/mod.rs"]
mod support;
