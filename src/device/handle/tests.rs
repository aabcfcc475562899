//! Goal: the handle neither loses, invents nor misplaces a byte, whatever the range and
//! whatever the device does. Method: a simulated device against a plain byte array.

#![allow(clippy::cast_possible_truncation, reason = "the devices are small and the bytes made up")]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::device::{Delay, Effect, Fault, SimDevice};

const ALIGNMENTS: [u32; 6] = [512, 1024, 2048, 4096, 8192, 65536];

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(future)
}

fn filled(device: &Device, len: usize, byte: u8) -> Arc<AlignedBuf> {
    let mut buf = device.geometry().zeroed_buffer(len);
    buf.fill(0, &vec![byte; len]);
    Arc::new(buf)
}

/// A device whose byte at `i` is a hash of `i`, and those bytes.
fn patterned(size: u64, alignment: u32) -> (SimDevice, Vec<u8>) {
    let sim = SimDevice::new(size, alignment);
    let bytes: Vec<u8> = (0..size).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 13) as u8).collect();
    sim.overwrite(0, &bytes);
    (sim, bytes)
}

fn alignment_and_range() -> impl Strategy<Value = (u32, u64, u64, u8)> {
    // Start and end in blocks of a five-block device, then nudged off the boundaries.
    (0..ALIGNMENTS.len(), 0u64..=10, 0u64..=10, -3i64..=3, -3i64..=3, any::<u8>()).prop_map(
        |(index, a, b, nudge_a, nudge_b, fill)| {
            let half = u64::from(ALIGNMENTS[index]) / 2;
            let size = half * 10;
            let a = (a * half).saturating_add_signed(nudge_a).min(size);
            let b = (b * half).saturating_add_signed(nudge_b).min(size);
            (ALIGNMENTS[index], a.min(b), a.max(b), fill)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn modify_changes_exactly_its_range((alignment, start, end, fill) in alignment_and_range()) {
        let (sim, mut expected) = patterned(u64::from(alignment) * 5, alignment);
        let device = sim.open();
        let before = expected[start as usize..end as usize].to_vec();
        let written = run(device.modify(start..end, |bytes| {
            assert_eq!(bytes, &before[..]);
            bytes.fill(fill);
            true
        }));
        prop_assert!(written.unwrap());
        expected[start as usize..end as usize].fill(fill);
        prop_assert!(sim.contents(0..u64::from(alignment) * 5) == expected);
        let blocks = device.geometry().blocks_around(&(start..end));
        let touched = if start == end { 0 } else { blocks.end - blocks.start };
        prop_assert_eq!(device.stats().bytes_written, touched);
        prop_assert_eq!(device.inner.locks.entries(), 0);
    }

    #[test]
    fn exact_reads_give_the_range_and_read_no_more_than_its_blocks(
        (alignment, start, end, _) in alignment_and_range()
    ) {
        let (sim, expected) = patterned(u64::from(alignment) * 5, alignment);
        let device = sim.open();
        let bytes = run(device.read_exact(start..end)).unwrap();
        prop_assert_eq!(&bytes[..], &expected[start as usize..end as usize]);
        let blocks = device.geometry().blocks_around(&(start..end));
        let touched = if start == end { 0 } else { blocks.end - blocks.start };
        prop_assert_eq!(sim.counts().bytes_read, touched);
    }

    #[test]
    fn short_and_interrupted_transfers_are_continued_to_the_last_byte(
        index in 0..ALIGNMENTS.len(),
        shorts in proptest::collection::vec((0u64..12, 1usize..200_000, any::<bool>()), 0..12),
    ) {
        let alignment = ALIGNMENTS[index];
        let sim = SimDevice::new(u64::from(alignment) * 8, alignment);
        let device = sim.open();
        for (after, len, interrupt) in shorts {
            let effect = if interrupt { Effect::Fail(libc::EINTR) } else { Effect::Short(len) };
            sim.inject(Fault::new(effect).after(after));
        }
        let block = alignment as usize;
        run(async {
            let slices = (1..=6)
                .map(|byte| WriteSlice::whole(filled(&device, block, byte)))
                .collect();
            device.write(u64::from(alignment), slices).await.unwrap();
            device.flush().await.unwrap();
            let buf = device.geometry().read_buffer(block * 8);
            let read = device.read(0, buf).await.unwrap();
            for (index, chunk) in read.chunks(block).enumerate() {
                let expected = if index == 7 { 0 } else { index as u8 };
                assert!(chunk.iter().all(|byte| *byte == expected), "block {index}");
            }
        });
    }
}

/// Where each of 64 writers writes in two blocks: 16 across their boundary, 16 in the second
/// alone, the rest in the first alone.
fn place_of(writer: u64, alignment: u64) -> Range<u64> {
    match writer % 4 {
        0 => alignment - 1..alignment + 1 + writer / 4,
        1 => alignment + 32 + writer * 7..alignment + 39 + writer * 7,
        _ => writer * 7..writer * 7 + 7,
    }
}

#[test]
fn sixty_four_writers_in_one_block_lose_nothing() {
    for alignment in ALIGNMENTS {
        let size = u64::from(alignment) * 2;
        let sim = SimDevice::new(size, alignment);
        let device = sim.open();
        sim.set_delay(Delay::Sleep(Duration::from_millis(5)));
        let add = |bytes: &mut [u8], writer: u64| {
            bytes.iter_mut().for_each(|byte| *byte = byte.wrapping_add(writer as u8));
        };
        run(async {
            let mut tasks = Vec::new();
            for writer in 0..64 {
                let device = device.clone();
                tasks.push(tokio::spawn(async move {
                    let change = |bytes: &mut [u8]| {
                        add(bytes, writer);
                        true
                    };
                    device.modify(place_of(writer, u64::from(alignment)), change).await
                }));
            }
            for task in tasks {
                assert!(task.await.unwrap().unwrap());
            }
        });
        let mut expected = vec![0u8; size as usize];
        for writer in 0..64 {
            let place = place_of(writer, u64::from(alignment));
            add(&mut expected[place.start as usize..place.end as usize], writer);
        }
        assert!(sim.contents(0..size) == expected, "alignment {alignment}");
        assert_eq!(device.stats().read_modify_writes, 64);
        assert_eq!(device.stats().continued, 0);
        assert_eq!(device.inner.locks.entries(), 0);
    }
}

#[test]
fn a_cancelled_modify_keeps_its_block_until_its_write_is_over() {
    let sim = SimDevice::new(8192, 4096);
    let device = sim.open();
    run(async {
        // Reads take no time, so the first poll after the delay is set sits in the write.
        let cancelled = async {
            let set_then_write = |bytes: &mut [u8]| {
                bytes.fill(1);
                sim.set_delay(Delay::Sleep(Duration::from_secs(3600)));
                true
            };
            device.modify(0..8, set_then_write).await
        };
        assert!(tokio::time::timeout(Duration::from_millis(1), cancelled).await.is_err());
        sim.set_delay(Delay::None);
        let second = |bytes: &mut [u8]| {
            bytes.fill(2);
            true
        };
        device.modify(8..16, second).await.unwrap();
    });
    assert_eq!(sim.contents(0..16), [[1; 8], [2; 8]].concat());
    assert_eq!(device.inner.locks.entries(), 0);
}

#[test]
fn a_failed_read_is_an_error_and_nothing_is_written() {
    let (sim, expected) = patterned(8192, 4096);
    let device = sim.open();
    for errno in [libc::EIO, libc::ENOSPC] {
        sim.inject(Fault::new(Effect::Fail(errno)).on(OperationKind::Read));
        let result = run(device.modify(1..9, |_| unreachable!("the read failed")));
        assert_eq!(result.unwrap_err().source.raw_os_error(), Some(errno));
    }
    assert_eq!(sim.counts().writes, 0);
    assert_eq!(sim.contents(0..8192), expected);
    assert_eq!(device.stats().read_errors, 2);
    sim.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read));
    assert!(run(device.read_exact(3..5)).is_err());
}

