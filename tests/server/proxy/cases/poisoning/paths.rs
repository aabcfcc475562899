//! Goal: targets that some readers take for one are two here, and no parameter hides in another.

use super::run;
use crate::proxy::origin::Origin;
use crate::proxy::reply::Reply;
use crate::proxy::rig::Rig;

#[test]
fn targets_that_an_origin_may_take_for_one_are_kept_apart() {
    for (attack, target) in [
        ("/%61", "/a"),
        ("/a%2Fb", "/a/b"),
        ("/a%2fb", "/a%2Fb"),
        ("/%2e/a", "/a"),
        ("/b/%2e%2e/a", "/a"),
        ("/./a", "/a"),
        ("/b/../a", "/a"),
        ("/..;/a", "/a"),
        ("//a", "/a"),
        ("/a/", "/a"),
        ("/\\a", "/a"),
        ("/a\\b", "/a/b"),
        ("/a%5Cb", "/a\\b"),
        ("/a;x=evil", "/a"),
        ("/a%3Fb", "/a?b"),
        ("/a%23", "/a"),
        ("/a%00", "/a"),
        ("/a%0d%0aX:%20evil", "/a"),
        ("/a?", "/a"),
        ("/a?b;c", "/a?b&c"),
        ("/a?b&b", "/a?b"),
        ("/A", "/a"),
    ] {
        let bytes = format!("GET {attack} HTTP/1.1\r\nHost: h\r\n\r\n");
        let expected = format!("GET h {target} [] ");
        let (rig, answer) = run(&[bytes], target, &expected).remove(0);
        assert_eq!(rig.origin.seen()[0].target, attack, "as it came");
        assert_eq!(answer.body, format!("GET h {attack} [] ").into_bytes());
        rig.expect_asked(2);
    }
}

/// What is no part of the key is hidden from the key with all that some readers find in it.
#[test]
fn a_parameter_that_is_left_out_hides_no_other() {
    // What an application finds of `x`, and what begins at `;` and at a second `?` too.
    let origin = || {
        Origin::start(|seen| {
            let query = seen.target.split_once('?').map_or("", |(_, query)| query);
            let of_x = query.split(['&', ';', '?']).filter(|parameter| parameter.starts_with("x="));
            Reply::ok(of_x.collect::<Vec<_>>().join(",")).control("max-age=60")
        })
    };
    for (attack, clean, expected) in [
        ("/a?utm=1;x=evil", "/a", ""),
        ("/a?utm=1;x=evil", "/a?utm=1", ""),
        ("/a?utm=1?x=evil", "/a", ""),
        ("/a?x=1&utm=1;x=evil", "/a?x=1", "x=1"),
        ("/a?utm=1;x=evil&x=1", "/a?x=1", "x=1"),
        ("/a?utm;x=evil", "/a", ""),
        ("/a?utm=1&x=evil", "/a", ""),
    ] {
        let rig = Rig::with(origin(), |proxy| proxy.ignore_query = vec!["utm".to_owned()]);
        for _ in 0..2 {
            let answer = rig.settled(attack, "").expect(200);
            assert!(answer.body.ends_with(b"x=evil") || answer.body.starts_with(b"x=evil"));
            rig.settled(clean, "").expect_body(200, expected);
        }
        rig.expect_asked(2);
    }
}
