//! Metrics of the process itself. Owns what is read from `/proc/self`.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

use super::{AddError, Metrics, Page};
use crate::clock::Stopwatch;

/// When the process started, for its uptime.
#[derive(Clone, Copy, Debug)]
pub struct ProcessStart(Stopwatch);

/// What the kernel says of this process; zero where it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Usage {
    resident_bytes: u64,
    cpu_seconds: f64,
    threads: u64,
    open_files: u64,
    open_files_max: u64,
}

impl ProcessStart {
    /// Starts the uptime now.
    #[must_use]
    pub fn now() -> ProcessStart {
        ProcessStart(Stopwatch::start())
    }

    /// Adds memory, CPU time, open files, uptime and build information.
    ///
    /// # Errors
    /// The names are taken already.
    pub fn add_to(self, metrics: &Metrics) -> Result<(), AddError> {
        metrics.add(move |page| {
            write_usage(page, &Usage::read());
            write_build(page, self.0.elapsed().as_secs_f64());
        })
    }
}

fn write_usage(page: &mut Page, usage: &Usage) {
    page.gauge(
        "rawcached_process_resident_memory_bytes",
        "Memory of the daemon that is in RAM, in bytes.",
        &[],
        usage.resident_bytes,
    );
    page.counter_float(
        "rawcached_process_cpu_seconds_total",
        "CPU time of the daemon in user and kernel mode, in seconds.",
        &[],
        usage.cpu_seconds,
    );
    page.gauge("rawcached_process_threads", "Threads of the daemon.", &[], usage.threads);
    page.gauge(
        "rawcached_process_open_fds",
        "Open file descriptors of the daemon.",
        &[],
        usage.open_files,
    );
    page.gauge(
        "rawcached_process_max_fds",
        "File descriptors that the daemon may have open.",
        &[],
        usage.open_files_max,
    );
}

fn write_build(page: &mut Page, uptime_seconds: f64) {
    page.gauge_float(
        "rawcached_uptime_seconds",
        "Time since the daemon started, in seconds.",
        &[],
        uptime_seconds,
    );
    page.gauge(
        "rawcached_build_info",
        "Always 1; the version is in the label.",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1,
    );
}

impl Usage {
    fn read() -> Usage {
        let text =
            |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let stat = text("stat");
        let ticks = unit(SysconfVar::CLK_TCK);
        let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Usage {
            resident_bytes: resident_pages(&stat) * unit(SysconfVar::PAGE_SIZE),
            cpu_seconds: cpu_ticks(&stat) as f64 / ticks as f64,
            threads: stat_field(&stat, 20),
            // Reading the directory opened one more.
            open_files: (open as u64).saturating_sub(1),
            open_files_max: open_files_limit(&text("limits")),
        }
    }
}

fn unit(variable: SysconfVar) -> u64 {
    let value = sysconf(variable).ok().flatten().unwrap_or(1);
    u64::try_from(value).unwrap_or(1).max(1)
}

/// Field `number` of `/proc/self/stat`, counted from 1 as in proc_pid_stat(5).
fn stat_field(stat: &str, number: usize) -> u64 {
    // The second field is the program's name in parentheses and may hold spaces.
    let Some((_, rest)) = stat.rsplit_once(')') else { return 0 };
    rest.split_whitespace().nth(number - 3).and_then(|field| field.parse().ok()).unwrap_or(0)
}

fn cpu_ticks(stat: &str) -> u64 {
    stat_field(stat, 14) + stat_field(stat, 15)
}

fn resident_pages(stat: &str) -> u64 {
    stat_field(stat, 24)
}

fn open_files_limit(limits: &str) -> u64 {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_a_name_with_spaces_and_parentheses() {
        let fields: Vec<String> = (4..=52).map(|number| number.to_string()).collect();
        let stat = format!("1 (a) b (c) S {}", fields.join(" "));
        assert_eq!(cpu_ticks(&stat), 14 + 15);
        assert_eq!(stat_field(&stat, 20), 20);
        assert_eq!(resident_pages(&stat), 24);
        assert_eq!(stat_field("", 20), 0);
    }

    #[test]
    fn this_process_uses_memory_threads_and_files() {
        let usage = Usage::read();
        assert!(usage.resident_bytes > 100_000, "{usage:?}");
        assert!(usage.threads >= 1 && usage.open_files >= 3, "{usage:?}");
        assert!(usage.open_files_max >= usage.open_files, "{usage:?}");
    }

    #[test]
    fn cpu_time_and_uptime_are_on_the_page() {
        let metrics = Metrics::new();
        ProcessStart::now().add_to(&metrics).unwrap();
        let text = metrics.render();
        for name in [
            "rawcached_process_cpu_seconds_total",
            "rawcached_process_resident_memory_bytes",
            "rawcached_process_max_fds",
            "rawcached_uptime_seconds",
            "rawcached_build_info{version=",
        ] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name} in\n{text}");
        }
    }
}
