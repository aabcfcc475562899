//! Goal: the device layer does on real block devices and file systems what it promises.
//! Method: loop devices of every sector size, images on the usual file systems, and a byte
//! array to compare with.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::support::devices::{LoopDevice, MountedImage, filled, is_open_direct, reopen};
use crate::support::log::warnings_of;
use crate::support::machine::{command, require};
use rawcached::device::{
    Device, DeviceKind, EngineKind, IoMode, OpenError, OpenOptions, ThreadRing, WriteSlice,
    create_image, probe,
};

const MIB: u64 = 1 << 20;
const ALIGNMENTS: [u32; 6] = [512, 1024, 2048, 4096, 8192, 65536];
const ENGINES: [(EngineKind, &str); 2] =
    [(EngineKind::IoUring, "io_uring"), (EngineKind::Threads, "threads")];

/// Writes, modifies and reads `device` in every aligned and unaligned way; gives what it must
/// hold in the end.
async fn exercise(device: &Device) -> Vec<u8> {
    let geometry = device.geometry();
    let block = u64::from(geometry.alignment);
    let size = geometry.size;
    let mut model = vec![0u8; usize::try_from(size).unwrap()];
    let place =
        |start: u64, end: u64| usize::try_from(start).unwrap()..usize::try_from(end).unwrap();

    // More slices than one system call takes, and more bytes than one piece.
    let slices: Vec<_> = (0..80u8)
        .map(|byte| WriteSlice::whole(filled(device, geometry.alignment as usize, byte)))
        .collect();
    device.write(block, slices).await.unwrap();
    for byte in 0..80u8 {
        let start = block * (u64::from(byte) + 1);
        model[place(start, start + block)].fill(byte);
    }
    let large = filled(device, 3 << 20, 0xAB);
    device.write(size - 4 * MIB, vec![WriteSlice::whole(large)]).await.unwrap();
    model[place(size - 4 * MIB, size - MIB)].fill(0xAB);

    let ranges = [
        (3, 10),
        (block - 1, block + 1),
        (block / 2, block * 3 + 7),
        (block * 5, block * 6),
        (size - 4 * MIB - 1, size - 4 * MIB + 1),
        (size - 1, size),
        (size - block - 3, size),
    ];
    for (fill, (start, end)) in (100u8..).zip(ranges) {
        let expected = model[place(start, end)].to_vec();
        let change = |bytes: &mut [u8]| {
            assert_eq!(bytes, &expected[..]);
            bytes.fill(fill);
            true
        };
        assert!(device.modify(start..end, change).await.unwrap());
        model[place(start, end)].fill(fill);
    }

    let mut writers = Vec::new();
    for writer in 0..64u8 {
        let device = device.clone();
        let start = block * 9 + u64::from(writer) * 8;
        writers.push(tokio::spawn(async move {
            let change = move |bytes: &mut [u8]| {
                bytes.fill(writer);
                true
            };
            device.modify(start..start + 8, change).await
        }));
    }
    for (writer, task) in (0u8..).zip(writers) {
        task.await.unwrap().unwrap();
        let start = block * 9 + u64::from(writer) * 8;
        model[place(start, start + 8)].fill(writer);
    }
    device.flush().await.unwrap();

    for (start, end) in ranges {
        let bytes = device.read_exact(start..end).await.unwrap();
        assert_eq!(bytes[..], model[place(start, end)]);
    }
    assert!(device.read_exact(0..size).await.unwrap()[..] == model[..]);
    assert!(device.read_exact(size - 1..size + 1).await.is_err());
    let stats = device.stats();
    assert_eq!((stats.in_flight, stats.write_errors, stats.read_errors), (0, 0, 1));
    assert_eq!(stats.read_modify_writes, 7 + 64);
    model
}

async fn exercise_loop_device(sector_size: u32) {
    for (engine, name) in ENGINES {
        exercise_loop_device_by(engine, name, sector_size).await;
    }
}

