//! Goal: what is one user's is stored for nobody, whatever its target looks like ("web cache deception").

use crate::proxy::reply::Reply;
use crate::proxy::rig::Rig;

const TARGETS: [&str; 6] = [
    "/account.css",
    "/account/x.css",
    "/account;x.css",
    "/account%2Fx.css",
    "/account?x.css",
    "/static/..%2Faccount",
];

#[test]
fn no_name_makes_what_is_one_users_everybodys() {
    let cases: [&[(&str, &str)]; 7] = [
        &[("Cache-Control", "private, max-age=60")],
        &[("Cache-Control", "no-store")],
        &[("Cache-Control", "max-age=60"), ("Set-Cookie", "session=1")],
        &[("Cache-Control", "public, max-age=60"), ("Set-Cookie", "session=1")],
        &[("Cache-Control", "max-age=60"), ("Vary", "Cookie")],
        &[("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")],
        &[("Cache-Control", "no-cache"), ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")],
    ];
    for case in cases {
        let rig = Rig::start(move |seen| {
            // It has no memory of what it sent: nobody's 304 is a 200 of another one.
            let user = seen.header("cookie").unwrap_or("nobody").to_owned();
            let reply = Reply::ok(user).header("Content-Type", "text/css");
            case.iter().fold(reply, |reply, (name, value)| reply.header(name, value))
        });
        for target in TARGETS {
            for user in ["victim", "other"] {
                let cookie = format!("Cookie: {user}\r\n");
                rig.settled(target, &cookie).expect_body(200, user);
            }
            for _ in 0..2 {
                rig.settled(target, "").expect_body(200, "nobody");
                let body = rig.settled(target, "Cookie: evil\r\n").expect(200).body;
                assert!(body == b"evil" || body == b"nobody", "{}", body.escape_ascii());
            }
        }
    }
}

/// RFC 9111, section 3.5.
#[test]
fn credentials_are_not_deceived_either() {
    let rig = Rig::start(|seen| {
        let user = seen.header("authorization").unwrap_or("nobody").to_owned();
        Reply::ok(user).control("max-age=60").header("Content-Type", "text/css")
    });
    for target in TARGETS {
        rig.settled(target, "Authorization: victim\r\n").expect_body(200, "victim");
        rig.settled(target, "").expect_body(200, "nobody");
    }
}
