//! Goal: nothing outside holds up the thread that accepts, answers health checks and takes signals.
//! Method: the built daemon with a log, a standard output or a service manager that takes nothing, and
//! with the socket of a server that has stopped accepting.

use std::fs;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::support::binary::rawcached;
use crate::support::http;
use crate::support::memcached::Client;
use crate::support::process::Process;
use crate::support::waiting::eventually;

/// The least that the kernel gives a pipe.
const PIPE_LEN: i32 = 4096;
/// Far longer than the daemon waits for anybody to read its last words.
const END_MAX: Duration = Duration::from_secs(15);

/// A daemon whose log may be read by nobody: its admin address is chosen before.
struct Daemon {
    directory: TempDir,
    admin: String,
    process: Process,
}

fn directory() -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let path = directory.path().display();
    let server = format!("[server]\nmemcached = [\"unix:{path}/s\"]\nadmin = \"{free}\"\n");
    let device = format!("[[device]]\npath = \"{path}/cache.img\"\nsize = \"16MiB\"\n");
    fs::write(directory.path().join("c.toml"), server + &device).unwrap();
    (directory, free)
}

fn start(command: impl FnOnce(&mut Command)) -> Daemon {
    let (directory, admin) = directory();
    let mut serve = rawcached();
    serve.args(["serve", "-c", "c.toml"]).current_dir(directory.path());
    serve.stdout(Stdio::null()).stderr(Stdio::null());
    command(&mut serve);
    let process = Process(serve.spawn().unwrap());
    // Its ends of pipes are its own.
    drop(serve);
    let daemon = Daemon { directory, admin, process };
    assert!(eventually(|| daemon.answers("/readyz")), "it does not become ready");
    daemon
}

impl Daemon {
    fn answers(&self, path: &str) -> bool {
        http::get(&self.admin, path).is_some_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.process.0.id()).unwrap()), signal).unwrap();
    }

    /// New clients are served, and SIGTERM ends it.
    fn expect_alive_and_stop(mut self) {
        assert!(self.answers("/healthz"));
        let mut client = Client::connect(&self.directory.path().join("s"));
        assert_eq!(client.set("k", b"value"), "STORED");
        self.signal(Signal::SIGTERM);
        assert!(end(&mut self.process).success());
    }
}

fn end(process: &mut Process) -> ExitStatus {
    let (ended, wait) = std::sync::mpsc::channel();
    let pid = Pid::from_raw(i32::try_from(process.0.id()).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if wait.recv_timeout(END_MAX).is_err() {
                kill(pid, Signal::SIGKILL).unwrap();
            }
        });
        let status = process.0.wait().unwrap();
        ended.send(()).ok();
        status
    })
}

/// A pipe of [`PIPE_LEN`] bytes.
fn pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    assert_eq!(fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_LEN)), Ok(PIPE_LEN));
    (reader, writer)
}

/// A pipe that takes no more.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe();
    writer.write_all(&[b'.'; PIPE_LEN as usize]).unwrap();
    (reader, writer)
}

#[test]
fn a_log_that_nobody_reads_stops_nothing_and_its_losses_are_told() {
    let (mut unread, log) = full_pipe();
    let daemon = start(|command| {
        command.stderr(log);
    });
    // Each attempt to read this is a long line.
    let wrong = format!("{} = 1\n", "x".repeat(60_000));
    fs::write(daemon.directory.path().join("c.toml"), wrong).unwrap();
    let lost = || {
        daemon.signal(Signal::SIGHUP);
        let page = http::get(&daemon.admin, "/metrics").expect("the admin listener answers");
        let lost =
            page.lines().find_map(|line| line.strip_prefix("rawcached_log_lost_lines_total "));
        lost.is_some_and(|lost| lost != "0")
    };
    assert!(eventually(lost));
    let reader = std::thread::spawn(move || {
        let mut log = String::new();
        while !log.contains("log lines were lost") {
            let mut bytes = [0; 1 << 16];
            let len = unread.read(&mut bytes).unwrap();
            assert!(len > 0, "it ended");
            log += &String::from_utf8_lossy(&bytes[..len]);
        }
        unread
    });
    let unread = reader.join().unwrap();
    daemon.expect_alive_and_stop();
    drop(unread);
}

