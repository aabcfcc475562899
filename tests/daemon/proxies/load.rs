//! A daemon that is killed under load costs the requests that it had in hand, and nothing else.
//!
//! `RAWCACHED_TEST_PROXY_LOAD_SECS` is how long the load lasts before the kill, and after it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::client::{Answer, Client, End};
use super::origin::Place;
use super::recipe::Proxy;
use super::reply::Reply;
use super::site::{Site, is_ours};
use crate::support::http::body;
use crate::support::waiting::now;

/// Clients with a connection each, which together ask 200 times a second.
const CLIENTS: u32 = 20;
const INTERVAL: Duration = Duration::from_millis(100);
const SECS: u64 = 2;
/// Pages that are stored before the load begins.
const HOT_PAGES: u32 = 20;
/// From the end of a start on until all proxies have seen it. They look once a second.
const SEEN: Duration = Duration::from_secs(2);

/// A request of the load.
struct Asked {
    line: String,
    began: Instant,
    ended: Instant,
    /// Whether it was a hit, or what was wrong.
    outcome: Result<bool, String>,
}

/// Ends the load when it is dropped, also when a test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The body of a page of this load.
fn page(target: &str) -> Vec<u8> {
    [target.as_bytes(), b" ", &body(target.len() * 700)].concat()
}

/// Sends a request and reads the answer, which has to have this body.
fn ask(client: &mut Client, line: &str, sent: &[u8], expected: &[u8]) -> Result<Answer, String> {
    let method = line.split(' ').next().unwrap();
    let length = format!("Content-Length: {}\r\n", sent.len());
    let length = if method == "POST" { &length } else { "" };
    client.try_send(
        [format!("{line} HTTP/1.1\r\nHost: h\r\n{length}\r\n").as_bytes(), sent].concat(),
    );
    let head = client.try_head(method).ok_or("no answer")?;
    let answer = client.finish(head);
    if answer.status != 200 || answer.end != End::Whole {
        return Err(format!("{answer:?}"));
    }
    assert!(answer.body == expected, "wrong bytes for {line}: {answer:?}");
    Ok(answer)
}

/// What one client asks until the end.
fn load(front: &Place, number: u32, is_over: &AtomicBool) -> Vec<Asked> {
    let (mut client, mut asked) = (Client::to(front), Vec::new());
    let start = now() + INTERVAL * number / CLIENTS;
    for round in 0.. {
        std::thread::sleep((start + INTERVAL * round).saturating_duration_since(now()));
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("{number}-{round}");
        let (line, sent) = match round % 3 {
            0 => (format!("GET /hot/{}", (number + round) % HOT_PAGES), Vec::new()),
            1 => (format!("GET /{id}"), Vec::new()),
            _ => (format!("POST /post/{id}"), id.clone().into_bytes()),
        };
        let expected = page(line.split(' ').nth(1).unwrap());
        let began = now();
        let answer = ask(&mut client, &line, &sent, &expected);
        let ended = now();
        if answer.as_ref().map_or(true, |answer| answer.header("connection") == Some("close")) {
            client = Client::to(front);
        }
        let outcome = answer.map(|answer| is_ours(&answer) && answer.verdict().hit);
        asked.push(Asked { line, began, ended, outcome });
    }
    asked
}

fn a_kill_under_load_costs_what_is_in_flight(proxy: Proxy) {
    let secs = std::env::var("RAWCACHED_TEST_PROXY_LOAD_SECS");
    let span = Duration::from_secs(secs.map_or(SECS, |secs| secs.parse().unwrap()));
    let started = Site::start(proxy, |seen| Reply::ok(page(&seen.target)).control("max-age=600"));
    let Some(mut site) = started else { return };
    for number in 0..HOT_PAGES {
        site.hit(&format!("/hot/{number}"));
    }
    let is_over = AtomicBool::new(false);
    let mut asked = Vec::new();
    let (mut killing, mut killed, mut restarted) = (now(), now(), now());
    let front = site.front();
    std::thread::scope(|scope| {
        let (front, is_over) = (&front, &is_over);
        let clients: Vec<_> =
            (0..CLIENTS).map(|number| scope.spawn(move || load(front, number, is_over))).collect();
        let ending = Ending(is_over);
        std::thread::sleep(span);
        killing = now();
        site.daemon.kill();
        killed = now();
        std::thread::sleep(span);
        site.daemon.restart();
        restarted = now();
        std::thread::sleep(SEEN + Duration::from_secs(2));
        drop(ending);
        asked = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    });
    let failed: Vec<_> = asked.iter().filter(|asked| asked.outcome.is_err()).collect();
    for asked in &failed {
        let (since, until) =
            (asked.began.duration_since(killing), asked.ended.duration_since(killing));
        let was_in_flight = asked.began <= killed && asked.ended >= killing;
        let line = &asked.line;
        let all = failed.len();
        assert!(
            was_in_flight,
            "{line} failed {since:?} to {until:?} after the kill: {:?}; {all} failed\n{}",
            asked.outcome,
            site.log()
        );
    }
    let mut came: HashMap<String, u32> = HashMap::new();
    for seen in site.origin().seen().iter().filter(|seen| seen.method == "POST") {
        *came.entry(format!("POST {}", seen.target)).or_default() += 1;
    }
    let (mut hits_before, mut hits_again) = (0, 0);
    for asked in &asked {
        let times = came.get(&asked.line).copied().unwrap_or_default();
        if asked.line.starts_with("POST") {
            let is_right = times == 1 || (times == 0 && asked.outcome.is_err());
            assert!(is_right, "{} came {times} times, {:?}", asked.line, asked.outcome);
        }
        if !asked.line.contains("/hot/") {
            continue;
        }
        if asked.ended < killing {
            assert_eq!(asked.outcome, Ok(true), "{}", asked.line);
            hits_before += 1;
        }
        if asked.began > restarted + SEEN {
            assert_eq!(asked.outcome, Ok(true), "{}", asked.line);
            hits_again += 1;
        }
    }
    let whole = asked.len() - failed.len();
    println!("{proxy:?}: {whole} answered, {} cut by the kill", failed.len());
    assert!(hits_before > 50 && hits_again > 50, "hits: {hits_before}, {hits_again}");
    assert!(site.daemon.stop().success());
}

#[test]
fn nginx_goes_on() {
    a_kill_under_load_costs_what_is_in_flight(Proxy::Nginx);
}

#[test]
fn haproxy_goes_on() {
    a_kill_under_load_costs_what_is_in_flight(Proxy::Haproxy);
}
