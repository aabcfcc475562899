//! Goal: the engine completes each request once, with its memory, in threads with a ring and
//! without. Method: requests by hand on a temporary file.

use std::fs::File;
use std::future::poll_fn;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot::Receiver;

use super::*;
use crate::device::request::{Completion, Operation};
use crate::device::{AlignedBuf, Way, WriteSlice};

fn engine(bytes: u64) -> Uring {
    let file = tempfile::tempfile().unwrap();
    file.set_len(bytes).unwrap();
    start(file)
}

fn start(file: File) -> Uring {
    Uring::start(Arc::new(Files::only(file)), 2).unwrap()
}

fn block(byte: u8) -> WriteSlice {
    let mut buf = AlignedBuf::zeroed(512, 512);
    buf.fill(0, &[byte; 512]);
    WriteSlice::whole(Arc::new(buf))
}

fn write_of(slices: Vec<WriteSlice>, offset: u64) -> (Request, Receiver<Completion>) {
    Request::new(offset, Operation::Write { slices, hold: None })
}

fn read_of(len: usize, offset: u64) -> (Request, Receiver<Completion>) {
    let buf = AlignedBuf::unfilled(len, 512);
    Request::new(offset, Operation::Read { buf, filled: 0, way: Way::Main })
}

fn read_bytes(completion: Completion) -> AlignedBuf {
    let Operation::Read { buf, .. } = completion.operation else { panic!("not a read") };
    assert_eq!(completion.result.unwrap(), buf.len());
    buf
}

/// A runtime as a worker has it.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_write_of_many_slices_is_vectored_and_reads_back() {
    let engine = engine(1 << 20);
    let (request, done) = write_of((0..100).map(block).collect(), 1024);
    engine.submit(request);
    assert_eq!(
        done.blocking_recv().unwrap().result.unwrap(),
        64 * 512,
        "as many as one call takes"
    );
    let (request, done) = read_of(64 * 512, 1024);
    engine.submit(request);
    let buf = read_bytes(done.blocking_recv().unwrap());
    for (expected, chunk) in (0u8..).zip(buf.chunks(512)) {
        assert!(chunk.iter().all(|byte| *byte == expected));
    }
    let (request, done) = Request::new(0, Operation::Flush);
    engine.submit(request);
    assert_eq!(done.blocking_recv().unwrap().result.unwrap(), 0);
}

#[test]
fn a_thread_with_a_ring_carries_out_more_requests_than_fit_at_once() {
    let engine = engine(4 << 20);
    let runtime = runtime();
    let ring = engine.thread_ring().unwrap().unwrap();
    runtime.spawn(ring.completions());
    runtime.block_on(async {
        let mut waiting = Vec::new();
        for index in 0..500u16 {
            let (request, done) =
                write_of(vec![block(index.to_le_bytes()[0])], u64::from(index) * 512);
            engine.submit(request);
            waiting.push(done);
        }
        for done in waiting.drain(..) {
            assert_eq!(done.await.unwrap().result.unwrap(), 512);
        }
        for index in 0..500u16 {
            let (request, done) = read_of(512, u64::from(index) * 512);
            engine.submit(request);
            waiting.push(done);
        }
        for (index, done) in (0..500u16).zip(waiting) {
            let buf = read_bytes(done.await.unwrap());
            assert!(buf.iter().all(|byte| *byte == index.to_le_bytes()[0]));
        }
    });
}

/// Runs four tasks that are always ready for `rounds`; one calls `look` in each round. Returns what it
/// saw.
async fn busy_rounds<T: Send + 'static>(
    rounds: usize,
    mut look: impl FnMut(usize) -> T + Send + 'static,
) -> Vec<T> {
    // The ring's task was spawned before; it begins now.
    tokio::task::yield_now().await;
    let again = |cx: &mut Context<'_>| {
        look_soon();
        cx.waker().wake_by_ref();
        Poll::<()>::Pending
    };
    let others: Vec<_> = (0..3).map(|_| tokio::spawn(poll_fn(again))).collect();
    let mut seen = Vec::new();
    let busy = poll_fn(move |cx| {
        seen.push(look(seen.len()));
        let _never = again(cx);
        if seen.len() == rounds { Poll::Ready(std::mem::take(&mut seen)) } else { Poll::Pending }
    });
    let seen = tokio::spawn(busy).await.unwrap();
    others.iter().for_each(tokio::task::JoinHandle::abort);
    seen
}

