//! Goal: `serve` takes its configuration from where it should, starts, is told what to do by signals
//! and ends, and says what happens. Method: run the built binary with what a user has: a directory,
//! variables, flags, its output.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::support::binary;
use crate::support::http;
use crate::support::machine::{Missing, require};
use crate::{directory, rawcached, stderr, stdout};

/// A daemon that is killed when the test ends.
pub struct Daemon {
    pub child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Daemon {
    fn start(command: &mut Command) -> Daemon {
        Daemon::spawn(command.args(["serve", "--server-admin", "127.0.0.1:0"]))
    }

    /// Starts a command that becomes the daemon.
    pub fn spawn(command: &mut Command) -> Daemon {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Daemon { child, lines }
    }

    /// Reads the log up to a line with `text` and returns it.
    pub fn wait_for(&mut self, text: &str) -> String {
        let mut seen = String::new();
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            if line.contains(text) {
                return line;
            }
            seen += &format!("{line}\n");
        }
        panic!("no {text:?} in the log:\n{seen}");
    }

    /// Reads the log up to its end.
    pub fn rest(&mut self) -> String {
        self.lines.by_ref().map(|line| line.unwrap() + "\n").collect()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(status.success());
    }

    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn readiness(address: &str) -> String {
    http::get(address, "/readyz").expect("the admin listener answers")
}

fn metrics(address: &str) -> String {
    http::get(address, "/metrics").expect("the admin listener answers")
}

/// Checks `text` as a configuration file with further settings from the environment.
pub fn check_config(text: &str, environment: &[(&str, &str)], flags: &[&str]) -> Output {
    let directory = directory();
    std::fs::write(directory.path().join("c.toml"), text).unwrap();
    rawcached(directory.path())
        .args(["serve", "-c", "c.toml", "--check-config"])
        .args(flags)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

const DEVICE: &str = "[[device]]\npath = \"c.img\"\nsize = \"64MiB\"\n";

#[test]
fn a_wrong_configuration_names_file_line_and_key() {
    for (text, expected) in [
        ("[server]\nadmin = \"0.0.0.0:1\"\n", "c.toml:2: server.admin: "),
        ("\n\n[ram]\nsize = \"lots\"\n", "c.toml:4: ram.size: \"lots\" is not a size"),
        ("[ram]\nsizes = \"1GiB\"\n", "c.toml:2: ram.sizes: unknown field"),
        ("[log]\nlevel = \"loud\"\n", "c.toml:2: log.level: \"loud\" is not known"),
        ("[store]\nack = 1\n", "c.toml:2: store.ack: the number 1 stands where text belongs: "),
        (
            "[server]\nhttp = \"unix:/x\"\n",
            "c.toml:2: server.http: the text \"unix:/x\" stands where",
        ),
        ("[server]\nsocket_mode = 0o660\n", "c.toml:2: server.socket_mode: the number 432 stands"),
        ("[server]\nhttp = [\"unix:/x\", \"unix:/x\"]\n", "c.toml:2: server.http: "),
        ("[ttl]\ndefault = \"2h\"\nmax = \"1h\"\n", "c.toml:2: ttl.default: "),
        ("[server\n", "c.toml:1: "),
        ("[[device]]\npath = \"/dev/y\"\n", "c.toml:3: device[1]: a second [[device]]"),
    ] {
        let output = check_config(&format!("{text}{DEVICE}"), &[], &[]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.starts_with(&format!("rawcached: {expected}")), "{expected} in {message}");
    }
    let output = check_config("[ram]\nsize = \"1GiB\"\n", &[], &[]);
    assert!(stderr(&output).contains("device.path: no device"), "{}", stderr(&output));
}

#[test]
fn all_mistakes_are_shown_and_none_that_only_follows_from_another() {
    let text = "[server]\nworkers = \"x\"\nadmim = \"\"\nmax_connections = 0\nreplay_miss_status = 200\n\
                [ttl]\ndefault = \"2h\"\nmax = \"1h\"\n[log]\nlevel = \"loud\"\n[[device]]\npath = \"\"\n\
                [[proxy]]\nlisten = [\"unix:/p\"]\nupstream = \"https://x\"\n";
    let output = check_config(text, &[("RAWCACHED_RAM_SIZE", "x")], &[]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    let mut lines = message.lines();
    assert_eq!(lines.next(), Some("rawcached: the configuration has several mistakes:"));
    let found: Vec<String> =
        lines.map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(": ")).collect();
    let expected = [
        "  c.toml:2: server.workers",
        "  c.toml:3: server.admim",
        "  c.toml:4: server.max_connections",
        "  c.toml:5: server.replay_miss_status",
        "  c.toml:7: ttl.default",
        "  c.toml:10: log.level",
        "  c.toml:12: device.path",
        "  c.toml:15: proxy.upstream",
        "  environment variable RAWCACHED_RAM_SIZE: ram.size",
    ];
    assert_eq!(found, expected, "{message}");
    // A device that is written wrong is not missing besides.
    let message = stderr(&check_config("[ram]\nsize = 1\n[device]\npath = \"/x\"\n", &[], &[]));
    let [_, size, device] = message.lines().collect::<Vec<_>>()[..] else { panic!("{message}") };
    assert!(size.starts_with("  c.toml:2: ram.size: "), "{message}");
    assert!(device.starts_with("  c.toml:3: device: a table stands where"), "{message}");
}

#[test]
fn a_valid_configuration_is_said_to_be_valid() {
    let output = check_config(DEVICE, &[], &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), "the configuration is valid\n");
}

/// The configuration is right, and a start would fail all the same.
#[test]
fn what_this_machine_lacks_is_told_by_a_check_of_the_configuration() {
    let text = "[server]\nsocket_group = \"no-such-group\"\nhttp = [\"unix:/none/http.sock\"]\n\
                [[device]]\npath = \"/dev/rawcached-none\"\n";
    let output = check_config(text, &[], &["-v"]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    for expected in [
        "device.path: there is no device /dev/rawcached-none",
        "server.socket_group: there is no group \"no-such-group\"",
        "server.http: the directory /none does not exist",
    ] {
        assert!(message.contains(&format!("\n  {expected}")), "{expected} in {message}");
    }
    let settings = stdout(&output);
    assert!(settings.contains("server.socket_group = \"no-such-group\""), "{settings}");
}

#[test]
fn a_missing_file_is_named() {
    let directory = directory();
    let output = rawcached(directory.path()).args(["serve", "-c", "none.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cannot read the configuration file none.toml"));
}

#[test]
fn flags_outrank_the_environment_which_outranks_the_file() {
    let file = format!("[ram]\nsize = \"1MiB\"\n[log]\nformat = \"json\"\n{DEVICE}");
    let environment = [("RAWCACHED_RAM_SIZE", "2MiB"), ("RAWCACHED_TTL_MAX", "30d")];
    let output = check_config(&file, &environment, &["--ttl-max", "7d", "-v"]);
    let settings = stdout(&output);
    for line in [
        "ram.size = \"2MiB\"  # environment variable RAWCACHED_RAM_SIZE",
        "ttl.max = \"7d\"  # flag --ttl-max",
        "log.format = \"json\"  # c.toml:4",
        "log.level = \"debug\"  # flag -v",
        "ttl.default = \"1h\"",
    ] {
        assert!(settings.lines().any(|found| found == line), "{line} in\n{settings}");
    }
}

/// What is printed is a file, and one that says the same: with nothing else it prints itself.
#[test]
fn the_settings_that_are_printed_can_be_used_as_a_file() {
    let file = format!(
        "[server]\nmemcached = [\"unix:/a\", {{ address = \"unix:/b\", read_only = true }}]\nworkers = 3\n\
         [[proxy]]\nlisten = [\"unix:/p\"]\nupstream = \"unix:/u\"\nbypass = [\"cookie:a=b,c\"]\n{DEVICE}"
    );
    let settings = |output: &Output| -> Vec<String> {
        assert!(output.status.success(), "{}", stderr(output));
        let printed = stdout(output);
        let lines = printed.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split("  # ").next().unwrap().to_owned()).collect()
    };
    let first = check_config(&file, &[("RAWCACHED_TTL_MAX", "30d")], &["--ram-size=9MiB", "-v"]);
    let again = check_config(&stdout(&first), &[], &["-v"]);
    assert_eq!(settings(&again), settings(&first));
    assert!(settings(&first).iter().any(|line| line == "ram.size = \"9MiB\""));
}

#[test]
fn wrong_variables_and_flags_are_blamed_by_name() {
    let output = check_config(DEVICE, &[("RAWCACHED_RAM_SIZE", "x")], &[]);
    assert!(stderr(&output).contains("environment variable RAWCACHED_RAM_SIZE: ram.size: "));
    let output = check_config(DEVICE, &[("RAWCACHED_RAM_SISE", "1")], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("RAWCACHED_RAM_SISE: there is no such setting"));
    let output = check_config(DEVICE, &[], &["--device-engine", "aio"]);
    let blamed = stderr(&output);
    assert!(blamed.contains("flag --device-engine: device.engine: "), "{blamed}");
    assert!(blamed.contains("auto, io_uring, threads"), "{blamed}");
    let output = check_config(DEVICE, &[("RAWCACHED_TEST_ANYTHING", "1")], &[]);
    assert!(output.status.success());
}

#[test]
fn what_was_stored_is_found_after_a_kill_and_after_a_stop() {
    let directory = directory();
    let body: Vec<u8> = (0..=255).cycle().take(5 << 20).collect();
    let get = || {
        let output = rawcached(directory.path()).args(["get", "k"]).output().unwrap();
        (output.status.code(), output.stdout == body)
    };
    let ready = |daemon: &mut Daemon| {
        let line = daemon.wait_for("admin listener");
        let address = line.rsplit('=').next().unwrap().trim().to_owned();
        daemon.wait_for("serving");
        while !readiness(&address).starts_with("HTTP/1.1 200 ") {}
    };
    let mut command = rawcached(directory.path());
    let mut daemon = Daemon::start(command.env("RAWCACHED_STORE_ACK", "flushed"));
    ready(&mut daemon);
    let mut put = rawcached(directory.path())
        .args(["put", "k", "--ttl", "1d"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    put.stdin.take().unwrap().write_all(&body).unwrap();
    assert!(put.wait().unwrap().success());
    daemon.signal("KILL");
    daemon.wait();

    let mut daemon = Daemon::start(&mut rawcached(directory.path()));
    ready(&mut daemon);
    assert_eq!(get(), (Some(0), true));
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));

    let mut daemon = Daemon::start(&mut rawcached(directory.path()));
    ready(&mut daemon);
    assert_eq!(get(), (Some(0), true));
}

#[test]
fn the_embedded_default_makes_its_files_and_prints_commands() {
    let directory = directory();
    let mut daemon = Daemon::start(&mut rawcached(directory.path()));
    let line = daemon.wait_for("admin listener");
    let address = line.rsplit('=').next().unwrap().trim().to_owned();
    daemon.wait_for("serving");
    let data = directory.path().join("rawcached-data");
    assert_eq!(std::fs::metadata(data.join("cache.img")).unwrap().len(), 1 << 30);
    let socket = data.join("memcached.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    UnixStream::connect(&socket).unwrap();
    while !readiness(&address).starts_with("HTTP/1.1 200 ") {}
    let metrics = metrics(&address);
    for line in ["rawcached_ready 1", "rawcached_store_regions 63", "rawcached_ram_entries 0"] {
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }

    // Before it is stopped: they come from a thread that nobody waits for.
    let mut output = BufReader::new(daemon.child.stdout.take().unwrap());
    let mut printed = String::new();
    while !printed.contains("Ctrl-C") {
        assert_ne!(output.read_line(&mut printed).unwrap(), 0, "{printed}");
    }
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));
    assert!(!socket.exists());
    for part in [
        "put greeting --ttl 10m --socket rawcached-data/http.sock",
        "get greeting --socket rawcached-data/http.sock",
        // Not "watch": it prints once.
        "  stats   ",
        &format!("curl -s http://{address}/metrics"),
    ] {
        assert!(printed.contains(part), "{part} in\n{printed}");
    }
}

