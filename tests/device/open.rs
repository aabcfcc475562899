//! Goal: a device opens for one user alone, says what stands against it otherwise, and keeps
//! every byte it had. Method: real loop devices, in use in every way that a disk can be.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::support::devices::{LoopDevice, MountedImage, filled, reopen};
use crate::support::machine::{command, require};
use rawcached::clock::Stopwatch;
use rawcached::device::{
    Device, DeviceKind, IoMode, OpenError, OpenOptions, WriteSlice, create_image, probe,
};
use rawcached::{Cache, CacheError, CacheOptions};

const MIB: u64 = 1 << 20;

fn busy_holders(path: &Path) -> String {
    match Device::open(&OpenOptions::new(path)).err() {
        Some(OpenError::Busy { holders, .. }) => holders.join(", "),
        other => panic!("expected a busy device, got {other:?}"),
    }
}

/// As udev, blkid and losetup do.
#[test]
fn a_disk_that_somebody_has_a_short_look_at_opens() {
    let Some(disk) = require(LoopDevice::create(MIB, 512)) else { return };
    let looks =
        fs::File::options().read(true).custom_flags(libc::O_EXCL).open(disk.path()).unwrap();
    let end = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        drop(looks);
    });
    let held = Stopwatch::start();
    Device::open(&OpenOptions::new(disk.path())).unwrap();
    assert!(held.elapsed() >= Duration::from_millis(200), "it was held");
    end.join().unwrap();
}

#[test]
fn a_second_opener_is_refused_until_the_first_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    create_image(&image, MIB).unwrap();
    let first = Device::open(&OpenOptions::new(&image)).unwrap();
    let holders = busy_holders(&image);
    assert!(holders.contains(&std::process::id().to_string()), "{holders}");
    drop(first);
    drop(reopen(&image));

    let Some(disk) = require(LoopDevice::create(MIB, 512)) else { return };
    let first = Device::open(&OpenOptions::new(disk.path())).unwrap();
    let holders = busy_holders(disk.path());
    assert!(holders.contains(&std::process::id().to_string()), "{holders}");
    drop(first);
    drop(reopen(disk.path()));
    let holders = busy_holders(disk.backing());
    assert!(holders.contains(&disk.path().display().to_string()), "{holders}");
}

/// Devices that the library makes a cache of without a question.
#[tokio::test]
async fn a_disk_becomes_a_new_cache_only_if_it_begins_and_ends_with_zeros() {
    let Some(disk) = require(LoopDevice::create(64 * MIB, 512)) else { return };
    let create = || Cache::create(disk.path(), None, CacheOptions::default());
    for offset in [1000, 64 * MIB - 1000] {
        let file = fs::File::options().write(true).open(disk.backing()).unwrap();
        file.write_all_at(b"x", offset).unwrap();
        let refused = create().await.err().unwrap();
        assert!(matches!(refused, CacheError::Refused { .. }), "{refused}");
        file.write_all_at(&[0], offset).unwrap();
    }
    let cache = create().await.unwrap();
    cache.shutdown().await.unwrap();
    drop(cache);
    let refused = create().await.err().unwrap();
    assert!(matches!(refused, CacheError::Refused { .. }), "{refused}");
}

#[test]
fn a_mounted_device_is_refused_and_the_mount_point_named() {
    for (file_system, size) in [("ext4", 64 * MIB), ("btrfs", 128 * MIB)] {
        let Some(mounted) = require(MountedImage::create(file_system, size)) else { continue };
        let path = mounted.device().unwrap().path();
        let holders = busy_holders(path);
        let wanted = format!("mounted at {}", mounted.path().display());
        assert!(holders.contains(&wanted), "{holders}");
        let report = probe(path).unwrap();
        assert!(report.held_by.contains(&wanted), "{:?}", report.held_by);
        assert_eq!(report.foreign_signature, Some(file_system));
    }
}