#[test]
fn a_log_that_nobody_reads_does_not_keep_it_from_stopping() {
    let (unread, log) = full_pipe();
    start(|command| {
        command.stderr(log);
    })
    .expect_alive_and_stop();
    // Nor from saying why it cannot start.
    let (unread_too, log) = full_pipe();
    let mut serve = rawcached();
    serve.args(["serve", "-c", "/nonexistent"]).stdout(Stdio::null()).stderr(log);
    assert_eq!(end(&mut Process(serve.spawn().unwrap())).code(), Some(2));
    drop((unread, unread_too));
}

#[test]
fn a_standard_output_that_nobody_reads_stops_nothing() {
    let (unread, output) = full_pipe();
    let daemon = start(|command| {
        // Without a file it prints what can be done with it.
        let directory = command.get_current_dir().unwrap().to_owned();
        let text = fs::read_to_string(directory.join("c.toml")).unwrap();
        let admin = text.lines().find_map(|line| line.strip_prefix("admin = ")).unwrap();
        let mut embedded = rawcached();
        embedded.args(["serve", "--server-admin", admin.trim_matches('"')]);
        let socket = format!("unix:{}/s", directory.display());
        embedded.args(["--server-memcached", &socket]);
        embedded.current_dir(directory).stdout(output).stderr(Stdio::null());
        *command = embedded;
    });
    daemon.expect_alive_and_stop();
    drop(unread);
}

#[test]
fn a_service_manager_that_takes_nothing_stops_nothing() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send_to(b"x", &path).is_ok() {}
    let daemon = start(|command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "20000");
    });
    std::thread::sleep(Duration::from_millis(500));
    daemon.expect_alive_and_stop();
    drop(manager);
}

/// A server that does not accept, with as many clients as may wait.
fn full_backlog(path: &Path) -> (std::os::fd::OwnedFd, Vec<std::os::fd::OwnedFd>) {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let open = || socket::socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
    let address = UnixAddr::new(path).unwrap();
    let server = open();
    socket::bind(server.as_raw_fd(), &address).unwrap();
    socket::listen(&server, Backlog::new(0).unwrap()).unwrap();
    let clients = std::iter::repeat_with(open);
    let waits =
        |client: &std::os::fd::OwnedFd| socket::connect(client.as_raw_fd(), &address).is_ok();
    let clients = clients.take_while(waits).collect();
    (server, clients)
}

#[test]
fn a_start_beside_a_server_that_does_not_accept_is_refused_at_once() {
    let (directory, _) = directory();
    let held = full_backlog(&directory.path().join("s"));
    let mut serve = rawcached();
    serve.args(["serve", "-c", "c.toml"]).current_dir(directory.path());
    let log = fs::File::create(directory.path().join("log")).unwrap();
    let mut process = Process(serve.stderr(log).spawn().unwrap());
    let ended = end(&mut process);
    let log = fs::read_to_string(directory.path().join("log")).unwrap();
    assert_eq!(ended.code(), Some(1), "{log}");
    assert!(log.contains("another server answers on"), "{log}");
    drop(held);
}

/// A FIFO that nobody writes to, in the place of the configuration file.
#[test]
fn a_configuration_that_cannot_be_read_to_its_end_stops_nothing() {
    let daemon = start(|_| {});
    let config = daemon.directory.path().join("c.toml");
    fs::remove_file(&config).unwrap();
    nix::unistd::mkfifo(&config, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for _ in 0..3 {
        daemon.signal(Signal::SIGHUP);
        std::thread::sleep(Duration::from_millis(100));
    }
    let stream = UnixStream::connect(daemon.directory.path().join("s")).unwrap();
    drop(stream);
    daemon.expect_alive_and_stop();
}
