//! Goal: the device layer does on real block devices and file systems what it promises. Method: the
//! library on loop devices and image files; some tests let the kernel refuse a system call, on a thread
//! of their own.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[macro_use]
#[path = "../support/mod.rs"]
mod support;
mod adaptive;
mod layer;
mod open;
