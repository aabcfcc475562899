//! Every command of the documents that can be run without root, packages or a network is run, in the
//! order of its document, in a directory of its own that stands for the machine: `/dev/nvme1n1` is an
//! image file in it, and
//! `/etc`, `/run` and `/usr` are folders of it. What cannot be run is named here, with the reason.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::binary;
use crate::support::machine::{Missing, require};

use super::{Document, documents, examples};

const DEVICE: &str = "/dev/nvme1n1";
const CONFIGURATION: &str = "etc/rawcached/rawcached.toml";

/// Beginnings of paths that are in the directory of the test instead.
const OF_THE_MACHINE: &[&str] = &[
    "/dev/nvme",
    "/etc/rawcached",
    "/etc/systemd",
    "/run/rawcached",
    "/usr/bin",
    "/usr/lib/sysusers.d",
    "/usr/lib/tmpfiles.d",
    "/usr/share",
];

/// Examples that are no commands, by document and the beginning of their first line.
const NO_COMMANDS: &[(&str, &str)] = &[
    ("README.md", "upstream rawcached {"),
    ("README.md", "flowchart TD"),
    ("docs/ARCHITECTURE.md", "proxy ──unix socket──▶"),
    ("docs/benchmarking.md", "# what nginx is told"),
    ("docs/benchmarking.md", "# what Traffic Server is told"),
    ("docs/http.md", "import http.client"),
    ("docs/http.md", "class Cache(http.client.HTTPConnection):"),
    ("docs/http.md", "def connect("),
    ("docs/http.md", "def ask("),
    ("docs/http.md", "cache = Cache("),
    ("docs/http.md", "location /objects/ {"),
    ("docs/http.md", "defaults"),
    ("docs/metrics.md", "rate(rawcached_"),
    ("docs/metrics.md", "histogram_quantile("),
    ("docs/metrics.md", "rawcached_index_bytes /"),
    ("docs/operating.md", "SUBSYSTEM=="),
    ("docs/proxy.md", "client → proxy"),
    ("docs/proxy.md", "purge_method = true"),
    ("docs/proxy.md", "access_log = "),
    ("docs/proxy.md", "{\"time\":"),
    ("docs/operating.md", "/var/log/rawcached/*.log {"),
    ("docs/memcached.md", "upstream rawcached {"),
    ("docs/memcached.md", "location / {"),
    ("docs/responses.md", "upstream rawcached {"),
    ("docs/responses.md", "location / {"),
    ("docs/recipes.md", "[[proxy]]"),
    ("docs/recipes.md", "upstream rawcached {"),
    ("docs/recipes.md", "defaults"),
    ("docs/recipes.md", "http://:80 {"),
    ("docs/recipes.md", "<Proxy balancer://site>"),
    ("docs/recipes.md", "vcl 4.1;"),
    ("docs/recipes.md", "static_resources:"),
    ("docs/operating.md", "[Service]"),
    ("docs/operating.md", "[server]"),
];

/// With these begin the commands of `docs/measurements`; all other examples there are figures.
const PROGRAMS: &[&str] = &["rawcached bench ", "cargo ", "python3 ", "benches/"];

