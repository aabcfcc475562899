//! Heads of answers.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderMap, TRANSFER_ENCODING};
use http::{Method, StatusCode};
use httpdate::HttpDate;

use crate::clock::Clock;

/// The end of the year 9999, since the Unix epoch.
const LAST_SECOND: u64 = 253_402_300_799;

/// What tells a client that waits to send its body.
pub(in crate::server) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How the body of an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum BodyEnd {
    /// After so many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked,
    /// With the head, which says nothing of a body.
    Unsaid,
}

/// The head of an answer.
#[derive(Debug)]
pub(in crate::server) struct AnswerHead<'a> {
    pub(in crate::server) status: StatusCode,
    /// Without `Content-Length` and `Connection`, which are written from what is below.
    pub(in crate::server) headers: &'a HeaderMap,
    /// How the body ends.
    pub(in crate::server) end: BodyEnd,
    pub(in crate::server) keeps_alive: bool,
    /// The version of the request.
    pub(in crate::server) is_http_1_0: bool,
}

impl AnswerHead<'_> {
    /// Appends the head with its empty line to `output`. Without a `Date` of its own it gets the time.
    pub(in crate::server) fn write(&self, output: &mut Vec<u8>, clock: &Clock) {
        self.write_with(&[], output, clock);
    }

    /// The same with `lines` before the other fields: none, or whole ones with a `Date` among them.
    pub(in crate::server) fn write_with(&self, lines: &[u8], output: &mut Vec<u8>, clock: &Clock) {
        match self.status {
            StatusCode::OK => output.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
            status => {
                output.extend_from_slice(b"HTTP/1.1 ");
                output.extend_from_slice(status.as_str().as_bytes());
                output.push(b' ');
                let reason = status.canonical_reason().unwrap_or_default();
                output.extend_from_slice(reason.as_bytes());
                output.extend_from_slice(b"\r\n");
            }
        }
        debug_assert!(!self.headers.contains_key(CONTENT_LENGTH));
        debug_assert!(!self.headers.contains_key(TRANSFER_ENCODING));
        debug_assert!(!self.headers.contains_key(CONNECTION));
        output.extend_from_slice(lines);
        for (name, value) in self.headers {
            output.extend_from_slice(name.as_str().as_bytes());
            output.extend_from_slice(b": ");
            output.extend_from_slice(value.as_bytes());
            output.extend_from_slice(b"\r\n");
        }
        match self.end {
            _ if has_no_content(self.status) => {}
            BodyEnd::Length(len) => {
                output.extend_from_slice(b"content-length: ");
                output.extend_from_slice(itoa::Buffer::new().format(len).as_bytes());
                output.extend_from_slice(b"\r\n");
            }
            BodyEnd::Chunked => output.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            BodyEnd::Unsaid => {}
        }
        if lines.is_empty() && !self.headers.contains_key(DATE) {
            // Writing to memory does not fail.
            let _ = write!(output, "date: {}\r\n", HttpDate::from(date(clock.wall())));
        }
        match (self.keeps_alive, self.is_http_1_0) {
            (false, _) => output.extend_from_slice(b"connection: close\r\n"),
            (true, true) => output.extend_from_slice(b"connection: keep-alive\r\n"),
            (true, false) => {}
        }
        output.extend_from_slice(b"\r\n");
    }

    /// Whether the body of an answer to `method` is sent, or only its length.
    pub(in crate::server) fn sends_body(&self, method: &Method) -> bool {
        method != Method::HEAD && !has_no_content(self.status)
    }
}

/// Statuses that end with the head (RFC 9112, section 6.3).
fn has_no_content(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

/// `wall`, in seconds since the Unix epoch, as far as HTTP can write it: the years 1970 to 9999.
pub(in crate::server) fn date(wall: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(wall).unwrap_or(0).min(LAST_SECOND))
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;

    use super::*;
    use crate::clock::Timestamp;

    fn written(status: StatusCode, headers: &HeaderMap, keeps_alive: bool) -> String {
        let head =
            AnswerHead { status, headers, end: BodyEnd::Length(5), keeps_alive, is_http_1_0: true };
        let mut output = Vec::new();
        head.write(&mut output, &Clock::manual(Timestamp(0)));
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn heads_have_a_length_a_date_and_say_how_the_connection_goes_on() {
        let mut headers = HeaderMap::new();
        let date = "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
        assert_eq!(
            written(StatusCode::OK, &headers, true),
            format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n{date}connection: keep-alive\r\n\r\n")
        );
        for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
            let head = written(status, &headers, false);
            assert!(head.ends_with(&format!("\r\n{date}connection: close\r\n\r\n")), "{head}");
            assert!(!head.contains("length"), "{head}");
        }
        headers.insert(DATE, HeaderValue::from_static("now"));
        headers.append("x", HeaderValue::from_static("1"));
        headers.append("x", HeaderValue::from_static("2"));
        assert_eq!(
            written(StatusCode::NOT_FOUND, &headers, false),
            "HTTP/1.1 404 Not Found\r\ndate: now\r\nx: 1\r\nx: 2\r\ncontent-length: 5\r\n\
             connection: close\r\n\r\n"
        );
    }

    #[test]
    fn lines_that_are_there_are_sent_as_they_are() {
        let mut headers = HeaderMap::new();
        headers.insert("x", HeaderValue::from_static("1"));
        let (status, end) = (StatusCode::OK, BodyEnd::Length(5));
        let head =
            AnswerHead { status, headers: &headers, end, keeps_alive: true, is_http_1_0: false };
        let mut output = Vec::new();
        head.write_with(b"date: now\r\n", &mut output, &Clock::manual(Timestamp(0)));
        let expected = "HTTP/1.1 200 OK\r\ndate: now\r\nx: 1\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(output, expected.as_bytes());
    }

    #[test]
    fn some_answers_have_a_head_only() {
        let headers = HeaderMap::new();
        let sends = |status, method| {
            let (keeps_alive, is_http_1_0) = (true, false);
            AnswerHead {
                status,
                headers: &headers,
                end: BodyEnd::Length(5),
                keeps_alive,
                is_http_1_0,
            }
            .sends_body(&method)
        };
        assert!(sends(StatusCode::OK, Method::GET) && sends(StatusCode::NOT_FOUND, Method::PUT));
        assert!(
            !sends(StatusCode::OK, Method::HEAD) && !sends(StatusCode::NOT_FOUND, Method::HEAD)
        );
        assert!(!sends(StatusCode::NO_CONTENT, Method::PUT));
        assert!(!sends(StatusCode::NOT_MODIFIED, Method::GET));
    }
}
