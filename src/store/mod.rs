//! One device as a crash-safe store.
mod index;
mod word;
