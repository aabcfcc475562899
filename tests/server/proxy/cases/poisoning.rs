//! Goal: what one client causes stays with it: another one with nothing unusual in its request gets what it would
//! have got alone. Method: an origin that believes all that a request says, as applications do, and allows that its
//! answer is stored; each attack before such a client and behind it.

mod abuse;
mod deception;
mod errors;
mod fields;
mod paths;

use crate::proxy::client::{Answer, Client, request};
use crate::proxy::origin::{Origin, Seen};
use crate::proxy::reply::Reply;
use crate::proxy::rig::Rig;

/// Variables (RFC 3875, section 4.1.18) that applications make their answers of.
const BELIEVED: [&str; 24] = [
    "FORWARDED",
    "FRONT_END_HTTPS",
    "IF_MODIFIED_SINCE",
    "IF_NONE_MATCH",
    "IF_RANGE",
    "RANGE",
    "X_FORWARDED_HOST",
    "X_FORWARDED_PORT",
    "X_FORWARDED_PREFIX",
    "X_FORWARDED_PROTO",
    "X_FORWARDED_PROTOCOL",
    "X_FORWARDED_SCHEME",
    "X_FORWARDED_SERVER",
    "X_FORWARDED_SSL",
    "X_HOST",
    "X_HTTP_HOST_OVERRIDE",
    "X_HTTP_METHOD",
    "X_HTTP_METHOD_OVERRIDE",
    "X_METHOD_OVERRIDE",
    "X_ORIGINAL_HOST",
    "X_ORIGINAL_URL",
    "X_REWRITE_URL",
    "X_URL_SCHEME",
    "ACCEPT_LANGUAGE",
];

/// What an application makes of a request.
fn believed(seen: &Seen) -> String {
    let variable = |name: &str| -> String {
        let fold = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        name.chars().map(fold).collect()
    };
    let fields = seen.fields.iter().map(|(name, value)| (variable(name), value));
    let mut said: Vec<String> = fields
        .filter(|(name, _)| BELIEVED.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    said.sort();
    let (host, body) = (seen.header("host").unwrap_or_default(), seen.body.escape_ascii());
    format!("{} {host} {} {said:?} {body}", seen.method, seen.target)
}

fn believing() -> Origin {
    Origin::start(|seen| Reply::ok(believed(seen)).control("max-age=60"))
}

/// Sends `bytes` on a connection of their own; what comes of them.
fn send(mut client: Client, bytes: &str) -> Option<Answer> {
    client.try_send(bytes);
    client.half_close();
    let method = bytes.split(' ').next().unwrap_or_default();
    let answer = client.try_head(method)?;
    Some(client.finish(answer))
}

/// Sends each attack before a request for `target` that has nothing unusual, and behind it; `expected` is what that
/// gets. Gives what came of the attacks, with the rigs.
#[track_caller]
fn run(attacks: &[String], target: &str, expected: &str) -> Vec<(Rig, Answer)> {
    let mut answers = Vec::new();
    for bytes in attacks {
        let rig = Rig::of(believing());
        let text = bytes.escape_debug();
        let attack = send(rig.client(), bytes).unwrap_or_else(|| panic!("no answer to {text}"));
        for round in 0..2 {
            let answer = rig.settled(target, "").expect(200);
            let body = String::from_utf8(answer.body.clone()).unwrap();
            assert_eq!(body, expected, "round {round} after {text}: {:?}", rig.origin.seen());
            let again = send(rig.client(), bytes).unwrap();
            assert_eq!(again.status, attack.status, "{text}");
            assert!(again.body == attack.body, "{text} gets something else in round {round}");
        }
        assert!(rig.get(target).verdict().hit, "{text} keeps others from what is stored");
        answers.push((rig, attack));
    }
    answers
}

/// A GET of `/a` with these lines.
fn get(lines: &str) -> String {
    String::from_utf8(request("GET", "/a", &format!("{lines}\r\n"), b"")).unwrap()
}