/// Commands that are not run: document, beginning, reason.
const NOT_RUN: &[(&str, &str, &str)] = &[
    ("docs/benchmarking.md", "rawcached bench load --memcached R ", "minutes, and other servers"),
    ("docs/benchmarking.md", "rawcached bench load --http H ", "minutes, and other servers"),
    ("docs/benchmarking.md", "benches/instructions/replay.py ", "needs valgrind"),
    ("docs/benchmarking.md", "benches/proxies/compare.py ", "minutes, and other servers"),
    ("docs/benchmarking.md", "seq ", "needs nginx"),
    (
        "docs/cli.md",
        "rawcached purge ",
        "needs the daemon of the machine; tests of the commands run it",
    ),
    ("docs/http.md", "S=/run/", "is run by `curl_stores_reads_and_removes`"),
    ("docs/http.md", "curl ", "is run by `curl_stores_reads_and_removes`"),
    ("docs/http.md", "cat movie.mp4 ", "is run by `curl_stores_reads_and_removes`"),
    ("docs/operating.md", "cargo run --example manual ", "a build; what it writes is there"),
    ("docs/operating.md", "systemd-", "needs root, changes the machine"),
    ("docs/operating.md", "systemctl ", "needs root and systemd"),
    ("docs/proxy.md", "rawcached serve --upstream ", "needs a server behind the cache"),
    ("docs/proxy.md", "curl ", "needs a server behind the cache"),
    ("docs/recipes.md", "varnishd ", "is run by `tests/daemon/proxies`"),
    ("docs/performance.md", "rawcached bench ", "minutes; the same as in docs/benchmarking.md"),
    ("docs/performance.md", "cargo bench ", "minutes, of a release build"),
    ("docs/performance.md", "benches/instructions/replay.py ", "needs two builds and valgrind"),
    ("docs/performance.md", "benches/proxies/compare.py ", "minutes, and other servers"),
    ("docs/measurements/", "rawcached bench device ", "minutes"),
    ("docs/measurements/", "cargo bench ", "minutes, of a release build"),
    ("docs/measurements/", "python3 -m venv ", "needs the network"),
    ("docs/measurements/", "benches/instructions/replay.py ", "needs two builds and valgrind"),
    ("docs/testing.md", "cargo mutants ", "needs cargo-mutants and hours"),
    ("fuzz/README.md", "fuzz/run ", "a build of its own; CI runs it"),
    ("fuzz/README.md", "cargo run ", "a build of its own, writes to the repository"),
    ("benches/foyer/README.md", "cargo build ", "a build of its own"),
    ("benches/foyer/README.md", "benches/foyer/target/", "needs that build"),
    ("benches/foyer/README.md", "python3 benches/foyer/smoke.py ", "needs that build"),
];

/// The state before the first command of a document.
const BEFORE: &[(&str, &[&str])] = &[
    ("docs/benchmarking.md", &["rawcached format /dev/nvme1n1", SERVE]),
    (
        "docs/cli.md",
        &[
            "rawcached format /dev/nvme1n1",
            SERVE,
            "echo picture | rawcached put /img/a.png --socket /run/rawcached/http.sock",
        ],
    ),
];
const SERVE: &str = "rawcached serve -c /etc/rawcached/rawcached.toml";

/// What commands print, in part.
const PRINTED: &[(&str, &str, &str)] = &[
    ("README.md", "./target/release/rawcached get greeting", "hello\n"),
    ("README.md", "curl -s http://127.0.0.1:9180/metrics", "\nrawcached_ready 1\n"),
    ("README.md", "rawcached probe /dev/nvme1n1", "direct reads"),
    ("docs/cli.md", "rawcached inspect /dev/nvme1n1", "purge floor"),
    ("docs/cli.md", "rawcached inspect /dev/nvme1n1 --region 7", "state                  blank"),
    ("docs/cli.md", "rawcached inspect /dev/nvme1n1 --key /img/a.png", "fresh"),
    ("docs/cli.md", "rawcached ls /dev/nvme1n1 --limit 20", "/img/a.png"),
    ("docs/cli.md", "rawcached check /dev/nvme1n1", "damaged               0\n"),
    ("docs/benchmarking.md", "rawcached bench device /dev/nvme1n1 --quick", "CPU us/op"),
];

/// The commands of a document in order, without remarks, lines after a backslash joined.
fn commands(document: &Document) -> Vec<String> {
    let is_of_measurements = document.name.starts_with("docs/measurements/");
    let mut commands = Vec::new();
    for example in examples(&document.text) {
        let first = example[0].trim_start();
        let is_no_command = NO_COMMANDS
            .iter()
            .any(|(name, begin)| *name == document.name && first.starts_with(begin));
        let are_figures =
            is_of_measurements && !PROGRAMS.iter().any(|name| first.starts_with(name));
        if is_no_command || are_figures {
            continue;
        }
        let text = example.join("\n").replace("\\\n", " ");
        let lines = text.lines().map(|line| line.split(" #").next().unwrap().trim());
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        commands.extend(lines.map(str::to_owned));
    }
    commands
}

