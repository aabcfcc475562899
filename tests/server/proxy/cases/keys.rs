//! Goal: two requests get one stored response only if the origin takes them for the same. Method: an
//! origin that says in the body what it was asked for.

use crate::proxy::origin::Origin;
use crate::proxy::reply::Reply;
use crate::proxy::rig::Rig;

fn echo() -> Origin {
    Origin::start(|seen| {
        let host = seen.header("host").unwrap_or_default();
        Reply::ok(format!("{host} {}", seen.target)).control("max-age=60")
    })
}

#[track_caller]
fn ask(rig: &Rig, target: &str, host: &str) -> (Vec<u8>, bool) {
    let mut client = rig.client();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    let answer = client.answer("GET").expect(200);
    let is_hit = answer.verdict().hit;
    (answer.body, is_hit)
}

#[test]
fn hosts_and_targets_are_kept_apart() {
    let rig = Rig::of(echo());
    let targets =
        ["/a", "/A", "/a/", "/a?", "/a?b", "/a?B", "/a?b&c", "/a?c&b", "/%61", "//a", "/a;b"];
    for host in ["h", "other", "h:81", "h.h"] {
        for target in targets {
            let (body, is_hit) = ask(&rig, target, host);
            assert_eq!((body, is_hit), (format!("{host} {target}").into_bytes(), false));
        }
    }
    let asked = rig.origin.count();
    for host in ["h", "other", "h:81", "h.h"] {
        for target in targets {
            let (body, is_hit) = ask(&rig, target, host);
            assert_eq!((body, is_hit), (format!("{host} {target}").into_bytes(), true));
        }
    }
    rig.expect_asked(asked);
}

/// RFC 9110, section 4.2.3.
#[test]
fn names_of_one_host_are_one() {
    let rig = Rig::of(echo());
    ask(&rig, "/a", "h");
    rig.settled("/a", "").expect_hit();
    for host in ["H", "h:80", "H:80"] {
        assert_eq!(ask(&rig, "/a", host), (b"h /a".to_vec(), true), "{host}");
    }
}

/// RFC 9112, section 3.2.2: what the target names counts, for the key and for the origin.
#[test]
fn a_target_in_absolute_form_outranks_host() {
    let rig = Rig::of(echo());
    assert_eq!(ask(&rig, "http://victim/a", "evil"), (b"victim /a".to_vec(), false));
    assert_eq!(ask(&rig, "/a", "evil"), (b"evil /a".to_vec(), false));
    assert_eq!(ask(&rig, "/a", "victim"), (b"victim /a".to_vec(), true));
    assert_eq!(ask(&rig, "HTTP://VICTIM:80/a", "x"), (b"victim /a".to_vec(), true));
    for seen in rig.origin.seen() {
        assert!(seen.target.starts_with('/'), "{}", seen.target);
    }
}

#[test]
fn what_a_proxy_says_of_its_client_is_a_part_of_the_key_but_not_who_the_client_is() {
    let rig = Rig::of(echo());
    rig.fill("/a", "X-Forwarded-Host: evil\r\nX-Forwarded-For: 192.0.2.1\r\n");
    let evil = "X-Forwarded-Host: evil\r\nX-Forwarded-For: 192.0.2.2\r\n";
    rig.get_with("/a", evil).expect_body(200, "h /a").expect_hit();
    rig.fill("/a", "X-Forwarded-Host: other\r\n");
    rig.fill("/a", "");
    rig.fill("/a", "Forwarded: for=192.0.2.1;host=evil\r\n");
}

#[test]
fn an_operator_can_make_a_field_a_part_of_the_key() {
    let rig = Rig::with(echo(), |proxy| {
        proxy.key_headers = vec!["x-forwarded-proto".parse().unwrap()];
    });
    rig.fill("/a", "X-Forwarded-Proto: https\r\n");
    rig.fill("/a", "X-Forwarded-Proto: http\r\n");
    rig.fill("/a", "");
    rig.get_with("/a", "X-Forwarded-Proto: https\r\n").expect_hit();
    // A change removes what is stored under each of them that it knows.
    rig.expect_asked(3);
}

#[test]
fn an_operator_can_leave_parameters_out_of_the_key() {
    let rig = Rig::with(echo(), |proxy| proxy.ignore_query = vec!["utm".to_owned()]);
    // The origin is not told either: what it makes of them would be everybody's.
    rig.fill("/a?x=1&utm=2", "").expect_body(200, "h /a?x=1");
    for target in ["/a?x=1", "/a?utm=9&x=1", "/a?x=1&utm", "/a?utm=&x=1&utm=3"] {
        rig.get(target).expect_hit();
    }
    for target in ["/a?x=2", "/a?x=1&utmost=2", "/a?x=1&UTM=2", "/a"] {
        rig.fill(target, "").expect_body(200, format!("h {target}"));
    }
    rig.fill("/b?utm=2", "").expect_body(200, "h /b");
}

#[test]
fn only_options_is_about_the_server() {
    let rig = Rig::of(echo());
    let mut client = rig.client();
    client.send("GET * HTTP/1.1\r\nHost: h\r\n\r\n");
    client.answer("GET").expect(400);
    rig.get("/").expect_forwarded("uri-miss");
    rig.ask("OPTIONS", "*", "", b"").expect(200);
    assert_eq!(rig.origin.last().target, "*");
}

/// Else a redirect that an origin makes of it would be everybody's.
#[test]
fn the_origin_gets_the_host_that_the_key_has() {
    let rig = Rig::of(echo());
    for host in ["H:80", "h:", "h"] {
        ask(&rig, "/a", host);
    }
    assert_eq!(rig.origin.only().header("host"), Some("h"));
}
