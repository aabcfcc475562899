//! One answer as a line of the log. Owns its fields.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderMap;
use ::http::header::HeaderName;
use serde::Serialize;

use super::writer::AccessLog;
use crate::clock::{Clock, Stopwatch, rfc3339};
use crate::server::codec::head::RequestHead;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Longest URL and client in a line, in bytes: they take memory as long as an answer is sent.
const TEXT_LEN_MAX: usize = 8 << 10;

/// A request that is being answered. Its line is handed to the log when this is dropped: however the answer ends.
pub(in crate::server::proxy) struct Entry {
    log: Arc<AccessLog>,
    watch: Stopwatch,
    listener: String,
    /// Milliseconds since the Unix epoch.
    began_at: i64,
    method: String,
    url: String,
    client: Option<String>,
    pub(in crate::server::proxy) status: Option<u16>,
    pub(in crate::server::proxy) result: Option<&'static str>,
    pub(in crate::server::proxy) first_byte: Option<Duration>,
    /// Bytes of the body that were sent.
    pub(in crate::server::proxy) bytes: u64,
    pub(in crate::server::proxy) is_whole: bool,
}

/// The line, in the order of its fields.
#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    listener: &'a str,
    method: &'a str,
    url: &'a str,
    status: Option<u16>,
    bytes: u64,
    complete: bool,
    duration: f64,
    cache: Option<&'static str>,
    upstream_first_byte: Option<f64>,
    client: Option<&'a str>,
}

impl Entry {
    /// Begins with what came to `listener`, at the present moment of `clock`.
    pub(in crate::server::proxy) fn begin(
        log: &Arc<AccessLog>,
        listener: &str,
        came: &RequestHead,
        clock: &Clock,
    ) -> Entry {
        Entry {
            log: Arc::clone(log),
            watch: Stopwatch::start(),
            listener: listener.to_owned(),
            began_at: clock.wall_ms(),
            method: came.method.to_string(),
            url: cut(url(came)),
            client: joined(&came.headers, &FORWARDED_FOR).map(cut),
            status: None,
            result: None,
            first_byte: None,
            bytes: 0,
            is_whole: false,
        }
    }

    fn line(&self) -> Vec<u8> {
        let line = Line {
            time: &rfc3339(self.began_at),
            listener: &self.listener,
            method: &self.method,
            url: &self.url,
            status: self.status,
            bytes: self.bytes,
            complete: self.is_whole,
            duration: secs(self.watch.elapsed()),
            cache: self.result,
            upstream_first_byte: self.first_byte.map(secs),
            client: self.client.as_deref(),
        };
        // Nothing of it can fail: there are strings and finite numbers.
        let mut line = serde_json::to_vec(&line).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.log.push(self.line());
    }
}

/// Of what clients may make long, the beginning.
fn cut(mut text: String) -> String {
    if text.len() > TEXT_LEN_MAX {
        let end = (0..=TEXT_LEN_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.shrink_to_fit();
    }
    text
}

/// Seconds, to the microsecond.
fn secs(duration: Duration) -> f64 {
    Duration::new(duration.as_secs(), duration.subsec_micros() * 1000).as_secs_f64()
}

/// The URL as the client of the proxy in front wrote it, as far as that says so.
fn url(came: &RequestHead) -> String {
    let path = came.target.path_and_query();
    let (is_https, host) = match came.target.authority() {
        Some(authority) => (authority.is_https, Some(&authority.host)),
        None => {
            let proto = came.headers.get(FORWARDED_PROTO);
            (
                proto.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"https")),
                came.host.as_ref(),
            )
        }
    };
    match host {
        Some(host) if path.starts_with('/') => {
            format!("{}://{host}{path}", if is_https { "https" } else { "http" })
        }
        _ => path.to_owned(),
    }
}

/// All lines of a field. What is not UTF-8 is shown as U+FFFD.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines = headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    let lines: Vec<Cow<'_, str>> = lines.collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}
