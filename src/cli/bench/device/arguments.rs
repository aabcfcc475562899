//! The options of `rawcached bench device`. Owns their names and limits.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::device::{THREADS_DEFAULT, THREADS_MAX};
use crate::units::Period;

const ROW: Duration = Duration::from_secs(1);
const ROW_QUICK: Duration = Duration::from_millis(300);

#[derive(Debug, Args)]
pub(in crate::cli) struct DeviceArgs {
    /// Block device or image file
    pub(super) path: PathBuf,
    /// Measure writes too, which destroys what is on it; needs --yes
    #[arg(long)]
    pub(super) write: bool,
    /// With --write: do not ask
    #[arg(long, requires = "write")]
    pub(super) yes: bool,
    /// With --write: also where a store, a file system or a partition table is
    #[arg(long, requires = "write")]
    pub(super) force: bool,
    /// Fewer rows and 300ms for each, for a first look
    #[arg(long)]
    pub(super) quick: bool,
    /// Time for each row [default: 1s, with --quick 300ms]
    #[arg(long, value_name = "TIME", value_parser = parse_row)]
    seconds: Option<Period>,
    /// Threads of the thread-pool engine
    #[arg(long, default_value_t = THREADS_DEFAULT, value_name = "N", value_parser = parse_threads)]
    pub(super) threads: usize,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl DeviceArgs {
    /// Time for each row.
    pub(super) fn row(&self) -> Duration {
        let default = if self.quick { ROW_QUICK } else { ROW };
        self.seconds.map_or(default, |period| period.0)
    }
}

fn parse_row(text: &str) -> Result<Period, String> {
    let period: Period = text.parse().map_err(|error| format!("{error}"))?;
    let is_possible = (Duration::from_millis(1)..=Duration::from_secs(600)).contains(&period.0);
    if is_possible { Ok(period) } else { Err("write a time from 1ms to 10m".to_owned()) }
}

fn parse_threads(text: &str) -> Result<usize, String> {
    let found = text.parse().ok().filter(|threads| (2..=THREADS_MAX).contains(threads));
    found.ok_or_else(|| format!("write a number from 2 to {THREADS_MAX}"))
}