#[tokio::test]
async fn a_read_only_device_is_refused_unless_asked_for() {
    let Some(disk) = require(LoopDevice::create_read_only(MIB, 512)) else { return };
    let error = Device::open(&OpenOptions::new(disk.path())).err().unwrap();
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error:?}");
    assert!(probe(disk.path()).unwrap().read_only);
    let options = options!(OpenOptions { read_only: true, ..OpenOptions::new(disk.path()) });
    let device = Device::open(&options).unwrap();
    assert_eq!(device.read_exact(0..3).await.unwrap()[..], [0; 3]);
    let slices = vec![WriteSlice::whole(filled(&device, 512, 1))];
    let error = device.write(0, slices).await.unwrap_err();
    assert_eq!(error.source.raw_os_error(), Some(libc::EROFS));
}

#[test]
fn an_image_on_a_read_only_file_system_is_refused_unless_asked_for() {
    let Some(mounted) = require(MountedImage::create("ext4", 64 * MIB)) else { return };
    let image = mounted.file("image", MIB);
    require(command("mount", &[&"-o", &"remount,ro", &mounted.path()])).unwrap();
    let error = Device::open(&OpenOptions::new(&image)).err().unwrap();
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error:?}");
    assert!(probe(&image).unwrap().read_only);
    let options = options!(OpenOptions { read_only: true, ..OpenOptions::new(&image) });
    assert!(Device::open(&options).is_ok());
}

#[tokio::test]
async fn signatures_of_real_tools_are_named() {
    let makers: [(&str, &[&str], &str); 4] = [
        ("mkfs.ext4", &["-q"], "ext4"),
        ("mkfs.xfs", &["-q"], "XFS"),
        ("mkfs.btrfs", &["-q"], "btrfs"),
        ("mkswap", &[], "swap"),
    ];
    for (program, arguments, name) in makers {
        let Some(disk) = require(LoopDevice::create(320 * MIB, 512)) else { return };
        let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = Vec::new();
        all.extend(arguments.iter().map(|argument| argument as &dyn AsRef<std::ffi::OsStr>));
        let path = disk.path();
        all.push(&path);
        if require(command(program, &all)).is_none() {
            continue;
        }
        assert_eq!(probe(path).unwrap().foreign_signature, Some(name));
        let device = reopen(path);
        assert_eq!(device.foreign_signature().await.unwrap(), Some(name));
    }
}

#[tokio::test]
async fn opening_and_probing_write_nothing() {
    let Some(disk) = require(LoopDevice::create(2 * MIB, 4096)) else { return };
    let pattern: Vec<u8> = (0u8..=255).cycle().take(2 << 20).collect();
    fs::write(disk.path(), &pattern).unwrap();
    require(command("sync", &[&"-f", &disk.backing()])).unwrap();
    let written = || fs::metadata(disk.backing()).unwrap().modified().unwrap();
    let before = written();
    drop(Device::open(&OpenOptions::new(disk.path())).unwrap());
    drop(Device::open(&options!(OpenOptions {
        io: IoMode::Buffered,
        ..OpenOptions::new(disk.path())
    })));
    let report = probe(disk.path()).unwrap();
    assert_eq!(report.kind, DeviceKind::Block);
    assert_eq!((report.size, report.logical_sector), (2 * MIB, Some(4096)));
    assert_eq!(report.working_alignments, [4096, 8192, 16384, 32768, 65536]);
    assert_eq!((report.direct_reads, report.alignment), (true, Some(4096)));
    assert!(fs::read(disk.backing()).unwrap() == pattern);
    assert_eq!(written(), before);
}

