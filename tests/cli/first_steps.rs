//! Goal: what a new user meets first says what is so and what to do next. Method: run the built binary
//! as a new user does, mistakes included.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::{Value, json};

use crate::serve::Daemon;
use crate::support::binary;
use crate::support::devices::MountedImage;
use crate::support::machine::{Missing, command, require};
use crate::support::waiting::eventually;
use crate::{directory, rawcached, stderr, stdout};

/// Runs a command in a directory of its own.
fn run(arguments: &[&str]) -> Output {
    rawcached(directory().path()).args(arguments).output().unwrap()
}

/// A daemon without a configuration that answers.
fn serving(directory: &Path) -> Daemon {
    let mut daemon = Daemon::spawn(rawcached(directory).args(["serve", "--server-admin", ""]));
    daemon.wait_for("serving");
    daemon
}

#[test]
fn a_missing_device_is_not_answered_with_the_advice_to_make_a_file_there() {
    let path = "/dev/rawcached-no-such-device";
    let output = run(&["serve", "--server-admin", "", "--device-path", path]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains(&format!("there is no device {path}: lsblk")), "{message}");
    assert!(!message.contains("rawcached format"), "{message}");

    let output = run(&["format", path, "--size", "64MiB", "--yes"]);
    let made = fs::remove_file(path).is_ok();
    let message = stderr(&output);
    assert!(!made && output.status.code() == Some(2), "{message}");
    assert!(message.contains("would be a file in memory: name a device"), "{message}");
}

