//! The servers under load, as processes of their own. Owns their start, pinning, processor time,
//! memory and end; a server ends when it is dropped.
#![allow(dead_code, reason = "each benchmark uses its part")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use rawcached::cli::bench::load::{Address, metric};
use rawcached::cli::bench::process::ProcessorTime;
use rawcached::clock::Stopwatch;

const START_PATIENCE: Duration = Duration::from_secs(20);

/// The processor of the client and that of the server: the first two allowed.
pub struct Cores {
    client: CpuSet,
    server: CpuSet,
    /// Whether they differ.
    pub apart: bool,
}

impl Cores {
    /// Chooses the processors and moves this thread to the client's.
    pub fn choose() -> anyhow::Result<Cores> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let mut numbers =
            (0..CpuSet::count()).filter(|number| allowed.is_set(*number).unwrap_or(false));
        let first = numbers.next().context("no processor is allowed")?;
        let second = numbers.next();
        let only = |number| {
            let mut set = CpuSet::new();
            set.set(number).map(|()| set)
        };
        let cores = Cores {
            client: only(first)?,
            server: only(second.unwrap_or(first))?,
            apart: second.is_some(),
        };
        sched_setaffinity(Pid::from_raw(0), &cores.client)?;
        Ok(cores)
    }

    /// What a thread calls to stay on the server's processor.
    #[allow(dead_code, reason = "each benchmark uses a part of this module")]
    pub fn stay_on_servers(&self) -> impl FnOnce() -> nix::Result<()> + Send + 'static + use<> {
        let server = self.server;
        move || sched_setaffinity(Pid::from_raw(0), &server)
    }

    /// Starts a program that stays on the server's processor: children inherit the place of the
    /// thread that starts them.
    fn spawn(&self, command: &mut Command) -> anyhow::Result<Child> {
        sched_setaffinity(Pid::from_raw(0), &self.server)?;
        let spawned = command.spawn();
        sched_setaffinity(Pid::from_raw(0), &self.client)?;
        spawned.with_context(|| format!("cannot start {}", command.get_program().display()))
    }
}

/// A running server.
pub struct Server {
    pub name: &'static str,
    /// Speaks the memcached protocol.
    pub socket: PathBuf,
    /// Speaks HTTP, if the server does.
    pub http: PathBuf,
    admin_port: Option<u16>,
    child: Child,
}

/// How rawcached is to be set up.
pub struct Setup<'a> {
    pub device: &'a Path,
    pub ram: &'a str,
    pub directory: &'a Path,
}

impl Server {
    /// Starts this project's daemon with one worker, which stays on the server's processor, on a
    /// formatted device.
    pub fn rawcached(cores: &Cores, setup: &Setup<'_>) -> anyhow::Result<Server> {
        Server::daemon(setup, 1, |command| cores.spawn(command))
    }

    /// Starts this project's daemon as it is by default, on a formatted device.
    pub fn anywhere(setup: &Setup<'_>) -> anyhow::Result<Server> {
        Server::daemon(setup, 0, |command| command.spawn().context("cannot start the daemon"))
    }

    fn daemon(
        setup: &Setup<'_>,
        workers: usize,
        spawn: impl Fn(&mut Command) -> anyhow::Result<Child>,
    ) -> anyhow::Result<Server> {
        let socket = setup.directory.join("rawcached.sock");
        let http = setup.directory.join("http.sock");
        let config = setup.directory.join("rawcached.toml");
        let admin_port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let text = format!(
            "[server]\nmemcached = [\"unix:{}\"]\nhttp = [\"unix:{}\"]\n\
             admin = \"127.0.0.1:{admin_port}\"\nworkers = {workers}\n\
             [[device]]\npath = \"{}\"\n[ram]\nsize = \"{}\"\n[log]\nlevel = \"warn\"\n",
            socket.display(),
            http.display(),
            setup.device.display(),
            setup.ram
        );
        fs::write(&config, text)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_rawcached"));
        command.arg("serve").arg("-c").arg(&config).stdin(Stdio::null());
        let child = spawn(&mut command)?;
        let admin_port = Some(admin_port);
        Server { name: "rawcached", socket, http, admin_port, child }.started()
    }

    /// Starts memcached with one thread; `None` if it is not installed.
    pub fn memcached(cores: &Cores, directory: &Path) -> anyhow::Result<Option<Server>> {
        if Command::new("memcached").arg("-V").stdout(Stdio::null()).status().is_err() {
            return Ok(None);
        }
        let socket = directory.join("memcached.sock");
        let mut command = Command::new("memcached");
        command.args(["-t", "1", "-U", "0", "-m", "1024", "-u", "root", "-s"]).arg(&socket);
        let child = cores.spawn(&mut command)?;
        let http = PathBuf::new();
        Server { name: "memcached", socket, http, admin_port: None, child }.started().map(Some)
    }

    fn started(mut self) -> anyhow::Result<Server> {
        let watch = Stopwatch::start();
        while UnixStream::connect(&self.socket).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at its start: {status}", self.name);
            }
            ensure!(watch.elapsed() < START_PATIENCE, "{} does not answer", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(self)
    }

    /// Processor time of all threads so far, user and system.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        Ok(ProcessorTime::of(self.child.id())?.total())
    }

    /// Bytes of the process that are in RAM.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        memory(&self.child.id().to_string(), "VmRSS:")
    }

    /// The most bytes of the process that were ever in RAM.
    pub fn peak_bytes(&self) -> anyhow::Result<u64> {
        memory(&self.child.id().to_string(), "VmHWM:")
    }

    /// The value of one of the daemon's metrics, named with its labels.
    pub fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let port = self.admin_port.context("this server has no metrics")?;
        metric(&Address::Tcp(([127, 0, 0, 1], port).into()), name)
    }
}

/// A line of `/proc/PROCESS/status` in bytes.
pub fn memory(process: &str, line: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let found = status.lines().find_map(|found| found.strip_prefix(line));
    let kib = found.with_context(|| format!("no {line}"))?.trim().trim_end_matches(" kB");
    Ok(kib.parse::<u64>()? << 10)
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Formats a device, or a new image file of `size`, with the daemon's own command.
pub fn format(device: &Path, size: Option<&str>) -> anyhow::Result<()> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rawcached"));
    command.arg("format").arg(device).arg("--yes").stdout(Stdio::null());
    if let Some(size) = size {
        command.args(["--size", size]);
    }
    ensure!(command.status()?.success(), "{} cannot be formatted", device.display());
    Ok(())
}