#[test]
fn a_failed_write_or_flush_is_reported_with_its_cause() {
    let sim = SimDevice::new(1 << 22, 512);
    let device = sim.open();
    let buf = filled(&device, 3 << 20, 9);
    for errno in [libc::EIO, libc::ENOSPC] {
        // The second of three pieces.
        sim.inject(Fault::new(Effect::Fail(errno)).on(OperationKind::Write).after(1));
        let result = run(device.write(512, vec![WriteSlice::whole(Arc::clone(&buf))]));
        let error = result.unwrap_err();
        assert_eq!(error.source.raw_os_error(), Some(errno));
        assert_eq!((error.operation, error.offset, error.len), ("write", 512, 3 << 20));
        sim.inject(Fault::new(Effect::Fail(errno)).on(OperationKind::Flush));
        assert_eq!(run(device.flush()).unwrap_err().source.raw_os_error(), Some(errno));
    }
    let stats = device.stats();
    assert_eq!((stats.write_errors, stats.flush_errors, stats.in_flight), (2, 2, 0));
}

#[test]
fn endless_interruptions_and_empty_transfers_end_in_an_error() {
    let sim = SimDevice::new(8192, 4096);
    let device = sim.open();
    for effect in [Effect::Fail(libc::EINTR), Effect::Short(0), Effect::Short(100)] {
        sim.inject(Fault::new(effect).always());
        assert!(run(device.read_exact(0..4096)).is_err());
        let slices = vec![WriteSlice::whole(filled(&device, 4096, 1))];
        assert!(run(device.write(0, slices)).is_err());
        sim.clear_faults();
    }
}