async fn exercise_loop_device_by(engine: EngineKind, name: &str, sector_size: u32) {
    let Some(disk) = require(LoopDevice::create(16 * MIB, sector_size)) else { return };
    let options = options!(OpenOptions { engine, ..OpenOptions::new(disk.path()) });
    let device = Device::open(&options).unwrap();
    let info = device.info().clone();
    assert_eq!((info.kind, info.engine, info.direct), (DeviceKind::Block, name, true));
    assert!(info.memory_alignment <= info.alignment);
    assert_eq!((info.alignment, info.size), (sector_size, 16 * MIB));
    assert!(is_open_direct(disk.path()));
    let model = exercise(&device).await;
    device.check_write(0).await.unwrap();
    drop(device);
    assert!(fs::read(disk.backing()).unwrap() == model, "what was flushed is behind the device");
    let again = reopen(disk.path());
    assert!(again.read_exact(0..16 * MIB).await.unwrap()[..] == model[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_device_with_512_byte_sectors_works() {
    exercise_loop_device(512).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_device_with_4096_byte_sectors_works() {
    exercise_loop_device(4096).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_device_with_8192_byte_sectors_works() {
    exercise_loop_device(8192).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_device_with_65536_byte_sectors_works() {
    exercise_loop_device(65536).await;
}

/// A device with a ring of this thread's own, and the runtime that drives it.
fn open_with_ring(path: &Path) -> (tokio::runtime::Runtime, ThreadRing, Device) {
    let options = options!(OpenOptions { engine: EngineKind::IoUring, ..OpenOptions::new(path) });
    let device = Device::open(&options).unwrap();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    let ring = device.thread_ring().unwrap().unwrap();
    runtime.spawn(ring.completions());
    (runtime, ring, device)
}

#[test]
fn a_thread_with_its_own_ring_reads_and_writes_the_same() {
    let Some(disk) = require(LoopDevice::create(16 * MIB, 512)) else { return };
    let (runtime, ring, device) = open_with_ring(disk.path());
    let model = runtime.block_on(exercise(&device));
    drop((runtime, ring, device));
    assert!(fs::read(disk.backing()).unwrap() == model);
    // Rings, too, let go of the device at once.
    for _ in 0..50 {
        let device = reopen(disk.path());
        assert_eq!(device.info().engine, "io_uring");
        drop(device.thread_ring().unwrap());
    }
}

#[test]
fn a_ring_has_many_reads_at_the_device_at_once() {
    let Some(disk) = require(LoopDevice::create(16 * MIB, 512)) else { return };
    let (runtime, ring, device) = open_with_ring(disk.path());
    let before = busy_and_waited_ms(disk.path());
    runtime.block_on(async {
        let readers: Vec<_> = (0..64)
            .map(|reader| {
                let device = device.clone();
                tokio::spawn(async move {
                    for turn in 0..200 {
                        let start = (reader * 200 + turn) % 255 * 65536;
                        device.read_exact(start..start + 65536).await.unwrap();
                    }
                })
            })
            .collect();
        for reader in readers {
            reader.await.unwrap();
        }
    });
    let after = busy_and_waited_ms(disk.path());
    drop((runtime, ring));
    let depth = (after.1 - before.1) / (after.0 - before.0);
    assert!(depth > 2.0, "a mean of {depth} requests at the device");
}

/// Milliseconds in which the device had requests, and those that all requests took together (fields 10
/// and 11 of /sys/block/DEVICE/stat).
fn busy_and_waited_ms(device: &Path) -> (f64, f64) {
    let name = device.file_name().unwrap().to_str().unwrap();
    let text = fs::read_to_string(format!("/sys/block/{name}/stat")).unwrap();
    let fields: Vec<f64> = text.split_whitespace().map(|field| field.parse().unwrap()).collect();
    (fields[9], fields[10])
}

/// Opens an image on `file_system` at every alignment; gives the mount for more.
async fn exercise_images(file_system: &str, size: u64) -> Option<MountedImage> {
    let mounted = require(MountedImage::create(file_system, size))?;
    let by_each_engine = ALIGNMENTS.iter().flat_map(|alignment| ENGINES.map(|by| (*alignment, by)));
    for (alignment, (engine, name)) in by_each_engine {
        let path = mounted.path().join(format!("image-{alignment}"));
        create_image(&path, 16 * MIB).unwrap();
        let options =
            options!(OpenOptions { alignment: Some(alignment), engine, ..OpenOptions::new(&path) });
        let opened = Device::open(&options);
        let device = match opened {
            Err(OpenError::Alignment { required, .. }) if alignment < required => {
                fs::remove_file(&path).unwrap();
                continue;
            }
            opened => opened.unwrap(),
        };
        let info = device.info().clone();
        assert_eq!((info.kind, info.engine, info.direct), (DeviceKind::File, name, true));
        assert_eq!(info.alignment, alignment);
        let model = exercise(&device).await;
        drop(device);
        assert!(fs::read(&path).unwrap() == model, "alignment {alignment}");
        fs::remove_file(&path).unwrap();
    }
    Some(mounted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_on_ext4_work_direct_at_every_alignment() {
    let Some(mounted) = exercise_images("ext4", 128 * MIB).await else { return };
    let path = mounted.file("image", 4 * MIB);
    let (device, warnings) = warnings_of(|| Device::open(&OpenOptions::new(&path)).unwrap());
    assert_eq!(warnings, Vec::<String>::new());
    assert!(!device.info().direct_writes_buffered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_on_xfs_work_direct_at_every_alignment() {
    exercise_images("xfs", 320 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_on_btrfs_work_and_tell_that_direct_writes_are_buffered() {
    let Some(mounted) = exercise_images("btrfs", 256 * MIB).await else { return };
    let path = mounted.file("image", 4 * MIB);
    let (device, warnings) = warnings_of(|| Device::open(&OpenOptions::new(&path)).unwrap());
    assert!(device.info().direct && device.info().direct_writes_buffered);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    // At 512 bytes btrfs takes direct reads, and makes them through the page cache.
    assert_eq!(device.info().alignment, 4096);
    for range in [0..MIB, 4096..8192, 3 * MIB + 512..3 * MIB + 1024] {
        device.read_exact(range).await.unwrap();
    }
    if let Some(cached) = require(command("fincore", &[&"-b", &"-n", &"-o", &"RES", &path])) {
        assert_eq!(cached, "0", "bytes of the image in the page cache");
    }
    drop(device);
    let small = options!(OpenOptions { alignment: Some(512), ..OpenOptions::new(&path) });
    let error = Device::open(&small).err().unwrap();
    assert!(matches!(error, OpenError::Alignment { required: 4096, .. }), "{error:?}");
    let report = probe(&path).unwrap();
    assert_eq!(report.file_system.as_deref(), Some("btrfs"));
    assert_eq!(report.working_alignments.first(), Some(&4096));
    assert!(report.direct_writes_buffered);

    let plain = mounted.file("nocow", 0);
    if require(command("chattr", &[&"+C", &plain])).is_some() {
        fs::File::options().write(true).open(&plain).unwrap().set_len(4 * MIB).unwrap();
        let (device, warnings) = warnings_of(|| Device::open(&OpenOptions::new(&plain)).unwrap());
        assert!(!device.info().direct_writes_buffered);
        assert_eq!(warnings, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_file_system_without_direct_io_falls_back_with_one_warning() {
    let Some(mounted) = require(MountedImage::create("tmpfs", 64 * MIB)) else { return };
    let path = mounted.file("image", 16 * MIB);
    let (device, warnings) = warnings_of(|| Device::open(&OpenOptions::new(&path)).unwrap());
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(!device.info().direct && !device.stats().direct && !is_open_direct(&path));
    assert!(device.info().fallback.is_some());
    let model = exercise(&device).await;
    drop(device);
    assert!(fs::read(&path).unwrap() == model);

    let direct = options!(OpenOptions { io: IoMode::Direct, ..OpenOptions::new(&path) });
    let error = Device::open(&direct).err().unwrap();
    assert!(matches!(error, OpenError::DirectUnavailable { .. }), "{error:?}");
    let buffered = options!(OpenOptions { io: IoMode::Buffered, ..OpenOptions::new(&path) });
    let (device, warnings) = warnings_of(|| Device::open(&buffered).unwrap());
    assert_eq!((warnings.len(), device.info().fallback.as_deref()), (0, None));

    let report = probe(&path).unwrap();
    assert!(!report.direct_reads && report.direct_unavailable.is_some());
    assert_eq!(report.working_alignments, Vec::<u32>::new());
}

#[tokio::test]
async fn buffered_can_be_forced_where_direct_would_work() {
    for (engine, _) in ENGINES {
        let Some(disk) = require(LoopDevice::create(16 * MIB, 4096)) else { return };
        let options =
            options!(OpenOptions { io: IoMode::Buffered, engine, ..OpenOptions::new(disk.path()) });
        let device = Device::open(&options).unwrap();
        assert!(!device.info().direct);
        let model = exercise(&device).await;
        // While the device is open: closing it would write the page cache back as well.
        assert!(fs::read(disk.backing()).unwrap() == model, "a flush empties the page cache too");
    }
}

#[tokio::test]
async fn a_full_file_system_is_an_error_and_no_reason_to_fall_back() {
    for (file_system, size) in [("ext4", 32 * MIB), ("tmpfs", 4 * MIB)] {
        let Some(mounted) = require(MountedImage::create(file_system, size)) else { continue };
        // Sparse, and larger than what is free.
        let path = mounted.file("image", 64 * MIB);
        for (engine, _) in ENGINES {
            let options = options!(OpenOptions { engine, ..OpenOptions::new(&path) });
            let device = Device::open(&options).unwrap();
            let buf = filled(&device, 1 << 20, 1);
            let mut errors = Vec::new();
            for index in 0..64 {
                let slices = vec![WriteSlice::whole(Arc::clone(&buf))];
                errors.extend(device.write(index * MIB, slices).await.err());
            }
            let codes: Vec<_> = errors.iter().map(|error| error.source.raw_os_error()).collect();
            assert!(!codes.is_empty());
            assert!(codes.iter().all(|code| *code == Some(libc::ENOSPC)), "{codes:?}");
            assert_eq!(device.info().direct, file_system == "ext4");
        }
    }
}

#[tokio::test]
async fn a_failing_disk_is_an_error_and_no_reason_to_fall_back() {
    let Some(disk) = require(LoopDevice::create(MIB, 512)) else { return };
    let device = Device::open(&OpenOptions::new(disk.path())).unwrap();
    // A loop device fails reads of what its file no longer has.
    fs::File::options().write(true).open(disk.backing()).unwrap().set_len(0).unwrap();
    let error = device.read_exact(0..100).await.unwrap_err();
    assert_eq!(error.source.raw_os_error(), Some(libc::EIO));
    drop(device);
    let (error, warnings) = warnings_of(|| {
        loop {
            match Device::open(&OpenOptions::new(disk.path())).err().unwrap() {
                OpenError::Busy { .. } => std::thread::sleep(Duration::from_millis(10)),
                error => break error,
            }
        }
    });
    let OpenError::Io { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(source.raw_os_error(), Some(libc::EIO));
    assert_eq!(warnings, Vec::<String>::new());
}

#[tokio::test]
async fn an_image_cut_short_under_a_device_reads_as_an_error_not_as_zeros() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    create_image(&path, MIB).unwrap();
    let device = Device::open(&OpenOptions::new(&path)).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(MIB / 2 + 100).unwrap();
    assert!(device.read_exact(MIB / 2 - 65536..MIB / 2).await.is_ok());
    assert!(device.read_exact(MIB / 2 - 65536..MIB / 2 + 65536).await.is_err());
    assert!(device.modify(MIB - 1..MIB, |_| true).await.is_err());
}
