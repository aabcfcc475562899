//! Giving memory that was freed back to the kernel. Owns nothing.

/// Gives back whole pages that the allocator keeps for reuse, where it can be told to: after much
/// was freed that will not be needed again. May take milliseconds for each 10 MB.
pub fn release_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` has no preconditions; it locks the allocator itself.
    unsafe {
        libc::malloc_trim(0);
    }
}
