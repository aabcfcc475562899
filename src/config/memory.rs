//! How the daemon's memory is divided. Owns the default of each part and the rule that all parts together
//! fit. Pure: what the machine has is passed in.

use std::fmt;

use super::broken::Broken;
use super::{AutoSize, Config};
use crate::units::ByteSize;

const MIB: u64 = 1 << 20;
/// Below this, parts are too small to serve even few clients.
pub(super) const MAX_MIN: u64 = 64 * MIB;
/// The program itself, its threads, and what the allocator holds back: a constant, and a share of all.
const PROGRAM: u64 = 12 * MIB;
const PROGRAM_SHARE: u64 = 16;
/// The smallest RAM tier, as in `ram.size`.
const RAM_MIN: u64 = MIB;

/// The memory that the daemon may use, by what the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Available {
    /// The limit of the memory cgroup, in bytes.
    Cgroup(u64),
    /// The memory of the machine, in bytes.
    Machine(u64),
}

/// A part of the memory, with its setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    key: &'static str,
    /// Its default is one part in this many of all, but not less than `min` and not more than `max` bytes.
    share: u64,
    min: u64,
    max: u64,
}

const INDEX: Part = Part { key: "memory.index", share: 5, min: 4 * MIB, max: u64::MAX };
const RECOVERY: Part = Part { key: "memory.recovery", share: 12, min: 4 * MIB, max: u64::MAX };
/// Stores in progress have a part of a slice each; a hundred at a time need no more.
const WRITE_BUFFERS: Part =
    Part { key: "memory.write_buffers", share: 16, min: 4 * MIB, max: 128 * MIB };
/// A hundred reads of a slice at a time keep any disk busy.
const READ_BUFFERS: Part =
    Part { key: "memory.read_buffers", share: 16, min: 4 * MIB, max: 96 * MIB };
const BACKLOG: Part = Part { key: "memory.backlog", share: 16, min: 4 * MIB, max: 64 * MIB };
const CONNECTIONS: Part =
    Part { key: "memory.connections", share: 16, min: 4 * MIB, max: 64 * MIB };
const SOCKET_BUFFERS: Part =
    Part { key: "memory.socket_buffers", share: 12, min: 4 * MIB, max: 256 * MIB };

/// The parts, in bytes. Together they fit into `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// All of it.
    pub max: u64,
    /// The RAM tier.
    pub ram: u64,
    /// The index.
    pub index: u64,
    /// Recovery, besides the index.
    pub recovery: u64,
    /// Stores in progress.
    pub write_buffers: u64,
    /// Bodies on their way to clients, and reads of the device.
    pub read_buffers: u64,
    /// Accepted and not yet on the device.
    pub backlog: u64,
    /// Requests that have not arrived whole.
    pub connections: u64,
    /// What the kernel keeps for clients that have not read it.
    pub socket_buffers: u64,
    /// Lines of access logs that are not written yet.
    pub access_logs: u64,
    /// The program itself.
    pub program: u64,
    /// Where `max` comes from.
    pub reason: Reason,
}

/// Where the whole comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The setting.
    Set,
    /// A share of what is available.
    Share(Available),
    /// The parts that are set need it.
    Needed(Available),
}

impl Available {
    fn bytes(self) -> u64 {
        match self {
            Available::Cgroup(bytes) | Available::Machine(bytes) => bytes,
        }
    }

    /// The default: a machine has other users.
    fn share(self) -> u64 {
        match self {
            Available::Cgroup(bytes) => bytes / 4 * 3,
            Available::Machine(bytes) => bytes / 4,
        }
    }

    /// More is not taken unless `memory.max` says so.
    fn most(self) -> u64 {
        self.bytes() / 4 * 3
    }
}

impl fmt::Display for Available {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Available::Cgroup(bytes) => {
                write!(f, "the memory cgroup's limit of {}", ByteSize(*bytes))
            }
            Available::Machine(bytes) => write!(f, "the machine's {}", ByteSize(*bytes)),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Set => f.write_str("as set"),
            Reason::Share(available @ Available::Cgroup(_)) => {
                write!(f, "three quarters of {available}")
            }
            Reason::Share(available @ Available::Machine(_)) => {
                write!(f, "a quarter of {available}")
            }
            Reason::Needed(available) => {
                write!(f, "what the sizes that are set need, of {available}")
            }
        }
    }
}

impl Part {
    fn of(self, setting: AutoSize, all: u64) -> u64 {
        match setting {
            AutoSize::Fixed(size) => size.0,
            AutoSize::Auto => whole(all / self.share).clamp(self.min, self.max),
        }
    }
}

/// Whole MiB, for people to read.
fn whole(bytes: u64) -> u64 {
    bytes / MIB * MIB
}

/// What the access logs of all read-through listeners may take.
fn access_logs(config: &Config) -> u64 {
    let logs = config.proxies.iter().filter(|proxy| proxy.access_log.is_some());
    logs.map(|proxy| proxy.access_log_buffer.0).sum()
}