#[test]
fn the_printed_commands_store_read_watch_and_purge() {
    let directory = directory();
    let mut daemon = Daemon::start(&mut rawcached(directory.path()));
    let line = daemon.wait_for("admin listener");
    let address = line.rsplit('=').next().unwrap().trim().to_owned();
    daemon.wait_for("serving");
    let run = |arguments: &[&str], input: &[u8]| {
        let mut child = rawcached(directory.path())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), output.stdout)
    };
    let body: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
    assert_eq!(run(&["put", "k", "--ttl", "10m"], &body).0, Some(0));
    let (code, found) = run(&["get", "k"], b"");
    assert!(code == Some(0) && found == body, "{code:?}, {} bytes", found.len());
    let (code, stats) = run(&["stats", "--json"], b"");
    let stats: serde_json::Value = serde_json::from_slice(&stats).unwrap();
    // Commands are those of the memcached protocol, items those of both.
    assert_eq!((code, &stats["cmd_set"]), (Some(0), &serde_json::json!(0)));
    assert!(stats["curr_items"].as_u64() > Some(0), "{stats}");
    // What was stored and read over HTTP were 3 MiB each way.
    for name in ["bytes_read", "bytes_written"] {
        assert!(stats[name].as_u64().unwrap() < 1000, "{stats}");
    }
    assert_eq!(run(&["purge", "k"], b"").0, Some(0));
    assert_eq!(run(&["get", "k"], b"").0, Some(1));
    let metrics = metrics(&address);
    for line in [
        "rawcached_http_requests_total{method=\"get\",status=\"2xx\"} 1",
        "rawcached_http_requests_total{method=\"get\",status=\"4xx\"} 1",
        "rawcached_stores_total 1",
        "rawcached_http_request_duration_seconds_count{operation=\"put\",tier=\"none\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }
}