#[test]
fn an_image_in_memory_is_made_by_force_only() {
    let Some(memory) = require(MountedImage::create("tmpfs", 32 << 20)) else { return };
    let path = memory.path().join("x.img");
    let image = path.to_str().unwrap();
    let format = ["format", image, "--size", "16MiB"];
    let output = run(&format);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("add --force"), "{}", stderr(&output));
    assert!(!path.exists());
    let output = run(&[&format[..], &["--force"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    // What is there is not to be made.
    let output = run(&format);
    assert!(stderr(&output).contains("is there already"), "{}", stderr(&output));
}

#[test]
fn an_image_larger_than_what_is_free_is_made_with_a_warning() {
    let Some(memory) = require(MountedImage::create("tmpfs", 32 << 20)) else { return };
    let path = memory.path().join("x.img");
    let format = |size| {
        let _ = fs::remove_file(&path);
        let output = run(&["format", path.to_str().unwrap(), "--size", size, "--force"]);
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    assert_eq!(format("16MiB"), "");
    let message = format("64MiB");
    let expected = format!("rawcached: {} may grow to 64MiB, and its file system", path.display());
    assert!(message.starts_with(&expected), "{message}");

    let path = memory.path().join("y.img");
    let mut daemon = Daemon::spawn(
        rawcached(memory.path())
            .args(["serve", "--server-admin", "", "--device-size", "64MiB", "--device-path"])
            .arg(&path),
    );
    daemon.wait_for("may grow to 64MiB");
}

#[test]
fn probe_tells_which_store_is_on_a_device_in_use_or_not() {
    let directory = directory();
    let path = directory.path().join("x.img");
    let run = |arguments: &[&str]| -> Value {
        let output = rawcached(directory.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let store = || {
        let report = run(&["probe", "x.img", "--json"]);
        (report["store_uuid"].clone(), report["store_damage"].clone())
    };
    File::create(&path).unwrap().set_len(64 << 20).unwrap();
    assert_eq!(store(), (Value::Null, Value::Null));

    let format = rawcached(directory.path()).args(["format", "x.img", "--yes"]).output().unwrap();
    assert!(format.status.success(), "{}", stderr(&format));
    let uuid = run(&["inspect", "x.img", "--json"])["uuid"].clone();
    assert_eq!(store(), (uuid.clone(), Value::Null));
    let text = rawcached(directory.path()).args(["probe", "x.img"]).output().unwrap();
    let uuid_text = uuid.as_str().unwrap();
    assert!(
        stdout(&text)
            .lines()
            .any(|line| line.starts_with("store uuid") && line.ends_with(uuid_text))
    );

    let mut daemon = Daemon::spawn(rawcached(directory.path()).args([
        "serve",
        "--server-admin",
        "",
        "--device-path",
        "x.img",
    ]));
    daemon.wait_for("serving");
    assert_eq!(store(), (uuid.clone(), Value::Null));
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));

    damage(&path, 0);
    let found = store();
    assert_eq!(found, (uuid, json!("first superblock copy: checksum mismatch")));
    damage(&path, (64 << 20) - (128 << 10));
    let both = json!("both superblock copies: checksum mismatch, checksum mismatch");
    assert_eq!(store(), (Value::Null, both));
}

/// Changes a byte of the superblock copy at `offset`: of the size of the device, which ends with zeros.
fn damage(path: &Path, offset: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0xff], offset + 88).unwrap();
}

/// Starts the embedded default in `directory` and gives what it prints, log and all, up to the end of the
/// commands for a new user. `end` is the signal by which it is ended.
fn first_start(directory: &Path, end: &str, work: impl FnOnce()) -> Vec<String> {
    let (output, writer) = std::io::pipe().unwrap();
    let mut command = rawcached(directory);
    command.args(["serve", "--server-admin", "127.0.0.1:0"]).env("RAWCACHED_STORE_ACK", "flushed");
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let child = command.spawn().unwrap();
    // Holds the other end of the pipe.
    drop(command);
    let mut ended = Ended(child);
    let mut printed = Vec::new();
    for line in BufReader::new(output).lines().map(Result::unwrap) {
        let is_last = line.starts_with("Ctrl-C");
        printed.push(line);
        if is_last {
            work();
            ended.by(end);
            return printed;
        }
    }
    panic!("no commands are printed: {printed:#?}");
}

/// A process that is killed when the test ends.
struct Ended(Child);

impl Ended {
    fn by(&mut self, signal: &str) {
        let status = Command::new("kill").args(["-s", signal, &self.0.id().to_string()]).status();
        assert!(status.unwrap().success());
        self.0.wait().unwrap();
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_start_says_what_it_runs_on_and_from_what_it_recovered_above_the_commands() {
    let directory = directory();
    let put = || {
        let mut put = rawcached(directory.path());
        let put = put.args(["put", "k"]).stdin(Stdio::null()).output().unwrap();
        assert!(put.status.success(), "{}", stderr(&put));
    };
    let at = |printed: &[String], text: &str| {
        let found = printed.iter().position(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("no {text:?} in {printed:#?}"))
    };
    let printed = first_start(directory.path(), "TERM", put);
    assert!(printed[0].contains("rawcached starts"), "{printed:#?}");
    assert!(printed[0].contains(env!("CARGO_PKG_VERSION")), "{printed:#?}");
    let device = &printed[at(&printed, "the device is open")];
    for part in ["cache.img", "size=1GiB", "engine=", "io=", "alignment="] {
        assert!(device.contains(part), "{part} in {device}");
    }
    let recovered = at(&printed, "recovered: nothing is stored yet");
    assert!(recovered < at(&printed, "rawcached serves"), "{printed:#?}");

    let printed = first_start(directory.path(), "KILL", put);
    let recovered = at(&printed, "recovered: from the index snapshot of a clean stop");
    assert!(recovered < at(&printed, "rawcached serves"), "{printed:#?}");

    let printed = first_start(directory.path(), "TERM", || {});
    at(&printed, "recovered: from footers, since there is no index snapshot, as after a crash");
}

#[test]
fn who_wants_no_colours_gets_a_log_without_on_a_terminal_too() {
    let log = |no_color: Option<&str>| {
        let terminal = nix::pty::openpty(None, None).unwrap();
        // Not for the children of other tests, which would keep it open.
        for end in [&terminal.master, &terminal.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        let directory = directory();
        let mut command = rawcached(directory.path());
        command.env_remove("NO_COLOR").envs(no_color.map(|value| ("NO_COLOR", value)));
        command.args(["serve", "--device-path", "none.img"]).stderr(terminal.slave);
        assert_eq!(command.status().unwrap().code(), Some(1));
        // Holds the other end of the terminal.
        drop(command);
        let mut log = Vec::new();
        // Reading a terminal that nobody has open any more is an error.
        let _ = File::from(terminal.master).read_to_end(&mut log);
        String::from_utf8(log).unwrap()
    };
    for (no_color, has_colours) in [(None, true), (Some(""), true), (Some("1"), false)] {
        let log = log(no_color);
        assert!(log.contains("memory"), "{log}");
        assert_eq!(log.contains('\x1b'), has_colours, "{no_color:?}: {log:?}");
    }
}

#[test]
fn a_port_in_use_comes_with_the_flag_that_takes_another() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = taken.local_addr().unwrap().to_string();
    let data = format!("tcp:{admin}");
    for (arguments, expected) in [
        (["--server-admin", &admin], "--server-admin 127.0.0.1:PORT"),
        (["--server-memcached", &data], "server.memcached (--server-memcached takes another port)"),
        (["--server-http", &data], "server.http (--server-http takes another port)"),
    ] {
        let output = run(&[&["serve", "--server-workers", "1"][..], &arguments[..]].concat());
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(expected), "{expected}: {message}");
        assert!(message.contains("Address already in use"), "{message}");
    }
}

#[test]
fn the_help_has_the_defaults_that_hold_without_a_configuration_file() {
    let help = stdout(&run(&["serve", "--help"]));
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let settings = stdout(&run(&["serve", "--check-config", "-v", "--device-path", "x.img"]));
    for (flag, setting) in [("--server-memcached", "memcached"), ("--server-http", "http")] {
        let used = settings.lines().find(|line| line.starts_with(&format!("server.{setting} = ")));
        let used = used.unwrap().split('"').nth(1).unwrap();
        let shown = help.split(&format!("{flag} <")).nth(1).unwrap();
        let shown = shown.split(']').next().unwrap();
        assert!(shown.ends_with(&format!("without a configuration file: {used}")), "{shown}");
    }
    let image = "without a configuration file and a device: rawcached-data/cache.img]";
    assert!(help.contains(image), "{help}");
}

#[test]
fn a_header_that_would_not_be_kept_is_refused_before_anything_is_sent() {
    let headers = ["--header", "Content-Type: text/css", "--header", "X-Foo: bar"];
    let output = run(&[&["put", "k", "--socket", "none.sock"][..], &headers[..]].concat());
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    let expected =
        "rawcached: --header x-foo: it would not be kept with the object; what is kept is";
    assert!(message.starts_with(expected), "{message}");
    assert!(message.contains("content-type, content-encoding"), "{message}");
}

/// What the daemon hears is what the command sends.
#[test]
fn headers_that_are_kept_or_heard_are_sent() {
    let directory = directory();
    let _daemon = serving(directory.path());
    let headers =
        ["Surrogate-Key: news", "X-Rawcached-Grace: 60", "If-None-Match: *", "ETag: \"a\""];
    let mut put = rawcached(directory.path());
    put.args(["put", "k"]).args(headers.map(|header| format!("--header={header}")));
    let output = put.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_command_on_the_socket_of_the_other_protocol_says_which_one_it_needs() {
    let directory = directory();
    let _daemon = serving(directory.path());
    let (http, memcached) = ("rawcached-data/http.sock", "rawcached-data/memcached.sock");
    let of_http = "rawcached-data/memcached.sock gives no answer in HTTP; if it is a socket of \
                   server.memcached, name one of server.http with --socket";
    let of_memcached = "rawcached-data/http.sock is an HTTP socket, and stats asks in the memcached \
                        protocol: name a socket of server.memcached with --socket";
    for (arguments, expected) in [
        (&["get", "k", "--socket", memcached][..], of_http),
        (&["put", "k", "--socket", memcached], of_http),
        (&["purge", "k", "--socket", memcached], of_http),
        (&["purge", "--all", "--socket", memcached], of_http),
        (&["stats", "--socket", http], of_memcached),
    ] {
        let mut command = rawcached(directory.path());
        let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(expected), "{arguments:?}: {message}");
    }
}

/// The command without a capability of root: what belongs to others is closed to it, as to other users.
/// None where this is not root, or there is no setpriv.
fn without(capabilities: &str, directory: &Path) -> Option<Command> {
    let given = match nix::unistd::geteuid().is_root() {
        true => command("setpriv", &[&"--version"]),
        false => Err(Missing("root, to take a capability from it".to_owned())),
    };
    require(given)?;
    let mut setpriv = Command::new("setpriv");
    setpriv
        .arg(format!("--bounding-set={capabilities}"))
        .arg(binary::path())
        .current_dir(directory);
    Some(setpriv)
}

#[test]
fn a_device_or_a_socket_that_is_denied_comes_with_what_to_add() {
    let other = Some(nix::unistd::Uid::from_raw(54321));
    let group = Some(nix::unistd::Gid::from_raw(54322));
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    File::create(at("x.img")).unwrap().set_len(64 << 20).unwrap();
    let _listener = UnixListener::bind(at("s.sock")).unwrap();
    for name in ["x.img", "s.sock"] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o660)).unwrap();
        if nix::unistd::chown(&at(name), other, group).is_err() {
            break;
        }
    }
    let owners = "54321:54322 (mode 0660)";
    let closed =
        format!("the user root may not open the image, which is of {owners}: chown root it");
    let socket =
        format!("cannot connect to unix:s.sock: it is for {owners}: usermod -a -G 54322 root");
    for (arguments, expected) in [
        (&["serve", "--server-admin", "", "--device-path", "x.img"][..], &closed),
        (&["format", "x.img"], &closed),
        (&["inspect", "x.img"], &closed),
        (&["probe", "x.img"], &closed),
        (&["get", "k", "--socket", "s.sock"], &socket),
        (&["stats", "--socket", "s.sock"], &socket),
    ] {
        let Some(mut command) = without("-dac_override,-dac_read_search", directory.path()) else {
            return;
        };
        let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
        let message = stderr(&output);
        assert_ne!(output.status.code(), Some(0), "{arguments:?}: {message}");
        assert!(message.contains(expected), "{arguments:?}: {message}");
        assert!(message.contains("Permission denied"), "{arguments:?}: {message}");
    }
}

