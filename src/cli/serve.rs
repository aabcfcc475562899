//! `rawcached serve`: from flags to a configuration, and from there to the daemon.

use std::process::ExitCode;
use std::sync::Arc;

use super::arguments::ServeArgs;
use super::exit::{EXIT_NEGATIVE, EXIT_UNUSABLE, fail};
use super::output;
use crate::config::{ConfigError, KEYS, LogLevel, MemoryPlan, Sources};
use crate::daemon;

/// Serves, or only checks the configuration.
pub fn run(arguments: ServeArgs) -> ExitCode {
    let check_only = arguments.check_config;
    let verbose = arguments.verbose > 0;
    // Starting again would not help: see RestartPreventExitStatus in the unit.
    let sources = match sources(arguments) {
        Ok(sources) => sources,
        Err(error) => return fail(&error.into(), EXIT_UNUSABLE),
    };
    let config = match sources.load() {
        Ok(config) => config,
        Err(error) => return fail(&all(sources.mistakes(error)), EXIT_UNUSABLE),
    };
    let memory = match sources.plan_memory(&config, daemon::available()) {
        Ok(memory) => memory,
        Err(error) => return fail(&error.into(), EXIT_UNUSABLE),
    };
    if check_only {
        let shown = match verbose.then(|| sources.show(&config)).transpose() {
            Ok(shown) => shown,
            Err(error) => return fail(&error.into(), EXIT_UNUSABLE),
        };
        if output::print(&report(shown, &memory)).is_err() {
            return ExitCode::from(EXIT_UNUSABLE);
        }
        return tell_absent(&daemon::absent(&config));
    }
    match daemon::run(config, memory, Arc::new(move || sources.load())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, EXIT_NEGATIVE),
    }
}

/// One error for all `mistakes`.
fn all(mut mistakes: Vec<ConfigError>) -> anyhow::Error {
    match mistakes.pop() {
        Some(only) if mistakes.is_empty() => only.into(),
        last => {
            let all = mistakes.iter().chain(&last);
            let list: String = all.map(|mistake| format!("\n  {mistake}")).collect();
            anyhow::anyhow!("the configuration has several mistakes:{list}")
        }
    }
}

/// Says what this machine does not have of what a valid configuration names.
fn tell_absent(absent: &[String]) -> ExitCode {
    if absent.is_empty() {
        return ExitCode::SUCCESS;
    }
    let list: String = absent.iter().map(|reason| format!("\n  {reason}")).collect();
    let error = anyhow::anyhow!("a start would fail on this machine as it is now:{list}");
    fail(&error, EXIT_NEGATIVE)
}

fn sources(arguments: ServeArgs) -> Result<Sources, ConfigError> {
    let mut sources = Sources::from_environment(std::env::vars_os())?;
    if let Some(path) = arguments.config {
        sources.set_file(path);
    }
    if let (Some(level), Some(key)) =
        (verbosity(arguments.verbose), KEYS.iter().find(|key| key.path() == "log.level"))
    {
        sources.set_flag(key, level.to_string(), "-v".to_owned());
    }
    arguments.overrides.add_to(&mut sources);
    if let Some(upstream) = arguments.upstream {
        sources.set_proxy(upstream, arguments.listen);
    }
    Ok(sources)
}

fn verbosity(count: u8) -> Option<LogLevel> {
    match count {
        0 => None,
        1 => Some(LogLevel::Debug),
        _ => Some(LogLevel::Trace),
    }
}

/// What `--check-config` prints of a configuration that is valid: with all settings it is a file that can be
/// used.
fn report(settings: Option<String>, memory: &MemoryPlan) -> String {
    const VALID: &str = "the configuration is valid\n";
    match settings {
        Some(settings) => format!("{settings}# memory: {memory}\n# {VALID}"),
        None => VALID.to_owned(),
    }
}
