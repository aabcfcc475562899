use http::StatusCode;

use super::*;
use crate::server::codec::head::LINES_MAX;
use crate::server::codec::head_reader::HEAD_LEN_MAX;
use crate::server::codec::response_head::ResponseFraming;

type Read = Result<Option<(ResponseHead, usize)>, Fault>;

fn read(stream: &[u8], piece: usize, method: &Method) -> Read {
    let mut heads = ResponseReader::default();
    let mut end = 0;
    loop {
        let found = heads.find(&stream[..end], method)?;
        if found.is_some() || end == stream.len() {
            return Ok(found);
        }
        end = stream.len().min(end + piece);
    }
}

/// The same in pieces of any length.
fn read_all(stream: &[u8], method: &Method) -> Read {
    let whole = read(stream, stream.len(), method);
    let shown = format!("{whole:?}");
    for piece in [1, 2, 3, 7, 64, 1000, 100_000] {
        // A byte at a time, a long head takes a while.
        if stream.len() / piece < 10_000 {
            assert_eq!(format!("{:?}", read(stream, piece, method)), shown, "{piece}");
        }
    }
    whole
}

fn head_to(method: &Method, stream: &str) -> ResponseHead {
    let (head, len) = read_all(stream.as_bytes(), method).unwrap().unwrap();
    assert_eq!(len, stream.len(), "{stream}");
    head
}

fn head(stream: &str) -> ResponseHead {
    head_to(&Method::GET, stream)
}

fn fault(stream: &[u8]) -> Fault {
    read_all(stream, &Method::GET).expect_err(&stream.escape_ascii().to_string())
}

#[test]
fn a_head_has_what_its_lines_say() {
    let found = head(
        "HTTP/1.1 404 Not\tFound \u{fc}\r\nX-A: 1\r\nCONTENT-LENGTH: \t007 \r\nX-A:  two words\t\r\n\
         Connection: Keep-Alive, X-A\r\nx-empty:\r\nX-b: \u{fc}\r\n\r\n",
    );
    assert_eq!(found.status, StatusCode::NOT_FOUND);
    assert_eq!(found.framing, ResponseFraming::Length(7));
    assert!(found.keeps_alive && !found.is_http_1_0);
    assert_eq!(found.nominated, ["x-a"]);
    let headers = found.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let headers: Vec<_> = headers.collect();
    let expected: [(&str, &[u8]); 4] =
        [("x-a", b"1"), ("x-a", b"two words"), ("x-empty", b""), ("x-b", "\u{fc}".as_bytes())];
    assert_eq!(headers, expected);
    for line in ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1 200 a  b:"] {
        assert_eq!(head(&format!("{line}\r\n\r\n")).status, StatusCode::OK, "{line}");
    }
    // Behind a head its body begins.
    let stream = b"HTTP/1.0 999 x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    let (head, len) = read_all(stream, &Method::GET).unwrap().unwrap();
    assert_eq!((head.status.as_u16(), head.is_http_1_0, len), (999, true, 18));
    assert!(read_all(b"", &Method::GET).unwrap().is_none());
    assert!(read_all(b"HTTP/1.1 200 OK\r\nX: y\r\n", &Method::GET).unwrap().is_none());
}

#[test]
fn status_method_and_fields_say_how_long_the_body_is() {
    use ResponseFraming::{Chunked, Length, None as Nothing, UntilClose};
    let (length, zero) = ("Content-Length: 5\r\n", "Content-Length: 0\r\n");
    let chunked = "Transfer-Encoding: Chunked\r\n";
    // Status, fields, framing after GET, whether the connection goes on.
    for (status, fields, framing, keeps_alive) in [
        (200, "", UntilClose, false),
        (200, length, Length(5), true),
        (200, zero, Length(0), true),
        (200, chunked, Chunked, true),
        (206, length, Length(5), true),
        (404, "", UntilClose, false),
        (999, chunked, Chunked, true),
        (100, "", Nothing, true),
        (103, zero, Nothing, true),
        (204, "", Nothing, true),
        (204, zero, Nothing, true),
        (204, length, Nothing, false),
        (204, chunked, Nothing, false),
        (304, "", Nothing, true),
        (304, length, Nothing, true),
        (304, chunked, Nothing, true),
    ] {
        let stream = format!("HTTP/1.1 {status} x\r\n{fields}\r\n");
        let found = head(&stream);
        assert_eq!((found.framing, found.keeps_alive), (framing, keeps_alive), "{stream}");
        let of_head = head_to(&Method::HEAD, &stream);
        assert_eq!(of_head.framing, Nothing, "{stream}");
        assert_eq!(of_head.keeps_alive, keeps_alive || framing == UntilClose, "{stream}");
        let len = (fields == length).then_some(5).or_else(|| (fields == zero).then_some(0));
        assert_eq!((found.announced_len, of_head.announced_len), (len, len), "{stream}");
    }
}

#[test]
fn a_head_says_whether_the_connection_goes_on() {
    for (connection, of_1_1, of_1_0) in [
        ("", true, false),
        ("Connection: keep-alive\r\n", true, true),
        ("Connection: close\r\n", false, false),
        ("Connection: keep-alive, close\r\n", false, false),
        ("Connection: closed\r\n", true, false),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n{connection}\r\n");
        assert_eq!(head(&text).keeps_alive, of_1_1, "{connection}");
        assert_eq!(head(&text.replace("1.1", "1.0")).keeps_alive, of_1_0, "{connection}");
    }
}

