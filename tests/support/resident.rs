//! The memory of the test's own process, as the kernel counts it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

/// The most memory that this process had, in bytes.
pub fn resident_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}