#[test]
fn a_group_that_the_daemon_is_not_in_is_named() {
    let directory = directory();
    let Some(mut command) = without("-chown", directory.path()) else { return };
    command.args(["serve", "--server-admin", "", "--server-socket-group", "54322"]);
    let output = command.output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("cannot be given to the group 54322: the user of the daemon"),
        "{message}"
    );
}

/// Whoever looks for what is gone finds out.
#[test]
fn the_removal_of_everything_is_logged_and_not_for_each_command_of_many() {
    let directory = directory();
    let mut daemon = serving(directory.path());
    let mut client =
        UnixStream::connect(directory.path().join("rawcached-data/memcached.sock")).unwrap();
    client.write_all(&b"flush_all\r\n".repeat(20)).unwrap();
    let mut answers = vec![0; b"OK\r\n".len() * 20];
    client.read_exact(&mut answers).unwrap();
    assert_eq!(answers, b"OK\r\n".repeat(20));
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));
    let log = daemon.rest();
    let told =
        log.lines().filter(|line| line.contains("flush_all: everything stored before is removed"));
    assert_eq!(told.count(), 1, "{log}");
}

#[test]
fn a_verbose_start_tells_the_settings_and_who_connects() {
    let directory = directory();
    let arguments = ["serve", "-v", "--server-admin", "", "--server-workers", "1"];
    let mut daemon = Daemon::spawn(rawcached(directory.path()).args(arguments));
    let socket = directory.path().join("rawcached-data/http.sock");
    let mut client = None;
    eventually(|| {
        client = UnixStream::connect(&socket).ok();
        client.is_some()
    });
    let mut client = client.expect("the daemon listens");
    client
        .write_all(b"GET /v1/objects/k HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));
    let log = daemon.rest();
    let has =
        |parts: [&str; 2]| log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(has(["is not the default", "setting=\"server.workers\" value=\"1\""]), "{log}");
    assert!(has(["a client connects", "rawcached-data/http.sock"]), "{log}");
}
