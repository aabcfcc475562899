//! The wall clock is set while the daemon runs or while it is down. Method: a library that is
//! loaded before the C library's and adds an offset, which the test changes, to CLOCK_REALTIME of
//! this one process, and reports it as synchronised; no other clock is touched.

use std::fs;
use std::path::{Path, PathBuf};

use rawcached::clock::Clock;

use crate::support::binary::run;
use crate::support::daemon::Daemon;
use crate::support::machine::{Missing, command, require};
use crate::support::memcached::Client;
use crate::support::waiting::eventually;

/// Reads the offset in seconds from the file that `TEST_WALL_CLOCK` names at each call; a line of it
/// with an `s` says that the clock is synchronised.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>
static int read_clock(char text[32]) {
    memset(text, 0, 32);
    const char *path = getenv("TEST_WALL_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    int length = read(file, text, 31);
    close(file);
    return length > 0;
}
int adjtimex(struct timex *state) {
    char text[32];
    int synchronised = read_clock(text) && strchr(text, 's');
    state->status = synchronised ? 0 : STA_UNSYNC;
    return synchronised ? TIME_OK : TIME_ERROR;
}
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, now);
    char text[32];
    if (id == CLOCK_REALTIME && result == 0 && read_clock(text)) now->tv_sec += atoll(text);
    return result;
}
"#;

struct WallClock {
    directory: tempfile::TempDir,
}

impl WallClock {
    fn build() -> Result<WallClock, Missing> {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("clock.c");
        fs::write(&source, LIBRARY).unwrap();
        let library = directory.path().join("clock.so");
        command("cc", &[&"-shared", &"-fPIC", &"-o", &library, &source, &"-ldl"])?;
        let clock = WallClock { directory };
        clock.set(0);
        Ok(clock)
    }

    fn offset(&self) -> PathBuf {
        self.directory.path().join("offset")
    }

    /// Moves the wall clock to so many seconds after the real one.
    fn set(&self, seconds: i64) {
        fs::write(self.offset(), seconds.to_string()).unwrap();
    }

    /// As [`WallClock::set`], and has it synchronised.
    fn synchronise(&self, seconds: i64) {
        fs::write(self.offset(), format!("{seconds}\ns")).unwrap();
    }

    fn give_to(&self, daemon: &mut Daemon) {
        let library = self.directory.path().join("clock.so");
        daemon.set_environment("LD_PRELOAD", &library.display().to_string());
        daemon.set_environment("TEST_WALL_CLOCK", &self.offset().display().to_string());
    }
}

fn set(client: &mut Client, name: &str, ttl: i64) {
    client.send(format!("set {name} 0 {ttl} 2\r\nok\r\n"));
    assert_eq!(client.line(), "STORED");
}

fn serve(image: &Path, clock: &WallClock) -> Daemon {
    assert!(run(&[&"format", &image, &"--size", &"64MiB", &"--force"]).status.success());
    let mut daemon = Daemon::new(image, "");
    clock.give_to(&mut daemon);
    daemon.configure_more("[ram]\nsize = \"0\"\n");
    daemon.restart();
    daemon
}

const DAY: i64 = 86_400;

#[test]
fn a_step_of_the_wall_clock_under_the_daemon_neither_ends_nor_lengthens_a_life() {
    let Some(clock) = require(WallClock::build()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = serve(&directory.path().join("cache.img"), &clock);
    let mut client = daemon.connect();
    for step in [2 * DAY, -2 * DAY] {
        set(&mut client, "brief", 2);
        set(&mut client, "day", DAY);
        clock.set(step);
        assert!(client.get("day").is_some(), "a step of {step} s ends nothing");
        std::thread::sleep(std::time::Duration::from_millis(2200));
        assert_eq!(client.get("brief"), None, "a step of {step} s lengthens nothing");
        assert!(client.get("day").is_some());
    }
    // The log shows that the daemon sees the clock that was set: its last line is the oldest.
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    let date = |line: Option<&str>| line.map(|line| line[..10].to_owned());
    let seen = eventually(|| {
        let log = daemon.log();
        date(log.lines().last()) < date(log.lines().next())
    });
    assert!(seen, "{}", daemon.log());
    assert!(daemon.stop().success());
}

#[test]
fn a_wall_clock_set_while_the_daemon_is_down_counts_forward_and_is_doubted_back() {
    let Some(clock) = require(WallClock::build()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = serve(&directory.path().join("cache.img"), &clock);
    let mut client = daemon.connect();
    set(&mut client, "hour", 3600);
    set(&mut client, "days", 3 * DAY);
    assert!(daemon.stop().success());
    // Forward: the time counts as passed.
    clock.set(2 * DAY);
    daemon.restart();
    let mut client = daemon.connect();
    assert_eq!(client.get("hour"), None);
    assert!(client.get("days").is_some());
    set(&mut client, "later", 3600);
    set(&mut client, "soon", 2);
    assert!(daemon.stop().success());
    // Back: nobody knows how long it was down.
    clock.set(-20 * 365 * DAY);
    daemon.restart();
    let mut client = daemon.connect();
    for name in ["hour", "days", "later", "soon"] {
        assert_eq!(client.get(name), None, "{name} is of unknown age");
    }
    set(&mut client, "new", 3600);
    assert!(client.get("new").is_some());
    assert!(daemon.log().contains("absurd"), "{}", daemon.log());
    // Until the clock is set right: then expired entries stay expired, and no entry lives longer.
    clock.synchronise(2 * DAY);
    assert!(eventually(|| client.get("days").is_some()), "{}", daemon.log());
    assert!(client.get("later").is_some() && client.get("new").is_some());
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(client.get("hour"), None, "it has expired before");
    assert_eq!(client.get("soon"), None, "its two seconds are over");
    assert!(daemon.stop().success());
}

#[test]
fn a_wall_clock_that_is_wrong_at_the_start_moves_no_absolute_end() {
    let Some(clock) = require(WallClock::build()) else { return };
    let directory = tempfile::tempdir().unwrap();
    for (name, wrong) in [("behind.img", -9 * 365 * DAY), ("ahead.img", 90 * 365 * DAY)] {
        clock.set(wrong);
        let mut daemon = serve(&directory.path().join(name), &clock);
        clock.set(0);
        let mut client = daemon.connect();
        let now = Clock::system().wall();
        set(&mut client, "brief", now + 2);
        set(&mut client, "long", now + 40 * DAY);
        client.send(format!("set touched 0 0 2\r\nok\r\ntouch touched {}\r\n", now + 2));
        assert_eq!((client.line(), client.line()), ("STORED".to_owned(), "TOUCHED".to_owned()));
        std::thread::sleep(std::time::Duration::from_millis(2300));
        assert_eq!(client.get("brief"), None, "{name}");
        assert_eq!(client.get("touched"), None, "{name}");
        assert!(client.get("long").is_some(), "{name}");
        // The step is recorded: the next start is not misled.
        assert!(daemon.stop().success());
        daemon.restart();
        let mut client = daemon.connect();
        assert!(client.get("long").is_some(), "{name}: {}", daemon.log());
        assert!(daemon.stop().success());
    }
}
