//! Goal: the daemon works through io_uring where the kernel allows it, through threads where it does
//! not, and does nothing when there is nothing to do. Method: the real daemon, with system calls
//! failed by strace.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::binary::format;
use crate::support::daemon::Daemon;
use crate::support::machine::{command, require};
use crate::support::memcached::Client;
use crate::support::waiting::{eventually, now};
use rawcached::device::create_image;

const VALUE_LEN: usize = 20_000;
/// Has the kernel refuse a call, as seccomp profiles of containers do; `how` is the error, and from
/// which time on in each thread. With `-D` the daemon and not strace is the child, which is ended with
/// its test.
fn refusing(daemon: &mut Daemon, call: &str, how: &str) {
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{how}"));
    let strace = ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null"];
    daemon.launch_with(&[&strace[..], &["-e", &trace, "-e", &inject]].concat());
}

/// A daemon without a RAM tier on a new image, so that hits come from the device.
fn daemon(directory: &Path, more: &str) -> Daemon {
    let image = directory.join("image");
    create_image(&image, 256 << 20).unwrap();
    format(&image);
    let mut daemon = Daemon::new(&image, "workers = 1");
    daemon.configure_more(&format!("[ram]\nsize = \"0\"\n{more}"));
    daemon
}

fn store_and_read_back(daemon: &Daemon, count: u32) {
    let mut client = daemon.connect();
    for key in 0..count {
        let value = vec![key.to_le_bytes()[0]; VALUE_LEN];
        assert_eq!(client.set(&format!("key{key}"), &value), "STORED");
    }
    for key in 0..count {
        read_back(&mut client, key);
    }
}

fn read_back(client: &mut Client, key: u32) {
    let value = client.get(&format!("key{key}")).unwrap_or_else(|| panic!("key{key} is there"));
    assert!(value == [key.to_le_bytes()[0]; VALUE_LEN], "key{key}");
}

/// Processor time of all threads of a process, in clock ticks (fields 14 and 15 of proc_pid_stat(5)).
fn processor_ticks(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn hits_come_through_io_uring_and_at_rest_the_daemon_uses_no_processor() {
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = daemon(directory.path(), "[store]\nscrub_rate = \"0\"\n");
    daemon.restart();
    // More than the regions in memory hold.
    store_and_read_back(&daemon, 6000);
    assert!(daemon.metrics().contains("engine=\"io_uring\""));
    assert!(daemon.metric("rawcached_device_requests_total{operation=\"read\"}") > 500);
    let rest = Duration::from_secs(3);
    std::thread::sleep(Duration::from_secs(1));
    let (before, start) = (processor_ticks(daemon.pid()), now());
    std::thread::sleep(rest);
    let used = processor_ticks(daemon.pid()) - before;
    assert!(start.elapsed() >= rest);
    assert!(used <= 2, "{used} ticks of 10 ms in {rest:?}");
}

/// Keeps a daemon's worker busy with connections that ask for absent keys without waiting for answers,
/// while `action` runs.
fn hammered(daemon: &Daemon, action: impl FnOnce()) {
    /// Ends the load, also when the test fails.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let mut questions = daemon.stream();
            let mut answers = questions.try_clone().unwrap();
            let over = &over;
            scope.spawn(move || {
                let many = "get absent\r\n".repeat(20_000);
                while !over.load(Ordering::Relaxed) {
                    questions.write_all(many.as_bytes()).unwrap();
                }
                questions.shutdown(Shutdown::Write).unwrap();
            });
            scope.spawn(move || {
                let mut bytes = vec![0; 1 << 20];
                while answers.read(&mut bytes).unwrap() > 0 {}
            });
        }
        let _over = Over(&over);
        let misses =
            || daemon.metric("rawcached_command_keys_total{command=\"get\",result=\"miss\"}");
        let before = misses();
        assert!(eventually(|| misses() > before + 100_000), "the load does not begin");
        action();
    });
}

#[test]
fn a_hit_is_read_while_others_keep_the_worker_busy() {
    for engine in ["io_uring", "threads"] {
        let directory = tempfile::tempdir().unwrap();
        let mut daemon = daemon(directory.path(), "");
        let text = std::fs::read_to_string(daemon.config()).unwrap();
        let with_engine = format!("[[device]]\nengine = \"{engine}\"");
        daemon.configure(&text.replace("[[device]]", &with_engine));
        daemon.restart();
        store_and_read_back(&daemon, 6000);
        let mut slowest = Duration::ZERO;
        hammered(&daemon, || {
            let mut client = daemon.connect();
            for key in 0..20 {
                let start = now();
                read_back(&mut client, key);
                slowest = slowest.max(start.elapsed());
            }
        });
        // Without turns it lasts for as long as the others go on. With them: milliseconds, and what
        // the machine is busy with.
        assert!(slowest < Duration::from_secs(3), "{engine}: {slowest:?}");
        println!("{engine}: the slowest of 20 hits took {slowest:?}");
    }
}

#[test]
fn without_io_uring_threads_take_over_and_the_daemon_says_so() {
    if require(command("strace", &[&"-V"])).is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = daemon(directory.path(), "");
    // All of it, or only the calls that use what was made.
    for call in ["io_uring_setup", "io_uring_register", "io_uring_enter"] {
        for error in ["EPERM", "ENOSYS", "ENOMEM"] {
            refusing(&mut daemon, call, &format!("error={error}"));
            daemon.restart();
            store_and_read_back(&daemon, 100);
            assert!(daemon.metrics().contains("engine=\"threads\""), "{call}: {error}");
            assert!(daemon.stop().success(), "{call}: {error}");
            let log = daemon.log();
            let said = log.matches("io_uring does not work here: using threads").count();
            assert_eq!(said, 1, "{call}: {error}: {log}");
        }
    }
}

#[test]
fn when_io_uring_stops_to_work_threads_take_over_and_nothing_is_lost() {
    if require(command("strace", &[&"-V"])).is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = daemon(directory.path(), "");
    for how in ["error=EPERM:when=60+", "error=ENOMEM:when=30+", "error=EIO:when=45"] {
        refusing(&mut daemon, "io_uring_enter", how);
        daemon.restart();
        store_and_read_back(&daemon, 6000);
        assert!(daemon.metric("rawcached_device_lost_rings_total") >= 1, "{how}");
        for operation in ["read", "write", "flush"] {
            let failed = format!("rawcached_device_errors_total{{operation=\"{operation}\"}}");
            assert_eq!(daemon.metric(&failed), 0, "{how}: {operation}");
        }
        assert!(daemon.stop().success(), "{how}");
        let log = daemon.log();
        assert_eq!(log.matches("io_uring stopped to work").count(), 1, "{how}: {log}");
        assert!(!log.contains("panic"), "{how}: {log}");
    }
}

#[test]
fn a_daemon_told_to_use_io_uring_does_not_start_without_it() {
    if require(command("strace", &[&"-V"])).is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    create_image(&image, 256 << 20).unwrap();
    format(&image);
    let mut daemon = Daemon::new(&image, "workers = 1");
    let text = std::fs::read_to_string(daemon.config()).unwrap();
    daemon.configure(&text.replace("[[device]]", "[[device]]\nengine = \"io_uring\""));
    refusing(&mut daemon, "io_uring_setup", "error=EPERM");
    daemon.spawn();
    let (status, log) = daemon.wait();
    assert!(!status.success());
    assert!(log.contains("io_uring does not work here"), "{log}");
    assert!(log.contains("Operation not permitted"), "{log}");
}
