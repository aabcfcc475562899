//! Giving memory that was freed back to the kernel. Owns nothing.

/// Gives back whole pages that the allocator keeps for reuse, if it can be told to. Called after
/// freeing much memory that is not needed again. May take milliseconds for each 10 MB.
pub fn release_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` has no preconditions; it locks the allocator itself.
    unsafe {
        libc::malloc_trim(0);
    }
}
