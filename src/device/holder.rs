//! Who else uses a device or file: mounts, swap, stacked devices, processes. Owns the descriptions
//! for messages; never opens the device.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::facts::sysfs_directory;

/// What holds a device or file.
pub(super) struct Holders {
    /// Descriptions, for messages.
    pub names: Vec<String>,
    /// Within what time they may be gone by themselves; zero: they stay until somebody ends them.
    pub go_within: Duration,
}

/// For the remains of an ended process: the kernel tears down the rings of a killed process only after
/// its end and the end of its transfers (30 ms as a rule, 2.5 s seen on a busy loop device).
pub(super) const REMAINS_GO_WITHIN: Duration = Duration::from_secs(10);

/// For processes that look at a disk and close it: udev, blkid, losetup.
const LOOKS_GO_WITHIN: Duration = Duration::from_secs(1);

impl Holders {
    /// Holders that stay until somebody ends them.
    pub fn lasting(names: Vec<String>) -> Holders {
        Holders { names, go_within: Duration::ZERO }
    }

    /// Holders that are the remains of an ended process.
    pub fn remains(names: Vec<String>) -> Holders {
        Holders { names, go_within: REMAINS_GO_WITHIN }
    }

    /// Processes that have it open, see [`processes_with`]. If none can be named, one has just ended.
    pub fn processes(names: Vec<String>) -> Holders {
        let go_within = if names.is_empty() { REMAINS_GO_WITHIN } else { LOOKS_GO_WITHIN };
        Holders { names, go_within }
    }
}

/// All that is known to hold the block device, its partitions or its disk, besides `asking`.
pub(super) fn of_block_device(path: &Path, device_number: u64, asking: Option<&File>) -> Holders {
    let family = family(device_number);
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut holders: Vec<String> = mounts(&mountinfo)
        .into_iter()
        .filter(|mount| family.contains(&mount.device_number) || is_one_of(&mount.source, &family))
        .map(|mount| format!("mounted at {}", mount.point))
        .collect();
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    if swap_paths(&swaps).iter().any(|swap| is_one_of(swap, &family)) {
        holders.push("in use as swap".to_owned());
    }
    for member in &family {
        for name in names_in(&sysfs_directory(*member).join("holders")) {
            let label = fs::read_to_string(format!("/sys/block/{name}/dm/name"));
            let label = label.map(|label| format!(" ({})", label.trim())).unwrap_or_default();
            holders.push(format!("part of /dev/{name}{label}"));
        }
    }
    match holders.is_empty() {
        true => Holders::processes(processes_with(path, asking)),
        false => Holders::lasting(holders),
    }
}

/// Descriptions of all that is known to hold the disk of this name under `/dev`.
pub(super) fn of_disk(name: &str) -> Vec<String> {
    let number = fs::read_to_string(Path::new("/sys/block").join(name).join("dev"));
    match number.ok().and_then(|number| device_number(number.trim())) {
        Some(number) => of_block_device(&Path::new("/dev").join(name), number, None).names,
        None => Vec::new(),
    }
}

/// Processes that have `path` open, as far as this one may see. `asking`, the file through which
/// this process looks at it, does not count.
pub(super) fn processes_with(path: &Path, asking: Option<&File>) -> Vec<String> {
    let Ok(canonical) = path.canonicalize() else { return Vec::new() };
    let own = asking.map(|file| (std::process::id(), file.as_raw_fd().to_string()));
    let mut holders = Vec::new();
    for pid in names_in(Path::new("/proc")) {
        let Ok(number) = pid.parse::<u32>() else { continue };
        let directory = PathBuf::from(format!("/proc/{pid}/fd"));
        let open = names_in(&directory).into_iter().any(|fd| {
            fs::read_link(directory.join(&fd)).is_ok_and(|target| target == canonical)
                && own != Some((number, fd))
        });
        if open {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            holders.push(format!("open in process {pid} ({})", name.trim()));
        }
    }
    holders
}

/// One line of `/proc/self/mountinfo`, see proc_pid_mountinfo(5).
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    device_number: u64,
    point: String,
    source: PathBuf,
}

fn mounts(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<Mount> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(2);
    let device_number = device_number(place.next()?)?;
    let point = unescape(place.nth(1)?);
    let source = unescape(kind.split(' ').nth(1)?).into();
    Some(Mount { device_number, point, source })
}

/// Swap areas of `/proc/swaps`, whose first line is a heading.
pub(super) fn swap_paths(swaps: &str) -> Vec<PathBuf> {
    let first_words = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    first_words.map(|path| unescape(path).into()).collect()
}

/// The kernel writes blanks and backslashes in paths as three octal digits.
pub(super) fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

/// The device, its partitions, and the disk it is a partition of.
fn family(own: u64) -> Vec<u64> {
    let directory = sysfs_directory(own);
    let number_in = |directory: PathBuf| {
        fs::read_to_string(directory.join("dev")).ok().and_then(|text| device_number(text.trim()))
    };
    let mut family = vec![own];
    for name in names_in(&directory) {
        let child = directory.join(name);
        if child.join("partition").exists() {
            family.extend(number_in(child));
        }
    }
    if directory.join("partition").exists() {
        family.extend(number_in(directory.join("..")));
    }
    family
}

fn device_number(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// btrfs mounts carry a made-up device number; their source still names the device.
fn is_one_of(path: &Path, family: &[u64]) -> bool {
    path.is_absolute() && fs::metadata(path).is_ok_and(|found| family.contains(&found.rdev()))
}

pub(super) fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_give_device_point_and_source() {
        let text = "\
            36 35 98:0 /mnt1 /mnt/a\\040b rw,noatime master:1 - ext3 /dev/root rw\n\
            37 35 0:44 / /data rw - btrfs /dev/sdb1 rw,space_cache\n\
            nonsense\n";
        let expected = [
            (libc::makedev(98, 0), "/mnt/a b", "/dev/root"),
            (libc::makedev(0, 44), "/data", "/dev/sdb1"),
        ];
        let expected = expected.map(|(device_number, point, source)| Mount {
            device_number,
            point: point.to_owned(),
            source: source.into(),
        });
        assert_eq!(mounts(text), expected);
    }

    #[test]
    fn swap_areas_are_read_past_the_heading() {
        let text = "Filename Type Size Used Priority\n/swap\\040file file 1 0 -2\n/dev/sda2 partition 1 0 -3\n";
        assert_eq!(swap_paths(text), [Path::new("/swap file"), Path::new("/dev/sda2")]);
    }

    #[test]
    fn a_backslash_that_is_no_escape_stays() {
        assert_eq!(unescape("a\\b\\134c"), "a\\b\\c");
    }

    #[test]
    fn an_open_file_names_the_process_unless_it_is_the_one_that_asks() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let wanted = format!("open in process {} ", std::process::id());
        let named = |asking| {
            processes_with(file.path(), asking).iter().any(|holder| holder.starts_with(&wanted))
        };
        assert!(named(None));
        assert!(!named(Some(file.as_file())));
        let _second = File::open(file.path()).unwrap();
        assert!(named(Some(file.as_file())));
    }
}
