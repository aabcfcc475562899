//! Memory for values and long lines that arrive in pieces: one budget for all connections, so that
//! many slow clients cannot fill the memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The budget, in bytes.
#[derive(Debug)]
pub(in crate::server) struct InputBudget {
    free_len: AtomicU64,
}

/// A part of the budget; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Share {
    input_budget: Arc<InputBudget>,
    len: u64,
}

impl InputBudget {
    /// A budget of `len` bytes.
    pub(in crate::server) fn new(len: u64) -> InputBudget {
        InputBudget { free_len: AtomicU64::new(len) }
    }

    /// Takes `len` bytes of the budget, if that much is free.
    pub(super) fn take(self: &Arc<InputBudget>, len: u64) -> Option<Share> {
        self.free_len
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(len))
            .ok()
            .map(|_| Share { input_budget: self.clone(), len })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.input_budget.free_len.fetch_add(self.len, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_exceed_the_budget_and_come_back() {
        let input_budget = Arc::new(InputBudget::new(10));
        let first = input_budget.take(7);
        assert!(first.is_some());
        assert!(input_budget.take(4).is_none());
        assert!(input_budget.take(3).is_some());
        drop(first);
        assert!(input_budget.take(10).is_some());
    }
}
