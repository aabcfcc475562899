//! Goal: fields, bodies and hosts that an origin answers by come to nobody who did not send them.

use super::{believed, get, run};

const CLEAN: &str = "GET h /a [] ";

/// Both what is a part of the key and what is passed.
#[test]
fn what_a_field_makes_an_origin_say_is_said_to_its_sender_only() {
    let names = [
        "X-Forwarded-Host: evil",
        "X-Forwarded-Port: 1",
        "X-Forwarded-Prefix: /evil",
        "X-Forwarded-Proto: evil",
        "X-Forwarded-Protocol: evil",
        "X-Forwarded-Scheme: evil",
        "X-Forwarded-Server: evil",
        "X-Forwarded-SSL: on",
        "Front-End-Https: on",
        "X-Url-Scheme: evil",
        "X-Host: evil",
        "X-Original-Host: evil",
        "X-HTTP-Host-Override: evil",
        "Forwarded: host=evil",
        "Forwarded: for=192.0.2.1;host=\"evil\"",
        "Forwarded: for=\"x host=evil\"",
        "Forwarded: for=192.0.2.1 host=evil",
        "X-Original-URL: /evil",
        "X-Rewrite-URL: /evil",
        "X-HTTP-Method-Override: DELETE",
        "X-HTTP-Method: DELETE",
        "X-Method-Override: DELETE",
        "X_Forwarded_Host: evil",
        "X-Forwarded_Host: evil",
        "X_Forwarded-Scheme: evil",
        "X_Host: evil",
        "X_HTTP_Host_Override: evil",
        "X_Original_URL: /evil",
        "X_HTTP_Method_Override: DELETE",
        "If_None_Match: \"a\"",
        "Accept_Language: evil",
        "X.Forwarded.Host: evil",
        "X!Host: evil",
    ];
    let attacks = names.map(get);
    for ((rig, answer), lines) in run(&attacks, "/a", CLEAN).into_iter().zip(names) {
        // It is not taken away: who sends it may have a reason.
        let seen = rig.origin.seen().remove(0);
        assert!(believed(&seen) != CLEAN && answer.body == believed(&seen).as_bytes(), "{lines}");
    }
}

/// They are of one client's copy, or of its connection, and not what is asked for others.
#[test]
fn what_is_of_one_client_does_not_reach_the_origin_on_behalf_of_all() {
    let lines = [
        "If-None-Match: \"a\"",
        "If-None-Match: *",
        "If-Modified-Since: Sun, 06 Nov 2094 08:49:37 GMT",
        "Range: bytes=0-0",
        "Range: bytes=900-",
        "Range: bytes=0-0\r\nIf-Range: \"a\"",
        "Connection: X-Forwarded-Host\r\nX-Forwarded-Host: evil",
        "Connection: close, X-Host\r\nX-Host: evil",
    ];
    for (rig, _) in run(&lines.map(get), "/a", CLEAN) {
        rig.expect_asked(1);
        assert_eq!(believed(&rig.origin.only()), CLEAN);
    }
}

#[test]
fn a_body_or_another_method_is_not_the_get_of_others() {
    let attacks = [
        "GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nevil".to_owned(),
        "GET /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"
            .to_owned(),
        "OPTIONS /a HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        "HEAD /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nevil".to_owned(),
    ];
    for (attack, (rig, answer)) in attacks.iter().zip(run(&attacks, "/a", CLEAN)) {
        let seen = rig.origin.seen().remove(0);
        assert_eq!(seen.body == b"evil", attack.contains("evil"));
        assert!(seen.method == "HEAD" || answer.body == believed(&seen).as_bytes());
    }
}

/// The origin gets the host that the key has, or nothing.
#[test]
fn a_host_is_read_in_one_way() {
    let head = |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for (attack, seen) in [
        (head("/a", "h."), Some("h.")),
        (head("/a", "h:8080"), Some("h:8080")),
        (head("/a", "h:0080"), Some("h:0080")),
        (head("/a", "h:443"), Some("h:443")),
        (head("/a", "%68"), Some("%68")),
        (head("/a", "h,evil"), Some("h,evil")),
        (head("http://evil/a", "h"), Some("evil")),
        (head("https://evil/a", "h"), Some("evil")),
        (head("http://h/a", "evil"), Some("h")),
        (head("http://H:80/a", "evil"), Some("h")),
        (head("//evil/a", "h"), Some("h")),
        (head("http://h@evil/a", "h"), None),
        (head("http://evil@h/a", "h"), None),
        (head("/a", "h@evil"), None),
        (head("/a", "evil@h"), None),
        (head("/a", "h:80@evil"), None),
        (head("/a", "h evil"), None),
        (head("/a", "h/evil"), None),
        (head("/a", "h\r\nHost: evil"), None),
        (head("/a", "evil\r\nHost: h"), None),
    ] {
        let text = attack.escape_debug().to_string();
        let (rig, answer) = run(&[attack], "/a", CLEAN).remove(0);
        let first = rig.origin.seen().remove(0);
        match seen {
            Some(host) => {
                assert_eq!(first.header("host"), Some(host), "{text}");
                assert_eq!(answer.body, believed(&first).as_bytes(), "{text}");
                assert!(first.target.starts_with('/'), "{text}");
            }
            None => {
                assert_eq!(answer.status, 400, "{text}");
                rig.expect_asked(1);
            }
        }
    }
}
