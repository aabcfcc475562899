//! Whether memory comes in huge pages. The kernel counts a huge page in full as long as a part of it is in
//! use: freed memory of the allocator, which comes and goes in smaller parts, stays in the account of the
//! memory cgroup, and what is touched again is taken in whole.

/// Bytes of `memory.max` from which on huge pages are used. Below, what they hold beyond what is used may
/// be as much as the cgroup has above the budget, and lookups need few pages anyhow.
const BUDGET_MIN: u64 = 1 << 30;

/// Turns huge pages off for this process if `budget` is a small one.
pub fn fit(budget: u64) {
    if budget < BUDGET_MIN
        && let Err(error) = nix::sys::prctl::set_thp_disable(true)
    {
        tracing::warn!(%error, "huge pages cannot be turned off: memory may exceed memory.max");
    }
}
