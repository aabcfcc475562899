//! A memory cgroup for one program, of version 1: what the kernel keeps for the program's sockets
//! counts, too.

use std::fs;
use std::path::{Path, PathBuf};

use super::machine::Missing;
use super::waiting::eventually;

/// A memory cgroup of our own, removed when dropped.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// A cgroup whose processes have `limit` bytes together.
    pub fn create(name: &str, limit: u64) -> Result<Cgroup, Missing> {
        let path = Path::new("/sys/fs/cgroup/memory")
            .join(format!("rawcached-test-{name}-{}", std::process::id()));
        let missing = |error| Missing(format!("a memory cgroup {}: {error}", path.display()));
        if !path.parent().is_some_and(|root| root.join("memory.kmem.usage_in_bytes").exists()) {
            return Err(Missing("memory cgroups of version 1 that count the kernel's".to_owned()));
        }
        fs::create_dir(&path).map_err(missing)?;
        let cgroup = Cgroup(path.clone());
        fs::write(path.join("memory.limit_in_bytes"), limit.to_string()).map_err(missing)?;
        Ok(cgroup)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Bytes that the kernel has for its processes now: sockets, files, threads.
    pub fn kernel(&self) -> u64 {
        self.number("memory.kmem.usage_in_bytes")
    }

    /// Bytes of processes now, without files that they have mapped.
    pub fn own(&self) -> u64 {
        self.line("memory.stat", "rss ")
    }

    /// Most bytes so far, those of the kernel and of cached files included.
    pub fn peak(&self) -> u64 {
        self.number("memory.max_usage_in_bytes")
    }

    /// Processes that were killed for want of memory.
    pub fn kills(&self) -> u64 {
        self.line("memory.oom_control", "oom_kill ")
    }

    fn number(&self, file: &str) -> u64 {
        fs::read_to_string(self.0.join(file)).unwrap().trim().parse().unwrap()
    }

    fn line(&self, file: &str, name: &str) -> u64 {
        let text = fs::read_to_string(self.0.join(file)).unwrap();
        let number = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        number.trim().parse().unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its last process may still be ending.
        eventually(|| fs::remove_dir(&self.0).is_ok());
    }
}