#[test]
fn continued_transfers_are_counted() {
    let sim = SimDevice::new(8192, 512);
    let device = sim.open();
    sim.inject(Fault::new(Effect::Short(1024)).on(OperationKind::Read));
    sim.inject(Fault::new(Effect::Fail(libc::EINTR)).on(OperationKind::Read).after(1));
    assert_eq!(run(device.read_exact(0..8192)).unwrap().len(), 8192);
    let stats = device.stats();
    assert_eq!((stats.reads, stats.continued, stats.bytes_read), (3, 2, 8192));
    assert_eq!(stats.read_errors, 0);
}

#[test]
fn ranges_past_the_end_are_errors_before_any_transfer() {
    let sim = SimDevice::new(8192, 4096);
    let device = sim.open();
    assert!(run(device.read_exact(8191..8193)).is_err());
    assert!(run(device.read_exact(0..u64::MAX)).is_err());
    assert!(run(device.read_exact(u64::MAX - 1..u64::MAX)).is_err());
    assert!(run(device.modify(8192..8193, |_| true)).is_err());
    assert!(run(device.read(8192, device.geometry().read_buffer(4096))).is_err());
    let slices = vec![WriteSlice::whole(filled(&device, 8192, 1))];
    assert!(run(device.write(4096, slices)).is_err());
    assert_eq!((sim.counts().reads, sim.counts().writes), (0, 0));
}

#[test]
fn large_writes_go_out_in_pieces_of_at_most_a_mebibyte() {
    let sim = SimDevice::new(8 << 20, 4096);
    let device = sim.open();
    let slices = vec![
        WriteSlice::whole(filled(&device, 4096, 1)),
        WriteSlice::whole(filled(&device, 5 << 20, 2)),
    ];
    run(device.write(4096, slices)).unwrap();
    assert_eq!(sim.counts().writes, 6);
    let contents = sim.contents(0..8 << 20);
    assert!(contents[4096..8192].iter().all(|byte| *byte == 1));
    assert!(contents[8192..8192 + (5 << 20)].iter().all(|byte| *byte == 2));
    assert!(contents[8192 + (5 << 20)..].iter().all(|byte| *byte == 0));
}

