//! Traces of requests in CSV with a heading line. Owns the columns it knows and what it refuses;
//! never makes a request.

use std::collections::HashMap;
use std::io::BufRead;

use anyhow::{Context as _, bail, ensure};

use super::sizes::LEN_MAX;

const KEY_COLUMNS: [&str; 5] = ["key", "obj_id", "object", "id", "lbn"];
const SIZE_COLUMNS: [&str; 4] = ["size", "obj_size", "bytes", "len"];
/// Longest trace: a line takes four bytes of memory, a key some fifty.
const LINES_MAX: usize = 200_000_000;

/// What was asked for, in order.
#[derive(Debug, PartialEq, Eq)]
pub struct Trace {
    /// The number of the key of each line; keys are numbered as they come.
    pub keys: Vec<u32>,
    /// The size of each key, in bytes: that of its first line.
    pub sizes: Vec<u32>,
}

impl Trace {
    /// Reads a trace. Other columns than key and size are ignored.
    ///
    /// # Errors
    /// The input fails, a column is missing, a line has too few columns, or a size that is not a
    /// number or too large, or there are no lines; the message names the line.
    pub fn read(input: impl BufRead) -> anyhow::Result<Trace> {
        let mut lines = input.lines();
        let heading = lines.next().context("the trace is empty")??;
        let names: Vec<_> = heading.split(',').map(|name| name.trim().to_lowercase()).collect();
        let key_column = column(&names, &KEY_COLUMNS)?;
        let size_column = column(&names, &SIZE_COLUMNS)?;
        let mut trace = Trace { keys: Vec::new(), sizes: Vec::new() };
        let mut numbers: HashMap<Box<str>, u32> = HashMap::new();
        for (number, line) in (2..).zip(lines) {
            let line = line.with_context(|| format!("line {number}"))?;
            let fields: Vec<_> = line.split(',').map(str::trim).collect();
            ensure!(
                fields.len() == names.len(),
                "line {number} has {} columns, the heading has {}",
                fields.len(),
                names.len()
            );
            ensure!(trace.keys.len() < LINES_MAX, "the trace has over {LINES_MAX} lines");
            let (name, size) = (fields[key_column], fields[size_column]);
            ensure!(!name.is_empty(), "line {number} has no key");
            let size = match size.parse::<u32>() {
                Ok(bytes) if bytes as usize <= LEN_MAX => bytes,
                Ok(_) => bail!("line {number}: {size} is too long: values have at most {LEN_MAX}"),
                Err(_) => bail!("line {number}: {size:?} is no size in bytes"),
            };
            let key = match numbers.get(name) {
                Some(key) => *key,
                None => {
                    let key = u32::try_from(trace.sizes.len())?;
                    numbers.insert(name.into(), key);
                    trace.sizes.push(size);
                    key
                }
            };
            trace.keys.push(key);
        }
        ensure!(!trace.keys.is_empty(), "the trace has no requests");
        Ok(trace)
    }
}

fn column(names: &[String], known: &[&str]) -> anyhow::Result<usize> {
    let found = known.iter().find_map(|known| names.iter().position(|name| name == known));
    found.with_context(|| format!("the heading of the trace has no column {}", known.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Trace> {
        Trace::read(text.as_bytes())
    }

    #[test]
    fn keys_are_numbered_as_they_come_and_keep_their_first_size() {
        let text = "version,time,op,size,lbn\n1,5,2a,512,900\n1,6,28,4096,17\n1,6,28,1024,900\n";
        let expected = Trace { keys: vec![0, 1, 0], sizes: vec![512, 4096] };
        assert_eq!(read(text).unwrap(), expected);
        assert_eq!(read("Key, Bytes\r\n/a, 1\r\n/b, 0\r\n").unwrap().sizes, [1, 0]);
    }

    #[test]
    fn bad_lines_are_refused_by_number() {
        for (text, complaint) in [
            ("", "empty"),
            ("key,size\n", "no requests"),
            ("time,size\n1,2\n", "no column key"),
            ("key,time\n1,2\n", "no column size"),
            ("key,size\n1,2\n1\n", "line 3 has 1 columns"),
            ("key,size\n1,2,3\n", "line 2 has 3 columns"),
            ("key,size\n1,-2\n", "line 2: \"-2\" is no size"),
            ("key,size\n1,2\n1,2\n1,x\n", "line 4: \"x\""),
            ("key,size\n1,99999999\n", "line 2: 99999999 is too long"),
            ("key,size\n,9\n", "line 2 has no key"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(complaint), "{text:?}: {error}");
        }
    }
}
