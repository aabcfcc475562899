//! Goal: what a head asks for has one reading. Method: request lines, targets, hosts and fields that
//! others read in two.

use super::{Case, One, OneOrRefused, Refused, SMUGGLED, get, run};

fn refused(cases: &[(&'static str, &str)]) -> Vec<Case> {
    cases.iter().map(|(name, bytes)| (*name, (*bytes).to_owned(), Refused)).collect()
}

/// RFC 9112, sections 2.2 and 3.
#[test]
fn a_request_line_has_three_words() {
    let mut cases = refused(&[
        ("two spaces", "GET  /a HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("two spaces behind", "GET /a  HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("space before", " GET /a HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("space at the end", "GET /a HTTP/1.1 \r\nHost: h\r\n\r\n"),
        ("tab", "GET\t/a HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("tab behind", "GET /a\tHTTP/1.1\r\nHost: h\r\n\r\n"),
        ("vertical tab", "GET /a\x0bHTTP/1.1\r\nHost: h\r\n\r\n"),
        ("four words", "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("two versions", "GET /a HTTP/1.1 HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("no version", "GET /a\r\n\r\n"),
        ("no version and a host", "GET /a\r\nHost: h\r\n\r\n"),
        ("HTTP/0.9", "GET /a HTTP/0.9\r\nHost: h\r\n\r\n"),
        ("HTTP/1.2", "GET /a HTTP/1.2\r\nHost: h\r\n\r\n"),
        ("HTTP/1.10", "GET /a HTTP/1.10\r\nHost: h\r\n\r\n"),
        ("HTTP/01.1", "GET /a HTTP/01.1\r\nHost: h\r\n\r\n"),
        ("HTTP/2.0", "GET /a HTTP/2.0\r\nHost: h\r\n\r\n"),
        ("small letters", "GET /a http/1.1\r\nHost: h\r\n\r\n"),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("no method", "/a HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("method with a colon", "GET: /a HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("method with a slash", "GET/ /a HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("method with NUL", "G\0ET /a HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("bare LF", "GET /a HTTP/1.1\nHost: h\r\n\r\n"),
        ("bare LFs", "GET /a HTTP/1.1\nHost: h\n\n"),
        ("bare CR", "GET /a HTTP/1.1\rHost: h\r\n\r\n"),
        ("CR CR LF", "GET /a HTTP/1.1\r\r\nHost: h\r\n\r\n"),
    ]);
    cases.push(("empty line before", format!("\r\n{}", get("")), OneOrRefused));
    cases.push(("LF before", format!("\n{}", get("")), OneOrRefused));
    run(cases);
}

/// RFC 9112, section 3.2; RFC 3986.
#[test]
fn a_target_is_printable_and_has_no_fragment() {
    let mut cases = refused(&[
        ("fragment", "GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("fragment at once", "GET /# HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("fragment alone", "GET # HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("fragment in the query", "GET /a?b#/../smuggled HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("fragment in absolute form", "GET http://h/a#b HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("fragment before the path", "GET http://h#@evil/a HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("NUL", "GET /a\0b HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("DEL", "GET /a\x7fb HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("CR", "GET /a\rb HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("not ASCII", "GET /\u{e4} HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("no slash", "GET a HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("query alone", "GET ?a HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("user", "GET http://h@evil/a HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("no host", "GET http:///a HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("one slash", "GET http:/h/a HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("another scheme", "GET ftp://h/a HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("backslash", "GET http://h\\@evil/a HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("bad port", "GET http://h:x/a HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("large port", "GET http://h:65536/a HTTP/1.1\r\nHost: h\r\n\r\n"),
    ]);
    let absolute =
        |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    cases.push(("absolute form", absolute("http://h/abs", "h"), One));
    cases.push(("absolute form, another Host", absolute("http://victim/abs", "evil"), One));
    cases.push(("absolute form, bad Host", absolute("http://victim/abs", "a b"), Refused));
    cases.push(("absolute form, no Host", "GET http://h/a HTTP/1.1\r\n\r\n".to_owned(), Refused));
    cases.push(("another authority in the path", absolute("//evil/abs", "h"), OneOrRefused));
    run(cases);
}

/// RFC 9112, section 3.2.
#[test]
fn a_request_has_one_host() {
    run(refused(&[
        ("none", "GET /a HTTP/1.1\r\n\r\n"),
        ("two", "GET /a HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n"),
        ("two others", "GET /a HTTP/1.1\r\nHost: h\r\nhost: evil\r\n\r\n"),
        ("list", "GET /a HTTP/1.1\r\nHost: h, evil\r\n\r\n"),
        ("two words", "GET /a HTTP/1.1\r\nHost: h evil\r\n\r\n"),
        ("path", "GET /a HTTP/1.1\r\nHost: h/evil\r\n\r\n"),
        ("scheme", "GET /a HTTP/1.1\r\nHost: http://h\r\n\r\n"),
        ("query", "GET /a HTTP/1.1\r\nHost: h?evil\r\n\r\n"),
        ("fragment", "GET /a HTTP/1.1\r\nHost: h#evil\r\n\r\n"),
        ("user", "GET /a HTTP/1.1\r\nHost: h@evil\r\n\r\n"),
        ("backslash", "GET /a HTTP/1.1\r\nHost: h\\evil\r\n\r\n"),
        ("bad port", "GET /a HTTP/1.1\r\nHost: h:x\r\n\r\n"),
        ("two ports", "GET /a HTTP/1.1\r\nHost: h:80:80\r\n\r\n"),
        ("bad address", "GET /a HTTP/1.1\r\nHost: [::x]\r\n\r\n"),
        ("before a space", "GET /a HTTP/1.1\r\nHost : h\r\n\r\n"),
        ("space before", "GET /a HTTP/1.1\r\n Host: h\r\n\r\n"),
        ("folded", "GET /a HTTP/1.1\r\nHost:\r\n h\r\n\r\n"),
        ("hidden by a fold", "GET /a HTTP/1.1\r\nHost: h\r\nX: y\r\n Host: evil\r\n\r\n"),
        ("NUL", "GET /a HTTP/1.1\r\nHost: h\0\r\n\r\n"),
    ]));
}

/// RFC 9112, section 5; RFC 9110, section 5.
#[test]
fn a_field_is_a_name_and_a_value_on_one_line() {
    let line = |line: &str| get(&format!("{line}\r\n"));
    run(vec![
        ("no colon", line("X"), Refused),
        ("no name", line(": y"), Refused),
        ("space before the colon", line("X : y"), Refused),
        ("tab before the colon", line("X\t: y"), Refused),
        ("space in the name", line("X Y: z"), Refused),
        ("parenthesis", line("X(Y): z"), Refused),
        ("NUL in the name", line("X\0: y"), Refused),
        ("not ASCII in the name", line("\u{e4}: y"), Refused),
        ("NUL", line("X: \0"), Refused),
        ("DEL", line("X: \x7f"), Refused),
        ("bare CR", line("X: a\rb"), Refused),
        ("CR at the end", line("X: a\r"), Refused),
        ("bare LF and a field", line("X: a\nY: b"), Refused),
        ("bare LF and a request", line(&format!("X: a\n\n{SMUGGLED}")), Refused),
        ("LF CR", line("X: a\n\rY: b"), Refused),
        ("fold", line("X: a\r\n b"), Refused),
        ("fold with tab", line("X: a\r\n\tb"), Refused),
        ("fold of nothing", line("X: a\r\n "), Refused),
        (
            "fold before the first field",
            "GET /a HTTP/1.1\r\n X: y\r\nHost: h\r\n\r\n".to_owned(),
            Refused,
        ),
        ("obs-text", line("X: \u{e4}"), OneOrRefused),
        ("empty value", line("X:"), One),
        ("all marks in the name", line("!#$%&'*+-.^_`|~: y"), One),
    ]);
}

/// Nothing behind them is a request.
#[test]
fn a_tunnel_is_not_opened() {
    run(vec![
        ("CONNECT", format!("CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n{SMUGGLED}"), Refused),
        ("CONNECT to a path", format!("CONNECT /a HTTP/1.1\r\nHost: h\r\n\r\n{SMUGGLED}"), Refused),
        (
            "h2c",
            {
                let fields = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
                          HTTP2-Settings: AAA\r\n";
                format!("{}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", get(fields))
            },
            Refused,
        ),
    ]);
}
