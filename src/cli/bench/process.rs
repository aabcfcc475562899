//! Processor time of processes. Reads it from the kernel; measures nothing by itself.

use std::fs;
use std::ops::Sub;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{SysconfVar, sysconf};

/// Processor time of all threads of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessorTime {
    /// In the process's own code.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
}

impl ProcessorTime {
    /// Of a process, in steps of a clock tick (10 ms).
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(pid: u32) -> anyhow::Result<ProcessorTime> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("processor time of process {pid}"))?;
        // The second field may hold spaces; it ends at the last parenthesis. Fields 14 and 15 of
        // proc_pid_stat(5) are the times.
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
        let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<u64>);
        let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?)?;
        let mut next = || -> anyhow::Result<Duration> {
            Ok(Duration::from_millis(ticks.next().context("no times")?? * 1000 / per_second))
        };
        Ok(ProcessorTime { user: next()?, system: next()? })
    }

    /// Of this process.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn own() -> anyhow::Result<ProcessorTime> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let duration = |time: nix::sys::time::TimeVal| -> anyhow::Result<Duration> {
            Ok(Duration::from_micros(u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec())?))
        };
        Ok(ProcessorTime {
            user: duration(usage.user_time())?,
            system: duration(usage.system_time())?,
        })
    }

    /// Both together.
    #[must_use]
    pub fn total(self) -> Duration {
        self.user + self.system
    }
}

impl Sub for ProcessorTime {
    type Output = ProcessorTime;

    fn sub(self, before: ProcessorTime) -> ProcessorTime {
        ProcessorTime {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_agree_on_this_process() {
        let own = ProcessorTime::own().unwrap().total();
        let asked = ProcessorTime::of(std::process::id()).unwrap().total();
        assert!(own.abs_diff(asked) < Duration::from_millis(100), "{own:?} {asked:?}");
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(ProcessorTime::of(u32::MAX).is_err());
    }
}