fn is_listed(document: &str, command: &str, (name, begin): (&str, &str)) -> bool {
    let is_of = name == document || (name.ends_with('/') && document.starts_with(name));
    is_of && format!("{command} ").starts_with(begin)
}

fn is_run(document: &str, command: &str) -> bool {
    !NOT_RUN.iter().any(|(name, begin, _)| is_listed(document, command, (name, begin)))
}

/// A directory that stands for the machine, and the daemon that is running.
struct Machine {
    root: TempDir,
    admin: String,
    daemon: Option<Child>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Machine {
    fn new() -> Machine {
        let root = TempDir::with_prefix("rc-docs-").unwrap();
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        for folder in [
            "bin",
            "dev",
            "etc/systemd/system",
            "etc/rawcached",
            "run/rawcached",
            "target/release",
            "usr/bin",
        ] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for binary in ["bin/rawcached", "target/release/rawcached"] {
            symlink(binary::path(), root.path().join(binary)).unwrap();
        }
        super::manual::write_to(&root.path().join("target/manual")).unwrap();
        for folder in ["config", "systemd"] {
            symlink(repository.join(folder), root.path().join(folder)).unwrap();
        }
        fs::copy(repository.join("config/rawcached.toml"), root.path().join(CONFIGURATION))
            .unwrap();
        let device = fs::File::create(root.path().join(&DEVICE[1..])).unwrap();
        device.set_len(256 << 20).unwrap();
        // A free port. Another test may take it meanwhile, but that is rare.
        let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        Machine { root, admin, daemon: None }
    }

    /// A command or a file of the documents as it is on this machine.
    fn here(&self, text: &str) -> String {
        let root = self.root.path().display();
        let mut text = text.replace("cargo run --release -- ", "rawcached ");
        // Nobody sits at the terminal that is asked.
        text = text.replace("rawcached format ", "rawcached format --yes ");
        text = text.replace("127.0.0.1:9180", &self.admin);
        // This tests the command's form, not the machine.
        text = text
            .replace("--seconds 10s", "--seconds 1s")
            .replace("--quick", "--quick --seconds 5ms");
        for folder in OF_THE_MACHINE {
            text = text.replace(folder, &format!("{root}{folder}"));
        }
        text
    }

    /// Names the device in the configuration file, as an operator does.
    fn name_device(&self) {
        let path = self.root.path().join(CONFIGURATION);
        let text = fs::read_to_string(&path).unwrap();
        if text.contains(&format!("\"{DEVICE}\"")) {
            fs::write(path, self.here(&text)).unwrap();
        }
    }

    fn shell(&self, command: &str) -> Command {
        let bin = self.root.path().join("bin");
        let path = std::env::var("PATH").unwrap();
        let http = self.root.path().join("run/rawcached/http.sock");
        let mut shell = Command::new("bash");
        shell.args(["-o", "pipefail", "-c", &self.here(command)]);
        shell.current_dir(&self.root).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RAWCACHED_") {
                shell.env_remove(name);
            }
        }
        shell.env("PATH", format!("{}:{path}", bin.display()));
        shell.env("RAWCACHED_SERVER_ADMIN", &self.admin);
        if command.contains(" -c ") {
            shell.env("RAWCACHED_SERVER_HTTP", format!("unix:{}", http.display()));
        }
        shell
    }

    /// Runs a command to its end and gives what it printed; leaves a daemon running.
    fn run(&mut self, document: &str, command: &str) -> String {
        self.name_device();
        let words: Vec<&str> = command.split_whitespace().collect();
        let is_daemon = words.contains(&"serve") && !words.contains(&"--check-config");
        // The device is for one process at a time.
        if is_daemon || (command.contains(DEVICE) && words[0] == "rawcached") {
            self.stop();
        }
        if is_daemon {
            self.serve(document, command);
            return String::new();
        }
        let output = self.shell(command).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{document}: {command}\n{printed}\n{said}");
        printed
    }

    fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(&self.admin) else { return false };
        let host = format!("Host: {}\r\nConnection: close\r\n", self.admin);
        let request = format!("GET /readyz HTTP/1.1\r\n{host}\r\n");
        let mut answer = String::new();
        let asked =
            stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
        asked.is_ok() && answer.starts_with("HTTP/1.1 200 ")
    }

    /// Starts the daemon and waits until it is ready.
    fn serve(&mut self, document: &str, command: &str) {
        // The shell becomes the daemon, so that the daemon is what is ended.
        let mut shell = self
            .shell(&format!("exec {}", command.replace("cargo run --release -- ", "rawcached ")));
        let log = fs::File::create(self.root.path().join("log")).unwrap();
        shell.stdout(Stdio::null()).stderr(log);
        self.daemon = Some(shell.spawn().unwrap());
        for _ in 0..3000 {
            let is_ready = self.is_ready();
            let ended = self.daemon.as_mut().unwrap().try_wait().unwrap();
            let log = || fs::read_to_string(self.root.path().join("log")).unwrap();
            assert!(ended.is_none(), "{document}: {command}\n{}", log());
            if is_ready {
                return;
            }
            sleep(Duration::from_millis(10));
        }
        panic!("{document}: {command}: it does not answer");
    }

    /// Stops the daemon as a user does.
    fn stop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = daemon.wait().unwrap();
        assert!(status.success() || std::thread::panicking(), "the daemon: {status}");
    }
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok()
}