#[test]
fn a_thread_that_never_rests_submits_in_each_round() {
    let engine = engine(1 << 20);
    let runtime = runtime();
    let ring = engine.thread_ring().unwrap().unwrap();
    runtime.spawn(ring.completions());
    runtime.block_on(async {
        // Rounds of four tasks: fewer than a runtime runs before it looks for events.
        let seen = busy_rounds(12, move |round| {
            if round == 4 {
                let (request, done) = read_of(512, 0);
                engine.submit(request);
                drop(done);
                let (request, done) = write_of(vec![block(1)], 0);
                engine.submit(request);
                drop(done);
            }
            local::waiting()
        })
        .await;
        assert_eq!(seen, [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    });
}

#[test]
fn a_thread_that_never_rests_hears_from_the_device_in_each_round() {
    in_time(|| {
        // A read of an empty pipe lasts until somebody writes. Each ring reads once when it is made.
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&[0]).unwrap();
        let engine = start(File::from(OwnedFd::from(reader)));
        let runtime = runtime();
        writer.write_all(&[0]).unwrap();
        let ring = engine.thread_ring().unwrap().unwrap();
        runtime.spawn(ring.completions());
        runtime.block_on(async move {
            let (request, mut done) = read_of(512, 0);
            engine.submit(request);
            let seen = busy_rounds(12, move |round| {
                if round == 4 {
                    writer.write_all(&[7; 512]).unwrap();
                }
                done.try_recv().is_ok()
            })
            .await;
            let heard = seen.iter().position(|heard| *heard).expect("within twelve rounds");
            assert!((5..=6).contains(&heard), "in round {heard}");
        });
    });
}

#[test]
fn a_request_made_elsewhere_does_not_wait_for_the_thread_with_a_ring() {
    let engine = engine(1 << 20);
    let _ring = engine.thread_ring().unwrap().unwrap();
    // This thread sleeps in `join`; its ring is not driven.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (request, done) = write_of(vec![block(7)], 0);
            engine.submit(request);
            assert_eq!(done.blocking_recv().unwrap().result.unwrap(), 512);
        });
    });
}

#[test]
fn dropping_the_ring_and_the_engine_finishes_what_was_submitted() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let engine = start(file.try_clone().unwrap());
    let ring = engine.thread_ring().unwrap().unwrap();
    let mut waiting = Vec::new();
    for index in 0..300u16 {
        let (request, done) = write_of(vec![block(1)], u64::from(index) * 512);
        engine.submit(request);
        waiting.push(done);
    }
    drop(ring);
    for index in 300..600u16 {
        let (request, done) = write_of(vec![block(2)], u64::from(index) * 512);
        engine.submit(request);
        waiting.push(done);
    }
    drop(engine);
    for mut done in waiting {
        assert_eq!(done.try_recv().unwrap().result.unwrap(), 512);
    }
    let mut bytes = vec![0; 600 * 512];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[..300 * 512].iter().all(|byte| *byte == 1));
    assert!(bytes[300 * 512..].iter().all(|byte| *byte == 2));
}

/// Fails instead of waiting for ever.
fn in_time(work: impl FnOnce() + Send + 'static) {
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        work();
        ended.send(()).unwrap();
    });
    end.recv_timeout(Duration::from_secs(20)).expect("it hangs or panicked");
}

#[test]
fn a_read_that_nobody_waits_for_holds_nothing_up() {
    in_time(|| {
        let engine = engine(1 << 20);
        for _ in 0..100 {
            let (abandoned, waiter) = read_of(512, 0);
            drop(waiter);
            engine.submit(abandoned);
            let (request, done) = write_of(vec![block(1)], 0);
            engine.submit(request);
            assert_eq!(done.blocking_recv().unwrap().result.unwrap(), 512);
        }
        let (abandoned, waiter) = read_of(512, 0);
        drop(waiter);
        engine.submit(abandoned);
        let ring = engine.thread_ring().unwrap().unwrap();
        let (abandoned, waiter) = read_of(512, 0);
        drop(waiter);
        engine.submit(abandoned);
        drop((ring, engine));
    });
}

#[test]
fn a_request_does_not_wait_for_the_end_of_one_before_it() {
    in_time(|| {
        // A read of an empty pipe lasts until somebody writes; a pipe cannot be flushed. The engine
        // reads once when it is made.
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&[0]).unwrap();
        let engine = start(File::from(OwnedFd::from(reader)));
        let (read, read_done) = read_of(512, 0);
        engine.submit(read);
        // The engine's thread has nothing else to do by then.
        std::thread::sleep(Duration::from_millis(50));
        for _ in 0..10 {
            let (flush, flush_done) = Request::new(0, Operation::Flush);
            engine.submit(flush);
            let error = flush_done.blocking_recv().unwrap().result.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        }
        writer.write_all(&[7; 512]).unwrap();
        assert_eq!(read_bytes(read_done.blocking_recv().unwrap())[..], [7; 512]);
    });
}

