use http::Method;

use super::*;
use crate::server::codec::Framing;
use crate::server::codec::head::LINES_MAX;
use crate::server::codec::target::TARGET_LEN_MAX;

/// The head at the beginning of a stream and how long it is, read in pieces of `piece` bytes.
fn read(stream: &[u8], piece: usize) -> Result<Option<(RequestHead, usize)>, Fault> {
    let mut heads = HeadReader::default();
    let (mut start, mut end) = (0, 0);
    loop {
        match heads.find(&stream[start..end])? {
            Found::Head(head, len) => return Ok(Some((head, start + len))),
            Found::Nothing(done) => start += done,
        }
        if end == stream.len() {
            return Ok(None);
        }
        end = stream.len().min(end + piece);
    }
}

/// The same in pieces of any length.
fn read_all(stream: &str) -> Result<Option<(RequestHead, usize)>, Fault> {
    let whole = read(stream.as_bytes(), stream.len());
    let shown = format!("{whole:?}");
    for piece in [1, 2, 3, 7, 64, 1000, 100_000] {
        // A byte at a time, a long head takes a while.
        if stream.len() / piece < 10_000 {
            assert_eq!(format!("{:?}", read(stream.as_bytes(), piece)), shown, "{piece}");
        }
    }
    whole
}

fn head(stream: &str) -> RequestHead {
    let (head, len) = read_all(stream).unwrap().unwrap();
    assert_eq!(len, stream.len(), "{stream}");
    head
}

fn get(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
}

#[test]
fn a_head_has_what_its_lines_say() {
    let found = head(
        "\r\n\r\nPUT /a?b HTTP/1.1\r\nhost:x\r\nX-A: 1\r\nCONTENT-LENGTH: \t007 \r\nX-A:  two words\t\r\n\
         Connection: Keep-Alive, X-A\r\nx-empty:\r\nExpect: 100-Continue\r\nX-b: \u{fc}\r\n\r\n",
    );
    assert_eq!(found.method, Method::PUT);
    assert_eq!((found.target.path(), found.target.query()), ("/a", Some("b")));
    assert_eq!(found.framing, Framing::Length(7));
    assert!(found.waits && found.keeps_alive && !found.is_http_1_0);
    let headers = found.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let headers: Vec<_> = headers.collect();
    let expected: [(&str, &[u8]); 4] =
        [("x-a", b"1"), ("x-a", b"two words"), ("x-empty", b""), ("x-b", "\u{fc}".as_bytes())];
    assert_eq!(headers, expected);
    // Behind a head another begins.
    let two = get("") + &get("X: y\r\n");
    assert_eq!(read_all(&two).unwrap().unwrap().1, get("").len());
    assert!(read_all("").unwrap().is_none());
    assert!(read_all(get("").trim_end()).unwrap().is_none());
}

#[test]
fn a_head_says_whether_the_connection_goes_on() {
    for (connection, of_1_1, of_1_0) in [
        ("", true, false),
        ("Connection: keep-alive\r\n", true, true),
        ("Connection: close\r\n", false, false),
        ("Connection: keep-alive, close\r\n", false, false),
        ("Connection: close\r\nConnection: keep-alive\r\n", false, false),
        ("Connection: closed\r\n", true, false),
        ("Connection:\r\n", true, false),
    ] {
        let text = get(connection);
        assert_eq!(head(&text).keeps_alive, of_1_1, "{connection}");
        assert_eq!(head(&text.replace("1.1", "1.0")).keeps_alive, of_1_0, "{connection}");
        assert!(!head(&text.replace("GET /", "CONNECT x:80")).keeps_alive);
    }
}

#[test]
fn heads_have_limits() {
    let lines = |count: usize| get(&"X: y\r\n".repeat(count));
    assert_eq!(head(&lines(LINES_MAX - 1)).headers.len(), LINES_MAX - 1);
    assert_eq!(read_all(&lines(LINES_MAX)).unwrap_err(), Fault::HEAD_LEN);
    let long = |len: usize| get(&format!("X: {}\r\n", "y".repeat(len - get("").len() - 5)));
    assert_eq!(read_all(&long(HEAD_LEN_MAX)).unwrap().unwrap().1, HEAD_LEN_MAX);
    for len in [HEAD_LEN_MAX + 1, 2 * HEAD_LEN_MAX] {
        assert_eq!(read_all(&long(len)).unwrap_err(), Fault::HEAD_LEN);
    }
    let target = |len: usize| get("").replacen('/', &format!("/{}", "a".repeat(len - 1)), 1);
    assert_eq!(head(&target(TARGET_LEN_MAX)).target.path().len(), TARGET_LEN_MAX);
    for len in [TARGET_LEN_MAX + 1, TARGET_LEN_MAX + 200, 2 * HEAD_LEN_MAX] {
        assert_eq!(read_all(&target(len)).unwrap_err(), Fault::TARGET_LEN);
    }
    let endless = "GET /".to_owned() + &"a".repeat(2 * HEAD_LEN_MAX);
    assert_eq!(read_all(&endless).unwrap_err(), Fault::TARGET_LEN);
}

/// Nothing is waited for that cannot make it right.
#[test]
fn what_can_only_be_wrong_is_refused_at_once() {
    for (stream, fault) in [
        ("\x16\x03\x01", Fault::REQUEST_LINE),
        ("G\x01", Fault::REQUEST_LINE),
        ("get k\r\n", Fault::REQUEST_LINE),
        ("GET /\n", Fault::REQUEST_LINE),
        ("\r\n\r\n\r\n", Fault::REQUEST_LINE),
        ("GET / HTTP/2.0\r\n", Fault::VERSION),
        ("GET /# HTTP/1.1\r\n", Fault::FRAGMENT),
        ("GET /# HTTP/1.1\r\nX\n", Fault::FRAGMENT),
        ("GET x HTTP/1.1\r\n", Fault::TARGET),
        ("GET / HTTP/1.1\r\nHost: x\n", Fault::LINE_END),
    ] {
        assert_eq!(read_all(stream).unwrap_err(), fault, "{stream:?}");
    }
}

#[test]
fn the_request_line_is_judged_first() {
    let wrong = "Host: a b\r\nContent-Length: x\r\nExpect: x\r\nX : y\r\n\r\n";
    for (line, fault) in [
        ("GET /# HTTP/1.1", Fault::FRAGMENT),
        ("GET / HTTP/1.2", Fault::VERSION),
        ("GET / / HTTP/1.2", Fault::REQUEST_LINE),
        ("GET x HTTP/1.1", Fault::TARGET),
        ("GET / HTTP/1.1", Fault::FIELD),
    ] {
        assert_eq!(read_all(&format!("{line}\r\n{wrong}")).unwrap_err(), fault, "{line}");
    }
}
