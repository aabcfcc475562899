//! The memory allocator of the binary, and how much freed memory it keeps.
//!
//! jemalloc with huge pages (`.cargo/config.toml`), because the C library uses them only for single
//! blocks of megabytes. Its own purging is off: it goes by age and takes parts of huge pages, which
//! come back as small pages, or cleared whole, while the RAM tier is churning. Freed memory is kept
//! for reuse; all of it is returned at once when it exceeds a share of the memory in use, as after a
//! start or a burst of large transfers.
#![allow(unsafe_code, reason = "the allocator is asked and told by a C function")]

use std::ffi::{CStr, c_int};
use std::ptr;
use std::thread;
use std::time::Duration;

use tikv_jemalloc_sys::mallctl;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// From so many bytes in use on one freed byte is kept per [`KEPT_ONE_IN`] of them.
const LARGE: usize = 1 << 30;
const KEPT_ONE_IN: usize = 4;
/// The same below that, where what is kept would be much of what a small `memory.max` leaves.
const KEPT_ONE_IN_SMALL: usize = 16;

/// Starts a thread that bounds the freed memory that is kept. Without it all is kept.
pub fn bound_freed_memory() {
    let look = || {
        while let Ok((freed, used)) = freed_and_used() {
            let kept_one_in = if used < LARGE { KEPT_ONE_IN_SMALL } else { KEPT_ONE_IN };
            if freed > used / kept_one_in && give_back().is_err() {
                return;
            }
            thread::sleep(LOOK_INTERVAL);
        }
    };
    // The daemon works without this thread.
    let _ = thread::Builder::new().name("allocator".to_owned()).spawn(look);
}

/// Bytes in freed pages that are kept, and bytes in pages in use.
fn freed_and_used() -> Result<(usize, usize), c_int> {
    refresh()?;
    let used = number(c"stats.active")?;
    let own = number(c"stats.metadata")?;
    Ok((number(c"stats.resident")?.saturating_sub(used + own), used))
}

/// Brings the statistics up to date.
fn refresh() -> Result<(), c_int> {
    let mut epoch = 1_u64;
    // SAFETY: `epoch` takes a u64, which is read from the address and length given here.
    let failed = unsafe {
        mallctl(c"epoch".as_ptr(), ptr::null_mut(), ptr::null_mut(), (&raw mut epoch).cast(), 8)
    };
    if failed == 0 { Ok(()) } else { Err(failed) }
}

fn number(name: &CStr) -> Result<usize, c_int> {
    let (mut number, mut len) = (0_usize, size_of::<usize>());
    // SAFETY: a number of `len` bytes is written to the address given here, or the call fails.
    let failed = unsafe {
        mallctl(name.as_ptr(), (&raw mut number).cast(), &raw mut len, ptr::null_mut(), 0)
    };
    if failed == 0 { Ok(number) } else { Err(failed) }
}

/// Gives the freed pages of all arenas back to the kernel.
fn give_back() -> Result<(), c_int> {
    // 4096 is MALLCTL_ARENAS_ALL.
    let name = c"arena.4096.purge";
    // SAFETY: it neither reads nor writes through the pointers, which are null.
    let failed =
        unsafe { mallctl(name.as_ptr(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), 0) };
    if failed == 0 { Ok(()) } else { Err(failed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_memory_is_counted_and_given_back() {
        let blocks: Vec<Vec<u8>> = (0..256).map(|_| vec![1; 1 << 20]).collect();
        let (_, used) = freed_and_used().unwrap();
        assert!(used >= 256 << 20, "{used} B in use");
        drop(blocks);
        let (freed, _) = freed_and_used().unwrap();
        assert!(freed >= 250 << 20, "{freed} B kept: nothing goes by itself");
        give_back().unwrap();
        let (freed, _) = freed_and_used().unwrap();
        assert!(freed < 8 << 20, "{freed} B kept still");
    }
}