#[test]
fn a_failed_request_gives_its_errno() {
    let engine = start(File::open("/dev/null").unwrap());
    let (request, done) = write_of(vec![block(1)], 0);
    engine.submit(request);
    let error = done.blocking_recv().unwrap().result.unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
}

#[test]
fn a_full_queue_refuses_instead_of_growing() {
    let engine = engine(1 << 20);
    // The kernel gets nothing from this thread's ring but full batches; nothing completes.
    let ring = engine.thread_ring().unwrap().unwrap();
    let mut waiting = Vec::new();
    let mut refused = 0;
    for _ in 0..17_000 {
        let (request, mut done) = Request::new(0, Operation::Flush);
        engine.submit(request);
        match done.try_recv() {
            Ok(completion) => {
                let error = completion.result.unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
                refused += 1;
            }
            Err(_) => waiting.push(done),
        }
    }
    assert_eq!(waiting.len(), (16 << 10) + 4, "in the queue and at the device");
    assert_eq!(refused, 17_000 - waiting.len());
    drop(ring);
    assert!(waiting.iter_mut().all(|done| done.try_recv().is_ok_and(|it| it.result.is_ok())));
}

/// A ring that reads a pipe, and the pipe's other end.
fn ring_on_a_pipe() -> (Ring, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[0]).unwrap();
    let files = Files::only(File::from(OwnedFd::from(reader)));
    (Ring::new(Arc::new(files)).unwrap(), writer)
}

/// Where the memory of a read is.
fn memory(request: &mut Request) -> usize {
    let Operation::Read { buf, .. } = &mut request.operation else { panic!("not a read") };
    buf.spare(0).addr()
}

#[test]
fn a_lost_ring_gives_its_requests_away_and_keeps_the_memory_that_the_kernel_has() {
    let (mut ring, mut writer) = ring_on_a_pipe();
    let mut finished = Vec::new();
    let (mut seen, mut seen_done) = read_of(512, 0);
    let memory_of_seen = memory(&mut seen);
    assert!(ring.push(seen).is_none());
    ring.turn(ring::Wait::No, &mut finished).unwrap();
    assert!(finished.is_empty(), "the pipe is empty");
    let (mut unseen, _unseen_done) = read_of(512, 512);
    let memory_of_unseen = memory(&mut unseen);
    assert!(ring.push(unseen).is_none());

    let mut requests = ring.give_up();
    assert_eq!(requests.len(), 2);
    assert_ne!(memory(&mut requests[0]), memory_of_seen);
    assert_eq!(memory(&mut requests[1]), memory_of_unseen);
    assert_eq!(ring.in_flight(), 1);
    // Whoever waits hears from the second attempt, and from it alone.
    writer.write_all(&[7; 512]).unwrap();
    ring.turn(ring::Wait::No, &mut finished).unwrap();
    let (mut first, result) = finished.pop().unwrap();
    assert_eq!((memory(&mut first), result.unwrap()), (memory_of_seen, 512));
    assert_eq!(ring.in_flight(), 0);
    first.complete(Ok(512));
    assert!(seen_done.try_recv().is_err());
    requests.swap_remove(0).complete(Ok(0));
    assert_eq!(seen_done.try_recv().unwrap().result.unwrap(), 0);
}

#[test]
fn a_lost_ring_does_not_wait_for_what_never_ends() {
    in_time(|| {
        let (mut ring, writer) = ring_on_a_pipe();
        let (read, _done) = read_of(512, 0);
        assert!(ring.push(read).is_none());
        ring.turn(ring::Wait::No, &mut Vec::new()).unwrap();
        assert_eq!(ring.give_up().len(), 1);
        drop(ring);
        drop(writer);
    });
}

#[test]
fn what_a_lost_ring_had_is_made_by_threads() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let fallback = Fallback::new(Arc::new(Files::only(file)), 2);
    let (write, written) = write_of(vec![block(3)], 512);
    fallback.take_over(vec![write], &io::Error::from_raw_os_error(libc::EPERM));
    assert_eq!(written.blocking_recv().unwrap().result.unwrap(), 512);
    let (read, done) = read_of(512, 512);
    fallback.submit(read);
    assert!(read_bytes(done.blocking_recv().unwrap()).iter().all(|byte| *byte == 3));
    assert_eq!(fallback.lost_rings(), 1);
}
