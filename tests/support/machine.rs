//! What a test needs from the machine. A test whose needs are missing is skipped, loudly.

use std::ffi::OsStr;
use std::process::Command;

/// Why something cannot be had on this machine.
#[derive(Debug)]
pub struct Missing(pub String);

/// Gives what was found; if it is missing, says `SKIPPED` and gives `None`, so that the test can
/// return. With `RAWCACHED_TEST_REQUIRE=all` in the environment it panics instead.
pub fn require<T>(found: Result<T, Missing>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(Missing(why)) => {
            let all = std::env::var("RAWCACHED_TEST_REQUIRE").is_ok_and(|value| value == "all");
            assert!(!all, "required, but missing: {why}");
            eprintln!("SKIPPED: {why}");
            None
        }
    }
}

/// Runs a program to its end; gives its standard output, trimmed.
pub fn command(program: &str, arguments: &[&dyn AsRef<OsStr>]) -> Result<String, Missing> {
    let output = Command::new(program).args(arguments.iter().map(|a| a.as_ref())).output();
    let output = output.map_err(|error| Missing(format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(Missing(format!("{program}: {}: {}", output.status, message.trim())))
}
