//! What memory the process takes, as the kernel counts it.

use std::fs;

/// Bytes of the process that are in RAM.
pub fn resident_bytes() -> u64 {
    status("VmRSS:")
}

/// The most bytes of the process that were ever in RAM.
pub fn peak_bytes() -> u64 {
    status("VmHWM:")
}

fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
