//! The built command as a process. The only place that knows where it is.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Path of the command under test: `RAWCACHED_TEST_BINARY` names another build than cargo's own.
pub fn path() -> PathBuf {
    match std::env::var_os("RAWCACHED_TEST_BINARY") {
        // Tests start it in directories of their own.
        Some(path) => fs::canonicalize(path).expect("RAWCACHED_TEST_BINARY names a file"),
        None => env!("CARGO_BIN_EXE_rawcached").into(),
    }
}

/// The binary, without settings from the environment of the test.
pub fn rawcached() -> Command {
    let mut command = Command::new(path());
    command.stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("RAWCACHED_") || name.starts_with("LISTEN_") {
            command.env_remove(name);
        }
    }
    command.env_remove("NOTIFY_SOCKET");
    command
}

/// Runs the binary to its end.
pub fn run(arguments: &[&dyn AsRef<OsStr>]) -> Output {
    rawcached().args(arguments.iter().map(|argument| argument.as_ref())).output().unwrap()
}

/// Formats a device or an existing file, whatever is on it.
pub fn format(path: &Path) {
    let output = run(&[&"format", &path, &"--yes", &"--force"]);
    assert!(output.status.success(), "{}", stderr(&output));
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
