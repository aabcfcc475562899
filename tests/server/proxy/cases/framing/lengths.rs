//! Goal: how long a request is has one reading. Method: lengths and codings that others read in two.

use super::{Case, Fate, One, OneOrRefused, Refused, SMUGGLED, post, run};

/// A body in chunks that is over before [`SMUGGLED`] for who reads chunks, and behind it for who reads
/// the length.
fn both(lines: &str) -> String {
    let behind = format!("0\r\n\r\n{SMUGGLED}");
    post(&lines.replace("LEN", &behind.len().to_string()), &behind)
}

/// A body in chunks, for who does not overlook the coding.
fn coded(lines: &str) -> String {
    post(lines, "3\r\nabc\r\n0\r\n\r\n")
}

/// Five bytes, for who does not overlook the length.
fn five(lines: &str) -> String {
    post(lines, "abcde")
}

fn refused(cases: &[(&'static str, String)]) -> Vec<Case> {
    cases.iter().map(|(name, bytes)| (*name, bytes.clone(), Refused)).collect()
}

/// RFC 9112, section 6.3, item 3.
#[test]
fn a_length_and_a_coding_are_not_both_believed() {
    run(refused(&[
        ("CL.TE", both("Content-Length: LEN\r\nTransfer-Encoding: chunked\r\n")),
        ("TE.CL", both("Transfer-Encoding: chunked\r\nContent-Length: LEN\r\n")),
        ("CL.TE, short", both("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")),
        ("CL 0 and TE", both("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n")),
        ("CL and unknown TE", both("Content-Length: LEN\r\nTransfer-Encoding: xchunked\r\n")),
        ("CL and identity", both("Content-Length: LEN\r\nTransfer-Encoding: identity\r\n")),
        ("CL and empty TE", both("Content-Length: LEN\r\nTransfer-Encoding:\r\n")),
        ("CL, TE named by Connection", {
            both(
                "Content-Length: LEN\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
            )
        }),
        ("TE, CL named by Connection", {
            both(
                "Connection: Content-Length\r\nContent-Length: LEN\r\nTransfer-Encoding: chunked\r\n",
            )
        }),
    ]));
}

/// RFC 9112, sections 6.1 and 7.
#[test]
fn only_one_chunked_is_a_coding() {
    run(refused(&[
        ("unknown", coded("Transfer-Encoding: xchunked\r\n")),
        ("identity", coded("Transfer-Encoding: identity\r\n")),
        ("chunked, identity", coded("Transfer-Encoding: chunked, identity\r\n")),
        ("gzip, chunked", coded("Transfer-Encoding: gzip, chunked\r\n")),
        ("chunked, gzip", coded("Transfer-Encoding: chunked, gzip\r\n")),
        ("twice in a line", coded("Transfer-Encoding: chunked, chunked\r\n")),
        (
            "twice in two lines",
            coded("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ),
        ("two lines, one hidden", coded("Transfer-Encoding: chunked\r\nTransfer-encoding: x\r\n")),
        (
            "two lines, the last counts",
            coded("Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n"),
        ),
        ("parameter", coded("Transfer-Encoding: chunked;q=1\r\n")),
        ("quoted", coded("Transfer-Encoding: \"chunked\"\r\n")),
        ("single-quoted", coded("Transfer-Encoding: 'chunked'\r\n")),
        ("two words", coded("Transfer-Encoding: chunked x\r\n")),
        ("before a space", coded("Transfer-Encoding : chunked\r\n")),
        ("before a tab", coded("Transfer-Encoding\t: chunked\r\n")),
        ("vertical tab", coded("Transfer-Encoding: \x0bchunked\r\n")),
        ("vertical tab behind", coded("Transfer-Encoding: chunked\x0b\r\n")),
        ("form feed", coded("Transfer-Encoding:\x0cchunked\r\n")),
        ("NUL", coded("Transfer-Encoding: chunked\0\r\n")),
        ("NUL in the name", coded("Transfer-Encoding\0: chunked\r\n")),
        ("backspace", coded("Transfer-Encoding: chunked\x08\r\n")),
        ("non-breaking space", coded("Transfer-Encoding:\u{a0}chunked\r\n")),
        ("soft letters", coded("Transfer-Encoding: chun\u{212a}ed\r\n")),
        ("bare CR before", coded("Transfer-Encoding:\rchunked\r\n")),
        ("bare CR behind", coded("Transfer-Encoding: chunked\r\r\n")),
        ("bare LF", coded("X: y\nTransfer-Encoding: chunked\r\n")),
        ("LF CR", coded("X: y\n\rTransfer-Encoding: chunked\r\n")),
        ("CR", coded("X: y\rTransfer-Encoding: chunked\r\n")),
        ("fold", coded("Transfer-Encoding:\r\n chunked\r\n")),
        ("fold with tab", coded("Transfer-Encoding: x\r\n\tchunked\r\n")),
        ("folded name", coded("X: y\r\n Transfer-Encoding: chunked\r\n")),
        ("space before the name", coded(" Transfer-Encoding: chunked\r\n")),
        ("HTTP/1.0", coded("Transfer-Encoding: chunked\r\n").replace("HTTP/1.1", "HTTP/1.0")),
        ("empty", coded("Transfer-Encoding:\r\n")),
    ]));
}

#[test]
fn what_may_be_read_in_one_way_only_is_read_so() {
    let cases: [(&'static str, String, Fate); 6] = [
        ("case", coded("transfer-ENCODING: CHUNKED\r\n"), One),
        ("white space", coded("Transfer-Encoding: \t chunked \t\r\n"), One),
        ("empty members", coded("Transfer-Encoding: ,chunked,\r\n"), OneOrRefused),
        ("another name", five("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n"), OneOrRefused),
        (
            "another name of the length",
            five("Content_Length: 9\r\nContent-Length: 5\r\n"),
            OneOrRefused,
        ),
        ("named by Connection", five("Connection: Content-Length\r\nContent-Length: 5\r\n"), One),
    ];
    run(cases.to_vec());
}

/// RFC 9112, section 6.3, items 4 and 5; RFC 9110, section 8.6.
#[test]
fn a_length_is_one_decimal_number() {
    let (five_twice, list) =
        ("Content-Length: 5\r\nContent-Length: 5\r\n", "Content-Length: 5, 5\r\n");
    let mut cases = refused(&[
        ("two lengths", five("Content-Length: 5\r\nContent-Length: 6\r\n")),
        ("two lengths, one of them zero", five("Content-Length: 0\r\nContent-Length: 5\r\n")),
        ("list", five("Content-Length: 5, 6\r\n")),
        ("plus", five("Content-Length: +5\r\n")),
        ("minus", five("Content-Length: -5\r\n")),
        ("hexadecimal", five("Content-Length: 0x5\r\n")),
        ("letters", five("Content-Length: 5a\r\n")),
        ("two words", five("Content-Length: 5 5\r\n")),
        ("underscore", five("Content-Length: 0_5\r\n")),
        ("fraction", five("Content-Length: 5.0\r\n")),
        ("exponent", five("Content-Length: 5e0\r\n")),
        ("empty", five("Content-Length:\r\n")),
        ("comma", five("Content-Length: 5,\r\n")),
        ("quoted", five("Content-Length: \"5\"\r\n")),
        ("overflow", five("Content-Length: 18446744073709551621\r\n")),
        ("overflow of 32 bits and a cut", five("Content-Length: 4294967301\r\n")),
        ("other digits", five("Content-Length: \u{665}\r\n")),
        ("NUL", five("Content-Length: 5\0\r\n")),
        ("vertical tab", five("Content-Length: \x0b5\r\n")),
        ("before a space", five("Content-Length : 5\r\n")),
        ("space before the name", five(" Content-Length: 5\r\n")),
        ("fold", five("Content-Length:\r\n 5\r\n")),
        ("bare CR", five("Content-Length: 5\rX: y\r\n")),
        ("bare LF", five("X: y\nContent-Length: 5\r\n")),
    ]);
    cases.push(("the same twice", five(five_twice), OneOrRefused));
    cases.push(("the same twice in a list", five(list), OneOrRefused));
    cases.push((
        "leading zeros",
        five("Content-Length: 000000000000000000000005\r\n"),
        OneOrRefused,
    ));
    cases.push(("white space", five("Content-Length: \t5 \t\r\n"), One));
    run(cases);
}

#[test]
fn a_body_is_not_read_as_a_request() {
    let length = SMUGGLED.len();
    let body = |method: &str, lines: &str| {
        format!(
            "{method} /a HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n{lines}\r\n{SMUGGLED}"
        )
    };
    run(vec![
        ("of a POST", body("POST", ""), One),
        ("of a GET", body("GET", ""), OneOrRefused),
        ("of a HEAD", body("HEAD", ""), OneOrRefused),
        ("of a DELETE", body("DELETE", ""), OneOrRefused),
        ("of an OPTIONS", body("OPTIONS", ""), OneOrRefused),
        ("of a TRACE", body("TRACE", ""), OneOrRefused),
        ("of what waits for leave", body("POST", "Expect: 100-continue\r\n"), One),
        (
            "of what waits for something else",
            body("POST", "Expect: y 100-continue\r\n"),
            OneOrRefused,
        ),
        (
            "of what changes the protocol",
            { body("POST", "Connection: Upgrade\r\nUpgrade: websocket\r\n") },
            OneOrRefused,
        ),
    ]);
}
