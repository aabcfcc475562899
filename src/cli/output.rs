//! Standard output. Owns how reports look and what happens when nobody reads them.

use std::io::{self, Write as _};

use serde::Serialize;
use serde_json::Value;

use crate::units::ByteSize;

/// The reader of standard output has gone.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub struct OutputClosed;

/// Writes `text` to standard output.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    written.map_err(closed_or_failed)
}

/// Tells a closed standard output from one that failed.
pub fn closed_or_failed(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        OutputClosed.into()
    } else {
        anyhow::Error::from(error).context("cannot write to standard output")
    }
}

/// Prints a report, as JSON if that was asked for or as lines of `name  value`.
pub fn print_report(report: &impl Serialize, json: bool) -> anyhow::Result<()> {
    if json { print_json(report) } else { print_lines(report) }
}

/// Prints a report as JSON.
pub fn print_json(report: &impl Serialize) -> anyhow::Result<()> {
    print(&(serde_json::to_string_pretty(&serde_json::to_value(report)?)? + "\n"))
}

/// Prints a report as lines of `name  value`.
pub fn print_lines(report: &impl Serialize) -> anyhow::Result<()> {
    print(&lines(&serde_json::to_value(report)?))
}

/// A report for people: field names without their unit, sizes in the largest exact unit, lists
/// indented below their name.
pub fn lines(report: &Value) -> String {
    let mut rows = Vec::new();
    if let Value::Object(fields) = report {
        for (name, value) in fields {
            add_rows(&mut rows, name, value);
        }
    }
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

fn add_rows(rows: &mut Vec<(String, String)>, name: &str, value: &Value) {
    let (title, in_bytes) = match name.strip_suffix("_bytes") {
        Some(title) => (title, true),
        None => (name, name == "size"),
    };
    let title = title.replace('_', " ");
    match value {
        Value::Array(items) if items.is_empty() => rows.push((title, "none".to_owned())),
        // A list of numbers reads well in one line.
        Value::Array(items) if items.iter().all(Value::is_number) => {
            let numbers: Vec<String> = items.iter().map(Value::to_string).collect();
            rows.push((title, numbers.join(" ")));
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let title = if index == 0 { title.clone() } else { String::new() };
                rows.push((title, scalar(item, false)));
            }
        }
        Value::Object(fields) => {
            for (inner, value) in fields {
                add_rows(rows, &format!("{name} {inner}"), value);
            }
        }
        value => rows.push((title, scalar(value, in_bytes))),
    }
}

fn scalar(value: &Value, in_bytes: bool) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_u64() {
            Some(bytes) if in_bytes => size(bytes),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

fn size(bytes: u64) -> String {
    let short = ByteSize(bytes).to_string();
    if bytes < 1024 || short.ends_with(&format!("{bytes}B")) {
        format!("{bytes} bytes")
    } else {
        format!("{short} ({bytes} bytes)")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reports_are_aligned_lines_with_readable_sizes() {
        let report = json!({
            "path": "/dev/x", "size_bytes": 1 << 30, "odd_bytes": 1_000_001, "direct_io": true,
            "holds": null, "damaged": ["a", "b"], "regions": {"free": 3, "used_bytes": 4096},
        });
        assert_eq!(
            lines(&report),
            "path          /dev/x\n\
             size          1GiB (1073741824 bytes)\n\
             odd           1000001 bytes\n\
             direct io     yes\n\
             holds         none\n\
             damaged       a\n\
             \x20             b\n\
             regions free  3\n\
             regions used  4KiB (4096 bytes)\n"
        );
    }
}