#[test]
fn a_drain_waits_for_a_store_in_progress_and_a_second_signal_does_not() {
    let directory = directory();
    let mut daemon = Daemon::start(&mut rawcached(directory.path()));
    let line = daemon.wait_for("admin listener");
    let address = line.rsplit('=').next().unwrap().trim().to_owned();
    daemon.wait_for("serving");
    let mut client =
        UnixStream::connect(directory.path().join("rawcached-data/memcached.sock")).unwrap();
    client.write_all(b"set k 0 0 100\r\npart of it").unwrap();
    let received = "rawcached_received_bytes_total 25\n";
    while !metrics(&address).contains(received) {}
    daemon.signal("TERM");
    daemon.wait_for("draining");
    let response = readiness(&address);
    assert!(response.ends_with("the daemon is stopping\n"), "{response}");
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(1));
}

#[test]
fn the_service_manager_is_told_of_start_and_stop() {
    let directory = directory();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let next = || {
        let mut buffer = [0; 4096];
        let len = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    };
    let mut command = rawcached(directory.path());
    let mut daemon =
        Daemon::start(command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000"));
    while !next().contains("READY=1") {}
    UnixStream::connect(directory.path().join("rawcached-data/memcached.sock")).unwrap();
    while !next().contains("WATCHDOG=1") {}
    daemon.signal("INT");
    while !next().contains("STOPPING=1") {}
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn a_hangup_changes_the_log_level_and_names_what_needs_a_restart() {
    let directory = directory();
    let path = directory.path().join("c.toml");
    let device =
        "[server]\nmemcached = [\"unix:s.sock\"]\n[[device]]\npath = \"c.img\"\nsize = \"64MiB\"\n";
    std::fs::write(&path, device).unwrap();
    let mut daemon = Daemon::start(rawcached(directory.path()).env("RAWCACHED_CONFIG", "c.toml"));
    daemon.wait_for("serving");
    let changed = "[log]\nlevel = \"debug\"\n[ram]\nsize = \"0\"\n";
    std::fs::write(&path, format!("{device}{changed}")).unwrap();
    daemon.signal("HUP");
    assert!(daemon.wait_for("need a restart").contains("ram.size"));
    daemon.wait_for("log.level is changed");
    std::fs::write(&path, "[log]\nlevel = \"loud\"\n").unwrap();
    daemon.signal("HUP");
    assert!(daemon.wait_for("nothing is changed").contains("c.toml:2: log.level"));
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn a_second_daemon_does_not_take_over_a_live_socket() {
    let directory = directory();
    let mut first = Daemon::start(&mut rawcached(directory.path()));
    first.wait_for("serving");
    let output =
        rawcached(directory.path()).args(["serve", "--server-admin", ""]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    UnixStream::connect(directory.path().join("rawcached-data/memcached.sock")).unwrap();
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing_behind() {
    let directory = directory();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output =
        rawcached(directory.path()).args(["serve", "--server-admin", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    let reason = format!("rawcached: server.admin: cannot listen on {address}");
    assert!(message.contains(&reason), "{message}");
    assert!(!message.contains("ERROR"), "the cache was open and has closed well: {message}");
    assert!(!directory.path().join("rawcached-data/memcached.sock").exists());
    let mut daemon = Daemon::start(&mut rawcached(directory.path()));
    daemon.wait_for("serving");
}

#[test]
fn a_message_names_what_it_is_about_once() {
    let directory = directory();
    std::fs::create_dir(directory.path().join("folder")).unwrap();
    std::fs::write(directory.path().join("c.toml"), "[[device]]\npath = \"folder\"\n").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp:{}", taken.local_addr().unwrap());
    let taken = ["serve", "--server-admin", "", "--server-memcached", &address];
    let cases: [(&[&str], &str); 3] = [
        (&["serve", "-c", "c.toml"], "folder"),
        (&taken, &address),
        (&["bench", "load", "--memcached", "unix:none.sock"], "none.sock"),
    ];
    for (arguments, subject) in cases {
        let output = rawcached(directory.path()).args(arguments).output().unwrap();
        let message = stderr(&output);
        let error =
            message.lines().find(|line| line.starts_with("rawcached: ")).unwrap_or_default();
        assert_eq!(error.matches(subject).count(), 1, "{subject}: {message}");
    }
}

#[test]
fn sockets_from_the_service_manager_take_the_place_of_configured_ones() {
    let directory = directory();
    // systemd-socket-activate is not everywhere; a shell can hand a socket to descriptor 3 only
    // if something listens, so python does what systemd does.
    let program = format!(
        "import os,socket\n\
         s=socket.socket(socket.AF_UNIX); s.bind('given.sock'); s.listen(8)\n\
         os.dup2(s.fileno(),3); os.set_inheritable(3,True)\n\
         os.environ.update(LISTEN_PID=str(os.getpid()),LISTEN_FDS='1',LISTEN_FDNAMES='memcached')\n\
         os.execv('{0}',['{0}','serve','--server-admin','127.0.0.1:0'])\n",
        binary::path().display()
    );
    let mut python = Command::new("python3");
    python.arg("-c").arg(program).current_dir(directory.path());
    let child = python.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.map_err(|error| Missing(format!("python3: {error}")));
    let Some(mut child) = require(child) else { return };
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut daemon = Daemon { child, lines };
    daemon.wait_for("listeners from the service manager");
    daemon.wait_for("serving");
    assert!(!directory.path().join("rawcached-data/memcached.sock").exists());
    UnixStream::connect(directory.path().join("given.sock")).unwrap();
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));
    assert!(directory.path().join("given.sock").exists(), "it belongs to the service manager");
}