#[test]
fn heads_have_limits() {
    let lines = |count: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(count));
    assert_eq!(head(&lines(LINES_MAX)).headers.len(), LINES_MAX);
    assert_eq!(fault(lines(LINES_MAX + 1).as_bytes()), Fault::HEAD_LEN);
    let long = |len: usize| {
        let rest = "HTTP/1.1 200 OK\r\nX: \r\n\r\n".len();
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(len - rest))
    };
    assert_eq!(head(&long(HEAD_LEN_MAX)).headers.len(), 1);
    for len in [HEAD_LEN_MAX + 1, 2 * HEAD_LEN_MAX] {
        assert_eq!(fault(long(len).as_bytes()), Fault::HEAD_LEN);
    }
    for end in ["", "\r\n\r\n"] {
        let reason = format!("HTTP/1.1 200 {}{end}", "y".repeat(8 << 10));
        assert_eq!(fault(reason.as_bytes()), Fault::STATUS_LINE);
    }
}

#[test]
fn what_two_readers_could_take_for_two_things_is_refused() {
    let (length, chunked) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    let both = format!("{length}{chunked}");
    let twice = format!("{chunked}{chunked}");
    let differing = format!("{length}Content-Length: 6\r\n");
    let same = format!("{length}{length}");
    for (fields, fault_expected) in [
        (&*both, Fault::TWO_LENGTHS),
        (&*differing, Fault::LENGTH),
        (&*same, Fault::LENGTH),
        ("Content-Length: 5, 5\r\n", Fault::LENGTH),
        ("Content-Length: +5\r\n", Fault::LENGTH),
        ("Content-Length: -1\r\n", Fault::LENGTH),
        ("Content-Length:\r\n", Fault::LENGTH),
        ("Content-Length: 5 5\r\n", Fault::LENGTH),
        ("Content-Length: 0x5\r\n", Fault::LENGTH),
        ("Content-Length: 18446744073709551616\r\n", Fault::LENGTH),
        (&*twice, Fault::CODING),
        ("Transfer-Encoding: gzip, chunked\r\n", Fault::CODING),
        ("Transfer-Encoding: identity\r\n", Fault::CODING),
        ("Transfer-Encoding:\r\n", Fault::CODING),
        ("X: a\r\n b\r\n", Fault::FIELD),
        (" X: a\r\n", Fault::FIELD),
        ("X : a\r\n", Fault::FIELD),
        ("X\t: a\r\n", Fault::FIELD),
        ("X\r\n", Fault::FIELD),
        (": a\r\n", Fault::FIELD),
        ("X: a\rb\r\n", Fault::FIELD),
        ("X: a\0b\r\n", Fault::FIELD),
        ("X: a\x7fb\r\n", Fault::FIELD),
        ("X: a\nY: b\r\n", Fault::LINE_END),
        ("\nX: b\r\n", Fault::LINE_END),
    ] {
        for status in ["200 OK", "304 x", "204 x"] {
            let stream = format!("HTTP/1.1 {status}\r\n{fields}\r\n");
            assert_eq!(fault(stream.as_bytes()), fault_expected, "{stream:?}");
            let to_head = read_all(stream.as_bytes(), &Method::HEAD);
            assert_eq!(to_head.unwrap_err(), fault_expected, "{stream:?}");
        }
    }
    let old = format!("HTTP/1.0 200 OK\r\n{chunked}\r\n");
    assert_eq!(fault(old.as_bytes()), Fault::CODING_OF_1_0);
    for fields in [length, chunked] {
        let interim = format!("HTTP/1.1 103 x\r\n{fields}\r\n");
        assert_eq!(fault(interim.as_bytes()), Fault::INTERIM_BODY);
    }
}

/// Nothing is waited for that cannot make it right, and the status line is judged first.
#[test]
fn the_status_line_is_judged_first() {
    for (line, expected) in [
        ("HTTP/2.0 200 OK", Fault::VERSION),
        ("HTTP/1.2 200 OK", Fault::VERSION),
        ("HTTP/1.1200 OK", Fault::STATUS_LINE),
        ("HTTP/1.1  200 OK", Fault::STATUS_LINE),
        ("HTTP/1.1 20 OK", Fault::STATUS_LINE),
        ("HTTP/1.1 2000 OK", Fault::STATUS_LINE),
        ("HTTP/1.1 099 OK", Fault::STATUS_LINE),
        ("HTTP/1.1 2x0 OK", Fault::STATUS_LINE),
        ("HTTP/1.1 200\tOK", Fault::STATUS_LINE),
        ("HTTP/1.1 200 O\rK", Fault::STATUS_LINE),
        ("HTTP/1.1 200 O\0K", Fault::STATUS_LINE),
        ("HTTP/1.1", Fault::STATUS_LINE),
        ("http/1.1 200 OK", Fault::STATUS_LINE),
        ("HTTPS/1.1 200 OK", Fault::STATUS_LINE),
        (" HTTP/1.1 200 OK", Fault::STATUS_LINE),
        ("ICY 200 OK", Fault::STATUS_LINE),
        ("", Fault::STATUS_LINE),
    ] {
        for rest in ["", "X : y\r\n\r\n", "X\n"] {
            assert_eq!(fault(format!("{line}\r\n{rest}").as_bytes()), expected, "{line:?}");
        }
    }
    for beginning in ["X", "HTTQ", "\n", "\r", "hello", "\x16\x03", "HTTP/1.1 200 OK\n"] {
        assert_eq!(fault(beginning.as_bytes()), Fault::STATUS_LINE, "{beginning:?}");
    }
}