#[test]
fn what_is_no_device_or_too_small_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let open = |path: &Path| Device::open(&OpenOptions::new(path)).err().unwrap();
    assert!(matches!(open(directory.path()), OpenError::NotADevice { .. }));
    assert!(matches!(open(Path::new("/dev/null")), OpenError::NotADevice { .. }));
    assert!(matches!(open(&directory.path().join("absent")), OpenError::Io { .. }));
    let empty = directory.path().join("empty");
    fs::write(&empty, b"").unwrap();
    assert!(matches!(open(&empty), OpenError::TooSmall { .. }));
    let image = directory.path().join("image");
    create_image(&image, MIB).unwrap();
    let ask = |size, alignment| {
        let options = options!(OpenOptions { size, alignment, ..OpenOptions::new(&image) });
        Device::open(&options).map(|device| device.geometry().size)
    };
    assert!(matches!(ask(Some(2 * MIB), None), Err(OpenError::TooSmall { .. })));
    assert!(matches!(ask(None, Some(3000)), Err(OpenError::Alignment { .. })));
    assert!(matches!(ask(None, Some(1 << 17)), Err(OpenError::Alignment { .. })));
    assert_eq!(ask(Some(MIB - 1), Some(65536)).unwrap(), MIB - 65536);
}

/// Undoes something with a program when dropped.
struct Undo<'a>(&'static str, Vec<&'a dyn AsRef<OsStr>>);

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Err(error) = command(self.0, &self.1) {
            eprintln!("left behind: {error:?}");
        }
    }
}

#[test]
fn a_disk_with_a_mounted_partition_is_refused_and_so_is_the_partition() {
    let Some(disk) = require(LoopDevice::create(64 * MIB, 512)) else { return };
    let (disk, partition) = (disk.path(), format!("{}p1", disk.path().display()));
    if require(command("addpart", &[&disk, &"1", &"2048", &"65536"])).is_none() {
        return;
    }
    let _delete = Undo("delpart", vec![&disk, &"1"]);
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path();
    let mounted = command("mkfs.ext4", &[&"-q", &partition])
        .and_then(|_| command("mount", &[&partition, &target]));
    if require(mounted).is_none() {
        return;
    }
    let _unmount = Undo("umount", vec![&target]);
    let wanted = format!("mounted at {}", target.display());
    assert!(busy_holders(disk).contains(&wanted));
    assert!(busy_holders(Path::new(&partition)).contains(&wanted));
    assert_eq!(probe(disk).unwrap().held_by, [wanted]);
}

#[test]
fn a_swap_area_in_use_is_refused_as_such() {
    let Some(disk) = require(LoopDevice::create(MIB, 512)) else { return };
    let path = disk.path();
    let made = command("mkswap", &[&path]).and_then(|_| command("swapon", &[&path]));
    if require(made).is_none() {
        return;
    }
    let _undo = Undo("swapoff", vec![&path]);
    assert_eq!(busy_holders(disk.path()), "in use as swap");
    assert_eq!(probe(disk.path()).unwrap().held_by, ["in use as swap"]);
}

/// What is seen through an overlay is another inode than the file in its upper directory.
#[test]
fn a_file_of_an_overlay_and_its_upper_file_are_one() {
    let Some(place) = require(MountedImage::create("tmpfs", 16 * MIB)) else { return };
    let of = |name: &str| place.path().join(name);
    ["lower", "upper", "work", "merged"].iter().for_each(|name| fs::create_dir(of(name)).unwrap());
    let (upper, merged) = (of("upper").join("image"), of("merged").join("image"));
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        of("lower").display(),
        of("upper").display(),
        of("work").display()
    );
    create_image(&upper, MIB).unwrap();
    let earlier = Device::open(&OpenOptions::new(&upper)).unwrap();
    let mount: [&dyn AsRef<OsStr>; 6] =
        [&"-t", &"overlay", &"-o", &options, &"overlay", &of("merged")];
    if require(command("mount", &mount)).is_none() {
        return;
    }
    let point = of("merged");
    let mounted = Undo("umount", vec![&point]);
    // First by the upper path, before it was mounted.
    let holders = busy_holders(&merged);
    assert!(holders.contains("under the overlay"), "{holders}");
    drop(earlier);
    let first = Device::open(&OpenOptions::new(&merged)).unwrap();
    let holders = busy_holders(&upper);
    let expected = format!("overlay mounted at {}", of("merged").display());
    assert!(holders.contains(&expected), "{holders}");
    assert_eq!(probe(&upper).unwrap().held_by.len(), 1);
    drop(first);
    drop(reopen(&merged));
    drop(mounted);
    drop(reopen(&upper));
}
