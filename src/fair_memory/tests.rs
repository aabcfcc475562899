//! Goal: memory is what was sent, never more than the budget, and the slowest give way in their order, as
//! few as are needed. Method: senders on a paused clock.

use std::time::Duration;

use tokio::time::{advance, timeout};

use super::*;

const LEN_MAX: usize = 1 << 20;
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Nobody waits for another look at who is slow.
const AT_ONCE: Duration = Duration::from_millis(1);

fn memory(bytes: u64) -> FairMemory {
    FairMemory::new(bytes, LEN_MAX, WAIT_MAX)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

async fn sender(memory: &FairMemory, len: usize) -> Held {
    let mut held = memory.hold(LEN_MAX);
    held.stage(&vec![1; len]).await.unwrap();
    held
}

/// The numbers of those that gave way.
fn lost(held: &[Held]) -> Vec<usize> {
    let is_lost = |held: &Held| held.share.lock().is_lost;
    held.iter().enumerate().filter(|(_, held)| is_lost(held)).map(|(number, _)| number).collect()
}

/// What is allocated is what is counted.
fn assert_counted(memory: &FairMemory, held: &[Held]) {
    let allocated: usize = held.iter().map(|held| held.share.lock().buffer.capacity()).sum();
    assert_eq!(memory.used(), allocated as u64);
    assert!(memory.used() <= memory.limit());
}

#[tokio::test(start_paused = true)]
async fn memory_is_taken_as_bytes_come_and_given_back() {
    let memory = memory(64 << 20);
    let mut held = [memory.hold(LEN_MAX), memory.hold(100_000)];
    assert_eq!(memory.used(), 0, "nothing for those that have sent nothing");
    for (len, most) in [(1, 256), (300, 1024), (3000, 8192), (40_000, 120_000), (50_000, 200_000)] {
        for held in &mut held {
            held.stage(&vec![7; len]).await.unwrap();
        }
        assert_counted(&memory, &held);
        assert!(memory.used() <= 2 * most, "{} bytes for {len} more", memory.used());
    }
    assert_eq!(held[1].share.lock().buffer.capacity(), 100_000, "no more than comes");
    assert_eq!(held[0].len(), 93_301);
    let [first, second] = held;
    drop(first);
    assert_eq!(memory.used(), 100_000);
    drop(second);
    assert_eq!(memory.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_slowest_give_way_at_once_as_many_as_are_needed() {
    let memory = memory(4 << 20);
    // 3 MiB without the reserve, in 48 shares of 64 KiB with 1 KiB to 48 KiB in them.
    let mut slow = Vec::new();
    for number in 1..=48 {
        let mut held = memory.hold(64 << 10);
        held.stage(&vec![1; 64 << 10]).await.unwrap();
        let mut share = held.share.lock();
        share.buffer.truncate(number * 400);
        drop(share);
        slow.push(held);
    }
    assert_eq!(memory.used(), 48 * (64 << 10));
    advance(secs(60)).await;
    let begun = Instant::now();
    let one = timeout(AT_ONCE, sender(&memory, 10)).await.expect("at once");
    assert_eq!(lost(&slow), [0], "the slowest one and no other");
    let large = timeout(AT_ONCE, sender(&memory, LEN_MAX)).await.expect("at once");
    assert_eq!(lost(&slow), (0..=16).collect::<Vec<_>>(), "as many as a mebibyte takes");
    assert_eq!(begun.elapsed(), Duration::ZERO);
    slow.extend([one, large]);
    assert_counted(&memory, &slow);
}

#[tokio::test(start_paused = true)]
async fn who_gives_way_is_told_at_once() {
    let memory = memory(100_000);
    let mut slow = sender(&memory, 60_000).await;
    let told = tokio::spawn(async move {
        let short = poll_fn(|cx| slow.poll_lost(cx)).await;
        (short, slow.stage(b"more").await, slow.take().err())
    });
    advance(secs(20)).await;
    assert!(!told.is_finished());
    let _honest = sender(&memory, 60_000).await;
    let gave_way = Short::GaveWay;
    assert_eq!(told.await.unwrap(), (gave_way, Err(gave_way), Some(gave_way)));
}

#[tokio::test(start_paused = true)]
async fn a_trickle_is_slow_and_a_waiting_or_stored_buffer_is_not() {
    let memory = memory(300_000);
    let mut trickle = memory.hold(LEN_MAX);
    let (mut stored, mut quick) = (memory.hold(100_000), memory.hold(100_000));
    stored.stage(&vec![1; 100_000]).await.unwrap();
    let taken = stored.take().unwrap();
    for _ in 0..200 {
        trickle.stage(&[1; 200]).await.unwrap();
        advance(Duration::from_millis(100)).await;
    }
    quick.stage(&vec![1; 100_000]).await.unwrap();
    let mut all = [trickle, stored, quick];
    let honest = timeout(AT_ONCE, sender(&memory, 90_000)).await.expect("at once");
    assert_eq!(lost(&all), [0]);
    // The rest is busy or was quick: this one waits for the one that ends.
    let waits = tokio::spawn({
        let memory = memory.clone();
        async move { sender(&memory, 90_000).await }
    });
    tokio::task::yield_now().await;
    advance(Duration::from_millis(150)).await;
    assert!(!waits.is_finished());
    all[1].begin_anew(taken, 100_000);
    timeout(AT_ONCE, waits).await.expect("it ended").unwrap();
    assert_eq!(lost(&all), [0]);
    assert_eq!(lost(&[honest]), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_empty_buffer_is_taken_without_a_loss() {
    let memory = memory(100_000);
    let mut between = sender(&memory, 90_000).await;
    let taken = between.take().unwrap();
    between.begin_anew(taken, LEN_MAX);
    assert!(memory.used() >= 90_000, "kept for the next");
    let other = timeout(AT_ONCE, sender(&memory, 50_000)).await.expect("at once");
    assert!(lost(std::slice::from_ref(&between)).is_empty());
    timeout(AT_ONCE, between.stage(&[1; 10_000])).await.expect("at once").unwrap();
    assert_counted(&memory, &[between, other]);
}

#[tokio::test(start_paused = true)]
async fn nobody_gives_way_within_the_grace_nor_to_one_that_is_slower() {
    let memory = memory(100_000);
    let (mut slow, mut less_slow) = (memory.hold(30_000), memory.hold(60_000));
    slow.stage(&[1; 30_000]).await.unwrap();
    advance(secs(15)).await;
    less_slow.stage(&[1; 60_000]).await.unwrap();
    // Not even the slow one gives way for its own sake.
    let waited = timeout(Duration::from_millis(150), slow.stage(&[1; 30_000])).await;
    assert!(waited.is_err());
    advance(secs(4)).await;
    let waited = timeout(Duration::from_millis(150), slow.stage(&[1; 30_000])).await;
    assert!(waited.is_err(), "the other one is slow too, but not as slow");
    let both = [slow, less_slow];
    assert_eq!(lost(&both), [0; 0]);
    let _honest = timeout(AT_ONCE, sender(&memory, 15_000)).await.expect("at once");
    assert_eq!(lost(&both), [0]);
}

#[tokio::test(start_paused = true)]
async fn the_longer_one_waits_the_less_is_borne_and_nobody_waits_for_ever() {
    let memory = memory(100_000);
    let mut quick = sender(&memory, 90_000).await;
    advance(Duration::from_millis(500)).await;
    quick.stage(&[1; 1000]).await.unwrap();
    let begun = Instant::now();
    let honest = sender(&memory, 50_000).await;
    let waited = begun.elapsed();
    assert!(waited > Duration::from_millis(300) && waited < secs(1), "{waited:?}");
    assert_eq!(lost(&[quick]), [0]);
    let taken = honest.take().unwrap();
    let begun = Instant::now();
    let mut refused = memory.hold(LEN_MAX);
    assert_eq!(refused.stage(&[1; 60_000]).await, Err(Short::UsedUp));
    assert_eq!(begun.elapsed(), WAIT_MAX);
    assert_eq!(refused.stage(&[1; 100_001]).await, Err(Short::UsedUp));
    assert_eq!(begun.elapsed(), WAIT_MAX, "there is never so much");
    drop((honest, taken));
    assert_eq!(memory.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn memory_goes_to_those_that_came_first_and_past_those_that_went() {
    let memory = memory(100_000);
    let busy = sender(&memory, 90_000).await;
    let _taken = busy.take().unwrap();
    let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
    let waiting: Vec<_> = (0..4)
        .map(|number| {
            let (memory, told) = (memory.clone(), told.clone());
            tokio::spawn(async move {
                let held = sender(&memory, 20_000 + number).await;
                told.send(number).unwrap();
                held
            })
        })
        .collect();
    tokio::task::yield_now().await;
    let mut small = Box::pin(sender(&memory, 10));
    assert!(timeout(Duration::from_millis(50), &mut small).await.is_err(), "not past the others");
    waiting[1].abort();
    drop(busy);
    timeout(AT_ONCE, small).await.expect("at once");
    let mut served = Vec::new();
    while let Ok(number) = order.try_recv() {
        served.push(number);
    }
    assert_eq!(served, [0, 2, 3]);
}

/// More senders than there is memory for all have a part before one has all of it.
#[tokio::test(start_paused = true)]
async fn senders_that_all_wait_for_each_other_end_one_after_the_other() {
    for budget in [2 * LEN_MAX, 2 * LEN_MAX + 100_000, 5 * LEN_MAX] {
        let memory = memory(budget as u64);
        let begun = Instant::now();
        let senders = (0..20).map(|number: u8| {
            let memory = memory.clone();
            async move {
                let mut held = memory.hold(LEN_MAX);
                for _ in 0..3 {
                    for _ in 0..64 {
                        held.stage(&[number; LEN_MAX / 64]).await.unwrap();
                        assert!(memory.used() <= memory.limit());
                        tokio::task::yield_now().await;
                    }
                    let buffer = held.take().unwrap();
                    assert!(buffer.len() == LEN_MAX && buffer.iter().all(|byte| *byte == number));
                    tokio::task::yield_now().await;
                    held.begin_anew(buffer, LEN_MAX);
                }
            }
        });
        futures_util::future::join_all(senders).await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "nobody waited in vain");
        assert_eq!(memory.used(), 0);
    }
}

/// The goal of it all: 3900 slow senders, and honest ones beside them.
#[tokio::test(start_paused = true)]
async fn honest_senders_beside_thousands_of_slow_ones_wait_for_nothing() {
    for sent in [1, 20_000, 131_000, 600_000] {
        let memory = memory(128 << 20);
        let (mut slow, mut refused) = (Vec::new(), 0);
        for _ in 0..3900 {
            let mut held = memory.hold(LEN_MAX);
            advance(Duration::from_millis(2)).await;
            refused += usize::from(held.stage(&vec![1; sent]).await.is_err());
            slow.push(held);
        }
        assert_eq!(refused, 0, "they come slowly enough for that");
        advance(secs(3)).await;
        for len in [10, 50_000, 1_000_000, LEN_MAX] {
            let before = lost(&slow).len();
            let begun = Instant::now();
            let honest = sender(&memory, len).await;
            let gave_way = lost(&slow).len() - before;
            assert_eq!(begun.elapsed(), Duration::ZERO);
            let most = len / sent + 2;
            assert!(gave_way <= most, "{gave_way} of {sent} bytes for {len}");
            drop(honest);
        }
        assert_counted(&memory, &slow);
    }
}

/// Slow senders that come back as soon as they had to give way, with more than there is memory for.
#[tokio::test(start_paused = true)]
async fn honest_senders_beside_slow_ones_that_come_again_and_again_wait_for_a_bounded_number() {
    let memory = memory(16 << 20);
    for _ in 0..500 {
        let memory = memory.clone();
        tokio::spawn(async move {
            loop {
                let mut held = memory.hold(100_000);
                for _ in 0..8 {
                    if held.stage(&[1; 7500]).await.is_err() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                poll_fn(|cx| held.poll_lost(cx)).await;
            }
        });
    }
    tokio::time::sleep(secs(5)).await;
    for round in 0..10 {
        for len in [10, 50_000, 1_000_000] {
            let begun = Instant::now();
            let mut held = memory.hold(len);
            for piece in vec![1; len].chunks(16 << 10) {
                held.stage(piece).await.expect("an honest one is not refused");
            }
            println!("round {round}: {len} bytes waited {:?}", begun.elapsed());
            assert!(begun.elapsed() < secs(8));
        }
    }
}

#[cfg(feature = "daemon")]
#[tokio::test(start_paused = true)]
async fn what_is_charged_waits_for_slow_ones_counts_until_it_is_dropped_and_takes_no_buffer() {
    let memory = memory(100_000);
    let mut slow = memory.hold(60_000);
    slow.stage(&[1; 60_000]).await.unwrap();
    let mut charged = memory.hold(50_000);
    let begun = Instant::now();
    charged.charge(50_000).await.unwrap();
    assert!(begun.elapsed() > Duration::ZERO && begun.elapsed() < secs(2));
    let mut all = [slow, charged];
    assert_eq!((memory.used(), lost(&all)), (50_000, vec![0]));
    assert_eq!(all[1].share.lock().buffer.capacity(), 0);
    let mut refused = memory.hold(100_001);
    assert_eq!(refused.charge(100_001).await, Err(Short::UsedUp), "there is never so much");
    // It is at work, however long.
    let begun = Instant::now();
    assert_eq!(refused.charge(50_001).await, Err(Short::UsedUp));
    assert_eq!(begun.elapsed(), WAIT_MAX);
    refused.charge(50_000).await.unwrap();
    assert_eq!(memory.used(), 100_000);
    drop(refused);
    assert_eq!(memory.used(), 50_000);
    // The one with the most to keep will be done first.
    let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
    let waiting = [60_000, 70_000].map(|bytes| {
        let (memory, told) = (memory.clone(), told.clone());
        tokio::spawn(async move {
            let mut held = memory.hold(bytes);
            held.charge(bytes).await.unwrap();
            told.send(bytes).unwrap();
        })
    });
    tokio::task::yield_now().await;
    all[1] = memory.hold(0);
    for waiting in waiting {
        waiting.await.unwrap();
    }
    assert_eq!((order.recv().await, order.recv().await), (Some(70_000), Some(60_000)));
    assert_eq!(memory.used(), 0);
}

#[cfg(feature = "daemon")]
#[tokio::test(start_paused = true)]
async fn what_is_charged_gives_way_only_while_its_sender_is_slow() {
    let memory = memory(100_000);
    let mut charged = memory.hold(50_000);
    charged.charge(50_000).await.unwrap();
    let all = [charged];
    let other = |len| timeout(AT_ONCE, sender(&memory, len));
    // Its sender is quick: 100 KB a second.
    for _ in 0..300 {
        all[0].await_sender();
        advance(Duration::from_millis(100)).await;
        all[0].sent(12_000).unwrap();
        advance(secs(1)).await;
    }
    all[0].await_sender();
    advance(Duration::from_millis(500)).await;
    assert!(other(60_000).await.is_err());
    assert_eq!(lost(&all), [0; 0]);
    // A trickle is not.
    for _ in 0..300 {
        advance(secs(1)).await;
        all[0].sent(1).unwrap();
        all[0].await_sender();
    }
    other(60_000).await.expect("at once");
    assert_eq!(lost(&all), [0]);
    assert_eq!(poll_fn(|cx| all[0].poll_lost(cx)).await, Short::GaveWay);
}

#[cfg(feature = "daemon")]
#[tokio::test(start_paused = true)]
async fn a_long_buffer_that_is_read_into_grows_while_there_is_plenty() {
    let memory = memory(2 << 20);
    let mut source = &[1; 400_000][..];
    let mut read = async |held: &mut Held| {
        let read = poll_fn(|cx| held.poll_read(cx, &mut source, usize::MAX)).await;
        read.unwrap().unwrap()
    };
    let mut short = memory.hold(LEN_MAX);
    assert_eq!(read(&mut short).await, None, "nothing for who has sent nothing");
    short.stage(&[1; 1024]).await.unwrap();
    assert_eq!(read(&mut short).await, None);
    let mut long = memory.hold(200_000);
    long.stage(&[1; 16 << 10]).await.unwrap();
    assert_eq!(read(&mut long).await, Some(64 << 10));
    let reads = [read(&mut long).await, read(&mut long).await];
    assert_eq!((reads, long.len()), ([Some(80 << 10), Some(200_000 - (160 << 10))], 200_000));
    assert_eq!(read(&mut long).await, None, "no more than comes");
    assert_counted(&memory, &[short, long]);
    let mut full = memory.hold(LEN_MAX);
    full.stage(&[1; 600_000]).await.unwrap();
    let mut late = memory.hold(LEN_MAX);
    late.stage(&[1; 16 << 10]).await.unwrap();
    assert_eq!(read(&mut late).await, None, "an eighth of what is free is less");
    drop(full);
    let _has_reserve = sender(&memory, LEN_MAX).await;
    let mut waits = Box::pin(sender(&memory, LEN_MAX));
    assert!(timeout(AT_ONCE, &mut waits).await.is_err());
    assert_eq!(read(&mut late).await, None, "others wait");
    drop(waits);
    assert_eq!(read(&mut late).await, Some(64 << 10));
}

#[cfg(feature = "daemon")]
#[tokio::test(start_paused = true)]
async fn what_is_charged_is_not_taken_at_the_moment_that_it_is_given() {
    let memory = memory(100_000);
    let mut charged = memory.hold(50_000);
    // The first half of `charge`, after which the share is not locked for a moment.
    poll_fn(|cx| charged.poll_room(cx, Need::Elsewhere(50_000))).await.unwrap();
    let other = timeout(AT_ONCE, sender(&memory, 60_000)).await;
    assert!(other.is_err(), "there is no memory for it: {} of {}", memory.used(), memory.limit());
    assert_eq!(charged.share.lock().held, 50_000);
}