impl MemoryPlan {
    /// Divides the memory as `config` says.
    ///
    /// # Errors
    /// The parts that are set do not fit.
    pub fn of(config: &Config, available: Available) -> Result<MemoryPlan, Broken> {
        let settings = &config.memory;
        let (base, mut reason) = match settings.max {
            AutoSize::Fixed(size) => (size.0, Reason::Set),
            AutoSize::Auto => (whole(available.share()).max(MAX_MIN), Reason::Share(available)),
        };
        let mut plan = MemoryPlan {
            max: base,
            ram: 0,
            index: INDEX.of(settings.index, base),
            recovery: RECOVERY.of(settings.recovery, base),
            write_buffers: WRITE_BUFFERS.of(settings.write_buffers, base),
            read_buffers: READ_BUFFERS.of(settings.read_buffers, base),
            backlog: BACKLOG.of(settings.backlog, base),
            connections: CONNECTIONS.of(settings.connections, base),
            socket_buffers: SOCKET_BUFFERS.of(settings.socket_buffers, base),
            access_logs: access_logs(config),
            program: PROGRAM + whole(base / PROGRAM_SHARE),
            reason,
        };
        let others = plan.sum();
        let needed = others.saturating_add(match config.ram.size {
            AutoSize::Fixed(size) => size.0,
            AutoSize::Auto => RAM_MIN,
        });
        let most = if settings.max == AutoSize::Auto { available.most() } else { base };
        if needed.max(base) > most {
            return Err(plan.too_small(needed, available));
        }
        if needed > base {
            reason = Reason::Needed(available);
        }
        plan.max = base.max(needed);
        plan.ram = match config.ram.size {
            AutoSize::Fixed(size) => size.0,
            AutoSize::Auto => plan.max - others,
        };
        Ok(MemoryPlan { reason, ..plan })
    }

    fn sum(&self) -> u64 {
        self.parts().iter().fold(self.program, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }

    /// Each part with its setting, in the order of the file.
    #[must_use]
    pub fn parts(&self) -> [(&'static str, u64); 9] {
        [
            ("ram.size", self.ram),
            (INDEX.key, self.index),
            (RECOVERY.key, self.recovery),
            (WRITE_BUFFERS.key, self.write_buffers),
            (READ_BUFFERS.key, self.read_buffers),
            (BACKLOG.key, self.backlog),
            (CONNECTIONS.key, self.connections),
            (SOCKET_BUFFERS.key, self.socket_buffers),
            ("proxy.access_log_buffer", self.access_logs),
        ]
    }

    fn too_small(&self, needed: u64, available: Available) -> Broken {
        let (needed, of) = (ByteSize(needed.next_multiple_of(MIB)), ByteSize(self.max));
        let reason = match self.reason {
            Reason::Set => {
                format!("its parts take {needed}, more than {of}: raise it or lower a part")
            }
            _ => format!(
                "the parts take {needed}, more than three quarters of {available}: set it, or lower a part"
            ),
        };
        Broken { key: "memory.max".into(), reason }
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}):", ByteSize(self.max), self.reason)?;
        for (key, bytes) in self.parts() {
            write!(f, " {key} {},", ByteSize(bytes))?;
        }
        write!(f, " the program {}", ByteSize(self.program))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str, available: Available) -> Result<MemoryPlan, Broken> {
        MemoryPlan::of(&toml::from_str(text).unwrap(), available)
    }

    const LAPTOP: Available = Available::Machine(16 << 30);

    #[test]
    fn all_parts_together_are_the_whole() {
        for available in [
            Available::Cgroup(128 << 20),
            Available::Cgroup(256 << 20),
            Available::Machine(1 << 30),
            LAPTOP,
            Available::Machine(1 << 40),
        ] {
            let plan = plan("", available).unwrap();
            assert_eq!(plan.sum(), plan.max, "{plan}");
            assert_eq!(plan.max, available.share(), "{plan}");
            assert!(plan.ram >= plan.max / 8, "{plan}");
        }
    }

    #[test]
    fn parts_that_are_set_are_kept_and_the_ram_tier_has_the_rest() {
        let index = "[memory]\nmax = \"256MiB\"\nindex = \"100MiB\"";
        let found = plan(index, LAPTOP).unwrap();
        assert_eq!((found.index, found.max, found.reason), (100 << 20, 256 << 20, Reason::Set));
        assert_eq!(found.sum(), found.max);
        let off = plan("[ram]\nsize = \"0\"", LAPTOP).unwrap();
        assert_eq!((off.ram, off.max), (0, 4 << 30));
    }

    #[test]
    fn without_a_maximum_sizes_that_are_set_count_up_to_three_quarters() {
        let found = plan("[ram]\nsize = \"8GiB\"", LAPTOP).unwrap();
        assert_eq!(found.reason, Reason::Needed(LAPTOP));
        assert_eq!(found.sum(), found.max);
        let refused = plan("[ram]\nsize = \"12GiB\"", LAPTOP).unwrap_err();
        assert_eq!(refused.key, "memory.max");
        assert!(refused.reason.contains("three quarters of the machine's 16GiB"), "{refused:?}");
        assert!(plan("", Available::Cgroup(64 << 20)).is_err());
    }

    #[test]
    fn access_logs_are_counted_where_they_are_written() {
        let text = "[[proxy]]\naccess_log_buffer = \"8MiB\"\n[[proxy]]\naccess_log = \"/a\"\n\
                    [[proxy]]\naccess_log = \"unix:/b\"\naccess_log_buffer = \"4MiB\"\n";
        let found = plan(text, LAPTOP).unwrap();
        assert_eq!(found.access_logs, 5 << 20);
        assert_eq!(found.sum(), found.max);
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let refused = plan("[memory]\nmax = \"64MiB\"\n[ram]\nsize = \"64MiB\"", LAPTOP);
        assert_eq!(refused.unwrap_err().key, "memory.max");
        let huge = "[memory]\nmax = \"64MiB\"\nindex = \"1TiB\"";
        assert_eq!(plan(huge, LAPTOP).unwrap_err().key, "memory.max");
    }

    #[test]
    fn the_plan_names_every_part() {
        let text = plan("", Available::Cgroup(128 << 20)).unwrap().to_string();
        let start = "96MiB (three quarters of the memory cgroup's limit of 128MiB): ram.size ";
        assert!(text.starts_with(start), "{text}");
        assert!(text.contains(" memory.index 19MiB,"), "{text}");
        assert!(text.ends_with(" the program 18MiB"), "{text}");
    }
}