#[test]
#[should_panic(expected = "is not aligned")]
fn an_unaligned_offset_is_a_bug() {
    let device = SimDevice::new(8192, 4096).open();
    let _never = run(device.read(512, device.geometry().read_buffer(4096)));
}

#[test]
#[should_panic(expected = "is not aligned")]
fn an_unaligned_length_is_a_bug() {
    let device = SimDevice::new(8192, 4096).open();
    let _never = run(device.write(0, vec![WriteSlice::whole(filled(&device, 512, 0))]));
}

#[test]
#[should_panic(expected = "is not aligned")]
fn an_unaligned_address_is_a_bug() {
    let device = SimDevice::new(8192, 4096).open();
    let slice = WriteSlice { buf: filled(&device, 8192, 0), range: 512..4608 };
    let _never = run(device.write(0, vec![slice]));
}

/// Of operations that may take so long none ends within a second, as a rule.
const LONG: Duration = Duration::from_secs(100_000);

#[test]
fn a_read_that_lasts_too_long_is_an_error_and_keeps_its_memory_until_it_is_over() {
    let sim = SimDevice::new(8192, 4096);
    sim.set_read_deadline(Duration::from_secs(1));
    let device = sim.open();
    let buf = || device.geometry().read_buffer(4096);
    run(async {
        sim.set_delay(Delay::Sleep(LONG));
        let began = Instant::now();
        let error = device.read_in_time(0, buf()).await.unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 1);
        let stats = device.stats();
        assert_eq!((stats.overdue_reads, stats.overdue_now, stats.read_errors), (1, 1, 1));
        // Who is patient gets what it asked for.
        device.read(0, buf()).await.unwrap();
        assert!(began.elapsed() > Duration::from_secs(2));
        tokio::time::sleep(LONG).await;
        let stats = device.stats();
        assert_eq!((stats.overdue_reads, stats.overdue_now, stats.in_flight), (1, 0, 0));
    });
}

#[test]
fn many_overdue_reads_make_others_fail_at_once_until_they_are_over() {
    let sim = SimDevice::new(8192, 4096);
    sim.set_read_deadline(Duration::from_secs(1));
    let device = sim.open();
    run(async {
        sim.set_delay(Delay::Sleep(LONG));
        let began = Instant::now();
        let reads: Vec<_> = (0..128)
            .map(|_| {
                let device = device.clone();
                tokio::spawn(async move {
                    let buf = device.geometry().read_buffer(4096);
                    device.read_in_time(0, buf).await.map(drop)
                })
            })
            .collect();
        for read in reads {
            assert!(!device.is_stuck() || began.elapsed().as_secs() == 1);
            read.await.unwrap().unwrap_err();
        }
        assert!(device.is_stuck());
        for _ in 0..3 {
            device.read_in_time(0, device.geometry().read_buffer(4096)).await.unwrap_err();
        }
        assert_eq!((began.elapsed().as_secs(), sim.counts().reads), (1, 128), "none was made");
        assert_eq!((device.stats().overdue_reads, device.stats().refused_reads), (128, 3));
        sim.set_delay(Delay::None);
        tokio::time::sleep(LONG).await;
        assert!(!device.is_stuck());
        device.read_in_time(0, device.geometry().read_buffer(4096)).await.unwrap();
    });
}

#[test]
fn a_device_that_answered_late_and_is_asked_nothing_since_is_not_silent() {
    let sim = SimDevice::new(8192, 4096);
    sim.set_read_deadline(Duration::from_secs(1));
    let device = sim.open();
    run(async {
        sim.set_delay(Delay::Sleep(LONG));
        device.read_in_time(0, device.geometry().read_buffer(4096)).await.unwrap_err();
        sim.set_delay(Delay::None);
        assert!(!device.is_degraded());
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert!(device.is_degraded(), "nothing was answered for half a minute");
        tokio::time::sleep(LONG).await;
        assert!(!device.is_degraded(), "it was answered since");
    });
}
