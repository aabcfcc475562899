//! What a small hit and a small store cost the allocator. Goal: no allocation for a hit from the RAM
//! tier, one for a store (the copy for the RAM tier). Method: an allocator that counts what
//! the workers of a server in this process ask for.

#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::server::TestServer;

struct Counting;

/// Allocations in the server's workers.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// Counts an allocation if the thread is a worker, by its name.
fn count() {
    let is_worker = IS_WORKER.get() || {
        let mut name = [0u8; 16];
        // SAFETY: the buffer has the 16 bytes that prctl(2) asks for.
        unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        name.starts_with(b"worker-")
    };
    if is_worker {
        IS_WORKER.set(true);
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: everything is the system allocator's doing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(start, layout, len) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const REQUESTS: u64 = 5000;
/// Allocations that are not part of each request: chunks of the log, growing tables.
const OTHERS_MAX: u64 = REQUESTS / 100;

/// Allocations in the workers while a request is made and answered [`REQUESTS`] times.
fn allocations(client: &mut support::memcached::Client, request: &[u8], answer: &[u8]) -> u64 {
    let mut heard = vec![0; answer.len()];
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..REQUESTS {
        client.send(request);
        client.0.read_exact(&mut heard).unwrap();
        assert!(heard == answer);
    }
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

#[test]
fn a_small_hit_allocates_nothing_and_a_small_store_once() {
    let server = TestServer::start();
    // As many keys as leave no part of the index with one word only, which is made anew each time.
    let mut client = server.connect();
    for n in 0..50_000 {
        client.send(format!("set other-{n} 0 0 1 noreply\r\n.\r\n"));
    }
    for len in [1, 400, 3000] {
        let mut client = server.connect();
        let value = "x".repeat(len);
        let set = format!("set key 0 0 {len}\r\n{value}\r\n").into_bytes();
        let hit = format!("VALUE key 0 {len}\r\n{value}\r\nEND\r\n").into_bytes();
        // The first lookup takes the value into the RAM tier; buffers are made.
        allocations(&mut client, &set, b"STORED\r\n");
        allocations(&mut client, b"get key\r\n", &hit);
        let hits = allocations(&mut client, b"get key\r\n", &hit);
        assert!(hits < OTHERS_MAX, "{hits} allocations in {REQUESTS} hits of {len} B");
        let stores = allocations(&mut client, &set, b"STORED\r\n");
        assert!(stores < REQUESTS + OTHERS_MAX, "{stores} allocations in {REQUESTS} stores");
        let counts = server.snapshot().counts;
        assert!(counts.get_misses == 0);
    }
}
