//! How much memory there is: the limit of the memory cgroup, else the machine's. Owns where the kernel says
//! so.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::Available;

/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Taken where the kernel says nothing.
const UNKNOWN: Available = Available::Machine(4 << 30);

/// What this process may use.
#[must_use]
pub fn available() -> Available {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = lowest_limit(&groups, Path::new(CGROUPS));
    match (limit, machine) {
        (Some(limit), Some(machine)) if limit >= machine => Available::Machine(machine),
        (Some(limit), _) => Available::Cgroup(limit),
        (None, Some(machine)) => Available::Machine(machine),
        (None, None) => UNKNOWN,
    }
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The lowest limit of the groups that `/proc/self/cgroup` names and of those above them, in bytes: the
/// kernel applies each.
fn lowest_limit(groups: &str, mount: &Path) -> Option<u64> {
    groups.lines().filter_map(|line| lowest_limit_of(line, mount)).min()
}

fn lowest_limit_of(line: &str, mount: &Path) -> Option<u64> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let (root, files): (PathBuf, &[&str]) = match controllers {
        // The second version, where all controllers are in one tree.
        "" => (mount.to_owned(), &["memory.max", "memory.high"]),
        _ if controllers.split(',').any(|name| name == "memory") => {
            (mount.join("memory"), &["memory.limit_in_bytes"])
        }
        _ => return None,
    };
    // In a container the path may be the host's, and only the root is there.
    let path = Path::new(path.trim_start_matches('/'));
    let groups = path.ancestors().map(|group| root.join(group));
    groups.flat_map(|group| files.iter().filter_map(move |file| limit_in(&group.join(file)))).min()
}

/// The limit in a file; `None` for "max", which is none.
fn limit_in(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_memory_is_read_from_meminfo() {
        let text = "MemTotal:       24567 kB\nMemFree:  1 kB\n";
        assert_eq!(total_of(text), Some(24_567 << 10));
        assert_eq!(total_of("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn the_lowest_limit_above_the_process_counts() {
        let mount = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let file = mount.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/a/memory.limit_in_bytes", "1000\n");
        write("memory/a/b/memory.limit_in_bytes", "2000\n");
        write("c/memory.max", "max\n");
        write("c/d/memory.max", "5000\n");
        write("c/d/memory.high", "3000\n");
        let lowest = |groups| lowest_limit(groups, mount.path());
        assert_eq!(lowest("4:cpu:/a\n3:memory:/a/b\n"), Some(1000));
        assert_eq!(lowest("0::/c/d\n"), Some(3000));
        assert_eq!(lowest("0::/c\n"), None);
        assert_eq!(lowest("0::/not/there\n4:cpu:/a\n"), None);
        assert_eq!(lowest("3:memory:/of/the/host\n"), Some(9_223_372_036_854_771_712));
        assert_eq!(lowest("rubbish"), None);
    }
}
