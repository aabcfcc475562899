//! Goal: where a chunk ends has one reading (RFC 9112, section 7.1). Method: sizes, ends, extensions and
//! trailers that others read in two.

use super::{Case, One, OneOrRefused, Refused, SMUGGLED, post, run};

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

fn refused(cases: &[(&'static str, &str)]) -> Vec<Case> {
    cases.iter().map(|(name, body)| (*name, chunked(body), Refused)).collect()
}

#[test]
fn a_size_is_hexadecimal_digits() {
    let mut cases = refused(&[
        ("prefix", "0x3\r\nabc\r\n0\r\n\r\n"),
        ("plus", "+3\r\nabc\r\n0\r\n\r\n"),
        ("minus", "-3\r\nabc\r\n0\r\n\r\n"),
        ("space before", " 3\r\nabc\r\n0\r\n\r\n"),
        ("tab before", "\t3\r\nabc\r\n0\r\n\r\n"),
        ("letters", "3g\r\nabc\r\n0\r\n\r\n"),
        ("underscore", "0_3\r\nabc\r\n0\r\n\r\n"),
        ("empty", "\r\nabc\r\n0\r\n\r\n"),
        ("extension alone", ";x\r\nabc\r\n0\r\n\r\n"),
        ("comma", "3,3\r\nabc\r\n0\r\n\r\n"),
        ("NUL", "3\0\r\nabc\r\n0\r\n\r\n"),
        ("other digits", "\u{663}\r\nabc\r\n0\r\n\r\n"),
        ("overflow", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
        ("overflow by zeros", "f0000000000000003\r\nabc\r\n0\r\n\r\n"),
        ("largest", "ffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
        ("zero with a prefix", "0x0\r\n\r\n"),
        ("minus zero", "-0\r\n\r\n"),
    ]);
    cases.push(("leading zeros", chunked("0003\r\nabc\r\n000\r\n\r\n"), One));
    cases.push(("case", chunked("A\r\nabcdefghij\r\na\r\nabcdefghij\r\n0\r\n\r\n"), One));
    cases.push(("space behind", chunked("3 \r\nabc\r\n0\r\n\r\n"), OneOrRefused));
    run(cases);
}

#[test]
fn a_chunk_ends_where_it_says() {
    run(refused(&[
        ("LF behind the size", "3\nabc\r\n0\r\n\r\n"),
        ("CR behind the size", "3\rabc\r\n0\r\n\r\n"),
        ("CR CR LF behind the size", "3\r\r\nabc\r\n0\r\n\r\n"),
        ("LF behind the bytes", "3\r\nabc\n0\r\n\r\n"),
        ("CR behind the bytes", "3\r\nabc\r0\r\n\r\n"),
        ("nothing behind the bytes", "3\r\nabc0\r\n\r\n"),
        ("two other bytes behind the bytes", "3\r\nabcXX0\r\n\r\n"),
        ("longer than it says", "3\r\nabcd\r\n0\r\n\r\n"),
        ("shorter than it says", "5\r\nabc\r\n0\r\n\r\n"),
        ("LF behind the last one", "3\r\nabc\r\n0\n\n"),
        ("CR behind the last one", "3\r\nabc\r\n0\r\r"),
        ("LF at the end", "3\r\nabc\r\n0\r\n\n"),
        ("CR LF before the first one", "\r\n3\r\nabc\r\n0\r\n\r\n"),
        ("no last one", "3\r\nabc\r\n"),
        ("no end", "3\r\nabc\r\n0\r\n"),
    ]));
}

/// Published as TERM.EXT, EXT.TERM, TERM.SPILL, SPILL.TERM, ONE.TWO, TWO.ONE, ZERO.TWO and TWO.ZERO.
#[test]
fn an_extension_hides_no_line() {
    let hidden = |begin: &str| format!("{begin}\r\n3\r\nabc\r\n0\r\n\r\n{SMUGGLED}0\r\n\r\n");
    let mut cases = vec![
        ("LF in an extension", chunked(&hidden("2;\nxx")), Refused),
        ("LF in the value of an extension", chunked(&hidden("2;a=b\nxx")), Refused),
        ("CR in an extension", chunked(&hidden("2;\rxx")), Refused),
        ("LF in a quoted value", chunked("3;a=\"\n\"\r\nabc\r\n0\r\n\r\n"), Refused),
        (
            "CR LF in a quoted value",
            chunked("3;a=\"\r\nabc\r\n0\r\n\r\n\"\r\nabc\r\n0\r\n\r\n"),
            OneOrRefused,
        ),
        ("NUL in an extension", chunked("3;a\0\r\nabc\r\n0\r\n\r\n"), Refused),
        ("extension of the last one with LF", chunked(&format!("0;\n{SMUGGLED}\r\n\r\n")), Refused),
        (
            "a long extension",
            { chunked(&format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(100_000))) },
            Refused,
        ),
    ];
    cases.push(("extension", chunked("3;a=b;c=\"d;e\"\r\nabc\r\n0;f\r\n\r\n"), OneOrRefused));
    run(cases);
}

#[test]
fn a_trailer_is_no_field_of_the_request_and_hides_no_line() {
    let body = |trailers: &str| chunked(&format!("3\r\nabc\r\n0\r\n{trailers}\r\n"));
    run(vec![
        ("trailer", body("X-T: 1\r\n"), One),
        ("length", body("Content-Length: 99\r\n"), OneOrRefused),
        ("coding", body("Transfer-Encoding: chunked\r\n"), OneOrRefused),
        ("host", body("Host: evil\r\n"), OneOrRefused),
        ("override", body("X-Original-URL: /smuggled\r\n"), OneOrRefused),
        ("space before the colon", body("X : y\r\n"), Refused),
        ("fold", body("X: y\r\n z\r\n"), Refused),
        ("no colon", body("X\r\n"), Refused),
        ("bare LF", body(&format!("X: y\n\n{SMUGGLED}")), Refused),
        ("bare CR", body("X: y\rz\r\n"), Refused),
        ("NUL", body("X: \0\r\n"), Refused),
        ("many", body(&"X: y\r\n".repeat(10_000)), Refused),
    ]);
}

/// What a trailer says reaches the origin under no name.
#[test]
fn trailers_do_not_reach_the_origin() {
    let rig = crate::proxy::rig::Rig::start(|_| crate::proxy::reply::Reply::ok("a"));
    let mut client = rig.client();
    client.send(chunked("3\r\nabc\r\n0\r\nX-T: 1\r\nHost: evil\r\n\r\n"));
    if client.answer("POST").status == 200 {
        let seen = rig.origin.only();
        assert_eq!((seen.header("x-t"), seen.header("host")), (None, Some("h")));
        assert_eq!(seen.body, b"abc");
    }
}
