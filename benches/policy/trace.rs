//! A sequence of requests to replay. Owns its text form, which other programs write and read, and
//! what can be said of it as a whole.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};

/// Wants an object, and stores it if it is not there.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Seconds since the first request; never falls.
    pub at_secs: u64,
    pub key: u64,
    /// Bytes of the object's body.
    pub size: u32,
    /// Lifetime of the object if this request stores it.
    pub ttl: Duration,
}

/// Longer than any trace: the object does not expire.
pub const NO_END: Duration = Duration::from_secs(1_000_000_000);

/// A named sequence of requests.
pub struct Trace {
    pub name: String,
    pub requests: Vec<Request>,
}

impl Trace {
    /// Reads a file of comma-separated lines under a line of titles. `size` and `key` (or `lbn`)
    /// must be there, `time` and `ttl` (both in seconds) may be.
    pub fn read(path: &Path) -> anyhow::Result<Trace> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut lines = text.lines();
        let titles: Vec<&str> = lines.next().context("the trace is empty")?.split(',').collect();
        let column = |names: &[&str]| titles.iter().position(|title| names.contains(title));
        let key = column(&["key", "lbn"]).context("no column key or lbn")?;
        let size = column(&["size"]).context("no column size")?;
        let (time, ttl) = (column(&["time"]), column(&["ttl"]));
        let mut requests = Vec::new();
        for line in lines {
            let fields: Vec<&str> = line.split(',').collect();
            let number = |at: usize| -> anyhow::Result<u64> {
                let field = fields.get(at).context("too few fields")?;
                field.parse().with_context(|| format!("no number: {field}"))
            };
            requests.push(Request {
                at_secs: time.map(number).transpose()?.unwrap_or(0),
                key: number(key)?,
                size: u32::try_from(number(size)?)?,
                ttl: ttl.map(number).transpose()?.map_or(NO_END, Duration::from_secs),
            });
        }
        ensure!(!requests.is_empty(), "{} holds no request", path.display());
        ensure!(requests.is_sorted_by_key(|request| request.at_secs), "the times fall");
        let start = requests[0].at_secs;
        requests.iter_mut().for_each(|request| request.at_secs -= start);
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Trace { name, requests })
    }

    /// Writes it so that [`Trace::read`] and the simulator can read it.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = String::from("time,key,size,ttl\n");
        for Request { at_secs, key, size, ttl } in &self.requests {
            writeln!(text, "{at_secs},{key},{size},{}", ttl.as_secs())?;
        }
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The number of different objects, and the sum of their sizes when last asked for.
    pub fn footprint(&self) -> (usize, u64) {
        let sizes: HashMap<u64, u32> =
            self.requests.iter().map(|request| (request.key, request.size)).collect();
        (sizes.len(), sizes.values().map(|size| u64::from(*size)).sum())
    }
}