/// Whether a command can be run: curl is not everywhere.
fn has_its_program(command: &str) -> bool {
    if !command.starts_with("curl ") || is_installed("curl") {
        return true;
    }
    let missing = Missing(format!("curl is not installed: {command}"));
    require::<()>(Err(missing)).is_some()
}

#[test]
fn every_command_that_can_run_works() {
    let mut ran = 0;
    for document in documents() {
        let commands = commands(&document);
        if !commands.iter().any(|command| is_run(&document.name, command)) {
            continue;
        }
        let mut machine = Machine::new();
        for (_, before) in BEFORE.iter().filter(|(name, _)| *name == document.name) {
            for command in *before {
                machine.run(&document.name, command);
            }
        }
        for command in commands.iter().filter(|command| is_run(&document.name, command)) {
            if !has_its_program(command) {
                continue;
            }
            let printed = machine.run(&document.name, command);
            for (name, exact, wanted) in PRINTED {
                let is_other = *name != document.name || exact != command;
                assert!(is_other || printed.contains(wanted), "{command}: {wanted} in {printed}");
            }
            ran += 1;
        }
    }
    assert!(ran > 15, "commands are run: {ran}");
}

#[test]
fn the_lists_name_what_the_documents_have() {
    let documents = documents();
    let listed = NOT_RUN.iter().map(|(name, begin, _)| (*name, *begin));
    for (name, begin) in listed.chain(PRINTED.iter().map(|(name, begin, _)| (*name, *begin))) {
        let has = documents.iter().any(|document| {
            let mut commands = commands(document).into_iter();
            commands.any(|command| is_listed(&document.name, &command, (name, begin)))
        });
        assert!(has, "{name} has no command that begins with {begin}");
    }
    for (name, begin) in NO_COMMANDS {
        let document = documents.iter().find(|document| document.name == *name).unwrap();
        let examples = examples(&document.text);
        let has = examples.iter().any(|example| example[0].trim_start().starts_with(begin));
        assert!(has, "{name} has no example that begins with {begin}");
    }
}

#[test]
fn commands_are_found() {
    let text =
        "Run\n\n    rawcached x \\\n        --y 1  # remark\n    # remark\n    z\n\n    [no]\n";
    let name = "docs/operating.md".to_owned();
    let document = Document { path: name.clone().into(), name, text: text.to_owned() };
    assert_eq!(commands(&document), ["rawcached x          --y 1", "z", "[no]"]);
    assert!(is_run("docs/operating.md", "z"));
    assert!(!is_run("docs/operating.md", "systemctl daemon-reload"));
    assert!(is_run("README.md", "systemctl daemon-reload"));
}
