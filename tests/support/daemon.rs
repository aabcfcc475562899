//! The built daemon as a process: its configuration in a directory of its own, its log caught,
//! killed when dropped.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use tempfile::TempDir;

use super::binary::rawcached;
use super::cgroup::Cgroup;
use super::http;
use super::memcached::Client;
use super::process::Process;
use super::waiting::{PATIENCE, eventually};

/// A daemon on one device. It is started, killed and started again; dropping it kills it.
pub struct Daemon {
    directory: TempDir,
    process: Option<Process>,
    admin: Option<String>,
    launcher: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Daemon {
    /// Configures a daemon on `device`, with further lines of the `[server]` section; does not
    /// start it.
    pub fn new(device: &Path, server: &str) -> Daemon {
        let directory = TempDir::with_prefix("rawcached-test-").unwrap();
        let socket = directory.path().join("memcached.sock");
        let mut daemon = Daemon {
            directory,
            process: None,
            admin: None,
            launcher: Vec::new(),
            environment: Vec::new(),
        };
        let mut listeners = format!("memcached = [\"unix:{}\"]", socket.display());
        if server.contains("memcached =") {
            listeners.clear();
        }
        let server = server.replace("SOCKET", &socket.display().to_string());
        daemon.configure(&format!(
            "[server]\n{listeners}\nadmin = \"127.0.0.1:0\"\n{server}\n\
             [[device]]\npath = \"{}\"\n",
            device.display()
        ));
        daemon
    }

    /// A running daemon.
    pub fn start(device: &Path) -> Daemon {
        let mut daemon = Daemon::new(device, "");
        daemon.restart();
        daemon
    }

    /// Replaces the configuration file.
    pub fn configure(&mut self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    /// Adds lines to the end of the configuration file.
    pub fn configure_more(&mut self, text: &str) {
        let before = fs::read_to_string(self.config()).unwrap();
        self.configure(&(before + text));
    }

    /// Starts it by a launcher that runs the command after its own arguments: `prlimit`.
    pub fn launch_with(&mut self, launcher: &[&str]) {
        self.launcher = launcher.iter().map(|&argument| argument.to_owned()).collect();
    }

    /// Starts it in a memory cgroup.
    pub fn launch_in(&mut self, cgroup: &Cgroup) {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", cgroup.path().display());
        self.launch_with(&["sh", "-c", &enter, "sh"]);
    }

    /// Adds a variable to its environment.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub fn config(&self) -> PathBuf {
        self.directory.path().join("rawcached.toml")
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("memcached.sock")
    }

    /// Where the admin listener of the running daemon is.
    pub fn admin(&self) -> &str {
        self.admin.as_deref().expect("the daemon runs")
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the daemon runs").0.id()
    }

    /// Everything logged since the last start.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Starts the stopped daemon, and returns when recovery is complete.
    pub fn restart(&mut self) {
        self.spawn();
        let ready = eventually(|| {
            let ended = self.process.as_mut().unwrap().0.try_wait().unwrap();
            assert!(ended.is_none(), "the daemon ended: {ended:?}\n{}", self.log());
            let log = self.log();
            // The address follows its name and ends the line.
            let line = log.lines().find(|line| line.contains("admin listener"));
            self.admin = line.and_then(|line| line.rsplit('=').next()).map(|at| at.trim().into());
            let Some(admin) = &self.admin else { return false };
            http::get(admin, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200 "))
        });
        assert!(ready, "the daemon does not become ready:\n{}", self.log());
    }

    /// Starts it and does not wait.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "the daemon is running");
        self.admin = None;
        let log = File::create(self.directory.path().join("log")).unwrap();
        let mut command = rawcached();
        if let Some((program, arguments)) = self.launcher.split_first() {
            let launched = command;
            command = Command::new(program);
            command.args(arguments).arg(launched.get_program()).stdin(Stdio::null());
            for (name, _) in launched.get_envs() {
                command.env_remove(name);
            }
        }
        let child = command
            .env_remove("RUST_LOG")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .args(["serve", "-c"])
            .arg(self.config())
            .current_dir(self.directory.path())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.process = Some(Process(child.unwrap()));
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the daemon runs");
        let ended = process.0.try_wait().unwrap();
        assert!(ended.is_none(), "the daemon ended by itself: {ended:?}\n{}", self.log());
        process.0.kill().unwrap();
        process.0.wait().unwrap();
    }

    /// Ends it with SIGTERM and waits for the end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        let mut process = self.process.take().expect("the daemon runs");
        process.0.wait().unwrap()
    }

    /// Sends it a signal and does not wait.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Ends it with SIGKILL, unless it has ended; gives how it ended.
    pub fn kill_or_ended(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the daemon runs");
        process.0.kill().unwrap();
        process.0.wait().unwrap()
    }

    /// What `/readyz` answers.
    pub fn readiness(&self) -> String {
        http::get(self.admin(), "/readyz").expect("the admin listener answers")
    }

    /// Waits for it to end by itself; gives how it ended and its log.
    pub fn wait(&mut self) -> (ExitStatus, String) {
        let mut process = self.process.take().expect("the daemon runs");
        let ended = eventually(|| process.0.try_wait().unwrap().is_some());
        assert!(ended, "the daemon goes on:\n{}", self.log());
        (process.0.wait().unwrap(), self.log())
    }

    /// Bytes of memory that it uses now.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }

    /// The page of metrics.
    pub fn metrics(&self) -> String {
        http::get(self.admin(), "/metrics").expect("the admin listener answers")
    }

    /// The value of a metric, named with its labels.
    pub fn metric(&self, name: &str) -> u64 {
        let page = self.metrics();
        let value = page.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        value.unwrap_or_else(|| panic!("{name} in\n{page}")).parse().unwrap()
    }

    pub fn connect(&self) -> Client {
        Client::over(self.stream())
    }

    /// A connection for a client that does not behave.
    pub fn stream(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}
