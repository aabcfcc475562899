//! One device as a crash-safe store.
