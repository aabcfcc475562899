//! The pool of threads as an engine.

use super::engine::Engine;
use super::pool::ThreadPool;
use super::request::Request;

impl Engine for ThreadPool {
    fn name(&self) -> &'static str {
        "threads"
    }

    fn submit(&self, request: Request) {
        ThreadPool::take(self, request);
    }

    fn forget_cached(&self, offset: u64, len: usize) {
        ThreadPool::forget_cached(self, offset, len);
    }
}
